"""What several benchmarks need: networks like the authors', theirs with the same weights, training steps, what z_sem holds."""

import contextlib
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from authors import WHERE, Authors
from torch import Tensor, nn

import diffae
from diffae.autoencoder import DiffusionAutoencoder, build
from diffae.config import TrainingConfig
from diffae.config.presets import preset
from diffae.data.dataset import ImageSet
from diffae.diffusion.ddim import DDIM
from diffae.evaluation.pages.figures import Encoded
from diffae.evaluation.pages.report import commit, machine
from diffae.evaluation.pages.tables import number
from diffae.metrics.images import mse
from diffae.metrics.probe import linear_probe
from diffae.runtime.files import write_text
from diffae.runtime.seeding import Draws
from diffae.training.loop import LossModule, TrainingStep, compile_networks, training_steps
from diffae.training.run import Event, Finished, create_accelerator
from diffae.training.state import TrainingState

CPU = torch.device("cpu")


def like_theirs(name: str, device: torch.device = CPU, **changes: Any) -> DiffusionAutoencoder:
    """A preset's autoencoder that predicts eps and pools as theirs, whose zero layers are redrawn so that all of it matters."""
    config = preset(name).model
    encoder = dataclasses.replace(config.encoder, pooled_size=1)
    torch.manual_seed(0)
    ae = build(dataclasses.replace(config, prediction="eps", encoder=encoder, **changes))
    assert isinstance(ae, DiffusionAutoencoder)
    for module in ae.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.02)
    return ae.to(device)


def authors_of(checkout: Path, ae: DiffusionAutoencoder) -> Authors:
    """Their networks with the weights of ours, where ours are."""
    device = ae.device
    try:
        theirs = Authors(checkout, ae.cpu())
    except FileNotFoundError as error:
        raise SystemExit(f"{error} ({WHERE})") from None
    theirs.eps.to(device)
    ae.to(device)
    return theirs


def random_images(ae: DiffusionAutoencoder, num: int) -> Tensor:
    """Uniform noise in [-1, 1] of the shape of a model's images, where the model is; seed 0."""
    generator = torch.Generator(ae.device).manual_seed(0)
    return torch.rand(num, *ae.image_shape, generator=generator, device=ae.device) * 2 - 1


def our_step(name: str, ae: DiffusionAutoencoder, x: Tensor, **changes: Any) -> Callable[[], object]:
    """A whole training step of ours on these images: a preset's with changes, and with Adam, as theirs."""
    config = dataclasses.replace(preset(name).training, batch_size=len(x), muon_rate=None, **changes)
    steps = endless_training(ae, config, lambda _: x, create_accelerator())
    return lambda: next(steps)


def endless_training(
    model: DiffusionAutoencoder | DDIM, config: TrainingConfig, batch: Callable[[range], Tensor], accelerator: Accelerator
) -> Iterator[TrainingStep]:
    """Training steps of a model for as long as they are asked for.

    Args:
        model: with the weights to start from, on the accelerator's device.
        config: of the training; its budget is not used.
        batch: the images at positions of the run.
        accelerator: devices and processes.
    """
    config = dataclasses.replace(config, images=10**9)
    loss = LossModule(model, model.loss)
    state = TrainingState.start(model, config, called=loss)
    compile_networks(model, config)
    return training_steps(state, loss, batch, config, accelerator=accelerator, total=lambda: 10**9)


