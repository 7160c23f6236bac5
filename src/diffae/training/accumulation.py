"""Whether a device has room for a training, and what to do where it has not."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from diffae.config import TrainingConfig
from diffae.runtime.memory import OutOfMemory, is_out_of_memory
from diffae.training.state import TrainingState
from diffae.training.step import DeviceStep

FULL = 0.95
"""Share of a card's memory that a trial may take."""


class TrainingOutOfMemory(OutOfMemory):
    """A training that its device has no room for; the message says which setting helps."""

    def __init__(self, config: TrainingConfig, processes: int, error: BaseException) -> None:
        parts = config.accumulation if isinstance(config.accumulation, int) else 1
        images = config.batch_size // (parts * processes)
        ways = ["--training.contrast 0 lets a batch be taken in parts"] if config.contrast else []
        if images > 1 and not config.contrast:
            ways = [f"--training.accumulation {2 * parts} (or auto) takes the same batch in smaller parts"]
        ways += [] if config.recompute else ["--training.recompute keeps less and takes a third more time"]
        ways += ["a smaller --training.batch-size is another training"]
        reason = str(error).strip().split("\n")[0]
        super().__init__(f"There is no room for {images} images at a time ({reason}). What helps: {'; '.join(ways)}.")


@contextlib.contextmanager
def explaining_out_of_memory(config: TrainingConfig, processes: int) -> Iterator[None]:
    """Within it, memory that does not suffice is said in words of ours."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingOutOfMemory(config, processes, error) from None


def find_accumulation(
    state: TrainingState, module: nn.Module, batch: Callable[[range], Tensor], config: TrainingConfig, *, accelerator: Accelerator
) -> int:
    """The fewest parts of a batch for which there is room. It is tried out, and the gradients are thrown away.

    Args:
        state: its moments are allocated, as by the first step.
        module: the loss.
        batch: the data at positions of the run.
        config: of the training.
        accelerator: device and processes, which all take the largest number that any of them needs.

    Raises:
        TrainingOutOfMemory: there is none even for one image at a time.
    """
    device, per_process = accelerator.device, config.batch_size // accelerator.num_processes
    with explaining_out_of_memory(replace(config, accumulation=per_process), accelerator.num_processes):
        state.make_room()
    for parts in (n for n in range(1, per_process + 1) if per_process % n == 0):
        trial = replace(config, accumulation=parts)
        fits = torch.tensor(float(_fits(state, module, batch(range(per_process // parts)), trial, accelerator)), device=device)
        if float(accelerator.reduce(fits, "mean")) == 1:
            return parts
    raise TrainingOutOfMemory(replace(config, accumulation=per_process), accelerator.num_processes, RuntimeError("tried with one"))


def _fits(state: TrainingState, module: nn.Module, rows: Tensor, config: TrainingConfig, accelerator: Accelerator) -> bool:
    device = accelerator.device
    try:
        DeviceStep(state, module, config, accelerator=accelerator).try_micro_batch(rows.to(device))
        if device.type == "cuda":
            return torch.cuda.max_memory_reserved(device) < FULL * torch.cuda.get_device_properties(device).total_memory
        return True
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        for optimizer in state.optimizers:
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
