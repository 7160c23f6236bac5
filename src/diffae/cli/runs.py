"""Training runs as the terminal shows them: started or continued, with a bar and a line for each event."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from diffae.cli import inputs
from diffae.cli.bars import say, training_bar, warn, work_bar
from diffae.config import ComparatorRunConfig, RunConfig, TrainingConfig
from diffae.runtime import processes

if TYPE_CHECKING:
    from accelerate import Accelerator

    from diffae.data import ImageSet
    from diffae.training.subjects import Subject


def train(
    asked: RunConfig | ComparatorRunConfig, out: Path, *, first_look: bool = False,
    divide: "Callable[[ImageSet], ImageSet] | None" = None,
) -> "ImageSet | None":  # fmt: skip
    """Starts the run at `out`, or goes on with it, and shows its progress.

    Args:
        asked: the configuration; what an earlier start has fixed goes before it.
        out: the run directory.
        first_look: whether a new run begins with a picture of its images.
        divide: divides the images, by default as they are configured.

    Returns:
        The images; None in all processes but the first.
    """
    from diffae.config import spelled
    from diffae.training.comparators import ComparatorSubject
    from diffae.training.distillation import DistilledSubject
    from diffae.training.run import create_accelerator, resolve
    from diffae.training.subjects import ImageSubject

    config: RunConfig | ComparatorRunConfig = resolve(asked, out, say=warn)
    accelerator = create_accelerator()
    if processes.is_first() and accelerator.device.type == "cpu":
        _take_free_threads()
    data = inputs.prepared(config.data, config.model, divide=divide)
    if processes.is_first():
        size = spelled(config.model.image_size)
        say(f"{len(data.train):,} images to train on, {len(data.validation):,} held out, {size}, {config.training.precision}")
        say(f"Read as {data.meaning}")
        if first_look and not (out / "checkpoints").is_dir():
            say(f"First picture: {_first_look(data, out)}")
    with work_bar("Features") as update:
        if not isinstance(config, RunConfig):
            subject: Subject = ComparatorSubject(config, data)
        else:
            subject = (DistilledSubject if config.model.unet.jumps else ImageSubject)(config, data, progress=update)
    show_training(subject, out, accelerator, what="images")
    if processes.is_first():
        say(f"Done: {out}." + (f" Load it with diffae.load({str(out)!r})." if isinstance(config, RunConfig) else ""))
    return data if processes.is_first() else None


def show_training(subject: "Subject", out: Path, accelerator: "Accelerator", *, what: str) -> None:
    """Trains to the end, and shows each event as it happens.

    Args:
        subject: what is trained.
        out: the run directory.
        accelerator: devices and processes.
        what: the run's unit, `images` or `codes`.

    Raises:
        SystemExit: training was interrupted, so nothing that needs a whole model may go on; 130, as after Ctrl-C elsewhere.
    """
    from diffae.training.run import Finished, Logged, Noted, Pictured, Started, Stepped, Validated
    from diffae.training.run import train as events

    with training_bar(what) as update:
        for event in events(subject, out, accelerator=accelerator):
            if not accelerator.is_main_process:
                interrupted = isinstance(event, Finished) and event.interrupted
                continue
            match event:
                case Started(images=images):
                    before = images
                    if images:
                        say(f"Going on after {images:,} {what}")
                case Stepped(step=step, total=total):
                    update(completed=step.images, total=total)
                case Logged(loss=loss):
                    update(loss=f"loss {loss:.4f}")
                case Noted(text=text):
                    say(text)
                case Validated(images=images, health=health):
                    say(f"{images:>9,} {what}: {health.summary()}")
                    for warning in health.warnings():
                        warn(warning)
                case Pictured(file=file):
                    say(f"Picture: {file}")
                case Finished(images=images, interrupted=interrupted):
                    if interrupted:
                        say(f"Stopped after {images:,} {what}; everything is saved. The same command goes on from here.")
                    elif images == before:
                        say(f"{images:,} {what} were seen already, and no more are asked for: nothing was trained.")
    if interrupted:
        processes.barrier()  # One that failed earlier would have the first ended while it still saves.
        raise SystemExit(130)


def with_budget(
    training: TrainingConfig, minutes: float | None, images: int | None, *, out: Path | None = None,
    usual: TrainingConfig | None = None,
) -> TrainingConfig:  # fmt: skip
    """The training settings with the budget of the command line; where that names none, with the one of the run that goes on.

    Args:
        training: the settings.
        minutes: named.
        images: named.
        out: where the run is, which may be one that goes on.
        usual: the settings of the preset: another budget than theirs was named too.
    """
    if minutes is not None or images is not None:
        return dataclasses.replace(training, minutes=minutes, images=images)
    named = usual is not None and (training.minutes, training.images) != (usual.minutes, usual.images)
    if named or out is None or not (file := out / "config.json").is_file():
        return training
    with contextlib.suppress(ValueError, KeyError, TypeError):  # Damaged: whoever reads all of it says so.
        stored = json.loads(file.read_text(encoding="utf-8"))["training"]
        return dataclasses.replace(training, minutes=stored["minutes"], images=stored["images"])
    return training


def _take_free_threads() -> None:
    """Where others use the cores that several threads of a network would run on, takes as many threads as cores are free, and says
    so: each step waits for its slowest thread. How many the user chose stays."""
    import torch

    from diffae.runtime.cores import busy_cores, usable_cores

    cores, threads = len(usable_cores()), torch.get_num_threads()
    busy = busy_cores() if threads > 1 else None
    if busy is None or threads <= max(1.0, cores - busy + 0.5):
        return
    free = max(1, round(cores - busy))
    used = f"Other processes use {busy:.1f} of {cores} cores"
    if "OMP_NUM_THREADS" in os.environ:
        warn(
            f"{used}, and the network's {threads} threads (OMP_NUM_THREADS) wait for each other: training may be several times "
            f"slower than with OMP_NUM_THREADS={free}."
        )
    else:
        torch.set_num_threads(free)
        warn(
            f"{used}: training takes {free} of {threads} threads, as more would wait for each other. When cores are free, stop it "
            "(Ctrl-C) and give the same command again: it goes on with all."
        )


def _first_look(data: "ImageSet", out: Path) -> Path:
    """Saves a contact sheet of training images, the first thing to see of a run."""
    from diffae.pictures import save_png, scale_for, sheet

    x = data.images(data.train[:48])
    return save_png(sheet([x[i : i + 12] for i in range(0, len(x), 12)], scale=scale_for(x)), out / "pictures" / "data.png")
