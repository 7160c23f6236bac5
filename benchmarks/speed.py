"""Seconds of a decoder call and of a training step, ours beside the authors' code, on the same weights and images.

    python benchmarks/speed.py --authors AUTHORS

AUTHORS is a checkout of the authors' code (see `benchmarks/authors.py`). Theirs is as they wrote it: `model/` and `diffusion/`
unmodified, and a plain loop around their loss with Adam, gradient clipping and their `ema`. The two take turns; a row is the median
of the rounds, its ratio the median of each round's ratio, with the smallest and largest. Each training is a process of its own that
waits while the other computes, and holds its memory as its makers have it: theirs as it comes, ours as `diffae train` does.
"""

import contextlib
import functools
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import tyro
from beside import authors_of, like_theirs, measured_on, our_step, publish, random_images
from torch import Tensor

from diffae.config import Precision
from diffae.evaluation.pages.page import table_markdown
from diffae.runtime import memory
from diffae.runtime.processor import resolve_precision

Timed = tuple[Callable[[], object], Callable[[], object]]
"""One call of ours, one of theirs."""


def main(
    authors: Path,
    rows: tuple[str, ...] = ("decoder", "training"),
    out: Path | None = Path("benchmarks/speed.md"),
    decoder: str = "ffhq128",
    decoder_batches: tuple[int, ...] = (1, 4),
    training: str = "avatars64",
    training_batches: tuple[int, ...] = (16, 64),
    precision: Precision = "auto",
    rounds: int = 9,
    threads: int = 2,
) -> None:
    """Compare.

    Args:
        authors: checkout of the authors' code.
        rows: which comparisons: decoder, training.
        out: the table; none to print it only.
        decoder: preset whose decoder is called, with random weights.
        decoder_batches: images a call.
        training: preset that is trained.
        training_batches: images a step.
        precision: of ours, theirs computes in float32; `auto` as a run would choose. A decoder's call is measured in float32 too.
        rounds: of timing.
        threads: of both.
    """
    torch.set_num_threads(threads)
    precision = resolve_precision(precision)
    lines = []
    if "decoder" in rows:
        for batch in decoder_batches:
            for kind in dict.fromkeys(("float32", precision)):
                pair, error = _decoder(decoder, batch, authors, kind)
                lines.append(_row(f"decoder call, {decoder}, batch {batch}, {kind}", _turns(pair, rounds), f"{error:.1e}", ""))
    if "training" in rows:
        for batch in training_batches:
            seconds, peaks = _training(training, batch, authors, precision, threads, rounds)
            gib = f"{peaks[0]:.2f} and {peaks[1]:.2f} GiB"
            lines.append(_row(f"training step, {training}, batch {batch}, {precision}", seconds, "", gib))
    header = ["", "ours, s", "authors', s", "times as fast", "least and most", "relative difference", "peak memory"]
    command = f"python benchmarks/speed.py --authors AUTHORS --rounds {rounds} --threads {threads}"
    text = f"# Speed\n\n`{command}`: seed 0; {measured_on()}.\n\n{table_markdown(header, lines)}\n"
    publish(text, out)


def _row(name: str, seconds: list[tuple[float, float]], difference: str, memory_held: str) -> list[str]:
    ours, theirs = (statistics.median(side) for side in zip(*seconds, strict=True))
    ratios = sorted(b / a for a, b in seconds)
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    return [name, f"{ours:.3f}", f"{theirs:.3f}", f"{statistics.median(ratios):.2f}", spread, difference, memory_held]


def _turns(pair: Timed, rounds: int) -> list[tuple[float, float]]:
    """Seconds of both in each round, after a call each that is not counted; who is first changes every round."""
    rows = []
    for call in pair:
        call()
    for i in range(rounds):
        seconds = [0.0, 0.0]
        for side in (0, 1) if i % 2 == 0 else (1, 0):
            started = time.perf_counter()
            pair[side]()
            seconds[side] = time.perf_counter() - started
        rows.append((seconds[0], seconds[1]))
    return rows


def _decoder(name: str, batch: int, authors: Path, precision: Precision) -> tuple[Timed, float]:
    """A call of each decoder's network, and the relative difference of their outputs."""
    ae = like_theirs(name).eval()
    ae.precision = precision
    their_networks = authors_of(authors, ae)
    x_t, z_sem = torch.randn(batch, *ae.image_shape), torch.randn(batch, ae.z_dim)
    t = torch.full((batch,), 500.0)

    @torch.no_grad()
    def ours() -> Tensor:
        return ae.eps_model(z_sem)(x_t, t)

    @torch.no_grad()
    def theirs() -> Tensor:
        return their_networks.eps(x_t, t.long(), cond=z_sem).pred

    a, b = ours(), theirs()
    return (ours, theirs), float((a - b).norm() / b.norm())


def _training(
    name: str, batch: int, authors: Path, precision: Precision, threads: int, rounds: int
) -> tuple[list[tuple[float, float]], list[float]]:
    """Seconds of whole training steps, in turns, and the most GiB that each process has held."""
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        sides = [
            stack.enter_context(context.Pool(1, _begin, (side, name, batch, authors, precision, threads)))
            for side in ("ours", "theirs")
        ]
        ours, theirs = (functools.partial(side.apply, _go_on) for side in sides)
        return _turns((ours, theirs), rounds), [side.apply(memory.peak) for side in sides]


STEP: list[Callable[[], object]] = []
"""What a process of `_training` does."""


def _begin(side: str, name: str, batch: int, authors: Path, precision: Precision, threads: int) -> None:
    torch.set_num_threads(threads)
    ae = like_theirs(name)
    if side == "ours":
        memory.keep_freed()
        STEP.append(our_step(name, ae, random_images(ae, batch), precision=precision))
    else:
        STEP.append(authors_of(authors, ae).training(random_images(ae, batch)))


def _go_on() -> None:
    STEP[0]()


if __name__ == "__main__":
    tyro.cli(main)
