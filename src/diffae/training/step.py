"""One optimizer step as a device does it: without asking the host anything, or being sent anything but the batch.

So a card can record it. Learning rates and rates of averages are numbers that lie on the device and are written there when they
change. A step whose loss or gradient is not finite changes nothing, nor does any after it, until the host looks.
"""

import contextlib
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from diffae.config import TrainingConfig
from diffae.nn.prepared import Prepared
from diffae.runtime.graphs import GraphedStep
from diffae.runtime.processor import autocast, resolve_precision
from diffae.runtime.seeding import Draws
from diffae.training.sharding import is_sharded, whole
from diffae.training.state import PROFILES, TrainingState
from diffae.training.updates import local_part, move_towards

Sent = list[Tensor]
"""What the host sends for one step: for each micro-batch, what the loss takes."""


class LossModule(nn.Module):
    """A model's loss as the forward of a module: wrappers for several processes synchronise what a forward computes."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Tensor, draws: Draws) -> Tensor:
        return self._loss(batch, draws)


class DeviceStep:
    """Steps of one run, each at the positions after those of the step before.

    Args:
        state: changed in place, but for its `step`.
        module: the loss of `state.model`, as it is called: wrapped for several processes, or sharded.
        config: of the training.
        accelerator: device and processes.

    Attributes:
        seen: float64 (3,): the last step's mean loss, its gradient's norm before clipping, and the position at which the first step
            that was not finite began, or -1.
    """

    def __init__(self, state: TrainingState, module: nn.Module, config: TrainingConfig, *, accelerator: Accelerator) -> None:
        self._state, self._module, self._config, self._accelerator = state, module, config, accelerator
        device = accelerator.device
        self._parameters = list(state.model.parameters())
        assert isinstance(config.accumulation, int), "found out before the first step"
        self._parts = config.accumulation
        self._micro_batch_size = config.batch_size // (accelerator.num_processes * self._parts)
        self._first = torch.full((), state.step * config.batch_size, dtype=torch.int64, device=device)
        self._failed = torch.full((), -1, dtype=torch.int64, device=device)
        self._numbers: dict[str, tuple[float, Tensor]] = {}
        self.seen = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64, device=device)
        for i, group in enumerate(group for optimizer in state.optimizers for group in optimizer.param_groups):
            group["lr"] = self._number(f"rate {i}", float(group["lr"]))
        # What is divided over processes is gathered by the host's commands, and compiled networks record for themselves.
        alone = accelerator.num_processes == 1 and not state.sharded and config.compile is None
        self._sent: Sent = []
        self._repeated = GraphedStep(self._compute, device, "The training step", asked=config.graphs and alone)
        low = resolve_precision(config.precision, device) == "bfloat16"
        cast = low and not state.sharded and config.compile is None
        self._prepared: Callable[[], contextlib.AbstractContextManager] = (
            Prepared(state.model, torch.bfloat16).make if cast else contextlib.nullcontext
        )

    @property
    def note(self) -> str | None:
        """How steps are taken, once that is decided."""
        return self._repeated.note

    def take(self, sent: Sent, rate: float) -> None:
        """One step.

        Args:
            sent: the batch, on the device or pinned for it.
            rate: learning rate of Adam.
        """
        state, device = self._state, self._accelerator.device
        for i, group in enumerate(group for optimizer in state.optimizers for group in optimizer.param_groups):
            self._number(f"rate {i}", rate * group["relative_rate"])
        for i, average_rate in enumerate(average_rates(state.step, self._config.ema_decay)[: 1 + len(state.averages)]):
            self._number(f"average {i}", average_rate)
        if self._repeated.replays:
            for place, value in zip(self._sent, sent, strict=True):
                place.copy_(value, non_blocking=True)
        else:
            self._sent = [value.to(device, non_blocking=True) for value in sent]
        self._repeated()
        state.step += 1

    def try_micro_batch(self, rows: Tensor) -> None:
        """Computes the gradient of one part of a batch, and nothing else."""
        self._sent = [rows]
        self._micro_batch(0)

    def _number(self, name: str, value: float) -> Tensor:
        """A number on the device; it is written again only when it changes."""
        before = self._numbers.get(name)
        if before is None:
            self._numbers[name] = before = (value, torch.full((), value, device=self._accelerator.device))
        elif before[0] != value:
            before[1].fill_(value)
            self._numbers[name] = (value, before[1])
        return before[1]

    def _compute(self) -> None:
        state, config = self._state, self._config
        for optimizer in state.optimizers:
            optimizer.zero_grad()
        loss = torch.zeros((), device=self._accelerator.device)
        for i in range(self._parts):
            loss += self._micro_batch(i)
        loss = self._accelerator.reduce(loss, "mean")
        norm = whole(nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None]))
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        self._failed.copy_(torch.where(finite | (self._failed >= 0), self._failed, self._first))
        stays = (self._failed >= 0).float()
        clip = torch.clamp((norm + 1e-6) / config.gradient_clip, min=1.0)
        for optimizer in state.optimizers:
            optimizer.grad_scale, optimizer.found_inf = clip, stays  # type: ignore[attr-defined]
            optimizer.step()
        weights = [p.detach() for p in self._parameters]
        torch.autograd.graph.increment_version([local_part(p) for p in weights])  # Fused Adam does not.
        for i, average in enumerate([state.ema, *state.averages]):
            move_towards(list(average.parameters()), weights, self._numbers[f"average {i}"][1], found_inf=stays)
        now = torch.stack([loss.double(), norm.double(), self._failed.double()])
        self.seen.copy_(torch.where(self.seen[2] >= 0, self.seen, now))  # Of a step that failed, whenever it is looked at.
        self._first += config.batch_size

    def _micro_batch(self, i: int) -> Tensor:
        """Adds the gradient of part i of the batch, and returns what this part adds to the mean loss."""
        config, accelerator, module = self._config, self._accelerator, self._module
        part = (i * accelerator.num_processes + accelerator.process_index) * self._micro_batch_size
        numbers = torch.arange(part, part + self._micro_batch_size, device=accelerator.device) + self._first
        last = i == self._parts - 1
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(last)
        with contextlib.nullcontext() if last or is_sharded(module) else accelerator.no_sync(module), self._prepared():
            with autocast(config.precision, accelerator.device):
                value = module(self._sent[i], Draws(config.seed, numbers).fork("image"))
            (value / self._parts).backward()
        return value.detach().float() / self._parts


def average_rates(step: int, decay: float) -> list[float]:
    """How far a step moves each average of the weights towards them: the moving average, and those with a power profile.

    The moving average takes `1 - min(decay, (1 + step) / (10 + step))`: more in the first steps, so that the initial weights are
    forgotten sooner. An average with a power profile takes all of the first step: nothing of the initial weights is left.
    """
    return [1 - min(decay, (1 + step) / (10 + step)), *(1 - (1 - 1 / (step + 1)) ** (power + 1) for power in PROFILES)]
