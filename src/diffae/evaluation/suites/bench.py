"""What the suites of an evaluation share: the models, the images, the metric networks, and what was measured before."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import Protocol as EvaluationProtocol
from diffae.data.dataset import ImageSet
from diffae.data.labels.columns import members
from diffae.diffusion.ddim import DDIM
from diffae.evaluation.pages.figures import Progress
from diffae.evaluation.results import Result, Store, spread_of
from diffae.evaluation.suites.section import NotMeasurable, Section
from diffae.frozen.perceptual import LEAST, Backbone
from diffae.frozen.weights import load_network
from diffae.interop.comparators import Autoencoder
from diffae.metrics.batches import in_batches
from diffae.metrics.images import LEAST_MS_SSIM, each_ms_ssim, each_mse, each_psnr, each_ssim
from diffae.runtime import processes
from diffae.semantics.prior import Prior
from diffae.semantics.standardizer import Standardizer


@runtime_checkable
class Measure(Protocol):
    """How far images are from the real ones that they were made of, such as MSE or LPIPS."""

    def __call__(self, made: Float[Tensor, "n c *sides"], real: Float[Tensor, "n c *sides"], /) -> Float[Tensor, " n"]:
        """One number for each pair of images. Real ones lie in [-1, 1]; made ones as the network left them, a little beyond too."""
        ...


@dataclass(slots=True)
class Bench:
    """What is evaluated, and how.

    Attributes:
        ae: the autoencoder, with its default prior.
        data: images. Those held out are tested on.
        transfer_data: images of another set, with labels of the same names, which nothing was trained on.
        store: earlier results.
        progress: told how far it is.
        ddim: the plain DDIM to compare with, if there is one.
        comparators: autoencoders of other families to compare with.
        priors: of the autoencoder, by name, each with the standardizer of the codes that it was fitted to.
        protocol: how many images, steps and what classes.
        seed: of everything that is drawn.
        batch_size: images at a time.
        lpips: whose features LPIPS compares, in addition where there are several.
        weights: where the metric networks' weights are, if not in the usual places.
        measures: of your own, by name, which stand beside MSE, PSNR and SSIM. What they measured is kept under their names: give a
            changed one another.
    """

    ae: DiffusionAutoencoder
    data: ImageSet
    store: Store
    progress: Progress
    transfer_data: ImageSet | None = None
    ddim: DDIM | None = None
    comparators: Sequence[Autoencoder] = ()
    priors: dict[str, tuple[Prior, Standardizer]] = field(default_factory=dict)
    protocol: EvaluationProtocol = field(default_factory=EvaluationProtocol)
    seed: int = 0
    batch_size: int = 50
    lpips: tuple[Backbone, ...] = ("alexnet",)
    weights: Path | None = None
    measures: Mapping[str, Measure] = field(default_factory=dict)
    _networks: dict[str, tuple[Callable[..., Tensor], str]] = field(default_factory=dict)

    @property
    def tested(self) -> np.ndarray:
        """Indices of the images that may be tested on: those held out, and after them all others if the model saw none."""
        held = self.data.validation
        return np.concatenate([held, self.data.train]) if self.protocol.unseen else held

    def some_tested(self, num: int) -> np.ndarray:
        """Indices of `num` of them, chosen as `ImageSet.some` does: held-out ones, which no classifier was fitted on, and others
        only where these are too few.

        Raises:
            ValueError: there are fewer.
        """
        if len(self.tested) < num:
            raise ValueError(
                f"{num} test images were asked for and {len(self.tested)} are held out. Ask for fewer, or name other images, "
                "--data."
            )
        held = self.data.some(self.data.validation, num)
        return np.concatenate([held, self.data.some(self.tested[len(self.data.validation) :], num - len(held))])

    def test(self, num: int) -> Float[Tensor, "n c *sides"]:
        """The images of `some_tested`."""
        return self.data.images(self.some_tested(num))

    def groups(self, indices: np.ndarray) -> list[int] | None:
        """Which images come of one person or slide: a number for each; None where nobody says."""
        known = self.data.grouped(indices)
        return None if known is None else np.unique(known, return_inverse=True)[1].tolist()

    def network(self, name: Any) -> tuple[Callable[..., Tensor], str]:
        """A metric network, which computes where the autoencoder does, and the file that its weights are from."""
        if name not in self._networks:
            network, file = load_network(name, self.weights)
            device = self.ae.device
            network.to(device)

            def measure(*images: Tensor) -> Tensor:
                return network(*(x.to(device) for x in images)).to(images[0].device)

            self._networks[name] = (measure, file)
        return self._networks[name]

    def over(self, num: int, what: str, make: Callable[[range], Tensor]) -> Tensor:
        """What `make` gives for the numbers 0..num - 1, a batch at a time, one after the other; with progress.

        Of n processes each makes every n-th batch, and all have what all made.
        """
        starts = range(0, num, self.batch_size)
        local = {}
        for start in processes.shard(starts):
            self.progress(what, start, num)
            local[start] = make(range(start, min(start + self.batch_size, num)))
        batches = {start: batch for of_process in processes.all_gather(local) for start, batch in of_process.items()}
        return torch.cat([batches[start] for start in starts])

    def latents(self, encode: Callable[[Tensor], Tensor], data: ImageSet, indices: np.ndarray) -> Tensor:
        """Latents of some images of a set by `encode`, a batch at a time."""
        return self.over(len(indices), "Encoding images", lambda part: encode(data.images(indices[part.start : part.stop])))

    def classes(self) -> list[str]:
        """The attributes that are sampled and edited: those named, or the two best known that are frequent enough.

        Raises:
            NotMeasurable: there is none.
        """
        if self.protocol.attributes:
            return list(self.protocol.attributes)
        fitted, data = self.ae.attributes, self.data
        scores = {} if fitted is None else {name: s.auroc for name, s in fitted.scores.items() if s.auroc is not None}
        least = max(self.protocol.num_inception, 100)
        enough = [n for n in scores if n in data.labels and (data.labels[n][data.train] == 1).sum() >= least]
        if not enough:
            raise NotMeasurable(
                "No attribute is fitted that enough training images show, so there is no class to sample or to edit. Fit "
                "attributes, ask for fewer images, or leave the suite out."
            )
        return sorted(enough, key=lambda name: -scores[name])[:2]

    def members(self, name: str, indices: np.ndarray | None = None) -> np.ndarray:
        """Whether each image is a member of a class: 1, 0, or NaN for unknown. `not NAME` is the absence of NAME.

        Args:
            name: of the class.
            indices: of the images; by default those trained on.

        Raises:
            ValueError: there is no such label, or it is one of numbers.
        """
        return members(self.data.labels, name)[self.data.train if indices is None else indices]

    def distances(
        self, suite: str, model: str, x: Tensor, make: Callable[[range], Tensor], *, on: Sequence[str], steps: int | None = None
    ) -> list[Result]:
        """MSE, PSNR, SSIM, MS-SSIM, LPIPS and `measures` between images and what is made of them, with the value of each image.

        MS-SSIM and LPIPS are left out where the images are too small for them. LPIPS, and Inception, see the middle slice of
        volumes; SSIM is a mean over slices, and MS-SSIM is left out.

        Args:
            suite: which table.
            model: what makes them.
            x: the images of `test`, or what was made of their codes.
            make: numbers of images -> what is made of them.
            on: what the result depends on, see `Store.get`.
            steps: network calls, for the record.

        Raises:
            ValueError: one of `measures` has a name that is taken.
        """
        nets = {f"lpips {name}" if i else "lpips": name for i, name in enumerate(self.lpips) if min(x.shape[-2:]) >= LEAST[name]}

        measures: dict[str, Measure] = {"mse": each_mse, "psnr": each_psnr, "ssim": each_ssim}
        if x.dim() == 4 and min(x.shape[-2:]) >= LEAST_MS_SSIM:
            measures["ms_ssim"] = each_ms_ssim
        for name, net in nets.items():
            measures[name] = partial(self._perceptual, net)
        if taken := sorted(measures.keys() & self.measures.keys()):
            raise ValueError(f"There is a measure {', '.join(taken)} already: give yours another name.")
        measures |= self.measures

        def results() -> list[Result]:
            def values(part: range) -> Tensor:
                made, real = make(part), x[part.start : part.stop]
                return torch.stack([measure(made, real).double() for measure in measures.values()], dim=1)

            found = self.over(len(x), f"{suite}: {model}" + (f", T = {steps}" if steps else ""), values)
            rows = []
            for name, each in zip(measures, found.unbind(1), strict=True):
                detail = f"{nets[name]}: {self.network(nets[name])[1]}" if name in nets else None
                rows.append(
                    Result(suite, model, name, float(each.mean()), len(x), steps, spread_of(each), self.seed,
                           detail=detail, each=each.tolist(), groups=self.groups(self.some_tested(len(x))))
                )  # fmt: skip
            return rows

        key = {"suite": suite, "model": model, "n": len(x), "steps": steps, "seed": self.seed, "lpips": list(nets.values())}
        key |= {"measures": list(self.measures)} if self.measures else {}
        return self.store.get(key, results, on=on)

    def features(self, images: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n d"]:
        """Inception's features of images as files would hold them, in 256 steps."""
        inception = self.network("inception")[0]
        stored = ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
        return in_batches(lambda part: inception(in_colour(part)), stored, batch_size=10).cpu()

    def real_features(self, indices: np.ndarray) -> Float[Tensor, "n d"]:
        """The same of real images, a batch at a time."""
        images = self.data.images
        return self.over(len(indices), "Real images", lambda part: self.features(images(indices[part.start : part.stop])))

    def _perceptual(self, net: str, made: Tensor, real: Tensor) -> Tensor:
        return self.network(net)[0](in_colour(made.clamp(-1, 1)), in_colour(real))


@runtime_checkable
class Suite(Protocol):
    """A table or figure: measures on a bench, and gives a section of the page. `NotMeasurable` leaves it out of `all`."""

    def __call__(self, bench: Bench, /) -> Section:
        """The section, measured; what `bench.store` knows is not measured again."""
        ...


def in_colour(x: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n 3 h w"]:
    """Images as the metric networks want them: grey ones with three equal channels; of volumes the middle slice.

    Raises:
        ValueError: neither grey nor colour.
    """
    if x.shape[1] not in (1, 3):
        raise ValueError(f"LPIPS, FID and KID are defined for grey and colour images, and these have {x.shape[1]} channels.")
    flat = x[:, :, x.shape[2] // 2] if x.dim() == 5 else x
    return flat.expand(-1, 3, -1, -1)
