"""TIFF of any number of channels, pages and types: of microscopes (OME-TIFF, ImageJ) and satellites (GeoTIFF)."""

import io
import re
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from diffae.data.images.decoded import Decoded, arranged, limits_of, native, turned_over
from diffae.data.images.files import UnusableImage, check_unpacked

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

NODATA = 42113
"""The tag by which GDAL marks the value of pixels that hold no data."""
ORIENTATION, ASIDE = 274, (5, 6, 7, 8)
"""The tag that says how an image lies, as EXIF does, and the numbers there of what lies on its side."""
MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How TIFF and BigTIFF begin."""


def decode(content: bytes, name: str, *, sides: int, channels: int) -> Decoded:
    """A TIFF file: the first of its series of pages.

    Where the file names its axes, its channels are channels and its slices slices. Pages that it does not name are channels where
    the model has so many of them, and slices where its images have three sides; else the first is taken. Whole numbers of which
    white is said to be 0 are turned over, and what says that it does not lie upright is turned upright.
    """
    try:
        from tifffile import TiffFile
    except ImportError:
        raise ImportError("Reading TIFF of many channels or pages needs tifffile: pip install 'diffae[science]'.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with TiffFile(io.BytesIO(content)) as file:
                series = file.series[0]
                _check_whole(series, len(content))
                return _decoded(file, series, sides=sides, channels=channels)
    except (UnusableImage, MemoryError, ImportError):
        raise
    except Exception as error:  # Readers raise anything on damaged files.
        if "requires the 'imagecodecs' package" in str(error) and find_spec("imagecodecs") is None:
            raise ImportError(f"Reading this TIFF needs imagecodecs ({_first(error)}): pip install 'diffae[science]'.") from None
        raise UnusableImage(f"is damaged, cut short, or packed in a way that is not known ({_first(error)})") from None


def _decoded(file: "TiffFile", series: "TiffPageSeries", *, sides: int, channels: int) -> Decoded:
    axes = "".join(axis if axis in "YXZCTS" else "P" for axis in series.axes)
    values = series.asarray()
    values, axes = _once(values, axes)
    page: Any = series.keyframe
    limits, turned = limits_of(values.dtype), page.photometric == 0 and values.dtype.kind == "u"
    colours = page.photometric in (2, 6) and "S" in series.axes and values.shape[axes.index("C")] == 3
    if page.photometric == 3:
        raise UnusableImage("has a palette of colours, and several pages or more than two sides: save it as RGB")
    values, notes = arranged(native(values), axes, sides=sides, channels=channels)
    gaps = _gaps(page, values)
    if len(file.series) > 1:
        notes = (*notes, f"of {len(file.series)} series of pages, of which the first was taken")
    if turned:
        values, limits = turned_over(values, limits)
    lies = page.tags.get(ORIENTATION)
    exif, spacing = lies.value if lies and lies.value in range(1, 9) else 1, _spacing(file, sides)
    return Decoded(
        values=_upright(values, exif),
        limits=limits,
        spacing=(*spacing[:-2], spacing[-1], spacing[-2]) if spacing and exif in ASIDE else spacing,
        exif=exif,
        gaps=None if gaps is None else _upright(gaps, exif),
        turned=turned,
        colours=colours,
        meant=("white is 0, turned over",) if turned else (),
        notes=notes,
    )


def _once(values: np.ndarray, axes: str) -> tuple[np.ndarray, str]:
    """Samples, and pages that stand for channels, as one axis C; pages of several axes as one axis P."""
    for letter, of in (("C", "CS"), ("P", "P")):
        found = [i for i, axis in enumerate(axes) if axis in of]
        if not found:
            continue
        rest = [i for i in range(len(axes)) if i not in found]
        values = values.transpose(found + rest).reshape(-1, *(values.shape[i] for i in rest))
        axes = letter + "".join(axes[i] for i in rest)
    return values, axes


def _upright(values: np.ndarray, exif: int) -> np.ndarray:
    """Values (..., h, w) of a file that says how it lies, 1..8, turned so that its first row is above and its first column left."""
    if exif in ASIDE:
        values = values.swapaxes(-1, -2)
    values = values[..., ::-1, :] if exif in (3, 4, 7, 8) else values
    return values[..., ::-1] if exif in (2, 3, 6, 7) else values


def _check_whole(series: "TiffPageSeries", length: int) -> None:
    """Refuses what would be read as zeros, or take more memory than such a file can need.

    Raises:
        UnusableImage: a piece of a page is not there.
    """
    check_unpacked(series.nbytes, length)
    for page in series.pages:
        if page is None:
            raise UnusableImage("is damaged: a page is not there")
        pieces: Any = page
        for offset, count in zip(pieces.dataoffsets, pieces.databytecounts, strict=True):
            if count <= 0 or offset + count > length:
                raise UnusableImage("is damaged or cut short: a piece of a page is not there")
    key: Any = series.keyframe
    if (
        key.compression == 1
        and sum(sum(page.databytecounts) for page in series.pages if page) * 8 < series.size * key.bitspersample
    ):
        raise UnusableImage("is damaged or cut short: its pages are longer than what is there")


def _gaps(page: Any, values: np.ndarray) -> np.ndarray | None:
    """Where values are those that the file marks as no data.

    Raises:
        UnusableImage: what marks them is no number.
    """
    tag = page.tags.get(NODATA)
    if tag is None:
        return None
    try:
        marked = float(str(tag.value).strip("\0 "))
    except ValueError:
        raise UnusableImage(f"marks gaps by {tag.value!r} (GDAL_NODATA), which is no number") from None
    return None if np.isnan(marked) else values == np.asarray(marked).astype(values.dtype) if _holds(values, marked) else None


def _holds(values: np.ndarray, marked: float) -> bool:
    """Whether values of this type can be that number at all."""
    if values.dtype.kind == "f":
        return True
    info = np.iinfo(values.dtype)
    return marked.is_integer() and info.min <= marked <= info.max


def _spacing(file: "TiffFile", sides: int) -> tuple[float, ...] | None:
    """How far apart slices, rows and columns of a volume are, in one unit, where OME or ImageJ says it."""
    if sides != 3:
        return None
    if file.is_ome and file.ome_metadata:
        sizes = {a: re.search(rf'PhysicalSize{a}="([^"]+)"', file.ome_metadata) for a in "ZYX"}
        units = {(m[1] if (m := re.search(rf'PhysicalSize{a}Unit="([^"]+)"', file.ome_metadata)) else "µm") for a in "ZYX"}
        found = [float(m[1]) for m in sizes.values() if m]
        return tuple(found) if len(found) == 3 and len(units) == 1 and min(found) > 0 else None
    between = float((file.imagej_metadata or {}).get("spacing") or 0)
    tags: Any = file.pages[0]
    steps = [tags.tags.get(name) for name in ("YResolution", "XResolution")]
    if between <= 0 or not all(steps):
        return None
    y, x = (tag.value[1] / tag.value[0] if tag.value[0] else 0.0 for tag in steps)
    return (between, y, x) if y > 0 and x > 0 else None


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
