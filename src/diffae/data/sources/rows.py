"""Files of rows that are open: Parquet files and Arrow files. Memory-mapped."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffae.runtime.files import first_line, pointer_or

if TYPE_CHECKING:
    import pyarrow as pa

OPEN_BLOCKS = 4
"""Row groups of Parquet that stay decoded: images are read in order, by a few threads."""


class ParquetRows:
    """A Parquet file. Row groups are read one at a time, and the last few stay decoded."""

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
        """One cell; may be called from several threads."""
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
        """A whole column."""
        return self.file.read([name])[name]


class ArrowRows:
    """An Arrow file, as a stream (what `datasets` writes) or with a footer. Rows stay in the mapped file."""

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
        """One cell; may be called from several threads."""
        return self.table[column][row]

    def column(self, name: str) -> "pa.ChunkedArray":
        """A whole column."""
        return self.table[name]


def open_rows(path: Path) -> ParquetRows | ArrowRows:
    """Opens a Parquet or an Arrow file.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: the file is damaged.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise ImportError(f"Reading {path} needs pyarrow: pip install 'diffae[data]'.") from None
    try:
        return ParquetRows(path) if path.suffix.lower() == ".parquet" else ArrowRows(path)
    except (pa.ArrowException, OSError) as error:
        what = pointer_or(path, f"is damaged or cut short ({first_line(error)}). Copy it again")
        raise ValueError(f"{path} {what}.") from None
