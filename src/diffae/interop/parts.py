"""What was fitted to an autoencoder afterwards, in folders beside it: priors, attributes."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import PriorConfig, from_dict, read_json
from diffae.config.ranges import Count, InRange, Range
from diffae.interop.fingerprints import fingerprint
from diffae.interop.reading import check_fit, naming_model_file, read_config, read_weights
from diffae.runtime.weights import write_weights
from diffae.semantics.attributes import Attributes, Score
from diffae.semantics.prior import MOST_CODES, GaussianPrior, KernelPrior, LatentPrior
from diffae.semantics.standardizer import Standardizer

PART_FORMAT = "diffae-part-1"
PARTS = ("prior", "standardizer", "attributes")
"""What is fitted to an autoencoder."""
MEASURED = "measured.json"
"""File of `PriorMeasurement`, in a prior's folder."""
MOST_COMPONENTS = 100_000
"""Principal directions; there are never more than dimensions of z_sem."""


def prior_folder(source: Path, name: str) -> Path:
    """Where the prior of that name is, beside an autoencoder."""
    return source / "priors" / name


def available_priors(source: Path) -> list[str]:
    """Names of the priors of all images that were fitted to an autoencoder, the one to take first: that whose samples are least
    told from real codes, and of those that were not measured `ddim`, `gaussian`, the first by name.

    Raises:
        ValueError, TypeError: a measurement that is none.
    """
    named = {"ddim": 0, "gaussian": 1}

    def order(folder: Path) -> tuple[float, int, str]:
        measured = folder / MEASURED
        told = read_json(PriorMeasurement, measured).told if measured.is_file() else 2.0
        return told, named.get(folder.name, 2), folder.name

    return [folder.name for folder in sorted((f for f, given in _priors(source).items() if given is None), key=order)]


def priors_of_labels(source: Path) -> list[str]:
    """Names of the priors of images with one label, which are taken only where they are named."""
    return sorted(folder.name for folder, given in _priors(source).items() if given is not None)


def _priors(source: Path) -> dict[Path, str | None]:
    """The folders of all priors, and the label whose images each is of."""
    return {file.parent.parent: given_of_prior(file.parent.parent) for file in source.glob("priors/*/model/config.json")}


def given_of_prior(folder: Path) -> str | None:
    """The label of the images that a prior is of; None for one of all, or that cannot be read, which is said where it is loaded."""
    try:
        return read_config(folder / "model", PART_FORMAT).get("given")
    except (OSError, ValueError):
        return None


def preferred_prior(model: DiffusionAutoencoder, source: Path) -> str | None:
    """The first of `available_priors` that is of this encoder's codes; where none is, the first; None where there are none."""
    priors = available_priors(source)
    of_this = (name for name in priors if len(priors) == 1 or not is_stale(model, prior_folder(source, name) / "model"))
    return next(of_this, priors[0] if priors else None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorMeasurement(InRange):
    """What `train-prior` writes beside a prior.

    Attributes:
        told: how well a classifier tells its samples from held-out codes, AUROC: 0.5 is perfect.
        n: codes of either kind.
    """

    told: Annotated[float, Range(0.5, 1)]
    n: Count


def save_part(model: DiffusionAutoencoder, folder: Path, parts: Sequence[str]) -> None:
    """Writes some of `prior`, `standardizer` and `attributes`, which `load` finds beside the autoencoder."""
    tensors = {k: v for k, v in model.state_dict().items() if k.split(".")[0] in parts}
    config = {k: v for k, v in model.fitted_config().items() if k in parts or (k == "given" and "prior" in parts)}
    write_weights(folder, {"format": PART_FORMAT, "encoder": fingerprint(model), **config}, tensors)


def load_part(model: DiffusionAutoencoder, folder: Path, *, required: bool = False) -> None:
    """Reads what `save_part` wrote into the autoencoder it was fitted to.

    If the encoder has changed since, a warning says so and nothing is read; where it is required, that is an error.
    """
    config, tensors = read_weights(folder, PART_FORMAT)
    if config.get("encoder") != fingerprint(model):
        message = f"{folder} was fitted to z_sem of another encoder (an earlier state of this one, perhaps). Fit it again."
        if required:
            raise ValueError(message)
        warnings.warn(f"{message} It is left out.", stacklevel=3)
        return
    if {"prior.codes", "prior.axes"} <= set(tensors) and not required:
        warnings.warn(f"{folder} is a smoothed bootstrap of an earlier kind. Fit it again. It is left out.", stacklevel=3)
        return
    with naming_model_file(folder / "config.json"):
        add_parts(model, config)
    expected = {k: v for k, v in model.state_dict().items() if k.split(".")[0] in PARTS and config.get(k.split(".")[0])}
    check_fit(expected, tensors, folder)
    model.load_state_dict(tensors, strict=False)
    model.eval()


def is_stale(model: DiffusionAutoencoder, folder: Path) -> bool:
    """Whether a folder holds something that was fitted to z_sem of another encoder."""
    return (folder / "config.json").is_file() and read_weights(folder, PART_FORMAT)[0].get("encoder") != fingerprint(model)


def add_parts(model: DiffusionAutoencoder, config: dict[str, Any]) -> None:
    """Makes room for the prior, standardiser and attributes that a `config.json` tells of; their numbers are loaded after."""
    d = model.z_dim
    if config.get("prior") == "gaussian":
        model.prior = GaussianPrior(d)
    elif isinstance(config.get("prior"), dict) and "codes" in config["prior"]:
        model.prior = KernelPrior(d, from_dict(_KernelPriorJson, config["prior"], path="prior").codes)
    elif config.get("prior") is not None:
        model.prior = LatentPrior(from_dict(PriorConfig, config["prior"], path="prior"))
        if model.prior.config.z_dim != d:
            raise ValueError(f"The prior is one of {model.prior.config.z_dim} dimensions, but z_sem of this autoencoder has {d}.")
    if model.prior is not None and config.get("prior") is not None:
        model.prior.given = from_dict(_GivenJson, {"given": config.get("given")}, path="").given
    if config.get("standardizer"):
        model.standardizer = Standardizer(torch.zeros(d), torch.ones(d))
    if config.get("attributes") is not None:
        told = from_dict(_AttributesJson, config["attributes"], path="attributes")
        scores = {name: from_dict(Score, score, path=f"attributes.scores.{name}") for name, score in told.scores.items()}
        model.attributes = Attributes(scores, d, components=told.components)


@dataclasses.dataclass(frozen=True)
class _GivenJson:
    """The label of the images that a prior is of."""

    given: str | None


@dataclasses.dataclass(frozen=True)
class _KernelPriorJson(InRange):
    """What `config.json` says of a smoothed bootstrap."""

    codes: Annotated[int, Range(1, MOST_CODES)]


@dataclasses.dataclass(frozen=True)
class _AttributesJson:
    """What `config.json` says of attributes; see `Attributes.to_config`."""

    scores: dict
    components: int

    def __post_init__(self) -> None:
        if not 0 <= self.components <= MOST_COMPONENTS:
            raise ValueError(f"components must be within 0..{MOST_COMPONENTS}, got {self.components}.")
