"""Frozen networks whose features z_sem can be made of: Inception, timm's, transformers', a file, or a function.

A network is known by its digest: a model that decodes its features refuses another of the same name.
"""

import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffae.config import AutoencoderConfig, FeaturesConfig
from diffae.frozen.weights import load_network
from diffae.runtime.files import digest_arrays, digest_file

ALLOWED = "DIFFAE_FUNCTIONS"
"""The variable of the environment that names functions which models may have run, with spaces between."""
BATCH = 32
"""Images at a time: these networks see them large."""
PROGRAMS = (".pt", ".pth", ".ts", ".torchscript")
"""Endings of TorchScript files."""


@dataclass(frozen=True, slots=True)
class FrozenNetwork:
    """A network that is never trained here. It is part of no model: its weights are not saved with those that use it.

    Attributes:
        name: what it was asked for as.
        call: of images (n, c, h, w), normalised as it wants them, to features (n, f), or with places, which are averaged over.
        module: where its weights are, so that they go where the images are; None if there is none.
        size: height and width of the images that it sees; None sees them as they are.
        mean: of each channel on the [0, 1] scale, which it sees as 0.
        std: likewise, which it sees as 1.
        digest: identifies its weights; "" of a function, which has none.
        licence: of its weights, "" if it is not known.
        colour: whether it sees colour, so that grey images are shown to it as such.
    """

    name: str
    call: Callable[[Tensor], Tensor]
    module: nn.Module | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    digest: str = ""
    licence: str = ""
    colour: bool = True

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f"]:
        """Features of images in [-1, 1], float32.

        Raises:
            ValueError: it does not take such images, or gives no finite vector for each.
        """
        if self.module is not None:
            self.module.to(x.device)
        return torch.cat([self._features(part) for part in x.float().split(BATCH)])

    def _features(self, x: Tensor) -> Tensor:
        if self.colour and x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if self.size is not None and x.shape[-2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (self.mean, self.std))
        if self.colour and x.shape[1] != 3:
            raise ValueError(f"{self.name} sees grey images or those of 3 channels, and these have {x.shape[1]}.")
        features = self.call(((x + 1) / 2 - mean) / std)
        if not isinstance(features, Tensor) or features.dim() < 2 or len(features) != len(x):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"{self.name} should give features (n, f) of {len(x)} images, and gave {got}.")
        if features.dim() == 4:
            features = features.mean((2, 3))  # (n, f, h, w)
        elif features.dim() == 3:
            features = features.mean(1)  # (n, tokens, f)
        if features.dim() != 2 or not features.isfinite().all():
            raise ValueError(f"The features that {self.name} gives are no finite vectors: {tuple(features.shape)}.")
        return features.to(x)


def frozen_network(settings: FeaturesConfig) -> FrozenNetwork:
    """Opens the network of a configuration; the last few stay in memory.

    Raises:
        ImportError: the package that brings it is not installed.
        FileNotFoundError: there is no such file, or no such weights.
        ValueError: a name of no known kind, or other weights than those the configuration names by their digest.
    """
    if settings.network is None:
        raise ValueError("No frozen network is named: give model.features.network.")
    function = _function(settings.network)
    found = FrozenNetwork(settings.network, function, colour=False) if function else _opened(settings.network)
    if settings.digest and settings.digest != found.digest:
        raise ValueError(
            f"{settings.network} has other weights now ({found.digest[:12]}...) than when it was used first "
            f"({settings.digest[:12]}...): its features would mean something else. Bring those back."
        )
    size = found.size if settings.size is None else (settings.size, settings.size)
    return replace(found, size=size, mean=settings.mean or found.mean, std=settings.std or found.std)


def described_features(config: AutoencoderConfig) -> AutoencoderConfig:
    """The configuration with what only the network itself can tell: how many features it has, its digest, its licence."""
    if config.features.network is None or config.features.width:
        return config
    network = frozen_network(config.features)
    width = network(torch.zeros(1, config.channels, *config.image_size)).shape[1]
    features = replace(config.features, width=width, digest=network.digest, licence=network.licence)
    return replace(config, features=features)


def features_about(config: AutoencoderConfig) -> dict[str, str]:
    """What a model says of the network whose features it decodes, for people to read; empty without one."""
    features = config.features
    if features.network is None:
        return {}
    licence = features.licence or "not known here"
    weights = f"weights {features.digest[:16]}" if features.digest else "a function"
    assert config.z_dim is not None
    return {
        "z_sem": f"{config.z_dim - config.learned} of {config.z_dim} values are components of the {features.width:,} features of "
        f"{features.network} ({weights}; its licence: {licence}), which encoding needs and decoding does not"
    }


def named_features(settings: FeaturesConfig) -> FeaturesConfig:
    """What a command line asks for, by a name that holds wherever the model is loaded. The module of a function is imported.

    What is to be found of the network is left to be found: what stands there may be of the one of a model that a run starts from.
    """
    if settings.network is None:
        return FeaturesConfig()
    if _is_function(settings.network):
        _import(settings.network)
    file = Path(settings.network)
    return replace(settings, network=str(file.resolve()) if file.is_file() else settings.network, width=0, digest="", licence="")


