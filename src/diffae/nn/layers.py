"""The blocks of the networks: residual block, self-attention, time embedding."""

import math
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffae.nn.normalisation import AdaGNSiLU, GroupNorm, NormSiLU
from diffae.nn.winograd import Conv3x3

Resample = Literal["none", "up", "down"]
C = TypeVar("C", bound=nn.Conv2d)


def sinusoid(t: Float[Tensor, " n"], channels: int) -> Float[Tensor, "n channels"]:
    """Sinusoidal embedding of timesteps 0..T-1, cosines first: `cos(t w_k), sin(t w_k)`, w_k = 10000^(-k / (channels / 2)).

    References: Vaswani et al. 2017, section 3.5; Ho et al. 2020.
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, channels % 2))


class ResBlock(nn.Module):
    """One residual block; resampling, where asked for, happens in both branches between activation and convolution.

    Without `t_channels` (the encoder) it is GN - SiLU - Conv plus skip. With them (the UNet) a second half follows:
    AdaGN - SiLU - Dropout - Conv, whose convolution starts at zero so that a new block is the identity.

    References: Dhariwal & Nichol 2021, appendix A (the residual block of BigGAN).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        resample: Resample = "none",
        t_channels: int | None = None,
        z_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm = NormSiLU(in_channels)
        self.conv = Conv3x3(in_channels, out_channels)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        self.adagn: AdaGNSiLU | None = None
        if t_channels is not None:
            self.adagn = AdaGNSiLU(out_channels, t_channels, z_dim)
            self.dropout = nn.Dropout(dropout)
            self.conv_out = zero(Conv3x3(out_channels, out_channels))

    def forward(self, x: Tensor, t: Tensor | None = None, z_sem: Tensor | None = None) -> Tensor:
        h = self.conv(self._resample(self.norm(x)))
        if self.adagn is not None:
            assert t is not None
            h = self.conv_out(self.dropout(self.adagn(h, t, z_sem)))
        return self.skip(self._resample(x)) + h

    def _resample(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return F.avg_pool2d(x, 2) if self.resample == "down" else x


class SelfAttention(nn.Module):
    """Self-attention over all positions, plus skip. Heads are split before q, k, v, as in the authors' weights."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, self.heads, 3 * c // self.heads, h * w).transpose(2, 3)
        q, k, v = qkv.chunk(3, dim=3)
        a = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(a.transpose(2, 3).reshape(n, c, h, w))


class Stage(nn.Module):
    """A residual block, then self-attention where the resolution has it, then (on the way up) an upsampling block."""

    recompute = False
    """Whether what is inside is computed again for the gradient rather than kept (Chen et al. 2016)."""

    def __init__(self, block: ResBlock, attention: SelfAttention | None = None, upsample: ResBlock | None = None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention
        self.upsample = upsample

    def forward(self, x: Tensor, t: Tensor | None = None, z_sem: Tensor | None = None) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._forward, x, t, z_sem, use_reentrant=False)
        return self._forward(x, t, z_sem)

    def _forward(self, x: Tensor, t: Tensor | None, z_sem: Tensor | None) -> Tensor:
        x = self.block(x, t, z_sem)
        if self.attention is not None:
            x = self.attention(x)
        return x if self.upsample is None else self.upsample(x, t, z_sem)


def zero(module: C) -> C:
    """The convolution, starting at zero."""
    nn.init.zeros_(module.weight)
    assert module.bias is not None
    nn.init.zeros_(module.bias)
    return module


def channels_last(network: nn.Module) -> None:
    """Keeps the weights of convolutions with their channels last, in which processors and GPUs compute them without copies."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def check_network(name: str, image_size: tuple[int, int], base_channels: int, channel_mult: tuple[int, ...], heads: int) -> None:
    """Refuses sizes and widths that a network cannot have, with what it could have instead.

    Raises:
        ValueError: a side that the levels do not divide; a width that the heads do not divide.
    """
    factor = 2 ** (len(channel_mult) - 1)
    if any(side % factor or side < factor for side in image_size):
        h, w = image_size
        near = " x ".join(str(max(factor, round(side / factor) * factor)) for side in image_size)
        raise ValueError(
            f"The {len(channel_mult)} levels of the {name} need image sides divisible by {factor}, got {h} x {w}; "
            f"the nearest such size is {near}. Change image_size, or give the {name} fewer levels (channel_mult)."
        )
    for mult in channel_mult:
        channels = base_channels * mult
        if channels % heads:
            raise ValueError(f"The {name} cannot divide {channels} channels into {heads} attention heads.")
