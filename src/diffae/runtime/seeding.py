"""Randomness that depends on what it is for, never on when or where it is drawn.

Every random number of training and sampling is a function of a seed, of the number of the sample it belongs to (its place in the
run, or its number among the samples asked for), and of what it is for. So a sample does not depend on the batch size, on the number
of processes or on interruptions, no generator state has to be saved to resume exactly, and a device draws for itself.
"""

import hashlib
import operator
from dataclasses import dataclass
from numbers import Integral

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from diffae.runtime import philox


def mix(*parts: int | str) -> int:
    """A 63-bit seed from any integers and strings, well mixed: `mix(0, 1)` and `mix(1, 0)` are unrelated."""
    # Integers of NumPy call themselves otherwise than Python's, and otherwise from version to version.
    parts = tuple(int(part) if isinstance(part, Integral) and not isinstance(part, bool) else part for part in parts)
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


Start = int | Integer[Tensor, " n"]
"""The number of the first of several samples, whose numbers rise by one; or the number of each."""


@dataclass(frozen=True, slots=True)
class Draws:
    """The random numbers of samples.

    Attributes:
        seed: of all of them.
        numbers: int64, which sample each is. What is drawn is drawn where these are.
    """

    seed: int
    numbers: Int[Tensor, " n"]

    @classmethod
    def of(
        cls, num: int, seed: int | torch.Generator, *, start: Start = 0,
        device: torch.device | str | None = None,
    ) -> "Draws":  # fmt: skip
        """Samples number start .. start + num - 1, or, of a tensor, of these numbers; from a generator, others each time.

        Raises:
            TypeError: a seed that is no whole number.
        """
        seed = draw_seed(seed) if isinstance(seed, torch.Generator) else operator.index(seed)
        if isinstance(start, Tensor):
            if start.shape != (num,) or start.is_floating_point():
                raise ValueError(f"Expected a whole number for each of {num} samples, got {tuple(start.shape)} of {start.dtype}.")
            # As kernels read them: of 64 bits, one after the other.
            return cls(seed, start.to(device, torch.int64).contiguous())
        return cls(seed, torch.arange(start, start + num, device=device))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: slice | Tensor) -> "Draws":
        return Draws(self.seed, self.numbers[index])

    def fork(self, *parts: int | str) -> "Draws":
        """The same samples with numbers of their own for something else: unrelated to these."""
        return Draws(mix(self.seed, *parts), self.numbers)

    def uniform(self, purpose: str, shape: tuple[int, ...] = ()) -> Float[Tensor, "n *shape"]:
        """Uniform numbers in [0, 1), `shape` of them a sample, float32."""
        return philox.uniform(self.numbers, mix(self.seed, purpose), torch.Size(shape).numel()).view(-1, *shape)

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Float[Tensor, "n *shape"]:
        """Standard normal numbers, `shape` of them a sample, float32."""
        return philox.normal(self.numbers, mix(self.seed, purpose), torch.Size(shape).numel()).view(-1, *shape)


def draw_seed(generator: torch.Generator) -> int:
    """A seed from a generator, which moves on."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))
