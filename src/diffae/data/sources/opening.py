"""From a path to the source of images that lies there."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from diffae.data.sources.arrays import Arrays
from diffae.data.sources.folder import Folder
from diffae.data.sources.hdf5 import hdf5_arrays
from diffae.data.sources.hub import HUB
from diffae.data.sources.layout import Array
from diffae.data.sources.lmdb import Lmdb
from diffae.data.sources.names import is_hidden
from diffae.data.sources.npz import npz_arrays
from diffae.data.sources.parquet import Table, table_files
from diffae.data.sources.series import Series
from diffae.data.sources.shards import Shards
from diffae.data.sources.slides import Slides, is_slide, slide_files
from diffae.data.sources.source import Source
from diffae.data.sources.zarr import is_zarr, zarr_arrays
from diffae.data.sources.zip import Zip

KINDS = (
    "a folder of images, a zip or tar of images, a folder of tars (WebDataset), Parquet or Arrow files (Hugging Face `datasets`), "
    f"arrays (.npz, .h5, .zarr), slides (.svs, .ndpi, .mrxs, ...), {HUB}USER/NAME, an LMDB, or the name `avatars`"
)
"""What can be given, in words."""


def open_source(path: Path, *, sides: int = 2, tile: int = 256, least_tissue: float = 0.5) -> Source:
    """The images at a path, in any format of `KINDS`. A folder without image files is searched for tables, then for tars.

    Args:
        path: a file or a folder.
        sides: of the model's images, 2 or 3. With three, DICOM files in a folder are slices of volumes, see `Series`.
        tile: side of the tiles that slides are cut into, in pixels; see `Slides`.
        least_tissue: the share of a tile that has to be tissue, 0..1.

    Raises:
        FileNotFoundError: there is nothing at that path.
        ValueError: the format is not known, or there is no image in it.
        ImportError: the package that reads an LMDB or a table is not installed.
    """
    if re.match(r"\w[\w+.-]+:/", path.as_posix()):
        raise FileNotFoundError(f"{path} is an address, which is not opened: download what is there, and give the file or folder.")
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}. Give {KINDS}.")
    source = _open(path, sides, tile, least_tissue)
    if not source.names:
        found = f"{source.others} other files" if source.others else "no files at all"
        raise ValueError(f"There are no images in {path}: it holds {found}. Any format that Pillow reads will do, nested or not.")
    return source


def _open(path: Path, sides: int, tile: int, least_tissue: float) -> Source:
    kind = path.suffix.lower() if path.is_file() else ""
    if kind == ".npz":
        return _arrays(npz_arrays, path, [path])
    if kind in (".h5", ".hdf5"):
        return _arrays(hdf5_arrays, path, [path])
    if is_zarr(path):
        return _arrays(zarr_arrays, path, [path] if kind else sorted(file for file in path.rglob("*") if file.is_file()))
    if kind in (".mdb", ".lmdb") or (path / "data.mdb").is_file():
        return Lmdb(path)
    if kind in (".parquet", ".arrow"):
        return Table([path], path)
    if kind == ".tar":
        return Shards([path], path)
    if kind == ".zip":
        return Zip(path)
    if is_slide(path):
        return Slides([path], path, tile=tile, least_tissue=least_tissue)
    if path.is_file():
        raise ValueError(f"{path} is no source of images that is known. Give {KINDS}.")
    folder = Folder(path)
    if slides := slide_files(folder):
        source = Slides(slides, path, tile=tile, least_tissue=least_tissue)
        if left := len(set(folder.holders) - set(slides)):
            source.notes.append(f"{left:,} pictures beside the slides in {path} were left alone: give their folder to take them.")
        return source
    if folder.names:
        return Series(path) if sides == 3 and any(map(folder.is_dicom, folder.names)) else folder
    if files := table_files(path):
        return Table(files, path)
    tars = sorted(f for f in path.rglob("*.tar") if f.is_file() and not is_hidden(f.relative_to(path).as_posix()))
    return Shards(tars, path) if tars else folder


def _arrays(read: Callable[[Path], tuple[dict[str, Array], list[str]]], path: Path, holders: Sequence[Path]) -> Arrays:
    arrays, notes = read(path)
    source = Arrays(arrays, path, holders)
    source.notes[:0] = notes
    return source
