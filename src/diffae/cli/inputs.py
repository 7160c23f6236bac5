"""What commands work on: a model, images, their codes."""

import dataclasses
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffae.cli.bars import say, warn, work_bar
from diffae.config import (
    AutoencoderConfig,
    ComparatorConfig,
    Crop,
    DataConfig,
    Precision,
    Preparation,
    RunConfig,
    read_json,
)
from diffae.runtime import processes
from diffae.runtime.files import check_target

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from diffae.autoencoder import DiffusionAutoencoder
    from diffae.data import ImageSet
    from diffae.diffusion.ddim import DDIM


def device() -> str:
    """Where networks compute: on a GPU if there is one, and each process of a machine on a GPU of its own."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def autoencoder(source: str, *, prior: str | None = None, precision: Precision = "float32") -> "DiffusionAutoencoder":
    """Loads a model, and shows warnings about parts that do not fit it any more."""
    import diffae

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ae = diffae.load(source, prior=prior, device=device(), precision=precision)
    for warning in caught:
        warn(str(warning.message))
    return ae


def autoencoder_of_pixels(source: str) -> "DiffusionAutoencoder":
    """Loads a model whose images are pixels.

    Raises:
        ValueError: it is one of latents.
    """
    ae = autoencoder(source)
    if ae.config.latents is not None:
        raise ValueError(
            f"{source} is a model of latents ({ae.config.latents}), and pages here are of pixels. In Python, `ae.explain` asks a "
            "classifier about what `ae.to_pixels` makes of its images."
        )
    return ae


def ddim(source: str, ae: "DiffusionAutoencoder") -> "DDIM":
    """Loads a plain DDIM to compare an autoencoder with.

    Raises:
        ValueError: it is an autoencoder, or its images have another shape.
    """
    import diffae
    from diffae.diffusion.ddim import DDIM

    loaded = diffae.load_diffusion(source)
    if not isinstance(loaded, DDIM):
        raise ValueError(f"{source} is an autoencoder; --ddim takes a plain DDIM (a preset that ends in -ddim).")
    if loaded.image_shape != ae.image_shape:
        raise ValueError(f"The DDIM makes images of {loaded.image_shape} and the autoencoder of {ae.image_shape}.")
    return loaded.to(device())


def images(ae: "DiffusionAutoencoder", source: str, data: str | None, labels: Path | None = None, **settings: object) -> "ImageSet":
    """The images that a command is about, prepared; arguments and errors as of `data_config`.

    Raises:
        FileNotFoundError: the images are not there.
    """
    config = data_config(ae, source, data, labels, **settings)
    try:
        return prepared(config, ae.config)
    except FileNotFoundError as error:
        if data is None:
            raise FileNotFoundError(f"{error} {source} was trained on what was there: name where it is now with --data.") from None
        raise


def data_config(
    ae: "DiffusionAutoencoder", source: str, data: str | None, labels: Path | None = None, **settings: object
) -> DataConfig:
    """Which images a command is about: those named, or those that the run was trained on.

    Args:
        ae: the model. Images are prepared as its training images were.
        source: its run directory, folder or name on the hub.
        data: what was named, as `DataConfig.source`, or None.
        labels: their label table, or None for the one that they bring.
        settings: other fields of `DataConfig`. Those that are not None replace the run's.

    Raises:
        ValueError: none are named, and the model is no run, so it has none of its own.
    """
    from diffae.interop.weights import is_run

    trained = is_run(source)
    config = read_json(RunConfig, Path(source) / "config.json").data if trained else DataConfig()
    seen = ae.preparation
    config = dataclasses.replace(config, crop=seen.crop, background=seen.background, range=seen.range, shown=seen.shown)
    if data is not None:
        config = dataclasses.replace(config, source=data, labels=None, labels_kind=(), mask=seen.mask, also=())
    elif not trained:
        raise ValueError(f"{source} is no training run, so it has no images of its own: name them with --data.")
    if labels is not None:
        config = dataclasses.replace(config, labels=str(labels), labels_kind=())
    settings["labels_kind"] = settings.get("labels_kind") or None
    # A model of latents takes all images through the autoencoder that it was trained with.
    settings |= {"latents": ae.config.latents}
    return dataclasses.replace(config, **{k: v for k, v in settings.items() if v is not None})  # type: ignore[arg-type]


def looked_at(data: "ImageSet", named: str | None, what: str) -> "np.ndarray":
    """Which images a command is about: all that were named, or those that the run held out.

    Raises:
        ValueError: the run held none out.
    """
    import numpy as np

    indices = data.validation if named is None else np.arange(len(data.names))
    if not len(indices):
        raise ValueError(f"The run holds no images out to {what}: name some with --data.")
    return indices


def prepared(config: DataConfig, model: AutoencoderConfig | ComparatorConfig) -> "ImageSet":
    """Prepares images for a model, and shows a bar and what there is to note. The first process does it before the others."""
    from diffae.data import prepare

    with processes.first_before_others(), work_bar("Data") as update:
        data = prepare(config, size=model.image_size, channels=model.channels, progress=update)
    for note in data.notes if processes.is_first() else ():
        warn(note)
    return data


def check_beside(source: str) -> None:
    """Refuses a model beside which nothing can be saved.

    Raises:
        ValueError: it is on the hub.
        OSError: its folder cannot be written.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise ValueError(
            f"{source} is on the hub, or nowhere: codes, priors, attributes and calibrations are kept beside a model. Save it to a "
            "folder first."
        )
    check_target(folder, ())


def codes_file(ae: "DiffusionAutoencoder", source: str, data: "ImageSet") -> Path:
    """The file of the images' codes beside the model. It is written if there is none, or only one by another encoder."""
    from diffae.data.codes import forget_parts, identity_of, write_codes
    from diffae.interop.fingerprints import fingerprint

    check_beside(source)
    identity = f"{fingerprint(ae)}-{data.key}"
    file = Path(source) / "codes" / f"{data.key}.parquet"
    if identity_of(file) != identity:
        with work_bar("Encoding images") as update:
            write_codes(ae, data, file, identity=identity, progress=update)
        if processes.is_first():
            say(f"Codes: {file}")
    elif processes.is_first():
        forget_parts(file, identity)
    return file


def codes(ae: "DiffusionAutoencoder", source: str, data: "ImageSet") -> "Tensor":
    """z_sem of images (n, d), in their order."""
    from diffae.data.codes import read_codes

    return read_codes(codes_file(ae, source, data)).z_sem


def pixels(ae: "DiffusionAutoencoder", files: Sequence[Path], crop: Crop | None) -> "Tensor":
    """Image files as pixels in [-1, 1], prepared like the model's training images; `crop` replaces the model's if given."""
    from diffae.data.images import load_images

    channels, *size = ae.pixels_shape()
    return load_images(files, size=tuple(size), channels=channels, preparation=preparation(ae, crop), warn=warn)


def preparation(ae: "DiffusionAutoencoder", crop: Crop | None) -> "Preparation":
    """How image files are prepared like the model's training images; `crop` replaces the model's if given."""
    return dataclasses.replace(ae.preparation, crop=crop or ae.preparation.crop)


def pictures(ae: "DiffusionAutoencoder", files: Sequence[Path], crop: Crop | None) -> "Tensor":
    """Image files as the model takes them: pixels, or latents."""
    return ae.from_pixels(pixels(ae, files, crop))
