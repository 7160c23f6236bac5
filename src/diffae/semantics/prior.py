"""Priors of z_sem, which make the autoencoder a generative model: the latent DDIM of the paper, a Gaussian, a smoothed bootstrap.

All live wholly in the space of standardised codes, where each component has mean 0 and variance 1.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae.config import PriorConfig
from diffae.diffusion.schedule import Schedule, draw_timesteps, spaced_path
from diffae.diffusion.solvers import solve
from diffae.nn.mlp import SkipMLP
from diffae.runtime.seeding import Draws

MOST_CODES = 20_000
"""That a smoothed bootstrap holds."""
LOOKED_AT = 500
"""Codes, and samples, whose nearest codes say how much it is smoothed; samples, at most, that are drawn at a time."""
NEIGHBOURS = (200, 800)
"""Codes whose covariance its noise has, of those around a code; the second where the first are too few, then all."""
MOST_NOISE = 0.9
"""Of a sample; where it takes more, there are too few codes around each to say how they vary."""
SAME = 1e-4
"""Of the distance between any two codes, below which one is a copy of the other."""
AT_ONCE = 50_000
"""Codes that are in memory at a time, of those around samples."""


class GaussianPrior(nn.Module):
    """A Gaussian over standardised z_sem: what can be had without training, and what a trained prior has to beat.

    Args:
        z_dim: dimension d of z_sem.

    Attributes:
        mean: (d,)
        axes: (d, d), the principal axes of the covariance, in columns.
        variances: (d,), the variance along each.
        given: the label of the images whose codes it is of; None for one of all images.
    """

    given: str | None = None
    mean: Tensor
    axes: Tensor
    variances: Tensor

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(z_dim))
        # Not `torch.eye`, for which PyTorch loads its compiler where a model is only sketched.
        self.register_buffer("axes", torch.zeros(z_dim, z_dim).fill_diagonal_(1))
        self.register_buffer("variances", torch.ones(z_dim))

    def fit(self, z: Float[Tensor, "n d"]) -> "GaussianPrior":
        """Becomes the Gaussian of these standardised codes. Its covariance is shrunk towards a multiple of the identity by as
        much as their number calls for (Ledoit & Wolf 2004), so that it exists for fewer codes than dimensions too.

        Raises:
            ValueError: fewer than two codes.
        """
        from sklearn.covariance import LedoitWolf

        if len(z) < 2:
            raise ValueError(f"A covariance needs at least two codes, got {len(z)}.")
        found = LedoitWolf().fit(z.detach().cpu().double().numpy())
        variances, axes = torch.linalg.eigh(torch.from_numpy(found.covariance_))
        self.mean.copy_(torch.from_numpy(found.location_))
        self.axes.copy_(axes)
        self.variances.copy_(variances.clamp(min=0))
        return self

    def eps(self, z_t: Float[Tensor, "n d"], alpha: Tensor, sigma: Tensor) -> Float[Tensor, "n d"]:
        """The mean of the noise in `z_t = alpha z + sigma eps`, were z Gaussian: `sigma (alpha^2 S + sigma^2 I)^-1 (z_t - alpha
        mean)`, which is the best that any denoiser can say of a Gaussian."""
        # In float32 also where the network is not: small variances would drown in bfloat16's rounding.
        with torch.autocast(z_t.device.type, enabled=False):
            axes = self.axes.to(z_t)
            along = (z_t - alpha * self.mean) @ axes
            return sigma * (along / (alpha**2 * self.variances + sigma**2)) @ axes.T

    @torch.no_grad()
    def sample(self, num: int, *, seed: int = 0, start: int = 0, steps: int = 0) -> Float[Tensor, "num d"]:
        """Standardised codes, as `LatentPrior.sample`; no network is called, so `steps` does nothing."""
        noise = Draws.of(num, seed, start=start, device=self.mean.device).normal("z_T", tuple(self.mean.shape)).to(self.mean)
        return self.mean + (noise * self.variances.sqrt()) @ self.axes.T


class KernelPrior(nn.Module):
    """A smoothed bootstrap: a training code drawn at random, and Gaussian noise that varies as the codes around it do.

    Sample `m_i + (1 - h^2)^1/2 (z_i - m_i) + h N(0, S_i)`, with the mean m_i and covariance S_i of the codes nearest to z_i. It
    knows what is not Gaussian in the codes without learning it. Noise is as strong, h, as it takes for samples to be as far from
    their nearest training code as codes are from each other's: less would repeat training images, more forgets what codes are
    like. **It holds training codes**, and saved models do.

    Args:
        z_dim: dimension d of z_sem.
        num: codes that it holds.

    Attributes:
        codes: (num, d), standardised.
        neighbours: (), k, of codes around each, itself among them: 200, 800 where the noise would be more than .9, or all.
        noise: (), h.
        given: as of the Gaussian.

    References:
        Silverman & Young 1987, *The bootstrap: to smooth or not to smooth?*; Vincent & Bengio 2002, *Manifold Parzen windows*.
    """

    given: str | None = None
    codes: Tensor
    neighbours: Tensor
    noise: Tensor

    def __init__(self, z_dim: int, num: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(num, z_dim))
        self.register_buffer("neighbours", torch.tensor(num))
        self.register_buffer("noise", torch.ones(()))

    @classmethod
    def of(cls, z: Float[Tensor, "n d"], *, seed: int = 0) -> "KernelPrior":
        """That of these standardised codes, of 20,000 at random where there are more.

        Raises:
            ValueError: fewer than three codes.
        """
        if len(z) < 3:
            raise ValueError(f"A smoothed bootstrap needs at least three codes, got {len(z)}.")
        order = Draws.of(len(z), seed).uniform("order", ()).argsort()[:MOST_CODES]
        prior = cls(z.shape[1], len(order))
        prior.codes.copy_(z[order])
        for neighbours in sorted({min(k, len(order)) for k in (*NEIGHBOURS, MOST_CODES)}):
            prior.neighbours.fill_(neighbours)
            if prior._fit_noise(seed) <= MOST_NOISE:
                break
        return prior

    def _fit_noise(self, seed: int) -> float:
        """Sets h, and returns it."""
        some = self.codes[:LOOKED_AT]
        usual = _distance_to_others(some, self.codes)
        low, high = 0.0, 1.0
        for _ in range(8):
            self.noise.fill_((low + high) / 2)
            near = _distance(self.sample(len(some), seed=seed), self.codes)
            low, high = (low, float(self.noise)) if near > usual else (float(self.noise), high)
        self.noise.fill_(high)
        return high

    @torch.no_grad()
    def sample(self, num: int, *, seed: int = 0, start: int = 0, steps: int = 0) -> Float[Tensor, "num d"]:
        """Standardised codes, as `LatentPrior.sample`; no network is called, so `steps` does nothing.

        Raises:
            ValueError: it was read from a file that says of more neighbours than there are codes, or of fewer than two.
        """
        k, n = int(self.neighbours), len(self.codes)
        if not 2 <= k <= n:
            raise ValueError(f"A smoothed bootstrap of {n} codes has 2 to {n} neighbours of each, and its file says {k}.")
        part, made = LOOKED_AT if k == n else AT_ONCE // k, []
        for first in range(start, start + num, part):
            draws = Draws.of(min(part, start + num - first), seed, start=first)
            chosen = self.codes[(draws.uniform("code", ()).double() * n).long().clamp(max=n - 1).to(self.codes.device)]
            # A number for each code that there is, not for the first, second, ... nearest: rounding may tell these apart otherwise.
            weights = draws.normal("noise", (n,)).to(self.codes) / (k - 1) ** 0.5
            if k == n:
                mean = self.codes.mean(0)
                varied = weights @ (self.codes - mean)
            else:
                # In float64, so that which codes are nearest does not depend on how many samples there are beside one.
                around = torch.cdist(chosen.double(), self.codes.double()).topk(k, largest=False).indices
                near = self.codes[around]
                mean = near.mean(1)
                # N(0, S_i) of k codes, without S_i: their deviations, weighted by as many normal numbers.
                varied = torch.einsum("nk,nkd->nd", weights.gather(1, around.to(weights.device)), near - mean[:, None])
            made.append(mean + (1 - self.noise.square()).sqrt() * (chosen - mean) + self.noise * varied)
        return torch.cat(made)


def _distance(z: Float[Tensor, "n d"], codes: Float[Tensor, "m d"]) -> float:
    """How far codes are from the nearest of others, on average."""
    return float(torch.cat([torch.cdist(part, codes).amin(1) for part in z.split(LOOKED_AT)]).mean())


def _distance_to_others(z: Float[Tensor, "n d"], codes: Float[Tensor, "m d"]) -> float:
    """How far codes are from the nearest that is neither they themselves nor their copy, on average: of images that are there twice
    codes differ by rounding. Zero where all are copies."""
    # In float64, in which distances of copies are no more than these differ.
    far = torch.cdist(z.double(), codes.double())
    far = far.masked_fill(far <= SAME * (2 * z.shape[1]) ** 0.5, torch.inf).amin(1)
    return float(far[far.isfinite()].mean()) if far.isfinite().any() else 0.0


class LatentPrior(nn.Module):
    """A DDIM over standardised z_sem.

    Attributes:
        net: predicts the noise, or what is left of it beside the Gaussian's prediction.
        gaussian: the Gaussian of the training codes where the network adds to it (`config.gaussian_start`), or None. Codes vary
            much along few axes and little along many. A network learns that first, and slowly; a Gaussian knows it at once.
        given: as of the Gaussian.

    References:
        Preechakul et al. 2022, section 4 (eq. 9: the L1 loss) and appendix A.1.
    """

    def __init__(self, config: PriorConfig, *, given: str | None = None) -> None:
        super().__init__()
        self.config, self.given = config, given
        self.schedule = Schedule(config.schedule)
        self.net = SkipMLP(config)
        self.gaussian = GaussianPrior(config.z_dim) if config.gaussian_start else None

    def start(self, z: Float[Tensor, "n d"]) -> None:
        """What happens once before training: where the network adds to a Gaussian, that of these codes, and the network at zero."""
        if self.gaussian is not None:
            self.gaussian.fit(z)
            nn.init.zeros_(self.net.out.weight)
            nn.init.zeros_(self.net.out.bias)

    def eps(self, z_t: Float[Tensor, "n d"], t: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The noise in z_t at timesteps t (0..T-1)."""
        eps = self.net(z_t.to(self.net.out.weight), t).to(z_t)  # Solvers' states are of at least float32.
        if self.gaussian is None:
            return eps
        alpha, sigma = self.schedule.alpha_sigma(t, like=z_t)
        return eps + self.gaussian.eps(z_t, alpha, sigma)

    def loss(self, z: Float[Tensor, "n d"], draws: Draws) -> Float[Tensor, ""]:
        """L1 between the noise and its prediction, at one timestep per code.

        Args:
            z: standardised codes.
            draws: of the codes: of each, t and noise.
        """
        t = draw_timesteps(draws.uniform("t"), self.schedule.T).to(z.device)
        eps = draws.normal("eps", tuple(z.shape[1:])).to(z)
        return (self.eps(self.schedule.add_noise(z, eps, t), t.to(z)) - eps).abs().mean()

    @torch.no_grad()
    def sample(self, num: int, *, seed: int = 0, start: int = 0, steps: int = 20) -> Float[Tensor, "num d"]:
        """Standardised codes drawn from the prior, by a solver of second order on evenly spaced log-SNR.

        The authors' DDIM with 100 evenly spaced timesteps loses variance: of the axes along which codes vary little, a third.

        Args:
            num: number of codes.
            seed: code number i depends on the seed and i alone.
            start: number of the first.
            steps: network calls, two at least.

        Raises:
            ValueError: fewer steps.
        """
        if steps < 2:
            raise ValueError(f"A latent DDIM is sampled in two steps or more (prior_steps), got {steps}.")
        like = self.net.out.weight
        z_T = Draws.of(num, seed, start=start, device=like.device).normal("z_T", (self.config.z_dim,))
        return solve(self.eps, z_T.to(like), spaced_path(self.schedule, steps - 1).to_the_image(), solver="dpmpp2m")


Prior = LatentPrior | GaussianPrior | KernelPrior
"""What z_sem can be drawn from."""
