"""A run directory: what was asked for, how it went, and what came of it.

config.json             the resolved configuration
.lock                   which process trains it
metrics.jsonl           one line per logged step or validation
checkpoints/            the newest two, for going on
averages/               snapshots for `diffae average`, where training.average_every is given
data.txt                which images it began with: it goes on with no others
pictures/               fixed images and a fixed x_T, over time
model/                  the EMA weights, as `diffae.load(RUN)` reads them
tensorboard/            the metrics again
"""

import contextlib
import dataclasses
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list

from diffae.config import ComparatorRunConfig, PriorRunConfig, RunConfig, TrainingConfig, differences, read_json, to_dict
from diffae.runtime import seeding
from diffae.runtime.files import LOCK, locked, write_text
from diffae.runtime.processor import resolve_precision
from diffae.training.averages import save_averages
from diffae.training.exactness import exactly
from diffae.training.health import Health
from diffae.training.log import Log
from diffae.training.loop import HOLD, LossModule, NonFiniteLoss, Step, compile_networks, training_steps
from diffae.training.room import find_accumulation, saying_what_helps
from diffae.training.sharding import is_sharded, whole_weights
from diffae.training.state import TrainingState, checkpoint_file, newest_checkpoint
from diffae.training.subjects import Subject

AnyRunConfig = RunConfig | PriorRunConfig | ComparatorRunConfig

PLACES = ("data.source", "data.labels")
"""Those that may too, where the images are the same: `DATA` tells."""
BUDGET = ("training.images", "training.minutes")
"""Settings that may change when a run goes on."""
UNFINISHED = ".config.json.part"
"""All that there is of a run that died as it began."""
DATA = "data.txt"
"""The file of a run that tells which images it began with."""
MEANS = ("training.accumulation", "training.recompute", "training.graphs")
"""Those that may too, since the gradients are the same but for rounding."""


@dataclass(frozen=True, slots=True)
class Started:
    """Training is about to begin, or to go on."""

    config: AnyRunConfig
    images: int


@dataclass(frozen=True, slots=True)
class Stepped:
    """One optimizer step was taken."""

    step: Step
    total: int | None


@dataclass(frozen=True, slots=True)
class Logged:
    """The loss was looked at, and written down."""

    images: int
    loss: float


@dataclass(frozen=True, slots=True)
class Noted:
    """Something was decided that a reader of the log may want to know."""

    text: str


@dataclass(frozen=True, slots=True)
class Validated:
    """The averaged weights were validated."""

    images: int
    health: Health


@dataclass(frozen=True, slots=True)
class Pictured:
    """A picture was written."""

    file: Path


@dataclass(frozen=True, slots=True)
class Finished:
    """The budget is used up, or the run was asked to stop and can go on later."""

    images: int
    interrupted: bool


R = TypeVar("R", bound=AnyRunConfig)
Event = Started | Stepped | Logged | Noted | Validated | Pictured | Finished


def resolve(asked: R, out: Path, *, say: Callable[[str], None] = lambda _: None) -> R:
    """The configuration of the run at `out`: the one asked for, or, where the run exists, its own with the new budget.

    Args:
        asked: what is asked for.
        out: the run directory.
        say: told in a sentence what is another than when the run began, beside its budget.

    Raises:
        ValueError: no budget, or the run exists and is not the one asked for; the message names the settings.
    """
    if asked.training.images is None and asked.training.minutes is None:
        raise ValueError("A run needs a budget: give training.images, or training.minutes.")
    file = out / "config.json"
    if not file.is_file():
        if out.is_dir() and any(there.name not in (LOCK, UNFINISHED) for there in out.iterdir()):
            raise ValueError(f"{out} is not empty and holds no run (no config.json). Give another folder.")
        training = dataclasses.replace(asked.training, precision=resolve_precision(asked.training.precision))
        return dataclasses.replace(asked, training=training)
    stored = read_json(type(asked), file)
    changed = differences(stored, asked)
    for name in ("precision", "accumulation"):
        if getattr(asked.training, name) == "auto":
            changed.pop(f"training.{name}", None)
    refused = {name: pair for name, pair in changed.items() if name not in (*BUDGET, *MEANS)}
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
    same_minutes = asked.training.images is None and asked.training.minutes == stored.training.minutes
    if same_minutes or not any(name in changed for name in BUDGET):
        return stored
    training = dataclasses.replace(stored.training, images=asked.training.images, minutes=asked.training.minutes)
    return dataclasses.replace(stored, training=training)


