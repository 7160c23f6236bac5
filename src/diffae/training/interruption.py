"""Ctrl-C and SIGTERM while training: a run ends after the step that it is at, with everything saved."""

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Turns Ctrl-C and SIGTERM into a question asked between steps; a second Ctrl-C interrupts at once."""
    asked = False

    def handler(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    previous = {}
    with contextlib.suppress(ValueError):  # Not in the main thread: then there are no signals to handle.
        previous = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for s, old in previous.items():
            signal.signal(s, old)
