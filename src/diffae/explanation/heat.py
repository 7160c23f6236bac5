"""Maps of numbers as colours."""

import torch
from jaxtyping import Float
from torch import Tensor

BELOW, ABOVE = (0.13, 0.40, 0.67), (0.70, 0.09, 0.17)
"""Blue and red, [0, 1], which people who do not tell red from green tell too."""


def heat(values: Float[Tensor, "n *sides"], *, most: float | None = None) -> Float[Tensor, "n 3 *sides"]:
    """Numbers as pictures in [-1, 1]: white at 0, red above, blue below, full at `most` (by default, of each, its largest)."""
    ones = [1] * (values.dim() - 1)
    size = values.abs().flatten(1).amax(1).clamp(min=1e-12) if most is None else torch.full((len(values),), most)
    share = (values / size.to(values).view(-1, *ones)).clamp(-1, 1)[:, None]
    above, below = (torch.tensor(colour).to(values).view(1, 3, *ones) for colour in (ABOVE, BELOW))
    return 1 - 2 * share.abs() * (1 - torch.where(share > 0, above, below))


def difference(x: Float[Tensor, "n c *sides"], y: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n 3 *sides"]:
    """Where y is brighter than x, red, and where it is darker, blue: of each pixel the channel that changed most."""
    change = y - x
    return heat(change.gather(1, change.abs().argmax(1, keepdim=True))[:, 0])
