"""The training loop. It yields after each step; logging, saving, drawing and stopping are the caller's.

A step is a function of (state, step number, configuration) alone. The global batch is always the same positions of the
run, however it is divided over processes and micro-batches, and each image's timestep, noise and flip depend on its
position; so two processes, or two accumulated halves, compute the gradients of one.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from diffae.config import TrainingConfig
from diffae.seeding import Draws
from diffae.training.sharding import is_sharded, whole
from diffae.training.state import TrainingState

Batch = Callable[[range], Tensor]
"""From positions of the run to what the model's loss takes."""

HOLD = 0.15
"""Share of the budget before the cosine begins. The budget in images is known well before it has passed, so that the
learning rate is a function of images from the first step on, also where the budget was given in minutes."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step saw.

    Attributes:
        images: images seen so far, this step's included.
        loss: mean over the global batch.
        gradient_norm: before clipping.
        learning_rate: of this step.
        stop: whether some process asked to stop after this step.
    """

    images: int
    loss: float
    gradient_norm: float
    learning_rate: float
    stop: bool


class NonFiniteLoss(RuntimeError):
    """The loss, or its gradient, is not finite. Raised before the optimizer step, so the state is still good.

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
            f"or compute in float32.{batch}"
        )
        self.loss, self.step, self.positions = loss, step, positions


class LossModule(nn.Module):
    """A model's loss as a module's forward, which is what wrappers for several processes synchronise."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Tensor, draws: Draws) -> Tensor:
        return self._loss(batch, draws)


def compile_networks(model: nn.Module, config: TrainingConfig) -> None:
    """Compiles the networks of a model, in place, where the configuration says so; losses, which draw noise, stay as they are.

    Raises:
        ValueError: they are sharded too.
    """
    if config.compile is not None and config.sharded:
        raise ValueError("training.compile and training.sharded do not go together: leave one of them out.")
    if config.compile is not None:
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
) -> Iterator[Step]:
    """Optimizer steps without end; the caller leaves when it has seen enough.

    Args:
        state: changed in place.
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
    parts = accelerator.num_processes * config.accumulation
    if config.batch_size % parts:
        raise ValueError(
            f"The batch size {config.batch_size} is global and cannot be divided into {accelerator.num_processes} processes x "
            f"{config.accumulation} accumulation steps; give a multiple of {parts}."
        )
    share = config.batch_size // parts
    module = loss if is_sharded(loss) else accelerator.prepare_model(loss)
    parameters = list(state.model.parameters())
    while True:
        first = state.step * config.batch_size
        rate = learning_rate(config, first, total())
        for optimizer in state.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate * group["relative_rate"]
        losses = torch.zeros(2, device=accelerator.device)
        for i in range(config.accumulation):
            start = first + (i * accelerator.num_processes + accelerator.process_index) * share
            positions = range(start, start + share)
            last = i == config.accumulation - 1
            if is_sharded(loss):
                cast(FSDPModule, loss).set_requires_gradient_sync(last)
            with contextlib.nullcontext() if last or is_sharded(loss) else accelerator.no_sync(module):
                with accelerator.autocast():  # A prepared module does so itself; one that is sharded is not prepared.
                    draws = Draws.of(share, config.seed, start=start, device=accelerator.device).apart("image")
                    value = module(batch(positions).to(accelerator.device), draws)
                accelerator.backward(value / config.accumulation)
            losses[0] += value.detach().float() / config.accumulation
        losses[1] = float(stop())
        mean_loss, stops = accelerator.reduce(losses, "mean").tolist()
        norm = float(whole(nn.utils.clip_grad_norm_(parameters, config.gradient_clip)))
        if not (math.isfinite(mean_loss) and math.isfinite(norm)):
            raise NonFiniteLoss(mean_loss, state.step, range(first, first + config.batch_size))
        for optimizer in state.optimizers:
            optimizer.step()
        state.update_ema(config.ema_decay)
        state.step += 1
        yield Step(state.step * config.batch_size, mean_loss, norm, rate, stops > 0)
