"""Decoded images in a table: lists of lists of numbers."""

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def is_nested(kind: "pa.DataType") -> bool:
    """Whether values are lists of lists of numbers, two or three deep. In a process that imported `datasets`, its arrays have an
    extension type."""
    import pyarrow as pa
    import pyarrow.types as kinds

    depth = 0
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth in (2, 3) and (kinds.is_integer(kind) or kinds.is_floating(kind))


def npy(value: "pa.Scalar") -> bytes:
    """Nested lists as a .npy file of shape (c, h, w). Channels are the last axis where only that has 1, 3 or 4 entries.

    Raises:
        OSError: the cell is empty, or its lists are not of one length.
    """
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


def _is_list(kind: "pa.DataType") -> bool:
    import pyarrow.types as kinds

    return kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
