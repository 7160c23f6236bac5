"""Images at half and at twice their size.

On a processor these are torch's. On a card torch's gradients want the channels in front, and what is doubled is written before it
is added: there they are copies and sums over the four pixels that one is of.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def halved(x: Float[Tensor, "n c 2*h 2*w"]) -> Float[Tensor, "n c h w"]:
    """Means of two by two pixels."""
    return F.avg_pool2d(x, 2) if x.is_cpu else _Halved.apply(x)


def doubled(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
    """Each pixel two by two times."""
    return F.interpolate(x, scale_factor=2, mode="nearest") if x.is_cpu else _Doubled.apply(x)


def plus_doubled(h: Float[Tensor, "n c 2*h 2*w"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
    """`h + doubled(x)`."""
    if x.is_cpu:
        return h + doubled(x)
    return (_fourfold(h) + x[:, :, :, None, :, None]).flatten(4, 5).flatten(2, 3)


def pooled(x: Float[Tensor, "n c h w"], size: int) -> Float[Tensor, "n c size size"]:
    """Means over a grid of cells, which overlap where the sides cannot be divided by it."""
    h, w = x.shape[2:]
    if (h, w) == (size, size):
        return x
    if h % size or w % size:
        # The gradient of torch's on a card adds up in any order.
        rows, columns = (_cells(side, size, x) for side in (h, w))
        with torch.autocast(x.device.type, enabled=False):
            return (rows @ x.float() @ columns.T).to(x.dtype)
    return x.unflatten(2, (size, -1)).unflatten(4, (size, -1)).mean((3, 5))


def _cells(side: int, size: int, like: Tensor) -> Float[Tensor, "size side"]:
    """What each cell is made of, along one side."""
    place, cell = torch.arange(side, device=like.device), torch.arange(size, device=like.device)[:, None]
    inside = (place >= cell * side // size) & (place < ((cell + 1) * side + size - 1) // size)
    return inside / inside.sum(1, keepdim=True)


class _Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return _written_fourfold(dy * 0.25)


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _written_fourfold(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return _fourfold(dy).sum((3, 5))


def _fourfold(x: Tensor) -> Tensor:
    """The image as (n, c, h, 2, w, 2): the four pixels of each."""
    return x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2))


def _written_fourfold(x: Tensor) -> Tensor:
    """Each pixel four times, with the channels last."""
    n, c, h, w = x.shape
    out = torch.empty((n, c, 2 * h, 2 * w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    _fourfold(out).copy_(x[:, :, :, None, :, None])
    return out
