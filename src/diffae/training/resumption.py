"""What a run directory keeps so that a run that goes on is the same run: its configuration, and which images it began with."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from diffae.config import AnyRunConfig, differences, read_json, to_dict
from diffae.runtime.files import LOCK, write_text
from diffae.runtime.processor import resolve_precision
from diffae.training.subjects import Subject

R = TypeVar("R", bound=AnyRunConfig)

BUDGET = ("training.images", "training.minutes")
"""Settings that may change when a run goes on."""
WATCHED = ("training.patience", "training.tracker")
"""Settings that are always those asked for: who watches, and when that is enough."""
MEANS = ("training.accumulation", "training.recompute", "training.graphs")
"""Settings that may change too, since the gradients are the same but for rounding."""
PLACES = ("data.source", "data.labels")
"""Settings that may change too, where the images are the same: `DATA` tells."""
FILLED_IN = ("start.fresh", "start.digest", "model.features.width", "model.features.digest", "model.features.licence")
"""Settings that nobody asks for: what was found when the run began."""
DATA = "data.txt"
"""The file of a run that tells which images it began with."""
UNFINISHED = ".config.json.part"
"""All that there is of a run that died as it began."""


def resolve(asked: R, out: Path, *, say: Callable[[str], None] = lambda _: None) -> R:
    """The configuration of the run at `out`: the one asked for, or, where the run exists, its own with the new budget.

    Args:
        asked: what is asked for.
        out: the run directory.
        say: called with a sentence for each setting of `MEANS` that is another than when the run began.

    Raises:
        ValueError: no budget, or the run exists and is not the one asked for; the message names the settings. Or minutes are asked
            for where images were.
    """
    if asked.training.images is None and asked.training.minutes is None:
        raise ValueError("A run needs a budget: give training.images, or training.minutes.")
    file = out / "config.json"
    if not file.is_file():
        if out.is_dir() and any(entry.name not in (LOCK, UNFINISHED) for entry in out.iterdir()):
            raise ValueError(f"{out} is not empty and holds no run (no config.json). Give another folder.")
        training = dataclasses.replace(asked.training, precision=resolve_precision(asked.training.precision))
        return dataclasses.replace(asked, training=training)
    stored = read_json(type(asked), file)
    changed = differences(stored, asked)
    for name in ("precision", "accumulation"):
        if getattr(asked.training, name) == "auto":
            changed.pop(f"training.{name}", None)
    for name in FILLED_IN:
        changed.pop(name, None)
    refused = {name: pair for name, pair in changed.items() if name not in (*BUDGET, *WATCHED, *MEANS)}
    if (out / DATA).is_file():
        refused = {name: pair for name, pair in refused.items() if name not in PLACES}
    if refused:
        listed = ", ".join(f"{name} is {a!r} there and {b!r} now" for name, (a, b) in refused.items())
        raise ValueError(f"{out} holds a run with other settings: {listed}. Ask for the same, or give another folder.")
    if moved := {name.removeprefix("data."): pair[1] for name, pair in changed.items() if name in PLACES}:
        stored = dataclasses.replace(stored, data=dataclasses.replace(stored.data, **moved))
    for name in (name for name in MEANS if name in changed):
        then, now = changed[name]
        say(f"{name} is {now!r} from here on, and was {then!r}: the same training, but for rounding.")
        change: dict[str, Any] = {name.removeprefix("training."): now}
        stored = dataclasses.replace(stored, training=dataclasses.replace(stored.training, **change))
    watched = dataclasses.replace(stored.training, patience=asked.training.patience, tracker=asked.training.tracker)
    stored = dataclasses.replace(stored, training=watched)
    same_minutes = asked.training.images is None and asked.training.minutes == stored.training.minutes
    if same_minutes or not any(name in changed for name in BUDGET):
        return stored
    then, images, minutes = stored.training, asked.training.images, asked.training.minutes
    if images is None and minutes is not None and then.images is not None:
        if not then.minutes:
            raise ValueError(
                f"{out} was asked for {then.images:,} images, and minutes say nothing of how many follow: give --images, all "
                "that it is to see."
            )
        # As many more as there are more minutes: the rate is known, and the learning rate does not wait for it again.
        images = -(-round(then.images * minutes / then.minutes) // then.batch_size) * then.batch_size
    training = dataclasses.replace(then, images=images, minutes=minutes)
    return dataclasses.replace(stored, training=training)


def write_config(out: Path, config: AnyRunConfig) -> None:
    """Writes config.json, which `resolve` reads when the run goes on."""
    write_text(out / "config.json", json.dumps(to_dict(config), indent=2) + "\n")


def write_data(out: Path, subject: Subject) -> None:
    """Writes which images the run begins with."""
    write_text(out / DATA, subject.identity + "\n")


def check_data(out: Path, subject: Subject) -> None:
    """Refuses to go on with other data than a run began with: it would be no run of either.

    Raises:
        ValueError: the message says what the data was and is.
    """
    file, now = out / DATA, subject.identity
    began = file.read_text(encoding="utf-8").strip() if file.is_file() else now
    if began != now:
        raise ValueError(
            f"The images are not those that {out} began with. There it was {began}; now it is {now}. Bring them back, "
            f"or train in another folder. To go on with these all the same, delete {file}."
        )
