"""Commands that measure: the paper's tables and figures."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from diffae.cli import arguments, inputs
from diffae.cli.bars import work_bar
from diffae.cli.divisions import are_the_runs, began_with
from diffae.config import ComparatorRunConfig, Count, Protocol, Range, RunConfig, Seed, read_json, to_dict
from diffae.config.data import HeldOut
from diffae.config.protocols import protocol
from diffae.evaluation.suites import SuiteName

if TYPE_CHECKING:
    from diffae.data import ImageSet


@dataclass(frozen=True, kw_only=True)
class Evaluate(arguments.Labelling):
    """Measure the paper's tables and figures for a model: OUT/report.html, results.json, tables.md, pictures.

    What was measured before in the same folder is not measured again, so an interrupted evaluation goes on. Inception and LPIPS
    need their networks once: `diffae weights`. Under `torchrun` or `accelerate launch` the processes share the images.

    Example: diffae evaluate runs/quickstart --suite reconstruction attributes --out runs/evaluation
    """

    source: arguments.LocalSource
    out: arguments.Folder
    """Folder of the results."""
    protocol: str = "small"
    """How much is measured, where the options below do not say: `small`, or the paper's `celebahq128` (tables 1 and 2), `celeba64`
    (table 3), `ffhq128`, `horse128`, `bedroom128` (table 4)."""
    suite: tuple[SuiteName, ...] | None = None
    """Which tables and figures; `all` leaves out what these images cannot show."""
    data: str | None = None
    """The images; by default those that the run was trained on. Tested are the ones held out."""
    labels: Path | None = None
    """Their labels, if they bring none."""
    transfer_data: str | None = None
    """Other images with labels of the same names, on which the classifiers of attributes are tested as they are."""
    transfer_labels: Path | None = None
    """Their labels, if they bring none."""
    ddim: str | None = None
    """A plain DDIM to compare with, trained on the same images (a preset that ends in -ddim)."""
    comparators: tuple[Path, ...] = ()
    """Runs of `diffae train-comparator` on the same images."""
    unseen: bool | None = None
    """The model was trained on none of these images: test on all, not only on those held out."""
    num: arguments.Number = None
    """Images of everything but FID and KID; small: 500."""
    num_inception: arguments.Number = None
    """Images of FID and KID; small: 200."""
    num_real: arguments.Number = None
    """Real images of a class that few-shot samples are compared with, at most; small: 400."""
    steps: Annotated[tuple[int, ...] | None, Range(1, 1000)] = None
    """Network calls of the decoder, T; small: 10 20 50 100."""
    generation_steps: Annotated[tuple[int, ...] | None, Range(1, 1000)] = None
    """The same for samples; small: 10 100."""
    attributes: tuple[str, ...] | None = None
    """Attributes that are sampled (`not NAME`: their absence) and edited; small: the two that are known best."""
    faces: bool | None = None
    """The images are of faces: a face network says how much of the person an edit keeps; small: no."""
    lpips: tuple[Literal["alexnet", "vgg16"], ...] = ("alexnet",)
    """Whose features LPIPS compares; the paper's are AlexNet's."""
    weights: Path | None = None
    """File or folder of the metric networks' weights, where they are in none of the usual places."""
    batch_size: Count = 50
    """Images at a time."""
    seed: Seed = 0
    """Of everything that is drawn."""

    def run(self) -> None:
        from diffae.evaluation.evaluate import evaluate
        from diffae.evaluation.pages.report import commit
        from diffae.evaluation.results import Store
        from diffae.evaluation.suites.bench import Bench
        from diffae.interop import comparators
        from diffae.interop.fingerprints import digest_model
        from diffae.interop.parts import available_priors
        from diffae.runtime import processes, seeding
        from diffae.runtime.files import digest_arrays, digest_lines
        from diffae.runtime.weights import digest_module

        processes.join()
        ae = inputs.autoencoder(self.source)
        if ae.config.latents is not None:
            raise ValueError(
                f"{self.source} is a model of latents ({ae.config.latents}), and the metrics here are of pixels. Measure what "
                "`ae.to_pixels` makes of its images."
            )
        named = {f.name: getattr(self, f.name, None) for f in dataclasses.fields(Protocol)}
        chosen = dataclasses.replace(protocol(self.protocol), **{k: v for k, v in named.items() if v is not None})
        read = {"labels_kind": self.labels_kind}
        found = inputs.images(ae, self.source, self.data, self.labels, crop=chosen.crop, validation=chosen.validation, **read)
        own = are_the_runs(found)
        if own and chosen.unseen:
            raise ValueError(
                f"{self.source} was trained on these images, and {'--unseen True' if self.unseen else f'protocol {self.protocol}'} "
                "says that it has seen none of them: name others with --data, or measure what it held out, with --unseen False."
            )
        data = inputs.divided(found, self.data)
        grouped = "" if data.groups is None else f", in groups {digest_lines(data.groups.tolist())[:16]}"
        depends = {
            "model": digest_model(ae),
            "images": f"{data.identity}{', none of which it saw' if chosen.unseen else ''}, by hash{grouped}",
            "labels": digest_arrays(data.labels),
        }
        depends["calibration"] = json.dumps(dataclasses.asdict(ae.calibration))
        transfer_data = None
        if self.transfer_data is not None:
            transfer_data = inputs.divided_images(ae, self.source, self.transfer_data, self.transfer_labels, **read)
            depends["elsewhere"] = f"{transfer_data.identity}-{digest_arrays(transfer_data.labels)}"
        ddim = None if self.ddim is None else inputs.ddim(self.ddim, ae)
        others: dict[str | Path | None, type[Any]] = {self.ddim: RunConfig} | dict.fromkeys(self.comparators, ComparatorRunConfig)
        if own:
            _check_held_out(data.config.validation, others | {self.source: RunConfig})
        if ddim is not None:
            depends["ddim"] = digest_model(ddim)
        loaded = [comparators.load(folder) for folder in self.comparators]
        for folder, other in zip(self.comparators, loaded, strict=True):
            if (other.config.channels, *other.config.image_size) != ae.image_shape:
                raise ValueError(f"{folder} is of other images than the autoencoder, {ae.image_shape}.")
            if f"against {other.title}" in depends:
                raise ValueError(f"{folder} is a second one that a table would call {other.title!r}. Evaluate them apart.")
            depends[f"against {other.title}"] = digest_module(other)
        if own and any(run is not None and began_with(run) for run in others):
            as_trained = data if self.labels is None and chosen.crop is None else inputs.images(ae, self.source, self.data)
            _check_division(as_trained, others)
        names = available_priors(Path(self.source))
        with_priors = {name: inputs.autoencoder(self.source, prior=name) for name in names} or {"saved": ae}
        priors = {name: (a.prior, a.standardizer) for name, a in with_priors.items() if a.prior and a.standardizer}
        fitted = {f"prior {name}": parts for name, parts in priors.items()} | {"prior": (ae.prior, ae.standardizer)}
        depends |= {name: "-".join(digest_module(p) for p in parts if p is not None) for name, parts in fitted.items()}
        depends |= {} if ae.attributes is None else {"attributes": digest_module(ae.attributes)}
        made = {
            "command": shlex.join(["diffae", *sys.argv[1:]]),
            "commit": commit(),
            "config": f"{seeding.mix(json.dumps(to_dict(ae.config))):016x}",
        }
        with work_bar("Evaluating") as update:
            bench = Bench(
                ae,
                data,
                Store(self.out / "measured", depends, made),
                update,
                transfer_data=transfer_data,
                ddim=ddim,
                comparators=loaded,
                priors=priors,
                protocol=chosen,
                seed=self.seed,
                batch_size=self.batch_size,
                lpips=self.lpips,
                weights=self.weights,
            )
            page = evaluate(bench, chosen.suite, self.out)
        if processes.is_first():
            print(f"Open {page}")


