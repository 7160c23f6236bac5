"""Files of the metric networks' weights -> tensors by our names."""

import importlib.util
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from diffae.frozen.inception import Inception


def read_program(path: Path) -> dict[str, Tensor]:
    """Inception from TorchScript, whose layers have the names of TensorFlow's graph; the file was checked, no code of it is run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = torch.jit.load(str(path), map_location="cpu").state_dict()
    return {key.removeprefix("net.layers."): value for key, value in tensors.items()}


def read_torchvision_inception(path: Path) -> dict[str, Tensor]:
    """Inception under torchvision's names; both list their convolutions in one order."""
    theirs: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    stems = [key.removesuffix(".conv.weight") for key in theirs if key.endswith(".conv.weight") and not key.startswith("AuxLogits")]
    ours = [key.removesuffix("weight") for key in Inception().state_dict() if key.endswith("weight")]
    if len(stems) != len(ours) or any((theirs[f"{stem}.bn.weight"] != 1).any() for stem in stems):
        raise ValueError(f"{path} is not the Inception of the Fréchet inception distance.")
    parts = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}
    return {f"{our}{a}": theirs[f"{stem}.{b}"] for our, stem in zip(ours, stems, strict=True) for a, b in parts.items()}


def read_torchvision_backbone(path: Path) -> dict[str, Tensor]:
    """The convolutions of torchvision's AlexNet or VGG16."""
    theirs: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    numbers = sorted({int(key.split(".")[1]) for key in theirs if key.startswith("features.")})
    return {f"convs.{i}.{part}": theirs[f"features.{n}.{part}"] for i, n in enumerate(numbers) for part in ("weight", "bias")}


class _ArraysOnly(pickle.Unpickler):
    """Reads dictionaries of NumPy arrays, and refuses everything else."""

    ALLOWED: ClassVar[dict[str, Any]] = {"_reconstruct": np.zeros(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self.ALLOWED:
            return self.ALLOWED[name]
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Backbone and heads from nested dictionaries of arrays, kernels as (h, w, in, out)."""
    with path.open("rb") as file:
        nested: Mapping[str, Any] = _ArraysOnly(file).load()
    backbone = next(value for key, value in nested.items() if not key.startswith("NetLinLayer"))
    tensors: dict[str, Tensor] = {}
    for i in range(len(backbone)):
        kernel, bias = (torch.from_numpy(np.array(backbone[f"Conv_{i}"][part])) for part in ("kernel", "bias"))
        tensors |= {f"convs.{i}.weight": kernel.permute(3, 2, 0, 1).contiguous(), f"convs.{i}.bias": bias}
    for i in range(5):
        tensors[f"heads.{i}"] = torch.from_numpy(np.array(nested[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])).flatten()
    return tensors


def heads_of_torchmetrics(name: str) -> dict[str, Tensor]:
    """LPIPS' heads, which torchmetrics carries."""
    package = importlib.util.find_spec("torchmetrics")
    if package is None or package.origin is None:
        raise FileNotFoundError("LPIPS' own weights come with torchmetrics: pip install 'diffae[eval]'.")
    file = Path(package.origin).parent / "functional" / "image" / "lpips_models" / f"{name}.pth"
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    return {f"heads.{i}": theirs[f"lin{i}.model.1.weight"].flatten() for i in range(5)}
