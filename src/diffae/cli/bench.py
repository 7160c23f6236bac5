"""Commands that measure what this machine gives: of the network, and of the images."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffae.cli import arguments
from diffae.cli.bars import console, say, work_bar
from diffae.config import Compile, Count, Counts, Precision, Range
from diffae.config.presets import preset


@dataclass(frozen=True, kw_only=True)
class BenchNetwork:
    """Calls and images a second of a preset's network, its arithmetic beside the most that is reached here, and memory.

    Example: diffae bench network --preset ffhq128 --batches 1 8
    """

    preset: str = "avatars64"
    """Whose network, untrained."""
    batches: Counts = (1, 16)
    """Images at a time."""
    what: tuple[Literal["encoding", "decoder call", "training step"], ...] = ("encoding", "decoder call", "training step")
    """Of these."""
    precision: Precision = "auto"
    """Arithmetic of the networks; `auto` as a training run would choose."""
    compile: Compile | None = None
    """Compile the networks first, with this mode of torch.compile."""
    seconds: Annotated[float, Range(0, 3600)] = 2.0
    """That each measurement takes at least."""

    def run(self) -> None:
        from rich.table import Table

        from diffae.evaluation.pages.report import machine
        from diffae.runtime.processor import resolve_precision
        from diffae.training.run import create_accelerator
        from diffae.training.speed import measure, most_rate

        precision = resolve_precision(self.precision)
        accelerator = create_accelerator()
        table = Table("", "batch", "a second", "images/s", "GFLOP/s", "of the most", "GiB so far")
        table.columns[0].no_wrap = True
        config = preset(self.preset)
        training = dataclasses.replace(config.training, compile=self.compile, precision=precision)
        config = dataclasses.replace(config, training=training)
        with work_bar("Measuring") as update:
            update("The most", 0, len(self.batches))
            most = most_rate(precision, accelerator.device)
            for i, batch in enumerate(self.batches):
                update(f"Batch {batch}", i, len(self.batches))
                speeds = measure(config, batch, accelerator=accelerator, what=self.what, seconds=self.seconds)
                for s in speeds:
                    rate = s.flop / s.seconds
                    table.add_row(
                        s.what, str(batch), f"{1 / s.seconds:.2f}", f"{s.images:.1f}", f"{rate / 1e9:.0f}",
                        f"{rate / most:.0%}", f"{s.gib:.2f}",
                    )  # fmt: skip
        say(f"{self.preset}; {machine()}; {precision}; large products and convolutions reach {most / 1e9:.0f} GFLOP/s")
        console.print(table)


@dataclass(frozen=True, kw_only=True)
class BenchData:
    """Images a second of decoding and of reading what was decoded, beside what the network of a preset or run takes.

    Example: diffae bench data photos/ --preset avatars64
    """

    source: arguments.Data
    """Where the images are; anything that `diffae train` takes."""
    preset: str = "avatars64"
    """The size of the images, and the network, with random weights."""
    run_folder: Annotated[Path | None, tyro.conf.arg(name="run")] = None
    """A run, in place of the preset."""
    num: Count = 2000
    """Images that are decoded."""
    threads: Annotated[tuple[int, ...] | None, Range(1)] = None
    """Numbers of threads to decode on; by default 1 and all."""
    out: Annotated[Path | None, arguments.Writes((".json",))] = None
    """Where to write the figures as JSON too."""

    def run(self) -> None:
        import json

        from rich.table import Table

        from diffae.config import RunConfig, read_json
        from diffae.data.preparation import source_of
        from diffae.runtime.cores import usable_cores
        from diffae.runtime.files import write_text
        from diffae.training.run import create_accelerator
        from diffae.training.throughput import input_rates, network_rates

        config = preset(self.preset) if self.run_folder is None else read_json(RunConfig, self.run_folder / "config.json")
        if config.model.latents is not None:
            raise ValueError(f"{self.run_folder} is of latents, which are made once, by {config.model.latents}: name a preset.")
        threads = self.threads or tuple(sorted({1, len(usable_cores())}))
        data = dataclasses.replace(config.data, source=self.source, avatars=self.num)
        with work_bar("Data") as update:
            _, source = source_of(data, size=config.model.image_size, progress=update)
        rates = [
            *input_rates(source, config, num=self.num, threads=threads),
            *network_rates(config, accelerator=create_accelerator()),
        ]
        network = [r for r in rates if r.network]
        table = Table("", "images/s", *(f"times {r.use}" for r in network))
        for r in rates:
            table.add_row(r.what, f"{r.images:,.0f}", *("" if r.network else f"{r.images / n.images:,.1f}" for n in network))
        console.print(table)
        decoding, reading = (max(r.images for r in rates if r.use == use) for use in ("decoding", "reading"))
        for r in network:
            first, later = (1 / (1 + r.images * seconds) for seconds in (1 / decoding + 1 / reading, 1 / reading))
            print(
                f"{r.use}: the network takes {first:.1%} of a first pass, which decodes the images, and {later:.1%} of later ones"
            )
        if self.out is not None:
            write_text(self.out, json.dumps([r._asdict() for r in rates], indent=2) + "\n")
            print(f"Figures: {self.out}")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure what this machine gives: `network`, which is the default, or `data`.

    Example: diffae bench
    """

    what: tyro.conf.OmitSubcommandPrefixes[
        Annotated[BenchNetwork, tyro.conf.subcommand("network")] | Annotated[BenchData, tyro.conf.subcommand("data")]
    ] = field(default_factory=BenchNetwork)

    def run(self) -> None:
        arguments.check(self.what)
        self.what.run()
