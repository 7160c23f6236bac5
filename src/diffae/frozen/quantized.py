"""Weights as face-api.js keeps them: one file of bytes, and a list of what they are."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read_quantized(path: Path, manifest: Path) -> dict[str, np.ndarray]:
    """All tensors of such a file by their names, float64; kernels are (h, w, in, out).

    Most are bytes q that stand for min + scale q.

    Args:
        path: the weights, one tensor after the other.
        manifest: JSON; name, shape and quantization of each.

    Raises:
        ValueError: the two do not belong together.
    """
    content = path.read_bytes()
    read: dict[str, np.ndarray] = {}
    at = 0
    for entry in json.loads(manifest.read_text(encoding="utf-8"))[0]["weights"]:
        count, quantized = int(np.prod(entry["shape"])), entry.get("quantization")
        kind = np.dtype(np.uint8 if quantized else "<f4")
        if at + count * kind.itemsize > len(content):
            raise ValueError(f"{path} ends before {entry['name']}, which {manifest.name} lists. Fetch both anew: `diffae weights`.")
        values = np.frombuffer(content, kind, count, at).astype(np.float64).reshape(entry["shape"])
        read[entry["name"]] = values * quantized["scale"] + quantized["min"] if quantized else values
        at += count * kind.itemsize
    if at != len(content):
        raise ValueError(
            f"{path} holds {len(content) - at:,} bytes more than {manifest.name} lists: the two do not belong together."
        )
    return read


def as_tensors(values: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Arrays as tensors, float32."""
    return {name: torch.from_numpy(np.ascontiguousarray(value, np.float32)) for name, value in values.items()}
