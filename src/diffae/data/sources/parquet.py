"""Images in the rows of tables: Parquet files, and data sets that Hugging Face `datasets` saved (Arrow files)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffae.data.labels.classes import MOST_CLASSES, ClassName
from diffae.data.labels.columns import refuse_doubled
from diffae.data.sources.nested import is_nested, npy
from diffae.data.sources.rows import open_rows
from diffae.data.sources.schema import image_column, is_text, label_columns, read_features, union
from diffae.runtime.files import first_line

if TYPE_CHECKING:
    import pyarrow as pa


class Table:
    """All images in the rows of Parquet or Arrow files that belong together; the attributes are those of `Folder`.

    An image is named by its file and row, `train-00000-of-00002/00000017`, with `.npy` at the end if it is a decoded array. Cells
    of the image column are encoded files, as bytes or as `datasets` has them (`bytes` and `path`), or decoded arrays, as lists of
    shape (h, w, c), (c, h, w) or (h, w). Columns of numbers, booleans and text are labels; a class label becomes one attribute of 0
    and 1 for each class, each file's numbers called by its own names. Of a class label `group` the names are the groups.

    Args:
        files: in the order of their rows.
        root: what the names are relative to.

    Attributes:
        notes: which columns were left out: those that are neither images nor labels, and class labels of too many classes.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: a damaged file, files of different columns, files of which some alone name the classes of a column, or no column
            or several that could hold the images.
    """

    def __init__(self, files: Sequence[Path], root: Path) -> None:
        self.files = {_stem(file, root): open_rows(file) for file in files}
        first, *others = self.files.values()
        refuse_doubled(first.schema.names, str(first.path))
        for other in others:
            if other.schema.names != first.schema.names:
                raise ValueError(
                    f"{other.path} has the columns {', '.join(other.schema.names)}, but {first.path} has "
                    f"{', '.join(first.schema.names)}: they are no parts of one data set. Name the files of one alone."
                )
        self.notes: list[str] = []
        # Where the first says no classes, what others say is not needed; where it does, `label_columns` refuses others without.
        features = [read_features(f.schema, f.path, self.notes if f is first else []) for f in self.files.values()]
        self.column = image_column(first.schema, features[0], first.path)
        decoded = is_nested(first.schema.field(self.column).type)
        suffix = ".npy" if decoded else ""
        self.names = [f"{stem}/{row:08d}{suffix}" for stem, file in self.files.items() for row in range(file.num_rows)]
        self.others = 0
        self.holders = list(files)
        self._labels = label_columns(first.schema, features, [file.path for file in self.files.values()])
        for i, file in enumerate(self.files.values()):
            refuse_doubled(_attributes({c: each[i] for c, each in self._labels.items()}), f"{file.path}, an attribute a class")
        refuse_doubled(_attributes({c: union(each) for c, each in self._labels.items()}), f"{root}, an attribute a class")
        left_out = [c for c in first.schema.names if c != self.column and c not in self._labels]
        if left_out:
            self.notes.append(f"Columns of {root} that are no numbers were left out: {', '.join(left_out)}.")

    def read(self, name: str) -> bytes:
        """The image's bytes; may be called from several threads."""
        stem, _, row = name.removesuffix(".npy").rpartition("/")
        value = self.files[stem].value(self.column, int(row))
        if name.endswith(".npy"):
            return npy(value)
        content = value.as_py()
        if isinstance(content, dict):
            if content.get("bytes") is None and content.get("path") is not None:
                raise OSError(f"the row has only the path {content['path']!r}: save the data set with its images in it")
            content = content.get("bytes")
        if not content:
            raise OSError("the row is empty")
        return content

    def label_rows(self) -> list[dict[str, Any]]:
        """A label table, as `labels.align` takes it."""
        columns: dict[str, list[Any]] = {"file": self.names}
        left_out: list[str] = []
        for column, each in self._labels.items():
            parts = [file.column(column) for file in self.files.values()]
            if column != "group" and is_text(parts[0].type) and _num_different(parts) > MOST_CLASSES:
                left_out.append(column)
                continue
            values = [part.to_pylist() for part in parts]
            if any(each):
                files = [file.path for file in self.files.values()]
                values = [_called(own, names, column, file) for own, names, file in zip(values, each, files, strict=True)]
            cells = [value for own in values for value in own]
            if any(each) and column != "group":
                columns |= {f"{column}_{c}": [None if v is None else v == c for v in cells] for c in union(each)}
            else:
                columns[column] = cells
        if left_out:
            self.notes.append(f"Columns of text of more than {MOST_CLASSES} values were left out: {', '.join(left_out)}.")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def table_files(root: Path) -> list[Path]:
    """The Parquet or Arrow files of a data set, in order; empty if there are none.

    In a folder that `datasets` saved, `state.json` names them. Its own caches (`cache-*.arrow`) are left out.

    Raises:
        ValueError: `state.json` cannot be read.
    """
    if root.is_file():
        return [root] if root.suffix.lower() in (".parquet", ".arrow") else []
    states = sorted(root.rglob("state.json"))
    if states:
        return [file for state in states for file in _named(state)]
    for kind in ("parquet", "arrow"):
        files = sorted(f for f in root.rglob(f"*.{kind}") if f.is_file() and not f.name.startswith((".", "cache-", "tmp")))
        if files:
            return files
    return []


def _attributes(labels: Mapping[str, Sequence[str]]) -> list[str]:
    """What attributes are called: the column, or that and the class. Groups are no attributes of classes."""
    each = ([c] if c == "group" or not classes else [f"{c}_{k}" for k in classes] for c, classes in labels.items())
    return [name for names in each for name in names]


def _called(values: Sequence[Any], names: Sequence[str], column: str, file: Path) -> list[ClassName | None]:
    """The numbers of a file's classes as their names; None where unknown, which `datasets` writes as -1.

    Raises:
        ValueError: a number is that of no class.
    """
    wrong = next((v for v in values if v is not None and v not in range(-1, len(names))), None)
    if wrong is not None:
        raise ValueError(f"{file}: the class label {column} has {len(names)} classes, but one is number {wrong}.")
    return [None if v is None or v < 0 else ClassName(names[int(v)]) for v in values]


def _num_different(parts: Sequence["pa.ChunkedArray"]) -> int:
    """How many different values a column has, over files."""
    return len({value for part in parts for value in part.unique().to_pylist()} - {None})


def _named(state: Path) -> list[Path]:
    """The files that a `state.json` names."""
    try:
        return [state.parent / entry["filename"] for entry in json.loads(state.read_text(encoding="utf-8")).get("_data_files", [])]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{state} is damaged, or nothing that `datasets` wrote ({type(error).__name__}: {first_line(error)}). Copy it again, "
            "or move it away, so that the tables beside it are taken as they are."
        ) from None


def _stem(file: Path, root: Path) -> str:
    """How the names of a file's rows begin."""
    return file.stem if file == root else file.relative_to(root).with_suffix("").as_posix()
