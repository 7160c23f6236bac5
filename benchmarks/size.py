"""What training costs against image size and batch: images a second and memory of the avatars64 network, and the law they follow.

    python benchmarks/size.py

Each cell is a process of its own, which builds the network for that size, takes training steps, and says how long the median took
and what it held at most. A row ends where a step, by what a quarter of it took, would take more than a minute or 20 GiB.
"""

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from beside import measured_on, publish

from diffae.cli.bars import work_bar
from diffae.config.presets import preset
from diffae.evaluation.pages.figures import plotted
from diffae.evaluation.pages.page import table_markdown
from diffae.pictures import save_png
from diffae.runtime import memory
from diffae.training.run import create_accelerator
from diffae.training.speed import Speed, measure

MOST_SECONDS, MOST_GIB = 60.0, 20.0


def main(
    name: str = "avatars64",
    sizes: tuple[int, ...] = (32, 64, 128, 256),
    batches: tuple[int, ...] = (1, 4, 16, 64),
    threads: int = 2,
    out: Path = Path("benchmarks/size.md"),
) -> None:
    """Measure.

    Args:
        name: preset of the network.
        sizes: of square images, in pixels.
        batches: images a step.
        threads: of the processor.
        out: the table; the plot lies beside it.
    """
    found: dict[tuple[int, int], Speed] = {}
    with work_bar("Measuring") as update:
        for i, size in enumerate(sizes):
            for batch in batches:
                update(f"{size} px, batch {batch}", i, len(sizes))
                quarters = [s for (p, b), s in found.items() if p * p * b * 4 == size * size * batch]
                if any(4 * s.seconds > MOST_SECONDS or 4 * s.gib > MOST_GIB for s in quarters):
                    break
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    found[size, batch] = pool.submit(_step, name, size, batch, threads).result()
    torch.set_num_threads(threads)
    megapixels = np.array([size * size * batch / 1e6 for size, batch in found])
    seconds = np.array([s.seconds for s in found.values()])
    gib = np.array([s.gib for s in found.values()])
    laws = [_law(megapixels, seconds), _law(megapixels, gib)]
    cells = [
        [f"{size} px", *(f"{s.images:.1f} / {s.gib:.1f}" if (s := found.get((size, b))) else "" for b in batches)] for size in sizes
    ]
    text = (
        f"# Cost against size\n\n`python benchmarks/size.py --threads {threads}`: training steps of the {name} network in float32; "
        f"{measured_on()}.\n\nImages a second / most memory of the process in GiB:\n\n"
        f"{table_markdown(['', *(f'batch {b}' for b in batches)], cells)}\n\n"
        f"A step takes {laws[0][0]:.2f} s + {laws[0][1]:.2f} s per megapixel of the batch (within {laws[0][2]:.0%} at most), "
        f"and holds {laws[1][0]:.2f} GiB + {laws[1][1]:.1f} GiB per megapixel (within {laws[1][2]:.0%}).\n"
    )

    def draw(axes: Any) -> None:
        for size in sizes:
            points = [(size * size * b / 1e6, s.seconds) for (p, b), s in found.items() if p == size]
            axes.loglog(*np.array(points).T, "o-", markersize=4, label=f"{size} px")
        line = np.geomspace(megapixels.min(), megapixels.max(), 50)
        axes.loglog(line, laws[0][0] + laws[0][1] * line, "k:", label="the law")
        axes.set(xlabel="megapixels a batch", ylabel="seconds a training step")

    save_png(plotted(draw), out.with_suffix(".png"))
    publish(text, out)


def _law(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """`y = a + b x` of least relative error: a, b, and the largest relative error."""
    (a, b), *_ = np.linalg.lstsq(np.stack([1 / y, x / y], axis=1), np.ones(len(y)), rcond=None)
    return float(a), float(b), float(np.abs((a + b * x) / y - 1).max())


def _step(name: str, size: int, batch: int, threads: int) -> Speed:
    torch.set_num_threads(threads)
    memory.keep_freed()
    config = preset(name)
    encoder = config.model.encoder
    cells = min(encoder.pooled_size, size // 2 ** (len(encoder.channel_mult) - 1))
    model = dataclasses.replace(config.model, image_size=(size, size), encoder=dataclasses.replace(encoder, pooled_size=cells))
    config = dataclasses.replace(config, model=model, training=dataclasses.replace(config.training, precision="float32"))
    return next(measure(config, batch, accelerator=create_accelerator(), what=["training step"], seconds=1.0))


if __name__ == "__main__":
    tyro.cli(main)
