"""Philox4x32-10: a function from (key, counter) to four random words, the same integers on every device.

A counter is 128 bits: the low half counts blocks of four words, the high half is the number of the sample that they are for. So a
word is a function of its place alone, and any of them can be had without those before it.

References:
    Salmon et al. 2011, *Parallel random numbers: as easy as 1, 2, 3*.
"""

import math

import torch
from torch import Tensor

from diffae.runtime.kernels import kernel_or_plain

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
"""What the two halves of the key grow by, each round."""
ROUNDS = 10
WORD = 0xFFFFFFFF


def uniform_numbers(numbers: Tensor, key: int, count: int) -> Tensor:
    """Numbers in [0, 1), multiples of 2^-24.

    Args:
        numbers: (n,) int64, of the samples.
        key: 64 bits.
        count: how many for each.

    Returns:
        (n, count) float32, where `numbers` are.
    """
    return torch.stack(words(numbers, key, -(-count // 4)), -1).flatten(1)[:, :count].bitwise_right_shift(8) * 2.0**-24


def normal_numbers(numbers: Tensor, key: int, count: int) -> Tensor:
    """Standard normal numbers, by the transformation of Box & Muller 1958. Arguments as in `uniform_numbers`."""
    a, b, c, d = words(numbers, key, -(-count // 4))
    # Half a step away from zero, which has no logarithm.
    radius = (torch.stack([a, c], -1) >> 8).float().add_(0.5).mul_(2.0**-24).log_().mul_(-2).sqrt_()
    angle = (torch.stack([b, d], -1) >> 8).float().mul_(2 * math.pi * 2.0**-24)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1).flatten(1)[:, :count].contiguous()


uniform_operator = torch.library.custom_op("diffae::uniform", uniform_numbers, mutates_args=())
normal_operator = torch.library.custom_op("diffae::normal", normal_numbers, mutates_args=())


def uniform(numbers: Tensor, key: int, count: int) -> Tensor:
    """`uniform_numbers`; on a card by our kernel."""
    return (uniform_numbers if _by_hand(numbers) else uniform_operator)(numbers, key, count)


def normal(numbers: Tensor, key: int, count: int) -> Tensor:
    """`normal_numbers`; on a card by our kernel."""
    return (normal_numbers if _by_hand(numbers) else normal_operator)(numbers, key, count)


def _by_hand(numbers: Tensor) -> bool:
    """Whether the plain function is called: on a processor. An operator's first call loads PyTorch's compiler, for seconds."""
    return numbers.is_cpu and not torch.compiler.is_compiling()


@uniform_operator.register_fake
@normal_operator.register_fake
def _like(numbers: Tensor, key: int, count: int) -> Tensor:
    return numbers.new_empty(len(numbers), count, dtype=torch.float32)


def words(numbers: Tensor, key: int, blocks: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four words of blocks 0 .. blocks - 1 of each sample.

    Args:
        numbers: (n,) int64, of the samples.
        key: 64 bits.
        blocks: how many for each.

    Returns:
        Four of (n, blocks) int64, each word within 0 .. 2^32 - 1.
    """
    counter = torch.arange(blocks, device=numbers.device)[None]
    a, b, c, d = counter, torch.zeros_like(counter), (numbers & WORD)[:, None], (numbers >> 32 & WORD)[:, None]
    k, l = key & WORD, key >> 32 & WORD  # noqa: E741 - the two halves of the key
    for _ in range(ROUNDS):
        # The product of two words, which wraps in 64 bits with sign and still has the right ones.
        low, high = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b, c, d = (high >> 32 & WORD) ^ b ^ k, high & WORD, (low >> 32 & WORD) ^ d ^ l, low & WORD
        k, l = (k + WEYL[0]) & WORD, (l + WEYL[1]) & WORD  # noqa: E741
    return a, b, c, d


@uniform_operator.register_kernel("cuda")
def _uniform(numbers: Tensor, key: int, count: int) -> Tensor:
    return kernel_or_plain(lambda: draw(numbers, key, count, normal=False), lambda: uniform_numbers(numbers, key, count))


@normal_operator.register_kernel("cuda")
def _normal(numbers: Tensor, key: int, count: int) -> Tensor:
    return kernel_or_plain(lambda: draw(numbers, key, count, normal=True), lambda: normal_numbers(numbers, key, count))


def draw(numbers: Tensor, key: int, count: int, *, normal: bool) -> Tensor:
    """The same by the kernel."""
    from diffae.runtime.triton_philox import BLOCK, fill

    out = numbers.new_empty(len(numbers), count, dtype=torch.float32)
    if out.numel():
        fill[(len(numbers), -(-count // (4 * BLOCK)))](out, numbers, key, count, NORMAL=normal)
    return out
