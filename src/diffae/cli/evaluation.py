"""Commands that measure: the paper's tables and figures."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from diffae.cli import inputs
from diffae.cli.bars import work_bar

Suite = Literal["all", "reconstruction", "denoising", "generation", "attributes", "fewshot", "pictures"]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure the paper's tables and figures for a model: OUT/report.html, results.json, tables.md, pictures.

    What was measured before in the same folder is not measured again, so an interrupted evaluation goes on. Inception and LPIPS
    need their networks once: `diffae weights`.

    Example: diffae evaluate runs/quickstart --suite reconstruction attributes --out runs/evaluation
    """

    source: inputs.Source
    """A run directory or a saved model."""
    out: Path
    """Folder of the results."""
    suite: tuple[Suite, ...] = ("all",)
    """Which tables and figures."""
    data: str | None = None
    """The images; by default those that the run was trained on. Tested are the ones held out."""
    labels: Path | None = None
    """Their labels, if they bring none."""
    ddim: str | None = None
    """A plain DDIM to compare with, trained on the same images (a preset that ends in -ddim)."""
    against: tuple[Path, ...] = ()
    """Runs of `diffae train-comparator` on the same images."""
    num: int = 500
    """Images of everything but FID and KID."""
    num_inception: int = 200
    """Images of FID and KID."""
    steps: tuple[int, ...] = (10, 20, 50, 100)
    """Network calls of the decoder, T."""
    fewshot: tuple[str, ...] = ()
    """Attributes of the few-shot table; by default the two that are known best."""
    weights: Path | None = None
    """File or folder of the metric networks' weights, where they are in none of the usual places."""
    seed: int = 0
    """Of everything that is drawn."""

    def run(self) -> None:
        import diffae
        from diffae.diffusion import DDIM
        from diffae.evaluation.bench import Bench
        from diffae.evaluation.evaluate import SUITES, evaluate
        from diffae.evaluation.results import Store
        from diffae.interop import comparators
        from diffae.interop.weights import available_priors, digest, digest_arrays

        ae = inputs.autoencoder(self.source)
        data = inputs.images(ae, self.source, self.data, self.labels)
        depends = {"model": digest(ae), "images": data.key, "labels": digest_arrays(data.labels)}
        ddim: DDIM | None = None
        if self.ddim is not None:
            loaded = diffae.load_diffusion(self.ddim)
            if not isinstance(loaded, DDIM):
                raise ValueError(f"{self.ddim} is an autoencoder; --ddim takes a plain DDIM (a preset that ends in -ddim).")
            ddim = loaded
            if ddim.image_shape != ae.image_shape:
                raise ValueError(f"The DDIM makes images of {ddim.image_shape} and the autoencoder of {ae.image_shape}.")
            depends["ddim"] = digest(ddim)
        against = [comparators.load(folder) for folder in self.against]
        for folder, other in zip(self.against, against, strict=True):
            if (other.config.channels, *other.config.image_size) != ae.image_shape:
                raise ValueError(f"{folder} is of other images than the autoencoder, {ae.image_shape}.")
            depends[f"against {folder.name}"] = digest(other)
        names = available_priors(Path(self.source))
        loaded_priors = {name: inputs.autoencoder(self.source, prior=name).prior for name in names} or {"saved": ae.prior}
        priors = {name: prior for name, prior in loaded_priors.items() if prior is not None}
        depends |= {f"prior {name}": digest(prior) for name, prior in priors.items()}
        suites = SUITES if "all" in self.suite else self.suite
        with work_bar("Evaluating") as update:
            bench = Bench(
                ae,
                data,
                Store(self.out / "measured", depends),
                update,
                ddim=ddim,
                against=against,
                priors=priors,
                num=self.num,
                num_inception=self.num_inception,
                steps=self.steps,
                seed=self.seed,
                weights=self.weights,
            )
            page = evaluate(bench, suites, self.out, fewshot=self.fewshot, command=shlex.join(["diffae", *sys.argv[1:]]))
        print(f"Open {page}")


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Put several evaluations side by side, with paired differences over the same images: OUT/compare.html, compare.md.

    Example: diffae compare runs/a/evaluation runs/b/evaluation --out runs/a-b
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """What `diffae evaluate --out` wrote; differences are from the first."""
    out: Path
    """Folder of the page."""

    def run(self) -> None:
        from diffae.evaluation.compare import compare

        short = [folder.name for folder in self.folders]
        names = short if len(set(short)) == len(short) else [str(folder) for folder in self.folders]
        print(f"Open {compare(dict(zip(names, self.folders, strict=True)), self.out)}")