def _import(function: str) -> None:
    """Imports the module of a function, as whoever names it wants. A model's own word is not enough: what a downloaded file says
    must not decide what is run."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    importlib.import_module(function.partition(":")[0])


def _is_function(name: str) -> bool:
    module, _, function = name.partition(":")
    return module not in ("timm", "transformers") and function.isidentifier() and all(p.isidentifier() for p in module.split("."))


def _function(name: str) -> Callable[[Tensor], Tensor] | None:
    """A function of a module that was imported already."""
    if not _is_function(name):
        return None
    module, _, function = name.partition(":")
    if name in os.environ.get(ALLOWED, "").split():
        _import(name)
    if module not in sys.modules:
        raise ImportError(
            f"{name} is a function of the module {module}, and a model alone does not have it run: import the module, or name "
            f"the function in {ALLOWED}."
        )
    found = getattr(sys.modules[module], function, None)
    if not callable(found):
        raise ImportError(f"The module {module} has no function {function}.")
    if isinstance(found, nn.Module):
        found.eval().requires_grad_(False)
    return found


@functools.lru_cache(maxsize=4)
def _opened(name: str) -> FrozenNetwork:
    kind, _, rest = name.partition(":")
    if name == "inception":
        return _inception()
    if kind == "timm" and rest:
        return _timm(name, rest)
    if kind == "transformers" and rest:
        return _transformers(name, rest)
    if Path(name).suffix in (*PROGRAMS, ".onnx"):
        if not Path(name).is_file():
            raise FileNotFoundError(f"There is no file {name}, of whose features z_sem is made.")
        return _onnx(name) if Path(name).suffix == ".onnx" else _program(name)
    raise ValueError(
        f"{name!r} is no frozen network: give inception, timm:NAME, transformers:NAME, a file of TorchScript "
        f"({', '.join(PROGRAMS)}) or ONNX, or module:function."
    )


def _inception() -> FrozenNetwork:
    module, _ = load_network("inception")
    # It resizes by itself, as its measures are defined.
    return FrozenNetwork("inception", module, module, digest=_digest(module), licence="Apache-2.0")


def _timm(name: str, model: str) -> FrozenNetwork:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"{name} is a network of timm ({error}): pip install 'diffae[encoders]'.") from None
    try:
        module: Any = timm.create_model(model, pretrained=True, num_classes=0)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(f"{name} cannot be had: {_first_line(error)}") from None
    cfg = module.pretrained_cfg
    return _prepared(
        name, module, module, size=tuple(cfg["input_size"][1:]), mean=cfg["mean"], std=cfg["std"], licence=cfg.get("license") or ""
    )


def _transformers(name: str, model: str) -> FrozenNetwork:
    try:
        from transformers import AutoModel
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError as error:
        raise ImportError(f"{name} is a network of transformers ({error}): pip install 'diffae[encoders]'.") from None
    try:
        module = AutoModel.from_pretrained(model, use_safetensors=True)
        cfg, _ = ImageProcessingMixin.get_image_processor_dict(model)
    except OSError as error:
        raise FileNotFoundError(f"{name} cannot be had: {_first_line(error)}") from None
    size = cfg.get("crop_size") or cfg.get("size") or {}
    if not isinstance(size, dict):
        size = {"height": size, "width": size}
    edge = size.get("shortest_edge")
    sides = (size.get("height", edge), size.get("width", edge))
    return _prepared(
        name,
        module,
        lambda x: _vectors(module, x),
        size=sides if all(sides) else None,
        mean=cfg.get("image_mean") or (0.5,),
        std=cfg.get("image_std") or (0.5,),
    )


def _vectors(module: Any, x: Tensor) -> Tensor:
    """What a network of transformers says of images: its embedding beside texts, its pooled output, or the mean of its tokens."""
    said = module.get_image_features(pixel_values=x) if hasattr(module, "get_image_features") else module(pixel_values=x)
    if isinstance(said, Tensor):
        return said
    pooled = getattr(said, "pooler_output", None)
    return said.last_hidden_state if pooled is None else pooled


def _program(name: str) -> FrozenNetwork:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Of TorchScript itself, in which many networks still come.
            module = torch.jit.load(name, map_location="cpu")
    except RuntimeError as error:
        raise ValueError(f"{name} is no TorchScript program: {_first_line(error)}") from None
    return replace(_prepared(name, module, module), digest=digest_file(Path(name)))


def _onnx(name: str) -> FrozenNetwork:
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(f"{name} is run by onnxruntime: pip install 'diffae[encoders]'.") from None
    session = onnxruntime.InferenceSession(name, providers=onnxruntime.get_available_providers())
    given, *others = session.get_inputs()
    if others or len(given.shape) != 4:
        raise ValueError(f"{name} should take one array of images (n, c, h, w); it takes {[i.name for i in session.get_inputs()]}.")
    _, channels, *sides = given.shape
    fixed = all(isinstance(side, int) for side in sides)

    def call(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {given.name: x.cpu().numpy()})[0]).to(x.device)

    size = tuple(sides) if fixed else None
    return FrozenNetwork(name, call, size=size, digest=digest_file(Path(name)), colour=channels == 3)


def _prepared(name: str, module: nn.Module, call: Callable[[Tensor], Tensor], **known: Any) -> FrozenNetwork:
    module.eval()
    for weight in module.parameters():
        weight.requires_grad_(False)
    known = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
    return FrozenNetwork(name, call, module, digest=_digest(module), **known)


def _digest(module: nn.Module) -> str:
    return digest_arrays({name: t.detach().cpu().float().numpy() for name, t in module.state_dict().items()})


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") + "."