def _check_held_out(ours: HeldOut, runs: Mapping[str | Path | None, type[Any]]) -> None:
    """Refuses runs that hold out fewer images than are measured: a hash of their names chooses, so a smaller share is part of a
    larger one, and what is not in it they were trained on.

    Args:
        ours: what is held out of the images that are measured, as `data.validation`.
        runs: run directories, and what is configured in each; what is no run tells nothing.

    Raises:
        ValueError: such a run.
    """
    from diffae.interop.weights import is_run

    for run, kind in runs.items():
        if run is None or not is_run(run):
            continue
        theirs = read_json(kind, Path(run) / "config.json").data.validation
        less = ours != theirs if isinstance(ours, str) or isinstance(theirs, str) else theirs < ours
        if less:
            raise ValueError(
                f"{run} was trained with data.validation {theirs} and the images measured here are held out by {ours}: it has seen "
                "some of them. Train it with the same (of a comparator --validation), or name images that none has seen, with "
                "--data and --unseen True."
            )


def _check_division(data: "ImageSet", runs: Mapping[str | Path | None, type[Any]]) -> None:
    """Refuses runs that hold out other images, as where one of them keeps groups together and the other does not.

    Args:
        data: the images that are measured, as the autoencoder is trained on them.
        runs: as of `_check_held_out`; what does not say which images it began with tells nothing.

    Raises:
        ValueError: such a run.
    """
    for run, kind in runs.items():
        if run is None or (began := began_with(run)) is None:
            continue
        theirs = read_json(kind, Path(run) / "config.json").data.validation
        if began != (now := data.divided_by(theirs).identity):
            raise ValueError(
                f"{run} began with {began}, and of the images measured here it would have been {now}: it may have seen some of "
                "those that are held out. Train it on the same images, divided by the same groups: with the autoencoder's "
                "--data.labels (of a comparator --labels)."
            )


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Put several evaluations side by side, with paired differences over the same images: OUT/compare.html, compare.md.

    Example: diffae compare runs/a/evaluation runs/b/evaluation --out runs/a-b
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """What `diffae evaluate --out` wrote; differences are from the first."""
    out: arguments.Folder
    """Folder of the page."""

    def run(self) -> None:
        from diffae.evaluation.compare import compare

        short = [folder.name for folder in self.folders]
        names = short if len(set(short)) == len(short) else [str(folder) for folder in self.folders]
        print(f"Open {compare(dict(zip(names, self.folders, strict=True)), self.out)}")
