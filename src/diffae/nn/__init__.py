"""Networks. None of them knows that it is diffused."""

from diffae.nn.encoder import SemanticEncoder
from diffae.nn.mean import MeanDecoder
from diffae.nn.mlp import SkipMLP
from diffae.nn.unet import UNet

__all__ = ["MeanDecoder", "SemanticEncoder", "SkipMLP", "UNet"]
