"""The blocks of the networks: normalisation, AdaGN residual block, self-attention, time embedding."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Resample = Literal["none", "up", "down"]


def sinusoid(t: Float[Tensor, " n"], channels: int) -> Float[Tensor, "n channels"]:
    """Sinusoidal embedding of timesteps 0..T-1, cosines first: `cos(t w_k), sin(t w_k)`, w_k = 10000^(-k / (channels / 2)).

    References: Vaswani et al. 2017, section 3.5; Ho et al. 2020.
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, channels % 2))


class GroupNorm(nn.GroupNorm):
    """Group normalisation with min(32, channels) groups, computed in float32 whatever the input's precision.

    Where that many groups do not divide the channels (no network of the paper), the largest power of two that does.
    """

    def __init__(self, channels: int) -> None:
        groups = min(32, channels)
        super().__init__(math.gcd(32, channels) if channels % groups else groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)


class AdaGN(nn.Module):
    """Adaptive group normalisation on time and semantics (Preechakul et al. 2022, eq. 7).

    The paper writes `z_s (t_s GroupNorm(h) + t_b)`. As the authors run it, scales are offsets from 1 and z_sem only
    scales: `(GroupNorm(h) (1 + t_s) + t_b) (1 + z_s)`, each affine map preceded by a SiLU (applied once, in the UNet).
    """

    def __init__(self, channels: int, t_channels: int, z_dim: int | None) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.time = nn.Linear(t_channels, 2 * channels)
        self.semantics = nn.Linear(z_dim, channels) if z_dim else None

    def forward(self, h: Tensor, t: Tensor, z_sem: Tensor | None) -> Tensor:
        t_s, t_b = self.time(t)[:, :, None, None].chunk(2, dim=1)
        scale = 1 + t_s
        if self.semantics is not None:
            # Folded into one scale and one bias: a pass over vectors instead of one more over images.
            z_s = 1 + self.semantics(z_sem)[:, :, None, None]
            scale, t_b = scale * z_s, t_b * z_s
        return torch.addcmul(t_b.to(h.dtype), self.norm(h), scale.to(h.dtype))


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
        self.norm = GroupNorm(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        self.adagn: AdaGN | None = None
        if t_channels is not None:
            self.adagn = AdaGN(out_channels, t_channels, z_dim)
            self.dropout = nn.Dropout(dropout)
            self.conv_out = zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor | None = None, z_sem: Tensor | None = None) -> Tensor:
        h = self.conv(self._resample(F.silu(self.norm(x))))
        if self.adagn is not None:
            assert t is not None
            h = self.conv_out(self.dropout(F.silu(self.adagn(h, t, z_sem))))
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

    def __init__(self, block: ResBlock, attention: SelfAttention | None = None, upsample: ResBlock | None = None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention
        self.upsample = upsample

    def forward(self, x: Tensor, t: Tensor | None = None, z_sem: Tensor | None = None) -> Tensor:
        x = self.block(x, t, z_sem)
        if self.attention is not None:
            x = self.attention(x)
        return x if self.upsample is None else self.upsample(x, t, z_sem)


def zero(module: nn.Conv2d) -> nn.Conv2d:
    """The convolution, starting at zero."""
    nn.init.zeros_(module.weight)
    assert module.bias is not None
    nn.init.zeros_(module.bias)
    return module


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
