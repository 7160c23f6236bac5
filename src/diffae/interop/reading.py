"""A folder of weights, read with suspicion: two files, either of which may be damaged or say anything."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from diffae.config import AutoencoderConfig
from diffae.runtime.files import pointer_or
from diffae.runtime.weights import check_finite, files_of_weights

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types that weights are saved in."""


def read_weights(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The two files of a folder: what `config.json` says, and the tensors.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: one of them is damaged, or of another format, or weights that are no numbers.
    """
    config = read_config(folder, kind)
    weights_file = files_of_weights(folder)[1]
    try:
        tensors = safetensors.torch.load_file(weights_file)
    except SafetensorError as error:
        what = pointer_or(weights_file, f"is damaged or cut short ({error}). Copy or save it again")
        raise ValueError(f"{weights_file} {what}.") from None
    odd = [f"{k} is {t.dtype}" for k, t in tensors.items() if (t.is_floating_point() and t.dtype not in FLOATS) or t.is_complex()]
    if odd:
        raise ValueError(f"{weights_file}: {odd[0]}, which is no type of weights here. Save them as float32.")
    check_finite(tensors, weights_file)
    return config, tensors


def read_config(folder: Path, kind: str) -> dict[str, Any]:
    """What `config.json` says, without the tensors. Errors as of `read_weights`."""
    config_file, weights_file = files_of_weights(folder)
    for file in (config_file, weights_file):
        if not file.is_file():
            raise FileNotFoundError(f"{folder} holds no {file.name}: a run has its model after its first checkpoint.")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{config_file} is damaged ({error}). Save the model again.") from None
    if not isinstance(config, dict) or config.get("format") != kind:
        raise ValueError(f"{config_file} was not written by `save_pretrained`: its format is not {kind!r}.")
    return config


def check_fit(expected: dict[str, Tensor], tensors: dict[str, Tensor], folder: Path) -> None:
    names = expected.keys() | tensors.keys()
    wrong = sorted(k for k in names if k not in expected or k not in tensors or not _alike(expected[k], tensors[k]))
    if wrong:
        raise ValueError(f"{folder / 'model.safetensors'} does not fit config.json: {len(wrong)} tensors differ, {wrong[0]} first.")


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether tensors are of one shape, and both of floating-point numbers or neither."""
    return a.shape == b.shape and a.is_floating_point() == b.is_floating_point()


@contextlib.contextmanager
def naming_model_file(file: Path) -> Iterator[None]:
    """Within it, errors about what a file describes name the file."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"{file}: {error}") from None
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{file}: {error}") from None
    except (RuntimeError, MemoryError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{file} describes a model that cannot be built ({reason}). It is damaged, or memory does not suffice."
        ) from None


def check_depth(settings: AutoencoderConfig, num: int, *, networks: Sequence[str] = ("unet", "encoder")) -> None:
    """Refuses networks of more blocks than there are tensors, before they are built.

    Args:
        settings: of the networks.
        num: of tensors.
        networks: those that are built from the settings.

    Raises:
        ValueError: it is so.
    """
    for name in networks:
        net = getattr(settings, name)
        blocks = len(net.channel_mult) * net.blocks_per_level
        if blocks > num:
            raise ValueError(
                f"a network of {blocks:,} blocks is described, but there are only {num:,} tensors. One of them is damaged."
            )
