"""Images decoded once, at the training size, into a memory-mapped array; with a frozen autoencoder, their latents instead.

They are written in parts, which are joined at the end: any number fits in memory, and an interrupted preparation goes on.
"""

import contextlib
import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffae.config import DataConfig
from diffae.data.companions import CompanionFiles, append_channels
from diffae.data.contents import Progress, check_own
from diffae.data.images import UnusableImage, Warn, meaning, read_placed, too_dark, with_known
from diffae.data.sources import Source
from diffae.runtime.cores import usable_cores
from diffae.runtime.files import InUse, locked, printable, replacing, write_text

Convert = Callable[[np.ndarray], np.ndarray]
"""Images (n, c, *sides) -> what is stored in their place (n, ...)."""

PART_BYTES = 2**27
"""About the bytes of a part's images. An interrupted preparation loses at most the part that it was at."""
FLAT = 0.25
"""Share of what its type can say that a further channel has to fill over all images, or it is said."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """Decodes a source's images to arrays.

    Attributes:
        source: the images.
        config: crop, background and range of values.
        size: sides of the result.
        channels: of the result.
        masks: of the images, where they lie in a folder of their own.
        also: where further channels of the images lie, one in each.
    """

    source: Source
    config: DataConfig
    size: tuple[int, ...]
    channels: int
    masks: CompanionFiles | None = None
    also: Sequence[CompanionFiles] = ()

    @property
    def stored(self) -> int:
        """Channels that are stored: those of the images, and one that says what is known, where not all is."""
        return self.channels + (self.config.mask is not None)

    @property
    def own(self) -> int:
        """Channels that an image's own file has."""
        return self.channels - len(self.also)

    def meaning(self, name: str) -> str:
        """How the files are read, in a line; as of this one. Errors as of `read_image`."""
        content = self.source.read(name)
        return meaning(content, name, size=self.size, channels=self.own, preparation=self.config.preparation)

    def __call__(self, name: str, warn: Warn = lambda text: None) -> np.ndarray | str:
        """(stored, *sides), uint8 or uint16, or why this image cannot be used. May be called from several threads.

        What is returned holds for these bytes, wherever and whenever they are read; what may be gone at the next try is raised.

        Args:
            name: of the image.
            warn: see `read_image`.

        Raises:
            OSError: the system refuses a file that could be read before, see `check_own`.
            ImportError: the library that reads such files is not installed.
        """
        try:
            content = self.source.read(name)
            preparation = self.config.preparation
            found, grid = read_placed(content, name, size=self.size, channels=self.own, preparation=preparation, warn=warn)
            beside: Any = {"size": self.size, "crop": preparation.crop, "image": grid, "warn": warn}
            more = [folder.read(name, **beside) for folder in self.also]
            pixels = append_channels(found[: self.own], more)
            if self.config.mask is None:
                return pixels
            if self.masks is None:
                return with_known(pixels, found[-1] == 0)
            return with_known(pixels, ~self.masks.known(name, **beside))
        except UnusableImage as error:
            return str(error)
        except OSError as error:
            check_own(error, name)
            return f"cannot be read ({error})"


class Cached(NamedTuple):
    """What lies in a folder of the cache.

    Attributes:
        names: of the usable images.
        arrays: theirs, (n, ...).
        skipped: (name, reason) for each of the others.
        remarks: sentences about images of which only a part was taken, or whose values look wrong.
        meaning: how the files were read, in a line; empty where none is usable.
    """

    names: list[str]
    arrays: np.ndarray
    skipped: list[tuple[str, str]]
    remarks: list[str]
    meaning: str


