"""Commands about weights: the authors' checkpoints, averages, calibration, networks of others."""

import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffae.cli import arguments, inputs
from diffae.cli.bars import say, work_bar
from diffae.cli.divisions import as_divided
from diffae.config import Range, RunConfig, read_json, spelled
from diffae.config.presets import preset

Name = Literal["inception", "alexnet", "vgg16", "face", "face-detector", "face-landmarks"]
"""Of networks that are fetched, those of `frozen.weights`, which is not imported before a command is known."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """Turn a checkpoint of the authors' code into a folder that `diffae.load` reads.

    Nothing that the checkpoint's pickle names is imported or run. By one of the names ffhq256, ffhq128, bedroom128, horse128 (and
    with -latent, which can sample) it is looked for in the authors' folder, such as checkpoints/ffhq256_autoenc/last.ckpt, then in
    copies on the hub; the model has that name afterwards: `diffae studio ffhq256`.

    Example: diffae import ffhq128_autoenc_latent/last.ckpt --out models/ffhq128
    """

    checkpoint: tyro.conf.Positional[str]
    """The authors' `last.ckpt`, its weights as safetensors, or the name of a model that they published."""
    out: Annotated[Path | None, arguments.Writes(model=True)] = None
    """Folder for `model.safetensors` and `config.json`; of published models, by default where their names are looked up."""
    preset: str | None = None
    """Whose networks they are, where a file has weights alone (safetensors)."""
    classifier: Path | None = None
    """The authors' classifier of the same model (its own `last.ckpt`): its attributes become editing directions."""
    statistics: Path | None = None
    """A file with the mean and standard deviation of z_sem, where the classifier's has none (safetensors)."""
    raw: bool = False
    """Take the raw weights rather than their moving average, which all published figures are of."""

    def run(self) -> None:
        from diffae.interop import official

        path, classifier, statistics, preset_name = Path(self.checkpoint), self.classifier, self.statistics, self.preset
        out, copy = self.out, None
        if not path.exists() and self.checkpoint in official.PUBLISHED:
            found = official.find(self.checkpoint)
            path, classifier, statistics = found.weights, classifier or found.classifier, statistics or found.statistics
            out, copy = out or official.imported_folder(self.checkpoint), found.copy
            if copy is not None:
                preset_name = preset_name or found.preset
                if self.raw:
                    raise ValueError(f"{copy} has a copy of the averaged weights alone. Leave --raw away, or fetch last.ckpt.")
                say(f"From a copy on the hub, {copy}: not the authors' own files, and compared with no hash")
        if out is None:
            raise ValueError(f"Where should {self.checkpoint} be written? Give --out.")
        if statistics is not None and classifier is None:
            raise ValueError(f"The statistics of {statistics} are for a classifier: give it too, --classifier.")
        settings = None if preset_name is None else preset(preset_name).model
        model = official.load(path, ema=not self.raw, settings=settings)
        if classifier is not None:
            model.attributes = official.load_classifier(classifier, z_dim=model.z_dim, ema=not self.raw, statistics=statistics)
        model.about = {"source": f"{self.checkpoint}" + (f", from a copy on the hub, {copy}" if copy else "")}
        model.save_pretrained(out)
        c = model.config
        latent = "with" if model.prior else "without"
        print(
            f"{out}: {c.channels} channels, {spelled(c.image_size)}, z_sem of {c.z_dim} dimensions, {latent} "
            f"latent prior, {sum(p.numel() for p in model.parameters()):,} parameters"
        )


@dataclass(frozen=True, kw_only=True)
class Average:
    """Choose after training over how much of a run's past its weights are averaged, and write the best of these models.

    The run must have been trained with --training.average-every. What counts is the loss on its held-out images.

    Example: diffae average runs/faces --lengths 0.02 0.05 0.1 --out models/faces
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    out: arguments.ModelFolder
    """Folder for the model of the best length."""
    lengths: Annotated[tuple[float, ...], Range(0.001, 0.28)] = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2)
    """Standard deviation of the average over time, as a share of the whole run: small is short."""

    def run(self) -> None:
        from diffae.training.averages import average
        from diffae.training.subjects import ImageSubject

        config = read_json(RunConfig, self.run_folder / "config.json")
        data = inputs.prepared(config.data, config.model, divide=as_divided(str(self.run_folder)))
        subject = ImageSubject(config, data)
        if not len(data.validation):
            raise ValueError("The run holds no images out to compare averages on. Give data.validation when training.")
        losses: dict[float, float] = {}
        with work_bar("Averaging") as update:
            for length, weights in average(self.run_folder / "averages", self.lengths):
                update(f"{length:g}", len(losses), len(self.lengths))
                model = subject.build().eval()
                model.load_state_dict(weights)
                model.to(inputs.device())
                health = subject.validate(model)
                assert health is not None
                losses[length] = health.metrics()["validation/loss"]
                if losses[length] == min(losses.values()):
                    subject.save(model, self.out, config.training.images or 0)
        for length, loss in losses.items():
            print(f"{length:g}: validation loss {loss:.4f}{', the best' if loss == min(losses.values()) else ''}")
        print(f"Saved: {self.out}")


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Choose timesteps, levels and numbers of steps that suit a model, on its held-out images, and save them beside it.

    Example: diffae calibrate runs/quickstart
    """

    source: arguments.LocalSource
    data: str | None = None
    """The images; by default those that the run was trained on, of which the held-out ones are taken."""
    num: Annotated[int, Range(2)] = 200
    """How many of them."""

    def run(self) -> None:
        from diffae.evaluation.calibration import calibrate
        from diffae.interop.weights import save_calibration

        inputs.check_beside(self.source)
        ae = inputs.autoencoder(self.source)
        data = inputs.divided_images(ae, self.source, self.data)
        if len(data.validation) < 2:
            raise ValueError("A calibration needs at least two held-out images: name more with --data.")
        with work_bar("Calibrating") as update:
            found, measured = calibrate(ae, data.images(data.some(data.validation, self.num)), progress=update)
        for what, setting, error in measured:
            print(f"{what}, {setting}: MSE {error}")
        print(
            f"Mean decode at t = {found.mean_t}; levels {found.spacing} from t = {found.t_max:g}; {found.steps} steps there and "
            f"back, {found.sample_steps} from drawn noise"
        )
        print(f"Saved: {save_calibration(ae, Path(self.source))}")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Fetch networks of others: Inception (FID, KID), AlexNet and VGG16 (LPIPS), dlib's of faces, and what `diffae align` finds
    faces by. 166 MB, once.

    What is there already (in the cache, in torch's hub cache) is only checked. Everything is compared with a hash.

    Example: diffae weights
    """

    networks: tuple[Name, ...] = typing.get_args(Name)
    """Which of them."""

    def run(self) -> None:
        from diffae.frozen.weights import fetch_weights, find_weights

        for name in self.networks:
            try:
                path = find_weights(name)[0]
            except FileNotFoundError:
                say(f"Fetching {name}")
                path = fetch_weights(name)
            print(f"{name}: {path}")
