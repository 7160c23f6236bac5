"""Images decoded once, at the training size, into a memory-mapped array; with a frozen autoencoder, their latents instead.

Written a part at a time, so that neither memory nor an interruption is a limit, and put together at the end.
"""

import contextlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffae.config import DataConfig
from diffae.data.contents import Progress
from diffae.data.images import Told, UnusableImage, read_image, too_dark
from diffae.data.sources import Source
from diffae.runtime.files import InUse, locked, replacing, shown, write_text

Convert = Callable[[np.ndarray], np.ndarray]
"""From images (n, c, h, w) to what is kept of them (n, ...)."""

PART_BYTES = 2**27
"""About what the images of a part take: an interrupted preparation goes on with the part that it was at."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """How a source's images become arrays.

    Attributes:
        source: where they are.
        config: crop and background.
        size: height and width of the result.
        channels: of the result.
    """

    source: Source
    config: DataConfig
    size: tuple[int, int]
    channels: int

    def __call__(self, name: str, tell: Told = lambda what: None) -> np.ndarray | str:
        """(c, h, w), uint8 or uint16, or why this image cannot be used. May be called from several threads.

        Args:
            name: of the image.
            tell: told what was left of it; see `read_image`.
        """
        try:
            content = self.source.read(name)
            return read_image(content, name, size=self.size, channels=self.channels, preparation=self.config.preparation, tell=tell)
        except UnusableImage as error:
            return str(error)
        except OSError as error:
            return f"cannot be read ({error})"


def cached(
    decode: Decoder, names: Sequence[str], folder: Path, *, convert: Convert | None, progress: Progress
) -> tuple[list[str], np.ndarray, list[tuple[str, str]], list[str]]:
    """Names and arrays of the usable images, (name, reason) of the others, and sentences about what was left of some; from the
    cache where it has them.

    Args:
        decode: reads an image.
        names: of the images, in their order.
        folder: of the cache; its name stands for everything that the arrays depend on.
        convert: what is kept in place of the images themselves.
        progress: told how far it has come.
    """
    index_file, array_file = folder / "index.json", folder / "pixels.npy"
    while not index_file.is_file():
        try:
            with locked(folder, "reading images"):
                if not index_file.is_file():
                    _fill(decode, names, folder, convert, progress, array_file, index_file)
        except InUse:
            progress("Another process reads these images", 0, len(names))
            time.sleep(0.2)
    if (folder / "parts").is_dir():  # Of a process that died when all was done but this.
        with contextlib.suppress(InUse), locked(folder, "tidying"):
            shutil.rmtree(folder / "parts", ignore_errors=True)
    index = json.loads(index_file.read_text(encoding="utf-8"))
    arrays = np.load(array_file, mmap_mode="r") if index["names"] else np.zeros((0, decode.channels, *decode.size), np.uint8)
    remarks = [
        f"{num} files are {what} ({shown(first)}{', ...' if num > 1 else ''})." for what, (num, first) in index["told"].items()
    ]
    if dark := too_dark(index["most"], decode.config.preparation):
        remarks.append(f"The images have {dark}.")
    return index["names"], arrays, [(n, r) for n, r in index["skipped"]], remarks


def _fill(
    decode: Decoder,
    names: Sequence[str],
    folder: Path,
    convert: Convert | None,
    progress: Progress,
    array_file: Path,
    index_file: Path,
) -> None:
    """Decodes what no part holds yet, and joins the parts; the index is written last, so a cache with an index is whole."""
    parts = folder / "parts"
    length = max(16, min(4096, PART_BYTES // (decode.channels * decode.size[0] * decode.size[1])))
    starts = range(0, len(names), length)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in starts:
            if not (parts / f"{start:012d}.json").is_file():
                told = lambda done, start=start: progress("Reading images", start + done, len(names))  # noqa: E731
                _write_part(names[start : start + length], decode, pool, parts / f"{start:012d}.npy", convert, told)
    read = [json.loads((parts / f"{start:012d}.json").read_text(encoding="utf-8")) for start in starts]
    usable = [name for part in read for name in part["names"]]
    files = [parts / f"{start:012d}.npy" for start, part in zip(starts, read, strict=True) if part["names"]]
    if files:
        _join(files, array_file, len(usable))
    remarks: dict[str, tuple[int, str]] = {}
    for name, what in (pair for part in read for pair in part["told"]):
        num, first = remarks.get(what, (0, name))
        remarks[what] = (num + 1, first)
    mosts = [part["most"] for part in read if part["names"]]
    most = max(mosts) if mosts and None not in mosts else None
    index = {"names": usable, "skipped": [s for part in read for s in part["skipped"]], "told": remarks, "most": most}
    write_text(index_file, json.dumps(index))
    shutil.rmtree(parts)


def _write_part(
    names: Sequence[str],
    decode: Decoder,
    pool: ThreadPoolExecutor,
    file: Path,
    convert: Convert | None,
    told: Callable[[int], None],
) -> None:
    """One part: the arrays, then their names, so that a part with names is whole."""
    usable: list[str] = []
    skipped: list[tuple[str, str]] = []
    arrays: list[np.ndarray] = []
    remarks: list[tuple[str, str]] = []

    def decoded(name: str) -> np.ndarray | str:
        return decode(name, lambda what: remarks.append((name, what)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of Pillow, about what does not touch the pixels.
        for name, array in zip(names, pool.map(decoded, names), strict=True):
            if isinstance(array, str):
                skipped.append((name, array))
            else:
                usable.append(name)
                arrays.append(array)
            told(len(usable) + len(skipped))
    most = None
    if arrays:
        stacked = _stacked(arrays)
        most = int(stacked.max()) if stacked.dtype == np.uint16 else None
        with replacing(file) as part, part.open("wb") as opened:
            np.save(opened, stacked if convert is None else convert(stacked))
    write_text(file.with_suffix(".json"), json.dumps({"names": usable, "skipped": skipped, "told": sorted(remarks), "most": most}))


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Images as one array: uint8, or uint16 where any has more than 8 bits."""
    kind = _common([a.dtype for a in arrays])
    return np.stack([_deepened(a, kind) for a in arrays])


def _join(files: Sequence[Path], target: Path, num: int) -> None:
    """Concatenates arrays in files, a file at a time."""
    opened = [np.load(file, mmap_mode="r") for file in files]
    kind = _common([a.dtype for a in opened])
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (num, *opened[0].shape[1:])}
    with replacing(target) as part, part.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for array in opened:
            file.write(_deepened(array, kind).tobytes())


def _common(kinds: Sequence[np.dtype]) -> np.dtype:
    return np.dtype(np.uint16) if np.dtype(np.uint16) in kinds else kinds[0]


def _deepened(array: np.ndarray, kind: np.dtype) -> np.ndarray:
    """8 bits as 16, over the same range."""
    return array if array.dtype == kind else array.astype(kind) * np.asarray(257, kind)
