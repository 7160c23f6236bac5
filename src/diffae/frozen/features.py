"""Frozen networks whose features z_sem can be made of: Inception, timm's, transformers', a file, or a function.

A network is known by its digest: a model that decodes its features refuses another of the same name.
"""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from diffae.config import AutoencoderConfig, FeaturesConfig
from diffae.frozen.network import FrozenNetwork, prepared
from diffae.frozen.programs import ALLOWED, PROGRAMS, function, is_function, is_program, onnx, permit, permitted, program
from diffae.frozen.weights import load_network
from diffae.runtime.files import first_line
from diffae.runtime.seeding import Draws
from diffae.runtime.weights import digest_module


def frozen_network(settings: FeaturesConfig) -> FrozenNetwork:
    """Opens the network of a configuration; the last few stay in memory.

    Raises:
        ImportError: the package that brings it is not installed.
        FileNotFoundError: there is no such file, or no such weights.
        ValueError: a name of no known kind, or other weights than those the configuration names by their digest.
    """
    if settings.network is None:
        raise ValueError("No frozen network is named: give model.features.network.")
    _check_permitted(settings.network)
    found = function(settings.network) if is_function(settings.network) else _opened(settings.network)
    if settings.digest and settings.digest != found.digest:
        raise ValueError(
            f"{settings.network} has other weights now ({found.digest[:12]}...) than when it was used first "
            f"({settings.digest[:12]}...): its features would mean something else. Bring those back."
        )
    size = found.size if settings.size is None else (settings.size, settings.size)
    return replace(found, size=size, mean=settings.mean or found.mean, std=settings.std or found.std)


def _check_permitted(name: str) -> None:
    if is_program(name) and not permitted(name):
        raise ImportError(
            f"z_sem is made of what {name} says, which is a program. A model alone does not have it run: name it in {ALLOWED} "
            "(in quotes where it holds blanks), in `diffae.frozen.programs.permit`, or where it is trained, "
            "--model.features.network."
        )


def described_features(config: AutoencoderConfig) -> AutoencoderConfig:
    """The configuration with what only the network itself can tell: how many features it has, its digest, its licence."""
    if config.features.network is None or config.features.width:
        return config
    permit(config.features.network)  # Whoever makes a configuration names it; one that was read has a width.
    network = frozen_network(config.features)
    width = network(fixed_image((config.channels, *config.image_size))).shape[1]
    features = replace(config.features, width=width, digest=network.digest, licence=network.licence)
    return replace(config, features=features)


def fixed_image(shape: tuple[int, ...]) -> Float[Tensor, "1 c h w"]:
    """The image that networks are known by, in [-1, 1]."""
    return Draws.of(1, 0).uniform("a fixed image", shape) * 2 - 1


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
    """What a command line asks for, by a name that holds wherever the model is loaded.

    Programs have to be permitted: the name may be that of a model that a run starts from. What is to be found of the network is
    left to be found: what stands there may be of the one of such a model.
    """
    if settings.network is None:
        return FeaturesConfig()
    name, (kind, _, rest) = settings.network, settings.network.partition(":")
    if kind in ("timm", "transformers"):
        rest, local = rest.removeprefix("local-dir:"), "local-dir:" if rest.startswith("local-dir:") else ""
        name = f"{kind}:{local}{Path(rest).resolve()}" if Path(rest).is_dir() else name
    elif name != "inception" and Path(name).is_file():
        name = str(Path(name).resolve())
    _check_permitted(name)
    return replace(settings, network=name, width=0, digest="", licence="")


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
        return onnx(name) if Path(name).suffix == ".onnx" else program(name)
    raise ValueError(
        f"{name!r} is no frozen network: give inception, timm:NAME, transformers:NAME, a file of TorchScript "
        f"({', '.join(PROGRAMS)}) or ONNX, or module:function."
    )


def _inception() -> FrozenNetwork:
    module, _ = load_network("inception")
    # It resizes by itself, as its measures are defined.
    return FrozenNetwork("inception", module, module, digest=digest_module(module), licence="Apache-2.0")


def _timm(name: str, model: str) -> FrozenNetwork:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"{name} is a network of timm ({error}): pip install 'diffae[encoders]'.") from None
    except RuntimeError as error:  # Of torchvision: "operator torchvision::nms does not exist".
        raise ImportError(
            f"{name} is a network of timm, which cannot be imported ({first_line(error)}): torch and torchvision are of different "
            "builds. Install both from the same index."
        ) from None
    try:
        module: Any = timm.create_model(model, pretrained=True, num_classes=0)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(f"{name} cannot be had: {first_line(error)}.") from None
    cfg = module.pretrained_cfg
    return prepared(
        name, module, module, size=tuple(cfg["input_size"][1:]), mean=cfg["mean"], std=cfg["std"], licence=cfg.get("license") or ""
    )


def _transformers(name: str, model: str) -> FrozenNetwork:
    try:
        from transformers import AutoModel
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError as error:
        raise ImportError(f"{name} is a network of transformers ({error}): pip install 'diffae[encoders]'.") from None
    try:
        module = AutoModel.from_pretrained(model, use_safetensors=True, trust_remote_code=False)
        cfg, _ = ImageProcessingMixin.get_image_processor_dict(model)
    except OSError as error:
        raise FileNotFoundError(f"{name} cannot be had: {first_line(error)}.") from None
    size = cfg.get("crop_size") or cfg.get("size") or {}
    if not isinstance(size, dict):
        size = {"height": size, "width": size}
    edge = size.get("shortest_edge")
    sides = (size.get("height", edge), size.get("width", edge))
    return prepared(
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
