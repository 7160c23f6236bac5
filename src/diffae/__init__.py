"""Diffusion autoencoders: an image becomes a meaningful vector and a noise map, and both become the image again."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffae import interop
    from diffae.autoencoder import DiffusionAutoencoder
    from diffae.config import AutoencoderConfig
    from diffae.diffusion import DDIM
    from diffae.interop.weights import load, load_diffusion
    from diffae.inversion import Code
    from diffae.presets import preset

__all__ = ["DDIM", "AutoencoderConfig", "Code", "DiffusionAutoencoder", "interop", "load", "load_diffusion", "preset"]
__version__ = "0.1.0"

_HOMES = {
    "DDIM": "diffae.diffusion",
    "AutoencoderConfig": "diffae.config",
    "Code": "diffae.inversion",
    "DiffusionAutoencoder": "diffae.autoencoder",
    "load": "diffae.interop.weights",
    "load_diffusion": "diffae.interop.weights",
    "preset": "diffae.presets",
}


def __getattr__(name: str) -> Any:
    # Public names are imported when first used, so that `diffae --help` does not wait for torch.
    if name == "interop":
        return importlib.import_module("diffae.interop")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'diffae' has no attribute {name!r}")
