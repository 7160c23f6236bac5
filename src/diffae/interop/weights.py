"""Saved models: a folder of `model.safetensors` and `config.json`, and what was fitted to it afterwards beside it.

    FOLDER/config.json, model.safetensors      the autoencoder, with the prior and attributes that it was saved with
    FOLDER/priors/NAME/model/                  priors that were fitted later
    FOLDER/attributes/                         attributes that were fitted later

A run directory has the first two files in `model/`. What was fitted to z_sem belongs to the encoder that z_sem came from:
its fingerprint is stored, and after more training of the autoencoder it no longer fits and is not used.
"""

import contextlib
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from diffae.autoencoder import DiffusionAutoencoder, build
from diffae.config import AutoencoderConfig, Precision, Preparation, PriorConfig, RunConfig, from_dict, read_json, to_dict
from diffae.diffusion.images import FORMAT
from diffae.diffusion.model import DDIM, ImageDiffusion
from diffae.diffusion.schedule import Calibration
from diffae.runtime.files import digest_arrays, pointer_or, write_text
from diffae.runtime.hub import download
from diffae.runtime.weights import CONFIG, WEIGHTS, check_finite, files_of_weights, write_weights
from diffae.semantics.attributes import Attributes, Score
from diffae.semantics.prior import GaussianPrior, LatentPrior
from diffae.semantics.standardizer import Standardizer

PART_FORMAT = "diffae-part-1"
CALIBRATION = "calibration.json"
PARTS = ("prior", "standardizer", "attributes")
"""What is fitted to an autoencoder."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types that weights are saved in."""
MOST_COMPONENTS = 100_000
"""Principal directions, of which there are at most as many as z_sem has dimensions."""


def load(
    source: str | Path, *, prior: str | None = None, device: str | torch.device = "cpu", precision: Precision = "float32"
) -> DiffusionAutoencoder:
    """Reads an autoencoder, with its prior and attributes if it has any.

    Args:
        source: a run directory (its EMA weights), a folder that `save_pretrained` wrote, or the hub's name of one (`user/model`).
        prior: name of one of the priors beside it; by default `ddim` if there is one, or `gaussian`, or the first by name.
        device: where the networks go.
        precision: of the decoder's calls; see `ImageDiffusion`.

    Returns:
        The autoencoder, in eval mode.

    Raises:
        FileNotFoundError: there is no such folder, no saved model in it yet, or no such prior.
        ValueError: a file is damaged, does not fit the other, or holds a plain DDIM.
    """
    model = load_diffusion(source)
    if not isinstance(model, DiffusionAutoencoder):
        raise ValueError(f"{source} holds a plain DDIM, which has no z_sem. Read it with `diffae.load_diffusion`.")
    folder = Path(source)
    priors = available_priors(folder)
    if prior is not None and prior not in priors:
        there = f"there are: {', '.join(priors)}" if priors else "there is none"
        raise FileNotFoundError(f"There is no prior {prior!r} beside {source}; {there}. Fit one with `diffae train-prior`.")
    if priors:
        name = prior or next((n for n in ("ddim", "gaussian") if n in priors), priors[0])
        load_part(model, prior_folder(folder, name) / "model", required=prior is not None)
    if (folder / "attributes" / "config.json").is_file():
        load_part(model, folder / "attributes")
    model.precision = precision
    return model.to(device)


def load_diffusion(source: str | Path) -> DiffusionAutoencoder | DDIM:
    """Reads a saved autoencoder, or a plain DDIM, without what stands beside it; see `load`."""
    folder = beside = Path(source)
    if not folder.is_dir():
        folder = download(str(source), [CONFIG, WEIGHTS])
    if (folder / "model").is_dir():
        folder = folder / "model"
    config, tensors = read_weights(folder, FORMAT)
    with naming(folder / "config.json"):
        settings = from_dict(AutoencoderConfig, config.get("model"), path="model")
        check_depth(settings, len(tensors))
        with torch.device("meta"):
            # Before there is room for it: a config may say anything.
            sketch = _whole(settings, config)
    _check_fit(sketch.state_dict(), tensors, folder)
    with naming(folder / "config.json"):
        model = _whole(settings, config)
        model.about = from_dict(dict, config.get("about", {}), path="about")
        model.preparation = _preparation(config, beside)
        if config.get("calibration") is not None:
            model.calibration = _calibration(config["calibration"], model)
    model.load_state_dict(tensors)
    if (beside / CALIBRATION).is_file():
        _load_calibration(model, beside / CALIBRATION)
    return model.eval()


