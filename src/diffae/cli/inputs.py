"""What commands are given: a model, images, their codes."""

import dataclasses
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, get_type_hints

import tyro

from diffae.cli.bars import say, warn, work_bar
from diffae.config import Crop, DataConfig, Precision, Range, RunConfig, check_ranges, read_json
from diffae.runtime import processes
from diffae.runtime.files import check_target

if TYPE_CHECKING:
    from torch import Tensor

    from diffae.autoencoder import DiffusionAutoencoder
    from diffae.data import ImageSet
    from diffae.diffusion.model import DDIM

Source = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
"""A model, as the first argument of a command."""
Files = Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE")]
"""Images, as its further arguments."""


class Writes(NamedTuple):
    """What a command writes there: endings of files, or none for a folder; see `check_target`."""

    endings: tuple[str, ...] = ()


Folder = Annotated[Path, Writes()]
Picture = Annotated[Path, Writes((".png",))]
MOVING = (".png", ".gif", ".webp", ".mp4")
Moving = Annotated[Path, Writes(MOVING)]
Steps = Annotated[int | None, Range(1, 1000)]


def check(command: object) -> None:
    """Looks at what can be known to be wrong with a command before it computes anything: its numbers, and where it writes.

    Raises:
        ValueError: a number out of its range, or an ending that is none of the kind.
        OSError: a place that cannot be written.
        ImportError: a kind of file whose writer is not installed.
    """
    check_ranges(command, lambda name: f"--{name.replace('_', '-')}")
    for name, kind in get_type_hints(type(command), include_extras=True).items():
        value = getattr(command, name)
        for writes in (m for m in getattr(kind, "__metadata__", ()) if isinstance(m, Writes) and value is not None):
            check_target(value, writes.endings)
            if value.suffix.lower() == ".mp4":
                from diffae.pictures import ffmpeg

                ffmpeg()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cropping:
    """What commands have in common that are given image files."""

    crop: Crop | None = None
    """Crop of these images, in place of the one that the model was trained with: `none` for what is cropped already."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelling:
    """What commands have in common that read a label table."""

    labels_kind: tuple[str, ...] = ()
    """What its columns are taken for, NAME=KIND each: `binary` (1 yes, 0 no, -1 unknown), `signed` (1 yes, -1 no, 0 unknown)
    or `continuous` (numbers). KIND alone is for every column where -1 could be either. Empty cells are unknown always."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """What commands have in common that decode."""

    precision: Precision = "float32"
    """Arithmetic of the decoder: `bfloat16` takes about half the time where it is quick, and `auto` takes it there. Images look the
    same; only x_T is found less exactly."""


def device() -> str:
    """Where networks compute: on a GPU, where there is one; each of several processes of a machine on its own."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def autoencoder(source: str, *, prior: str | None = None, precision: Precision = "float32") -> "DiffusionAutoencoder":
    """The model, with what does not fit it any more said in a line."""
    import diffae

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ae = diffae.load(source, prior=prior, device=device(), precision=precision)
    for warning in caught:
        warn(str(warning.message))
    return ae


def ddim(source: str, ae: "DiffusionAutoencoder") -> "DDIM":
    """The plain DDIM to compare an autoencoder with.

    Raises:
        ValueError: it is an autoencoder, or one of images of another shape.
    """
    import diffae
    from diffae.diffusion.model import DDIM

    loaded = diffae.load_diffusion(source)
    if not isinstance(loaded, DDIM):
        raise ValueError(f"{source} is an autoencoder; --ddim takes a plain DDIM (a preset that ends in -ddim).")
    if loaded.image_shape != ae.image_shape:
        raise ValueError(f"The DDIM makes images of {loaded.image_shape} and the autoencoder of {ae.image_shape}.")
    return loaded.to(device())


def images(ae: "DiffusionAutoencoder", source: str, data: str | None, labels: Path | None = None, **settings: object) -> "ImageSet":
    """The images that a command is about: those named, or those that the run was trained on.

    Further settings of `DataConfig` take the place of the run's where they are not None.

    Raises:
        ValueError: none are named, and the model is not a run, which knows its own.
    """
    from diffae.data import prepare

    file = Path(source) / "config.json"
    trained = (Path(source) / "model").is_dir() and file.is_file()
    config = read_json(RunConfig, file).data if trained else DataConfig()
    seen = ae.preparation
    config = dataclasses.replace(config, crop=seen.crop, background=seen.background, range=seen.range)
    if data is not None:
        config = dataclasses.replace(config, source=data, labels=None, labels_kind=())
    elif not trained:
        raise ValueError(f"{source} is no training run, so it has no images of its own: name them with --data.")
    if labels is not None:
        config = dataclasses.replace(config, labels=str(labels), labels_kind=())
    settings["labels_kind"] = settings.get("labels_kind") or None
    # Of whatever images, a model of latents takes latents of the autoencoder that it was trained with.
    settings |= {"latents": ae.config.latents}
    config = dataclasses.replace(config, **{k: v for k, v in settings.items() if v is not None})  # type: ignore[arg-type]
    try:
        with processes.first_before_others(), work_bar("Data") as update:
            found = prepare(config, size=ae.config.image_size, channels=ae.config.channels, progress=update)
    except FileNotFoundError as error:
        if data is None:
            raise FileNotFoundError(f"{error} {source} was trained on what was there: name where it is now with --data.") from None
        raise
    for note in found.notes if processes.is_first() else ():
        warn(note)
    return found


def check_beside(source: str) -> None:
    """Refuses a model beside which nothing can be kept.

    Raises:
        ValueError: it is on the hub.
        OSError: there is no permission.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise ValueError(
            f"{source} is on the hub, or nowhere: codes, priors, attributes and calibrations are kept beside a model. Save it to a "
            "folder first."
        )
    check_target(folder, ())


def codes_file(ae: "DiffusionAutoencoder", source: str, data: "ImageSet") -> Path:
    """The file of codes of these images beside the model; it is made if it is not there or of another encoder."""
    from diffae.data.codes import forget_parts, identity_of, write_codes
    from diffae.interop.weights import fingerprint

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
    """z_sem of images, in their order."""
    from diffae.data.codes import read_codes

    return read_codes(codes_file(ae, source, data)).z_sem


def pixels(ae: "DiffusionAutoencoder", files: Sequence[Path], crop: Crop | None) -> "Tensor":
    """Image files at the size that the model's images have when they are seen, prepared as those were but for the crop."""
    from diffae.data.images import load_images

    channels, *size = ae.pixels_shape()
    preparation = dataclasses.replace(ae.preparation, crop=crop or ae.preparation.crop)
    return load_images(files, size=(size[0], size[1]), channels=channels, preparation=preparation, warn=warn)


def pictures(ae: "DiffusionAutoencoder", files: Sequence[Path], crop: Crop | None) -> "Tensor":
    """Image files as the model wants them: as pixels, or as latents."""
    return ae.from_pixels(pixels(ae, files, crop))