def train(subject: Subject, out: Path, *, accelerator: Accelerator | None = None) -> Iterator[Event]:
    """Trains the run at `out` until its budget is used up, going on from its newest checkpoint.

    Args:
        subject: what is trained, on what; its configuration is a resolved one, see `resolve`.
        out: the run directory.
        accelerator: devices and processes; by default what `accelerate` finds.

    Yields:
        What happened, as it happens.

    Raises:
        ValueError: a damaged checkpoint, a configuration that cannot be trained, or other images than the run began with.
        InUse: another process is training there.
        NonFiniteLoss: the message names the step and the data of the batch; the newest checkpoint is intact.
    """
    accelerator = accelerator or create_accelerator()
    with locked(out, "training") if accelerator.is_main_process else contextlib.nullcontext():
        yield from _train(subject, out, accelerator)


def _train(subject: Subject, out: Path, accelerator: Accelerator) -> Iterator[Event]:
    config = subject.config
    training = config.training
    main, device = accelerator.is_main_process, accelerator.device
    newest = newest_checkpoint(out / "checkpoints")
    if newest is not None:
        _check_data(subject, out)
    torch.manual_seed(seeding.mix(training.seed, "weights"))
    model = subject.build().to(device)
    if newest is None:
        subject.begin(model)
    subject.place(device)
    loss = LossModule(model, lambda batch, draws: subject.loss(model, batch, draws))
    state = TrainingState.start(model, training, called=loss)
    compile_networks(model, training)
    if newest is not None:
        state.load(newest)
    if training.accumulation == "auto":
        parts = find_accumulation(state, loss, subject.batch, training, accelerator=accelerator)
        training = dataclasses.replace(training, accumulation=parts)
        config = dataclasses.replace(config, training=training)
        if main and parts > 1:
            yield Noted(f"A batch of {training.batch_size} is taken in {parts} parts, for which there is room")
    ema = state.ema
    if main and is_sharded(ema):
        # What is saved, validated and drawn is a whole model.
        ema = subject.build().to(device).eval().requires_grad_(False)

    def gather() -> None:
        """Brings the averaged weights, where they are sharded, to the first process's whole model. All processes have to."""
        if is_sharded(state.ema):
            weights = whole_weights(state.ema)
            if main:
                ema.load_state_dict(weights)

    def save(images: int) -> None:
        """Writes the model and a checkpoint, and keeps the newest two checkpoints. All processes have to.

        The checkpoint comes last of all that is made of its step: who dies before it is whole makes all of that again.
        """
        gather()
        if main:
            subject.save(ema, out / "model", images)
        if main or state.sharded:
            state.save(checkpoint_file(out / "checkpoints", images, sharded=state.sharded))
        if main:
            _tidy(out / "checkpoints")

    if main:
        _tidy(out / "checkpoints")
        _write_config(out, config)
        write_text(out / DATA, subject.identity + "\n")
    budget = Budget(training, started_at=state.step * training.batch_size)
    log = Log(out, images=budget.start) if main else None
    due = Due(training, images=budget.start)
    yield Started(config, budget.start)
    room = saying_what_helps(training, accelerator.num_processes)
    with stop_requested() as stop, naming(subject), exactly(device), room:
        batches = subject.batch
        steps = training_steps(state, loss, batches, training, accelerator=accelerator, total=lambda: budget.total, stop=stop)
        images, interrupted, noted = budget.start, False, False
        while not interrupted and (budget.total is None or images < budget.total):
            step = next(steps)
            images, interrupted = step.images, step.stop
            found = budget.calibrate(images, accelerator, wait=step.look)
            if found:
                config = dataclasses.replace(config, training=dataclasses.replace(training, images=budget.total))
                if main:
                    _write_config(out, config)
            yield Stepped(step, budget.total)
            if main and step.note and not noted:
                noted = True
                yield Noted(step.note)
            done = interrupted or (budget.total is not None and images >= budget.total)
            logs, saves, averages = (due(what, images) or done for what in ("log", "checkpoint", "average"))
            saves |= found
            validates, draws = (due(what, images) or (done and not interrupted) for what in ("validate", "sample"))
            if logs or saves or averages or validates or draws:
                loss_now, norm = step.look()  # Nothing is made of weights that are no numbers.
            if logs and log:
                log.write(images, {"loss": loss_now, "learning_rate": step.learning_rate, "gradient_norm": norm})
                yield Logged(images, loss_now)
            if state.averages and averages:
                save_averages(state, out / "averages", images, main=main)
            if validates or draws:
                gather()
            if log and validates:
                health = subject.validate(ema)
                if health:
                    log.write(images, health.metrics())
                    yield Validated(images, health)
            if main and draws:
                yield Pictured(subject.draw(ema, out / "pictures" / f"images-{images:012d}.png"))
            if saves:
                save(images)
    yield Finished(images, interrupted)


