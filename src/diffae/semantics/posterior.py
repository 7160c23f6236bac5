"""p(y | z_sem) of a measurement: what a code says of a number, and how surely.

A mixture of Gaussians about a linear prediction, whose weights, means and widths a small network gives (a mixture density network:
Bishop 1994); the mean of twenty, each of which saw three fifths of the images and learned until it said most of a fourth
(Lakshminarayanan et al. 2017). What the four that never saw a fifth say of it tells how far to trust all: levels are recalibrated
by it (Kuleshov et al. 2018), so that nine in ten numbers lie within an interval of .9.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffae.runtime import seeding
from diffae.semantics.standardizer import Standardizer

FOLDS = 5
MODES = 3
"""Gaussians of a mixture."""
WIDTH = 64
"""Of the hidden layer."""
STEPS, LOOK_EVERY, BATCH = 400, 10, 256
LEAST = 30
"""Measured images at least."""
PIECE = 4096
"""Images whose quantiles are looked for at a time."""
NARROWEST = 0.01
"""Of a Gaussian, in standard deviations of the measurements: a narrower one would learn a number by heart."""


class Mixture(NamedTuple):
    """Mixtures of k Gaussians, one of each image.

    Attributes:
        weight: (..., n, k), of sum 1.
        mean: (..., n, k)
        std: (..., n, k)
    """

    weight: Tensor
    mean: Tensor
    std: Tensor

    def log_prob(self, y: Float[Tensor, "*f n"]) -> Float[Tensor, "*f n"]:
        """Logarithms of the densities of numbers."""
        each = -0.5 * ((y[..., None] - self.mean) / self.std).square() - self.std.log() + self.weight.log()
        return each.logsumexp(-1) - 0.5 * math.log(2 * math.pi)

    def cdf(self, y: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """Probabilities of numbers not above these."""
        z = (y[:, :, None] - self.mean[:, None]) / self.std[:, None]
        return (torch.special.ndtr(z) * self.weight[:, None]).sum(2)

    def quantile(self, levels: Float[Tensor, " m"]) -> Float[Tensor, "n m"]:
        """Numbers below which these shares lie, by bisection."""
        low = (self.mean - 9 * self.std).min(1, keepdim=True).values.expand(-1, len(levels))
        high = (self.mean + 9 * self.std).max(1, keepdim=True).values.expand(-1, len(levels))
        for _ in range(50):
            middle = (low + high) / 2
            below = self.cdf(middle) < levels
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


class Networks(nn.Module):
    """Several networks at once, each of which gives mixtures of standardised codes, about a linear prediction that does not learn.

    Args:
        weight: (f, d), of the linear prediction of each.
        bias: (f,)
    """

    def __init__(self, weight: Float[Tensor, "f d"], bias: Float[Tensor, " f"]) -> None:
        super().__init__()
        f, d = weight.shape
        self.linear, self.shift = weight[:, :, None], bias[:, None, None]
        self.hidden = nn.Parameter(torch.randn(f, d, WIDTH) / d**0.5)
        self.hidden_bias = nn.Parameter(torch.zeros(f, 1, WIDTH))
        self.out = nn.Parameter(0.01 * torch.randn(f, WIDTH, 3 * MODES))
        start = torch.cat([torch.zeros(MODES), torch.linspace(-0.1, 0.1, MODES), torch.full((MODES,), -0.5)])
        self.out_bias = nn.Parameter(start.repeat(f, 1, 1))

    def forward(self, z: Float[Tensor, "f n d"]) -> Mixture:
        hidden = F.dropout(F.silu(z @ self.hidden + self.hidden_bias), 0.1, self.training)
        weight, shift, width = (hidden @ self.out + self.out_bias).chunk(3, dim=2)
        return Mixture(weight.softmax(2), z @ self.linear + self.shift + shift, F.softplus(width) + NARROWEST)


class Posterior:
    """p(y | z_sem) of one measurement.

    Args:
        z_sem: codes (n, d).
        y: (n,), what was measured of each; NaN where nothing was.
        groups: (n,), of images that belong together, such as a person's: how sure it is is learned from other groups; by
            default each image stands for itself.
        seed: of folds and networks.
        progress: told how far it is.

    Raises:
        ValueError: fewer than 30 numbers, or of fewer than five groups, infinite ones, or all the same.
    """

    def __init__(
        self, z_sem: Float[Tensor, "n d"], y: np.ndarray, *, groups: np.ndarray | None = None, seed: int = 0,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:  # fmt: skip
        known = ~np.isnan(y)
        if known.sum() < LEAST:
            raise ValueError(f"A posterior is fitted to at least {LEAST} measured images, got {known.sum()}.")
        if not np.isfinite(y[known]).all():
            raise ValueError("Some of the measurements are infinite.")
        self.center, self.scale = float(y[known].mean()), float(y[known].std())
        if self.scale <= 1e-9 * max(1.0, abs(self.center)):
            raise ValueError(f"All {known.sum()} measurements are {self.center:g}: there is nothing to tell.")
        codes = _plain(z_sem)[torch.from_numpy(known)]
        self.standardizer = Standardizer.fit(codes)
        z = self.standardizer(codes)
        wanted = torch.from_numpy((y[known] - self.center) / self.scale).float()
        together = np.arange(len(wanted)) if groups is None else np.unique(groups[known], return_inverse=True)[1]
        if (num := int(together.max()) + 1) < FOLDS:
            raise ValueError(
                f"How sure a posterior is is learned from {FOLDS} groups at least; those that are measured are of {num}."
            )
        fold = torch.from_numpy((np.random.default_rng(seed).permutation(num) % FOLDS)[together])
        stops, strangers = torch.tensor(list(itertools.permutations(range(FOLDS), 2))).T
        looked_at = fold == stops[:, None]
        seen = ~looked_at & (fold != strangers[:, None])
        self.networks = _trained(z, wanted, seen, looked_at, seeding.mix(seed, "posterior"), progress)
        levels = torch.zeros(len(wanted), dtype=torch.float64)
        for k in range(FOLDS):
            rows = fold == k
            levels[rows] = _mixed(self.networks, z[rows], strangers == k).cdf(wanted[rows, None].double())[:, 0]
        # Of n numbers a new one is as likely in each of the n + 1 gaps.
        self.levels = torch.cat([torch.zeros(1), levels, torch.ones(1)]).double().sort().values

    def mixture(self, z_sem: Float[Tensor, "n d"]) -> Mixture:
        """The mixture of all networks, in standard deviations of the measurements from their mean, before recalibration."""
        return _mixed(self.networks, self.standardizer(_plain(z_sem)))

    def mean(self, z_sem: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The number to expect of each image, float64."""
        mixture = self.mixture(z_sem)
        return self.center + self.scale * (mixture.weight * mixture.mean).sum(1)

    def quantile(self, z_sem: Float[Tensor, "n d"], shares: Float[Tensor, " m"]) -> Float[Tensor, "n m"]:
        """Numbers below which these shares lie, float64, recalibrated.

        Raises:
            ValueError: a share that is not between 0 and 1.
        """
        if not ((shares > 0) & (shares < 1)).all():
            raise ValueError(f"Shares lie between 0 and 1, got {', '.join(f'{s:g}' for s in shares.tolist())}.")
        levels = self.levels.quantile(shares.double()).clamp(1e-6, 1 - 1e-6)
        parts = [self.mixture(part).quantile(levels) for part in z_sem.split(PIECE)]
        return self.center + self.scale * torch.cat(parts)

    def interval(self, z_sem: Float[Tensor, "n d"], share: float = 0.9) -> Float[Tensor, "n 2"]:
        """Lower and upper end of the interval in which this share of numbers lies, as many below it as above."""
        return self.quantile(z_sem, torch.tensor([(1 - share) / 2, (1 + share) / 2]))


