"""Which weights are which: what was fitted to z_sem belongs to the encoder that z_sem came from."""

import hashlib
import json

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import to_dict
from diffae.diffusion.model import ImageDiffusion
from diffae.runtime.weights import digest_module


def fingerprint(model: DiffusionAutoencoder) -> str:
    """Identifies the encoder's weights: codes, priors and attributes belong to one encoder."""
    return digest_module(model.encoder)


def digest_model(model: ImageDiffusion) -> str:
    """Identifies what encodes and decodes: networks and configuration, without prior and attributes."""
    networks = [model.unet, *([model.encoder, model.mean_decoder] if isinstance(model, DiffusionAutoencoder) else [])]
    parts = [digest_module(network) for network in networks if network is not None]
    config = to_dict(model.config)
    if model.config.features.network is None:
        # Digests are kept in files that were written before there were features.
        del config["features"], config["learned"]
    if not model.config.unet.jumps:
        del config["unet"]["jumps"]  # Likewise, before networks jumped.
    if not model.config.unet.evened:
        del config["unet"]["evened"]
    if not model.config.mean_decoder:
        del config["mean_decoder"]
    return hashlib.blake2b(json.dumps([config, *parts]).encode(), digest_size=16).hexdigest()
