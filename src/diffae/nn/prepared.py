"""A network's weights as its calls want them, made all at once for as many calls as the weights stay the same."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffae.nn.normalisation import Joined
from diffae.nn.unet import UNet


class Prepared:
    """Within it (`with`), convolutions and linear maps have their weights in another precision, cast all at once rather than one by
    one at each call; and the UNet has the linear maps of its blocks joined.

    Gradients go through to the weights themselves. What is computed in float32 keeps its weights as they are.

    Args:
        network: whose weights are meant.
        dtype: of the cast weights; None leaves them as they are.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype | None) -> None:
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)] if dtype else []
        self._places = [(m, name) for m in layers for name in ("weight", "bias") if getattr(m, name) is not None]
        self._weights: list[Tensor] = [getattr(m, name) for m, name in self._places]
        self._unets = [m for m in network.modules() if isinstance(m, UNet) and m.joins]
        self._dtype = dtype
        self._cast: Sequence[Tensor] = ()
        self._joined: list[Joined] = []

    def make(self) -> "Prepared":
        """Makes them of the weights as they are now."""
        if self._dtype is not None:
            self._cast = _Cast.apply(self._dtype, *self._weights)
        self._put()
        self._joined = [unet.join() for unet in self._unets]
        self._take()
        return self

    @torch.no_grad()
    def refresh(self) -> None:
        """Makes them anew, in the same places in memory."""
        before, joined = self._cast, self._joined
        if not (before or joined):
            self.make()
            return
        if before:
            torch._foreach_copy_(list(before), self._weights)
        self._put()
        for old, unet in zip(joined, self._unets, strict=True):
            torch._foreach_copy_(_tensors(old), _tensors(unet.join()))
        self._take()

    def __enter__(self) -> "Prepared":
        if not (self._cast or self._joined):
            self.make()
        self._put()
        for unet, joined in zip(self._unets, self._joined, strict=True):
            unet.joined = joined
        return self

    def __exit__(self, *_: Any) -> None:
        self._take()
        for unet in self._unets:
            unet.joined = None
        if torch.is_grad_enabled():  # Their gradients are of one step.
            self._cast, self._joined = (), []

    def _put(self) -> None:
        # An instance's own attribute is found before its parameter of the same name, which stays where it is.
        for (module, name), cast in zip(self._places, self._cast, strict=False):
            module.__dict__[name] = cast

    def _take(self) -> None:
        for module, name in self._places:
            module.__dict__.pop(name, None)


class _Cast(torch.autograd.Function):
    """Many tensors in another precision, by one command."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        cast = [torch.empty_like(t, dtype=dtype) for t in tensors]
        torch._foreach_copy_(cast, list(tensors))
        ctx.dtypes = [t.dtype for t in tensors]
        return tuple(cast)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found = [torch.empty_like(g, dtype=dtype) for g, dtype in zip(gradients, ctx.dtypes, strict=True)]
        torch._foreach_copy_(found, list(gradients))
        return None, *found


def _tensors(joined: Joined) -> list[Tensor]:
    return [*joined.time, *(joined.semantics or ())]
