"""Label tables: a `file` column, one column per attribute, joined to images by path."""

import csv
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffae.data.labels.classes import MOST_CLASSES, as_classes, class_columns, may_be_classes
from diffae.data.labels.columns import (
    MEASURES,
    NO_NAME,
    RESERVED,
    is_number,
    is_unknown,
    numbers,
    parse_kinds,
    read_kinds,
    refuse_doubled,
)
from diffae.data.labels.readers import read_rows
from diffae.runtime.files import printable, replacing


@dataclass(frozen=True, slots=True)
class Labels:
    """A label table, aligned with images.

    Attributes:
        values: attribute -> (n,) float64 in the order of the images: 0 and 1, or other numbers; NaN where unknown.
        groups: (n,) the `group` column, such as a person or a patient whose images must stay together, or None. An image without
            an entry is a group of its own.
        missing: images without a row.
        unused: rows without an image.
        notes: what was left out, and what had to be guessed, in sentences that name the table.
    """

    values: dict[str, np.ndarray]
    groups: list[str] | None
    missing: list[str]
    unused: list[str]
    notes: list[str]


def load_labels(path: Path, names: Sequence[str], kinds: Sequence[str] = ()) -> Labels:
    """Reads a table and aligns it with the images.

    Args:
        path: a .csv or .parquet file with a `file` column (path relative to the data) and a column per attribute: a number, True
            or False, or empty for unknown. Text of a few different values is classes: each becomes an attribute `COLUMN=VALUE` of
            0 and 1. Images with the same entry in a column `group` stay together when data is split. Text may be separated by
            commas, semicolons or tabs. A .txt file holds annotations in the format of CelebA and CelebA-HQ, a .json file COCO's.
        names: the images' paths.
        kinds: how columns are read; see `columns.parse_kinds`.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: no `file` column, a file or a column that occurs twice, a row that is not as long as the header, a value that
            is no number, or no row for any image.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no label table {path}.")
    rows, lines, notes = read_rows(path)
    if not rows:
        raise ValueError(f"{path} has no rows, so no image has a label: write one for each.")
    found = align(rows, names, path, lines=lines, kinds=kinds)
    found.notes[:0] = notes
    return found


def align(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path, *, lines: Sequence[int] = (), kinds: Sequence[str] = ()
) -> Labels:
    """Brings the rows of a table into the order of the images.

    Args:
        rows: column -> cell, the same columns in each; `file` names the image.
        names: the images' paths.
        path: where the rows come from, for messages.
        lines: the line number of each row there, or empty.
        kinds: as in `load_labels`.

    Raises:
        ValueError: as in `load_labels`.
    """
    known = set(names)
    files = _files(rows, names, path, lines)
    place = {file: i for i, file in enumerate(files)}
    if not any(file in known for file in files):
        raise ValueError(
            f"{path} names none of the {len(names)} images: its first file is {files[0]!r}, the first image is {names[0]!r}."
            + _longer(files, known)
        )
    order = np.array([place.get(n, len(rows)) for n in names])
    asked = parse_kinds(kinds)
    columns, classes, notes = _columns(rows, path, lines, asked)
    values, remarks = read_kinds(columns, {name: kind for name, kind in asked.items() if name not in classes})
    notes += [f"{path}: {remark}" for remark in remarks]
    made = {name: class_columns(name, cells) for name, cells in classes.items()}
    refuse_doubled([*values, *(name for each in made.values() for name in each)], f"{path}, a column for each class")
    values |= {name: y for each in made.values() for name, y in each.items()}
    groups = None
    if "group" in rows[0]:
        cells = [rows[i]["group"] if i < len(rows) else None for i in order]
        groups = [n if is_unknown(c) else str(c).strip() for n, c in zip(names, cells, strict=True)]
        alone = sum(map(is_unknown, cells))
        if alone:
            notes.append(f"{path}: {alone} of {len(names)} images have no group, and each is one of its own.")
    missing, unused = [n for n in names if n not in place], [f for f in files if f not in known]
    for what, some in (
        (f"{len(missing)} of {len(names)} images have no row", missing),
        (f"{len(unused)} of {len(rows)} rows name no image", unused),
    ):
        if some:
            listed = ", ".join(map(printable, some[:3])) + (", ..." if len(some) > 3 else "")
            notes.append(f"{path}: {what} ({listed}).{_longer(some, known)}")
    return Labels(
        values={name: np.append(y, np.nan)[order] for name, y in values.items()},
        groups=groups,
        missing=missing,
        unused=unused,
        notes=notes,
    )


def write_labels(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes a label table as CSV.

    Raises:
        ValueError: there are no rows.
    """
    rows = list(rows)
    if not rows:
        raise ValueError(f"There are no labels to write to {path}.")
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _files(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path, lines: Sequence[int]) -> list[str]:
    """The image that each row is about, as images are named.

    Raises:
        ValueError: a row names no image, or two name the same one.
    """
    known = set(names)
    composed = {unicodedata.normalize("NFC", name): name for name in names}
    files = []
    for i, row in enumerate(rows):
        if is_unknown(row["file"]) and (not isinstance(row["file"], str) or not row["file"].strip()):
            raise ValueError(
                f"{path}, {f'line {lines[i]}' if lines else f'row {i + 1}'}: the column 'file' is empty. Name the image."
            )
        files.append(_as_named(str(row["file"]), known, composed))
    twice = [file for file, count in Counter(files).items() if count > 1]
    if twice:
        raise ValueError(f"{path} has more than one row for {twice[0]!r} ({len(twice)} such in all): keep one row for each.")
    return files


