"""The two files of saved weights, written so that they always belong together."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from diffae.runtime.files import digest_arrays, digest_file, replacing, write_text

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def write_weights(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Writes `config.json` and `model.safetensors`: whoever dies in between leaves the old pair or the new one.

    The new `config.json` is put beside the old under a name that tells the weights that it is of, and takes its place after them.
    """
    there, _ = files_of_weights(folder)
    if there.name != CONFIG:  # What a process that died has left to do; until then it is the only one of these weights.
        there.replace(folder / CONFIG)
    for left in folder.glob(f".{CONFIG}-*"):
        left.unlink()
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with replacing(folder / WEIGHTS) as part:
        safetensors.torch.save_file(tensors, part, metadata={"format": "pt"})
        coming = folder / f".{CONFIG}-{digest_file(part)}"
        write_text(coming, json.dumps(config, indent=2) + "\n")
    coming.replace(folder / CONFIG)


def files_of_weights(folder: Path) -> tuple[Path, Path]:
    """What `write_weights` wrote: the configuration, and the weights that it is of."""
    weights = folder / WEIGHTS
    for coming in folder.glob(f".{CONFIG}-*"):  # There is one only where a process died, or is writing at this moment.
        if weights.is_file() and coming.name == f".{CONFIG}-{digest_file(weights)}":
            return coming, weights
    return folder / CONFIG, weights


def check_finite(tensors: Mapping[str, Tensor], source: object) -> None:
    """Refuses weights that are not all finite: whatever they make would not be either.

    Args:
        tensors: by their names.
        source: where they come from, for the message.

    Raises:
        ValueError: a NaN or an infinity; the message counts them and names the first tensor.
    """
    # Networks compute in float32, in which a large number of float64 is none.
    counts = {name: int((~t.float().isfinite()).sum()) for name, t in tensors.items() if t.is_floating_point()}
    bad = {name: num for name, num in counts.items() if num}
    if bad:
        raise ValueError(
            f"{source} holds {sum(bad.values()):,} values that are not finite (NaN or infinite), in {next(iter(bad))!r} first. "
            "They were lost before it was saved: take an earlier state, or train again."
        )


def digest_module(module: nn.Module) -> str:
    """Identifies a network's weights."""
    weights = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    # NumPy has no bfloat16; float32 holds its values.
    return digest_arrays({name: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for name, t in weights.items()})
