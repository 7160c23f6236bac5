"""Which networks a configuration describes."""

from torch import nn

from diffae.config import AutoencoderConfig
from diffae.frozen.encoder import FeatureEncoder
from diffae.nn import MeanDecoder, SemanticEncoder, UNet


def configured(network: object) -> bool:
    """Whether a network is built from a configuration, not one of the user's own."""
    return network is None or type(network) in (UNet, SemanticEncoder, FeatureEncoder)


def encoder_of(config: AutoencoderConfig) -> nn.Module:
    """The semantic encoder that a configuration describes: our CNN, or one that stands on a frozen network."""
    if config.features.network is not None:
        return FeatureEncoder(config)
    assert config.z_dim is not None
    return SemanticEncoder(config.encoder, image_size=config.image_size, channels=config.channels, z_dim=config.z_dim)


def mean_decoder_of(config: AutoencoderConfig) -> MeanDecoder | None:
    """The mean decoder that a configuration describes, if it does."""
    if not config.mean_decoder:
        return None
    assert config.z_dim is not None
    return MeanDecoder(config.encoder, image_size=config.image_size, channels=config.channels, z_dim=config.z_dim)
