"""Images in the rows of tables: Parquet files, and data sets that Hugging Face `datasets` saved (Arrow files). Memory-mapped."""

import io
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffae.data.labels.labels import refuse_doubled
from diffae.runtime.files import pointer_or

if TYPE_CHECKING:
    import pyarrow as pa

OPEN_BLOCKS = 4
"""Row groups of Parquet that are kept decoded: images are read in order, by a few threads."""
MOST_CLASSES = 100
"""A class label becomes one attribute a class, up to so many; of more it is left out."""


class Table:
    """All images in the rows of Parquet or Arrow files that belong together; the attributes are those of `sources.Folder`.

    Images are named by their file and row, `train-00000-of-00002/00000017`; decoded arrays end in `.npy`. They are in the first
    column that holds images: encoded, as bytes or as `datasets` has them (`bytes` and `path`), or decoded, as lists (h, w, c),
    (c, h, w) or (h, w). Columns of numbers and booleans are labels; a class label is an attribute of 0 and 1 for each class.

    Args:
        files: in the order of their rows.
        root: what the names are relative to.

    Attributes:
        notes: what columns were left out: those that are neither images nor labels, and class labels of too many classes.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: a damaged file, files of different columns, or no column or several that could hold the images.
    """

    def __init__(self, files: Sequence[Path], root: Path) -> None:
        self.files = {_stem(file, root): _open(file) for file in files}
        first, *others = self.files.values()
        refuse_doubled(first.schema.names, str(first.path))
        for other in others:
            if other.schema.names != first.schema.names:
                raise ValueError(
                    f"{other.path} has the columns {', '.join(other.schema.names)}, but {first.path} has "
                    f"{', '.join(first.schema.names)}: they are no parts of one data set. Name the files of one alone."
                )
        self.notes: list[str] = []
        features = _features(first.schema, first.path, self.notes)
        self.column = _image_column(first.schema, features, first.path)
        decoded = _is_nested(first.schema.field(self.column).type)
        suffix = ".npy" if decoded else ""
        self.names = [f"{stem}/{row:08d}{suffix}" for stem, file in self.files.items() for row in range(file.num_rows)]
        self.others = 0
        self.holders = list(files)
        own = [c for c in first.schema.names if _is_label(first.schema.field(c), c) and not _is_long(features.get(c))]
        self._labels = {c: _classes(features.get(c)) for c in own}
        names = [f"{c}_{k}" for c, classes in self._labels.items() for k in classes]
        refuse_doubled(names + [c for c, classes in self._labels.items() if not classes], f"{first.path}, an attribute a class")
        left_out = [c for c in first.schema.names if c != self.column and c not in self._labels]
        if left_out:
            self.notes.append(f"Columns of {root} that are no numbers were left out: {', '.join(left_out)}.")

    def read(self, name: str) -> bytes:
        """The image's bytes; may be called from several threads."""
        stem, _, row = name.removesuffix(".npy").rpartition("/")
        value = self.files[stem].value(self.column, int(row))
        if name.endswith(".npy"):
            return _npy(value)
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
        for column, classes in self._labels.items():
            values = [value for file in self.files.values() for value in file.column(column).to_pylist()]
            if classes:
                # -1 is how `datasets` writes an unknown class.
                wrong = next((v for v in values if v is not None and v not in range(-1, len(classes))), None)
                if wrong is not None:
                    file = next(iter(self.files.values())).path
                    raise ValueError(f"{file}: the class label {column} has {len(classes)} classes, but one is number {wrong}.")
                known = [None if v is None or v < 0 else v for v in values]
                columns |= {f"{column}_{c}": [None if v is None else v == i for v in known] for i, c in enumerate(classes)}
            else:
                columns[column] = values
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


class _ParquetFile:
    """A Parquet file, read a row group at a time."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet

        self.path = path
        self.file = pyarrow.parquet.ParquetFile(path, memory_map=True)
        self.schema = self.file.schema_arrow
        self.num_rows = self.file.metadata.num_rows
        counts = [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        self.ends = np.cumsum(counts)
        self.blocks: OrderedDict[int, Any] = OrderedDict()
        self.lock = threading.Lock()

    def value(self, column: str, row: int) -> "pa.Scalar":
        group = int(np.searchsorted(self.ends, row, side="right"))
        with self.lock:
            if group not in self.blocks:
                self.blocks[group] = self.file.read_row_group(group, columns=[column])[column]
            self.blocks.move_to_end(group)
            while len(self.blocks) > OPEN_BLOCKS:
                self.blocks.popitem(last=False)
            block = self.blocks[group]
        return block[row - (int(self.ends[group - 1]) if group else 0)]

    def column(self, name: str) -> "pa.ChunkedArray":
        return self.file.read([name])[name]


class _ArrowFile:
    """An Arrow file, as a stream (what `datasets` writes) or with a footer: rows are where they lie in the mapped file."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self.path = path
        mapped = pa.memory_map(str(path))
        try:
            self.table = pa.ipc.open_stream(mapped).read_all()
        except pa.ArrowInvalid:
            self.table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self.schema = self.table.schema
        self.num_rows = self.table.num_rows

    def value(self, column: str, row: int) -> "pa.Scalar":
        return self.table[column][row]

    def column(self, name: str) -> "pa.ChunkedArray":
        return self.table[name]


