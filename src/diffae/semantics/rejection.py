"""Samples of a class: codes of the prior, chosen among by a classifier."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffae.runtime.seeding import Draws


class Accepted(NamedTuple):
    """What rejection sampling gave.

    Attributes:
        z_sem: (num, d), the accepted codes, in the order in which they were proposed.
        proposals: number of codes that had to be drawn for them.
    """

    z_sem: Tensor
    proposals: int


def rejection_sample(
    propose: Callable[[int, int], Float[Tensor, "n d"]],
    probability: Callable[[Tensor], Tensor],
    num: int,
    *,
    seed: int,
    max_proposals: int,
    batch: int = 256,
) -> Accepted:
    """Codes of a prior, each kept with the probability that it is of the class: samples of p(z | y) (section 5.5).

    Args:
        propose: `(start, count) -> z_sem` of proposals number start .. start + count - 1.
        probability: z_sem (n, d) -> (n,), within 0..1.
        num: number of codes wanted.
        seed: of the decisions; that on proposal i depends on the seed and i alone.
        max_proposals: bound on the number of proposals.
        batch: number of proposals at a time.

    Raises:
        ValueError: the bound was reached; the message names the acceptance rate.
    """
    accepted_codes: list[Tensor] = []
    accepted = start = 0
    while accepted < num:
        if start >= max_proposals:
            raise ValueError(
                f"Only {accepted} of {start} proposals were accepted ({accepted / start:.2%}), and {num} were asked for. Ask for "
                "fewer, allow more proposals, or check the labels: the prior may hardly know this class."
            )
        count = min(batch, max_proposals - start)
        z_sem = propose(start, count)
        u = Draws.of(count, seed, start=start, device=z_sem.device).uniform("accept")
        (places,) = torch.where(u < probability(z_sem))
        places = places[: num - accepted]
        accepted_codes.append(z_sem[places])
        accepted += len(places)
        # Proposals after the last that was needed were not needed.
        start = start + int(places[-1]) + 1 if accepted == num else start + count
    return Accepted(torch.cat(accepted_codes) if accepted_codes else propose(0, 1)[:0], start)
