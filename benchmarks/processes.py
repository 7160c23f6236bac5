"""Training on two processes of one thread beside one process of one thread: images a second, and losses.

    python benchmarks/processes.py

Whole weights are kept by both processes (DDP), or divided over them (`training.sharded`). Each measurement is a launch of its own;
rounds go through all of them in turn, and ratios are of medians.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import tyro
from beside import endless_training, measured_on, publish

from diffae.autoencoder import build
from diffae.config import Precision
from diffae.config.presets import preset
from diffae.evaluation.pages.page import table_markdown
from diffae.runtime import memory
from diffae.runtime.processor import resolve_precision
from diffae.runtime.seeding import Draws
from diffae.training.run import create_accelerator

WAYS = {"one process": (1, False), "two, weights whole": (2, False), "two, weights divided": (2, True)}

ASKED = "BENCHMARK_PROCESSES"
"""Set for those that are launched: what they measure."""


def main(
    name: str = "avatars32",
    batches: tuple[int, ...] = (16, 64),
    rounds: int = 3,
    images: int = 960,
    precision: Precision = "float32",
    out: Path = Path("benchmarks/processes.md"),
) -> None:
    """Measure.

    Args:
        name: preset of the network.
        batches: images a step, over all processes.
        rounds: of all measurements.
        images: of a measurement, after a first step that does not count.
        precision: `auto` as a run would choose.
        out: the table.
    """
    precision = resolve_precision(precision)
    measured: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for i in range(rounds):
        for batch in batches:
            for way, (count, sharded) in WAYS.items():
                run = _launch(name, batch, images, precision, count, sharded)
                measured.setdefault((batch, way), []).append(run)
                print(f"round {i + 1}, batch {batch}, {way}: {run['rate']:.1f} images/s", flush=True)
    rows = []
    for (batch, way), runs in measured.items():
        alone = measured[batch, "one process"]
        ratios = sorted(run["rate"] / other["rate"] for run, other in zip(runs, alone, strict=True))
        middle = statistics.median(run["rate"] for run in runs)
        ratio = middle / statistics.median(run["rate"] for run in alone)
        apart = max(abs(a - b) / b for a, b in zip(runs[0]["losses"], alone[0]["losses"], strict=True))
        cells = [f"{ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", f"{apart:.0e}"] if way != "one process" else ["", ""]
        rows.append([str(batch), way, f"{middle:.1f}", *cells])
    header = ["batch", "", "images/s", "times one process", "losses apart, at most"]
    text = (
        f"# Two processes\n\n`python benchmarks/processes.py --precision {precision}`: training steps of the {name} network, one "
        f"thread a process; {rounds} rounds of {images} images; {measured_on()}.\n\n{table_markdown(header, rows)}"
    )
    publish(text, out)


def _launch(name: str, batch: int, images: int, precision: Precision, count: int, sharded: bool) -> dict[str, Any]:
    """What the first of `count` processes measures."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    asked = json.dumps([name, batch, images, precision, sharded])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", ASKED: asked}
    done = subprocess.run([*torchrun, __file__], check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def _measure(name: str, batch: int, images: int, precision: Precision, sharded: bool) -> None:
    """Trains on noise, and prints images a second and the losses."""
    torch.set_num_threads(1)
    memory.keep_freed()
    config = preset(name)
    training = dataclasses.replace(config.training, batch_size=batch, sharded=sharded, precision=precision)
    accelerator = create_accelerator()
    torch.manual_seed(0)
    ae = build(config.model).to(accelerator.device)

    def noise(positions: range) -> torch.Tensor:
        return Draws.of(len(positions), 0, start=positions.start).normal("images", ae.image_shape).clamp(-1, 1)

    steps = endless_training(ae, training, noise, accelerator)
    losses = [next(steps).loss]
    began = time.perf_counter()
    losses += [next(steps).loss for _ in range(images // batch)]
    rate = images / (time.perf_counter() - began)
    if accelerator.is_main_process:
        print(json.dumps({"rate": rate, "losses": losses}))


if __name__ == "__main__":
    if ASKED in os.environ:
        _measure(*json.loads(os.environ[ASKED]))
    else:
        tyro.cli(main)
