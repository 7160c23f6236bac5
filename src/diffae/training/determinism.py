"""Kernels that give the same bits for the same numbers, so that a run that goes on is the run."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Within it, a card computes by kernels that repeat themselves; an operation without one is an error. Processors do anyway."""
    if device.type == "cpu":
        yield
        return
    # Of cuBLAS: its workspace must not depend on what else is going on. It reads this when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    filled, chosen = settings.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    # Memory that is written before it is read need not be filled; and a choice by the clock is another each time.
    settings.fill_uninitialized_memory, torch.backends.cudnn.benchmark = False, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory, torch.backends.cudnn.benchmark = filled, chosen
