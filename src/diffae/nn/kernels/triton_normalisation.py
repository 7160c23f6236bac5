"""The kernels of `normalisation`, for images whose channels lie last.

A program has some whole groups of channels of one image, and all of its pixels or a part of them. With all of them one kernel does
everything: it reads its part of the image twice, the second time from a cache. With a part, because there are too few images to
fill a card, a kernel before it has found what has to be known of the whole.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffae.nn.kernels import normalisation
from diffae.nn.kernels.normalisation import threshold
from diffae.runtime.triton_philox import interleaved, words

CHANNELS = (64, 128)
"""Of a program, at most; those of these that whole groups fill best."""
VALUES, VALUES_BACKWARD = 4096, 2048
"""Of a tile: what a program holds at a time. On the way back it holds two of them."""
PROGRAMS = 512
"""That fill a card: with fewer, images are divided."""


@triton.jit
def _over_group(values, place, WIDTH: tl.constexpr):
    """The sum over a channel's group, for each channel."""
    group = place // WIDTH
    return tl.sum(tl.where(group[:, None] == group[None, :], values[None, :], 0.0), axis=1)


@triton.jit
def _affine(gamma, beta, t, z, n, c, used, channels, t_stride, z_stride, ADAPTIVE: tl.constexpr, CONDITIONED: tl.constexpr):
    """Scale and shift of channels, without z, and z's factor."""
    scale = tl.load(gamma + c, mask=used, other=0.0).to(tl.float32)
    shift = tl.load(beta + c, mask=used, other=0.0).to(tl.float32)
    factor = scale * 0 + 1
    if ADAPTIVE:
        t_s = 1 + tl.load(t + n * t_stride + c, mask=used, other=0.0).to(tl.float32)
        t_b = tl.load(t + n * t_stride + channels + c, mask=used, other=0.0).to(tl.float32)
        scale, shift = scale * t_s, shift * t_s + t_b
    if CONDITIONED:
        factor = 1 + tl.load(z + n * z_stride + c, mask=used, other=0.0).to(tl.float32)
    return scale, shift, factor


