"""Both codes of images, and how x_T was found."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Inversion = Literal["official"]


@dataclass(frozen=True, slots=True)
class Code:
    """What `DiffusionAutoencoder.infer` found of images, and how: all that `render` needs.

    Attributes:
        z_sem: (n, d), the semantic codes.
        x_T: (n, c, h, w), the stochastic codes.
        inversion: how x_T was found.
        steps: number of solver steps, the same in both directions.
    """

    z_sem: Tensor
    x_T: Tensor
    inversion: Inversion
    steps: int

    def __getitem__(self, index: slice | Tensor) -> "Code":
        """The codes of some of the images."""
        return Code(self.z_sem[index], self.x_T[index], self.inversion, self.steps)


def check_inversion(inversion: str) -> None:
    """Refuses the name of an inversion that there is not."""
    if inversion != "official":
        raise ValueError(f"Unknown inversion {inversion!r}; there is 'official'.")
