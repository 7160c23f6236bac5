"""The kernel of `philox`: four words a counter, and what is made of them, without a trip to memory."""

import triton
import triton.language as tl

BLOCK = 256
"""Counters that a program turns."""


@triton.jit
def interleaved(a, b, c, d):
    """Four values each of BLOCK, in turns."""
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))


@triton.jit
def words(key, counter, number):
    """Four words a counter, as `philox.words`."""
    zero = counter * 0
    low = (number & 0xFFFFFFFF).to(tl.uint32)
    high = ((number >> 32) & 0xFFFFFFFF).to(tl.uint32)
    return tl.philox(key.to(tl.int64), counter, zero, zero.to(tl.uint32) + low, zero.to(tl.uint32) + high)


@triton.jit
def unit(word):
    """A word's upper 24 bits."""
    return (word >> 8).to(tl.float32)


@triton.jit(do_not_specialize=["key"])
def fill(out, numbers, key, count, NORMAL: tl.constexpr, BLOCK: tl.constexpr = BLOCK):
    """Rows of random numbers, each of its sample: program (row, part)."""
    row = tl.program_id(0)
    counter = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    a, b, c, d = words(key, counter.to(tl.uint32), tl.load(numbers + row))
    step = 5.9604644775390625e-08  # 2^-24
    if NORMAL:
        turn = 6.283185307179586 * step
        first, second = tl.sqrt(-2 * tl.log((unit(a) + 0.5) * step)), tl.sqrt(-2 * tl.log((unit(c) + 0.5) * step))
        b, d = unit(b) * turn, unit(d) * turn
        values = interleaved(first * tl.cos(b), first * tl.sin(b), second * tl.cos(d), second * tl.sin(d))
    else:
        values = interleaved(unit(a) * step, unit(b) * step, unit(c) * step, unit(d) * step)
    place = tl.program_id(1) * (4 * BLOCK) + tl.arange(0, 4 * BLOCK)
    tl.store(out + row.to(tl.int64) * count + place, values, mask=place < count)
