"""The blocks of the networks: residual block, self-attention, time embedding."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffae.nn.normalisation import AdaGNSiLU, Dropout, GroupNorm, Modulation, NormSiLU, modulations
from diffae.nn.resampling import add_upsampled, downsample, upsample
from diffae.nn.space import Convolution, Sides, convolution
from diffae.runtime.seeding import Draws

Resample = Literal["none", "up", "down"]
C = TypeVar("C", bound=Convolution)


def sinusoid(t: Float[Tensor, " n"], channels: int) -> Float[Tensor, "n channels"]:
    """Sinusoidal embedding of timesteps 0..T-1, cosines first: `cos(t w_k), sin(t w_k)`, w_k = 10000^(-k / (channels / 2)).

    References: Vaswani et al. 2017, section 3.5; Ho et al. 2020.
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, channels % 2))


class Conditions(NamedTuple):
    """What the blocks of a UNet are conditioned on.

    Attributes:
        t: (n, k), embedded time, after SiLU.
        z_sem: (n, d), after SiLU, or None.
        draws: of the images, for dropout, or None.
    """

    t: Tensor
    z_sem: Tensor | None
    draws: Draws | None


class ResBlock(nn.Module):
    """One residual block; resampling, where asked for, happens in both branches between activation and convolution.

    Without `t_channels` (the encoder) it is GN - SiLU - Conv plus skip. With them (the UNet) a second half follows:
    AdaGN - SiLU - Dropout - Conv, whose convolution starts at zero so that a new block is the identity.

    Attributes:
        by: what each side is divided or multiplied by, where it resamples; as many as the data has sides.
        index: of this block among those of its network, which tells their dropouts apart.

    References: Dhariwal & Nichol 2021, appendix A (the residual block of BigGAN).
    """

    index = 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        resample: Resample = "none",
        by: Sides = (2, 2),
        t_channels: int | None = None,
        z_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.resample, self.by = resample, by
        rank = len(by)
        self.dropout = dropout
        self.norm = NormSiLU(in_channels)
        self.conv = convolution(rank, in_channels, out_channels)
        self.skip = nn.Identity() if in_channels == out_channels else convolution(rank, in_channels, out_channels, 1)
        self.adagn: AdaGNSiLU | None = None
        if t_channels is not None:
            self.adagn = AdaGNSiLU(out_channels, t_channels, z_dim)
            self.conv_out = zero_init(convolution(rank, out_channels, out_channels))

    def forward(self, x: Tensor, modulation: Modulation | None = None, draws: Draws | None = None) -> Tensor:
        h = self.conv(self._resample(self.norm(x)))
        if self.adagn is not None:
            assert modulation is not None
            dropout = Dropout(self.dropout, draws, self.index) if self.dropout and draws is not None else None
            h = self.conv_out(self.adagn(h, modulation, dropout))
        if self.resample == "up":
            return add_upsampled(h, self.skip(x), self.by)
        return self.skip(downsample(x, self.by) if self.resample == "down" else x) + h

    def _resample(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return upsample(x, self.by)
        return downsample(x, self.by) if self.resample == "down" else x


class SelfAttention(nn.Module):
    """Self-attention over all positions, plus skip. Heads are split before q, k, v, as in the authors' weights."""

    def __init__(self, channels: int, heads: int, rank: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(channels)
        self.qkv = convolution(rank, channels, 3 * channels, 1)
        self.out = zero_init(convolution(rank, channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, *sides = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, self.heads, 3 * c // self.heads, math.prod(sides)).transpose(2, 3)
        q, k, v = qkv.chunk(3, dim=3)
        a = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(a.transpose(2, 3).reshape(x.shape))


class Stage(nn.Module):
    """A residual block, then self-attention where the resolution has it, then (on the way up) an upsampling block."""

    recompute = False
    """Whether activations are computed again in the backward pass, and not stored (Chen et al. 2016)."""

    def __init__(self, block: ResBlock, attention: SelfAttention | None = None, upsample: ResBlock | None = None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention
        self.upsample = upsample

    @property
    def adaptive(self) -> list[AdaGNSiLU]:
        """Its adaptive normalisations, on time and semantics."""
        blocks = [self.block] if self.upsample is None else [self.block, self.upsample]
        return [block.adagn for block in blocks if block.adagn is not None]

    def forward(self, x: Tensor, conditions: Conditions | None = None, modulated: Sequence[Modulation] | None = None) -> Tensor:
        """
        Args:
            x: images of features, (n, c, *sides).
            conditions: in a UNet.
            modulated: the modulation of each of `adaptive`, if it was computed before.
        """
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._forward, x, conditions, modulated, use_reentrant=False)
        return self._forward(x, conditions, modulated)

    def _forward(self, x: Tensor, conditions: Conditions | None, modulated: Sequence[Modulation] | None) -> Tensor:
        if conditions is None:
            x = self.block(x)
            return x if self.attention is None else self.attention(x)
        if modulated is None:
            modulated = modulations(self.adaptive, conditions.t, conditions.z_sem)
        x = self.block(x, modulated[0], conditions.draws)
        if self.attention is not None:
            x = self.attention(x)
        return x if self.upsample is None else self.upsample(x, modulated[1], conditions.draws)


def zero_init(module: C) -> C:
    """The convolution, with weights and bias set to zero."""
    nn.init.zeros_(module.weight)
    assert module.bias is not None
    nn.init.zeros_(module.bias)
    return module
