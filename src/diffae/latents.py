"""Arithmetic of the two codes: interpolation of z_sem and x_T, and standardised z_sem."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def lerp(a: Float[Tensor, "n *s"], b: Float[Tensor, "n *s"], weight: float) -> Float[Tensor, "n *s"]:
    """`(1 - weight) a + weight b`; for z_sem (Preechakul et al. 2022, section 5.2)."""
    return torch.lerp(a, b, weight)


def slerp(a: Float[Tensor, "n *s"], b: Float[Tensor, "n *s"], weight: float) -> Float[Tensor, "n *s"]:
    """Spherical interpolation of each sample, for x_T: Gaussian noise stays on its sphere (Shoemake 1985).

    `sin((1-w) theta) / sin(theta) a + sin(w theta) / sin(theta) b`, theta the angle between a and b. Falls back to `lerp`
    where the two are parallel. Exact at weight 0 and 1.

    Raises:
        ValueError: one of the two is the zero vector, which has no direction.
    """
    u, v = a.flatten(1).double(), b.flatten(1).double()
    norms = u.norm(dim=1) * v.norm(dim=1)
    if (norms == 0).any():
        raise ValueError("slerp got a zero vector, which has no direction: interpolate it with lerp, or give another x_T.")
    theta = torch.acos(((u * v).sum(1) / norms).clamp(-1, 1))
    # Near 0 and pi the great circle is not determined; there a straight line is as good.
    sine = theta.sin()
    parallel = sine < 1e-6
    sine = sine.masked_fill(parallel, 1)
    w_a = torch.where(parallel, 1 - weight, ((1 - weight) * theta).sin() / sine)
    w_b = torch.where(parallel, weight, (weight * theta).sin() / sine)
    return (w_a[:, None] * u + w_b[:, None] * v).reshape(a.shape).to(a)


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
        """The standardiser of these codes.

        Raises:
            ValueError: fewer than two codes, of which there is no standard deviation.
        """
        if len(z_sem) < 2:
            raise ValueError(f"A standard deviation needs at least two codes, got {len(z_sem)}.")
        return cls(z_sem.mean(0), z_sem.std(0, correction=1))

    def forward(self, z_sem: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """`(z_sem - mean) / std`."""
        return (z_sem - self.mean) / self.std

    def inverse(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """`z std + mean`."""
        return z * self.std + self.mean
