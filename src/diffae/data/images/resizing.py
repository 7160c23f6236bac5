"""A box of an image, brought to the model's size: pictures by Lanczos, volumes linearly, neither with aliasing."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from diffae.data.images.crops import Box

LANCZOS, LINEAR = 3.0, 1.0
"""How far the filters of pictures and of volumes reach, in pixels of the coarser grid."""


def resized_picture(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    """A box of a picture, resized to a height and width."""
    (upper, lower), (left, right) = box
    edges = (left, upper, right, lower)
    if _is_whole(box):
        # Cut out first: the filter would look at pixels beyond the box's edge.
        image, edges = image.crop((int(left), int(upper), int(right), int(lower))), (0, 0, right - left, lower - upper)
    return image.resize((size[1], size[0]), Image.Resampling.LANCZOS, box=edges)


def resized(values: np.ndarray, size: tuple[int, ...], box: Box) -> np.ndarray:
    """A box of one channel, (h, w) or (d, h, w), float32, resized; exact where the box has the same whole sides as the size."""
    if len(size) == 2:
        return np.asarray(resized_picture(Image.fromarray(values), (size[0], size[1]), box))
    values, box = _cut(values, box)
    # What shrinks most comes first: least work is left for the others.
    for axis in sorted(range(3), key=lambda i: size[i] / values.shape[i]):
        if size[axis] != values.shape[axis] or box[axis] != (0, values.shape[axis]):
            weights = np.clip(1 - np.abs(_distances(values.shape[axis], size[axis], box[axis])), 0, None)
            weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
            values = np.moveaxis(np.tensordot(weights, values, axes=(1, axis)), 0, axis)
    return values


def mark_resized(marked: np.ndarray, size: tuple[int, ...], box: Box) -> np.ndarray:
    """Where a resized image is made of any pixel that is marked.

    Args:
        marked: (h, w) or (d, h, w), bool.
        size: as many sides.
        box: that is resized.
    """
    marked, box = _cut(marked, box)
    for axis in range(len(size)):
        if size[axis] != marked.shape[axis] or box[axis] != (0, marked.shape[axis]):
            reach = LANCZOS if len(size) == 2 else LINEAR
            near = np.abs(_distances(marked.shape[axis], size[axis], box[axis])) < reach
            found = np.tensordot(near.astype(np.float32), marked.astype(np.float32), axes=(1, axis)) > 0
            marked = np.moveaxis(found, 0, axis)
    return marked


def _is_whole(box: Box) -> bool:
    return all(float(edge).is_integer() for side in box for edge in side)


def _cut(values: np.ndarray, box: Box) -> tuple[np.ndarray, Box]:
    if not _is_whole(box):
        return values, box
    values = values[tuple(slice(int(low), int(high)) for low, high in box)]
    return values, tuple((0.0, float(n)) for n in values.shape)


def _distances(num: int, out: int, edges: Sequence[float]) -> np.ndarray:
    """How far each of `num` pixels is from the centre of each of `out`, (out, num), in pixels of the coarser of the two grids."""
    low, high = edges
    scale = (high - low) / out
    centres = low + (np.arange(out) + 0.5) * scale
    return (np.arange(num)[None] + 0.5 - centres[:, None]) / max(scale, 1.0)
