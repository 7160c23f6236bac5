"""Group normalisation, plain and adaptive, fused with the SiLU and the dropout that follow it (`kernels.normalisation`)."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from diffae.nn.kernels import normalisation as kernels
from diffae.nn.kernels import operators
from diffae.nn.space import stacked_slices
from diffae.runtime.seeding import Draws, mix


class Modulation(NamedTuple):
    """Scales and shifts of one adaptive normalisation, from time and semantics.

    Attributes:
        t: (n, 2 c), the scale first, then the shift.
        z: (n, c), a scale, or None.
    """

    t: Tensor
    z: Tensor | None


class FusedMaps(NamedTuple):
    """The linear maps of several adaptive normalisations as one map of time and one of semantics, each weight and bias."""

    time: tuple[Tensor, Tensor]
    semantics: tuple[Tensor, Tensor] | None


class Dropout(NamedTuple):
    """Which values become zero. It depends on the number of an image, and not on the batch that the image is in.

    Attributes:
        rate: the fraction of values that become zero, in 0..1.
        draws: of the images.
        layer: the number of this dropout among those of its network.
    """

    rate: float
    draws: Draws
    layer: int


class GroupNorm(nn.GroupNorm):
    """Group normalisation with min(32, channels) groups, computed in float32 whatever the input's precision.

    Where that many groups do not divide the channels (no network of the paper), the largest power of two that does.
    """

    def __init__(self, channels: int) -> None:
        groups = min(32, channels)
        super().__init__(math.gcd(32, channels) if channels % groups else groups, channels)

    def forward(self, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n c *sides"]:
        """The normalised images, in the precision of x."""
        return normalise(x, self, silu=False)


class NormSiLU(GroupNorm):
    """`SiLU(GroupNorm(x))`."""

    def forward(self, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n c *sides"]:
        return normalise(x, self)


class AdaGNSiLU(nn.Module):
    """Adaptive group normalisation on time and semantics (Preechakul et al. 2022, eq. 7), and SiLU.

    The paper writes `z_s (t_s GroupNorm(h) + t_b)`. As the authors run it, scales are offsets from 1 and z_sem only
    scales: `(GroupNorm(h) (1 + t_s) + t_b) (1 + z_s)`, each affine map preceded by a SiLU (applied once, in the UNet).
    """

    def __init__(self, channels: int, t_channels: int, z_dim: int | None) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.time = nn.Linear(t_channels, 2 * channels)
        self.semantics = nn.Linear(z_dim, channels) if z_dim else None

    def forward(
        self, h: Float[Tensor, "n c *sides"], modulation: Modulation, dropout: Dropout | None = None
    ) -> Float[Tensor, "n c *sides"]:
        """The normalised and modulated images. `modulations` makes the modulation."""
        return normalise(h, self.norm, modulation, dropout=dropout)


def fuse_maps(layers: Sequence[AdaGNSiLU]) -> FusedMaps:
    """The linear maps of these layers as one."""
    semantics = [layer.semantics for layer in layers if layer.semantics is not None]
    return FusedMaps(_fuse([layer.time for layer in layers]), _fuse(semantics) if semantics else None)


def modulations(
    layers: Sequence[AdaGNSiLU], t: Float[Tensor, "n k"], z_sem: Float[Tensor, "n d"] | None, fused: FusedMaps | None = None
) -> list[Modulation]:
    """The modulation of each layer, by two matrix products for all layers in place of two for each.

    Args:
        layers: adaptive normalisations of one network.
        t: embedded time, after SiLU.
        z_sem: after SiLU, or None.
        fused: `fuse_maps(layers)`, if it was computed before.
    """
    fused = fused or fuse_maps(layers)
    of_t = F.linear(t, *fused.time).split([layer.time.out_features for layer in layers], dim=1)
    if z_sem is None or fused.semantics is None:
        return [Modulation(part, None) for part in of_t]
    of_z = F.linear(z_sem, *fused.semantics).split([layer.norm.num_channels for layer in layers], dim=1)
    return [Modulation(*parts) for parts in zip(of_t, of_z, strict=True)]


def normalise(
    x: Float[Tensor, "n c *sides"],
    norm: GroupNorm,
    modulation: Modulation | None = None,
    *,
    silu: bool = True,
    dropout: Dropout | None = None,
) -> Float[Tensor, "n c *sides"]:
    """`Dropout(SiLU((GroupNorm(x) (1 + t_s) + t_b) (1 + z)))`, computed in float32; the result has the precision of x."""
    if x.dim() == 5:  # A volume is an image whose slices lie below one another: nothing is computed across pixels but sums.
        return normalise(stacked_slices(x), norm, modulation, silu=silu, dropout=dropout).unflatten(2, x.shape[2:4])
    gamma, beta, groups, eps = norm.weight, norm.bias, norm.num_groups, norm.eps
    t, z = modulation or (None, None)
    rate, numbers, key = 0.0, None, 0
    if dropout is not None:
        rate, numbers, key = dropout.rate, dropout.draws.numbers, mix(dropout.draws.seed, "dropout", dropout.layer)
    if torch.compiler.is_compiling() and x.is_cpu:
        # On a processor, compilers fuse these steps by themselves, but cannot look into what is fused by hand.
        scale, shift = kernels.affine(gamma, beta, t, z, x.shape[0])
        y = torch.addcmul(kernels.over_pixels(shift), F.group_norm(x.float(), groups, eps=eps), kernels.over_pixels(scale))
        y = F.silu(y) if silu else y
        return (y if numbers is None else y * kernels.dropout_mask(numbers, key, rate, x.shape)).to(x.dtype)
    settings = (groups, eps, silu, rate, key)
    if not torch.is_grad_enabled():
        return _operator(x)[0](x, gamma, beta, t, z, numbers, *settings)[0]
    return _Normalise.apply(x, gamma, beta, t, z, numbers, *settings)


def _operator(x: Tensor) -> tuple[Any, Any]:
    """The operator and its gradient. On a processor these are the plain functions, which take less time to call."""
    return (kernels.forward, kernels.backward) if x.is_cpu else (operators.normalise, operators.normalise_backward)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, t: Tensor | None, z: Tensor | None, numbers: Tensor | None,
        groups: int, eps: float, silu: bool, rate: float, key: int,
    ) -> Tensor:  # fmt: skip
        y, mean, inverse = _operator(x)[0](x, gamma, beta, t, z, numbers, groups, eps, silu, rate, key)
        ctx.save_for_backward(x, mean, inverse, gamma, beta, t, z, numbers)
        ctx.settings = (silu, rate, key)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, inverse, gamma, beta, t, z, numbers = ctx.saved_tensors
        dx, daffine, dt, dz = _operator(x)[1](dy, x, mean, inverse, gamma, beta, t, z, numbers, *ctx.settings)
        dgamma, dbeta = daffine
        return dx, dgamma, dbeta, None if t is None else dt, None if z is None else dz, *[None] * 6


def _fuse(maps: Sequence[nn.Linear]) -> tuple[Tensor, Tensor]:
    return torch.cat([m.weight for m in maps]), torch.cat([m.bias for m in maps])
