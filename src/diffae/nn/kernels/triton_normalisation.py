"""`normalisation` by Triton: which program has which part of the images, and the launch of the kernels.

`forward` and `backward` take and return what their namesakes in `normalisation` do.
"""

import math

import torch
import triton
from torch import Tensor

from diffae.nn.kernels import normalisation
from diffae.nn.kernels.normalisation import drop_threshold
from diffae.nn.kernels.triton_kernels import gradient_kernel, normalise_kernel, statistics_kernel

CHANNELS = (64, 128)
"""The most channels of a program. Of the two, the one that whole groups fill better is taken."""
VALUES, VALUES_BACKWARD = 4096, 2048
"""Values that a program holds at a time. The backward pass holds two such tiles."""
PROGRAMS = 512
"""The number of programs that fills a card. With fewer, images are divided."""


def forward(
    x: Tensor, gamma: Tensor, beta: Tensor, t: Tensor | None, z: Tensor | None, numbers: Tensor | None,
    groups: int, eps: float, silu: bool, dropout: float, key: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`normalisation.forward` by kernels."""
    n, c = x.shape[:2]
    if not _is_supported(x, groups, dropout):
        return normalisation.forward(x, gamma, beta, t, z, numbers, groups, eps, silu, dropout, key)
    x, pixels = x.contiguous(memory_format=torch.channels_last), x.shape[2] * x.shape[3]
    sizes, (programs, parts) = _tiling(n, c, pixels, groups, VALUES)
    y, mean = torch.empty_like(x), x.new_empty(n, groups, dtype=torch.float32)
    inverse = torch.empty_like(mean)
    means, squares = x.new_empty(2, n, parts, c, dtype=torch.float32) if parts > 1 else (mean, mean)
    if parts > 1:
        tile = {name: sizes[name] for name in ("USED", "BLOCK", "ROWS")}
        statistics_kernel[(n, programs, parts)](x, means, squares, pixels, c, parts, **tile)
    t, z, strides = _contiguous_rows(t, z)
    normalise_kernel[(n, programs, parts)](
        x, y, gamma, beta, *_with_placeholders(x, t, z, numbers), mean, inverse, means, squares, pixels, c, parts, *strides,
        eps, key, drop_threshold(dropout), 1 / (1 - dropout), **sizes, SILU=silu, DROPOUT=dropout > 0, ADAPTIVE=t is not None,
        CONDITIONED=z is not None, PARTS=parts > 1,
    )  # fmt: skip
    return y, mean, inverse


def backward(
    dy: Tensor, x: Tensor, mean: Tensor, inverse: Tensor, gamma: Tensor, beta: Tensor, t: Tensor | None, z: Tensor | None,
    numbers: Tensor | None, silu: bool, dropout: float, key: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`normalisation.backward` by kernels."""
    n, c = x.shape[:2]
    groups = mean.shape[1]
    if not _is_supported(x, groups, dropout):
        return normalisation.backward(dy, x, mean, inverse, gamma, beta, t, z, numbers, silu, dropout, key)
    layout, pixels = torch.channels_last, x.shape[2] * x.shape[3]
    x, dy = x.contiguous(memory_format=layout), dy.contiguous(memory_format=layout)
    sizes, (programs, parts) = _tiling(n, c, pixels, groups, VALUES_BACKWARD)
    dx, daffine = torch.empty_like(x), x.new_empty(2, n, c, dtype=torch.float32)
    partial_dh, partial_dh_x_hat = x.new_empty(2, n, parts, c, dtype=torch.float32) if parts > 1 else daffine
    t, z, strides = _contiguous_rows(t, z)
    dt, dz = (x.new_empty(0) if v is None else torch.empty(v.shape, dtype=v.dtype, device=v.device) for v in (t, z))
    for stage in (1, 2) if parts > 1 else (0,):
        gradient_kernel[(n, programs, parts)](
            x, dy, dx, gamma, beta, *_with_placeholders(x, t, z, numbers), mean, inverse, daffine[0], daffine[1], dt, dz,
            partial_dh, partial_dh_x_hat, pixels, c, parts, *strides, key, drop_threshold(dropout), 1 / (1 - dropout), **sizes,
            SILU=silu, DROPOUT=dropout > 0, ADAPTIVE=t is not None, CONDITIONED=z is not None, STAGE=stage,
        )  # fmt: skip
    return dx, daffine.sum(1).to(gamma.dtype), dt, dz


def _tiling(n: int, c: int, pixels: int, groups: int, values: int) -> tuple[dict[str, int], tuple[int, int]]:
    """The sizes of a program, and how many programs an image's channels and its pixels are divided among.

    Args:
        n: images.
        c: channels.
        pixels: of an image.
        groups: of channels.
        values: that a program holds at a time.
    """
    used, block = _channels_per_program(c, c // groups)
    rows = min(max(values // block, 1), triton.next_power_of_2(pixels))
    programs, tiles = -(-c // used), -(-pixels // rows)
    parts = min(-(-PROGRAMS // (n * programs)), tiles)
    parts = -(-tiles // -(-tiles // parts))  # None of them is empty.
    return {"WIDTH": c // groups, "USED": used, "BLOCK": block, "ROWS": rows}, (programs, parts)


def _channels_per_program(c: int, width: int) -> tuple[int, int]:
    """How many channels a program has, which are whole groups of `width`, and the power of two that holds them.

    With several programs this is a multiple of eight where groups allow it. Eight values in bfloat16 are 16 bytes, the most that a
    thread reads at once, and one draw of dropout gives random words for four channels.
    """
    candidates = []
    for block in CHANNELS:
        step = math.lcm(width, 8)
        used = c if c <= block else block // step * step or block // width * width or width
        candidates.append((used / max(block, triton.next_power_of_2(used)), used))
    used = max(candidates, key=lambda pair: pair[0])[1]
    return used, max(triton.next_power_of_2(used), 4)


def _is_supported(x: Tensor, groups: int, dropout: float) -> bool:
    """Whether the kernels can take these images. An empty batch and float64 are left to PyTorch."""
    if not x.numel() or x.dtype == torch.float64:
        return False
    c = x.shape[1]
    used, _ = _channels_per_program(c, c // groups)
    return not dropout or (c % 4 == 0 and (used == c or used % 4 == 0))


def _contiguous_rows(t: Tensor | None, z: Tensor | None) -> tuple[Tensor | None, Tensor | None, tuple[int, int]]:
    """Both with each row contiguous in memory, and their strides from row to row, 0 for None."""
    t, z = (v if v is None or v.stride(1) == 1 else v.contiguous() for v in (t, z))
    return t, z, (0 if t is None else t.stride(0), 0 if z is None else z.stride(0))


def _with_placeholders(x: Tensor, *tensors: Tensor | None) -> list[Tensor]:
    """The tensors, with x in place of None: a kernel wants a pointer, and does not read this one."""
    return [x if tensor is None else tensor for tensor in tensors]
