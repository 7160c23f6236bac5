"""What a machine gives a network: calls and images a second, arithmetic beside the most that is reached here, memory."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from diffae.autoencoder import DiffusionAutoencoder, build
from diffae.config import Precision, RunConfig
from diffae.runtime import memory
from diffae.runtime.processor import autocast
from diffae.runtime.seeding import Draws
from diffae.training.loop import LossModule, compile_networks, training_steps
from diffae.training.state import TrainingState

WHAT = ("encoding", "decoder call", "training step")


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
        config: the run whose network is measured, in whose precision; its batch size is not used.
        batch: images at a time.
        accelerator: the device.
        what: which of `WHAT`.
        seconds: that each measurement takes at least.

    Raises:
        ValueError: the configuration has no encoder.
    """
    torch.manual_seed(0)
    device = accelerator.device
    ae = build(config.model).to(device)
    if not isinstance(ae, DiffusionAutoencoder):
        raise ValueError("A plain DDIM has no encoder to measure. Name a preset without -ddim.")
    x = Draws.of(batch, 0, device=device).normal("images", ae.image_shape)
    eps_model = ae.eps_model(torch.zeros(batch, ae.z_dim, device=device))
    calls = {WHAT[0]: partial(ae.encoder, x), WHAT[1]: partial(eps_model, x, torch.full((batch,), 500.0, device=device))}
    ae.eval()
    compile_networks(ae, config.training)
    for name in (name for name in calls if name in what):
        call = calls[name]
        # Counted with gradients, where every convolution is the plain one.
        flop = _flop(call)
        with torch.no_grad(), autocast(config.training.precision, device):
            yield Speed(name, batch, _seconds(call, device, seconds), flop, _peak(device))
    if WHAT[2] in what:
        training = dataclasses.replace(config.training, batch_size=batch, images=10**9)
        state = TrainingState.start(ae, training)
        steps = training_steps(state, LossModule(ae, ae.loss), lambda _: x, training, accelerator=accelerator, total=lambda: 10**9)
        step = partial(next, steps)
        yield Speed(WHAT[2], batch, _seconds(step, device, seconds), _flop(step), _peak(device))


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
