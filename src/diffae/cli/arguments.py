"""Types of arguments that commands share, and their checks."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_type_hints

import tyro

from diffae.config import Crop, Precision, Range, check_ranges
from diffae.runtime.files import check_target

Source = Annotated[
    tyro.conf.Positional[str],
    tyro.conf.arg(metavar="RUN", help="A run directory, a saved model, or the hub's name of one."),
]
"""A model, as the first argument of a command."""
LocalSource = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help="A run directory or a saved model.")]
"""A model whose folder a command reads or writes beside the weights."""
Data = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
"""Images to train on or to encode, in any format of `data.sources`."""
Files = Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE")]
"""Images, as its further arguments."""


class Writes(NamedTuple):
    """Marks an argument as a place that a command writes to: allowed endings of files, or none for a folder, and whether that is to
    be the folder of a model. See `check_target`."""

    endings: tuple[str, ...] = ()
    model: bool = False


Folder = Annotated[Path, Writes()]
"""A folder that is written."""
ModelFolder = Annotated[Path, Writes(model=True)]
"""A folder that a model is written to, with a config.json."""
Picture = Annotated[Path, Writes((".png",))]
"""A picture that is written."""
MOVING = (".png", ".gif", ".webp", ".mp4")
"""Endings of pictures, still and moving."""
Moving = Annotated[Path, Writes(MOVING)]
"""A picture that is written, still or moving."""
MovingOrFolder = Annotated[Path, Writes((*MOVING, ""))]
"""Such a picture, or a folder of several."""
Values = Annotated[Path | None, Writes((".npy", ".tif", ".tiff", ".nii", ".gz", ".mgz", ".mgh"))]
"""An image that is written in the values of the file that it came from."""
Minutes = Annotated[float | None, Range(0)]
Number = Annotated[int | None, Range(1)]
Steps = Annotated[int | None, Range(1, 1000)]
"""Network calls of a solver."""
InversionSteps = Annotated[Steps, tyro.conf.arg(help="Solver steps in either direction; by default 20, or what was calibrated.")]
Inversion = Annotated[
    Literal["anchored", "fast", "refine", "reversible", "bdia", "official"],
    tyro.conf.arg(
        help="How x_T is found: `anchored` returns the image exactly and keeps its detail in edits, `fast` needs nothing but x_T,\n"
        "`official` is the authors' scheme."
    ),
]


def check(command: object) -> None:
    """Checks a command's numbers, and the places that it writes to, before it computes anything.

    Raises:
        ValueError: a number is out of its range, a file has an ending that the command cannot write, or a model would take the
            place of a run.
        OSError: a place cannot be written.
        ImportError: the package that writes this kind of file is not installed.
    """
    check_ranges(command, lambda name: f"--{name.replace('_', '-')}")
    for name, kind in get_type_hints(type(command), include_extras=True).items():
        value = getattr(command, name)
        for writes in (m for m in getattr(kind, "__metadata__", ()) if isinstance(m, Writes) and value is not None):
            check_target(value, writes.endings)
            if writes.model and any((value / name).exists() for name in ("model", "metrics.jsonl")):
                raise ValueError(f"{value} is a training run, whose config.json would be lost. Name another folder.")
            if value.suffix.lower() == ".mp4":
                from diffae.pictures import ffmpeg

                ffmpeg()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cropping:
    """What all commands share that take image files."""

    crop: Crop | None = None
    """Crop of these images, in place of the one that the model was trained with: `none` for what is cropped already."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelling:
    """What all commands share that read a label table."""

    labels_kind: tuple[str, ...] = ()
    """What its columns are taken for, NAME=KIND each: `binary` (1 yes, 0 no, -1 unknown), `signed` (1 yes, -1 no, 0 unknown),
    `continuous` (numbers), `ordinal` (numbers that are an order) or `classes` (a column of yes and no for each). KIND alone is for
    every column where -1 could be either. Empty cells are unknown always."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """What all commands share that decode."""

    precision: Precision = "float32"
    """Arithmetic of the decoder: `bfloat16` takes about half the time where it is quick, and `auto` takes it there. Images look the
    same; only x_T is found less exactly."""
