"""The semantic encoder: image -> z_sem."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae.config import EncoderConfig, spelled
from diffae.nn.evening import rounding
from diffae.nn.layers import ResBlock, SelfAttention, Stage
from diffae.nn.normalisation import NormSiLU
from diffae.nn.resampling import adaptive_average_pool, patched
from diffae.nn.space import Levels, Sides, channels_last, convolution, layered


@runtime_checkable
class Encoder(Protocol):
    """What can stand in the semantic encoder's place: a `torch.nn.Module` that gives z_sem (n, d) of images (n, c, h, w)."""

    def __call__(self, x: Tensor) -> Tensor:
        """z_sem (n, d) of images in [-1, 1]."""
        ...


class SemanticEncoder(nn.Module):
    """A CNN like the first half of the UNet, without time, ending in average pooling and a linear map.

    z_sem is unbounded and has no spatial axes: what it holds is about the whole image.

    Raises:
        ValueError: a size or width that the network cannot have.

    References:
        Preechakul et al. 2022, section 3.2. As the authors run it, its residual blocks have a single convolution.
    """

    def __init__(self, config: EncoderConfig, *, image_size: Sides, channels: int, z_dim: int) -> None:
        super().__init__()
        widths, sides, by = Levels.of("encoder", image_size, config)
        rank = len(image_size)
        if not 1 <= config.pooled_size <= min(sides[-1]):
            raise ValueError(f"The encoder's pooled_size is {config.pooled_size}, but its last features are {spelled(sides[-1])}.")
        self.conv_in = convolution(rank, channels * config.patch**rank, widths[0])
        self.down = nn.ModuleList()
        c = widths[0]
        for level, width in enumerate(widths):
            if level > 0:
                self.down.append(Stage(ResBlock(c, c, resample="down", by=by[level])))
            for _ in range(config.blocks_per_level):
                attends = min(sides[level][-2:]) in config.attention_resolutions
                attention = SelfAttention(width, config.attention_heads, rank) if attends else None
                self.down.append(Stage(ResBlock(c, width, by=by[0]), attention))
                c = width
        attention = SelfAttention(c, config.attention_heads, rank)
        self.middle = nn.ModuleList([Stage(ResBlock(c, c, by=by[0]), attention), Stage(ResBlock(c, c, by=by[0]))])
        self.norm = NormSiLU(c)
        self.patch, self.pooled_size = config.patch, config.pooled_size
        self.linear = nn.Linear(c * config.pooled_size**rank, z_dim)
        channels_last(self, rank)

    def forward(self, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n d"]:
        """z_sem of images in [-1, 1]."""
        return self.linear(self.features(x))

    def features(self, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n features"]:
        """The features, pooled over the image, before the linear map to z_sem."""
        h = self.conv_in(layered(patched(x, self.patch)))
        for stage in [*self.down, *self.middle]:
            h = stage(h)
        return adaptive_average_pool(self.norm(h), self.pooled_size).flatten(1)

    @torch.no_grad()
    def whiten(self, features: Float[Tensor, "n features"]) -> None:
        """Sets the last linear map so that z_sem of these features has mean 0 and the identity as covariance.

        The features of an untrained encoder hardly vary from image to image, and only in a few directions. So z_sem, which
        scales the decoder's features, says almost nothing, and the decoder learns to do without it before the encoder learns
        to say something. After whitening, all that the untrained encoder tells apart reaches the decoder from the first step.
        (Data-dependent initialisation as in Salimans & Kingma 2016, section 3, here of one layer.)

        Args:
            features: of at least as many images as z_sem has dimensions. Directions beyond the number of features that
                vary stay at zero. If the images are all alike, or there is only one, nothing varies but rounding, and the map
                stays as it is.
        """
        initial, f = self.linear.weight.double(), features.double()
        mean = f.mean(0)
        _, singular, directions = torch.linalg.svd(f - mean, full_matrices=False)
        variances = singular.square()[: len(initial)] / max(len(f) - 1, 1)
        if variances[0] <= rounding(f, features.dtype):
            return
        # The floor keeps directions of rounding errors from being amplified.
        whitening = directions[: len(initial)] / (variances[:, None] + 1e-6 * variances[0]).sqrt()
        # After a random rotation no component of z_sem is special. It comes from the initial weights, and so from the run's seed.
        rotation, _ = torch.linalg.qr(initial[:, : len(whitening)])
        weight = rotation @ whitening
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(-(weight @ mean))
