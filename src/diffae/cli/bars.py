"""What a command shows while it works."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from diffae.runtime import processes

console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """A line for the person at the terminal."""
    console.print(escape(text), soft_wrap=True)


def warn(text: str) -> None:
    """A line that should not be overlooked."""
    console.print(f"[yellow]{escape(text)}[/]", soft_wrap=True)


@contextlib.contextmanager
def work_bar(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for countable work. Yields the function that moves it: (what is being done, number done, number in all)."""
    with _bar(title, _Rate(""), transient=True) as update:
        yield lambda what, done, total: update(description=what, completed=done, total=total)


@contextlib.contextmanager
def training_bar(what: str) -> Iterator[Callable[..., None]]:
    """A progress bar for training: images or codes seen, rate, loss, time left. Yields the function that moves it.

    Args:
        what: `images` or `codes`.
    """
    loss = TextColumn("{task.fields[loss]}")
    with _bar("Training", TextColumn(what), _Rate(what), loss, speed_estimate_period=60) as update:
        yield update


@contextlib.contextmanager
def _bar(title: str, *columns: ProgressColumn, **settings: Any) -> Iterator[Callable[..., None]]:
    """A progress bar with columns between count and time left; the first process alone shows it."""
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *columns, TimeRemainingColumn())
    with Progress(*shown, console=console, disable=not processes.is_first(), **settings) as bar:
        yield functools.partial(bar.update, bar.add_task(title, total=None, loss=""))


class _Rate(ProgressColumn):
    """Work done in a second."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} {self.what}/s" if task.speed else "")
