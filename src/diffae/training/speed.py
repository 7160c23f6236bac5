"""What a machine gives a network: calls and images a second, arithmetic beside the most that is reached here, memory."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffae.autoencoder import DiffusionAutoencoder, build
from diffae.config import Precision, RunConfig
from diffae.diffusion.ddim import DDIM
from diffae.runtime import memory
from diffae.runtime.processor import autocast
from diffae.runtime.seeding import Draws
from diffae.training.loop import LossModule, compile_networks, training_steps
from diffae.training.state import TrainingState

ENCODING, DECODER_CALL, TRAINING_STEP = WHAT = ("encoding", "decoder call", "training step")
"""What is measured of a network."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How quick one thing is.

    Attributes:
        what: of `WHAT`.
        batch: images at a time.
        seconds: median of one.
        flop: that the definition of its convolutions and products takes; a training step's gradients included.
        gib: most memory that the process (on a GPU, the device) has held so far.
    """

    what: str
    batch: int
    seconds: float
    flop: float
    gib: float

    @property
    def images(self) -> float:
        """Images a second."""
        return self.batch / self.seconds


def measure(
    config: RunConfig, batch: int, *, accelerator: Accelerator, what: Sequence[str] = WHAT, seconds: float = 2.0
) -> Iterator[Speed]:
    """Measures an untrained network of this configuration: an encoding, a decoder call, a training step.

    Args:
        config: the run whose network is measured, in its precision; its batch size and accumulation are not used.
        batch: images at a time.
        accelerator: the device.
        what: which of `WHAT`.
        seconds: that each measurement takes at least.

    Raises:
        ValueError: more than a training step is asked of a plain DDIM, which has no encoder.
    """
    torch.manual_seed(0)
    device = accelerator.device
    model = build(config.model).to(device)
    x = Draws.of(batch, 0, device=device).normal("images", model.image_shape)
    calls = _calls(model, x) if set(what) != {TRAINING_STEP} else {}
    model.eval()
    compile_networks(model, config.training)
    for name in (name for name in calls if name in what):
        call = calls[name]
        # Counted with gradients, where every convolution is the plain one.
        flop = _flop(call)
        with torch.no_grad(), autocast(config.training.precision, device):
            yield Speed(name, batch, _seconds(call, device, seconds), flop, _peak(device))
    if TRAINING_STEP in what:
        training = dataclasses.replace(config.training, batch_size=batch, accumulation=1, images=10**9)
        state = TrainingState.start(model, training)
        loss = LossModule(model, model.loss)
        steps = training_steps(state, loss, lambda _: x, training, accelerator=accelerator, total=lambda: 10**9)
        step = partial(next, steps)
        flop = _flop(step)  # Of the first, which is never a recording, in which nothing can be counted.
        yield Speed(TRAINING_STEP, batch, _seconds(step, device, seconds), flop, _peak(device))


def most_rate(precision: Precision, device: torch.device, *, size: int = 2048, seconds: float = 0.5) -> float:
    """FLOP a second of a large matrix product or a large convolution, whichever is quicker here: what no network exceeds.

    Libraries differ: by MKL a processor of AMD multiplies matrices at a third of the rate at which oneDNN convolves.
    """
    channels, side = 256, 64
    a = torch.ones(size, size, device=device)
    x = torch.ones(4, channels, side, side, device=device).to(memory_format=torch.channels_last)
    weight = torch.ones(channels, channels, 3, 3, device=device).to(memory_format=torch.channels_last)
    with torch.no_grad(), autocast(precision, device):
        product = 2 * size**3 / _seconds(lambda: a @ a, device, seconds)
        convolution = 2 * 9 * x.numel() * channels / _seconds(lambda: F.conv2d(x, weight, padding=1), device, seconds)
    return max(product, convolution)


def _calls(model: DiffusionAutoencoder | DDIM, x: Tensor) -> dict[str, Callable[[], object]]:
    """An encoding of these images, and a decoder call of their codes."""
    if not isinstance(model, DiffusionAutoencoder):
        raise ValueError("A plain DDIM has no encoder to measure. Name a preset without -ddim.")
    eps_model = model.eps_model(torch.zeros(len(x), model.z_dim, device=x.device))
    t = torch.full((len(x),), 500.0, device=x.device)
    return {ENCODING: partial(model.encoder, x), DECODER_CALL: partial(eps_model, x, t)}


def _seconds(call: Callable[[], object], device: torch.device, least: float) -> float:
    """Median seconds of a call, after one that is not counted."""
    found: list[float] = []
    call()
    while sum(found) < least or len(found) < 3:
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return sorted(found)[len(found) // 2]


def _flop(call: Callable[[], object]) -> float:
    # What is compiled does not pass by the counter.
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def _peak(device: torch.device) -> float:
    """GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return memory.peak()
