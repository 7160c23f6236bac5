"""Where on a slide there is tissue."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

CELLS = 16
"""Pixels of the thumbnail along a side of a tile, fewer where the thumbnail would be larger than `LARGEST`."""
LARGEST = 6144
"""Longest side of the thumbnail, in pixels."""
STRIP = 2048
"""Side of the parts in which a level is read, in pixels."""
BOUNDS = (13, 64)
"""Otsu's threshold of saturation, 0..255, is kept between these: a slide that is all glass, or all tissue, has no two kinds of
pixels to be told apart."""
DARKEST = 40
"""Pixels of a smaller value, 0..255, are ink, dust or shadow: their saturation says nothing."""

Read = Callable[[tuple[int, int], int, tuple[int, int]], np.ndarray]
"""Corner at full resolution (x, y), level, (width, height) at that level -> (height, width, 3), uint8."""


def tissue_share(
    downsamples: Sequence[float], sizes: Sequence[tuple[int, int]], read: Read, columns: int, rows: int, tile: int
) -> np.ndarray:
    """The share of each tile that is tissue.

    Glass is grey or white and stained tissue has a colour. So a pixel of the slide's thumbnail is tissue where its saturation,
    (max - min) / max of its channels, is above Otsu's threshold for this slide, kept within `BOUNDS`, and it is not nearly black.

    Args:
        downsamples: of the slide's levels, in respect to the first.
        sizes: (width, height) of the levels.
        read: reads a part of a level.
        columns: of tiles.
        rows: of tiles.
        tile: side of a tile, in pixels at full resolution.

    Returns:
        (rows, columns), 0..1.

    References:
        N. Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on Systems, Man, and Cybernetics 9,
        1979.
    """
    cells = max(1, min(CELLS, tile, LARGEST // max(columns, rows)))
    level = max((i for i, d in enumerate(downsamples) if d <= tile / cells + 1e-6), default=0)
    saturation = np.zeros((rows * cells, columns * cells), np.uint8)
    dark = np.zeros_like(saturation, dtype=bool)
    # A level may be as large as the slide, so it is read a few tiles at a time.
    num = max(1, int(STRIP * downsamples[level] / tile))
    for row in range(0, rows, num):
        for column in range(0, columns, num):
            across, down = min(num, columns - column), min(num, rows - row)
            width, height = (max(1, round(n * tile / downsamples[level])) for n in (across, down))
            part = Image.fromarray(read((column * tile, row * tile), level, (width, height)))
            pixels = np.asarray(part.resize((across * cells, down * cells), Image.Resampling.BOX)).astype(np.float32)
            most, least = pixels.max(axis=2), pixels.min(axis=2)
            place = slice(row * cells, (row + down) * cells), slice(column * cells, (column + across) * cells)
            saturation[place] = np.rint(255 * (most - least) / np.maximum(most, 1))
            dark[place] = most < DARKEST
    tissue = (saturation > np.clip(otsu(saturation[~dark]), *BOUNDS)) & ~dark
    return tissue.reshape(rows, cells, columns, cells).mean(axis=(1, 3))


def otsu(values: np.ndarray) -> int:
    """The threshold that parts numbers 0..255 into two kinds with the largest variance between them, w0 w1 (m0 - m1)^2. Numbers
    above it are of the second kind."""
    counts = np.bincount(values.reshape(-1), minlength=256).astype(np.float64)
    below, above = counts.cumsum(), counts.sum() - counts.cumsum()
    sums = (counts * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return int(np.nan_to_num(between, nan=0.0, posinf=0.0).argmax())
