"""Group normalisation, adaptive or not, with the SiLU and the dropout that follow it: one function (`kernels.normalisation`)."""

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
from diffae.runtime.seeding import Draws, mix


class Maps(NamedTuple):
    """What time and semantics say to one adaptive normalisation.

    Attributes:
        t: (n, 2 c), scale's half first.
        z: (n, c), or None.
    """

    t: Tensor
    z: Tensor | None


class Joined(NamedTuple):
    """The linear maps of several adaptive normalisations as one: weight and bias of time's, and of semantics'."""

    time: tuple[Tensor, Tensor]
    semantics: tuple[Tensor, Tensor] | None


class Dropout(NamedTuple):
    """Which values become zero: the same for an image of the same number, whatever batch it is in.

    Attributes:
        share: of the values, in 0..1.
        draws: of the images.
        place: of this dropout among those of its network.
    """

    share: float
    draws: Draws
    place: int


class GroupNorm(nn.GroupNorm):
    """Group normalisation with min(32, channels) groups, computed in float32 whatever the input's precision.

    Where that many groups do not divide the channels (no network of the paper), the largest power of two that does.
    """

    def __init__(self, channels: int) -> None:
        groups = min(32, channels)
        super().__init__(math.gcd(32, channels) if channels % groups else groups, channels)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The normalised images, in the precision of x."""
        return normalise(x, self, silu=False)


class NormSiLU(GroupNorm):
    """`SiLU(GroupNorm(x))`."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
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

    def forward(self, h: Float[Tensor, "n c h w"], maps: Maps, dropout: Dropout | None = None) -> Float[Tensor, "n c h w"]:
        """The images, modulated by what `maps_of` says."""
        return normalise(h, self.norm, maps, dropout=dropout)


def join(layers: Sequence[AdaGNSiLU]) -> Joined:
    """Their linear maps as one."""
    semantics = [layer.semantics for layer in layers if layer.semantics is not None]
    return Joined(_join([layer.time for layer in layers]), _join(semantics) if semantics else None)


def maps_of(
    layers: Sequence[AdaGNSiLU], t: Float[Tensor, "n k"], z_sem: Float[Tensor, "n d"] | None, joined: Joined | None = None
) -> list[Maps]:
    """What time and semantics say to each of several layers: two products for all of them, in place of two for each.

    Args:
        layers: adaptive normalisations of one network.
        t: embedded time, after SiLU.
        z_sem: after SiLU, or None.
        joined: `join(layers)`, where it is there already.
    """
    joined = joined or join(layers)
    of_t = F.linear(t, *joined.time).split([layer.time.out_features for layer in layers], dim=1)
    if z_sem is None or joined.semantics is None:
        return [Maps(part, None) for part in of_t]
    of_z = F.linear(z_sem, *joined.semantics).split([layer.norm.num_channels for layer in layers], dim=1)
    return [Maps(*parts) for parts in zip(of_t, of_z, strict=True)]


def normalise(
    x: Float[Tensor, "n c h w"], norm: GroupNorm, maps: Maps | None = None, *, silu: bool = True, dropout: Dropout | None = None
) -> Float[Tensor, "n c h w"]:
    """`Dropout(SiLU((GroupNorm(x) (1 + t_s) + t_b) (1 + z)))`, computed in float32; the result has the precision of x."""
    gamma, beta, groups, eps = norm.weight, norm.bias, norm.num_groups, norm.eps
    t, z = maps or (None, None)
    share, numbers, key = 0.0, None, 0
    if dropout is not None:
        share, numbers, key = dropout.share, dropout.draws.numbers, mix(dropout.draws.seed, "dropout", dropout.place)
    if torch.compiler.is_compiling() and x.is_cpu:
        # There compilers fuse by themselves what is done by hand, and do not see through it.
        scale, shift = kernels.affine(gamma, beta, t, z, len(x))
        y = torch.addcmul(_image(shift), F.group_norm(x.float(), groups, eps=eps), _image(scale))
        y = F.silu(y) if silu else y
        return (y if numbers is None else y * kernels.kept(numbers, key, share, x.shape)).to(x.dtype)
    settings = (groups, eps, silu, share, key)
    if not torch.is_grad_enabled():
        return _operator(x)[0](x, gamma, beta, t, z, numbers, *settings)[0]
    return _Normalise.apply(x, gamma, beta, t, z, numbers, *settings)


def _operator(x: Tensor) -> tuple[Any, Any]:
    """The operator and its gradient; on a processor the functions themselves, which are called sooner."""
    return (kernels.forward, kernels.backward) if x.is_cpu else (operators.normalise, operators.normalise_backward)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, t: Tensor | None, z: Tensor | None, numbers: Tensor | None,
        groups: int, eps: float, silu: bool, share: float, key: int,
    ) -> Tensor:  # fmt: skip
        y, mean, inverse = _operator(x)[0](x, gamma, beta, t, z, numbers, groups, eps, silu, share, key)
        ctx.save_for_backward(x, mean, inverse, gamma, beta, t, z, numbers)
        ctx.settings = (silu, share, key)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, inverse, gamma, beta, t, z, numbers = ctx.saved_tensors
        given = (dy, x, mean, inverse, gamma, beta, t, z, numbers)
        dx, daffine, dt, dz = _operator(x)[1](*given, *ctx.settings)
        dgamma, dbeta = daffine
        return dx, dgamma, dbeta, None if t is None else dt, None if z is None else dz, *[None] * 6


def _join(maps: Sequence[nn.Linear]) -> tuple[Tensor, Tensor]:
    return torch.cat([m.weight for m in maps]), torch.cat([m.bias for m in maps])


def _image(values: Float[Tensor, "n c"]) -> Float[Tensor, "n c 1 1"]:
    return values[:, :, None, None]
