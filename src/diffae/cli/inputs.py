"""What commands work on: a model, images, their codes."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffae.cli.bars import say, warn, work_bar
from diffae.cli.divisions import are_the_runs, data_config, divided_as, is_own
from diffae.config import (
    AutoencoderConfig,
    ComparatorConfig,
    Crop,
    DataConfig,
    Precision,
    Preparation,
)
from diffae.runtime import processes
from diffae.runtime.files import cache_folder, check_target

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from diffae.autoencoder import DiffusionAutoencoder
    from diffae.data import ImageSet
    from diffae.data.labelling import LabelTable
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


def images(ae: "DiffusionAutoencoder", source: str, data: str | None, labels: Path | None = None, **settings: Any) -> "ImageSet":
    """The images that a command is about, prepared. Those of the run are divided as it divides them, whatever their labels are;
    others are not divided, since the run knows nothing of them. Arguments as of `data_config`.

    Raises:
        FileNotFoundError: the images, or their labels, are not there.
        ValueError: as of `data_config` and `divided_as`.
    """
    from diffae.data.labelling import LabelTable

    own = is_own(source, data)
    config, plain = data_config(ae, source, data, labels, **settings), data_config(ae, source, data)
    table = LabelTable(labels, settings.get("labels_kind") or ()) if own and labels is not None else None
    split_alone: dict[str, Any] = {"labels": plain.labels, "labels_kind": plain.labels_kind, "validation": plain.validation}
    comparable = dataclasses.replace(config, **split_alone) == plain
    if own and not comparable and config.labels is not None:
        # Nothing would tell that another table than the run's divides them otherwise.
        config = dataclasses.replace(config, labels=plain.labels)
    try:
        return prepared(config, ae.config, table, lambda found: divided_as(source, found, own=own, comparable=comparable))
    except FileNotFoundError as error:
        if not own:
            raise
        missing = config.labels is not None and not Path(config.labels).is_file()
        what, option = ("its groups are from there", "labels") if missing else ("it was trained on what was there", "data")
        raise FileNotFoundError(f"{error} Of {source} {what}: name where it is now with --{option}.") from None


def divided_images(
    ae: "DiffusionAutoencoder", source: str, data: str | None, labels: Path | None = None, **settings: Any
) -> "ImageSet":
    """`images`, `divided`; arguments and errors as of `images`."""
    return divided(images(ae, source, data, labels, **settings), data)


def divided(found: "ImageSet", data: str | None) -> "ImageSet":
    """Images of the run as they are, and others divided too, for what is fitted to them and measured: as many are held out as the
    run holds out. One image alone, or one group, is not held out."""
    if are_the_runs(found):
        return found
    keys, share = found.names if found.groups is None else found.groups.tolist(), found.config.validation
    try:
        parts = found.divided_by(share if len({*keys}) > 1 else 0.0)
    except ValueError as error:
        if share != "published":
            raise
        parts = found.divided_by(DataConfig().validation)
        parts.notes.append(f"A share of {data} is held out, {DataConfig().validation:g}, since it is no published split: {error}")
    _tell(parts.notes[len(found.notes) :])
    return parts


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


def prepared(
    config: DataConfig,
    model: AutoencoderConfig | ComparatorConfig,
    labels: "LabelTable | None" = None,
    divide: "Callable[[ImageSet], ImageSet] | None" = None,
) -> "ImageSet":
    """Prepares images for a model, and shows a bar and what there is to note. The first process does it before the others.

    Arguments and errors as of `prepare`.
    """
    from diffae.data import prepare
    from diffae.data.dataset import divided_as_configured

    with processes.first_before_others(), work_bar("Data") as update:
        data = prepare(
            config,
            size=model.image_size,
            channels=model.channels,
            progress=update,
            labels=labels,
            divide=divide or divided_as_configured,
        )
    _tell(data.notes)
    return data


def _tell(notes: Sequence[str]) -> None:
    for note in notes if processes.is_first() else ():
        warn(note)


def check_beside(source: str) -> None:
    """Refuses a model beside which nothing can be saved.

    Raises:
        ValueError: it is on the hub.
        OSError: its folder cannot be written.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise ValueError(
            f"{source} is on the hub, or nowhere: priors, attributes and calibrations are kept beside a model. Save it to a folder "
            f"first: `diffae export {source} FOLDER`."
        )
    check_target(folder, ())


def codes_file(ae: "DiffusionAutoencoder", source: str, data: "ImageSet") -> Path:
    """The file of the images' codes: beside the model, or in the cache where that is no folder but on the hub, or imported by name.

    It is written if there is none, or only one by another encoder.
    """
    from diffae.data.codes import forget_parts, identity_of, write_codes
    from diffae.interop.fingerprints import fingerprint

    encoder = fingerprint(ae)
    identity = f"{encoder}-{data.key}"
    if Path(source).is_dir():
        check_beside(source)
        folder = Path(source) / "codes"
    else:
        folder = cache_folder() / "codes" / encoder
    file = folder / f"{data.key}.parquet"
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
    """Image files, and folders of one volume, as pixels in [-1, 1], prepared like the model's training images; `crop` replaces the
    model's if given. Errors are those of `load_given`."""
    from diffae.data.given import load_given

    channels, *size = ae.pixels_shape()
    return load_given(files, size=tuple(size), channels=channels, preparation=preparation(ae, crop), warn=warn)


def preparation(ae: "DiffusionAutoencoder", crop: Crop | None) -> "Preparation":
    """How image files are prepared like the model's training images; `crop` replaces the model's if given."""
    return dataclasses.replace(ae.preparation, crop=crop or ae.preparation.crop)


def pictures(ae: "DiffusionAutoencoder", files: Sequence[Path], crop: Crop | None) -> "Tensor":
    """Image files as the model takes them: pixels, or latents."""
    return ae.from_pixels(pixels(ae, files, crop))
