"""Codes as data: z_sem of every image, with its path and its labels, in a Parquet file that other tools read too.

They are written in parts, which are joined at the end: any number fits in memory, and an interrupted run goes on.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.data.cache import Progress
from diffae.data.dataset import ImageSet
from diffae.runtime import processes
from diffae.runtime.files import digest_arrays, replacing

if TYPE_CHECKING:
    import pyarrow as pa

PART = 4096
"""Images in a part."""
RESERVED = ("file", "split", "z_sem", "x_T")
"""Columns that are not labels."""


@dataclass(frozen=True, slots=True)
class Codes:
    """The contents of a file of codes, in memory.

    Attributes:
        names: paths of the images, relative to their source.
        z_sem: (n, d)
        held_out: (n,), whether the image is one of those that the model's run held out of training.
        labels: attribute -> (n,), NaN where unknown.
    """

    names: list[str]
    z_sem: Tensor
    held_out: np.ndarray
    labels: dict[str, np.ndarray]


@dataclass(slots=True)
class Spent:
    """How long the parts of encoding took, in seconds.

    Attributes:
        images: waiting for images.
        network: in the network.
    """

    images: float = 0.0
    network: float = 0.0


def write_codes(
    ae: DiffusionAutoencoder,
    data: ImageSet,
    file: Path,
    *,
    identity: str,
    x_T_steps: int | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Spent:
    """Encodes images into a Parquet file: `file`, `split`, `z_sem` (d floats), `x_T` where asked for, and the labels.

    `split` is `train`, `validation` (held out of training), or `other` of images that are not those of the model's run, of which it
    is not known whether the model has seen them.

    An interrupted run goes on with the part that it was at. With n processes, each takes every n-th part.

    Args:
        ae: the encoder.
        data: the images.
        file: where to write; an older one is replaced when the new one is complete.
        identity: identifies the encoder and the images. It is stored in the file, and parts are reused only if theirs is the same.
        x_T_steps: network calls of the inversion, or None to leave x_T out (it is as large as the image, in float32).
        batch_size: images at a time.
        progress: called with the number of images done.

    Returns:
        How long it took.

    Raises:
        ValueError: a label has the name of a column that the file needs.
    """
    taken = [name for name in data.labels if name in RESERVED]
    if taken:
        raise ValueError(f"The label table has a column {taken[0]!r}, which a file of codes needs for itself: rename it.")
    parquet, spent = _parquet(f"writing {file}"), Spent()
    parts = _parts_of(file)
    # An x_T can only be decoded along the path of its inversion.
    path = None if x_T_steps is None else ["dpmpp2m", ae.calibration.spacing, ae.calibration.t_max]
    metadata = {"identity": identity, "x_T_steps": x_T_steps, "path": path, "names": len(data.names)}
    metadata["labels"] = digest_arrays(data.labels)
    metadata["split"] = digest_arrays({"train": data.train, "validation": data.validation})
    whole = {start: parts / f"{start:012d}.parquet" for start in range(0, len(data.names), PART)}
    for start in processes.shard(list(whole)):
        if _metadata(whole[start]) != metadata:
            indices = range(start, min(start + PART, len(data.names)))
            table = _encode(ae, data, indices, x_T_steps=x_T_steps, batch_size=batch_size, spent=spent, progress=progress)
            table = table.replace_schema_metadata({b"diffae": json.dumps(metadata).encode()})
            with replacing(whole[start]) as temporary:
                parquet.write_table(table, temporary)
    processes.barrier()
    if processes.is_first():
        _join(list(whole.values()), file)
        shutil.rmtree(parts)
    processes.barrier()
    return spent


def _join(parts: list[Path], file: Path) -> None:
    """Joins parts into one file, one at a time."""
    parquet = _parquet(f"writing {file}")
    with replacing(file) as temporary:
        writer = None
        for part in parts:
            table = parquet.read_table(part)
            writer = writer or parquet.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
        if writer:
            writer.close()


def read_codes(file: Path) -> Codes:
    """All of a file of codes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no codes.
    """
    table = _open(file).read([c for c in _open(file).schema_arrow.names if c != "x_T"])
    held = np.array([s == "validation" for s in table["split"].to_pylist()])
    labels = {c: _floats(table[c]) for c in table.column_names if c not in RESERVED}
    return Codes(table["file"].to_pylist(), _rows(table["z_sem"]), held, labels)


def nearest_codes(file: Path, queries: Tensor, *, num: int) -> tuple[list[list[str]], Tensor]:
    """Finds the images whose standardised z_sem is nearest to each query. The file is read a part at a time.

    Args:
        file: a file of codes.
        queries: (q, d)
        num: number of neighbours.

    Returns:
        Names (q, num) and distances (q, num), nearest first.
    """
    reader = _open(file)
    count, d = reader.metadata.num_rows, queries.shape[1]
    total, squares = torch.zeros(2, d, dtype=torch.float64)
    for _, z in _batches(reader):
        total += z.double().sum(0)
        squares += z.double().square().sum(0)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt() + 1e-8
    best = torch.full((len(queries), 0), torch.inf, dtype=torch.float64)
    names: list[list[str]] = [[] for _ in queries]
    for batch_names, z in _batches(reader):
        distances = torch.cdist((queries.double() - mean) / std, (z.double() - mean) / std)
        merged = torch.cat([best, distances], 1)
        best, places = merged.topk(min(num, merged.shape[1]), largest=False)
        names = [[(old + batch_names)[p] for p in row] for old, row in zip(names, places.tolist(), strict=True)]
    return names, best


def identity_of(file: Path) -> str | None:
    """The identity that a file of codes was written with; None if there is no complete file."""
    return (_metadata(file) or {}).get("identity")


def forget_parts(file: Path, identity: str) -> None:
    """Removes parts of a complete file, which a process that died has left behind."""
    for part in _parts_of(file).glob("*.parquet"):
        if (_metadata(part) or {}).get("identity") == identity:
            part.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        _parts_of(file).rmdir()


def _parts_of(file: Path) -> Path:
    return file.with_name(f".{file.name}.parts")


def _encode(
    ae: DiffusionAutoencoder,
    data: ImageSet,
    indices: range,
    *,
    x_T_steps: int | None,
    batch_size: int,
    spent: Spent,
    progress: Progress | None,
) -> "pa.Table":
    import pyarrow as pa

    device = next(ae.parameters()).device
    z_parts, x_T_parts = [], []
    for start in range(indices.start, indices.stop, batch_size):
        began = time.perf_counter()
        x = data.images(range(start, min(start + batch_size, indices.stop))).to(device)
        spent.images += time.perf_counter() - began
        began = time.perf_counter()
        z_sem = ae.encode(x)
        z_parts.append(z_sem.float().cpu())
        if x_T_steps is not None:
            x_T_parts.append(ae.invert(x, z_sem, steps=x_T_steps, solver="dpmpp2m").float().cpu().flatten(1))
        # The codes are on the CPU by now, so the network is done.
        spent.network += time.perf_counter() - began
        if progress:
            progress("Encoding images", start + len(x), len(data.names))
    split = np.full(len(data.names), "other", dtype=object)
    split[data.train], split[data.validation] = "train", "validation"
    columns: dict[str, Any] = {
        "file": data.names[indices.start : indices.stop],
        "split": split[indices.start : indices.stop].tolist(),
        "z_sem": _fixed(torch.cat(z_parts)),
    }
    if x_T_parts:
        columns["x_T"] = _fixed(torch.cat(x_T_parts))
    for name, values in data.labels.items():
        columns[name] = pa.array(values[indices.start : indices.stop], pa.float64(), from_pandas=True)
    return pa.table(columns)


def _fixed(rows: Tensor) -> "pa.Array":
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(rows.flatten().numpy()), rows.shape[1])


def _rows(column: Any) -> Tensor:
    """A column of fixed-size lists as a matrix."""
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    return torch.from_numpy(flat.reshape(len(column), -1).copy())


def _floats(column: Any) -> np.ndarray:
    return np.array([np.nan if v is None else float(v) for v in column.to_pylist()])


def _batches(reader: Any) -> Iterator[tuple[list[str], Tensor]]:
    import pyarrow as pa

    for group in range(reader.num_row_groups):
        table = reader.read_row_group(group, columns=["file", "z_sem"])
        assert isinstance(table, pa.Table)
        yield table["file"].to_pylist(), _rows(table["z_sem"])


def _open(file: Path) -> Any:
    parquet = _parquet(f"reading {file}")
    if not file.is_file():
        raise FileNotFoundError(f"There is no file of codes {file}. Make one with `diffae encode RUN DATA --out {file}`.")
    try:
        reader = parquet.ParquetFile(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is damaged, or no Parquet file ({error}). Make it again with `diffae encode`.") from None
    if not {"file", "z_sem"} <= set(reader.schema_arrow.names):
        raise ValueError(f"{file} holds no codes: it has no columns 'file' and 'z_sem'.")
    return reader


def _metadata(file: Path) -> dict[str, Any] | None:
    """The metadata that `write_codes` stored in a file, or None if there is no such file or it is incomplete."""
    parquet = _parquet(f"reading {file}")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads(parquet.read_schema(file).metadata[b"diffae"])
    return None


def _parquet(what: str) -> Any:
    """pyarrow.parquet.

    Raises:
        ImportError: it is not installed; the message says what needs it.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError(f"{what[0].upper()}{what[1:]} needs pyarrow: pip install 'diffae[data]'.") from None
    return pyarrow.parquet
