"""What this machine gives."""

from dataclasses import dataclass
from typing import Literal

from diffae.cli.bars import console, say, work_bar
from diffae.config import Precision
from diffae.presets import preset


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Calls and images a second of a preset's network, its arithmetic beside that of matrix products, and memory.

    Example: diffae bench --preset ffhq128 --batches 1 8
    """

    preset: str = "avatars64"
    """Whose network, untrained."""
    batches: tuple[int, ...] = (1, 16)
    """Images at a time."""
    what: tuple[Literal["encoding", "decoder call", "training step"], ...] = ("encoding", "decoder call", "training step")
    """Of these."""
    precision: Precision = "auto"
    """Arithmetic of training, and on a GPU of everything; `auto` as a run would choose."""
    seconds: float = 2.0
    """That each measurement takes at least."""

    def run(self) -> None:
        from rich.table import Table

        from diffae.evaluation.report import machine
        from diffae.training.run import create_accelerator, resolve_precision
        from diffae.training.speed import measure, product_rate

        accelerator = create_accelerator(resolve_precision(self.precision))
        table = Table("", "batch", "a second", "images/s", "GFLOP/s", "of products", "GiB so far")
        table.columns[0].no_wrap = True
        with work_bar("Measuring") as update:
            update("Matrix products", 0, len(self.batches))
            most = product_rate(accelerator.device)
            for i, batch in enumerate(self.batches):
                update(f"Batch {batch}", i, len(self.batches))
                speeds = measure(preset(self.preset), batch, accelerator=accelerator, what=self.what, seconds=self.seconds)
                for s in speeds:
                    rate = s.flop / s.seconds
                    table.add_row(
                        s.what, str(batch), f"{1 / s.seconds:.2f}", f"{s.images:.1f}", f"{rate / 1e9:.0f}",
                        f"{rate / most:.0%}", f"{s.gib:.2f}",
                    )  # fmt: skip
        say(f"{self.preset}; {machine()}; products of float32 matrices {most / 1e9:.0f} GFLOP/s")
        console.print(table)