def measure_z_sem(run: Path, data: ImageSet, num: int) -> dict[str, float]:
    """What z_sem holds at the end of a run.

    Args:
        run: the run directory.
        data: its images.
        num: held-out images that are decoded.

    Returns:
        MSE of the mean decode (`mean`) and with random x_T and ten steps (`random`), the mean AUROC of linear probes of all labels
        (`auroc`), and the number of images decoded (`n`).
    """
    ae = diffae.load(str(run))
    x = data.images(data.some(data.validation, num))
    z_sem = torch.cat([ae.encode(part) for part in x.split(50)])
    mean = torch.cat([ae.decode_mean(part) for part in z_sem.split(50)])
    x_T = Draws.of(len(z_sem), 0).normal("ablation", ae.image_shape)
    random = torch.cat([ae.decode(z, noise, steps=10) for z, noise in zip(z_sem.split(50), x_T.split(50), strict=True)])
    train, held = (Encoded.of(ae, data, part, lambda *_: None).z_sem.numpy() for part in (data.train, data.validation))
    train_labels, held_labels = ({k: v[part] for k, v in data.labels.items()} for part in (data.train, data.validation))
    scores = linear_probe(train, train_labels, held, held_labels)
    return {"mean": mse(mean, x), "random": mse(random, x), "auroc": statistics.mean(scores.values()), "n": len(x)}


def to_the_end(events: Iterator[Event]) -> Iterator[Event]:
    """The events of a run, which is not measured if it was stopped before its end."""
    for event in events:
        yield event
        if isinstance(event, Finished) and event.interrupted:
            raise SystemExit(f"Stopped after {event.images:,} images, not measured; the same command goes on there.")


def kinds_of(data: ImageSet, column: str) -> np.ndarray:
    """The number of each image, or its kind, a number too, of the columns NAME=KIND that one of words has become."""
    if column in data.labels:
        found = data.labels[column]
    else:
        several = [values for name, values in data.labels.items() if name.startswith(f"{column}=")]
        if not several:
            raise SystemExit(f"There is no column {column!r}; there are {', '.join(data.labels)}.")
        found = np.where(np.isnan(several).any(0), np.nan, np.nan_to_num(several).argmax(0))
    if unknown := int(np.isnan(found).sum()):
        raise SystemExit(f"{unknown} of {len(found)} images have no {column}: give them one, or measure those that have.")
    return found


@contextlib.contextmanager
def seconds_of(run: Path) -> Iterator[Callable[[], float]]:
    """Within it a run is trained; afterwards, how many seconds that took: of one that was stopped in between, nobody knows."""
    began = float("nan") if (run / "checkpoints").is_dir() else time.monotonic()
    ended: list[float] = []
    yield lambda: ended[0] - began
    ended.append(time.monotonic())


def is_measured(file: Path, **asked: float | str | None) -> bool:
    """Whether a run is measured, and as it is asked for now.

    Args:
        file: what was measured, with what was asked for.
        asked: such as the number of images; None where it may be any.
    """
    if not file.is_file():
        return False
    found = json.loads(file.read_text())
    for name, value in asked.items():
        if value is not None and found.get(name, value) != value:
            raise SystemExit(f"{file} is of {name} {found[name]}, and {value} is asked for: name another folder, or move it away.")
    return True


def spread(values: list[float]) -> str:
    """A mean over seeds, and where there are several the standard deviation; nothing of no values."""
    if not values:
        return ""
    return number(statistics.mean(values)) + (f" ± {number(statistics.stdev(values))}" if len(values) > 1 else "")


def shrunk(x: Tensor, side: int | None) -> Tensor:
    """Images of this side, by averages; with None as they are."""
    return x if side is None or x.shape[-1] == side else F.interpolate(x, (side, side), mode="area")


def with_side(data: ImageSet, side: int) -> ImageSet:
    """The same images, of this side: for a network that need not see more."""
    x = torch.cat([shrunk(data.images(part), side) for part in np.array_split(np.arange(len(data.names)), 16)])
    return dataclasses.replace(data, pixels=((x + 1) * 127.5).round().to(torch.uint8).numpy())


def measured_on() -> str:
    """The machine and the version of diffae, as the pages name them."""
    return f"{machine()}; diffae {commit()}"


def publish(text: str, out: Path | None) -> None:
    """Prints a page, and writes it where there is a file for it."""
    if out is not None:
        write_text(out, text)
    print(text)
