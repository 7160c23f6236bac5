"""The mean decoder: z_sem -> the mean of all images that have it."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from diffae.config import EncoderConfig
from diffae.nn.layers import ResBlock, SelfAttention, Stage
from diffae.nn.normalisation import NormSiLU
from diffae.nn.resampling import unpatched
from diffae.nn.space import Levels, Sides, channels_last, convolution, layered


class MeanDecoder(nn.Module):
    """The semantic encoder in a mirror: a linear map, then a CNN whose sides grow. Without time and noise, so that one call is all.

    Raises:
        ValueError: a size or width that the network cannot have.

    References:
        `docs/design/mean.md`. That z_sem alone should be an image: Kim et al. 2024, *Diffusion bridge autoencoders for unsupervised
        representation learning*, whose decoder begins at a function of z_sem.
    """

    def __init__(self, config: EncoderConfig, *, image_size: Sides, channels: int, z_dim: int) -> None:
        super().__init__()
        widths, sides, by = Levels.of("encoder", image_size, config)
        rank, c = len(image_size), widths[-1]
        self.first = (c, *sides[-1])
        self.linear = nn.Linear(z_dim, math.prod(self.first))
        self.middle = Stage(ResBlock(c, c, by=by[0]), SelfAttention(c, config.attention_heads, rank))
        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(config.blocks_per_level):
                attends = min(sides[level][-2:]) in config.attention_resolutions
                attention = SelfAttention(width, config.attention_heads, rank) if attends else None
                self.up.append(Stage(ResBlock(c, width, by=by[0]), attention))
                c = width
            if level > 0:
                self.up.append(Stage(ResBlock(c, c, resample="up", by=by[level])))
        self.norm, self.patch = NormSiLU(c), config.patch
        self.conv_out = convolution(rank, c, channels * config.patch**rank)
        channels_last(self, rank)

    def forward(self, z_sem: Float[Tensor, "n d"]) -> Float[Tensor, "n c *sides"]:
        """The mean images, not clamped."""
        h = layered(self.linear(z_sem).unflatten(1, self.first))
        for stage in [self.middle, *self.up]:
            h = stage(h)
        return unpatched(self.conv_out(self.norm(h)), self.patch)