def _columns(
    rows: Sequence[Mapping[str, Any]], path: Path, lines: Sequence[int], asked: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], dict[str, list[str | None]], list[str]]:
    """The columns of numbers, those of classes, in the order of the rows, and notes about them and the others."""

    def where(i: int) -> str:
        return f"{path}, line {lines[i]}" if lines else f"{path}, {printable(str(rows[i]['file']))}"

    columns: dict[str, np.ndarray] = {}
    classes: dict[str, list[str | None]] = {}
    text, notes = [], []
    for name in (c for c in rows[0] if c not in RESERVED):
        if NO_NAME.fullmatch(name):
            notes.append(f"{path}: the column {name!r} has no name and was left out; an index is written so.")
            continue
        cells, kind = [row[name] for row in rows], asked.get(name)
        known = as_classes(cells) if kind not in MEASURES else None
        if known is not None and kind is None and not 2 <= (num := len({*known} - {None})) <= MOST_CLASSES:
            notes.append(f"{path}: {name} was left out: it has {num:,} classes, where 2 to {MOST_CLASSES} become attributes.")
        elif known is not None:
            classes[name] = known
        elif kind == "classes" and not all(map(is_number, cells)):
            classes[name] = _stripped(cells)
        elif (values := numbers(name, cells, where)) is not None:
            columns[name] = values
        elif kind is None and _is_text(cells) and may_be_classes(found := _stripped(cells)):
            classes[name] = found
            notes.append(f"{path}: {name} is text and was taken for classes: {_classes_of(found)}. Each is a column of 0 and 1.")
        else:
            text.append(f"{name} ({str(next(c for c in cells if not is_unknown(c)))[:30]!r})")
    if text:
        notes.append(
            f"{path}: columns that are no numbers were left out: {', '.join(text)}. Write 1 and 0 for yes and no; if values are "
            "classes, say --labels-kind NAME=classes."
        )
    return columns, classes, notes


def _is_text(cells: Sequence[Any]) -> bool:
    return all(isinstance(cell, str) or is_unknown(cell) for cell in cells)


def _stripped(cells: Sequence[Any]) -> list[str | None]:
    return [None if is_unknown(cell) else str(cell).strip() for cell in cells]


def _classes_of(cells: Sequence[str | None]) -> str:
    """The classes of a column with their numbers, most frequent first."""
    counts = Counter(cell for cell in cells if cell is not None).most_common()
    return ", ".join(f"{cell[:30]} ({num:,})" for cell, num in counts[:5]) + (f" and {len(counts) - 5} more" * (len(counts) > 5))


def _as_named(file: str, known: set[str], composed: Mapping[str, str]) -> str:
    """The image that a path means. `./` at the start, backslashes in place of slashes, and accents written as one character or as
    two make no difference. A path that means no image stays as it is."""
    forward = file.replace("\\", "/").removeprefix("./")
    for meant in (file, file.removeprefix("./"), forward):
        if meant in known:
            return meant
    return composed.get(unicodedata.normalize("NFC", forward), file.removeprefix("./"))


def _longer(files: Sequence[str], known: set[str]) -> str:
    """What to do where a table's paths are longer than the images' names but end alike; empty otherwise."""
    for file in files[:1000]:
        parts = file.replace("\\", "/").split("/")
        end = next(("/".join(parts[i:]) for i in range(1, len(parts)) if "/".join(parts[i:]) in known), None)
        if end is not None:
            return f" {file!r} ends in the image {end!r}: take away what stands before it."
    return ""
