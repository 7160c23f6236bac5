"""Commands that train: the quick start, an autoencoder or a plain DDIM, a latent prior."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from diffae.cli import arguments, inputs
from diffae.cli.bars import say, work_bar
from diffae.cli.codes import fit
from diffae.cli.priors import DEFAULT_PRIOR_PRESET, FITTED, TrainPrior, train_prior
from diffae.cli.runs import train, with_budget
from diffae.config import (
    AutoencoderConfig,
    Count,
    DataConfig,
    Frozen,
    Range,
    RunConfig,
    StartConfig,
    TrainingConfig,
    read_json,
)
from diffae.config.data import HeldOut
from diffae.config.presets import comparator, preset, prior_preset

if TYPE_CHECKING:
    from diffae.autoencoder import DiffusionAutoencoder

DEFAULT_PRESET = "avatars64"
PRIOR_SHARE = 5
"""In the quick start, codes that the prior sees for each image that the autoencoder saw. A code costs a fiftieth of an image."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a diffusion autoencoder (or with a preset that ends in -ddim, the plain DDIM to compare it with) on images.

    Running the same command again goes on where the run stopped. Every setting of the preset can be overridden.

    Example: diffae train photos/ --preset pictures64 --out runs/photos --minutes 30 --model.z-dim 64
    """

    source: arguments.Data
    """A folder, zip or tar of images (any size, nested, any format that Pillow reads), a folder of tars (WebDataset), Parquet or
    Arrow files (Hugging Face `datasets`), an LMDB, or the name `avatars`."""
    out: arguments.Folder
    """The run directory: config, metrics, checkpoints, pictures and the model."""
    preset: str = DEFAULT_PRESET
    """Where the settings below start from; their defaults, as shown, are this preset's."""
    minutes: arguments.Minutes = None
    """Budget in minutes, turned into images from the rate of the first minute."""
    images: arguments.Number = None
    """Budget in images seen, total over resumes."""
    start: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """A trained model to start from: a run, a saved folder, the hub's name of one, or the authors' `last.ckpt`. Every weight that
    fits is taken, the rest is named; the networks' settings below are then its own."""
    freeze: Frozen | None = None
    """Which network keeps the weights that it starts from."""
    model: AutoencoderConfig
    data: DataConfig
    training: TrainingConfig

    def run(self) -> None:
        from diffae.frozen.features import named_features
        from diffae.training.starting import start_name

        usual = preset(self.preset).training
        training = with_budget(self.training, self.minutes, self.images, out=self.out, usual=usual)
        start = None if self.start is None else start_name(self.start, self.out)
        latents = self.data.latents
        if latents is not None and Path(latents).is_dir():
            # The model names it wherever it is loaded from.
            latents = str(Path(latents).resolve())
        data = dataclasses.replace(self.data, source=self.source, latents=latents)
        model = dataclasses.replace(self.model, latents=self.model.latents or latents, features=named_features(self.model.features))
        begins = StartConfig(model=start, freeze=self.freeze)
        train(RunConfig(preset=self.preset, model=model, data=data, training=training, start=begins), self.out)


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Train on drawn faces for a few minutes, and look at what a diffusion autoencoder does with them.

    Ends with a page of pictures, OUT/report.html. Running it again goes on, or makes the page anew.

    Example: diffae quickstart --minutes 8 --out runs/quickstart
    """

    out: arguments.Folder = Path("runs/quickstart")
    """The run directory, and the report in it."""
    minutes: arguments.Minutes = None
    """Minutes of training; by default 4, and on a GPU half of one, in which it sees more."""
    images: arguments.Number = None
    """Budget in images, in place of minutes."""
    preset: str = "avatars32"
    """What to train."""

    def run(self) -> None:
        config = preset(self.preset)
        usual = 4.0 if inputs.device() == "cpu" else 0.5
        training = dataclasses.replace(config.training, minutes=usual, images=None)
        training = with_budget(training, self.minutes, self.images, out=self.out)
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
        train_prior(run, z_sem, data, dataclasses.replace(prior, training=budget), name="ddim", among=data)
        fit(run, z_sem, data)
        from diffae.evaluation.pages.report import write_report

        with work_bar("Report") as update:
            page = write_report(self.out, data, device=inputs.device(), progress=update)
        print(f"Open {page}")


@dataclass(frozen=True, kw_only=True)
class TrainComparator:
    """Train a VAE or VQ-VAE on the same images, to stand beside a diffusion autoencoder in `diffae evaluate --comparators`.

    Example: diffae train-comparator avatars --preset avatars32 --kind vae --latent-channels 8 --images 24000 --out runs/vae
    """

    source: arguments.Data
    """The images: a folder, zip or tar, Parquet or Arrow files, an LMDB, or the name `avatars`."""
    out: arguments.Folder
    """The run directory."""
    validation: HeldOut = DataConfig().validation
    """The images to hold out, as `--data.validation` of the autoencoder that it stands beside, so that neither has seen them."""
    labels: str | None = None
    """Its `--data.labels`, whose column `group` says which images are held out together."""
    preset: str = DEFAULT_PRESET
    """The preset whose image size and training it takes over."""
    kind: Literal["vae", "vq"] = "vae"
    """The VAE of latent diffusion (diffusers' AutoencoderKL), or a VQ-VAE (its VQModel)."""
    latent_channels: Count = 8
    """Channels of the latent grid, whose sides are those of the image divided by 2 ** halvings."""
    halvings: Annotated[int, Range(0)] = 2
    """How often the grid is halved."""
    images: arguments.Number = None
    """Budget in images seen; those of the autoencoder, to compare with."""
    minutes: arguments.Minutes = None
    """Budget in minutes, in place of images."""
    avatars: Count = 6000
    """Number of avatars, where the source is `avatars`."""

    def run(self) -> None:
        config = comparator(self.preset, kind=self.kind, latent_channels=self.latent_channels, halvings=self.halvings)
        data = dataclasses.replace(
            config.data, source=self.source, avatars=self.avatars, validation=self.validation, labels=self.labels
        )
        training = with_budget(config.training, self.minutes, self.images, out=self.out)
        train(dataclasses.replace(config, data=data, training=training), self.out)


def defaults(command: type, name: str | None, start: str | None = None, out: str | None = None) -> Any:
    """The defaults of a command that trains: its preset's, with the networks of the model that it starts from; None for others."""
    if command is Train:
        name = name or DEFAULT_PRESET
        base = preset(name)
        if start is not None:
            from diffae.training.starting import began_with, trained_config

            training = dataclasses.replace(base.training, whitened_start=False)
            stored = began_with(start, Path(out)) if out else None
            base = dataclasses.replace(base, model=stored.model if stored else trained_config(start), training=training)
        return Train(source=tyro.MISSING, out=tyro.MISSING, preset=name, model=base.model, data=base.data, training=base.training)
    if command is TrainPrior:
        name = name or DEFAULT_PRIOR_PRESET
        settings = prior_preset(DEFAULT_PRIOR_PRESET if name in FITTED else name)
        return TrainPrior(source=tyro.MISSING, preset=name, model=settings.model, training=settings.training)
    return None


def _forget_stale_prior(ae: "DiffusionAutoencoder", run: Path) -> None:
    """Deletes the quick start's prior if the autoencoder has been trained further since, which makes it useless."""
    from diffae.interop.parts import is_stale, prior_folder

    folder = prior_folder(run, "ddim")
    if is_stale(ae, folder / "model"):
        say("The autoencoder has been trained further: its prior is trained anew")
        shutil.rmtree(folder)
