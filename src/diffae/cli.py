"""The commands. No tensor maths here, and nothing heavy is imported before a command is known."""

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from diffae.config import AutoencoderConfig, DataConfig, RunConfig, TrainingConfig
from diffae.presets import preset

if TYPE_CHECKING:
    from diffae.data import ImageSet

console = Console(stderr=True, highlight=False)
DEFAULT_PRESET = "avatars64"


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a diffusion autoencoder on a folder of images.

    Running the same command again goes on where the run stopped. Every setting of the preset can be overridden.

    Example: diffae train photos/ --preset avatars64 --out runs/photos --minutes 30 --model.z-dim 64
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """A folder or a zip of images (any size, nested, any format that Pillow reads), or the name `avatars`."""
    out: Path
    """The run directory: config, metrics, checkpoints, pictures and the model."""
    preset: str = DEFAULT_PRESET
    """Where the settings below start from; their defaults, as shown, are this preset's."""
    minutes: float | None = None
    """Budget in minutes, turned into images from the rate of the first minute."""
    images: int | None = None
    """Budget in images seen, total over resumes."""
    model: AutoencoderConfig
    data: DataConfig
    training: TrainingConfig

    def run(self) -> None:
        training = self.training
        if self.minutes is not None or self.images is not None:
            training = dataclasses.replace(training, minutes=self.minutes, images=self.images)
        data = dataclasses.replace(self.data, source=self.source)
        train(RunConfig(preset=self.preset, model=self.model, data=data, training=training), self.out)


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Train on drawn faces for a few minutes, and look at what a diffusion autoencoder does with them.

    Ends with a page of pictures, OUT/report.html. Running it again goes on, or makes the page anew.

    Example: diffae quickstart --minutes 8 --out runs/quickstart
    """

    out: Path = Path("runs/quickstart")
    """The run directory, and the report in it."""
    minutes: float | None = None
    """Minutes of training; by default 8."""
    images: int | None = None
    """Budget in images, in place of minutes."""
    preset: str = "avatars32"
    """What to train."""

    def run(self) -> None:
        config = preset(self.preset)
        minutes = self.minutes if self.minutes is not None or self.images is not None else 8.0
        training = dataclasses.replace(config.training, minutes=minutes, images=self.images)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, source="avatars"), training=training)
        data = train(config, self.out, first_look=True)
        if data is None:
            return
        from diffae.evaluation.report import write_report

        with _bar("Report") as update:
            page = write_report(self.out, data, progress=update)
        print(f"Open {page}")


@dataclass(frozen=True, kw_only=True)
class Import:
    """Turn a checkpoint of the authors' code into a folder that `diffae.load` reads.

    Nothing that the checkpoint's pickle names is imported or run.

    Example: diffae import ffhq128_autoenc_latent/last.ckpt --out models/ffhq128
    """

    checkpoint: tyro.conf.Positional[Path]
    """The authors' `last.ckpt`."""
    out: Path
    """Folder for `model.safetensors` and `config.json`."""
    raw: bool = False
    """Take the raw weights rather than their moving average, which all published figures are of."""

    def run(self) -> None:
        from diffae.interop import official

        model = official.load(self.checkpoint, ema=not self.raw)
        model.save_pretrained(self.out)
        c = model.config
        latent = "with" if model.prior else "without"
        print(
            f"{self.out}: {c.channels} channels, {c.image_size[0]} x {c.image_size[1]}, z_sem of {c.z_dim} dimensions, {latent} "
            f"latent prior, {sum(p.numel() for p in model.parameters()):,} parameters"
        )


def train(asked: RunConfig, out: Path, *, first_look: bool = False) -> "ImageSet | None":
    """Trains or goes on with the run at `out`, showing how far it is. None if it was interrupted."""
    from diffae.data import prepare
    from diffae.training.run import Finished, Pictured, Started, Stepped, Validated, create_accelerator, resolve
    from diffae.training.run import train as train_events

    config = resolve(asked, out)
    accelerator = create_accelerator(config.training.precision)
    main_process = accelerator.is_main_process
    quiet = contextlib.nullcontext(lambda what, done, total: None)
    with accelerator.main_process_first(), _bar("Data") if main_process else quiet as update:
        data = prepare(config.data, size=config.model.image_size, channels=config.model.channels, progress=update)

    def say(text: str) -> None:
        if main_process:
            console.print(text, soft_wrap=True)

    for note in data.notes:
        say(f"[yellow]{escape(note)}[/]")
    h, w = config.model.image_size
    say(f"{len(data.train):,} images to train on, {len(data.validation):,} held out, {h} x {w}, {config.training.precision}")
    with _training_bar(visible=main_process) as (bar, task):
        for event in train_events(config, data, out, accelerator=accelerator):
            match event:
                case Started(images=images):
                    if images:
                        say(f"Going on after {images:,} images")
                    if first_look and main_process:
                        say(f"First picture: {_first_look(data, out)}")
                case Stepped(step=step, total=total):
                    bar.update(task, completed=step.images, total=total, loss=f"loss {step.loss:.4f}")
                case Validated(images=images, health=health):
                    say(
                        f"{images:>9,} images: validation loss {health.loss:.4f} ({health.shuffled_loss:.4f} with shuffled z_sem), "
                        f"{health.z_dimensions:.0f} effective dimensions"
                    )
                    for warning in health.warnings():
                        say(f"[yellow]{warning}[/]")
                case Pictured(file=file):
                    say(f"Picture: {file}")
                case Finished(images=images, interrupted=True):
                    say(f"Stopped after {images:,} images; everything is saved. The same command goes on from here.")
                    return None
    say(f"Done: {out}. Load it with diffae.load({str(out)!r}).")
    return data if main_process else None


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for countable work; yields the function that moves it."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task(title, total=None, start=True)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} images/s" if task.speed else "")


@contextlib.contextmanager
def _training_bar(*, visible: bool) -> Iterator[tuple[Progress, TaskID]]:
    """Images seen, rate, loss, time left."""
    columns = [
        TextColumn("Training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        _Rate(),
        TextColumn("{task.fields[loss]}"),
    ]
    with Progress(*columns, TimeRemainingColumn(), console=console, speed_estimate_period=60, disable=not visible) as bar:
        yield bar, bar.add_task("", total=None, loss="")


def _first_look(data: "ImageSet", out: Path) -> Path:
    """A contact sheet of training images, before there is anything else to see."""
    from diffae.pictures import save_png, scale_for, sheet

    x = data.images(data.train[:48])
    return save_png(sheet([x[i : i + 12] for i in range(0, len(x), 12)], scale=scale_for(x)), out / "pictures" / "data.png")


def _command(argv: list[str]) -> Any:
    """All commands as one type; `train` has the defaults of the preset that the command line names."""
    name = next((b for a, b in itertools.pairwise(argv) if a == "--preset"), DEFAULT_PRESET)
    base = preset(name)
    defaults = Train(source=tyro.MISSING, out=tyro.MISSING, preset=name, model=base.model, data=base.data, training=base.training)
    return (
        Annotated[Quickstart, tyro.conf.subcommand("quickstart")]
        | Annotated[Train, tyro.conf.subcommand("train", default=defaults)]
        | Annotated[Import, tyro.conf.subcommand("import")]
    )


def main(argv: list[str] | None = None) -> None:
    """The entry point of `diffae`."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        command = tyro.cli(
            _command(argv),
            prog="diffae",
            description="Diffusion autoencoders: an image becomes a meaningful vector and a noise map, and both become it again.",
            args=argv,
        )
        command.run()
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("Interrupted.")
        sys.exit(130)
