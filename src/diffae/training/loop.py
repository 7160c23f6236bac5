"""The training loop. It yields after each step; logging, saving, drawing and stopping are the caller's.

A step is a function of (state, step number, configuration) alone. The global batch is always the same positions of the
run, however it is divided over processes and micro-batches, and each image's timestep, noise and flip depend on its
position; so two processes, or two accumulated halves, compute the gradients of one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from diffae.config import TrainingConfig
from diffae.runtime.seeding import mix
from diffae.training.sharding import is_sharded
from diffae.training.state import TrainingState
from diffae.training.step import DeviceStep, LossModule

Batch = Callable[[range], Tensor]
"""Positions of the run -> the data that the model's loss takes."""

AGREE = 16
"""Steps after which several processes on cards ask one another whether to stop. The answer makes them wait."""
HOLD = 0.15
"""Share of the budget before the cosine begins. The budget in images is known well before it has passed, so that the
learning rate is a function of images from the first step on, also where the budget was given in minutes."""


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One optimizer step. Its loss lies on the device: reading it waits until the step is done.

    Attributes:
        images: images seen so far, this step's included.
        learning_rate: of this step.
        seen: see `DeviceStep`.
        batch_size: of the run.
        stop: whether some process asked to stop after this step.
        note: how steps are taken on this device, if that is worth a word.
    """

    images: int
    learning_rate: float
    seen: Tensor
    batch_size: int
    stop: bool = False
    note: str | None = None

    def loss_and_norm(self) -> tuple[float, float]:
        """The mean loss over the global batch, and the norm of its gradient before clipping.

        Raises:
            NonFiniteLoss: in this step or an earlier one; nothing has changed since.
        """
        loss, norm, failed = self.seen.tolist()
        if failed >= 0:
            first = int(failed)
            raise NonFiniteLoss(loss, first // self.batch_size, range(first, first + self.batch_size))
        return loss, norm

    @property
    def loss(self) -> float:
        """See `loss_and_norm`."""
        return self.loss_and_norm()[0]

    @property
    def gradient_norm(self) -> float:
        """See `loss_and_norm`."""
        return self.loss_and_norm()[1]


class NonFiniteLoss(RuntimeError):
    """The loss, or its gradient, is not finite. Nothing was changed by that step or since, so the state is still good.

    Attributes:
        loss: mean over the batch.
        step: number of the step.
        positions: the batch's positions in the run.
    """

    def __init__(self, loss: float, step: int, positions: range, names: Sequence[str] = ()) -> None:
        what = f"The loss is {loss}" if not math.isfinite(loss) else "The gradient is not finite"
        batch = f" Its batch: {', '.join(names)}." if names else ""
        super().__init__(
            f"{what} at step {step}; training stopped before that step, and the checkpoints are intact. Lower the learning rate, "
            f"or compute in float32, in another folder, which may begin with this run's model (--from).{batch}"
        )
        self.loss, self.step, self.positions = loss, step, positions


def compile_networks(model: nn.Module, config: TrainingConfig) -> None:
    """Compiles the networks of a model, in place, where the configuration says so; losses, which draw noise, stay as they are.

    Raises:
        ValueError: they are sharded too.
    """
    if config.compile is not None and config.sharded:
        raise ValueError("training.compile and training.sharded do not go together: leave one of them out.")
    if config.compile is not None:
        # A seed is a constant to the compiler. That is said here, where there is one: saying it takes longer than `import diffae`.
        torch.compiler.assume_constant_result(mix)
        for network in model.children():
            network.compile(mode=config.compile, dynamic=False)


def learning_rate(config: TrainingConfig, images: int, total: int | None) -> float:
    """The learning rate after so many images: warm-up, then constant, or held for `HOLD` of the budget and lowered to zero.

    Args:
        config: peak, warm-up and kind of schedule.
        images: seen before this step.
        total: the budget, or None while it is not known yet, which is before `HOLD` of it has passed.
    """
    rate = config.learning_rate
    if config.warmup_images:
        rate *= min(1.0, (images + config.batch_size) / config.warmup_images)
    if config.learning_rate_schedule == "cosine" and total is not None:
        progress = (images / total - HOLD) / (1 - HOLD)
        rate *= 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return rate


def training_steps(
    state: TrainingState,
    loss: LossModule,
    batch: Batch,
    config: TrainingConfig,
    *,
    accelerator: Accelerator,
    total: Callable[[], int | None],
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[TrainingStep]:
    """Optimizer steps without end; the caller leaves when it has seen enough.

    Args:
        state: changed in place, and on the accelerator's device.
        loss: of `state.model`.
        batch: the data at positions of the run.
        config: optimizer, batch size, seed.
        accelerator: devices, precision and processes.
        total: the budget in images, or None while it is not known yet.
        stop: asked after each step; any process's yes is everybody's.

    Raises:
        ValueError: a batch size that processes and accumulation do not divide.
        NonFiniteLoss: before the optimizer step.
    """
    processes, device = accelerator.num_processes, accelerator.device
    module = loss if is_sharded(loss) else accelerator.prepare_model(loss, device_placement=False)
    assert isinstance(config.accumulation, int), "see `room.find_accumulation`"
    if config.batch_size % (processes * config.accumulation):
        raise ValueError(
            f"The batch size {config.batch_size} is global and cannot be divided into {processes} processes x "
            f"{config.accumulation} accumulation steps; give a multiple of {processes * config.accumulation}."
        )
    size = config.batch_size // (processes * config.accumulation)
    step = DeviceStep(state, module, config, accelerator=accelerator)
    while True:
        first = state.step * config.batch_size
        rate = learning_rate(config, first, total())
        starts = [first + (i * processes + accelerator.process_index) * size for i in range(config.accumulation)]
        step.take([batch(range(start, start + size)) for start in starts], rate)
        taken = TrainingStep(first + config.batch_size, rate, step.seen.clone(), config.batch_size, note=step.note)
        if device.type == "cpu":
            taken.loss_and_norm()  # There is nothing to wait for.
        if processes == 1:
            taken = replace(taken, stop=stop())
        elif device.type == "cpu" or state.step % AGREE == 0:
            asked = torch.full((), float(stop()), device=device)
            taken = replace(taken, stop=float(accelerator.reduce(asked, "sum")) > 0)
        yield taken
