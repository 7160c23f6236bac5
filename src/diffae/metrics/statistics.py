"""Distances between sets of features: Fréchet from streamed moments, kernel distance from the features themselves."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over features, in float64. Those of parts add up to those of the whole, in whatever order they were seen.

    Attributes:
        n: number of features.
        total: (d,), their sum.
        outer: (d, d), the sum of their outer products.
    """

    n: int
    total: Tensor
    outer: Tensor

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> "Moments":
        """The moments of these features."""
        f = features.double()
        return cls(len(f), f.sum(0), f.T @ f)

    @classmethod
    def over(cls, batches: Iterable[Float[Tensor, "n d"]]) -> "Moments":
        """The moments of all batches, which are seen once and not kept.

        Raises:
            ValueError: there is none.
        """
        whole = None
        for batch in batches:
            whole = cls.of(batch) if whole is None else whole + cls.of(batch)
        if whole is None:
            raise ValueError("There are no features to take the moments of.")
        return whole

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.n + other.n, self.total + other.total, self.outer + other.outer)

    def mean_and_covariance(self) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
        """Mean and unbiased covariance.

        Raises:
            ValueError: fewer than two features.
        """
        if self.n < 2:
            raise ValueError(f"A covariance needs at least two images, got {self.n}.")
        mean = self.total / self.n
        return mean, (self.outer - self.n * mean.outer(mean)) / (self.n - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """`|mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))` (Dowson & Landau 1982); of Inception's features this is FID."""
    (mean_a, cov_a), (mean_b, cov_b) = a.mean_and_covariance(), b.mean_and_covariance()
    # (S_a S_b)^(1/2) has the trace of (R S_b R)^(1/2) with R = S_a^(1/2), which is symmetric and has no complex roots.
    values, axes = torch.linalg.eigh(cov_a)
    root = (axes * values.clamp(min=0).sqrt()) @ axes.T
    trace = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace)


def kernel_distance(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Kernel inception distance: the squared maximum mean discrepancy of the kernel `(x.y / d + 1)^3`, unbiased.

    Unlike FID its expectation does not depend on the number of images (Binkowski et al. 2018).

    Args:
        a: features.
        b: features.
        subsets: number of random subsets to average over.
        size: images of either set in each; not more than there are.
        seed: of the subsets.

    Returns:
        Mean and standard deviation over the subsets.

    Raises:
        ValueError: fewer than two images on either side.
    """
    size = min(size, len(a), len(b))
    if size < 2:
        raise ValueError(f"The kernel distance needs at least two images of either set, got {len(a)} and {len(b)}.")
    if size == len(a) == len(b):
        subsets = 1
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(subsets):
        x, y = (f[torch.randperm(len(f), generator=generator)[:size]].double() for f in (a, b))
        k_xx, k_yy, k_xy = ((u @ v.T / u.shape[1] + 1) ** 3 for u, v in ((x, x), (y, y), (x, y)))
        pairs = size * (size - 1)
        found.append((k_xx.sum() - k_xx.trace()) / pairs + (k_yy.sum() - k_yy.trace()) / pairs - 2 * k_xy.mean())
    values = torch.stack(found)
    return float(values.mean()), float(values.std()) if subsets > 1 else 0.0


def precision_recall(made: Float[Tensor, "n d"], real: Float[Tensor, "m d"], *, neighbours: int = 3) -> tuple[float, float]:
    """Share of made features within the manifold of the real ones, and of real ones within that of the made ones: the union
    of balls about each that reach its k-th nearest neighbour (Kynkäänniemi et al. 2019).

    Raises:
        ValueError: not more features than neighbours on either side.
    """
    if min(len(made), len(real)) <= neighbours:
        raise ValueError(f"Expected more than {neighbours} of either, got {len(made)} and {len(real)}.")
    return _fraction_within(made.double(), real.double(), neighbours), _fraction_within(real.double(), made.double(), neighbours)


def _fraction_within(points: Tensor, centres: Tensor, neighbours: int, *, chunk: int = 2048) -> float:
    """The share of points in a ball about some centre; a chunk at a time, since all distances of 50,000 images fill 20 GB."""
    radius = torch.cat([torch.cdist(part, centres).kthvalue(neighbours + 1).values for part in centres.split(chunk)])
    within = torch.cat([(torch.cdist(part, centres) <= radius).any(1) for part in points.split(chunk)])
    return float(within.double().mean())
