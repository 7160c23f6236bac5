"""From a data argument to an `ImageSet`: every image is decoded once, to a cache at the training size.

What cannot be used is found here, before training, and named. Afterwards an image is a memory-mapped row.
"""

import os
from pathlib import Path

from diffae import seeding
from diffae.config import DataConfig
from diffae.data.avatars import SETS, avatars_folder
from diffae.data.cache import Decoder, Progress, cached
from diffae.data.dataset import ImageSet, split
from diffae.data.labels import Labels, align, load_labels
from diffae.data.shards import Shards
from diffae.data.sources import Source, open_source
from diffae.data.tables import Table


def cache_folder() -> Path:
    """Where rendered and resized images are kept: DIFFAE_CACHE, or `diffae` in the user's cache directory."""
    if "DIFFAE_CACHE" in os.environ:
        return Path(os.environ["DIFFAE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffae"


def prepare(config: DataConfig, *, size: tuple[int, int], channels: int, progress: Progress | None = None) -> ImageSet:
    """The images of a source, decoded once, with labels and split.

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
    key = f"{_key(source, config, size, channels):016x}"
    folder = cache_folder() / "pixels" / f"{size[0]}x{size[1]}x{channels}-{key}"
    names, pixels, skipped = cached(Decoder(source, config, size, channels), source.names, folder, convert=None, progress=progress)
    notes = []
    if source.others and config.source not in SETS:
        notes.append(f"{source.others} files in {root} were left alone: their names are not those of images.")
    if skipped:
        listed = "\n".join(f"  {name} {reason}" for name, reason in skipped[:20])
        more = f"\n  and {len(skipped) - 20} more" if len(skipped) > 20 else ""
        notes.append(f"{len(skipped)} of {len(source.names)} images were skipped:\n{listed}{more}")
    if not names:
        raise ValueError(f"None of the images in {root} can be used.\n{notes[-1]}")
    if isinstance(source, Table) and source.left_out:
        notes.append(f"Columns of {root} that are no numbers were left out: {', '.join(source.left_out)}.")
    values, groups = {}, None
    table = Path(config.labels) if config.labels else root / "labels.csv"
    labels = _labels(source, table, names, asked=config.labels is not None)
    if labels:
        values, groups = labels.values, labels.groups
        for what, files in (("images have no row", labels.missing), ("rows name no image", labels.unused)):
            if files:
                notes.append(f"{table}: {len(files)} {what} ({', '.join(files[:3])}{', ...' if len(files) > 3 else ''}).")
    train, validation = split(names, groups, config.validation)
    return ImageSet(
        names=names, pixels=pixels, labels=values, train=train, validation=validation, notes=notes, config=config, key=key
    )


def _key(source: Source, config: DataConfig, size: tuple[int, int], channels: int) -> int:
    """Identifies the files and what is made of them."""
    return seeding.mix("pixels-2", source.fingerprint, *size, channels, config.crop, *config.background)


def _labels(source: Source, table: Path, names: list[str], *, asked: bool) -> Labels | None:
    """The labels of images: of the table, where it is asked for or there is one, or those that the source itself has."""
    if asked or table.is_file():
        return load_labels(table, names)
    rows = source.label_rows() if isinstance(source, Table | Shards) else []
    if not rows or len(rows[0]) < 2:
        return None
    usable = set(names)
    return align([row for row in rows if row["file"] in usable], names, table)
