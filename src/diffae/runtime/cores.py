"""Which cores this process may use, and how far others use them."""

import os
import time
from pathlib import Path

STATISTICS = Path("/proc/stat")
"""Where Linux counts what each core does."""


def usable_cores() -> set[int]:
    """The cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def busy_cores(seconds: float = 0.2) -> float | None:
    """How many of `usable_cores` others use, watched for so long while this process waits; None where nothing says it."""
    try:
        before = _counted()
        time.sleep(seconds)
        after = _counted()
    except (OSError, ValueError, KeyError):
        return None
    shares = ((busy - before[core][0], total - before[core][1]) for core, (busy, total) in after.items())
    return sum(busy / max(total, 1) for busy, total in shares)


def _counted() -> dict[int, tuple[int, int]]:
    """Of each usable core, for how long it was busy since the start, and all, in the kernel's ticks."""
    found, usable = {}, usable_cores()
    for line in STATISTICS.read_text(encoding="ascii").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in usable:
            user, nice, system, idle, waiting, *others = (int(field) for field in fields[:8])
            busy = user + nice + system + sum(others)
            found[int(name[3:])] = busy, busy + idle + waiting
    if not found:
        raise ValueError(f"{STATISTICS} counts none of the cores {sorted(usable)}.")
    return found
