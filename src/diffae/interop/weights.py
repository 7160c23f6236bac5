"""Saved models: a folder of `model.safetensors` and `config.json`, and what was fitted to it afterwards beside it.

    FOLDER/config.json, model.safetensors      the autoencoder, with the prior and attributes that it was saved with
    FOLDER/priors/NAME/model/                  priors that were fitted later
    FOLDER/attributes/                         attributes that were fitted later

A run directory has the first two files in `model/`. What was fitted to z_sem belongs to the encoder that z_sem came from:
its fingerprint is stored, and after more training of the autoencoder it no longer fits and is not used.
"""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import torch

from diffae.autoencoder import DiffusionAutoencoder, build
from diffae.config import AutoencoderConfig, Precision, Preparation, RunConfig, from_dict, read_json
from diffae.diffusion.ddim import DDIM
from diffae.diffusion.images import FORMAT
from diffae.diffusion.model import ImageDiffusion
from diffae.diffusion.predictor import NoisePredictor
from diffae.diffusion.schedule import Calibration
from diffae.interop.fingerprints import digest_model
from diffae.interop.official.published import find_imported
from diffae.interop.parts import add_parts, available_priors, load_part, preferred_prior, prior_folder, priors_of_labels
from diffae.interop.reading import check_depth, check_fit, naming_model_file, read_config, read_weights
from diffae.nn.encoder import Encoder
from diffae.runtime.files import write_text
from diffae.runtime.hub import download
from diffae.runtime.weights import CONFIG, WEIGHTS

CALIBRATION = "calibration.json"


def load(
    source: str | Path, *, prior: str | None = None, device: str | torch.device = "cpu", precision: Precision = "float32",
    encoder: Encoder | None = None, unet: NoisePredictor | None = None, revision: str | None = None,
) -> DiffusionAutoencoder:  # fmt: skip
    """Reads an autoencoder, with its prior and attributes if it has any.

    Args:
        source: a run directory (its EMA weights), a folder that `save_pretrained` wrote, the hub's name of one (`user/model`), or
            that of a published model which `diffae import` has brought (`ffhq256`).
        prior: name of one of the priors beside it; by default the one of this encoder whose samples `train-prior` found to be least
            told from real codes, or of those that were not measured `ddim`, `gaussian`, or the first by name.
        device: where the networks go.
        precision: of the decoder's calls; see `ImageDiffusion`.
        encoder: the network that takes the weights of a model which was built with one of the user's own.
        unet: likewise.
        revision: of a model on the hub: a branch, a tag, or the commit that makes a result repeatable.

    Returns:
        The autoencoder, in eval mode.

    Raises:
        FileNotFoundError: there is no such folder, no saved model in it yet, no such prior or revision.
        ValueError: a file is damaged, does not fit the other, or holds a plain DDIM.
        TypeError: a setting in a file is of another type.
    """
    model = load_diffusion(source, encoder=encoder, unet=unet, revision=revision)
    if not isinstance(model, DiffusionAutoencoder):
        raise ValueError(f"{source} holds a plain DDIM, which has no z_sem. Read it with `diffae.load_diffusion`.")
    folder = Path(source)
    if prior is not None and prior not in (priors := [*available_priors(folder), *priors_of_labels(folder)]):
        there = f"there are: {', '.join(priors)}" if priors else "there is none"
        raise FileNotFoundError(f"There is no prior {prior!r} beside {source}; {there}. Fit one with `diffae train-prior`.")
    if name := prior or preferred_prior(model, folder):
        load_part(model, prior_folder(folder, name) / "model", required=prior is not None)
    if (folder / "attributes" / "config.json").is_file():
        load_part(model, folder / "attributes")
    model.precision = precision
    return model.to(device)


def load_diffusion(
    source: str | Path, *, encoder: Encoder | None = None, unet: NoisePredictor | None = None, revision: str | None = None
) -> DiffusionAutoencoder | DDIM:
    """Reads a saved autoencoder, or a plain DDIM, without what stands beside it; see `load`."""
    folder, beside = _folder(source, revision), Path(source)
    config, tensors = read_weights(folder, FORMAT)
    networks: dict[str, Any] = {"encoder": encoder, "unet": unet}
    with naming_model_file(folder / "config.json"):
        settings = from_dict(AutoencoderConfig, config.get("model"), path="model")
        own = from_dict(dict, config.get("networks", {}), path="networks")
        for name in (name for name in own if networks.get(name) is None):
            raise ValueError(f"its {name} is one of its maker's own, {own[name]}: build one, and give it as {name}=...")
        check_depth(
            settings, len(tensors), networks=[name for name, net in networks.items() if net is None or settings.mean_decoder]
        )
        with torch.device("meta"):
            # Before there is room for it: a config may say anything.
            sketch = _whole(settings, config, networks)
    check_fit(sketch.state_dict(), tensors, folder)
    with naming_model_file(folder / "config.json"):
        model = _whole(settings, config, networks)
        model.about = from_dict(dict, config.get("about", {}), path="about")
        model.preparation = _preparation(config, beside)
        if config.get("calibration") is not None:
            model.calibration = _calibration(config["calibration"], model)
    model.load_state_dict(tensors)
    if (beside / CALIBRATION).is_file():
        _load_calibration(model, beside / CALIBRATION)
    return model.eval()


def load_config(source: str | Path) -> AutoencoderConfig:
    """The configuration of a saved model, without its weights; arguments and errors as of `load`."""
    folder = _folder(source)
    with naming_model_file(folder / "config.json"):
        return from_dict(AutoencoderConfig, read_config(folder, FORMAT).get("model"), path="model")


def _folder(source: str | Path, revision: str | None = None) -> Path:
    """Where the two files of a saved model are: in a run's `model`, in the folder itself, or downloaded from the hub."""
    folder = Path(source)
    if not folder.is_dir():
        known = find_imported(str(source)) if revision is None else None
        folder = known or download(str(source), [CONFIG, WEIGHTS], revision=revision)
    elif revision is not None:
        raise ValueError(f"{source} is a folder of this machine, which has no revisions: leave revision={revision!r} away.")
    return folder / "model" if (folder / "model").is_dir() else folder


def _whole(settings: AutoencoderConfig, config: dict[str, Any], networks: dict[str, Any]) -> DiffusionAutoencoder | DDIM:
    """The model that a `config.json` describes, with all that was saved in it; its numbers are loaded after."""
    model = build(settings, **networks)
    if isinstance(model, DiffusionAutoencoder):
        add_parts(model, config)
    return model


def is_run(source: str | Path) -> bool:
    """Whether a model is a training run, which knows what images it was trained on."""
    return (Path(source) / "model").is_dir() and (Path(source) / "config.json").is_file()


def _preparation(config: dict[str, Any], run: Path) -> Preparation:
    """What a model says of how its images were prepared; for one that was saved before it did, what its run says."""
    if "preparation" in config:
        return from_dict(Preparation, config["preparation"], path="preparation")
    return read_json(RunConfig, run / "config.json").data.preparation if is_run(run) else Preparation()


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
