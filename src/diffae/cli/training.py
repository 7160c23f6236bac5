"""Commands that train: the quick start, an autoencoder or a plain DDIM, a latent prior."""

import contextlib
import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from diffae.cli import inputs
from diffae.cli.bars import say, training_bar, warn, work_bar
from diffae.cli.codes import fit
from diffae.config import (
    AutoencoderConfig,
    ComparatorRunConfig,
    Count,
    DataConfig,
    PriorConfig,
    Range,
    RunConfig,
    TrainingConfig,
    read_json,
)
from diffae.config.presets import comparator, preset, prior_preset
from diffae.runtime import processes

if TYPE_CHECKING:
    from accelerate import Accelerator

    from diffae.autoencoder import DiffusionAutoencoder
    from diffae.data import ImageSet
    from diffae.training.subjects import Subject

DEFAULT_PRESET, DEFAULT_PRIOR_PRESET = "avatars64", "latent-small"
PRIOR_SHARE = 5
"""Codes that the quick start's prior sees for each image that its autoencoder saw; a code costs a fiftieth of an image."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a diffusion autoencoder (or with a preset that ends in -ddim, the plain DDIM to compare it with) on images.

    Running the same command again goes on where the run stopped. Every setting of the preset can be overridden.

    Example: diffae train photos/ --preset avatars64 --out runs/photos --minutes 30 --model.z-dim 64
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """A folder, zip or tar of images (any size, nested, any format that Pillow reads), a folder of tars (WebDataset), Parquet or
    Arrow files (Hugging Face `datasets`), an LMDB, or the name `avatars`."""
    out: inputs.Folder
    """The run directory: config, metrics, checkpoints, pictures and the model."""
    preset: str = DEFAULT_PRESET
    """Where the settings below start from; their defaults, as shown, are this preset's."""
    minutes: Annotated[float | None, Range(0)] = None
    """Budget in minutes, turned into images from the rate of the first minute."""
    images: Annotated[int | None, Range(1)] = None
    """Budget in images seen, total over resumes."""
    model: AutoencoderConfig
    data: DataConfig
    training: TrainingConfig

    def run(self) -> None:
        training = _budget(self.training, self.minutes, self.images)
        latents = self.data.latents
        if latents is not None and Path(latents).is_dir():
            # The model names it wherever it is loaded from.
            latents = str(Path(latents).resolve())
        data = dataclasses.replace(self.data, source=self.source, latents=latents)
        model = dataclasses.replace(self.model, latents=self.model.latents or latents)
        train(RunConfig(preset=self.preset, model=model, data=data, training=training), self.out)


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Train on drawn faces for a few minutes, and look at what a diffusion autoencoder does with them.

    Ends with a page of pictures, OUT/report.html. Running it again goes on, or makes the page anew.

    Example: diffae quickstart --minutes 8 --out runs/quickstart
    """

    out: inputs.Folder = Path("runs/quickstart")
    """The run directory, and the report in it."""
    minutes: Annotated[float | None, Range(0)] = None
    """Minutes of training; by default 4, and on a GPU half of one, in which it sees more."""
    images: Annotated[int | None, Range(1)] = None
    """Budget in images, in place of minutes."""
    preset: str = "avatars32"
    """What to train."""

    def run(self) -> None:
        config = preset(self.preset)
        usual = 4.0 if inputs.device() == "cpu" else 0.5
        minutes = self.minutes if self.minutes is not None or self.images is not None else usual
        training = dataclasses.replace(config.training, minutes=minutes, images=self.images)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, source="avatars"), training=training)
        data = train(config, self.out, first_look=True)
        if data is None:
            return
        run, prior = str(self.out), prior_preset(DEFAULT_PRIOR_PRESET)
        ae = inputs.autoencoder(run)
        z_sem = inputs.codes(ae, run, data)
        _forget_stale_prior(ae, self.out)
        seen = read_json(RunConfig, self.out / "config.json").training.images
        assert seen is not None
        budget = dataclasses.replace(prior.training, images=PRIOR_SHARE * seen)
        if not train_prior(run, z_sem, data, dataclasses.replace(prior, training=budget), name="ddim"):
            return
        fit(run, z_sem, data)
        from diffae.evaluation.pages.report import write_report

        with work_bar("Report") as update:
            page = write_report(self.out, data, device=inputs.device(), progress=update)
        print(f"Open {page}")


@dataclass(frozen=True, kw_only=True)
class TrainPrior:
    """Train a latent DDIM on the z_sem of an autoencoder's images, so that it can sample.

    Several priors can live beside one autoencoder, each with a name. The preset `gaussian` needs no training. Running the same
    command again goes on where it stopped.

    Example: diffae train-prior runs/quickstart --minutes 2
    """

    source: inputs.Source
    """A run directory or a saved model."""
    data: str | None = None
    """The images; by default those that the run was trained on."""
    preset: str = DEFAULT_PRIOR_PRESET
    """Where the settings below start from: `latent-small`, the paper's `latent10` and `latent20`, or `gaussian`."""
    name: str | None = None
    """Name of the prior; by default `ddim`, or `gaussian`. The folder is RUN/priors/NAME."""
    minutes: Annotated[float | None, Range(0)] = None
    """Budget in minutes, turned into codes from the rate of the first minute."""
    images: Annotated[int | None, Range(1)] = None
    """Budget in codes seen, total over resumes."""
    model: PriorConfig
    training: TrainingConfig

    def run(self) -> None:
        if self.preset != "gaussian":
            from diffae.training.run import create_accelerator

            create_accelerator()  # Here several processes meet, so that they share the images to encode.
        inputs.check_beside(self.source)
        ae = inputs.autoencoder(self.source)
        data = inputs.images(ae, self.source, self.data)
        z_sem = inputs.codes(ae, self.source, data)
        if self.preset == "gaussian":
            folder = fit_gaussian(self.source, z_sem, data, name=self.name or "gaussian")
            print(f"{folder}: a Gaussian of {len(data.train):,} codes. Sample with `diffae sample {self.source}`.")
            return
        training = _budget(self.training, self.minutes, self.images)
        config = dataclasses.replace(prior_preset(self.preset), model=self.model, training=training)
        trained = train_prior(self.source, z_sem, data, config, name=self.name or "ddim")
        if trained and processes.is_first():
            print(f"{trained}: sample with `diffae sample {self.source}`.")