def _whole(settings: AutoencoderConfig, config: dict[str, Any]) -> DiffusionAutoencoder | DDIM:
    """The model that a `config.json` describes, with all that was saved in it; its numbers are loaded after."""
    model = build(settings)
    if isinstance(model, DiffusionAutoencoder):
        _add_parts(model, config)
    return model


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """Within it, errors about what a file describes name the file."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"{file}: {error}") from None
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{file}: {error}") from None
    except (RuntimeError, MemoryError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{file} describes a model that cannot be built ({reason}). It is damaged, or memory does not suffice."
        ) from None


def check_depth(settings: AutoencoderConfig, num: int) -> None:
    """Refuses networks of more blocks than there are tensors, before they are built.

    Raises:
        ValueError: it is so.
    """
    for net in (settings.unet, settings.encoder):
        blocks = len(net.channel_mult) * net.blocks_per_level
        if blocks > num:
            raise ValueError(
                f"a network of {blocks:,} blocks is described, but there are only {num:,} tensors. One of them is damaged."
            )


def _preparation(config: dict[str, Any], run: Path) -> Preparation:
    """What a model says of how its images were prepared; for one that was saved before it did, what its run says."""
    if "preparation" in config:
        return from_dict(Preparation, config["preparation"], path="preparation")
    file = run / "config.json"
    return read_json(RunConfig, file).data.preparation if (run / "model").is_dir() and file.is_file() else Preparation()


def save_calibration(model: ImageDiffusion, source: Path) -> Path:
    """Writes what was calibrated beside the model, where `load` finds it as long as the networks are the same."""
    written = {"model": digest_model(model), "calibration": dataclasses.asdict(model.calibration)}
    write_text(source / CALIBRATION, json.dumps(written, indent=2) + "\n")
    return source / CALIBRATION


def _load_calibration(model: ImageDiffusion, file: Path) -> None:
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        of, calibration = written["model"], _calibration(written["calibration"], model)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error}). Calibrate again, or delete it.") from None
    if of == digest_model(model):
        model.calibration = calibration
    else:
        warnings.warn(f"{file} is of an earlier state of this model. Calibrate it again; it is left out.", stacklevel=4)


def _calibration(values: Any, model: ImageDiffusion) -> Calibration:
    """A calibration, if it can be one of this model."""
    found, T = from_dict(Calibration, values, path="calibration"), model.schedule.T
    limits = {"t_max": (0, T - 1), "mean_t": (0, T - 1), "steps": (1, T), "sample_steps": (1, T)}
    for name, (least, most) in limits.items():
        if not least <= getattr(found, name) <= most or (name, getattr(found, name)) == ("t_max", 0):
            raise ValueError(f"calibration.{name} must be within {least}..{most}, got {getattr(found, name)!r}.")
    return found


def prior_folder(source: Path, name: str) -> Path:
    """Where the prior of that name is, beside an autoencoder."""
    return source / "priors" / name


def available_priors(source: Path) -> list[str]:
    """Names of the priors that were fitted to an autoencoder."""
    return sorted(p.parent.parent.name for p in source.glob("priors/*/model/config.json"))


def save_part(model: DiffusionAutoencoder, folder: Path, parts: Sequence[str]) -> None:
    """Writes some of `prior`, `standardizer` and `attributes`, which `load` finds beside the autoencoder."""
    tensors = {k: v for k, v in model.state_dict().items() if k.split(".")[0] in parts}
    config = {k: v for k, v in model.fitted().items() if k in parts}
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
    with naming(folder / "config.json"):
        _add_parts(model, config)
    expected = {k: v for k, v in model.state_dict().items() if k.split(".")[0] in PARTS and config.get(k.split(".")[0])}
    _check_fit(expected, tensors, folder)
    model.load_state_dict(tensors, strict=False)
    model.eval()


def is_stale(model: DiffusionAutoencoder, folder: Path) -> bool:
    """Whether a folder holds something that was fitted to z_sem of another encoder."""
    return (folder / "config.json").is_file() and read_weights(folder, PART_FORMAT)[0].get("encoder") != fingerprint(model)


def fingerprint(model: DiffusionAutoencoder) -> str:
    """Identifies the encoder's weights: codes, priors and attributes belong to one encoder."""
    return digest(model.encoder)


