"""Images and volumes: what differs between networks of two and of three sides.

All that a network says of its data, it says of `sides`: height and width, or depth, height and width. This is the one place that
asks how many there are.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae.config import EncoderConfig, UNetConfig, spelled
from diffae.nn.winograd import Conv3x3

Sides = tuple[int, ...]
"""Height and width in pixels, or depth, height and width in voxels."""
Convolution = nn.Conv2d | nn.Conv3d
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Axes of a batch -> the layout in memory that processors and cards compute without copies: channels last."""


def convolution(rank: int, in_channels: int, out_channels: int, size: int = 3) -> Convolution:
    """A convolution of images (rank 2) or volumes (rank 3) that keeps their sides, with a kernel of this size along each."""
    if rank == 3:
        return nn.Conv3d(in_channels, out_channels, size, padding=size // 2)
    return Conv3x3(in_channels, out_channels) if size == 3 else nn.Conv2d(in_channels, out_channels, size, padding=size // 2)


def layered(x: Tensor) -> Tensor:
    """A batch with its channels last in memory."""
    return x.contiguous(memory_format=LAYOUTS[x.dim()])


def stacked_slices(x: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n c dh w"]:
    """Volumes as images, their slices below one another; a view, with its channels last in memory."""
    n, _, d, h, _ = x.shape
    # By way of rows: of a batch of one, a view keeps a stride of no meaning, by which torch no longer knows the layout.
    rows = layered(x).permute(0, 2, 3, 4, 1).flatten(0, 2)
    return rows.unflatten(0, (n, d * h)).permute(0, 3, 1, 2)


def channels_last(network: nn.Module, rank: int) -> None:
    """Stores the weights of convolutions with their channels last."""
    network.to(memory_format=LAYOUTS[rank + 2])  # type: ignore[call-overload]


def halvings(sides: Sides, levels: int) -> list[Sides]:
    """By what each side is divided on the way to each level but the first.

    Images are halved along both sides. Of volumes, whose slices often lie further apart than the pixels in them, a side is halved
    if it is longer than half of the longest one: thin volumes become cubes, then smaller ones (as in nnU-Net; Isensee et al. 2021).
    """
    found: list[Sides] = []
    for _ in range(levels - 1):
        by = tuple(2 if len(sides) == 2 or 2 * side > max(sides) else 1 for side in sides)
        sides = tuple(side // k for side, k in zip(sides, by, strict=True))
        found.append(by)
    return found


def level_sides(sides: Sides, levels: int) -> list[Sides]:
    """The sides at each level."""
    found = [sides]
    for by in halvings(sides, levels):
        found.append(tuple(side // k for side, k in zip(found[-1], by, strict=True)))
    return found


class Levels(NamedTuple):
    """What a network of several levels has at each, full size first.

    Attributes:
        widths: channels.
        sides: of the features, in blocks of `patch` pixels.
        by: what each side is divided by on the way to it.
    """

    widths: list[int]
    sides: list[Sides]
    by: list[Sides]

    @classmethod
    def of(cls, name: str, image_size: Sides, config: UNetConfig | EncoderConfig) -> "Levels":
        """Those of a configured network; errors as of `check_network`."""
        image_size = check_network(name, image_size, config)
        widths = [config.base_channels * mult for mult in config.channel_mult]
        by = [(1,) * len(image_size), *halvings(image_size, len(widths))]
        return cls(widths, level_sides(image_size, len(widths)), by)


def check_network(name: str, sides: Sides, config: UNetConfig | EncoderConfig) -> Sides:
    """Refuses sizes and widths that a network cannot have, and names the nearest size that it can.

    Returns:
        The sides of what its first convolution sees, in blocks of `patch` pixels.

    Raises:
        ValueError: a side that the levels do not divide; a width that the heads do not divide.
    """
    patch, levels = config.patch, len(config.channel_mult)
    steps = halvings(tuple(max(1, side // patch) for side in sides), levels)
    factors = [patch * 2 ** sum(by[axis] == 2 for by in steps) for axis in range(len(sides))]
    if any(side % factor or side < factor for side, factor in zip(sides, factors, strict=True)):
        near = [max(factor, round(side / factor) * factor) for side, factor in zip(sides, factors, strict=True)]
        by = factors[0] if len(set(factors)) == 1 else spelled(factors)
        raise ValueError(
            f"The {levels} levels of the {name} need image sides divisible by {by}, got {spelled(sides)}; the nearest such size is "
            f"{spelled(near)}. Change image_size, or give the {name} fewer levels (channel_mult)."
        )
    for mult in config.channel_mult:
        channels = config.base_channels * mult
        if channels % config.attention_heads:
            raise ValueError(f"The {name} cannot divide {channels} channels into {config.attention_heads} attention heads.")
    return tuple(side // patch for side in sides)
