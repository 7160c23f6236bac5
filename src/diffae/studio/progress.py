"""How far work is, and how long it will take: what the bars of the page say."""

import contextlib
import threading
import time
from collections.abc import Iterator

import gradio as gr

from diffae.studio.workshop import Workshop


def duration_text(seconds: float) -> str:
    """A time to wait, as people say it."""
    if seconds < 1:
        return "less than a second"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


class TimeLeft:
    """A bar of the page with the time left.

    It is called as long work tells how far it is: (what is being done, number done, number in all). The time that one takes is
    known from those that are done, and at first from the last time that the same was done, for whomever.

    Args:
        show: Gradio's bar.
        shop: knows how long work took before, and whether the studio has ended: work ends then too.
        gone: set when the visitor has left: work ends then as well, with a RuntimeError.
    """

    def __init__(self, show: gr.Progress, shop: Workshop, gone: threading.Event | None = None) -> None:
        self._show, self._shop, self._gone = show, shop, gone
        self._what, self._began = "", 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        self._shop.check_open()
        if self._gone is not None and self._gone.is_set():
            raise RuntimeError("The visitor has left.")
        now = time.monotonic()
        if what != self._what:
            self._what, self._began = what, now
        spent = now - self._began
        if done:
            self._shop.paces[what] = spent / done
        pace = self._shop.paces.get(what)
        left = "time left is being measured" if pace is None else f"{duration_text(max(0.0, pace * total - spent))} left"
        # What is only guessed from before goes on meanwhile, but does not arrive.
        share = done / max(total, 1) if done or not pace else min(0.95, spent / (pace * max(total, 1)))
        self._show(share, desc=f"{what}: {left}")

    @contextlib.contextmanager
    def asking(self, what: str, images: int) -> Iterator[None]:
        """Within it each image that the network is asked about counts.

        Args:
            what: is being done.
            images: about so many it will be asked, each at each step counted.
        """
        done = 0

        def tell(num: int) -> None:
            nonlocal done
            done += num
            self(what, min(done, images), images)

        self(what, 0, images)
        with self._shop.watched(tell):
            yield

    @contextlib.contextmanager
    def of_unknown_length(self, what: str) -> Iterator[None]:
        """Within it the bar goes on with each network call, of which it is not known how many there will be; the time left is that
        of the last time."""
        self(what, 0, 1)
        with self._shop.watched(lambda num: self(what, 0, 1)):
            yield
        self(what, 1, 1)