@triton.jit
def _kept(key, number, pixel, channels, least, USED: tl.constexpr, BLOCK: tl.constexpr):
    """Whether dropout lets a value pass: (pixels, BLOCK), as `normalisation.kept`."""
    quarter = tl.program_id(1) * (USED // 4) + tl.arange(0, BLOCK // 4)
    counter = (pixel * (channels // 4))[:, None] + quarter[None, :]
    a, b, c_, d = words(key, counter.to(tl.uint32), number)
    return (interleaved(a, b, c_, d) >> 8).to(tl.int32) >= least


@triton.jit
def _statistics(x, c, used, first, last, channels, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Mean of each channel over pixels first .. last - 1, and the sum of squares about it (Chan et al. 1983)."""
    mean = tl.zeros([BLOCK], dtype=tl.float32)
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(first, last, ROWS):
        pixel = start + tl.arange(0, ROWS)
        inside = (pixel < last)[:, None] & used[None, :]
        value = tl.load(x + pixel[:, None] * channels + c[None, :], mask=inside, other=0.0).to(tl.float32)
        before = (start - first).to(tl.float32)
        here = tl.minimum(last - start, ROWS).to(tl.float32)
        own = tl.sum(value, axis=0) / here
        about = tl.where(inside, value - own[None, :], 0.0)
        apart = own - mean
        squares += tl.sum(about * about, axis=0) + apart * apart * (before * here / (before + here))
        mean += apart * (here / (before + here))
    return mean, squares


@triton.jit
def _rows(part, parts, pixels, ROWS: tl.constexpr):
    """The pixels of one of several parts."""
    size = tl.cdiv(tl.cdiv(pixels, ROWS), parts) * ROWS
    return part * size, tl.minimum(part * size + size, pixels)


@triton.jit
def statistics(
    x, means, squares, pixels, channels, parts, USED: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """Means, and sums of squares about them, of channels over a part of the pixels: (n, parts, c) each."""
    n, part, place = tl.program_id(0), tl.program_id(2), tl.arange(0, BLOCK)
    c = tl.program_id(1) * USED + place
    used = (place < USED) & (c < channels)
    first, last = _rows(part, parts, pixels, ROWS)
    mean, square = _statistics(x + n.to(tl.int64) * pixels * channels, c, used, first, last, channels, ROWS, BLOCK)
    tl.store(means + (n * parts + part) * channels + c, mean, mask=used)
    tl.store(squares + (n * parts + part) * channels + c, square, mask=used)


@triton.jit(do_not_specialize=["key", "least"])
def normalised(
    x, y, gamma, beta, t, z, numbers, mean_out, inverse_out, means, squares, pixels, channels, parts, t_stride, z_stride,
    eps, key, least, stays, WIDTH: tl.constexpr, USED: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, SILU: tl.constexpr,
    DROPOUT: tl.constexpr, ADAPTIVE: tl.constexpr, CONDITIONED: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The result; with PARTS, of the statistics that are there already."""
    n, part, place = tl.program_id(0), tl.program_id(2), tl.arange(0, BLOCK)
    c = tl.program_id(1) * USED + place
    used = (place < USED) & (c < channels)
    image = n.to(tl.int64) * pixels * channels
    first, last = _rows(part, parts, pixels, ROWS)
    if PARTS:
        mean = tl.zeros([BLOCK], dtype=tl.float32)
        square = tl.zeros([BLOCK], dtype=tl.float32)
        for k in range(parts):
            begin, end = _rows(k, parts, pixels, ROWS)
            own = tl.load(means + (n * parts + k) * channels + c, mask=used, other=0.0)
            before, here = begin.to(tl.float32), (end - begin).to(tl.float32)
            apart = own - mean
            square += tl.load(squares + (n * parts + k) * channels + c, mask=used, other=0.0)
            square += apart * apart * (before * here / (before + here))
            mean += apart * (here / (before + here))
    else:
        mean, square = _statistics(x + image, c, used, first, last, channels, ROWS, BLOCK)
    of_group = _over_group(mean, place, WIDTH) / WIDTH
    apart = tl.where(used, mean - of_group, 0.0)
    variance = _over_group(square + pixels * apart * apart, place, WIDTH) / (WIDTH * pixels)
    inverse = 1 / tl.sqrt(variance + eps)
    if part == 0:
        of_c = n * (channels // WIDTH) + c // WIDTH
        tl.store(mean_out + of_c, of_group, mask=used & (c % WIDTH == 0))
        tl.store(inverse_out + of_c, inverse, mask=used & (c % WIDTH == 0))
    scale, shift, factor = _affine(gamma, beta, t, z, n, c, used, channels, t_stride, z_stride, ADAPTIVE, CONDITIONED)
    scale, shift = inverse * scale * factor, shift * factor
    for start in range(first, last, ROWS):
        pixel = start + tl.arange(0, ROWS)
        inside = (pixel < last)[:, None] & used[None, :]
        where = image + pixel[:, None] * channels + c[None, :]
        value = tl.load(x + where, mask=inside, other=0.0).to(tl.float32)
        value = (value - of_group[None, :]) * scale[None, :] + shift[None, :]
        if SILU:
            value = value / (1 + tl.exp(-value))
        if DROPOUT:
            passes = _kept(key, tl.load(numbers + n), pixel, channels, least, USED, BLOCK)
            value = tl.where(passes, value * stays, 0.0)
        tl.store(y + where, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _slope(
    x, dy, where, inside, mean, inverse, scale, shift, numbers, n, key, pixel, channels, least, stays,
    USED: tl.constexpr, BLOCK: tl.constexpr, SILU: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradient of what the SiLU saw, and the normalised image."""
    normal = (tl.load(x + where, mask=inside, other=0.0).to(tl.float32) - mean[None, :]) * inverse[None, :]
    dh = tl.load(dy + where, mask=inside, other=0.0).to(tl.float32)
    if DROPOUT:
        passes = _kept(key, tl.load(numbers + n), pixel, channels, least, USED, BLOCK)
        dh = tl.where(passes, dh * stays, 0.0)
    if SILU:
        h = normal * scale[None, :] + shift[None, :]
        s = 1 / (1 + tl.exp(-h))
        dh = dh * s * (1 + h * (1 - s))
    return dh, tl.where(inside, normal, 0.0)


@triton.jit
def _sums(
    x, dy, image, first, last, used, mean, inverse, scale, shift, numbers, n, key, c, channels, least, stays,
    ROWS: tl.constexpr, USED: tl.constexpr, BLOCK: tl.constexpr, SILU: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Over pixels first .. last - 1, sums of that gradient, and of its product with the normalised image."""
    of_shift = tl.zeros([BLOCK], dtype=tl.float32)
    of_scale = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(first, last, ROWS):
        pixel = start + tl.arange(0, ROWS)
        inside = (pixel < last)[:, None] & used[None, :]
        where = image + pixel[:, None] * channels + c[None, :]
        dh, normal = _slope(
            x, dy, where, inside, mean, inverse, scale, shift, numbers, n, key, pixel, channels, least, stays,
            USED, BLOCK, SILU, DROPOUT,
        )  # fmt: skip
        of_shift += tl.sum(dh, axis=0)
        of_scale += tl.sum(dh * normal, axis=0)
    return of_shift, of_scale


@triton.jit(do_not_specialize=["key", "least"])
def gradient(
    x, dy, dx, gamma, beta, t, z, numbers, mean_in, inverse_in, dgamma, dbeta, dt, dz, of_shifts, of_scales, pixels, channels,
    parts, t_stride, z_stride, key, least, stays, WIDTH: tl.constexpr, USED: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    SILU: tl.constexpr, DROPOUT: tl.constexpr, ADAPTIVE: tl.constexpr, CONDITIONED: tl.constexpr, STAGE: tl.constexpr,
):  # fmt: skip
    """The gradients. STAGE 1 writes sums over a part of the pixels, 2 goes on from them, 0 does all at once."""
    n, part, place = tl.program_id(0), tl.program_id(2), tl.arange(0, BLOCK)
    c = tl.program_id(1) * USED + place
    used = (place < USED) & (c < channels)
    image = n.to(tl.int64) * pixels * channels
    first, last = _rows(part, parts, pixels, ROWS)
    of_c = n * (channels // WIDTH) + c // WIDTH
    mean = tl.load(mean_in + of_c, mask=used, other=0.0)
    inverse = tl.load(inverse_in + of_c, mask=used, other=0.0)
    plain, moved, factor = _affine(gamma, beta, t, z, n, c, used, channels, t_stride, z_stride, ADAPTIVE, CONDITIONED)
    scale, shift = plain * factor, moved * factor
    if STAGE != 2:
        of_shift, of_scale = _sums(
            x, dy, image, first, last, used, mean, inverse, scale, shift, numbers, n, key, c, channels, least, stays,
            ROWS, USED, BLOCK, SILU, DROPOUT,
        )  # fmt: skip
    else:
        of_shift = tl.zeros([BLOCK], dtype=tl.float32)
        of_scale = tl.zeros([BLOCK], dtype=tl.float32)
        for k in range(parts):
            of_shift += tl.load(of_shifts + (n * parts + k) * channels + c, mask=used, other=0.0)
            of_scale += tl.load(of_scales + (n * parts + k) * channels + c, mask=used, other=0.0)
    if STAGE == 1:
        tl.store(of_shifts + (n * parts + part) * channels + c, of_shift, mask=used)
        tl.store(of_scales + (n * parts + part) * channels + c, of_scale, mask=used)
    else:
        if part == 0:
            own_scale, own_shift = of_scale * factor, of_shift * factor
            if CONDITIONED:
                tl.store(dz + n * channels + c, (of_scale * plain + of_shift * moved).to(dz.dtype.element_ty), mask=used)
            if ADAPTIVE:
                g = tl.load(gamma + c, mask=used, other=0.0).to(tl.float32)
                b = tl.load(beta + c, mask=used, other=0.0).to(tl.float32)
                tl.store(dt + n * 2 * channels + c, (own_scale * g + own_shift * b).to(dt.dtype.element_ty), mask=used)
                tl.store(dt + n * 2 * channels + channels + c, own_shift.to(dt.dtype.element_ty), mask=used)
                t_s = 1 + tl.load(t + n * t_stride + c, mask=used, other=0.0).to(tl.float32)
                own_scale, own_shift = own_scale * t_s, own_shift * t_s
            tl.store(dgamma + n * channels + c, own_scale, mask=used)
            tl.store(dbeta + n * channels + c, own_shift, mask=used)
        values = WIDTH * pixels
        of_one = _over_group(scale * of_shift, place, WIDTH) / values
        of_normal = _over_group(scale * of_scale, place, WIDTH) / values
        for start in range(first, last, ROWS):
            pixel = start + tl.arange(0, ROWS)
            inside = (pixel < last)[:, None] & used[None, :]
            where = image + pixel[:, None] * channels + c[None, :]
            dh, normal = _slope(
                x, dy, where, inside, mean, inverse, scale, shift, numbers, n, key, pixel, channels, least, stays,
                USED, BLOCK, SILU, DROPOUT,
            )  # fmt: skip
            found = inverse[None, :] * (dh * scale[None, :] - of_one[None, :] - normal * of_normal[None, :])
            tl.store(dx + where, found.to(dx.dtype.element_ty), mask=inside)


def forward(
    x: Tensor, gamma: Tensor, beta: Tensor, t: Tensor | None, z: Tensor | None, numbers: Tensor | None,
    groups: int, eps: float, silu: bool, dropout: float, key: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`normalisation.forward` by kernels."""
    n, c = x.shape[:2]
    if not _can(x, groups, dropout):
        return normalisation.forward(x, gamma, beta, t, z, numbers, groups, eps, silu, dropout, key)
    x, pixels = x.contiguous(memory_format=torch.channels_last), x.shape[2] * x.shape[3]
    sizes, (programs, parts) = _division(n, c, pixels, groups, VALUES)
    y, mean = torch.empty_like(x), x.new_empty(n, groups, dtype=torch.float32)
    inverse = torch.empty_like(mean)
    means, squares = x.new_empty(2, n, parts, c, dtype=torch.float32) if parts > 1 else (mean, mean)
    if parts > 1:
        apart = {key: sizes[key] for key in ("USED", "BLOCK", "ROWS")}
        statistics[(n, programs, parts)](x, means, squares, pixels, c, parts, **apart)
    t, z, strides = _rows_of(t, z)
    normalised[(n, programs, parts)](
        x, y, gamma, beta, _or(t, x), _or(z, x), _or(numbers, x), mean, inverse, means, squares, pixels, c, parts, *strides,
        eps, key, threshold(dropout), 1 / (1 - dropout), **sizes, SILU=silu, DROPOUT=dropout > 0, ADAPTIVE=t is not None,
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
    if not _can(x, groups, dropout):
        return normalisation.backward(dy, x, mean, inverse, gamma, beta, t, z, numbers, silu, dropout, key)
    last, pixels = torch.channels_last, x.shape[2] * x.shape[3]
    x, dy = x.contiguous(memory_format=last), dy.contiguous(memory_format=last)
    sizes, (programs, parts) = _division(n, c, pixels, groups, VALUES_BACKWARD)
    dx, own = torch.empty_like(x), x.new_empty(2, n, c, dtype=torch.float32)
    of_shifts, of_scales = x.new_empty(2, n, parts, c, dtype=torch.float32) if parts > 1 else own
    t, z, strides = _rows_of(t, z)
    dt, dz = (x.new_empty(0) if v is None else torch.empty(v.shape, dtype=v.dtype, device=v.device) for v in (t, z))
    for stage in (1, 2) if parts > 1 else (0,):
        gradient[(n, programs, parts)](
            x, dy, dx, gamma, beta, _or(t, x), _or(z, x), _or(numbers, x), mean, inverse, own[0], own[1], dt, dz, of_shifts,
            of_scales, pixels, c, parts, *strides, key, threshold(dropout), 1 / (1 - dropout), **sizes, SILU=silu,
            DROPOUT=dropout > 0, ADAPTIVE=t is not None, CONDITIONED=z is not None, STAGE=stage,
        )  # fmt: skip
    return dx, own.sum(1).to(gamma.dtype), dt, dz


def _division(n: int, c: int, pixels: int, groups: int, values: int) -> tuple[dict[str, int], tuple[int, int]]:
    """Sizes of a program, and how many programs share an image's channels and its pixels."""
    used, block = _channels(c, c // groups)
    rows = min(max(values // block, 1), triton.next_power_of_2(pixels))
    programs, tiles = -(-c // used), -(-pixels // rows)
    parts = min(-(-PROGRAMS // (n * programs)), tiles)
    parts = -(-tiles // -(-tiles // parts))  # None of them is empty.
    return {"WIDTH": c // groups, "USED": used, "BLOCK": block, "ROWS": rows}, (programs, parts)


def _channels(c: int, width: int) -> tuple[int, int]:
    """How many channels a program has, whole groups, and the power of two that holds them.

    Eight bfloat16 are 16 bytes, the most that is read at once, and four have a random word each of one draw: so many of them, where
    there are several programs.
    """
    found = []
    for block in CHANNELS:
        step = math.lcm(width, 8)
        used = c if c <= block else block // step * step or block // width * width or width
        found.append((used / max(block, triton.next_power_of_2(used)), used))
    used = max(found, key=lambda pair: pair[0])[1]
    return used, max(triton.next_power_of_2(used), 4)


def _can(x: Tensor, groups: int, dropout: float) -> bool:
    """Whether kernels take these images; of none there is nothing to compute."""
    if not x.numel() or x.dtype == torch.float64:
        return False
    c = x.shape[1]
    used, _ = _channels(c, c // groups)
    return not dropout or (c % 4 == 0 and (used == c or used % 4 == 0))


def _rows_of(t: Tensor | None, z: Tensor | None) -> tuple[Tensor | None, Tensor | None, tuple[int, int]]:
    """Both with their values next to each other in a row, and the steps from row to row."""
    t, z = (v if v is None or v.stride(1) == 1 else v.contiguous() for v in (t, z))
    return t, z, (0 if t is None else t.stride(0), 0 if z is None else z.stride(0))


def _or(given: Tensor | None, anything: Tensor) -> Tensor:
    """What stands for a tensor that is not there, and is not read."""
    return anything if given is None else given
