"""Training runs as the terminal shows them: started or continued, with a bar and a line for each event."""

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from diffae.cli import inputs
from diffae.cli.bars import say, training_bar, warn, work_bar
from diffae.config import ComparatorRunConfig, PriorRunConfig, RunConfig, TrainingConfig
from diffae.runtime import processes

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from diffae.autoencoder import DiffusionAutoencoder
    from diffae.data import ImageSet
    from diffae.training.subjects import Subject


LEAST_TOLD, MOST_TOLD = 50, 1000
"""Held-out codes from which samples are told apart: at least, and at most."""
MARGIN = 0.03
"""Of the AUROC, by which another prior has to come nearer to be recommended."""


def train(asked: RunConfig | ComparatorRunConfig, out: Path, *, first_look: bool = False) -> "ImageSet | None":
    """Starts the run at `out`, or goes on with it, and shows its progress.

    Args:
        asked: the configuration; what an earlier start has fixed goes before it.
        out: the run directory.
        first_look: whether a new run begins with a picture of its images.

    Returns:
        The images; None if training was interrupted, and in all processes but the first.
    """
    from diffae.config import spelled
    from diffae.training.comparators import ComparatorSubject
    from diffae.training.distillation import DistilledSubject
    from diffae.training.run import create_accelerator, resolve
    from diffae.training.subjects import ImageSubject

    config: RunConfig | ComparatorRunConfig = resolve(asked, out, say=warn)
    accelerator = create_accelerator()
    if processes.is_first() and accelerator.device.type == "cpu":
        _warn_of_crowds()
    data = inputs.prepared(config.data, config.model)
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
    if not show_training(subject, out, accelerator, what="images"):
        return None
    if processes.is_first():
        say(f"Done: {out}." + (f" Load it with diffae.load({str(out)!r})." if isinstance(config, RunConfig) else ""))
    return data if processes.is_first() else None


def train_prior(
    source: str, z_sem: "Tensor", data: "ImageSet", asked: PriorRunConfig, *, name: str, given: "ImageSet | None" = None
) -> Path | None:
    """Starts a prior beside an autoencoder, or goes on with it, and shows its progress.

    Args:
        source: the folder of the autoencoder.
        z_sem: codes of the images (n, d).
        data: the images.
        asked: the configuration, but for what follows from the codes.
        name: of the prior.
        given: those of the images whose codes it is of, where not all.

    Returns:
        The prior's folder; None if training was interrupted.

    Raises:
        ValueError: a prior of that name was trained on codes of another encoder.
    """
    from diffae.interop.parts import MEASURED, is_stale, prior_folder
    from diffae.training.run import create_accelerator, resolve
    from diffae.training.subjects import PriorSubject

    ae, data = _standardizing(source, z_sem[data.train]), given or data
    folder = prior_folder(Path(source), name)
    if is_stale(ae, folder / "model"):
        raise ValueError(
            f"{folder} was trained on z_sem of another encoder (an earlier state of this one, perhaps), and cannot go on with this "
            "one's. Give another --name, or delete that folder."
        )
    asked = dataclasses.replace(asked, model=dataclasses.replace(asked.model, z_dim=ae.z_dim), data=data.config)
    config = resolve(asked, folder, say=warn)
    accelerator = create_accelerator()
    ae.to(accelerator.device)
    if accelerator.is_main_process:
        (folder / MEASURED).unlink(missing_ok=True)  # It is of the weights that there were.
        say(f"{len(data.train):,} codes of {ae.z_dim} dimensions to train on, {len(data.validation):,} held out")
    done = show_training(PriorSubject(config, ae, z_sem, data), folder, accelerator, what="codes")
    if done and accelerator.is_main_process:
        _measure(source, name, z_sem, data)
    return folder if done else None


