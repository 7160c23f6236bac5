"""Label tables: a `file` column, one column per attribute, joined to images by path."""

import codecs
import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffae.data.labels.columns import NO_NAME, is_unknown, numbers, parse_kinds, read_kinds
from diffae.runtime.files import replacing

RESERVED = ("file", "group")
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""What a text may begin with, and its encoding then. That of UTF-32 begins as that of UTF-16 does, so it comes first."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The rows of a label table, by file.

    Attributes:
        values: attribute -> (n,) float64 aligned with the images; 0, 1, NaN where unknown, or other numbers.
        groups: (n,) the `group` column (a person, a patient: what must not be split), or None. An image without one is a group
            of its own.
        missing: images that have no row.
        unused: rows whose image is not there.
        notes: what was left out, or taken for something that is not plain, in sentences that name the table.
    """

    values: dict[str, np.ndarray]
    groups: list[str] | None
    missing: list[str]
    unused: list[str]
    notes: list[str]


def load_labels(path: Path, names: Sequence[str], kinds: Sequence[str] = ()) -> Labels:
    """Reads a table and aligns it with the images.

    Args:
        path: a .csv or .parquet file with a `file` column (path relative to the data) and a column per attribute: a
            number, True or False, or empty for unknown. A column `group` names what belongs together when data is split. Text may
            be separated by commas, semicolons or tabs. A .txt file is taken for annotations in the format of CelebA and CelebA-HQ.
        names: the images' paths.
        kinds: what columns are to be taken for, as `columns.parse_kinds` has it.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: no `file` column, a file or a column named twice, rows of another length than the header, a value that is no
            number, or no row for any image.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no label table {path}.")
    readers = {".parquet": _read_parquet, ".txt": _read_celeba}
    rows, lines, notes = readers.get(path.suffix.lower(), _read_csv)(path)
    if not rows:
        raise ValueError(f"{path} has no rows, so no image has a label: write one for each.")
    found = align(rows, names, path, lines=lines, kinds=kinds)
    found.notes[:0] = notes
    return found


def align(
    rows: Sequence[dict[str, Any]], names: Sequence[str], path: Path, *, lines: Sequence[int] = (), kinds: Sequence[str] = ()
) -> Labels:
    """The rows of a table, each with its `file`, brought into the order of the images.

    Args:
        rows: each with the same columns.
        names: the images' paths.
        path: where the rows come from, for messages.
        lines: where each row is in it, if it has lines.
        kinds: as in `load_labels`.

    Raises:
        ValueError: as in `load_labels`.
    """
    known = set(names)
    composed = {unicodedata.normalize("NFC", name): name for name in names}

    def where(i: int) -> str:
        return f"{path}, line {lines[i]}" if lines else f"{path}, {rows[i]['file']}"

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
    place = {file: i for i, file in enumerate(files)}
    if not any(file in known for file in files):
        raise ValueError(
            f"{path} names none of the {len(names)} images: its first file is {files[0]!r}, the first image is {names[0]!r}."
            + _longer(files, known)
        )
    order = np.array([place.get(n, len(rows)) for n in names])
    columns: dict[str, np.ndarray] = {}
    text, notes = [], []
    for name in (c for c in rows[0] if c not in RESERVED):
        if NO_NAME.fullmatch(name):
            notes.append(f"{path}: the column {name!r} has no name and was left out; an index is written so.")
            continue
        cells = [row[name] for row in rows]
        values = numbers(name, cells, where)
        if values is None:
            text.append(f"{name} ({str(next(c for c in cells if not is_unknown(c)))[:30]!r})")
        else:
            columns[name] = values
    if text:
        notes.append(f"{path}: columns that are no numbers were left out: {', '.join(text)}. Write 1 and 0 for yes and no.")
    found, said = read_kinds(columns, parse_kinds(kinds))
    notes += [f"{path}: {sentence}" for sentence in said]
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
            notes.append(f"{path}: {what} ({', '.join(some[:3])}{', ...' if len(some) > 3 else ''}).{_longer(some, known)}")
    return Labels(
        values={name: np.append(y, np.nan)[order] for name, y in found.items()},
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


Rows = tuple[list[dict[str, Any]], list[int], list[str]]
"""Rows of a table, the line of each where it has lines, and notes."""


def _read_csv(path: Path) -> Rows:
    text = _text(path)
    headers = {d: next(csv.reader(io.StringIO(text, newline=""), delimiter=d), []) for d in ",;\t"}
    delimiter = next((d for d, header in headers.items() if "file" in map(str.strip, header)), None)
    if delimiter is None:
        raise ValueError(_no_file(path, headers[","]))
    reader, cells, lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [], []
    # Tables have few different values: each is kept once.
    once: dict[str, str] = {}
    try:
        header = [name.strip() for name in next(reader)]
        refuse_doubled(header, f"{path}, line 1")
        for row in reader:
            if not any(row):
                continue
            if len(row) != len(header):
                more = (
                    f"the first beyond them is {row[len(header)]!r}"
                    if len(row) > len(header)
                    else f"{header[len(row)]!r} is missing"
                )
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(row)} cells, but the header has {len(header)} columns; {more}. "
                    "Put a cell that holds the separator itself in quotes, and leave an unknown one empty."
                )
            cells.append([once.setdefault(cell, cell) for cell in row])
            lines.append(reader.line_num)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: this is no row of a table ({error}). Write the table again.") from None
    notes = _decimal_commas(path, header, cells, lines) if delimiter == ";" else []
    rows: list[dict[str, Any]] = []
    while cells:
        rows.append(dict(zip(header, cells.pop(), strict=True)))
    return rows[::-1], lines, notes


