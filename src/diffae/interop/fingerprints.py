"""Which weights are which: what was fitted to z_sem belongs to the encoder that z_sem came from."""

import hashlib
import json

from torch import nn

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import to_dict
from diffae.diffusion.model import ImageDiffusion
from diffae.runtime.files import digest_arrays


def fingerprint(model: DiffusionAutoencoder) -> str:
    """Identifies the encoder's weights: codes, priors and attributes belong to one encoder."""
    return digest(model.encoder)


def digest(module: nn.Module) -> str:
    """Identifies weights."""
    return digest_arrays({name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()})


def digest_model(model: ImageDiffusion) -> str:
    """Identifies what encodes and decodes: networks and configuration, without prior and attributes."""
    parts = [digest(model.unet), *([digest(model.encoder)] if isinstance(model, DiffusionAutoencoder) else [])]
    config = to_dict(model.config)
    if model.config.features.network is None:
        # Digests are kept in files that were written before there were features.
        del config["features"], config["learned"]
    return hashlib.blake2b(json.dumps([config, *parts]).encode(), digest_size=16).hexdigest()
