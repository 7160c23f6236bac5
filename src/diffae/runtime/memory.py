"""The memory of the process: how much it has held, and that the allocator keeps what was freed. Standard library only."""

import contextlib
import ctypes
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h."""
KEPT = 2**30
"""Bytes: a larger piece is asked for on its own, and given back when it is freed."""


def keep_freed() -> bool:
    """Tells glibc to keep freed memory for what is allocated next; elsewhere it does nothing, and says so by False.

    Otherwise a tensor of more than 32 MiB is mapped anew each time that it is made, page after page by the kernel: a training step
    on 64 images of 64 px took 2.4 times as long. What the process has held at most stays with it until it ends.
    """
    return _mallopt((M_MMAP_THRESHOLD, KEPT), (M_TRIM_THRESHOLD, 2**31 - 1))


def share_arenas(num: int) -> bool:
    """Tells glibc that threads share this many of its arenas; elsewhere it does nothing, and says so by False.

    Otherwise each of up to eight threads a core gets one of its own, which keeps what was freed in it: a server whose requests
    go from thread to thread grows until all have seen the largest.
    """
    return _mallopt((M_ARENA_MAX, num))


def _mallopt(*settings: tuple[int, int]) -> bool:
    """Sets parameters of glibc's allocator, and says whether all were taken."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return all(mallopt(what, value) for what, value in settings)
    return False


class OutOfMemory(RuntimeError):
    """There is not enough memory, and the message says what helps."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, of the process or of a device, and not yet what helps."""
    if isinstance(error, OutOfMemory):
        return False
    return type(error).__name__ in ("OutOfMemoryError", "MemoryError") or "DefaultCPUAllocator: can't allocate memory" in str(error)


def peak() -> float:
    """Most GiB that this process has held so far; not a number where the system does not tell.

    Not `getrusage`, whose peak a new process begins with its parent's.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM")), float("nan"))