def _measure(source: str, name: str, z_sem: "Tensor", data: "ImageSet") -> None:
    """Says how well samples of a prior, and of those that need no training, are told from held-out codes; keeps it beside it."""
    import diffae
    from diffae.interop.parts import MEASURED, available_priors, preferred_prior, prior_folder
    from diffae.metrics.codes import compare_codes
    from diffae.runtime.files import write_text
    from diffae.semantics.prior import GaussianPrior, KernelPrior

    if len(data.validation) < LEAST_TOLD:
        return
    ae = diffae.load(source, prior=name)
    assert ae.prior is not None
    assert ae.standardizer is not None
    train, held = (ae.standardizer(z_sem[rows]) for rows in (data.train, data.validation[:MOST_TOLD]))
    with work_bar("Samples beside others' codes") as update:
        told: list[float] = []
        for prior in (ae.prior, GaussianPrior(ae.z_dim).fit(train), KernelPrior.of(train)):
            update("Comparing priors", len(told), 3)
            auroc = compare_codes(prior.sample(len(held)), held)["auroc"]
            told.append(max(auroc, 1 - auroc))
    trained, gaussian, kernel = told
    write_text(prior_folder(Path(source), name) / MEASURED, json.dumps({"told": trained, "n": len(held)}) + "\n")
    others = f"of `--preset gaussian` {gaussian:.2f}, `kernel` {kernel:.2f}"
    say(f"Told from held-out codes (AUROC, 0.5 is perfect): {trained:.2f}; {others}")
    if name in (priors := available_priors(Path(source))) and len(priors) > 1:
        say(f"Of {len(priors)} priors beside this model {preferred_prior(ae, Path(source))} is taken where none is named.")
    if min(gaussian, kernel) < trained - MARGIN:
        better = "gaussian" if gaussian < kernel else "kernel"
        say(f"`diffae train-prior {source} --preset {better}`, which needs no training, comes nearer to real codes.")


def fit_prior(source: str, z_sem: "Tensor", data: "ImageSet", *, kind: str, name: str, given: "ImageSet | None" = None) -> Path:
    """Fits a prior that needs no training, `gaussian` or `kernel`, saves it beside the autoencoder, and returns its folder;
    arguments as of `train_prior`."""
    from diffae.interop.parts import MEASURED, prior_folder, save_part
    from diffae.semantics.prior import GaussianPrior, KernelPrior

    ae, data = _standardizing(source, z_sem[data.train]), given or data
    assert ae.standardizer is not None
    z = ae.standardizer(z_sem[data.train])
    ae.prior = GaussianPrior(ae.z_dim).fit(z) if kind == "gaussian" else KernelPrior.of(z)
    if isinstance(ae.prior, KernelPrior):
        held = f"{len(ae.prior.codes):,} codes of training images"
        say(f"Noise of {float(ae.prior.noise):.2f}, as {int(ae.prior.neighbours):,} codes around each vary; the prior holds {held}")
    folder = prior_folder(Path(source), name)
    (folder / MEASURED).unlink(missing_ok=True)
    save_part(ae, folder / "model", ["prior", "standardizer"])
    _measure(source, name, z_sem, data)
    return folder


def show_training(subject: "Subject", out: Path, accelerator: "Accelerator", *, what: str) -> bool:
    """Trains, and shows each event as it happens.

    Args:
        subject: what is trained.
        out: the run directory.
        accelerator: devices and processes.
        what: the run's unit, `images` or `codes`.

    Returns:
        Whether training came to its end; False if it was interrupted.
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
    return not interrupted


def with_budget(training: TrainingConfig, minutes: float | None, images: int | None) -> TrainingConfig:
    """The training settings, with the budget of the command line if there is one."""
    return training if minutes is None and images is None else dataclasses.replace(training, minutes=minutes, images=images)


def _warn_of_crowds() -> None:
    """Says so where others use the cores that several threads of a network would run on: each step waits for its slowest thread."""
    import torch

    from diffae.runtime.processor import busy_cores

    busy, cores, threads = busy_cores(), os.cpu_count() or 1, torch.get_num_threads()
    if busy is not None and threads > max(1.0, cores - busy + 0.5):
        free = max(1, round(cores - busy))
        warn(
            f"Other processes use {busy:.1f} of {cores} cores, and the network's {threads} threads wait for each other: training "
            f"may be several times slower than with OMP_NUM_THREADS={free} set before the command."
        )


def _standardizing(source: str, z_sem: "Tensor") -> "DiffusionAutoencoder":
    """The autoencoder alone, with a standardizer fitted to codes (n, d)."""
    import diffae
    from diffae.semantics.standardizer import Standardizer

    ae = diffae.load_diffusion(source)
    assert isinstance(ae, diffae.DiffusionAutoencoder)
    ae.standardizer = Standardizer.fit(z_sem)
    return ae


def _first_look(data: "ImageSet", out: Path) -> Path:
    """Saves a contact sheet of training images, the first thing to see of a run."""
    from diffae.pictures import save_png, scale_for, sheet

    x = data.images(data.train[:48])
    return save_png(sheet([x[i : i + 12] for i in range(0, len(x), 12)], scale=scale_for(x)), out / "pictures" / "data.png")
