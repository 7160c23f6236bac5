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
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from diffae.config import to_dict
from diffae.runtime import processes, seeding
from diffae.runtime.files import locked
from diffae.training.accumulation import explaining_out_of_memory, find_accumulation
from diffae.training.averages import drop_averages, save_averages
from diffae.training.budget import Budget, Due
from diffae.training.determinism import deterministic
from diffae.training.early_stopping import FROM_HERE, EarlyStopping
from diffae.training.events import Event, Finished, Logged, Noted, Pictured, Started, Stepped, Validated
from diffae.training.interruption import stop_requested
from diffae.training.log import Log, read_metrics
from diffae.training.loop import LossModule, NonFiniteLoss, compile_networks, training_steps
from diffae.training.resumption import check_data, resolve, write_config, write_data
from diffae.training.sharding import is_sharded, whole_weights
from diffae.training.state import TrainingState, checkpoint_file, newest_checkpoint
from diffae.training.subjects import Subject
from diffae.training.trackers import Trackers, tracker_kinds

__all__ = [
    "Event",
    "Finished",
    "Logged",
    "Noted",
    "Pictured",
    "Started",
    "Stepped",
    "Validated",
    "create_accelerator",
    "resolve",
    "train",
]


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
    if training.contrast and accelerator.num_processes > 1:
        raise ValueError(
            f"training.contrast compares the images of a batch, which {accelerator.num_processes} processes would divide: "
            "train with one, or with --training.contrast 0."
        )
    kinds = tracker_kinds(training.tracker)
    newest = newest_checkpoint(out / "checkpoints")
    if newest is not None:
        check_data(out, subject)
    torch.manual_seed(seeding.mix(training.seed, "weights"))
    model = subject.build().to(device)
    if newest is None:
        note = subject.begin(model)
        config = subject.config
        if main and note:
            yield Noted(note)
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
        state.take_buffers()
        if is_sharded(state.ema):
            weights = whole_weights(state.ema)
            if main:
                ema.load_state_dict(weights)

    def save(images: int) -> None:
        """Writes the model and a checkpoint, and keeps the newest two checkpoints. All processes have to.

        The checkpoint comes last of all that is made of its step: who dies before it is whole makes all of that again.
        """
        gather()
        if main and (training.patience is None or early_stopping.best is None):
            subject.save(ema, out / "model", images)
        if main or state.sharded:
            state.save(checkpoint_file(out / "checkpoints", images, sharded=state.sharded))
        if main:
            _tidy(out / "checkpoints")

    # Until now the newest model was kept, not the best: what was better before is not there any more.
    from_here = main and newest is not None and training.patience is not None and _patience_of(out) is None
    if from_here:
        yield Noted("training.patience counts from here on: the models before, some of them perhaps better, were not kept")
    if main:
        _tidy(out / "checkpoints")
        write_config(out, config)
        write_data(out, subject)
    budget = Budget(training, started_at=state.step * training.batch_size)
    log = Log(out, images=budget.start) if main else None
    if main:
        drop_averages(out / "averages", beyond=budget.start)
    if log and from_here:
        log.write(budget.start, {FROM_HERE: float(training.patience or 0)})
    due = Due(training, images=budget.start)
    early_stopping = EarlyStopping(training, read_metrics(out) if main else ())
    stops_early = processes.broadcast(early_stopping.is_due)
    yield Started(config, budget.start)
    room = explaining_out_of_memory(training, accelerator.num_processes)
    trackers = Trackers(kinds if main else {}, out, to_dict(config))
    with stop_requested() as stop, naming_batch(subject), deterministic(device), room, trackers:
        batches = subject.batch
        steps = training_steps(state, loss, batches, training, accelerator=accelerator, total=lambda: budget.total, stop=stop)
        images, interrupted, noted = budget.start, False, False
        while not interrupted and not stops_early and (budget.total is None or images < budget.total):
            step = next(steps)
            images, interrupted = step.images, step.stop
            found = budget.calibrate(images, accelerator, wait=step.loss_and_norm)
            if found:
                config = dataclasses.replace(config, training=dataclasses.replace(training, images=budget.total))
                if main:
                    write_config(out, config)
            yield Stepped(step, budget.total)
            if main and step.note and not noted:
                noted = True
                yield Noted(step.note)
            # Also of a run that is told to stop during its last step: whoever gives the command again finds nothing left to do.
            whole = budget.total is not None and images >= budget.total
            done = interrupted or whole
            logs, saves = (due(what, images) or done for what in ("log", "checkpoint"))
            saves |= found
            validates, draws, averages = (due(what, images) or whole for what in ("validate", "sample", "average"))
            if logs or saves or averages or validates or draws:
                loss_now, norm = step.loss_and_norm()  # Nothing is made of weights that are no numbers.
            if logs and log:
                metrics = {"loss": loss_now, "learning_rate": step.learning_rate, "gradient_norm": norm}
                log.write(images, metrics)
                trackers.write(images, metrics)
                yield Logged(images, loss_now)
            if state.averages and averages:
                state.take_buffers()
                save_averages(state, out / "averages", images, main=main)
            if validates or draws:
                gather()
            if log and validates:
                health = subject.validate(ema)
                if health:
                    log.write(images, health.metrics())
                    trackers.write(images, health.metrics())
                    yield Validated(images, health)
                    if early_stopping.record(images, health.loss) and training.patience is not None:
                        subject.save(ema, out / "model", images)
            if validates and training.patience is not None:
                stops_early = processes.broadcast(early_stopping.is_due)
                if stops_early and state.averages and not averages:
                    save_averages(state, out / "averages", images, main=main)
                draws |= stops_early
            if main and draws:
                picture = subject.draw(ema, out / "pictures" / f"images-{images:012d}.png")
                trackers.show(images, picture)
                yield Pictured(picture)
            for note in trackers.notes():
                yield Noted(note)
            if saves or stops_early:
                save(images)
    for note in trackers.notes():
        yield Noted(note)
    if main and not interrupted and (told := early_stopping.note()):
        yield Noted(told)
    yield Finished(images, interrupted)


def _patience_of(out: Path) -> int | None:
    """That of the run at `out`, before it goes on."""
    found = json.loads((out / "config.json").read_text(encoding="utf-8"))["training"].get("patience")
    return None if found is None else int(found)


def create_accelerator() -> Accelerator:
    """Devices and processes as `accelerate` finds them. Of precision it knows nothing, as it knows but one a process."""
    # Gradients lie where they are passed from, which saves copies of them.
    handlers = [DistributedDataParallelKwargs(gradient_as_bucket_view=True)]
    # Unless it is told that there are processors alone, each of several processes would train as if it were the only one.
    found = torch.accelerator.current_accelerator(check_available=True)
    # Apple's computes no float64, in which noise levels are.
    return Accelerator(cpu=found is None or found.type == "mps", mixed_precision="no", kwargs_handlers=handlers)


@contextlib.contextmanager
def naming_batch(subject: Subject) -> Iterator[None]:
    """Within it, a loss that is not finite names the data of its batch."""
    try:
        yield
    except NonFiniteLoss as error:
        raise NonFiniteLoss(error.loss, error.step, error.positions, subject.names(error.positions)) from None


def _tidy(folder: Path) -> None:
    """Keeps the newest two checkpoints, and nothing that a process which died has left."""
    for old in (*sorted(folder.glob("images-*"))[:-2], *folder.glob(".images-*.part")):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
