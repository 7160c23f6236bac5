"""The authors' checkpoints (github.com/phizaz/diffae), read exactly.

Their settings are translated in `settings`; the correspondence of names is spelled out in `names`, module by module, and checked
both ways: a weight of ours that the file lacks, or a weight of the file that we have no place for, is an error.
"""

from diffae.interop.official.checkpoint import load
from diffae.interop.official.classifier import CELEBA_ATTRIBUTES, load_classifier
from diffae.interop.official.published import PUBLISHED, find, home
from diffae.interop.official.settings import SUPPORTED, autoencoder_config, preparation, prior_config

__all__ = [
    "CELEBA_ATTRIBUTES",
    "PUBLISHED",
    "SUPPORTED",
    "autoencoder_config",
    "find",
    "home",
    "load",
    "load_classifier",
    "preparation",
    "prior_config",
]