def _plain(z_sem: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Codes as the networks take them, wherever they are and whatever they are of: on the processor, float32."""
    return z_sem.detach().cpu().float()


@torch.no_grad()
def _mixed(networks: Networks, z: Float[Tensor, "n d"], some: Bool[Tensor, " f"] | None = None) -> Mixture:
    """The mean of what networks say, of all or of some of them, float64."""
    found = networks(z.expand(len(networks.hidden), -1, -1))
    parts = (part if some is None else part[some] for part in found)
    weight, mean, std = (part.double().transpose(0, 1).flatten(1) for part in parts)
    return Mixture(weight / weight.sum(1, keepdim=True), mean, std)


def _trained(
    z: Float[Tensor, "n d"], y: Float[Tensor, " n"], seen: Bool[Tensor, "f n"], looked_at: Bool[Tensor, "f n"], seed: int,
    progress: Callable[[str, int, int], None],
) -> Networks:  # fmt: skip
    """Networks that learned from the images that each may see, as they were when they said most of those that are looked at."""
    from sklearn.linear_model import RidgeCV

    alphas = np.logspace(-1, 5, 13)
    ridges = [RidgeCV(alphas=alphas).fit(z[rows].double().numpy(), y[rows].double().numpy()) for rows in seen]
    linear = torch.from_numpy(np.stack([ridge.coef_ for ridge in ridges])).float()
    most = int(seen.sum(1).max())
    # Where groups differ in size, so do these: those of the smaller ones come round again.
    rows_of = torch.stack([found[torch.arange(most) % len(found)] for found in (rows.nonzero()[:, 0] for rows in seen)])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # The processor's alone: of cards none is forked.
        networks = Networks(linear, torch.tensor([float(ridge.intercept_) for ridge in ridges]))
        optimizer = torch.optim.AdamW(networks.parameters(), lr=3e-3, weight_decay=0.05)
        best = torch.full((len(seen),), float("inf"))
        kept = {name: value.clone() for name, value in networks.state_dict().items()}
        for step in range(STEPS):
            rows = rows_of.gather(1, torch.randint(most, (len(seen), min(BATCH, most))))
            optimizer.zero_grad()
            (-networks(z[rows]).log_prob(y[rows])).mean(1).sum().backward()
            optimizer.step()
            if (step + 1) % LOOK_EVERY == 0:
                progress("Fitting the posterior", step + 1, STEPS)
                networks.eval()
                with torch.no_grad():
                    said = networks(z.expand(len(seen), -1, -1)).log_prob(y.expand(len(seen), -1))
                networks.train()
                loss = -(said * looked_at).sum(1) / looked_at.sum(1)
                better = loss < best
                best = torch.where(better, loss, best)
                for name, value in networks.state_dict().items():
                    kept[name][better] = value[better]
    networks.load_state_dict(kept)
    return networks.eval()
