"""Is the model learning? Users of the authors' code ask this most; every validation answers it."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.diffusion.ddim import DDIM
from diffae.runtime.seeding import Draws
from diffae.semantics.prior import GaussianPrior, LatentPrior


class Health(Protocol):
    """What a validation finds on held-out data."""

    @property
    def loss(self) -> float:
        """The mean loss on it."""
        ...

    def metrics(self) -> dict[str, float]:
        """Name -> value, for the log."""
        ...

    def summary(self) -> str:
        """One line for people."""
        ...

    def warnings(self) -> list[str]:
        """What is wrong, in sentences; empty if nothing is."""
        ...


@dataclass(frozen=True, slots=True)
class LossHealth:
    """A loss and no more: all that there is to know of a plain DDIM, or of an autoencoder of another family.

    Attributes:
        loss: mean loss at fixed timesteps and noise.
    """

    loss: float

    def metrics(self) -> dict[str, float]:
        return {f"validation/{k}": v for k, v in asdict(self).items()}

    def summary(self) -> str:
        return f"validation loss {self.loss:.4f}"

    def warnings(self) -> list[str]:
        return []


@dataclass(frozen=True, slots=True)
class CodeHealth(LossHealth):
    """Is z_sem used, and does it hold anything?

    Attributes:
        loss: mean loss at fixed timesteps and noise.
        shuffled_loss: the same, each image with another's z_sem. Equal to `loss` if z_sem is not used.
        z_std: mean standard deviation of a component of z_sem. Zero if it has collapsed.
        z_dimensions: effective number of dimensions of z_sem, (sum of variances)^2 / sum of squared variances over its
            principal axes.
    """

    shuffled_loss: float
    z_std: float
    z_dimensions: float

    def summary(self) -> str:
        return (
            f"validation loss {self.loss:.4f} ({self.shuffled_loss:.4f} with shuffled z_sem), "
            f"{self.z_dimensions:.0f} effective dimensions"
        )

    def warnings(self) -> list[str]:
        found = []
        if self.z_std < 1e-4:
            found.append(
                f"z_sem has collapsed: its components vary by {self.z_std:.1e} from image to image. Lower the learning rate."
            )
        elif self.shuffled_loss < 1.02 * self.loss:
            found.append(
                f"z_sem is hardly used: with another image's z_sem the loss is {self.shuffled_loss:.4f} against {self.loss:.4f}. "
                "That comes with more images; where the model predicts eps at uniform timesteps it comes late, and "
                "model.prediction=v and training.timesteps=noisy train it sooner."
            )
        return found


@dataclass(frozen=True, slots=True)
class PriorHealth(LossHealth):
    """Does the latent DDIM know more of z_sem than its mean and covariance, and of codes that it has not seen?

    Attributes:
        loss: mean loss on held-out codes.
        train_loss: on codes that it was trained on.
        gaussian_loss: loss on the held-out codes by the best denoiser that knows only the training codes' covariance.
    """

    train_loss: float
    gaussian_loss: float

    def summary(self) -> str:
        return f"validation loss {self.loss:.4f} (training {self.train_loss:.4f}, Gaussian denoiser {self.gaussian_loss:.4f})"

    def warnings(self) -> list[str]:
        if self.loss > self.gaussian_loss and self.train_loss < 0.9 * self.loss:
            return [
                "The prior learns its training codes by heart: it does better on them than on others, and worse than a Gaussian on "
                "those. Train it for fewer codes, make it smaller (model.width, model.layers), or give it more images."
            ]
        return []


LEAST_DRAWS = 64
"""Timesteps and noises that a loss is the mean of, at least."""


@torch.no_grad()
def check_codes(
    model: DiffusionAutoencoder,
    x: Float[Tensor, "n c *sides"],
    *,
    batch_size: int,
    noisy: bool,
    seed: int,
    known: Tensor | None = None,
) -> CodeHealth:
    """Validates an autoencoder on images in [-1, 1], with the same timesteps and noise at every call."""
    z_sem = torch.cat([model.encode(part) for part in x.split(batch_size)])
    settings: dict[str, Any] = {"batch_size": batch_size, "noisy": noisy, "seed": seed}
    own, shuffled = (_mean_loss(model, x, known, z_sem=codes, **settings) for codes in (z_sem, z_sem.roll(1, dims=0)))
    z = z_sem.double().cpu() - z_sem.double().cpu().mean(0)
    spectrum = torch.linalg.svdvals(z).square()
    dimensions = float(spectrum.sum() ** 2 / spectrum.square().sum()) if spectrum.sum() > 0 else 0.0
    return CodeHealth(own, shuffled, float(z.square().mean(0).sqrt().mean()), dimensions)


@torch.no_grad()
def check_images(
    model: DDIM, x: Float[Tensor, "n c *sides"], *, batch_size: int, noisy: bool, seed: int, known: Tensor | None = None
) -> LossHealth:
    """Validates a plain DDIM on images in [-1, 1], with the same timesteps and noise at every call."""
    return LossHealth(_mean_loss(model, x, known, batch_size=batch_size, noisy=noisy, seed=seed))


def _mean_loss(
    model: DiffusionAutoencoder | DDIM, x: Tensor, known: Tensor | None, *, batch_size: int, noisy: bool, seed: int,
    z_sem: Tensor | None = None,
) -> float:  # fmt: skip
    """The mean of at least LEAST_DRAWS: few images, such as 5 of a set of 100, are looked at again, at other timesteps."""
    given: dict[str, Any] = {name: rows for name, rows in (("known", known), ("z_sem", z_sem)) if rows is not None}
    again, total = -(-LEAST_DRAWS // len(x)), 0.0
    for part, draws in (pair for time in range(again) for pair in _parts(x, batch_size, seed, start=time * len(x))):
        total += float(model.loss(x[part], draws, noisy=noisy, **{name: rows[part] for name, rows in given.items()})) * len(draws)
    return total / len(x) / again


@torch.no_grad()
def check_prior(prior: LatentPrior, train: Float[Tensor, "n d"], held_out: Float[Tensor, "m d"], *, seed: int) -> PriorHealth:
    """Validates a latent DDIM on standardised codes, each at four timesteps and noises that are the same at every call."""
    device = next(prior.parameters()).device

    def loss(z: Tensor) -> float:
        repeated = z.repeat(4, 1).to(device)
        return float(prior.loss(repeated, Draws.of(len(repeated), seed, device=device).fork("validation")))

    gaussian = GaussianPrior(train.shape[1]).fit(train)
    total, times = 0.0, torch.linspace(0, prior.schedule.T - 1, 50).long()
    for t in times:
        alpha, sigma = prior.schedule.alpha_sigma(t[None], like=held_out)
        draws = Draws.of(len(held_out), seed, device=held_out.device).fork("gaussian", int(t))
        eps = draws.normal("eps", tuple(held_out.shape[1:]))
        total += float((gaussian.eps(alpha * held_out + sigma * eps, alpha, sigma) - eps).abs().mean()) / len(times)
    some = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: len(held_out)]
    return PriorHealth(loss(held_out), loss(train[some.to(train.device)]), total)


def _parts(x: Tensor, batch_size: int, seed: int, *, start: int = 0) -> list[tuple[slice, Draws]]:
    """Parts of a batch, with the draws that each image always has, numbers from `start` on."""
    draws = Draws.of(len(x), seed, start=start, device=x.device).fork("validation")
    parts = [slice(i, i + batch_size) for i in range(0, len(x), batch_size)]
    return [(part, draws[part]) for part in parts]
