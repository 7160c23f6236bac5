"""What the suites of an evaluation share: the models, the images, the metric networks, and what was measured before."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae.autoencoder import DiffusionAutoencoder
from diffae.data.dataset import ImageSet
from diffae.diffusion import DDIM
from diffae.evaluation.figures import Figure, Progress
from diffae.evaluation.metrics import each_mse, each_ssim
from diffae.evaluation.networks import load_network
from diffae.evaluation.perceptual import LEAST
from diffae.evaluation.results import Result, Store
from diffae.interop.comparators import Autoencoder
from diffae.prior import Prior

CONVENTION = "bilinear without antialiasing, x / 127.5 - 1, as pytorch-fid"


@dataclass(slots=True)
class Section:
    """One table or figure of the paper, measured.

    Attributes:
        suite: its name.
        title: heading.
        text: what was done, and what the paper reports.
        results: the rows.
        figures: pictures and plots.
    """

    suite: str
    title: str
    text: str
    results: list[Result]
    figures: list[Figure] = field(default_factory=list)


@dataclass(slots=True)
class Bench:
    """What is evaluated, and how.

    Attributes:
        ae: the autoencoder, with its default prior.
        data: images. Those held out are tested on.
        store: earlier results.
        progress: told how far it is.
        ddim: the plain DDIM to compare with, if there is one.
        against: autoencoders of other families to compare with.
        priors: of the autoencoder, by name.
        num: images of everything that no Inception sees.
        num_inception: images of what it does see.
        steps: network calls of the decoder.
        seed: of everything that is drawn.
        batch_size: images at a time.
        weights: where the metric networks' weights are, if not in the usual places.
    """

    ae: DiffusionAutoencoder
    data: ImageSet
    store: Store
    progress: Progress
    ddim: DDIM | None = None
    against: Sequence[Autoencoder] = ()
    priors: dict[str, Prior] = field(default_factory=dict)
    num: int = 500
    num_inception: int = 200
    steps: tuple[int, ...] = (10, 20, 50, 100)
    seed: int = 0
    batch_size: int = 50
    weights: Path | None = None
    _networks: dict[str, tuple[nn.Module, str]] = field(default_factory=dict)

    def test(self, num: int) -> Float[Tensor, "n c h w"]:
        """The first `num` held-out images.

        Raises:
            ValueError: there are fewer.
        """
        if len(self.data.validation) < num:
            raise ValueError(
                f"{num} test images were asked for and {len(self.data.validation)} are held out. Ask for fewer, or name other "
                "images, --data."
            )
        return self.data.images(self.data.validation[:num])

    def network(self, name: Any) -> tuple[nn.Module, str]:
        """A metric network, and the file that its weights are from."""
        if name not in self._networks:
            self._networks[name] = load_network(name, self.weights)
        return self._networks[name]

    def batches(self, num: int, what: str) -> Iterator[range]:
        """Ranges of image numbers, with progress."""
        for start in range(0, num, self.batch_size):
            self.progress(what, start, num)
            yield range(start, min(start + self.batch_size, num))

    def latents(self, encode: Callable[[Tensor], Tensor], indices: np.ndarray) -> Float[Tensor, "n d"]:
        """What `encode` makes of these images, a batch at a time."""
        parts = (indices[part.start : part.stop] for part in self.batches(len(indices), "Encoding images"))
        return torch.cat([encode(self.data.images(part)) for part in parts])

    def distances(
        self, suite: str, model: str, x: Tensor, make: Callable[[range], Tensor], *, steps: int | None = None
    ) -> list[Result]:
        """MSE, SSIM and LPIPS between images and what is made of them, each image's own kept.

        Args:
            suite: which table.
            model: what makes them.
            x: the images.
            make: numbers of images -> what is made of them.
            steps: network calls, for the record.
        """

        def measure() -> list[Result]:
            lpips = self.network("alexnet") if min(x.shape[-2:]) >= LEAST["alexnet"] else None
            found: dict[str, list[Tensor]] = {}
            for part in self.batches(len(x), f"{suite}: {model}" + (f", T = {steps}" if steps else "")):
                made, real = make(part), x[part.start : part.stop]
                values = {"mse": each_mse(made, real), "ssim": each_ssim(made, real)}
                if lpips:
                    values["lpips"] = lpips[0](in_colour(made.clamp(-1, 1)), in_colour(real))
                for name, value in values.items():
                    found.setdefault(name, []).append(value)
            detail = {"lpips": lpips[1]} if lpips else {}
            results = []
            for name, parts in found.items():
                each = torch.cat(parts)
                results.append(
                    Result(suite, model, name, float(each.double().mean()), len(x), steps, float(each.std()), self.seed,
                           detail=detail.get(name), each=each.tolist())
                )  # fmt: skip
            return results

        return self.store.get({"suite": suite, "model": model, "n": len(x), "steps": steps, "seed": self.seed}, measure)

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Inception's features of images as files would hold them, in 256 steps."""
        inception = self.network("inception")[0]
        stored = ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
        return torch.cat([inception(in_colour(part)) for part in stored.split(25)])


def in_colour(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h w"]:
    """Images as the metric networks want them: grey ones with three equal channels.

    Raises:
        ValueError: neither grey nor colour.
    """
    if x.shape[1] not in (1, 3):
        raise ValueError(f"LPIPS, FID and KID are defined for grey and colour images, and these have {x.shape[1]} channels.")
    return x.expand(-1, 3, -1, -1)


def number(value: float) -> str:
    """A number as tables show it: three figures that count."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.2e}" if abs(value) < 1e-3 else f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