@dataclass(frozen=True, kw_only=True)
class TrainComparator:
    """Train a VAE or VQ-VAE on the same images, to stand beside a diffusion autoencoder in `diffae evaluate --against`.

    Example: diffae train-comparator avatars --beside avatars32 --kind vae --latent-channels 8 --images 24000 --out runs/vae
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """The images: a folder, zip or tar, Parquet or Arrow files, an LMDB, or the name `avatars`."""
    out: inputs.Folder
    """The run directory."""
    beside: str = DEFAULT_PRESET
    """The preset whose image size and training it takes over."""
    kind: Literal["vae", "vq"] = "vae"
    """The VAE of latent diffusion (diffusers' AutoencoderKL), or a VQ-VAE (its VQModel)."""
    latent_channels: Count = 8
    """Channels of the latent grid, whose sides are those of the image divided by 2 ** halvings."""
    halvings: Annotated[int, Range(0)] = 2
    """How often the grid is halved."""
    images: Annotated[int | None, Range(1)] = None
    """Budget in images seen; those of the autoencoder, to compare with."""
    minutes: Annotated[float | None, Range(0)] = None
    """Budget in minutes, in place of images."""
    avatars: Count = 6000
    """Number of avatars, where the source is `avatars`."""

    def run(self) -> None:
        config = comparator(self.beside, kind=self.kind, latent_channels=self.latent_channels, halvings=self.halvings)
        data = dataclasses.replace(config.data, source=self.source, avatars=self.avatars)
        train(dataclasses.replace(config, data=data, training=_budget(config.training, self.minutes, self.images)), self.out)


def defaults(command: type, name: str | None) -> Any:
    """The defaults of a command that trains, which are those of its preset; None for other commands."""
    if command is Train:
        name = name or DEFAULT_PRESET
        base = preset(name)
        return Train(source=tyro.MISSING, out=tyro.MISSING, preset=name, model=base.model, data=base.data, training=base.training)
    if command is TrainPrior:
        name = name or DEFAULT_PRIOR_PRESET
        settings = prior_preset(DEFAULT_PRIOR_PRESET if name == "gaussian" else name)
        return TrainPrior(source=tyro.MISSING, preset=name, model=settings.model, training=settings.training)
    return None


def train(asked: RunConfig | ComparatorRunConfig, out: Path, *, first_look: bool = False) -> "ImageSet | None":
    """Trains or goes on with the run at `out`, showing how far it is. None if it was interrupted."""
    from diffae.data import prepare
    from diffae.training.comparators import ComparatorSubject
    from diffae.training.run import create_accelerator, resolve
    from diffae.training.subjects import ImageSubject

    config: RunConfig | ComparatorRunConfig = resolve(asked, out, say=warn)
    accelerator = create_accelerator()
    main_process = accelerator.is_main_process
    quiet = contextlib.nullcontext(lambda what, done, total: None)
    with accelerator.main_process_first(), work_bar("Data") if main_process else quiet as update:
        data = prepare(config.data, size=config.model.image_size, channels=config.model.channels, progress=update)
    if main_process:
        for note in data.notes:
            warn(note)
        h, w = config.model.image_size
        say(f"{len(data.train):,} images to train on, {len(data.validation):,} held out, {h} x {w}, {config.training.precision}")
        if first_look and not (out / "checkpoints").is_dir():
            say(f"First picture: {_first_look(data, out)}")
    subject = ImageSubject(config, data) if isinstance(config, RunConfig) else ComparatorSubject(config, data)
    if not show_training(subject, out, accelerator, what="images"):
        return None
    if main_process:
        say(f"Done: {out}." + (f" Load it with diffae.load({str(out)!r})." if isinstance(config, RunConfig) else ""))
    return data if main_process else None


def train_prior(source: str, z_sem: Any, data: "ImageSet", asked: Any, *, name: str) -> Path | None:
    """Trains or goes on with a prior beside an autoencoder. None if it was interrupted."""
    import diffae
    from diffae.interop.weights import is_stale, prior_folder
    from diffae.semantics.standardizer import Standardizer
    from diffae.training.run import create_accelerator, resolve
    from diffae.training.subjects import PriorSubject

    ae = diffae.load_diffusion(source)
    assert isinstance(ae, diffae.DiffusionAutoencoder)
    ae.standardizer = Standardizer.fit(z_sem[data.train])
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
        say(f"{len(data.train):,} codes of {ae.z_dim} dimensions to train on, {len(data.validation):,} held out")
    done = show_training(PriorSubject(config, ae, z_sem, data), folder, accelerator, what="codes")
    return folder if done else None


def _forget_stale_prior(ae: "DiffusionAutoencoder", run: Path) -> None:
    """Deletes the quick start's own prior where the autoencoder has been trained further since: nothing can use it any more."""
    from diffae.interop.weights import is_stale, prior_folder

    folder = prior_folder(run, "ddim")
    if is_stale(ae, folder / "model"):
        say("The autoencoder has been trained further: its prior is trained anew")
        shutil.rmtree(folder)


def fit_gaussian(source: str, z_sem: Any, data: "ImageSet", *, name: str = "gaussian") -> Path:
    """Fits the Gaussian prior beside an autoencoder."""
    import diffae
    from diffae.interop.weights import prior_folder, save_part
    from diffae.semantics.prior import GaussianPrior
    from diffae.semantics.standardizer import Standardizer

    ae = diffae.load_diffusion(source)
    assert isinstance(ae, diffae.DiffusionAutoencoder)
    ae.standardizer = Standardizer.fit(z_sem[data.train])
    ae.prior = GaussianPrior(ae.z_dim).fit(ae.standardizer(z_sem[data.train]))
    folder = prior_folder(Path(source), name)
    save_part(ae, folder / "model", ["prior", "standardizer"])
    return folder


def show_training(subject: "Subject", out: Path, accelerator: "Accelerator", *, what: str) -> bool:
    """Trains, and shows what happens as it happens. False if it was interrupted."""
    from diffae.training.run import Finished, Logged, Noted, Pictured, Started, Stepped, Validated
    from diffae.training.run import train as events

    with training_bar(what, visible=accelerator.is_main_process) as (bar, task):
        for event in events(subject, out, accelerator=accelerator):
            if not accelerator.is_main_process:
                interrupted = isinstance(event, Finished) and event.interrupted
                continue
            match event:
                case Started(images=images):
                    if images:
                        say(f"Going on after {images:,} {what}")
                case Stepped(step=step, total=total):
                    bar.update(task, completed=step.images, total=total)
                case Logged(loss=loss):
                    bar.update(task, loss=f"loss {loss:.4f}")
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


def _budget(training: TrainingConfig, minutes: float | None, images: int | None) -> TrainingConfig:
    """The training with the budget of the command line, where it gives one."""
    return training if minutes is None and images is None else dataclasses.replace(training, minutes=minutes, images=images)


def _first_look(data: "ImageSet", out: Path) -> Path:
    """A contact sheet of training images, before there is anything else to see."""
    from diffae.pictures import save_png, scale_for, sheet

    x = data.images(data.train[:48])
    return save_png(sheet([x[i : i + 12] for i in range(0, len(x), 12)], scale=scale_for(x)), out / "pictures" / "data.png")