def digest(module: nn.Module) -> str:
    """Identifies weights."""
    return digest_arrays({name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()})


def digest_model(model: ImageDiffusion) -> str:
    """Identifies what encodes and decodes: networks and configuration, without prior and attributes."""
    parts = [digest(model.unet), *([digest(model.encoder)] if isinstance(model, DiffusionAutoencoder) else [])]
    return hashlib.blake2b(json.dumps([to_dict(model.config), *parts]).encode(), digest_size=16).hexdigest()


def _add_parts(model: DiffusionAutoencoder, config: dict[str, Any]) -> None:
    """Makes room for the prior, standardiser and attributes that a `config.json` tells of; their numbers are loaded after."""
    d = model.z_dim
    if config.get("prior") == "gaussian":
        model.prior = GaussianPrior(d)
    elif config.get("prior") is not None:
        model.prior = LatentPrior(from_dict(PriorConfig, config["prior"], path="prior"))
        if model.prior.config.z_dim != d:
            raise ValueError(f"The prior is one of {model.prior.config.z_dim} dimensions, but z_sem of this autoencoder has {d}.")
    if config.get("standardizer"):
        model.standardizer = Standardizer(torch.zeros(d), torch.ones(d))
    if config.get("attributes") is not None:
        told = from_dict(_Told, config["attributes"], path="attributes")
        scores = {name: from_dict(Score, score, path=f"attributes.scores.{name}") for name, score in told.scores.items()}
        model.attributes = Attributes(scores, d, components=told.components)


@dataclasses.dataclass(frozen=True)
class _Told:
    """What `config.json` says of attributes; see `Attributes.to_config`."""

    scores: dict
    components: int

    def __post_init__(self) -> None:
        if not 0 <= self.components <= MOST_COMPONENTS:
            raise ValueError(f"components must be within 0..{MOST_COMPONENTS}, got {self.components}.")


def read_weights(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The two files of a folder: what `config.json` says, and the tensors.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: one of them is damaged, or of another format, or weights that are no numbers.
    """
    config_file, weights_file = files_of_weights(folder)
    for file in (config_file, weights_file):
        if not file.is_file():
            raise FileNotFoundError(f"{folder} holds no {file.name}: a run has its model after its first checkpoint.")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{config_file} is damaged ({error}). Save the model again.") from None
    if not isinstance(config, dict) or config.get("format") != kind:
        raise ValueError(f"{config_file} was not written by `save_pretrained`: its format is not {kind!r}.")
    try:
        tensors = safetensors.torch.load_file(weights_file)
    except SafetensorError as error:
        what = pointer_or(weights_file, f"is damaged or cut short ({error}). Copy or save it again")
        raise ValueError(f"{weights_file} {what}.") from None
    odd = [f"{k} is {t.dtype}" for k, t in tensors.items() if (t.is_floating_point() and t.dtype not in FLOATS) or t.is_complex()]
    if odd:
        raise ValueError(f"{weights_file}: {odd[0]}, which is no type of weights here. Save them as float32.")
    check_finite(tensors, weights_file)
    return config, tensors


def _check_fit(expected: dict[str, Tensor], tensors: dict[str, Tensor], folder: Path) -> None:
    names = expected.keys() | tensors.keys()
    wrong = sorted(k for k in names if k not in expected or k not in tensors or not _alike(expected[k], tensors[k]))
    if wrong:
        raise ValueError(f"{folder / 'model.safetensors'} does not fit config.json: {len(wrong)} tensors differ, {wrong[0]} first.")


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether tensors are of one shape, and both of floating-point numbers or neither."""
    return a.shape == b.shape and a.is_floating_point() == b.is_floating_point()