def cached(decode: Decoder, names: Sequence[str], folder: Path, *, convert: Convert | None, progress: Progress) -> Cached:
    """Decodes images into a folder of the cache, unless they are there already.

    Args:
        decode: reads an image.
        names: of the images, in their order.
        folder: in the cache. Its name has to identify everything that the arrays depend on.
        convert: makes what is stored in place of the images, or None.
        progress: called as work goes on.
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
    if (folder / "parts").is_dir():  # Left by a process that died right before its end.
        with contextlib.suppress(InUse), locked(folder, "tidying"):
            shutil.rmtree(folder / "parts", ignore_errors=True)
    index = json.loads(index_file.read_text(encoding="utf-8"))
    arrays = np.load(array_file, mmap_mode="r") if index["names"] else np.zeros((0, decode.stored, *decode.size), np.uint8)
    remarks = [
        f"{num} files are {what} ({printable(first)}{', ...' if num > 1 else ''})." for what, (num, first) in index["told"].items()
    ]
    least, most = index["extent"] or (0, None)
    if dark := too_dark(most, decode.config.preparation, least=least):
        remarks.append(f"The images have {dark}.")
    for also, ends in zip(decode.also, index["also"], strict=True):
        if ends and ends[1] - ends[0] <= FLAT:
            fill = f"values that fill {100 * (ends[1] - ends[0]):.2g} % of what their type can say"
            remarks.append(
                f"The channel of {also.path} has {fill}, nearly one grey to the model: of a mask, write 255 in place of 1."
            )
    return Cached(index["names"], arrays, [(n, r) for n, r in index["skipped"]], remarks, index["meaning"])


def _fill(
    decode: Decoder,
    names: Sequence[str],
    folder: Path,
    convert: Convert | None,
    progress: Progress,
    array_file: Path,
    index_file: Path,
) -> None:
    """Decodes the parts that are missing and joins all. The index is written last, so a cache with an index is whole."""
    parts = folder / "parts"
    length = max(16, min(4096, PART_BYTES // (decode.stored * math.prod(decode.size))))
    starts = range(0, len(names), length)
    with ThreadPoolExecutor(len(usable_cores())) as pool:
        for start in starts:
            if not (parts / f"{start:012d}.json").is_file():
                report = lambda done, start=start: progress("Reading images", start + done, len(names))  # noqa: E731
                _write_part(names[start : start + length], decode, pool, parts / f"{start:012d}.npy", convert, report)
    read = [json.loads((parts / f"{start:012d}.json").read_text(encoding="utf-8")) for start in starts]
    usable = [name for part in read for name in part["names"]]
    files = [parts / f"{start:012d}.npy" for start, part in zip(starts, read, strict=True) if part["names"]]
    if files:
        _join(files, array_file, len(usable))
    remarks: dict[str, tuple[int, str]] = {}
    for name, what in (pair for part in read for pair in part["told"]):
        num, first = remarks.get(what, (0, name))
        remarks[what] = (num + 1, first)
    extents = [part["extent"] for part in read if part["names"]]
    extent = None
    if extents and None not in extents:
        extent = min(least for least, _ in extents), max(most for _, most in extents)
    skipped = [pair for part in read for pair in part["skipped"]]
    meaning = decode.meaning(usable[0]) if usable else ""
    ends = [[part["also"][i] for part in read if part["names"]] for i in range(len(decode.also))]
    also = [(min(least for least, _ in each), max(most for _, most in each)) if each else None for each in ends]
    index = {"names": usable, "skipped": skipped, "told": remarks, "extent": extent, "also": also, "meaning": meaning}
    write_text(index_file, json.dumps(index))
    shutil.rmtree(parts, ignore_errors=True)


def _write_part(
    names: Sequence[str],
    decode: Decoder,
    pool: ThreadPoolExecutor,
    file: Path,
    convert: Convert | None,
    report: Callable[[int], None],
) -> None:
    """Writes one part: the arrays, then their names, so that a part with names is whole."""
    usable: list[str] = []
    skipped: list[tuple[str, str]] = []
    arrays: list[np.ndarray] = []
    remarks: list[tuple[str, str]] = []

    def decoded(name: str) -> np.ndarray | str:
        return decode(name, lambda text: remarks.append((name, text)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's are about what does not touch the pixels.
        for name, array in zip(names, pool.map(decoded, names), strict=True):
            if isinstance(array, str):
                skipped.append((name, array))
            else:
                usable.append(name)
                arrays.append(array)
            report(len(usable) + len(skipped))
    extent, also = None, []
    if arrays:
        stacked = _stacked(arrays)
        most = float(np.iinfo(stacked.dtype).max)
        also = [(c.min() / most, c.max() / most) for c in stacked[:, decode.own : decode.channels].swapaxes(0, 1)]
        seen = stacked[:, : decode.own]
        extent = (int(seen.min()), int(seen.max())) if stacked.dtype == np.uint16 else None
        with replacing(file) as target, target.open("wb") as opened:
            np.save(opened, stacked if convert is None else convert(stacked))
    part = {"names": usable, "skipped": skipped, "told": sorted(remarks), "extent": extent, "also": also}
    write_text(file.with_suffix(".json"), json.dumps(part))


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
    """The type that holds all: uint16 if any has it."""
    return np.dtype(np.uint16) if np.dtype(np.uint16) in kinds else kinds[0]


def _deepened(array: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Values of 8 bits as 16, stretched to the full range; others as they are."""
    return array if array.dtype == kind else array.astype(kind) * np.asarray(257, kind)
