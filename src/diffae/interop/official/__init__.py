"""The authors' checkpoints (github.com/phizaz/diffae), read exactly.

Their settings are translated in `settings`; the correspondence of names is spelled out in `names`, module by module, and checked
both ways: a weight of ours that the file lacks, or a weight of the file that we have no place for, is an error.
"""

from diffae import _moved
from diffae.interop.official.checkpoint import load
from diffae.interop.official.classifier import CELEBA_ATTRIBUTES, load_classifier
from diffae.interop.official.published import PUBLISHED, find, imported_folder
from diffae.interop.official.settings import SUPPORTED, autoencoder_config, preparation, prior_config

__all__ = [
    "CELEBA_ATTRIBUTES",
    "PUBLISHED",
    "SUPPORTED",
    "autoencoder_config",
    "find",
    "imported_folder",
    "load",
    "load_classifier",
    "preparation",
    "prior_config",
]

_moved.answer(__name__)
