"""From a data argument to an `ImageSet`: every image is decoded once, to a cache at the training size.

What cannot be used is found here, before training, and named. Afterwards an image is a memory-mapped row.
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from diffae import seeding
from diffae.config import DataConfig
from diffae.data.avatars import SETS, avatars_folder
from diffae.data.dataset import ImageSet, split
from diffae.data.images import UnusableImage, read_image
from diffae.data.labels import load_labels
from diffae.data.sources import Source, open_source
from diffae.files import replacing, write_text

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, number done, number in all)."""


def cache_folder() -> Path:
    """Where rendered and resized images are kept: DIFFAE_CACHE, or `diffae` in the user's cache directory."""
    if "DIFFAE_CACHE" in os.environ:
        return Path(os.environ["DIFFAE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffae"


def prepare(config: DataConfig, *, size: tuple[int, int], channels: int, progress: Progress | None = None) -> ImageSet:
    """The images of a folder, a zip or the avatars, decoded once, with labels and split.

    Args:
        config: what to read and how.
        size: height and width of the model's images.
        channels: of the model's images.
        progress: told how far long work has come.

    Raises:
        FileNotFoundError: no such source or label table.
        ValueError: no usable image, or a label table that cannot be right.
    """
    progress = progress or (lambda what, done, total: None)
    if config.source in SETS:
        root = avatars_folder(cache_folder(), num=config.avatars, size=max(size), progress=progress, name=config.source)
    else:
        root = Path(config.source)
    source = open_source(root)
    names, pixels, skipped = _decoded(source, config, size=size, channels=channels, progress=progress)
    notes = []
    if source.others and config.source not in SETS:
        notes.append(f"{source.others} files in {root} were left alone: their names are not those of images.")
    if skipped:
        listed = "\n".join(f"  {name} {reason}" for name, reason in skipped[:20])
        more = f"\n  and {len(skipped) - 20} more" if len(skipped) > 20 else ""
        notes.append(f"{len(skipped)} of {len(source.names)} images were skipped:\n{listed}{more}")
    if not names:
        raise ValueError(f"None of the images in {root} can be used.\n{notes[-1]}")
    values, groups = {}, None
    table = Path(config.labels) if config.labels else root / "labels.csv"
    if config.labels or table.is_file():
        labels = load_labels(table, names)
        values, groups = labels.values, labels.groups
        for what, files in (("images have no row", labels.missing), ("rows name no image", labels.unused)):
            if files:
                notes.append(f"{table}: {len(files)} {what} ({', '.join(files[:3])}{', ...' if len(files) > 3 else ''}).")
    train, validation = split(names, groups, config.validation)
    key = f"{_key(source, config, size, channels):016x}"
    return ImageSet(
        names=names, pixels=pixels, labels=values, train=train, validation=validation, notes=notes, config=config, key=key
    )


def _key(source: Source, config: DataConfig, size: tuple[int, int], channels: int) -> int:
    """Identifies the files and what is made of them."""
    return seeding.mix("pixels-2", source.fingerprint, *size, channels, config.crop, *config.background)


def _decoded(
    source: Source, config: DataConfig, *, size: tuple[int, int], channels: int, progress: Progress
) -> tuple[list[str], np.ndarray, list[tuple[str, str]]]:
    """Names and pixels of the usable images, and (name, reason) of the others; from the cache where it has them."""
    folder = cache_folder() / "pixels" / f"{size[0]}x{size[1]}x{channels}-{_key(source, config, size, channels):016x}"
    index_file, pixel_file = folder / "index.json", folder / "pixels.npy"
    if not index_file.is_file():
        _decode(source, config, size=size, channels=channels, progress=progress, pixel_file=pixel_file, index_file=index_file)
    index = json.loads(index_file.read_text(encoding="utf-8"))
    pixels = np.load(pixel_file, mmap_mode="r") if index["names"] else np.zeros((0, channels, *size), np.uint8)
    return index["names"], pixels, [(n, r) for n, r in index["skipped"]]


def _decode(
    source: Source,
    config: DataConfig,
    *,
    size: tuple[int, int],
    channels: int,
    progress: Progress,
    pixel_file: Path,
    index_file: Path,
) -> None:
    """Decodes every image into `pixel_file`; the index is written last, so a cache with an index is whole."""

    def read(name: str) -> np.ndarray | str:
        try:
            content = source.read(name)
            return read_image(content, name, size=size, channels=channels, crop=config.crop, background=config.background)
        except UnusableImage as error:
            return str(error)
        except OSError as error:
            return f"cannot be read ({error})"

    shape = (channels, *size)
    names: list[str] = []
    skipped: list[tuple[str, str]] = []
    with replacing(pixel_file) as part, ThreadPoolExecutor(os.cpu_count()) as pool:
        # Depth is known only after the last image, so deep and 8-bit images are brought together at the end.
        with part.open("wb") as file:
            kinds: list[np.dtype] = []
            # Images are read a chunk at a time, so that results never pile up in memory.
            for start in range(0, len(source.names), 1024):
                chunk = source.names[start : start + 1024]
                for name, array in zip(chunk, pool.map(read, chunk), strict=True):
                    if isinstance(array, str):
                        skipped.append((name, array))
                    else:
                        names.append(name)
                        kinds.append(array.dtype)
                        file.write(np.ascontiguousarray(array).tobytes())
                    progress("Reading images", len(names) + len(skipped), len(source.names))
        _as_npy(part, kinds, shape)
    write_text(index_file, json.dumps({"names": names, "skipped": skipped}))


def _as_npy(part: Path, kinds: list[np.dtype], shape: tuple[int, ...]) -> None:
    """Turns a file of concatenated images into one array: uint8, or uint16 where any image has more than 8 bits."""
    kind = np.dtype(np.uint16 if np.dtype(np.uint16) in kinds else np.uint8)
    pixels = int(np.prod(shape))
    raw = part.with_name(part.name + ".raw")
    part.rename(raw)
    try:
        with raw.open("rb") as source, part.open("wb") as target:
            np.lib.format.write_array_header_1_0(
                target, {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (len(kinds), *shape)}
            )
            for own in kinds:
                array = np.frombuffer(source.read(pixels * own.itemsize), own)
                if own != kind:
                    array = array.astype(kind) * 257
                target.write(array.tobytes())
    finally:
        raw.unlink()
