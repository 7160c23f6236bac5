"""Is z_sem being trained? The question that users of the authors' code ask most, answered at every validation."""

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffae import seeding
from diffae.autoencoder import DiffusionAutoencoder


@dataclass(frozen=True, slots=True)
class Health:
    """What a validation finds on held-out images.

    Attributes:
        loss: mean loss at fixed timesteps and noise.
        shuffled_loss: the same, each image with another's z_sem. Equal to `loss` if z_sem is not used.
        z_std: mean standard deviation of a component of z_sem. Zero if it has collapsed.
        z_dimensions: effective number of dimensions of z_sem, (sum of variances)^2 / sum of squared variances over its
            principal axes.
    """

    loss: float
    shuffled_loss: float
    z_std: float
    z_dimensions: float

    def metrics(self) -> dict[str, float]:
        return {f"validation/{k}": v for k, v in asdict(self).items()}

    def warnings(self) -> list[str]:
        """What is wrong, in sentences; empty if nothing is."""
        found = []
        if self.z_std < 1e-4:
            found.append(
                f"z_sem has collapsed: its components vary by {self.z_std:.1e} from image to image. Lower the learning rate."
            )
        elif self.shuffled_loss < 1.02 * self.loss:
            found.append(
                f"z_sem is hardly used: with another image's z_sem the loss is {self.shuffled_loss:.4f} against {self.loss:.4f}. "
                "It comes late with eps-prediction and uniform timesteps; model.prediction=v and training.timesteps=noisy train "
                "it sooner."
            )
        return found


@torch.no_grad()
def check_health(model: DiffusionAutoencoder, x: Float[Tensor, "n c h w"], *, batch_size: int, noisy: bool, seed: int) -> Health:
    """Validates a model on images in [-1, 1], with the same timesteps and noise at every call."""
    z_sem = torch.cat([model.encode(part) for part in x.split(batch_size)])
    totals = [0.0, 0.0]
    for i, z in enumerate((z_sem, z_sem.roll(1, dims=0))):
        for start in range(0, len(x), batch_size):
            part = slice(start, start + batch_size)
            seeds = [seeding.mix(seed, "validation", k) for k in range(start, min(start + batch_size, len(x)))]
            totals[i] += float(model.loss(x[part], seeds, noisy=noisy, z_sem=z[part])) * len(seeds) / len(x)
    z = z_sem.double().cpu() - z_sem.double().cpu().mean(0)
    spectrum = torch.linalg.svdvals(z).square()
    dimensions = float(spectrum.sum() ** 2 / spectrum.square().sum()) if spectrum.sum() > 0 else 0.0
    return Health(totals[0], totals[1], float(z.square().mean(0).sqrt().mean()), dimensions)
