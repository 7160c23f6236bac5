"""What a command shows while it works."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from diffae.runtime import processes

console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """A line for the person at the terminal."""
    console.print(escape(text), soft_wrap=True)


def warn(text: str) -> None:
    """A line that should not be overlooked."""
    console.print(f"[yellow]{escape(text)}[/]", soft_wrap=True)


class _Rate(ProgressColumn):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} {self.what}/s" if task.speed else "")


@contextlib.contextmanager
def work_bar(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for countable work; yields the function that moves it."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(""), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not processes.is_first()) as bar:
        task = bar.add_task(title, total=None, start=True)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


@contextlib.contextmanager
def training_bar(what: str, *, visible: bool) -> Iterator[tuple[Progress, TaskID]]:
    """Images (or codes) seen, rate, loss, time left."""
    columns = [
        TextColumn("Training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what),
        _Rate(what),
        TextColumn("{task.fields[loss]}"),
    ]
    with Progress(*columns, TimeRemainingColumn(), console=console, speed_estimate_period=60, disable=not visible) as bar:
        yield bar, bar.add_task("", total=None, loss="")
