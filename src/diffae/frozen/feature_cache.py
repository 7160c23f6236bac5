"""What frozen networks said of images, remembered on the disk: the same image is never shown to the same network twice."""

import hashlib
import sqlite3
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.runtime.files import cache_folder

WAIT = 60.0
"""Seconds for which a process waits for another that writes."""


def cached_features(call: Callable[[Tensor], Tensor], x: Float[Tensor, "n c h w"], *, key: str) -> Float[Tensor, "n f"]:
    """Features of images, those of images seen before from the cache.

    Args:
        call: the network, of images (n, c, h, w) to features (n, f), float32.
        x: images.
        key: identifies the network and how it sees images.
    """
    host = x.detach().float().cpu().contiguous()
    names = [hashlib.blake2b(np.asarray(row.shape).tobytes() + row.numpy().tobytes(), digest_size=16).digest() for row in host]
    file = cache_folder() / "features" / f"{key}.sqlite"
    try:
        known = _read(file, names)
    except (sqlite3.Error, OSError) as error:
        warnings.warn(f"The cache of features, {file}, cannot be used ({error}): they are computed anew.", stacklevel=3)
        return call(x)
    missing = [i for i, name in enumerate(names) if name not in known]
    if missing:
        fresh = call(x[missing]).float().cpu().numpy()
        found = {names[i]: np.ascontiguousarray(row) for i, row in zip(missing, fresh, strict=True)}
        known |= found
        try:
            _write(file, found)
        except (sqlite3.Error, OSError) as error:
            warnings.warn(f"The cache of features, {file}, cannot be written ({error}).", stacklevel=3)
    return torch.from_numpy(np.stack([known[name] for name in names])).to(x.device)


def _opened(file: Path) -> sqlite3.Connection:
    file.parent.mkdir(parents=True, exist_ok=True)
    opened = sqlite3.connect(file, timeout=WAIT)
    opened.execute("create table if not exists features (image blob primary key, vector blob) without rowid")
    return opened


def _read(file: Path, names: Sequence[bytes]) -> dict[bytes, np.ndarray]:
    with closing(_opened(file)) as opened:
        rows = (opened.execute("select vector from features where image = ?", (name,)).fetchone() for name in names)
        return {name: np.frombuffer(row[0], np.float32) for name, row in zip(names, rows, strict=True) if row}


def _write(file: Path, found: dict[bytes, np.ndarray]) -> None:
    with closing(_opened(file)) as opened, opened:
        opened.executemany("insert or ignore into features values (?, ?)", [(k, v.tobytes()) for k, v in found.items()])
