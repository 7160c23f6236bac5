"""Labels in files of arrays: those that have a value for each image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffae.data.images import UnusableImage
from diffae.data.labels.classes import MOST_CLASSES, ClassName
from diffae.data.labels.columns import refuse_doubled
from diffae.data.sources.layout import Array, Part
from diffae.runtime.files import is_the_systems

SINGULAR = {"labels": "label", "groups": "group"}
CLASSES = ("label", "class", "target", "y")
"""Whole numbers in columns of these names are classes, unless they are only 0 and 1."""
NAMES = ("names", "classes", "class_names", "label_names", "labels_names", "categories")
"""Arrays of text that name the classes of a label."""


class Columns:
    """The label columns beside arrays of images.

    An array of the same length with one value each is a column; `labels` is called `label`. Whole numbers in `label` that are more
    than 0 and 1 are classes, called by an array of names, such as `class_names`, where there is one; where parts name them each in
    its own way, each part's numbers by its own names. Two axes of 0 and 1 are a column for each. Everything else is left out, with
    a note.

    Args:
        arrays: of the file.
        parts: of the file.
        path: of the file, for messages.
    """

    def __init__(self, arrays: Mapping[str, Array], parts: Sequence[Part], path: Path) -> None:
        self.arrays, self.parts, self.path = arrays, parts, path

    def channels(self, part: Part, num: int) -> list[str]:
        """The names of channels, from an array of so many texts called `channels`; empty where there is none."""
        key = part.other_keys.get("channels")
        texts = self._texts(key) if key else None
        return texts if texts is not None and len(texts) == num else []

    def rows(self, names: Sequence[str], notes: list[str]) -> list[Mapping[str, Any]]:
        """A row for each image, in the order of the parts.

        Raises:
            ValueError: two columns have one name, an array is damaged, or parts name classes each in its own way and one does not.
        """
        found: dict[str, list[Any]] = {}
        left_out: dict[str, str] = {}
        start = 0
        for part in self.parts:
            num = self.arrays[part.key].shape[0]
            own = self._of(part, num, left_out)
            refuse_doubled([name for name, _ in own], f"{self.path}, labels beside {part.key}")
            for name, cells in own:
                found.setdefault(name, [None] * len(names))[start : start + num] = cells
            start += num
        for name in [name for name in found if name in CLASSES]:
            found[name] = self._classes(name, found[name], notes)
        if left_out:
            notes.append(
                f"{self.path}: {', '.join(left_out.values())} were left out: labels are arrays with a value for each image, or "
                "with several of 0 and 1."
            )
        return [dict(zip(["file", *found], row, strict=True)) for row in zip(names, *found.values(), strict=True)]

    def _of(self, part: Part, num: int, left_out: dict[str, str]) -> list[tuple[str, list[Any]]]:
        """The columns of a part: name, and the cells of its rows."""
        found: list[tuple[str, list[Any]]] = []
        for rest, key in part.other_keys.items():
            name = SINGULAR.get(rest.rsplit("/", 1)[-1], rest.rsplit("/", 1)[-1])
            shape, kind = self.arrays[key].shape, self.arrays[key].dtype.kind
            if self._texts(key) is not None and rest in (*NAMES, "channels") and shape[0] != num:
                continue
            if name == "file" or not _is_column(shape, num):
                left_out[key] = f"{key} {tuple(shape)}"
                continue
            values = self._read(key)
            if shape[1:] in ((), (1,)):
                found.append((name, self._texts(key) or values.reshape(-1).tolist()))
            elif kind in "buif" and np.isin(values, (0, 1)).all():
                called = self._class_names(part, shape[1]) or []
                ends = [f"={text}" for text in called] or [f"_{i}" for i in range(shape[1])]
                found += [(f"{name}{end}", values[:, i].tolist()) for i, end in enumerate(ends)]
            else:
                left_out[key] = f"{key} {tuple(shape)}"
        return found

    def _classes(self, name: str, cells: list[Any], notes: list[str]) -> list[Any]:
        """Whole numbers as the classes that they stand for; others as they are."""
        known = {cell for cell in cells if cell is not None}
        if not known or not all(isinstance(cell, int) and not isinstance(cell, bool) for cell in known):
            return cells
        each = [self._class_names(part, None) for part in self.parts]
        named = [texts for texts in each if texts is not None]
        called = named[0] if named else None
        if any(texts != called for texts in named):
            return self._own_classes(name, cells, each)
        if called is not None and min(known) >= 0 and max(known) < len(called):
            return [None if cell is None else ClassName(called[cell]) for cell in cells]
        if called is not None:
            notes.append(f"{self.path}: {name} is {min(known)} to {max(known)}, which {len(called)} names of classes do not fit.")
        if known <= {-1, 0, 1}:
            return cells
        notes.append(
            f"{self.path}: the {len(known)} whole numbers of {name} were taken for classes; if they have an order, say "
            f"--labels-kind {name}=ordinal."
        )
        return [None if cell is None else ClassName(cell) for cell in cells]

    def _own_classes(self, name: str, cells: list[Any], called: Sequence[list[str] | None]) -> list[Any]:
        """Whole numbers as the classes that they stand for in their part."""
        found: list[Any] = []
        for part, texts in zip(self.parts, called, strict=True):
            names = texts or []
            own = cells[len(found) : len(found) + self.arrays[part.key].shape[0]]
            known = [cell for cell in own if cell is not None]
            if known and not 0 <= min(known) <= max(known) < len(names):
                raise ValueError(
                    f"{self.path}: {name} beside {part.key} is {min(known)} to {max(known)}, which its names of classes "
                    f"({len(names) or 'none'}) do not fit, and other parts have others. Save an array `class_names` in each part, "
                    "or one for all."
                )
            found += [None if cell is None else ClassName(names[cell]) for cell in own]
        return found

    def _class_names(self, part: Part, num: int | None) -> list[str] | None:
        """The names of a part's classes; of `num` of them, where that is known."""
        rows = self.arrays[part.key].shape[0]
        for name in NAMES:
            texts = self._texts(part.other_keys[name]) if name in part.other_keys else None
            if texts is not None and len(texts) == len(set(texts)) and (num or len(texts)) == len(texts) != rows:
                return texts
        return None

    def _texts(self, key: str) -> list[str] | None:
        """The text of an array of one axis, or None of any other."""
        array = self.arrays[key]
        if array.dtype.kind not in "UST" or len(array.shape) not in (1, 2) or array.shape[1:] not in ((), (1,)):
            return None
        values = self._read(key).reshape(-1).tolist()
        return [value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value) for value in values]

    def _read(self, key: str) -> np.ndarray:
        try:
            return np.asarray(self.arrays[key][:])
        except MemoryError:
            raise
        except UnusableImage as error:
            raise ValueError(f"{self.path}: {key} {error}. Save it uncompressed (numpy.savez), or leave it out.") from None
        except Exception as error:  # Decompressors raise anything on damaged files.
            if is_the_systems(error):
                raise
            raise ValueError(f"{self.path}: {key} is damaged ({error}). Copy the file again.") from None


def _is_column(shape: Sequence[int], num: int) -> bool:
    """Whether an array has one value for each of `num` images, or as many as classes can be."""
    return len(shape) in (1, 2) and shape[0] == num and (len(shape) == 1 or 1 <= shape[1] <= MOST_CLASSES)