def _decimal_commas(path: Path, header: list[str], rows: list[list[str]], lines: list[int]) -> list[str]:
    """Makes decimal points of the commas in a table that is separated by semicolons, as spreadsheets in Europe write it.

    Raises:
        ValueError: it has points too, or only commas that could stand between thousands.
    """
    own = [j for j, name in enumerate(header) if name not in RESERVED]
    comma = [(i, j) for i, row in enumerate(rows) for j in own if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", row[j], re.ASCII)]
    if not comma:
        return []
    point = next(
        ((i, j) for i, row in enumerate(rows) for j in own if re.fullmatch(r"\s*[+-]?\d+\.\d+\s*", row[j], re.ASCII)), None
    )
    if point is not None or all(re.fullmatch(r"\s*[+-]?[1-9]\d{0,2},\d{3}\s*", rows[i][j], re.ASCII) for i, j in comma):
        i, j = comma[0]
        beside = "could be one between thousands"
        if point is not None:
            beside = f"stands beside a point, {rows[point[0]][point[1]]!r} in line {lines[point[0]]}"
        raise ValueError(f"{path}, line {lines[i]}: {header[j]} is {rows[i][j]!r}, whose comma {beside}. Write decimal points.")
    for i, j in comma:
        rows[i][j] = rows[i][j].replace(",", ".")
    i, j = comma[0]
    return [f"{path}: commas were read as decimal points in {len(comma)} cells ({header[j]} in line {lines[i]} is {rows[i][j]})."]


def _read_celeba(path: Path) -> Rows:
    """`list_attr_celeba.txt`, `CelebAMask-HQ-attribute-anno.txt`: the number of images, the attributes, then a line an image with
    1 or -1 for each.

    Raises:
        ValueError: another format; the message names the line.
    """
    text = _text(path).splitlines()
    if len(text) < 3 or not re.fullmatch(r"\s*\d{1,12}\s*", text[0], re.ASCII):
        raise ValueError(f"{path} is no table of annotations in CelebA's format: its first line is not the number of images.")
    attributes, rows, lines = text[1].split(), [], []
    refuse_doubled(["file", *attributes], f"{path}, line 2")
    for i, line in enumerate(text[2:], start=3):
        file, *values = line.split() or [""]
        if not file:
            continue
        if len(values) != len(attributes) or not set(values) <= {"1", "-1"}:
            raise ValueError(f"{path}, line {i}: expected a file and {len(attributes)} values of 1 or -1, got {line[:60]!r}.")
        rows.append({"file": file} | {a: int(v == "1") for a, v in zip(attributes, values, strict=True)})
        lines.append(i)
    if len(rows) != int(text[0]):
        raise ValueError(
            f"{path} says in line 1 that it has {int(text[0]):,} images, but it has {len(rows):,}. If it is cut short, copy it "
            "again; if these are all, correct the number."
        )
    return rows, lines, []


def _read_parquet(path: Path) -> Rows:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        raise ImportError(f"Reading {path} needs pyarrow: pip install 'diffae[data]', or save the table as CSV.") from None
    try:
        columns = pyarrow.parquet.read_schema(path).names
        refuse_doubled(columns, str(path))
        if "file" not in columns:
            raise ValueError(_no_file(path, columns))
        return pyarrow.parquet.read_table(path).to_pylist(), [], []
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise ValueError(f"{path} is damaged, or no Parquet file ({reason}). Write it again.") from None


def _text(path: Path) -> str:
    """A file's text: in the encoding that its first bytes name, or UTF-8.

    Raises:
        ValueError: it is in another encoding, or no text.
    """
    content = path.read_bytes()
    encoding = next((encoding for mark, encoding in MARKS if content.startswith(mark)), "utf-8")
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise ValueError(f"{path} is a spreadsheet or an archive, not a table as text. Save it as CSV, in UTF-8.")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not {encoding.upper()}, so this is text in another "
            "encoding, or no text. Save the table as CSV, in UTF-8."
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(
            f"{path}, line {line}: there is a zero byte, so this is UTF-16, or no text. Save the table as CSV, in UTF-8."
        )
    return text


def refuse_doubled(columns: Sequence[str], where: str) -> None:
    twice = [c for c, count in Counter(columns).items() if count > 1 and not NO_NAME.fullmatch(c)]
    if twice:
        places = [str(i) for i, c in enumerate(columns, start=1) if c == twice[0]]
        raise ValueError(f"{where}: the columns {' and '.join(places)} are both called {twice[0]!r}. Rename or remove all but one.")


def _no_file(path: Path, columns: Sequence[str]) -> str:
    there = ", ".join(map(repr, columns)) or "none"
    return f"{path} has no column 'file' (its columns: {there}): name the image's path in it, relative to the data."


def _as_named(file: str, known: set[str], composed: Mapping[str, str]) -> str:
    """A path as images are named, where it means one: without `./`, with slashes where Windows has backslashes, with letters and
    their accents as one character or as two."""
    forward = file.replace("\\", "/").removeprefix("./")
    for meant in (file, file.removeprefix("./"), forward):
        if meant in known:
            return meant
    return composed.get(unicodedata.normalize("NFC", forward), file.removeprefix("./"))


def _longer(files: Sequence[str], known: set[str]) -> str:
    """What to do about files of which images are the ends."""
    for file in files[:1000]:
        parts = file.replace("\\", "/").split("/")
        end = next(("/".join(parts[i:]) for i in range(1, len(parts)) if "/".join(parts[i:]) in known), None)
        if end is not None:
            return f" {file!r} ends in the image {end!r}: take away what stands before it."
    return ""
