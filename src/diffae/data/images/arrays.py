"""Images as arrays, in .npy files."""

import io
import math

import numpy as np
from PIL import Image

from diffae.config import Preparation
from diffae.data.images.crops import box_of, resized
from diffae.data.images.files import UnusableImage
from diffae.data.images.values import ASK_RANGE, check_finite, extent, in_window


def read_array(content: bytes, *, size: tuple[int, ...], channels: int, preparation: Preparation) -> np.ndarray:
    """A .npy file of shape (channels, h, w), cropped and resized; arguments, result and errors are those of `read_image`.

    It holds uint8, uint16, or floating-point values in [-1, 1]; with `preparation.range`, any numbers.
    """
    try:
        _check_length(content)
        array = np.load(io.BytesIO(content), allow_pickle=False)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    except MemoryError:
        raise
    except Exception as error:  # Readers raise anything on damaged files.
        raise UnusableImage(f"is no readable .npy array ({error})") from None
    if array.ndim != 3 or len(array) != channels:
        raise UnusableImage(f"has shape {array.shape}, the model wants ({channels}, h, w)")
    kind = np.uint8 if array.dtype == np.uint8 else np.uint16
    number = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if array.dtype == np.uint8:
        values = array.astype(np.float32)
    elif array.dtype == np.uint16 or (number and preparation.range is not None):
        values = in_window(array, preparation)
    elif np.issubdtype(array.dtype, np.floating):
        check_finite(array)
        if array.min() < -1 or array.max() > 1:
            raise UnusableImage(f"has values {extent(array)}: floating-point arrays must be in [-1, 1]. {ASK_RANGE}")
        values = (array.astype(np.float32) + 1) * 32767.5
    else:
        raise UnusableImage(f"has type {array.dtype}: give uint8, uint16 or floating-point values in [-1, 1]. {ASK_RANGE}")
    box = box_of(array.shape[2], array.shape[1], size=size, crop=preparation.crop)
    bands = [np.asarray(resized(Image.fromarray(band), size, box)) for band in values]
    return np.clip(np.rint(np.stack(bands)), 0, np.iinfo(kind).max).astype(kind)


def _check_length(content: bytes) -> None:
    """Refuses an array whose header promises more than the file holds, before memory is taken for it.

    Raises:
        ValueError: it does.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    if math.prod(shape) * kind.itemsize > len(content) - file.tell() and not kind.hasobject:
        raise ValueError(f"shape {shape} of {kind} in {len(content):,} bytes: it is cut short")
