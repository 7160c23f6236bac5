"""Averages of a run's weights over any length of its past, chosen after training.

A run keeps two averages beside its moving average. Their profiles are powers of time, and both are written now and then. Any other
profile is, to little error, a weighted sum of these snapshots (Karras et al. 2024, *Analyzing and Improving the Training
Dynamics of Diffusion Models*, section 3). So a length is chosen without a run of its own.

    profile(tau; t, g) = (g + 1) tau^g / t^(g + 1),   tau in 0..t,   in optimizer steps
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from diffae.runtime.files import replacing
from diffae.training.sharding import whole_weights
from diffae.training.state import AVERAGES, TrainingState, checkpoint_file, exponent

FORMAT = "diffae-averages-1"


def save_averages(state: TrainingState[Any], folder: Path, images: int, *, main: bool = True) -> Path:
    """Writes the state's two averages to one safetensors file, atomically. All processes have to call this; `main` writes."""
    file = checkpoint_file(folder, images)
    tensors = {f"{i}/{name}": v for i, model in enumerate(state.averages) for name, v in whole_weights(model).items()}
    if not main:
        return file
    with replacing(file) as part:
        metadata = {"format": FORMAT, "step": str(state.step), "images": str(images)}
        safetensors.torch.save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part, metadata=metadata)
    return file


def drop_averages(folder: Path, *, beyond: int) -> None:
    """Deletes those of more images than a run goes on from: it may never come there again, or otherwise."""
    for file in folder.glob("images-*.safetensors"):
        if file > checkpoint_file(folder, beyond):
            file.unlink()


def average(folder: Path, lengths: Sequence[float]) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """The weights of a run, averaged over its past, for each length.

    Args:
        folder: holds the files of `save_averages`.
        lengths: standard deviation of each profile over time, as a share of the time of the newest snapshot: .05 is short, .2 long.

    Yields:
        Each length, and the names and values of a model's `state_dict`.

    Raises:
        FileNotFoundError: the run has kept no averages.
        ValueError: a length that no profile has, or a damaged file.
    """
    files = sorted(folder.glob("images-*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no averages: they are kept where training.average_every is given.")
    steps = [_step(file) for file in files]
    for length in lengths:
        weights = combination(steps, length)
        total: dict[str, Tensor] = {}
        fixed: dict[str, Tensor] = {}  # What no step has changed: weights that are frozen, what was fitted before the first.
        changed = set()
        for file, of_file in zip(files, weights, strict=True):
            for name, value in safetensors.torch.load_file(file).items():
                which, name = name.split("/", 1)
                part = value.double() * of_file[int(which)]
                total[name] = total[name] + part if name in total else part
                if not torch.equal(fixed.setdefault(name, value), value):
                    changed.add(name)
        yield length, {name: value.float() if name in changed else fixed[name] for name, value in total.items()}


def combination(steps: Sequence[int], length: float) -> np.ndarray:
    """Weights of the snapshots, 1 in all, whose weighted sum is nearest to the profile of this length at the last snapshot (least
    squares). Of few snapshots the nearest sum without that would be smaller than an average: a network of smaller weights.

    Args:
        steps: of each snapshot, rising.
        length: the profile's standard deviation, as a share of the last step.

    Returns:
        (snapshots, 2), float64: a weight for each snapshot and each of `AVERAGES`.
    """
    times = np.repeat(np.array(steps, dtype=np.float64), len(AVERAGES))
    powers = np.tile([exponent(profile) for profile in AVERAGES], len(steps))
    among = _overlap(times[:, None], powers[:, None], times[None], powers[None])
    wanted = _overlap(times, powers, times[-1], exponent(length))
    # Bordered by what their sum is (Lagrange), in units of the last step.
    bordered = np.pad(among * times[-1], (0, 1), constant_values=1.0)
    bordered[-1, -1] = 0
    weights = np.linalg.lstsq(bordered, np.append(wanted * times[-1], 1.0), rcond=None)[0][:-1]
    return weights.reshape(len(steps), len(AVERAGES))


def _overlap(t: np.ndarray, g: np.ndarray, u: np.ndarray | float, h: np.ndarray | float) -> np.ndarray:
    """Integral of the product of two profiles, over the time of both. Ratios are raised: powers of a step number overflow."""
    first, last = np.minimum(t, u), np.maximum(t, u)
    power = np.where(t < u, h, g)
    return (g + 1) * (h + 1) / (g + h + 1) * (first / last) ** power / last


def _step(file: Path) -> int:
    try:
        with safetensors.safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"The averages in {file} are damaged or cut short ({error}). Delete the file to go without it.") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{file} does not hold averages of a diffae run.")
    return int(metadata["step"])
