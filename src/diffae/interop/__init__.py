"""Weights and formats of others, in and out. Foreign conventions and key names live here and nowhere else."""

from diffae.interop import official, weights

__all__ = ["official", "weights"]
