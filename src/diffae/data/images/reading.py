"""Image files -> arrays at the training size."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.config import Preparation
from diffae.data.images import arrays, dicom, fits, nifti, tiffs
from diffae.data.images.decoded import Decoded, Grid, Reader
from diffae.data.images.files import UnusableImage, Warn, ending, is_dicom
from diffae.data.images.pillow import decode_deep, needs_more, read_picture
from diffae.data.images.preparing import prepared
from diffae.data.images.values import in_range, limits_for, too_dark
from diffae.runtime.files import POINTER, is_pointer

READERS: dict[str, Reader] = {
    ".npy": arrays.decode,
    arrays.PACKED: arrays.unpacked,
    **dict.fromkeys((".dcm", ".dicom"), dicom.decode),
    **dict.fromkeys((".nii", ".nii.gz", ".mgz", ".mgh"), nifti.decode),
    **dict.fromkeys((".fits", ".fit", ".fits.gz"), fits.decode),
}
"""Ending of a file -> what reads it; Pillow and `tiffs` read all others."""


def read_file(file: Path) -> tuple[bytes, str]:
    """The bytes of an image file, and the name by which its kind is known.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is a folder.
    """
    if file.is_dir():
        raise ValueError(f"{file} is a folder: name its files.")
    if not file.is_file():
        advice = " Addresses are not opened: download what is there." if ":/" in file.as_posix() else ""
        raise FileNotFoundError(f"There is no image {file}.{advice}")
    return file.read_bytes(), file.name


def load_images(
    files: Sequence[Path],
    *,
    size: tuple[int, ...],
    channels: int,
    preparation: Preparation,
    warn: Warn = warnings.warn,
    read: Callable[[Path], tuple[bytes, str]] = read_file,
) -> Float[Tensor, "n c *sides"]:
    """Image files as a model wants them, in [-1, 1].

    Args:
        files: their paths.
        size: height and width of the result, or depth, height and width.
        channels: see `read_image`.
        preparation: crop, background and range of values: the model's, `ae.preparation`.
        warn: called with a sentence about each file of which only a part was taken, or whose values look wrong.
        read: gives a file's bytes and its name, as `read_image` takes them.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file cannot be used, or is a folder; the message names it and says why.
    """
    if not files:
        raise ValueError("No image files were given.")
    images = []
    for file in files:
        parts: list[str] = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's are about what does not touch the pixels.
                content, name = read(file)
                pixels = read_image(content, name, size=size, channels=channels, preparation=preparation, warn=parts.append)
        except UnusableImage as error:
            raise ValueError(f"{file} {error}.") from None
        seen = pixels[:channels]
        least, most = (int(seen.min()), int(seen.max())) if pixels.dtype == np.uint16 else (0, None)
        if dark := too_dark(most, preparation, least=least):
            warn(f"{file} has {dark}.")
        for part in parts:
            warn(f"{file} is {part}.")
        images.append(in_range(seen))
    return torch.stack(images)


def read_image(
    content: bytes,
    name: str,
    *,
    size: tuple[int, ...],
    channels: int,
    preparation: Preparation,
    warn: Warn = lambda text: None,
) -> np.ndarray:
    """Decodes, orients, crops and resizes one image.

    Args:
        content: the file's bytes.
        name: its name, by which its kind is known: see `READERS`. DICOM is known by its bytes too.
        size: height and width of the result, or depth, height and width.
        channels: 1, 3 or 4 of pictures; any number of files that have so many.
        preparation: crop, background, range of values and gaps: the model's, `ae.preparation`.
        warn: called where only a part of the file is taken, with words that follow its name and "is".

    Returns:
        (channels, *size), uint8, or uint16 for images of more than 8 bits. The full range stands for [-1, 1]. With gaps as a mask,
        one channel more: 0 where something is not known, the largest value elsewhere.

    Raises:
        UnusableImage: the file cannot be used; the message says why, without its name.
        ImportError: the library that reads such files is not installed.
    """
    return read_placed(content, name, size=size, channels=channels, preparation=preparation, warn=warn)[0]


def read_placed(
    content: bytes,
    name: str,
    *,
    size: tuple[int, ...],
    channels: int,
    preparation: Preparation,
    warn: Warn = lambda text: None,
    on: Grid | None = None,
) -> tuple[np.ndarray, Grid]:
    """As `read_image`, and where the file's pixels lie. Where it lies on another, `on`, distances are that one's, not its own."""
    decoded = decode(content, name, sides=len(size), channels=channels)
    if decoded is None:
        flat = (size[0], size[1])
        return read_picture(
            content, size=flat, channels=channels, preparation=preparation, warn=warn, spacing=on.spacing if on else None
        )
    decoded = decoded if on is None else replace(decoded, spacing=on.spacing)
    return prepared(decoded, size=size, channels=channels, preparation=preparation, warn=warn), decoded.grid


def decode(content: bytes, name: str, *, sides: int, channels: int) -> Decoded | None:
    """The numbers of a file, before anything is done to them; None for a picture that Pillow reads, see `read_picture`.

    Args:
        content: the file's bytes.
        name: its name.
        sides: of the model's images, 2 or 3.
        channels: of the model's images.

    Raises:
        UnusableImage: the file cannot be used.
        ImportError: the library that reads such files is not installed.
    """
    if is_pointer(content):
        raise UnusableImage(POINTER)
    reader = READERS.get(ending(name))
    if reader is None and is_dicom(content):
        reader = dicom.decode
    if reader is None and content[:4] in tiffs.MARKS and needs_more(content, sides=sides, channels=channels):
        reader = tiffs.decode
    if reader is not None:
        return reader(content, name, sides=sides, channels=channels)
    if sides == 3:
        raise UnusableImage("is a picture, and the model's images are volumes: give DICOM, NIfTI, TIFF of several pages, or .npy")
    if channels not in (1, 3, 4):
        raise UnusableImage(
            f"is an image file, but the model has {channels} channels: give .npy arrays of shape ({channels}, h, w)"
        )
    return None


def values_of(content: bytes, name: str, *, sides: int, channels: int) -> Decoded | None:
    """As `decode`, but with the numbers of pictures of more than 8 bits too; None where 8 bits are 0..255, whatever the range."""
    decoded = decode(content, name, sides=sides, channels=channels)
    return decode_deep(content) if decoded is None else decoded


def meaning(content: bytes, name: str, *, size: tuple[int, ...], channels: int, preparation: Preparation) -> str:
    """What is read out of a file, and with which meaning, in one line: `1 channel, 16 bit, range -1024..3071 -> [-1, 1]`.

    Arguments and errors are those of `read_image`.
    """
    decoded = values_of(content, name, sides=len(size), channels=channels)
    num = f"{channels} channel{'s' if channels != 1 else ''}"
    if decoded is None:
        return f"{num}, 8 bit, range 0..255 -> [-1, 1]"
    kind = decoded.values.dtype
    limits = list(dict.fromkeys(limits_for(decoded, preparation)))
    ranges = " ".join(f"{low:g}..{high:g}" for low, high in limits)
    spaced = () if decoded.spacing is None else (f"spacing {' x '.join(f'{s:g}' for s in decoded.spacing)}",)
    bits = f"{8 * kind.itemsize} bit{' floating point' if kind.kind == 'f' else ''}"
    notes = [note.removeprefix("of ") for note in decoded.notes]
    return ", ".join([num, bits, f"range {ranges} -> [-1, 1]", *spaced, *decoded.meant, *notes])
