"""Files of label tables: CSV, CelebA's and COCO's annotations, Parquet."""

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffae.data.labels.coco import coco_rows, parse_coco
from diffae.data.labels.columns import RESERVED, refuse_doubled
from diffae.runtime.files import first_line

Rows = tuple[list[Mapping[str, Any]], list[int], list[str]]
"""The rows of a table, the line number of each (empty for tables without lines), and notes."""
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and their encodings. UTF-32's begins like UTF-16's, so it comes first."""


def read_rows(path: Path) -> Rows:
    """The rows of a table. The ending of its name says the format: .parquet, .txt (CelebA's), .json (COCO's), anything else is
    CSV.

    Raises:
        ValueError: the file is damaged, or not in that format.
        ImportError: pyarrow, which reads Parquet, is not installed.
    """
    readers = {".parquet": _read_parquet, ".txt": _read_celeba, ".json": _read_coco}
    return readers[kind](path) if (kind := path.suffix.lower()) in readers else csv_rows(path.read_bytes(), path)


def csv_rows(content: bytes, path: Path) -> Rows:
    """A table separated by commas, semicolons or tabs, whichever gives a column `file`.

    Args:
        content: of the file.
        path: where it lies, for messages.

    Raises:
        ValueError: as in `read_rows`.
    """
    text = _text(content, path)
    try:
        headers = {d: next(csv.reader(io.StringIO(text, newline=""), delimiter=d), []) for d in ",;\t"}
    except csv.Error as error:
        raise ValueError(f"{path}, line 1: this is no header of a table ({error}). Write the table again.") from None
    delimiter = next((d for d, header in headers.items() if "file" in map(str.strip, header)), None)
    if delimiter is None:
        raise ValueError(_no_file(path, headers[","]))
    reader, cells, lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [], []
    # Tables have few different values, so each is stored once.
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
    rows: list[Mapping[str, Any]] = []
    while cells:
        rows.append(dict(zip(header, cells.pop(), strict=True)))
    return rows[::-1], lines, notes


def _decimal_commas(path: Path, header: list[str], rows: list[list[str]], lines: list[int]) -> list[str]:
    """Turns decimal commas into points, in place, in a table separated by semicolons, as European spreadsheets write it.

    Returns:
        Notes about it.

    Raises:
        ValueError: the table has decimal points too, or every comma could separate thousands.
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
    """CelebA's format (`list_attr_celeba.txt`, `CelebAMask-HQ-attribute-anno.txt`): the number of images, the names of attributes,
    then a line for each image with 1 or -1 for each attribute.

    Raises:
        ValueError: the text is in another format; the message names the line.
    """
    text = _text(path.read_bytes(), path).splitlines()
    if len(text) < 3 or not re.fullmatch(r"\s*\d{1,12}\s*", text[0], re.ASCII):
        raise ValueError(f"{path} is no table of annotations in CelebA's format: its first line is not the number of images.")
    attributes, lines = text[1].split(), []
    rows: list[Mapping[str, Any]] = []
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


def _read_coco(path: Path) -> Rows:
    found = parse_coco(path.read_bytes())
    if found is None:
        raise ValueError(f"{path} is no JSON in COCO's format: a table of `images`, `annotations` and `categories`. Give a CSV.")
    rows, notes = coco_rows(found, path)
    return rows, [], notes


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
        raise ValueError(f"{path} is damaged, or no Parquet file ({first_line(error)}). Write it again.") from None


def _text(content: bytes, path: Path) -> str:
    """A file's text, in the encoding that its first bytes announce, or else in UTF-8.

    Raises:
        ValueError: the text is in another encoding, or this is no text.
    """
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


def _no_file(path: Path, columns: Sequence[str]) -> str:
    existing = ", ".join(map(repr, columns)) or "none"
    return f"{path} has no column 'file' (its columns: {existing}): name the image's path in it, relative to the data."
