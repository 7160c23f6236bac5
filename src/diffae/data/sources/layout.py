"""Files of arrays: which array holds images, how its axes lie, and which arrays are labels."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from diffae.data.sources.parts import PARTS

Axes = Literal["plane", "volume", "first", "last"]
"""How one image lies: (h, w), (d, h, w), with channels first, or with channels last."""

IMAGES = ("images", "image", "x", "arr_0", "volumes", "data")
"""What the array of images may be called; the first of these counts."""
SPLIT_KEY = re.compile(rf"(?:(?P<part>{'|'.join(PARTS)})(?:[_/](?P<rest>.+))?|(?P<first>.+)[_/](?P<last>{'|'.join(PARTS)}))", re.I)
"""Keys of the parts of a published split: `train_images`, `train/images`, `x_train`, `train`."""
SHOWN = 8
"""How many arrays a message lists."""


@runtime_checkable
class Array(Protocol):
    """An array in a file: what NumPy, h5py and Zarr have in common. Rows are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Part:
    """An array of images and the arrays beside it.

    Attributes:
        name: of the part of a published split, or empty.
        key: of the array of images.
        other_keys: name -> key, of the other arrays of the same part.
    """

    name: str
    key: str
    other_keys: dict[str, str]


def parts_of(arrays: Mapping[str, Array], path: Path) -> list[Part]:
    """The arrays of images in a file.

    The array is one called as in `IMAGES`, or the only one of three axes or more that has the most rows; in a file of the parts of
    a published split (`train_images`, `x_test`, ...), one in each.

    Raises:
        ValueError: there is none, or several could be it. The message says what the file holds.
    """
    grouped: dict[str, dict[str, str]] = {}
    for key in arrays:
        found = SPLIT_KEY.fullmatch(key)
        name = (found["part"] or found["last"]) if found else ""
        rest = (found["rest"] or found["first"] or "images") if found else key
        grouped.setdefault(name, {})[rest] = key
    images = {name: _images(arrays, own, path) for name, own in grouped.items()}
    for name in [name for name, key in images.items() if name and key is None]:
        # No part of a split, but labels that are called like one, such as `test_result`.
        grouped.setdefault("", {}).update({key: key for key in grouped.pop(name).values()})
    found_in = [name for name, key in images.items() if key and name] or [name for name, key in images.items() if key]
    if not found_in:
        raise ValueError(
            f"{path} has no array of images: numbers of shape (n, h, w), (n, h, w, 3), (n, c, h, w) or (n, d, h, w), such as "
            f"`images`. It holds {listed(arrays)}."
        )
    split = bool(found_in[0])
    if split and any(rest.lower() in IMAGES for rest, key in grouped.get("", {}).items() if key == images.get("")):
        raise ValueError(
            f"{path} holds {images['']} beside {images[found_in[0]]}, and which part of a split the first is nobody says: call it "
            "`train_images`, or save it alone."
        )
    common = grouped.get("", {}) if split else {}
    return [
        Part(name, str(images[name]), {rest: k for rest, k in (common | grouped[name]).items() if k != images[name]})
        for name in found_in
    ]


def axes_of(shape: Sequence[int], key: str, path: Path) -> Axes:
    """How one image of shape (h, w), (h, w, c), (c, h, w), (d, h, w), (d, h, w, c) or (c, d, h, w) lies.

    Channels are the last axis where that has up to four entries, and the first where that has at most a quarter of the others';
    else three axes are a volume.

    Raises:
        ValueError: no image has that shape.
    """
    *before, last = shape
    if len(shape) == 2:
        return "plane"
    if len(shape) in (3, 4):
        if last <= 4 and min(before) >= 2 * last + 2:
            return "last"
        if 4 * shape[0] <= min(shape[1:]):
            return "first"
        if len(shape) == 3:
            return "volume"
    raise ValueError(
        f"{path}: {key} has rows of shape {tuple(shape)}, which are no images. Save (n, h, w), (n, c, h, w) or (n, c, d, h, w)."
    )


def arranged(row: np.ndarray, axes: Axes) -> np.ndarray:
    """One image as (c, h, w), or (c, d, h, w); yes and no as 255 and 0."""
    row = row.astype(np.uint8) * np.uint8(255) if row.dtype == bool else row
    if axes == "last":
        row = np.moveaxis(row, -1, 0)
    return np.ascontiguousarray(row[None] if axes in ("plane", "volume") else row)


def described_rows(num: int, shape: Sequence[int], axes: Axes, channels: Sequence[str] = ()) -> str:
    """What images are, in words: `819 images of 2 channels (protein, DNA), 64 x 64`."""
    sides = list(shape if axes in ("plane", "volume") else shape[1:] if axes == "first" else shape[:-1])
    count = {"plane": 1, "volume": 1, "first": shape[0], "last": shape[-1]}[axes]
    names = f" ({', '.join(channels)})" if len(channels) == count else ""
    what = "volumes" if len(sides) == 3 else "images"
    text = f"{num:,} {what} of {count} channel{'s' * (count > 1)}{names}, {' x '.join(map(str, sides))}"
    if axes == "first" and len(sides) == 2 and count > 4:
        text += "; if these are volumes, save (n, 1, d, h, w)"
    return text


def listed(arrays: Mapping[str, Array]) -> str:
    """The arrays of a file with their shapes."""
    some = ", ".join(f"{key} {tuple(array.shape)} of {array.dtype}" for key, array in list(arrays.items())[:SHOWN])
    return (some or "no array") + (f" and {len(arrays) - SHOWN} more" if len(arrays) > SHOWN else "")


def _images(arrays: Mapping[str, Array], own: Mapping[str, str], path: Path) -> str | None:
    """The key of the array of images among those of a part."""
    fit = {rest: key for rest, key in own.items() if len(arrays[key].shape) > 2 and arrays[key].dtype.kind in "buif"}
    for name in IMAGES:
        if named := [key for rest, key in fit.items() if rest.rsplit("/", 1)[-1].lower() == name]:
            return _only(named, arrays, path)
    most = max((arrays[key].shape[0] for key in fit.values()), default=0)
    longest = [key for key in fit.values() if arrays[key].shape[0] == most]
    return _only(longest, arrays, path) if longest else None


def _only(keys: Sequence[str], arrays: Mapping[str, Array], path: Path) -> str:
    if len(keys) > 1:
        raise ValueError(
            f"{path} has several arrays that could be the images: {listed({key: arrays[key] for key in keys})}. Save one of them "
            "alone, or call it `images`."
        )
    return keys[0]
