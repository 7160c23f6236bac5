"""Images in the rows of arrays: NumPy's .npz, HDF5 and Zarr."""

import io
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffae.data.images import UnusableImage
from diffae.data.sources.columns import Columns
from diffae.data.sources.layout import Array, Axes, Part, arranged, axes_of, described_rows, parts_of
from diffae.runtime.files import first_line, is_the_systems

BLOCK = 2**24
"""Bytes that are read at once, of arrays that are not stored in pieces of their own."""
OPEN = 2**28
"""Bytes of blocks that stay in memory: images are read in order, by a few threads. The last two always stay."""


class Arrays:
    """All images in the rows of arrays; the attributes are those of `Folder`.

    `layout.parts_of` says which array holds them, `layout.axes_of` how they lie, and `notes` what was found. Names are
    `train/00017.npy`, or `00017.npy` in a file without parts. Other arrays of the same length with one value each are labels, an
    array `group` among them; an array of 0 and 1 with several values each becomes a column for each, `NAME_0` and so on.

    Args:
        arrays: name -> array.
        path: where they come from.
        holders: the files that hold them.

    Raises:
        ValueError: no array of images, or several that could be it.
    """

    def __init__(self, arrays: Mapping[str, Array], path: Path, holders: Sequence[Path]) -> None:
        self.arrays, self.path = arrays, path
        self.notes: list[str] = []
        self.others = 0
        self.holders = list(holders)
        parts = parts_of(arrays, path)
        self.places: dict[str, tuple[str, Axes, int]] = {}
        self._columns = Columns(arrays, parts, path)
        self._rows: list[Mapping[str, Any]] | None = None
        self._open: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        for part in parts:
            self._list(part)
        self.names = list(self.places)

    def read(self, name: str) -> bytes:
        """The image as a .npy file of shape (c, h, w) or (c, d, h, w); may be called from several threads.

        Raises:
            OSError: the file is damaged there, or a bomb.
            MemoryError: the piece of the file that holds it does not fit in memory.
        """
        key, axes, row = self.places[name]
        length = self._length(key)
        block = self._block(key, row // length, length)
        buffer = io.BytesIO()
        np.save(buffer, arranged(block[row % length], axes), allow_pickle=False)
        return buffer.getvalue()

    def label_rows(self) -> list[Mapping[str, Any]]:
        """A label table, as `labels.align` takes it. What was left out is said in `notes`."""
        if self._rows is None:
            self._rows = self._columns.rows(self.names, self.notes)
        return self._rows

    def _list(self, part: Part) -> None:
        """Names the images of a part, and says what was taken."""
        array = self.arrays[part.key]
        axes = axes_of(array.shape[1:], part.key, self.path)
        digits = max(5, len(str(array.shape[0] - 1)))
        prefix = f"{part.name.lower()}/" if part.name else ""
        for row in range(array.shape[0]):
            self.places[f"{prefix}{row:0{digits}d}.npy"] = (part.key, axes, row)
        channels = self._columns.channels(part, array.shape[-1] if axes == "last" else array.shape[1])
        what = described_rows(array.shape[0], array.shape[1:], axes, channels)
        kept = " Yes and no are 255 and 0." if array.dtype == bool else ""
        self.notes.append(f"{self.path}: {part.key} {tuple(array.shape)} was taken for {what}.{kept}")

    def _length(self, key: str) -> int:
        """How many rows are read at once: those of one stored piece, or about `BLOCK` bytes."""
        array = self.arrays[key]
        pieces = getattr(array, "chunks", None)
        row = max(1, int(np.prod(array.shape[1:])) * array.dtype.itemsize)
        return int(pieces[0]) if pieces else max(1, BLOCK // row)

    def _block(self, key: str, number: int, length: int) -> np.ndarray:
        with self._lock:
            found = self._open.pop((key, number), None)
            if found is None:
                try:
                    found = np.asarray(self.arrays[key][number * length : (number + 1) * length])
                except MemoryError:
                    shape, dtype = (length, *self.arrays[key].shape[1:]), self.arrays[key].dtype
                    raise MemoryError(
                        f"{self.path}: {key} is stored in pieces of {shape} of {dtype}, and one does not fit in "
                        "memory. Save it uncompressed (numpy.savez), or in smaller pieces (chunks of HDF5 or Zarr)."
                    ) from None
                except UnusableImage as error:
                    raise OSError(f"lies in {key}, which {error}") from None
                except Exception as error:  # Decompressors raise anything on damaged files.
                    if is_the_systems(error):
                        raise
                    raise OSError(f"is damaged in {key} ({first_line(error)})") from None
            self._open[key, number] = found
            while len(self._open) > 2 and sum(block.nbytes for block in self._open.values()) > OPEN:
                self._open.popitem(last=False)
        return found
