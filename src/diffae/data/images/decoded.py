"""What a file holds, decoded and not yet prepared: numbers of any kind, and what they mean."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffae.data.images.files import UnusableImage

WORDS = {"Z": "slices", "F": "frames", "P": "pages", "T": "times", "V": "volumes"}
"""Axes beside channels, height and width, in words. In this order one of them is taken as the depth of a volume."""


STORED = "as it is stored"
"""How axes lie that are not turned about in reading."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Where the pixels of a file lie, once they are read. Two files lie on each other, pixel by pixel, if all of it is the same.

    Attributes:
        sides: (h, w) or (d, h, w), in pixels.
        spacing: as of `Decoded`.
        placed: as of `Decoded`.
        exif: as of `Decoded`.
    """

    sides: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    placed: str = STORED
    exif: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """The numbers of one file, as its own library gives them.

    Attributes:
        values: (c, h, w) or (c, d, h, w), integers or floats. The file's channels, which need not be as many as the model's.
        limits: the smallest and the largest value that the file's type, or the bits that it says it stores, can have. None where
            that says nothing, as for floats and for integers of more than 16 bits.
        spacing: distance of neighbours along each side, in millimetres or any one unit; None where the file does not say.
        placed: how its axes lie that were turned about, in words. Kinds of files that differ in it do not lie on each other.
        exif: 1..8, how a picture or TIFF says that it lies; it was turned upright by that.
        window: the smallest and the largest value that the file itself wants shown, or None.
        gaps: (c, *sides), True where the file marks what it holds as no data. What is not finite counts as that anyway.
        padding: (c, *sides), True where it marks what a scanner filled the image up with; None where there is none. These are
            values like others, unless gaps are left out: then they are gaps too.
        turned: whether values were turned over, so that more is brighter: `limits[0] + limits[1] - value`.
        colours: whether three channels are red, green and blue, so that they have a grey.
        meant: what was done to read it, in words, for `meaning`.
        notes: what was left out, in words that follow "is" or "are".
    """

    values: np.ndarray
    limits: tuple[float, float] | None = None
    spacing: tuple[float, ...] | None = None
    placed: str = STORED
    exif: int = 1
    window: tuple[float, float] | None = None
    gaps: np.ndarray | None = None
    padding: np.ndarray | None = None
    turned: bool = False
    colours: bool = False
    meant: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[int, ...]:
        """(h, w) or (d, h, w)."""
        return self.values.shape[1:]

    @property
    def grid(self) -> Grid:
        """Where its pixels lie."""
        return Grid(sides=self.sides, spacing=self.spacing, placed=self.placed, exif=self.exif)


Reader = Callable[..., Decoded]
"""`reader(content, name, *, sides, channels)`: a file's bytes and name, how many sides the model's images have (2 or 3), and how
many channels. Raises UnusableImage, and ImportError where the library that reads it is not installed."""


def limits_of(kind: np.dtype) -> tuple[float, float] | None:
    """The smallest and the largest value of integers of up to 16 bits; None for all others."""
    if np.issubdtype(kind, np.integer) and kind.itemsize <= 2:
        return float(np.iinfo(kind).min), float(np.iinfo(kind).max)
    return None


def ordered(limits: tuple[float, float], slope: float, intercept: float) -> tuple[float, float]:
    """Limits of what is stored -> those of the scaled values, the smaller first."""
    ends = sorted(end * slope + intercept for end in limits)
    return ends[0], ends[1]


def native(values: np.ndarray) -> np.ndarray:
    """Values in this machine's order of bytes.

    Raises:
        UnusableImage: they are no real numbers.
    """
    if not (np.issubdtype(values.dtype, np.integer) or np.issubdtype(values.dtype, np.floating)):
        raise UnusableImage(f"has type {values.dtype}: give whole or floating-point numbers")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def arranged(values: np.ndarray, axes: str, *, sides: int, channels: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Brings the axes of a file to (c, h, w) or (c, d, h, w).

    Args:
        values: of any number of axes.
        axes: a letter for each: X, Y, C for channels, or of `WORDS`, none twice. Pages (P) are the axis whose meaning the file does
            not say: channels, where a flat image of so many is wanted and there are no others.
        sides: 2 or 3; with 3, slices, frames, pages or times are the depth, the first of them that there is.
        channels: of the model's images.

    Returns:
        The values, and what was left out, in words that follow "is" or "are".

    Raises:
        UnusableImage: a volume is wanted, and this is none.
    """
    length = dict(zip(axes, values.shape, strict=True))
    if sides == 3:
        depth = max((a for a in WORDS if a in length), key=lambda a: length[a] > 1, default="")
        if not depth:
            raise UnusableImage("is flat, and the model's images are volumes (d, h, w)")
    else:
        depth = ""
        if channels > 1 and length.get("P") == channels and length.get("C", 1) == 1:
            values, axes = (values.take(0, axes.index("C")), axes.replace("C", "")) if "C" in length else (values, axes)
            axes = axes.replace("P", "C")
    notes = []
    for axis, word in WORDS.items():
        if axis in axes and axis != depth:
            num = length[axis]
            values, axes = values.take(0, axes.index(axis)), axes.replace(axis, "")
            if num > 1:
                notes.append(f"of {num} {word}, of which {num - 1} are left out: the first was taken")
    if "C" not in axes:
        values, axes = values[None], f"C{axes}"
    return values.transpose([axes.index(a) for a in f"C{depth}YX"]), tuple(notes)


def turned_over(values: np.ndarray, limits: tuple[float, float] | None) -> tuple[np.ndarray, tuple[float, float]]:
    """Values of a file in which more is darker, so that more is brighter, and their limits.

    Raises:
        UnusableImage: there are no limits to turn them over by.
    """
    if limits is None:
        raise UnusableImage("says that more is darker, of more than 16 bits, which have no largest value to be turned over by")
    return (limits[0] + limits[1] - values).astype(values.dtype, copy=False), limits
