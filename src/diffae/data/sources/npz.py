"""Arrays in NumPy's .npz files, without reading them."""

import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from diffae.data.images.files import check_unpacked
from diffae.data.sources.layout import Array
from diffae.runtime.files import first_line, pointer_or


class Packed:
    """A compressed array in a .npz file: it can only be read as a whole, when its first row is asked for.

    Attributes:
        shape: of the array.
        dtype: of the array.
        chunks: the shape of what is read at once: all of it.
    """

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.archive, self.member = archive, member
        self.shape, self.dtype, self.chunks = shape, dtype, shape

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        check_unpacked(self.member.file_size, self.member.compress_size)
        with self.archive.open(self.member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)[rows]


def npz_arrays(path: Path) -> tuple[dict[str, Array], list[str]]:
    """The arrays of a .npz file. Uncompressed ones (`numpy.savez`) are memory-mapped.

    Returns:
        Name -> array, and notes about what is no array of numbers or text.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        archive = zipfile.ZipFile(path)
        found: dict[str, Array] = {}
        odd: list[str] = []
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            with archive.open(info) as file:
                header = _header(file) if info.filename.endswith(".npy") else None
                start = file.tell()
            if header is None or header[2].hasobject or header[2].kind not in "buifUS" or not header[0]:
                odd.append(name)
                continue
            shape, fortran, dtype = header
            if math.prod(shape) * dtype.itemsize != info.file_size - start:
                raise ValueError(f"{name} says {shape} of {dtype}, in {info.file_size - start:,} bytes")
            if info.compress_type == zipfile.ZIP_STORED and info.file_size > start:
                offset = _offset(path, info) + start
                found[name] = np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")
            else:
                found[name] = Packed(archive, info, shape, dtype)
    except MemoryError:
        raise
    except Exception as error:  # Damaged archives raise anything.
        what = pointer_or(path, f"is no readable .npz file ({first_line(error)})")
        raise ValueError(f"{path} {what}. It may be cut short: copy it again.") from None
    return found, [f"{path}: {', '.join(odd)} were left out: only arrays of numbers and text are read, no pickles."] if odd else []


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the bytes of an uncompressed member begin: behind its own header, whose length the directory does not know."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name, extra = struct.unpack("<26xHH", file.read(30))
    return info.header_offset + 30 + int(name) + int(extra)