def table_files(root: Path) -> list[Path]:
    """The Parquet or Arrow files of a data set, in order; empty if there are none.

    Of a folder that `datasets` saved, those that its `state.json` names; what it keeps for itself (`cache-*.arrow`) is left out.

    Raises:
        ValueError: that names none.
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


def _named(state: Path) -> list[Path]:
    """The files that a `state.json` names."""
    try:
        return [state.parent / entry["filename"] for entry in json.loads(state.read_text(encoding="utf-8")).get("_data_files", [])]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{state} is damaged, or nothing that `datasets` wrote ({type(error).__name__}: {_first_line(error)}). Copy it again, "
            "or move it away, so that the tables beside it are taken as they are."
        ) from None


def _open(path: Path) -> _ParquetFile | _ArrowFile:
    try:
        import pyarrow as pa
    except ImportError:
        raise ImportError(f"Reading {path} needs pyarrow: pip install 'diffae[data]'.") from None
    try:
        return _ParquetFile(path) if path.suffix.lower() == ".parquet" else _ArrowFile(path)
    except (pa.ArrowException, OSError) as error:
        what = pointer_or(path, f"is damaged or cut short ({_first_line(error)}). Copy it again")
        raise ValueError(f"{path} {what}.") from None


def _stem(file: Path, root: Path) -> str:
    return file.stem if file == root else file.relative_to(root).with_suffix("").as_posix()


def _features(schema: "pa.Schema", path: Path, notes: list[str]) -> dict[str, Any]:
    """What `datasets` noted of the columns; of what cannot be read of it, a note."""
    noted = (schema.metadata or {}).get(b"huggingface")
    if not noted:
        return {}
    try:
        features = dict(json.loads(noted)["info"]["features"])
        for feature in features.values():
            if not all(isinstance(name, str) for name in _classes(feature)):
                raise TypeError("names of classes that are no text")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        notes.append(
            f"What `datasets` noted in {path} of its columns cannot be read ({type(error).__name__}: {_first_line(error)}) and was "
            "left out, so classes are numbers there."
        )
        return {}
    return features


def _image_column(schema: "pa.Schema", features: dict[str, Any], path: Path) -> str:
    noted = [c for c in schema.names if isinstance(features.get(c), dict) and features[c].get("_type") == "Image"]
    found = noted or list(_candidates(schema))
    named = [c for c in found if c.lower() in ("image", "img", "images")]
    if len(found) != 1 and len(named) != 1:
        what = f"several columns that could hold the images: {', '.join(found)}" if found else "no column of images"
        raise ValueError(
            f"{path} has {what} (its columns: {', '.join(schema.names)}). Name the one to take `image`: encoded files, or decoded "
            "arrays."
        )
    return found[0] if len(found) == 1 else named[0]


def _candidates(schema: "pa.Schema") -> Iterator[str]:
    import pyarrow.types as kinds

    for field in schema:
        encoded = kinds.is_struct(field.type) and {"bytes", "path"} <= {f.name for f in field.type}
        if encoded or kinds.is_binary(field.type) or kinds.is_large_binary(field.type) or _is_nested(field.type):
            yield field.name


def _is_nested(kind: "pa.DataType") -> bool:
    """Lists of lists of numbers: a decoded image. In a process that imported `datasets`, its arrays are of a type of its own."""
    import pyarrow as pa
    import pyarrow.types as kinds

    depth = 0
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth in (2, 3) and (kinds.is_integer(kind) or kinds.is_floating(kind))


def _is_list(kind: "pa.DataType") -> bool:
    import pyarrow.types as kinds

    return kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)


def _is_label(field: "pa.Field", name: str) -> bool:
    import pyarrow.types as kinds

    kind = field.type.value_type if kinds.is_dictionary(field.type) else field.type
    text = kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)
    number = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind) or kinds.is_decimal(kind)
    return name != "file" and (number or (name == "group" and text))


def _classes(feature: Any) -> list[str]:
    """The names of a class label, or none."""
    return (feature.get("names") or []) if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else []


def _is_long(feature: Any) -> bool:
    """Whether this is a class label of too many classes. Their numbers are no measurement."""
    return len(_classes(feature)) > MOST_CLASSES


def _npy(value: "pa.Scalar") -> bytes:
    """Nested lists as a .npy file of (c, h, w). Channels are the last axis where only that has 1, 3 or 4 entries."""
    import pyarrow as pa
    import pyarrow.compute

    value = value.value if isinstance(value, pa.ExtensionScalar) else value
    if value is None or not value.is_valid:
        raise OSError("the row is empty")
    flat, sides = value.values, [len(value.values)]
    while _is_list(flat.type):
        lengths = pyarrow.compute.list_value_length(flat).unique().to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise OSError(f"its rows are not of one length, but of {', '.join(map(str, lengths[:3]))}")
        flat, sides = flat.flatten(), [*sides, lengths[0]]
    array = flat.to_numpy(zero_copy_only=False).reshape(sides)
    if array.ndim == 2:
        array = array[None]
    elif sides[2] in (1, 3, 4) and sides[0] not in (1, 3, 4):
        array = array.transpose(2, 0, 1)
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array))
    return buffer.getvalue()


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
