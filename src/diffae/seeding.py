"""Randomness that depends on what it is for, never on when it is drawn.

Every random number of training and sampling comes from a generator that is seeded by the identity of the sample it
belongs to: its place in the run, or its number among the samples asked for. So a sample does not depend on the batch
size, on the number of processes or on interruptions, and no generator state has to be saved to resume exactly.
"""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def mix(*parts: int | str) -> int:
    """A 63-bit seed from any integers and strings, well mixed: `mix(0, 1)` and `mix(1, 0)` are unrelated."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def normal(seeds: Sequence[int], shape: tuple[int, ...]) -> Float[Tensor, "n *shape"]:
    """Standard normal noise, one draw of `shape` per seed, on the CPU in float32."""
    out = torch.empty(len(seeds), *shape)
    for row, seed in zip(out, seeds, strict=True):
        row.normal_(generator=torch.Generator().manual_seed(seed))
    return out


def uniform(seeds: Sequence[int]) -> Float[Tensor, " n"]:
    """Uniform numbers in [0, 1), one per seed, on the CPU in float32."""
    return torch.stack([torch.rand((), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def sample_seeds(num: int, seed: int | torch.Generator, *, start: int = 0) -> list[int]:
    """Seeds of samples number start .. start + num - 1: number i's depends on `seed` and i alone."""
    if isinstance(seed, torch.Generator):
        seed = drawn(seed)
    return [mix(seed, i) for i in range(start, start + num)]


def drawn(generator: torch.Generator) -> int:
    """A seed from a generator, which moves on."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))