def create_accelerator() -> Accelerator:
    """Devices and processes as `accelerate` finds them. Of precision it knows nothing, as it knows but one a process."""
    # Gradients lie where they are passed from, which saves copies of them.
    handlers = [DistributedDataParallelKwargs(gradient_as_bucket_view=True)]
    # Unless it is told that there are processors alone, each of several processes would train as if it were the only one.
    return Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision="no", kwargs_handlers=handlers)


@contextlib.contextmanager
def naming(subject: Subject) -> Iterator[None]:
    """Within it, a loss that is not finite says what its batch was."""
    try:
        yield
    except NonFiniteLoss as error:
        raise NonFiniteLoss(error.loss, error.step, error.positions, subject.names(error.positions)) from None


class Budget:
    """How many images to see: given, or found once from the minutes and the rate of the first minute."""

    def __init__(self, config: TrainingConfig, *, started_at: int) -> None:
        self.total = config.images
        self.start = started_at
        self._minutes = config.minutes
        self._batch = config.batch_size
        self._clock: tuple[int, float] | None = None

    def calibrate(self, images: int, accelerator: Accelerator, *, wait: Callable[[], object] = lambda: None) -> bool:
        """Fixes the total when the first minute (a tenth of a shorter budget) is over; True at that moment.

        Args:
            images: seen so far.
            accelerator: whose first process decides.
            wait: until the device has seen them too.
        """
        if self.total is not None or self._minutes is None:
            return False
        if self._clock is None:
            # The first step allocates and is not typical.
            wait()
            self._clock = (images, time.monotonic())
            return False
        seconds = time.monotonic() - self._clock[1]
        decision: list[int | None] = [None]
        if seconds >= min(60.0, 6.0 * self._minutes) and images > self._clock[0]:
            wait()
            seconds = time.monotonic() - self._clock[1]
            rate = (images - self._clock[0]) / seconds
            # A new run's budget is so large that the learning rate's hold is not over yet.
            least = images / HOLD if self.start == 0 and self._minutes > 1 else images
            total = max(rate * 60 * self._minutes, least)
            decision[0] = -(-round(total) // self._batch) * self._batch
        if accelerator.num_processes > 1:
            broadcast_object_list(decision)
        self.total = decision[0]
        return self.total is not None


class Due:
    """Whether something that happens every so many images is due: once per multiple, also across a resume."""

    def __init__(self, config: TrainingConfig, *, images: int) -> None:
        self._every = {
            "log": config.log_every,
            "validate": config.validate_every,
            "sample": config.sample_every,
            "checkpoint": config.checkpoint_every,
            "average": config.average_every or 1,
        }
        self._last = dict.fromkeys(self._every, images)

    def __call__(self, what: str, images: int) -> bool:
        before, self._last[what] = self._last[what], images
        return images // self._every[what] > before // self._every[what]


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


def _tidy(folder: Path) -> None:
    """Keeps the newest two checkpoints, and nothing that a process which died has left."""
    for old in (*sorted(folder.glob("images-*"))[:-2], *folder.glob(".images-*.part")):
        shutil.rmtree(old) if old.is_dir() else old.unlink()


def _check_data(subject: Subject, out: Path) -> None:
    """Refuses to go on with other data than a run began with: it would be no run of either."""
    file, now = out / DATA, subject.identity
    began = file.read_text(encoding="utf-8").strip() if file.is_file() else now
    if began != now:
        raise ValueError(
            f"The images are not those that {out} began with. There it was {began}; now it is {now}. Bring them back, "
            f"or train in another folder. To go on with these all the same, delete {file}."
        )


def _write_config(out: Path, config: AnyRunConfig) -> None:
    write_text(out / "config.json", json.dumps(to_dict(config), indent=2) + "\n")
