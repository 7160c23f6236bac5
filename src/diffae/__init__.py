"""Diffusion autoencoders: an image becomes a meaningful vector and a noise map, and both become the image again."""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from diffae import _moved

if TYPE_CHECKING:
    from diffae import interop
    from diffae.autoencoder import DiffusionAutoencoder
    from diffae.config import AutoencoderConfig
    from diffae.config.presets import preset
    from diffae.diffusion.ddim import DDIM
    from diffae.diffusion.inversion import Code
    from diffae.interop.weights import load, load_diffusion
    from diffae.training.estimator import DiffAETransformer

__all__ = [
    "DDIM",
    "AutoencoderConfig",
    "Code",
    "DiffusionAutoencoder",
    "interop",
    "load",
    "load_diffusion",
    "preset",
]
if importlib.util.find_spec("sklearn"):
    __all__ += ["DiffAETransformer"]
__version__ = "0.1.0"

_HOMES = {
    "DDIM": "diffae.diffusion.ddim",
    "AutoencoderConfig": "diffae.config",
    "Code": "diffae.diffusion.inversion",
    "DiffusionAutoencoder": "diffae.autoencoder",
    "DiffAETransformer": "diffae.training.estimator",
    "load": "diffae.interop.weights",
    "load_diffusion": "diffae.interop.weights",
    "preset": "diffae.config.presets",
}


_moved.forward()


def __getattr__(name: str) -> Any:
    # Public names are imported when first used, so that `diffae --help` does not wait for torch.
    if name == "interop":
        return importlib.import_module("diffae.interop")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'diffae' has no attribute {name!r}")
