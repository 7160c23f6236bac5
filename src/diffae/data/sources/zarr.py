"""Arrays in Zarr folders, of version 2 and 3, and in zips of them."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from diffae.data.sources.layout import IMAGES, Array, listed
from diffae.runtime.files import first_line

MARKS = ("zarr.json", ".zgroup", ".zarray")
"""Files that make a folder one of Zarr's."""


def is_zarr(path: Path) -> bool:
    """Whether a path is a Zarr folder, or a zip that is called one."""
    if path.is_dir():
        return any((path / mark).is_file() for mark in MARKS)
    return path.name.lower().endswith(".zarr.zip")


def zarr_arrays(path: Path) -> tuple[dict[str, Array], list[str]]:
    """The arrays of a Zarr folder or zip, and the attributes of arrays of images, or of their group, with a value for each image.

    Returns:
        Path in it -> array, and notes about arrays that hold neither numbers nor text.

    Raises:
        ImportError: zarr is not installed.
        ValueError: it is damaged, it would be unpickled, or it is one picture of OME-Zarr rather than many.
    """
    try:
        import zarr
        from zarr.storage import ZipStore
    except ImportError:
        raise ImportError(f"Reading {path} needs zarr 3: pip install 'diffae[science]'.") from None
    try:
        root = zarr.open(path if path.is_dir() else ZipStore(path, mode="r"), mode="r")
        members = {"images": root} if isinstance(root, zarr.Array) else dict(sorted(root.members(max_depth=None)))
        arrays = {key: member for key, member in members.items() if isinstance(member, zarr.Array)}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no readable Zarr ({first_line(error)}). It may be incomplete: copy it again.") from None
    found: dict[str, Array] = {}
    attributes: dict[str, Array] = {}
    odd: list[str] = []
    for key, array in arrays.items():
        if "pickle" in _codecs(array):
            raise ValueError(f"{path}: {key} is pickled, and nothing is unpickled. Save it as numbers, or as text.")
        if array.shape and array.dtype.kind in "buifUST":
            found[key] = array
            folder, _, _ = key.rpartition("/")
            above = members.get(folder, root)
            if len(array.shape) > 2:
                for name, value in [*_values(above, array.shape[0]), *_values(array, array.shape[0])]:
                    attributes[f"{folder}/{name}" if folder else name] = value
        else:
            odd.append(key)
    attrs: dict[str, Any] = dict(root.attrs)
    if "multiscales" in attrs | dict(attrs.get("ome") or {}) and not any(key.lower() in IMAGES for key in found):
        raise ValueError(
            f"{path} is one picture in several sizes (OME-Zarr), not many images: it holds {listed(found)}. Cut it into tiles or "
            "planes, and save them as an array `images` (n, c, h, w), or as files."
        )
    return attributes | found, [f"{path}: {', '.join(odd)} were left out: only arrays of numbers and text are read."] if odd else []


def _codecs(array: Any) -> str:
    """What an array is encoded with, in small letters."""
    parts = (getattr(array.metadata, name, None) for name in ("filters", "compressor", "codecs"))
    return " ".join(map(str, parts)).lower()


def _values(holder: Any, num: int) -> list[tuple[str, np.ndarray]]:
    """Attributes with a value for each of `num` images."""
    found = []
    for key, value in dict(holder.attrs).items():
        if isinstance(value, list) and len(value) == num and all(isinstance(v, (str, int, float)) for v in value):
            found.append((key, np.array(value)))
    return found
