"""What a card computes by kernels of ours, in Triton, each beside the PyTorch that it takes the place of.

A kernel is a custom operator of torch, so that compilers, recomputation and whatever else looks at operators see one. Everywhere
but on a card it is plain PyTorch, as it is where Triton is absent or fails, which one warning says.
"""

import os
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

R = TypeVar("R")

enabled = os.environ.get("DIFFAE_TRITON", "1") != "0"
"""Whether kernels of ours are tried at all; the environment variable DIFFAE_TRITON=0 says no."""


def kernel_or_plain(own: Callable[[], R], plain: Callable[[], R]) -> R:
    """What `own`, by kernels of ours, gives; where they cannot be had, what `plain` gives, from then on."""
    global enabled
    if enabled:
        try:
            return own()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            enabled = False
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            warnings.warn(f"Kernels in Triton cannot be had here ({reason}); PyTorch computes in their place.", stacklevel=2)
    return plain()
