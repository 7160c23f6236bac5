"""The tables and figures of the paper, a suite each; named here, where the command line can read them without loading a network."""

from typing import Literal

SuiteName = Literal[
    "all", "reconstruction", "denoising", "generation", "attributes", "fewshot", "interpolation", "variation", "manipulation"
]
"""What can be asked for; `all` is every suite that the model and the images allow."""
