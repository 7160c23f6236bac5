"""Images as arrays, in .npy files, and volumes as this package hands them on."""

import io
import json
import math

import numpy as np

from diffae.data.images.decoded import Decoded, limits_of, native
from diffae.data.images.files import UnusableImage

PACKED = ".series"
"""How the names of volumes end that are put together out of several files: see `packed`."""


def decode(content: bytes, name: str, *, sides: int, channels: int) -> Decoded:
    """A .npy file: (channels, *sides), or (*sides) for one channel. Floats are in [-1, 1], unless a range says otherwise."""
    try:
        array = _load(content)
        if array.dtype.hasobject:
            raise ValueError("it holds objects")
    except MemoryError:
        raise
    except Exception as error:  # Readers raise anything on damaged files.
        raise UnusableImage(f"is no readable .npy array ({error})") from None
    shape = array.shape
    if array.ndim == sides and channels == 1:
        array = array[None]
    if array.ndim != sides + 1 or len(array) != channels:
        raise UnusableImage(f"has shape {shape}, the model wants ({channels}, {'d, ' if sides == 3 else ''}h, w)")
    array = native(array)
    limits = (-1.0, 1.0) if np.issubdtype(array.dtype, np.floating) else limits_of(array.dtype)
    return Decoded(values=array, limits=limits)


def packed(decoded: Decoded) -> bytes:
    """What was decoded, as bytes that `unpacked` reads: a line of JSON, its values as .npy, and its padding, if any."""
    values = _npy(decoded.values)
    said = {
        "length": len(values),
        "limits": decoded.limits,
        "spacing": decoded.spacing,
        "placed": decoded.placed,
        "window": decoded.window,
        "turned": decoded.turned,
        "colours": decoded.colours,
        "meant": decoded.meant,
        "notes": decoded.notes,
    }
    padding = b"" if decoded.padding is None else _npy(decoded.padding)
    return json.dumps(said).encode() + b"\n" + values + padding


def unpacked(content: bytes, name: str, *, sides: int, channels: int) -> Decoded:
    """Reads what `packed` made."""
    try:
        line, _, rest = content.partition(b"\n")
        said = json.loads(line)
        length = said.pop("length")
        said = {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}
        padding = _load(rest[length:]) if len(rest) > length else None
        return Decoded(values=native(_load(rest[:length])), padding=padding, **said)
    except (ValueError, TypeError, KeyError) as error:
        raise UnusableImage(f"is no volume that this package put together ({error})") from None


def _npy(array: np.ndarray) -> bytes:
    """An array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def _load(content: bytes) -> np.ndarray:
    """An array out of the bytes of a .npy file, if it is whole; looked at before memory is taken for it.

    Raises:
        ValueError: the header promises more than the file holds, or it holds objects.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    if math.prod(shape) * kind.itemsize > len(content) - file.tell() and not kind.hasobject:
        raise ValueError(f"shape {shape} of {kind} in {len(content):,} bytes: it is cut short")
    return np.load(io.BytesIO(content), allow_pickle=False)
