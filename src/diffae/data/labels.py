"""Label tables: a `file` column, one column per attribute, joined to images by path."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESERVED = ("file", "group")


@dataclass(frozen=True, slots=True)
class Labels:
    """The rows of a label table, by file.

    Attributes:
        values: attribute -> (n,) float64 aligned with the images; NaN where unknown.
        groups: (n,) the `group` column (a person, a patient: what must not be split), or None.
        missing: images that have no row.
        unused: rows whose image is not there.
    """

    values: dict[str, np.ndarray]
    groups: list[str] | None
    missing: list[str]
    unused: list[str]


def load_labels(path: Path, names: Sequence[str]) -> Labels:
    """Reads a table and aligns it with the images.

    Args:
        path: a .csv or .parquet file with a `file` column (path relative to the data) and a column per attribute: a
            number, or empty for unknown. A column `group` names what belongs together when data is split. A .txt file is taken
            for annotations in the format of CelebA and CelebA-HQ.
        names: the images' paths.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: no `file` column, a file named twice, a value that is no number, or no row for any image.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no label table {path}.")
    readers = {".parquet": _read_parquet, ".txt": _read_celeba}
    rows = readers.get(path.suffix.lower(), _read_csv)(path)
    if not rows or "file" not in rows[0]:
        columns = ", ".join(map(repr, rows[0])) if rows else "none"
        raise ValueError(
            f"{path} has no column 'file' (its columns: {columns}): name the image's path in it, relative to the data."
        )
    return align(rows, names, path)


def align(rows: Sequence[dict[str, Any]], names: Sequence[str], path: Path) -> Labels:
    """The rows of a table, each with its `file`, brought into the order of the images. Arguments and errors as in `load_labels`."""
    files = [str(row["file"]).removeprefix("./") for row in rows]
    twice = [file for file, count in Counter(files).items() if count > 1]
    if twice:
        raise ValueError(f"{path} has more than one row for {twice[0]!r} ({len(twice)} such in all): keep one row for each.")
    by_file = dict(zip(files, rows, strict=True))
    known = set(names)
    if not any(file in known for file in files):
        raise ValueError(
            f"{path} names none of the {len(names)} images: its first file is {files[0]!r}, the first image is {names[0]!r}."
        )
    attributes = [c for c in rows[0] if c not in RESERVED]
    values = {a: np.array([_number(by_file.get(n, {}).get(a), path, n, a) for n in names]) for a in attributes}
    groups = [str(by_file.get(n, {}).get("group", n)) for n in names] if "group" in rows[0] else None
    return Labels(
        values=values,
        groups=groups,
        missing=[n for n in names if n not in by_file],
        unused=[f for f in files if f not in known],
    )


def write_labels(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes a label table as CSV."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _read_celeba(path: Path) -> list[dict[str, Any]]:
    """`list_attr_celeba.txt`, `CelebAMask-HQ-attribute-anno.txt`: the number of images, the attributes, then a line an image with
    1 or -1 for each.

    Raises:
        ValueError: another format; the message names the line.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    if len(lines) < 3 or not lines[0].strip().isdecimal():
        raise ValueError(f"{path} is no table of annotations in CelebA's format: its first line is not the number of images.")
    attributes, rows = lines[1].split(), []
    for i, line in enumerate(lines[2:], start=3):
        file, *values = line.split() or [""]
        if not file:
            continue
        if len(values) != len(attributes) or not set(values) <= {"1", "-1"}:
            raise ValueError(f"{path}, line {i}: expected a file and {len(attributes)} values of 1 or -1, got {line[:60]!r}.")
        rows.append({"file": file} | {a: int(v == "1") for a, v in zip(attributes, values, strict=True)})
    return rows


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError(f"Reading {path} needs pyarrow: pip install 'diffae[data]', or save the table as CSV.") from None
    return pyarrow.parquet.read_table(path).to_pylist()


def _number(value: Any, path: Path, name: str, attribute: str) -> float:
    if value is None or value == "":
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{path}: {attribute} of {name} is {value!r}; give a number, or leave it empty for unknown.") from None
