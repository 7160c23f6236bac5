"""Images at half and at twice their size.

On a processor these are torch's. On a card torch's gradients want the channels in front, and an upsampled image is written before
it is added. There they are copies to, and sums over, blocks of two by two pixels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def downsample(x: Float[Tensor, "n c 2*h 2*w"]) -> Float[Tensor, "n c h w"]:
    """The mean of each block of two by two pixels."""
    return F.avg_pool2d(x, 2) if x.is_cpu else _Downsample.apply(x)


def upsample(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
    """Each pixel repeated two by two times (nearest neighbour)."""
    return F.interpolate(x, scale_factor=2, mode="nearest") if x.is_cpu else _Upsample.apply(x)


def add_upsampled(h: Float[Tensor, "n c 2*h 2*w"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
    """`h + upsample(x)`."""
    if x.is_cpu:
        return h + upsample(x)
    return (_as_blocks(h) + x[:, :, :, None, :, None]).flatten(4, 5).flatten(2, 3)


def adaptive_average_pool(x: Float[Tensor, "n c h w"], size: int) -> Float[Tensor, "n c size size"]:
    """Means over a grid of cells, which overlap where the sides cannot be divided by it."""
    h, w = x.shape[2:]
    if (h, w) == (size, size):
        return x
    if h % size or w % size:
        # On a card the gradient of torch's own adds up in any order.
        rows, columns = (_cell_weights(side, size, x) for side in (h, w))
        with torch.autocast(x.device.type, enabled=False):
            return (rows @ x.float() @ columns.T).to(x.dtype)
    return x.unflatten(2, (size, -1)).unflatten(4, (size, -1)).mean((3, 5))


def _cell_weights(side: int, size: int, like: Tensor) -> Float[Tensor, "size side"]:
    """The weight of each pixel in each cell, along one side."""
    pixel, cell = torch.arange(side, device=like.device), torch.arange(size, device=like.device)[:, None]
    inside = (pixel >= cell * side // size) & (pixel < ((cell + 1) * side + size - 1) // size)
    return inside / inside.sum(1, keepdim=True)


class _Downsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return _repeat_pixels(dy * 0.25)


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _repeat_pixels(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return _as_blocks(dy).sum((3, 5))


def _as_blocks(x: Tensor) -> Tensor:
    """Images as their blocks of two by two pixels, (n, c, h, 2, w, 2); a view."""
    return x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2))


def _repeat_pixels(x: Tensor) -> Tensor:
    """Each pixel two by two times, with the channels last in memory."""
    n, c, h, w = x.shape
    out = torch.empty((n, c, 2 * h, 2 * w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    _as_blocks(out).copy_(x[:, :, :, None, :, None])
    return out
