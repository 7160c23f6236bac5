"""Images at half and at twice their size.

On a processor these are torch's. On a card torch's gradients want the channels in front, and an upsampled image is written before
it is added. There they are copies to, and sums over, blocks of two by two pixels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def downsample(x: Float[Tensor, "n c *_"], by: tuple[int, ...] = (2, 2)) -> Float[Tensor, "n c *_"]:
    """The mean of each block of two by two pixels; of a volume, of `by` voxels along each side."""
    if x.dim() == 5:
        return F.avg_pool3d(x, by) if x.is_cpu else _as_bricks(x, by).mean((3, 5, 7))
    return F.avg_pool2d(x, 2) if x.is_cpu else _Downsample.apply(x)


def upsample(x: Float[Tensor, "n c *_"], by: tuple[int, ...] = (2, 2)) -> Float[Tensor, "n c *_"]:
    """Each pixel repeated two by two times (nearest neighbour); each voxel `by` times."""
    if x.dim() == 5:
        return F.interpolate(x, scale_factor=tuple(map(float, by)), mode="nearest") if x.is_cpu else _repeated(x, by)
    return F.interpolate(x, scale_factor=2, mode="nearest") if x.is_cpu else _Upsample.apply(x)


def add_upsampled(
    h: Float[Tensor, "n c *sides"], x: Float[Tensor, "n c *_"], by: tuple[int, ...] = (2, 2)
) -> Float[Tensor, "n c *sides"]:
    """`h + upsample(x)`."""
    if x.is_cpu or x.dim() == 5:
        return h + upsample(x, by)
    return (_as_blocks(h) + x[:, :, :, None, :, None]).flatten(4, 5).flatten(2, 3)


def patched(x: Float[Tensor, "n c *_"], patch: int) -> Float[Tensor, "n _ ..."]:
    """Blocks of `patch` pixels along each side as channels of one: nothing is lost, and all that follows sees smaller images."""
    if patch == 1:
        return x
    rank = x.dim() - 2
    for axis in range(rank):
        x = x.unflatten(2 + 2 * axis, (-1, patch))
    inside = [3 + 2 * axis for axis in range(rank)]
    return x.permute(0, 1, *inside, *[axis - 1 for axis in inside]).flatten(1, 1 + rank)


def unpatched(x: Float[Tensor, "n _ ..."], patch: int) -> Float[Tensor, "n c *_"]:
    """The images of which `patched` made these."""
    if patch == 1:
        return x
    rank = x.dim() - 2
    x = x.unflatten(1, (-1, *[patch] * rank))
    x = x.permute(0, 1, *[axis for pair in zip(range(2 + rank, 2 + 2 * rank), range(2, 2 + rank), strict=True) for axis in pair])
    for axis in range(rank):
        x = x.flatten(2 + axis, 3 + axis)
    return x


def adaptive_average_pool(x: Float[Tensor, "n c *sides"], size: int) -> Float[Tensor, "n c *_"]:
    """Means over a grid of cells, as many along each side, which overlap where the sides cannot be divided by it."""
    if x.dim() == 5:
        for axis in (2, 3, 4):
            x = (x.float().movedim(axis, -1) @ _cell_weights(x.shape[axis], size, x).T).movedim(-1, axis).to(x.dtype)
        return x
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


def _as_bricks(x: Tensor, by: tuple[int, ...]) -> Tensor:
    """Volumes as their blocks, (n, c, d, by, h, by, w, by); a view."""
    return x.unflatten(2, (-1, by[0])).unflatten(4, (-1, by[1])).unflatten(6, (-1, by[2]))


def _repeated(x: Tensor, by: tuple[int, ...]) -> Tensor:
    """Each voxel `by` times, with the channels last in memory; its gradient is a sum, in one order on every device."""
    n, c, d, h, w = x.shape
    last = x.permute(0, 2, 3, 4, 1)[:, :, None, :, None, :, None].expand(n, d, by[0], h, by[1], w, by[2], c)
    return last.reshape(n, d * by[0], h * by[1], w * by[2], c).permute(0, 4, 1, 2, 3)


def _repeat_pixels(x: Tensor) -> Tensor:
    """Each pixel two by two times, with the channels last in memory."""
    n, c, h, w = x.shape
    out = torch.empty((n, c, 2 * h, 2 * w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    _as_blocks(out).copy_(x[:, :, :, None, :, None])
    return out
