"""Images that are not like those that a model was trained on: how far z_sem is from theirs, and what z_sem cannot say of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.evaluation.pages.figures import Progress
from diffae.semantics.prior import GaussianPrior
from diffae.semantics.standardizer import Standardizer

if TYPE_CHECKING:
    from diffae.autoencoder import DiffusionAutoencoder
    from diffae.data.dataset import ImageSet

BATCH = 64
"""Images at a time."""


@dataclass(frozen=True, slots=True)
class AnomalyScores:
    """How much images differ from those that a model knows.

    Attributes:
        distance: (n,), Mahalanobis distance of z_sem from the codes of the training images.
        error: (n,), mean squared error of the mean decode, on the [0, 1] scale, of the pixels that count: what z_sem alone does
            not say of the image.
        score: (n,), the mean of how far both logarithms are above those of usual images, in their standard deviations.
    """

    distance: np.ndarray
    error: np.ndarray
    score: np.ndarray


class AnomalyScorer:
    """What a model's training images are like.

    Args:
        ae: the model.
        data: its images. Codes of those that it was trained on give the distance; those held out say what is usual, or those that
            it was trained on, where none are.
        progress: told how far it is.
    """

    def __init__(self, ae: "DiffusionAutoencoder", data: "ImageSet", progress: Progress) -> None:
        self.ae = ae
        z_sem = torch.cat([ae.encode(x) for x, _ in _batches(data, data.train, "Encoding training images", progress)])
        self.standardizer = Standardizer.fit(z_sem)
        self.gaussian = GaussianPrior(ae.z_dim).fit(self.standardizer(z_sem))
        self.held_out = len(data.validation) > 1
        usual = data.validation if self.held_out else data.train
        both = self._both(data, usual, "Looking at usual images", progress)
        self.mean, self.std = both.mean(0), both.std(0).clip(min=1e-9)

    def score(self, data: "ImageSet", indices: np.ndarray, progress: Progress) -> AnomalyScores:
        """Of these images."""
        both = self._both(data, indices, "Looking at images", progress)
        distance, error = np.exp(both).T
        return AnomalyScores(distance, error, ((both - self.mean) / self.std).mean(1))

    def maps(
        self, x: Float[Tensor, "n c *sides"], z_sem: Float[Tensor, "n d"], counted: Float[Tensor, "n 1 *sides"] | None
    ) -> tuple[Float[Tensor, "n c *sides"], Float[Tensor, "n *sides"]]:
        """The mean decodes of images' codes, and the squared errors, (n, *sides), on the [0, 1] scale; 0 where pixels do not count:
        nothing taught the decoder what to draw there."""
        # One noise for all, so that an image's score does not depend on its place among others.
        mean = self.ae.decode_mean(z_sem, start=torch.zeros(len(z_sem), dtype=torch.long))
        error = ((mean - x) / 2).square().mean(1)
        return mean, error if counted is None else error * counted[:, 0].to(error)

    def _both(self, data: "ImageSet", indices: np.ndarray, what: str, progress: Progress) -> np.ndarray:
        """Logarithms of distance and error, (n, 2)."""
        found = []
        for x, counted in _batches(data, indices, what, progress):
            z_sem = self.ae.encode(x)
            z = self.standardizer(z_sem) - self.gaussian.mean
            distance = ((z @ self.gaussian.axes).square() / self.gaussian.variances).sum(1).sqrt()
            error = self.maps(x, z_sem, counted)[1].flatten(1).mean(1)
            if counted is not None:
                error = error / counted.flatten(1).mean(1).to(error)
            found.append(torch.stack([distance, error], 1).clamp(min=1e-12).log().double().numpy())
        return np.concatenate(found)


def _batches(data: "ImageSet", indices: np.ndarray, what: str, progress: Progress) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images, and which of their pixels count."""
    for start in range(0, len(indices), BATCH):
        rows = indices[start : start + BATCH]
        yield data.images(rows), data.counted(rows)
        progress(what, min(start + BATCH, len(indices)), len(indices))
