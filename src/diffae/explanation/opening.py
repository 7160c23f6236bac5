"""Classifiers by the names that a command line gives them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffae.evaluation.pages.figures import Progress
from diffae.frozen.programs import PROGRAMS, function, import_object, is_function, onnx, program
from diffae.metrics.judge import train_judge
from diffae.semantics.classifiers import Classifier

if TYPE_CHECKING:
    from diffae.data.dataset import ImageSet

SEEN = 12_000
"""Images that a classifier trained here sees, those of a set again and again."""
MOST_PASSES = 40


def open_classifier(name: str) -> Any:
    """What `module:function` names, or the program in a file of TorchScript or ONNX: see `semantics.classifiers.Classifier`.

    Whoever names it has it run.

    Raises:
        ImportError: it cannot be imported, or what runs it is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is none of these.
    """
    if is_function(name):
        found = import_object(name)
        return function(name).call if isinstance(found, torch.nn.Module) else found
    if Path(name).suffix in (*PROGRAMS, ".onnx"):
        if not Path(name).is_file():
            raise FileNotFoundError(f"There is no file {name}.")
        network = onnx(name) if name.endswith(".onnx") else program(name)
        size, call = network.size, network.call

        def sized(x: Tensor) -> Tensor:
            # An ONNX file may say how large images are to be.
            return call(x if size in (None, tuple(x.shape[-2:])) else F.interpolate(x, size, mode="bilinear", antialias=True))

        return sized
    raise ValueError(
        f"{name!r} is no classifier: give a column of the labels, module:function, or a file of TorchScript "
        f"({', '.join(PROGRAMS)}) or ONNX."
    )


def learned(
    data: "ImageSet", indices: np.ndarray, y: np.ndarray, *, target: int | None, seed: int, progress: Progress
) -> Classifier:
    """A CNN on pixels that learns labels of 0 and 1, or of numbers, by itself: it knows nothing of z_sem.

    Args:
        data: images.
        indices: those to learn from.
        y: (m,), their labels, NaN where unknown.
        target: see `Classifier`.
        seed: of the network; that of an odd one is wider.
        progress: told how far it is.

    Raises:
        ValueError: the labels are all the same.
    """
    indices, y = indices[~np.isnan(y)], y[~np.isnan(y)]
    values = np.unique(y)
    if len(values) < 2:
        raise ValueError(f"All {len(y)} labelled images have the same label, {values.tolist()}: there is nothing to learn.")
    least, most = float(values[0]), float(values[-1])
    # Numbers between the least and the largest are learned as how probable the largest is.
    soft = torch.from_numpy((y - least) / (most - least)).float()[:, None]
    network = train_judge(
        ["label"], lambda i: data.images(indices[i.numpy()]), soft, epochs=max(1, min(MOST_PASSES, SEEN // len(indices))),
        batch_size=min(128, max(16, len(indices) // 16)), seed=seed, width=32 + 16 * (seed % 2),
        flip=data.config.flip, progress=progress,
    )  # fmt: skip
    for weight in network.parameters():
        weight.requires_grad_(False)
    if set(values) == {0.0, 1.0}:
        return Classifier(network, "logit", target)
    return Classifier(lambda x: least + (most - least) * network(x)[:, 0].sigmoid(), "value")
