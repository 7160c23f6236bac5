"""What volumes cost: seconds and memory of a training step and of a decoder call, voxel by voxel and in blocks of 2 x 2 x 2.

    python benchmarks/size_volumes.py

Each row is a process of its own, which builds the network of a preset for that size and says how long the median call took, and
what the process held at most.
"""

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import tyro
from beside import measured_on, publish

from diffae.cli.bars import work_bar
from diffae.config import Precision
from diffae.config.presets import preset
from diffae.evaluation.pages.page import table_markdown
from diffae.runtime import memory
from diffae.training.run import create_accelerator
from diffae.training.speed import Speed, measure

MEASURED = ("training step", "decoder call")


def main(
    name: str = "volume64",
    sides: tuple[int, ...] = (32, 64),
    patches: tuple[int, ...] = (2, 1),
    precisions: tuple[Precision, ...] = ("float32", "bfloat16"),
    batch: int = 4,
    threads: int = 2,
    out: Path = Path("benchmarks/size-volumes.md"),
) -> None:
    """Measure.

    Args:
        name: preset of the network.
        sides: of cubes, in voxels.
        patches: sides of the blocks of voxels that are taken together as channels.
        precisions: of the arithmetic.
        batch: volumes a training step; a decoder call is of one.
        threads: of the processor.
        out: the table.
    """
    asked = [(side, patch, precision) for side in sides for patch in patches for precision in precisions]
    rows = []
    with work_bar("Measuring") as update:
        for i, (side, patch, precision) in enumerate(asked):
            update(f"{side}^3, patch {patch}, {precision}", i, len(asked))
            found = []
            for what in MEASURED:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    num = batch if what == MEASURED[0] else 1
                    found.append(pool.submit(_measured, name, side, patch, precision, num, what, threads).result())
            cells = [cell for s in found for cell in (f"{s.seconds:.2f}", f"{s.gib:.2f}")]
            rows.append([f"{side} x {side} x {side}", str(patch), precision, *cells])
    header = ["volume", "patch", "arithmetic", f"training step of {batch}, s", "GiB", "decoder call of one, s", "GiB"]
    torch.set_num_threads(threads)
    head = f"# Cost of volumes\n\n`python benchmarks/size_volumes.py`: the network of {name}; {measured_on()}."
    publish(f"{head}\n\n{table_markdown(header, rows)}", out)


def _measured(name: str, side: int, patch: int, precision: Precision, batch: int, what: str, threads: int) -> Speed:
    torch.set_num_threads(threads)
    memory.keep_freed()
    config = preset(name)
    networks = {part: dataclasses.replace(getattr(config.model, part), patch=patch) for part in ("unet", "encoder")}
    model = dataclasses.replace(config.model, image_size=(side,) * 3, **networks)
    training = dataclasses.replace(config.training, precision=precision)
    config = dataclasses.replace(config, model=model, training=training)
    return next(measure(config, batch, accelerator=create_accelerator(), what=[what], seconds=1.0))


if __name__ == "__main__":
    tyro.cli(main)
