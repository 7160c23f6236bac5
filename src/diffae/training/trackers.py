"""Metrics and pictures beside TensorBoard's, to whatever `accelerate` knows: wandb, mlflow, trackio ..."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

PROJECT = "diffae"
"""Under which trackers find runs."""
TITLED = {"mlflow": "run_name", "trackio": "name", "wandb": "name"}
"""What trackers call the name of a run, where they take one."""


class Trackers:
    """The trackers of one run. One that fails is left out from there on: training goes on without it.

    Args:
        kinds: their classes, by name; see `tracker_kinds`.
        out: the run directory, after which the run is named.
        settings: of the run, nested as config.json is.
    """

    def __init__(self, kinds: Mapping[str, Any], out: Path, settings: Mapping[str, Any]) -> None:
        self._all = dict(kinds)
        self._shows: dict[str, Callable[[int, Path], None]] = {}
        self._notes: list[str] = []
        title = out.resolve().name

        def begin(name: str, kind: Any) -> None:
            options = {TITLED[name]: title} if name in TITLED else {}
            if kind.requires_logging_directory:
                options["logging_dir"] = str(out / name)
            self._all[name] = tracker = kind(PROJECT, **options)
            if hasattr(tracker, "start"):  # Of earlier versions of accelerate the constructor did.
                tracker.start()
            tracker.store_init_configuration(dict(_flat(settings)))
            if show := _shown_by(name, tracker):
                self._shows[name] = show
            else:
                self._notes.append(f"{name} is sent no pictures: they are in {out / 'pictures'}")

        self._each(begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._each(lambda name, tracker: tracker.finish())

    def notes(self) -> list[str]:
        """What is to be said of them since the last time."""
        notes, self._notes = self._notes, []
        return notes

    def write(self, images: int, values: Mapping[str, float]) -> None:
        """Metrics after so many images."""
        self._each(lambda name, tracker: tracker.log(dict(values), step=images))

    def show(self, images: int, file: Path) -> None:
        """A picture after so many images."""
        for name, show in list(self._shows.items()):
            try:
                show(images, file)
            except Exception as error:
                del self._shows[name]
                self._notes.append(f"{name} takes no pictures ({type(error).__name__}: {error}): they are in {file.parent}")

    def _each(self, do: Callable[[str, Any], None]) -> None:
        for name, tracker in list(self._all.items()):
            try:
                do(name, tracker)
            except Exception as error:  # Whatever it is, hours of training count for more.
                del self._all[name]
                self._shows.pop(name, None)
                self._notes.append(
                    f"{name} failed ({type(error).__name__}: {error}) and is left out; metrics.jsonl has all metrics"
                )


def tracker_kinds(names: Sequence[str]) -> dict[str, Any]:
    """The class of each tracker of these names, as `accelerate` has them, whose packages are there.

    Raises:
        ValueError: accelerate knows no tracker of such a name.
        ImportError: its package is not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kinds = {str(getattr(key, "value", key)): kind for key, kind in LOGGER_TYPE_TO_CLASS.items()}
    known = ", ".join(name for name in kinds if name != "tensorboard")
    for name in names:
        if name not in kinds or name == "tensorboard":
            there = "the run's own TensorBoard is written anyway" if name == "tensorboard" else f"there is no {name!r}"
            raise ValueError(f"training.tracker: {there}; accelerate knows {known}.")
        if kinds[name].__module__.startswith("accelerate"):
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise ImportError(f"training.tracker: {name} is not installed ({error}): pip install {name}.") from None
    return {name: kinds[name] for name in names}


def _shown_by(name: str, tracker: Any) -> Callable[[int, Path], None] | None:
    """What sends a picture, where it is known how; what accelerate calls `log_images` takes another thing of each tracker."""
    if name in ("wandb", "swanlab"):
        return lambda images, file: tracker.log_images({"images": [np.asarray(Image.open(file).convert("RGB"))]}, step=images)
    if name == "mlflow":
        return lambda images, file: tracker.log_artifact(str(file), artifact_path="pictures")
    if name == "trackio":
        picture = importlib.import_module("trackio").Image
        return lambda images, file: tracker.log({"images": picture(str(file))}, step=images)
    return None


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, bool | str | float | int | None]]:
    """Settings by names with dots; lists in words."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value if isinstance(value, bool | str | float | int | None) else str(value)
