"""The Triton kernels of `normalisation`, for images with their channels last in memory.

A program has some whole groups of channels of one image, and all of its pixels or a part of them. With all pixels, one kernel does
everything. It reads its part of the image twice, the second time from a cache. With a part of the pixels, a kernel before it has
computed the statistics of the whole image. Images are divided like that where there are too few of them to fill a card.

`WIDTH` is the number of channels in a group. A program has `USED` channels, in a block of `BLOCK`, a power of two. It works on
`ROWS` pixels at a time.
"""

import triton
import triton.language as tl

from diffae.runtime.triton_philox import interleaved, words


@triton.jit
def _group_sum(values, lane, WIDTH: tl.constexpr):
    """The sum over a channel's group, for each channel."""
    group = lane // WIDTH
    return tl.sum(tl.where(group[:, None] == group[None, :], values[None, :], 0.0), axis=1)


@triton.jit
def _affine(gamma, beta, t, z, n, c, used, channels, t_stride, z_stride, ADAPTIVE: tl.constexpr, CONDITIONED: tl.constexpr):
    """Scale and shift of channels before z, and the factor 1 + z."""
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
def _dropout_mask(key, number, pixel, channels, threshold, USED: tl.constexpr, BLOCK: tl.constexpr):
    """Whether dropout keeps a value, (pixels, BLOCK); the draws are those of `normalisation.dropout_mask`."""
    quarter = tl.program_id(1) * (USED // 4) + tl.arange(0, BLOCK // 4)
    counter = (pixel * (channels // 4))[:, None] + quarter[None, :]
    a, b, c_, d = words(key, counter.to(tl.uint32), number)
    return (interleaved(a, b, c_, d) >> 8).to(tl.int32) >= threshold


@triton.jit
def _channel_statistics(x, c, used, first, last, channels, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Mean of each channel over pixels first .. last - 1, and the sum of squares about it (Chan et al. 1983)."""
    mean = tl.zeros([BLOCK], dtype=tl.float32)
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(first, last, ROWS):
        pixel = start + tl.arange(0, ROWS)
        inside = (pixel < last)[:, None] & used[None, :]
        value = tl.load(x + pixel[:, None] * channels + c[None, :], mask=inside, other=0.0).to(tl.float32)
        count_before = (start - first).to(tl.float32)
        count = tl.minimum(last - start, ROWS).to(tl.float32)
        part_mean = tl.sum(value, axis=0) / count
        centred = tl.where(inside, value - part_mean[None, :], 0.0)
        delta = part_mean - mean
        squares += tl.sum(centred * centred, axis=0) + delta * delta * (count_before * count / (count_before + count))
        mean += delta * (count / (count_before + count))
    return mean, squares


@triton.jit
def _pixel_range(part, parts, pixels, ROWS: tl.constexpr):
    """The pixels of one of several parts."""
    size = tl.cdiv(tl.cdiv(pixels, ROWS), parts) * ROWS
    return part * size, tl.minimum(part * size + size, pixels)


@triton.jit
def _program(pixels, channels, parts, USED: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """What this program works on: image n and part, lanes, their channels c, which of these are used, where the image begins, and
    its first and last pixel."""
    n, part, lane = tl.program_id(0), tl.program_id(2), tl.arange(0, BLOCK)
    c = tl.program_id(1) * USED + lane
    used = (lane < USED) & (c < channels)
    first, last = _pixel_range(part, parts, pixels, ROWS)
    return n, part, lane, c, used, n.to(tl.int64) * pixels * channels, first, last


@triton.jit
def statistics_kernel(
    x, means, squares, pixels, channels, parts, USED: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """Means, and sums of squares about them, of channels over a part of the pixels: (n, parts, c) each."""
    n, part, _, c, used, image, first, last = _program(pixels, channels, parts, USED, BLOCK, ROWS)
    mean, square = _channel_statistics(x + image, c, used, first, last, channels, ROWS, BLOCK)
    tl.store(means + (n * parts + part) * channels + c, mean, mask=used)
    tl.store(squares + (n * parts + part) * channels + c, square, mask=used)


@triton.jit(do_not_specialize=["key", "threshold"])
def normalise_kernel(
    x, y, gamma, beta, t, z, numbers, mean_out, inverse_out, means, squares, pixels, channels, parts, t_stride, z_stride,
    eps, key, threshold, dropout_scale, WIDTH: tl.constexpr, USED: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    SILU: tl.constexpr, DROPOUT: tl.constexpr, ADAPTIVE: tl.constexpr, CONDITIONED: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The normalised image. With PARTS, the statistics of its parts are given. Without, this kernel computes them."""
    n, part, lane, c, used, image, first, last = _program(pixels, channels, parts, USED, BLOCK, ROWS)
    if PARTS:
        mean = tl.zeros([BLOCK], dtype=tl.float32)
        square = tl.zeros([BLOCK], dtype=tl.float32)
        for k in range(parts):
            begin, end = _pixel_range(k, parts, pixels, ROWS)
            part_mean = tl.load(means + (n * parts + k) * channels + c, mask=used, other=0.0)
            count_before, count = begin.to(tl.float32), (end - begin).to(tl.float32)
            delta = part_mean - mean
            square += tl.load(squares + (n * parts + k) * channels + c, mask=used, other=0.0)
            square += delta * delta * (count_before * count / (count_before + count))
            mean += delta * (count / (count_before + count))
    else:
        mean, square = _channel_statistics(x + image, c, used, first, last, channels, ROWS, BLOCK)
    group_mean = _group_sum(mean, lane, WIDTH) / WIDTH
    delta = tl.where(used, mean - group_mean, 0.0)
    variance = _group_sum(square + pixels * delta * delta, lane, WIDTH) / (WIDTH * pixels)
    inverse = 1 / tl.sqrt(variance + eps)
    if part == 0:
        group_index = n * (channels // WIDTH) + c // WIDTH
        tl.store(mean_out + group_index, group_mean, mask=used & (c % WIDTH == 0))
        tl.store(inverse_out + group_index, inverse, mask=used & (c % WIDTH == 0))
    scale, shift, factor = _affine(gamma, beta, t, z, n, c, used, channels, t_stride, z_stride, ADAPTIVE, CONDITIONED)
    scale, shift = inverse * scale * factor, shift * factor
    for start in range(first, last, ROWS):
        pixel = start + tl.arange(0, ROWS)
        inside = (pixel < last)[:, None] & used[None, :]
        offset = image + pixel[:, None] * channels + c[None, :]
        value = tl.load(x + offset, mask=inside, other=0.0).to(tl.float32)
        value = (value - group_mean[None, :]) * scale[None, :] + shift[None, :]
        if SILU:
            value = value / (1 + tl.exp(-value))
        if DROPOUT:
            passed = _dropout_mask(key, tl.load(numbers + n), pixel, channels, threshold, USED, BLOCK)
            value = tl.where(passed, value * dropout_scale, 0.0)
        tl.store(y + offset, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _preactivation_gradient(
    x, dy, image, start, last, used, mean, inverse, scale, shift, numbers, n, key, c, channels, threshold, dropout_scale,
    ROWS: tl.constexpr, USED: tl.constexpr, BLOCK: tl.constexpr, SILU: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradient dh of the input of SiLU and the normalised image x_hat of ROWS pixels, where these lie, and which there are."""
    pixel = start + tl.arange(0, ROWS)
    inside = (pixel < last)[:, None] & used[None, :]
    offset = image + pixel[:, None] * channels + c[None, :]
    x_hat = (tl.load(x + offset, mask=inside, other=0.0).to(tl.float32) - mean[None, :]) * inverse[None, :]
    dh = tl.load(dy + offset, mask=inside, other=0.0).to(tl.float32)
    if DROPOUT:
        passed = _dropout_mask(key, tl.load(numbers + n), pixel, channels, threshold, USED, BLOCK)
        dh = tl.where(passed, dh * dropout_scale, 0.0)
    if SILU:
        h = x_hat * scale[None, :] + shift[None, :]
        s = 1 / (1 + tl.exp(-h))
        dh = dh * s * (1 + h * (1 - s))
    return dh, tl.where(inside, x_hat, 0.0), offset, inside


@triton.jit
def _gradient_sums(
    x, dy, image, first, last, used, mean, inverse, scale, shift, numbers, n, key, c, channels, threshold, dropout_scale,
    ROWS: tl.constexpr, USED: tl.constexpr, BLOCK: tl.constexpr, SILU: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Sums of dh and of dh x_hat over pixels first .. last - 1."""
    sum_dh = tl.zeros([BLOCK], dtype=tl.float32)
    sum_dh_x_hat = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(first, last, ROWS):
        dh, x_hat, _, _ = _preactivation_gradient(
            x, dy, image, start, last, used, mean, inverse, scale, shift, numbers, n, key, c, channels, threshold, dropout_scale,
            ROWS, USED, BLOCK, SILU, DROPOUT,
        )  # fmt: skip
        sum_dh += tl.sum(dh, axis=0)
        sum_dh_x_hat += tl.sum(dh * x_hat, axis=0)
    return sum_dh, sum_dh_x_hat


@triton.jit(do_not_specialize=["key", "threshold"])
def gradient_kernel(
    x, dy, dx, gamma, beta, t, z, numbers, mean_in, inverse_in, dgamma, dbeta, dt, dz, partial_dh, partial_dh_x_hat,
    pixels, channels, parts, t_stride, z_stride, key, threshold, dropout_scale,
    WIDTH: tl.constexpr, USED: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, SILU: tl.constexpr,
    DROPOUT: tl.constexpr, ADAPTIVE: tl.constexpr, CONDITIONED: tl.constexpr, STAGE: tl.constexpr,
):  # fmt: skip
    """The gradients. STAGE 1 writes sums over a part of the pixels, STAGE 2 starts from them, STAGE 0 does both at once."""
    n, part, lane, c, used, image, first, last = _program(pixels, channels, parts, USED, BLOCK, ROWS)
    group_index = n * (channels // WIDTH) + c // WIDTH
    mean = tl.load(mean_in + group_index, mask=used, other=0.0)
    inverse = tl.load(inverse_in + group_index, mask=used, other=0.0)
    base_scale, base_shift, factor = _affine(gamma, beta, t, z, n, c, used, channels, t_stride, z_stride, ADAPTIVE, CONDITIONED)
    scale, shift = base_scale * factor, base_shift * factor
    if STAGE != 2:
        sum_dh, sum_dh_x_hat = _gradient_sums(
            x, dy, image, first, last, used, mean, inverse, scale, shift, numbers, n, key, c, channels, threshold, dropout_scale,
            ROWS, USED, BLOCK, SILU, DROPOUT,
        )  # fmt: skip
    else:
        sum_dh = tl.zeros([BLOCK], dtype=tl.float32)
        sum_dh_x_hat = tl.zeros([BLOCK], dtype=tl.float32)
        for k in range(parts):
            sum_dh += tl.load(partial_dh + (n * parts + k) * channels + c, mask=used, other=0.0)
            sum_dh_x_hat += tl.load(partial_dh_x_hat + (n * parts + k) * channels + c, mask=used, other=0.0)
    if STAGE == 1:
        tl.store(partial_dh + (n * parts + part) * channels + c, sum_dh, mask=used)
        tl.store(partial_dh_x_hat + (n * parts + part) * channels + c, sum_dh_x_hat, mask=used)
    else:
        if part == 0:
            dscale, dshift = sum_dh_x_hat * factor, sum_dh * factor
            if CONDITIONED:
                tl.store(
                    dz + n * channels + c, (sum_dh_x_hat * base_scale + sum_dh * base_shift).to(dz.dtype.element_ty), mask=used
                )
            if ADAPTIVE:
                g = tl.load(gamma + c, mask=used, other=0.0).to(tl.float32)
                b = tl.load(beta + c, mask=used, other=0.0).to(tl.float32)
                tl.store(dt + n * 2 * channels + c, (dscale * g + dshift * b).to(dt.dtype.element_ty), mask=used)
                tl.store(dt + n * 2 * channels + channels + c, dshift.to(dt.dtype.element_ty), mask=used)
                t_s = 1 + tl.load(t + n * t_stride + c, mask=used, other=0.0).to(tl.float32)
                dscale, dshift = dscale * t_s, dshift * t_s
            tl.store(dgamma + n * channels + c, dscale, mask=used)
            tl.store(dbeta + n * channels + c, dshift, mask=used)
        values = WIDTH * pixels
        mean_dn = _group_sum(scale * sum_dh, lane, WIDTH) / values
        mean_dn_x_hat = _group_sum(scale * sum_dh_x_hat, lane, WIDTH) / values
        for start in range(first, last, ROWS):
            dh, x_hat, offset, inside = _preactivation_gradient(
                x, dy, image, start, last, used, mean, inverse, scale, shift, numbers, n, key, c, channels, threshold,
                dropout_scale, ROWS, USED, BLOCK, SILU, DROPOUT,
            )  # fmt: skip
            gradient = inverse[None, :] * (dh * scale[None, :] - mean_dn[None, :] - x_hat * mean_dn_x_hat[None, :])
            tl.store(dx + offset, gradient.to(dx.dtype.element_ty), mask=inside)
