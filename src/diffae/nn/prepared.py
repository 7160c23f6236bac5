"""A network's weights in the form that its calls use, computed once for all calls between two updates of the weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffae.nn.normalisation import FusedMaps
from diffae.nn.unet import UNet


class Prepared:
    """A context (`with`) in which convolutions and linear maps have weights of another precision, and UNets have fused maps.

    Weights are cast all at once, not one by one at each call. The linear maps of a UNet's blocks are one (`UNet.fuse_maps`).
    Gradients reach the weights themselves. Layers that compute in float32 keep their weights as they are.

    Args:
        network: the network.
        dtype: of the cast weights; None leaves them as they are.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype | None) -> None:
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.Linear)] if dtype else []
        self._owners = [(m, name) for m in layers for name in ("weight", "bias") if getattr(m, name) is not None]
        self._weights: list[Tensor] = [getattr(m, name) for m, name in self._owners]
        self._unets = [m for m in network.modules() if isinstance(m, UNet) and m.joins]
        self._dtype = dtype
        self._cast: Sequence[Tensor] = ()
        self._fused: list[FusedMaps] = []

    def make(self) -> "Prepared":
        """Casts and fuses the weights as they are now."""
        if self._dtype is not None:
            self._cast = _Cast.apply(self._dtype, *self._weights)
        self._substitute()
        self._fused = [unet.fuse_maps() for unet in self._unets]
        self._restore()
        return self

    @torch.no_grad()
    def refresh(self) -> None:
        """Casts and fuses them again, into the same memory."""
        if not (self._cast or self._fused):
            self.make()
            return
        if self._cast:
            torch._foreach_copy_(list(self._cast), self._weights)
        self._substitute()
        for fused, unet in zip(self._fused, self._unets, strict=True):
            torch._foreach_copy_(_tensors(fused), _tensors(unet.fuse_maps()))
        self._restore()

    def __enter__(self) -> "Prepared":
        if not (self._cast or self._fused):
            self.make()
        self._substitute()
        for unet, fused in zip(self._unets, self._fused, strict=True):
            unet.fused_maps = fused
        return self

    def __exit__(self, *_: Any) -> None:
        self._restore()
        for unet in self._unets:
            unet.fused_maps = None
        if torch.is_grad_enabled():  # Their graph serves one backward pass.
            self._cast, self._fused = (), []

    def _substitute(self) -> None:
        """Puts cast weights before the parameters. Python finds an instance's attribute before a parameter of the same name."""
        for (module, name), cast in zip(self._owners, self._cast, strict=False):
            module.__dict__[name] = cast

    def _restore(self) -> None:
        """Uncovers the parameters."""
        for module, name in self._owners:
            module.__dict__.pop(name, None)


class _Cast(torch.autograd.Function):
    """Many tensors in another precision, by one call."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        cast = [torch.empty_like(t, dtype=dtype) for t in tensors]
        torch._foreach_copy_(cast, list(tensors))
        ctx.dtypes = [t.dtype for t, trained in zip(tensors, ctx.needs_input_grad[1:], strict=True) if trained]
        # Nothing that is computed with weights that stay needs a gradient for their sake.
        ctx.mark_non_differentiable(*(c for c, trained in zip(cast, ctx.needs_input_grad[1:], strict=True) if not trained))
        return tuple(cast)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        trained = ctx.needs_input_grad[1:]
        needed = [g for g, asked in zip(gradients, trained, strict=True) if asked]
        cast = [torch.empty_like(g, dtype=dtype) for g, dtype in zip(needed, ctx.dtypes, strict=True)]
        torch._foreach_copy_(cast, needed)
        each = iter(cast)
        return None, *(next(each) if asked else None for asked in trained)


def _tensors(fused: FusedMaps) -> list[Tensor]:
    return [*fused.time, *(fused.semantics or ())]
