"""From the numbers of a file to what a model sees: their range, a box of them, the model's size and channels."""

from collections.abc import Sequence

import numpy as np

from diffae.config import Preparation
from diffae.data.images.crops import box_of, sides_text
from diffae.data.images.decoded import Decoded
from diffae.data.images.files import UnusableImage, Warn
from diffae.data.images.resizing import mark_resized, resized
from diffae.data.images.values import mapped, unknown

ASK_MASK = "leave them out with --data.mask gaps"
PADDED = "filled up by the scanner (PixelPaddingValue), and that was read as values like others: leave it out with --data.mask gaps"
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey, as Pillow has them."""


def prepared(decoded: Decoded, *, size: tuple[int, ...], channels: int, preparation: Preparation, warn: Warn) -> np.ndarray:
    """Maps, crops and resizes what was decoded; arguments, result and errors are those of `read_image`."""
    for note in decoded.notes:
        warn(note)
    gaps = unknown(decoded, padding=preparation.mask == "gaps")
    if decoded.padding is not None and preparation.mask != "gaps":
        warn(PADDED)
    if gaps is not None and preparation.mask != "gaps":
        wrong = int(gaps.sum())
        finite = np.isfinite(decoded.values).all()
        what = "marked as no data" if finite else "not finite (NaN or infinite)"
        raise UnusableImage(f"has {wrong} values that are {what}: {ASK_MASK}")
    if gaps is not None and gaps.all():
        raise UnusableImage("has no values at all, only gaps")
    values, kind = mapped(decoded, preparation, gaps, warn)
    if decoded.colours and channels == 1:
        values = np.tensordot(np.array(GREY, np.float32), values, axes=1)[None]
        gaps = None if gaps is None else np.any(gaps, axis=0, keepdims=True)
    box = box_of(decoded.sides, size=size, crop=preparation.crop, spacing=decoded.spacing)
    most = np.iinfo(kind).max
    made: np.ndarray = np.stack([np.clip(np.rint(resized(band, size, box)), 0, most) for band in values]).astype(kind)
    made = _with_channels(made, decoded, channels)
    if preparation.mask != "gaps":
        return made
    marked = None if gaps is None else mark_resized(np.any(gaps, axis=0), size, box)
    if marked is not None and marked.all():
        raise UnusableImage(f"has gaps in what every pixel is made of, at {sides_text(size)} pixels, so nothing of it counts")
    return with_known(made, marked)


def with_known(images: np.ndarray, gaps: np.ndarray | None) -> np.ndarray:
    """Images (c, *sides) with one channel more, the last: the type's largest value where all is known, 0 in gaps (*sides)."""
    known = np.full_like(images[:1], np.iinfo(images.dtype).max)
    if gaps is not None:
        known[:, gaps] = 0
    return np.concatenate([images, known])


def _with_channels(values: np.ndarray, decoded: Decoded, channels: int) -> np.ndarray:
    """One channel as a grey of three, and an opaque fourth; others have to be as many as the model's.

    Raises:
        UnusableImage: they are not.
    """
    num = len(values)
    if num == channels:
        return values
    if num == 1 and channels in (3, 4):
        values = np.broadcast_to(values, (3, *values.shape[1:]))
    if channels == 4 and (num == 1 or decoded.colours):
        return np.concatenate([values, np.full_like(values[:1], np.iinfo(values.dtype).max)])
    if len(values) == channels:
        return np.ascontiguousarray(values)
    raise UnusableImage(f"has {num} channels of {_by(decoded.sides)}, and the model's images have {channels}")


def _by(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))
