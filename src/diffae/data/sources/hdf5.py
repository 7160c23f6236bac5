"""Arrays in HDF5 files."""

from pathlib import Path
from typing import Any

import numpy as np

from diffae.data.sources.layout import Array
from diffae.runtime.files import first_line, pointer_or


def hdf5_arrays(path: Path) -> tuple[dict[str, Array], list[str]]:
    """The datasets of an HDF5 file, and the attributes of arrays of images, or of their group, that have a value for each image.

    Returns:
        Path in the file -> array, and notes about datasets that hold neither numbers nor text.

    Raises:
        ImportError: h5py is not installed.
        ValueError: the file is damaged.
    """
    try:
        import h5py
    except ImportError:
        raise ImportError(f"Reading {path} needs h5py: pip install 'diffae[science]'.") from None
    found: dict[str, Array] = {}
    attributes: dict[str, Array] = {}
    odd: list[str] = []

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        text = h5py.check_string_dtype(item.dtype)
        if item.shape and (text is not None or item.dtype.kind in "buif"):
            found[name] = item if text is None else Texts(item)
            if len(item.shape) > 2:
                folder = item.parent.name.strip("/")
                for key, value in _values([item.parent, item], item.shape[0]):
                    attributes[f"{folder}/{key}" if folder else key] = value
        else:
            odd.append(name)

    try:
        file = h5py.File(path, "r")
        file.visititems(visit)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        what = pointer_or(path, f"is no readable HDF5 file ({first_line(error)})")
        raise ValueError(f"{path} {what}. It may be cut short: copy it again.") from None
    return attributes | found, [f"{path}: {', '.join(odd)} were left out: only arrays of numbers and text are read."] if odd else []


class Texts:
    """A dataset of text, as NumPy's text.

    Attributes:
        shape: of the dataset.
        dtype: NumPy's text, of no length.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype = np.dtype(str)

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        return np.asarray(self.dataset.asstr()[rows], dtype=str)


def _values(holders: list[Any], num: int) -> list[tuple[str, np.ndarray]]:
    """Attributes with a value for each of `num` images."""
    found = []
    for holder in holders:
        for key, value in holder.attrs.items():
            array = np.asarray(value)
            array = array.astype(str) if array.dtype.kind == "O" and all(isinstance(v, str) for v in array.flat) else array
            if array.ndim in (1, 2) and len(array) == num and array.dtype.kind in "buifUS":
                found.append((key, array))
    return found
