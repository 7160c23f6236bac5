"""Standardised z_sem, the space that classifiers, directions and the prior live in."""

import math

from jaxtyping import Float
from torch import Tensor, nn


class Standardizer(nn.Module):
    """Mean and standard deviation of z_sem over a data set: the latent prior and the classifiers live behind it.

    Attributes:
        mean: (d,)
        std: (d,), unbiased as in the authors' code.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, " d"], std: Float[Tensor, " d"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    @classmethod
    def fit(cls, z_sem: Float[Tensor, "n d"]) -> "Standardizer":
        """The standardiser of these codes. A dimension in which they do not vary, as where a frozen network has fewer components,
        keeps its scale.

        Raises:
            ValueError: fewer than two codes, which have no standard deviation, or codes that do not vary at all.
        """
        if len(z_sem) < 2:
            raise ValueError(f"A standard deviation needs at least two codes, got {len(z_sem)}: give more images.")
        std = z_sem.std(0, correction=1)
        # Codes of one image differ by rounding, from batch to batch.
        still = std <= 1e-6 * z_sem.abs().max()
        if still.all():
            raise ValueError(
                f"The codes of {len(z_sem)} images do not vary, so they cannot be standardised: give images that differ (these may "
                "be copies of one), or a model whose encoder tells them apart."
            )
        return cls(z_sem.mean(0), std.masked_fill(still, 1.0))

    def forward(self, z_sem: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """`(z_sem - mean) / std`."""
        return (z_sem - self.mean.to(z_sem.device)) / self.std.to(z_sem.device)

    def move(self, z_sem: Float[Tensor, "n d"], direction: Float[Tensor, " d"], strength: float) -> Float[Tensor, "n d"]:
        """`denorm(norm(z_sem) + strength sqrt(d) direction)`: the paper's edit along a unit vector of standardised space.

        Raises:
            ValueError: a direction of another shape or length, or a strength that is not finite.
        """
        d = len(self.mean)
        if direction.shape != (d,) or not math.isclose(float(direction.norm()), 1, abs_tol=1e-3):
            length = float(direction.norm())
            raise ValueError(
                f"Expected a direction of shape ({d},) and length 1, got {tuple(direction.shape)} of length {length:g}."
            )
        if not math.isfinite(strength):
            raise ValueError(f"A strength must be a finite number, got {strength}.")
        return self.inverse(self(z_sem) + strength * math.sqrt(d) * direction.to(z_sem))

    def inverse(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """`z std + mean`."""
        return z * self.std.to(z.device) + self.mean.to(z.device)
