"""Image files -> arrays at the training size."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.config import Preparation
from diffae.data.images.arrays import read_array
from diffae.data.images.files import UnusableImage, Warn
from diffae.data.images.pillow import read_picture
from diffae.data.images.values import in_range, too_dark
from diffae.runtime.files import POINTER, is_pointer


def load_images(
    files: Sequence[Path],
    *,
    size: tuple[int, ...],
    channels: int,
    preparation: Preparation,
    warn: Warn = warnings.warn,
) -> Float[Tensor, "n c *sides"]:
    """Image files as a model wants them, in [-1, 1].

    Args:
        files: their paths.
        size: sides of the result.
        channels: see `read_image`.
        preparation: crop, background and range of values: the model's, `ae.preparation`.
        warn: called with a sentence about each file of which only a part was taken, or whose values look wrong.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file cannot be used; the message names it and says why.
    """
    if not files:
        raise ValueError("No image files were given.")
    images = []
    for file in files:
        if not file.is_file():
            advice = " Addresses are not opened: download what is there." if ":/" in file.as_posix() else ""
            raise FileNotFoundError(f"There is no image {file}.{advice}")
        parts: list[str] = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's are about what does not touch the pixels.
                content = file.read_bytes()
                pixels = read_image(content, file.name, size=size, channels=channels, preparation=preparation, warn=parts.append)
        except UnusableImage as error:
            raise ValueError(f"{file} {error}.") from None
        if dark := too_dark(int(pixels.max()) if pixels.dtype == np.uint16 else None, preparation):
            warn(f"{file} has {dark}.")
        for part in parts:
            warn(f"{file} is {part}.")
        images.append(in_range(pixels))
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
        name: its name; `.npy` files hold an array (c, h, w), all others are what Pillow reads.
        size: sides of the result.
        channels: 1, 3 or 4; any number for `.npy`.
        preparation: crop, background and range of values: the model's, `ae.preparation`.
        warn: called where only a part of the file is taken, with words that follow its name.

    Returns:
        (channels, h, w), uint8, or uint16 for images of more than 8 bits. The full range stands for [-1, 1].

    Raises:
        UnusableImage: the file cannot be used; the message says why, without its name.
    """
    if is_pointer(content):
        raise UnusableImage(POINTER)
    if name.lower().endswith(".npy"):
        return read_array(content, size=size, channels=channels, preparation=preparation)
    if channels not in (1, 3, 4):
        raise UnusableImage(
            f"is an image file, but the model has {channels} channels: give .npy arrays of shape ({channels}, h, w)"
        )
    return read_picture(content, size=size, channels=channels, preparation=preparation, warn=warn)
