"""Classes: a column whose values are names becomes a column of 0 and 1 for each of them, since classes have no order."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_CLASSES = 100
"""Classes become one attribute each, up to so many; with more they are left out."""
FEW = 20
"""Text, or whole numbers, with at most so many values may be classes."""


class ClassName(str):
    """A cell that names a class whatever it looks like, such as `none` or `01`: sources write it where they know."""

    __slots__ = ()


def class_columns(name: str, cells: Sequence[str | None]) -> dict[str, np.ndarray]:
    """A column of 0 and 1 for each class, called `NAME=CLASS`, in the order of their names (numbers in that of numbers).

    Args:
        name: of the column.
        cells: (n,) the class of each row, or None where unknown, which is NaN in all columns.

    Raises:
        ValueError: there is only one class, or more than `MOST_CLASSES`.
    """
    known = {cell for cell in cells if cell is not None}
    if not 2 <= len(known) <= MOST_CLASSES:
        raise ValueError(f"{name} cannot be taken for classes: it has {len(known)} values, where 2 to {MOST_CLASSES} can be.")
    numbered = all(text.removeprefix("-").isdecimal() for text in known)
    order = sorted(known, key=lambda text: (int(text), text)) if numbered else sorted(known)
    place = {text: i for i, text in enumerate(order)}
    own = np.array([-1 if cell is None else place[cell] for cell in cells])
    return {f"{name}={text}": np.where(own < 0, np.nan, own == i) for i, text in enumerate(order)}


def classes_of_numbers(name: str, y: np.ndarray) -> dict[str, np.ndarray]:
    """`class_columns` of whole numbers (n,), NaN where unknown.

    Raises:
        ValueError: as there, or a number is not whole.
    """
    known = y[~np.isnan(y)]
    if len(broken := known[known % 1 != 0]):
        raise ValueError(f"{name} cannot be taken for classes: {broken[0]:g} is no whole number.")
    return class_columns(name, [None if np.isnan(v) else str(int(v)) for v in y])


def may_be_classes(cells: Sequence[str | None]) -> bool:
    """Whether text says classes without being asked: up to `FEW` different ones, each at least twice. Names of files, dates and
    remarks are not of that kind."""
    counts = Counter(cell for cell in cells if cell is not None)
    return 2 <= len(counts) <= FEW and min(counts.values()) > 1


def as_classes(cells: Sequence[Any]) -> list[str | None] | None:
    """The cells of a column whose source knows that they are classes, see `ClassName`; None of any other column."""
    known = [cell for cell in cells if cell is not None]
    return list(cells) if known and all(isinstance(cell, ClassName) for cell in known) else None
