"""Inversion and decoding: network calls, error and seconds of the authors' code and of ours, on the same weights and images.

    python benchmarks/inversion.py RUN --authors AUTHORS

RUN is a model of any training; AUTHORS a checkout of the authors' code (see `benchmarks/authors.py`), without which ours runs
alone. All schemes take turns in each round, and seconds are medians over rounds of one edit of one image. Errors are on the [0, 1]
scale, float32. An edit moves z_sem half-way to another image's. Its error is held against two limits: what our solver finds in 600
steps, and the scheme's own (theirs at T = 1000), because the two conventions differ where levels end and x_0 is clamped.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from authors import WHERE, Authors
from beside import measured_on, publish
from PIL import Image
from torch import Tensor

import diffae
from diffae.cli import inputs
from diffae.cli.bars import work_bar
from diffae.diffusion.inversion import Code, Inversion, refine
from diffae.evaluation.pages.figures import plotted
from diffae.evaluation.pages.page import table_markdown
from diffae.evaluation.pages.tables import number
from diffae.evaluation.suites.bench import in_colour
from diffae.frozen.perceptual import LEAST
from diffae.frozen.weights import load_network
from diffae.metrics.images import mse, psnr, ssim
from diffae.pictures import save_png

LIMIT, THEIR_LIMIT = 600, 1000
"""Steps that are taken for exact."""
Progress = Callable[[str, int, int], None]
Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Scheme:
    """One way there and back.

    Attributes:
        name: as the table says it.
        calls: network calls there, and back.
        encode: images and their z_sem -> a code.
        decode: a code, and a z_sem -> images.
        family: whose limit is its own: `ours` or `theirs`.
    """

    name: str
    calls: tuple[int, int]
    encode: Callable[[Tensor, Tensor], Any]
    decode: Callable[[Any, Tensor], Tensor]
    family: str = "ours"


def schemes(ae: diffae.DiffusionAutoencoder, authors: Authors | None) -> list[Scheme]:
    """What is compared."""

    def infer(inversion: Inversion, steps: int, x: Tensor, z: Tensor) -> Code:
        return ae.infer(x, inversion=inversion, steps=steps)

    def refined(steps: int, rounds: int, x: Tensor, z: Tensor) -> Code:
        with torch.no_grad():
            return Code(z, refine(ae.eps_model(z), x, ae.path(steps), rounds=rounds), "refine", steps)

    def render(code: Code, z: Tensor) -> Tensor:
        return ae.render(code, z_sem=z)

    plain: tuple[Inversion, ...] = ("reversible", "bdia")
    compared = [
        *[Scheme(f"fast, N = {n}", (n, n), partial(infer, "fast", n), render) for n in (10, 20, 40)],
        *[Scheme(f"anchored, N = {n}", (n + 1, n), partial(infer, "anchored", n), render) for n in (10, 20)],
        *[Scheme(f"refine, K = {k}, N = 20", (20 * (2 * k + 1), 20), partial(refined, 20, k), render) for k in (1, 2)],
        *[Scheme(f"{kind}, N = {n}", (n, n - 1), partial(infer, kind, n), render) for kind in plain for n in (10, 20)],
    ]
    if authors is not None:
        for encode, decode in ((20, 20), (100, 100), (250, 250), (250, 100)):
            name = f"authors', T = {encode}" if encode == decode else f"authors' notebook, T = {encode} and {decode}"
            compared.append(
                Scheme(name, (encode, decode), partial(_invert, authors, encode), partial(_decode, authors, decode), "theirs")
            )
    return compared


def _invert(authors: Authors, steps: int, x: Tensor, z: Tensor) -> Tensor:
    return authors.invert(x, z, steps)


def _decode(authors: Authors, steps: int, x_T: Tensor, z: Tensor) -> Tensor:
    return authors.decode(z, x_T, steps)


def main(
    run: tyro.conf.Positional[str],
    authors: Path | None = None,
    out: Path = Path("benchmarks/inversion.md"),
    n: int = 16,
    rounds: int = 3,
    drawn_only: bool = False,
    seed: int = 0,
) -> None:
    """Compare.

    Args:
        run: the model.
        authors: checkout of the authors' code.
        out: the table; the plot lies beside it.
        n: held-out images.
        rounds: of timing.
        drawn_only: print what becomes of drawn noise, and leave out the rest and the files.
        seed: of drawn noise.
    """
    ae = inputs.autoencoder(run)
    data = inputs.images(ae, run, None)
    x = data.images(data.validation[:n])
    z = ae.encode(x)
    edited = (z + z.roll(1, 0)) / 2
    theirs = None if authors is None else Authors(authors, ae)
    if theirs is None:
        print(f"Ours alone: for the authors' beside it, give --authors. Get their code with: {WHERE}")
    lpips = load_network("alexnet")[0] if min(x.shape[-2:]) >= LEAST["alexnet"] else None
    if drawn_only:
        with work_bar("Comparing") as update:
            conclusion, table = _decoding(ae, theirs, lpips, x, z, seed, update)
        print(f"{n} held-out images, seed {seed}; {measured_on()}.\n\n{table_markdown(*table)}\n{conclusion}")
        return
    compared = schemes(ae, theirs)
    with work_bar("Comparing") as update:
        update("Limits", 0, 1)
        limits = {"ours": ae.render(ae.infer(x, inversion="fast", steps=LIMIT), z_sem=edited)}
        if theirs is not None:
            limits["theirs"] = theirs.decode(edited, theirs.invert(x, z, THEIR_LIMIT), THEIR_LIMIT)
        rows, points = [], []
        seconds = _times(compared, x[:1], z[:1], edited[:1], rounds, update)
        for i, scheme in enumerate(compared):
            update(scheme.name, i, len(compared))
            code = scheme.encode(x, z)
            again, edit = scheme.decode(code, z), scheme.decode(code, edited)
            error = mse(again, x)
            perceptual = float(lpips(in_colour(again.clamp(-1, 1)), in_colour(x)).mean()) if lpips else math.nan
            own = number(mse(edit, limits[scheme.family])) if scheme.family == "theirs" else ""
            points.append((sum(scheme.calls), max(error, 1e-16), scheme.name))
            rows.append(
                [scheme.name, " + ".join(map(str, scheme.calls)), f"{error:.2e}", f"{psnr(again, x):.1f}", f"{ssim(again, x):.4f}",
                 number(perceptual), f"{mse(edit, limits['ours']):.2e}", own, f"{seconds[scheme.name]:.3f}"]
            )  # fmt: skip
        conclusion, table = _decoding(ae, theirs, lpips, x, z, seed, update)
    header = ["", "calls", "MSE", "PSNR", "SSIM", "LPIPS", "edit: error", "against its own limit", "seconds an edit"]
    about = ae.about
    head = (
        f"# Inversion\n\n`python benchmarks/inversion.py RUN --authors AUTHORS --n {n}`: {about.get('preset')}, prediction "
        f"{ae.config.prediction}, {about.get('images_seen', 0):,} images seen in training; {n} held-out images, seed {seed}; "
        f"{measured_on()}.\n\nThe size of the edit itself is an MSE of {mse(limits['ours'], x):.2e}."
    )
    if theirs is not None:
        head += f" Their limit lies {mse(limits['theirs'], limits['ours']):.2e} from ours."
    parts = [head, table_markdown(header, rows), "## Decoding noise that was drawn\n", table_markdown(*table), conclusion]
    save_png(_plot(points), out.with_suffix(".png"))
    publish("\n\n".join(parts) + "\n", out)


def _times(compared: list[Scheme], x: Tensor, z: Tensor, edited: Tensor, rounds: int, update: Progress) -> dict[str, float]:
    """Median seconds of one edit, the schemes taking turns."""
    seconds: dict[str, list[float]] = {scheme.name: [] for scheme in compared}
    for i in range(rounds):
        for scheme in compared:
            update(f"Timing {scheme.name}", i, rounds)
            started = time.monotonic()
            scheme.decode(scheme.encode(x, z), edited)
            seconds[scheme.name].append(time.monotonic() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _decoding(
    ae: diffae.DiffusionAutoencoder,
    theirs: Authors | None,
    lpips: Distance | None,
    x: Tensor,
    z: Tensor,
    seed: int,
    update: Progress,
) -> tuple[str, tuple[list[str], list[list[str]]]]:
    """How near decodes of drawn noise come to what many steps make of it, and to the images."""
    update("Decoding drawn noise", 0, 1)
    noise = torch.randn(len(z), *ae.image_shape, generator=torch.Generator().manual_seed(seed))

    def ours(steps: int) -> Tensor:
        with torch.no_grad():
            return ae._to_sample(noise, z, steps=steps, solver="dpmpp2m", clamp=None)

    to_image: dict[str, Tensor] = {}

    def row(name: str, calls: int, decoded: Tensor, own_limit: Tensor) -> list[str]:
        shown = decoded.clamp(-1, 1)
        to_limit, to_image[name] = (
            lpips(in_colour(shown), in_colour(b)).flatten() if lpips else torch.full((len(x),), math.nan)
            for b in (own_limit.clamp(-1, 1), x)
        )
        distances = (number(float(d.mean())) for d in (to_limit, to_image[name]))
        return [name, str(calls), f"{mse(decoded, limit):.2e}", f"{mse(decoded, own_limit):.2e}", *distances]

    limit = ours(LIMIT)
    rows = [row(f"ours, {n} + 1", n + 1, ours(n), limit) for n in (5, 8, 10, 20)]
    rows.append(row("ours, its limit", LIMIT, limit, limit))
    if theirs is not None:
        their_limit = theirs.decode(z, noise, THEIR_LIMIT)
        rows += [row(f"authors', T = {steps}", steps, theirs.decode(z, noise, steps), their_limit) for steps in (10, 20, 100)]
        rows.append(row("authors', its limit", THEIR_LIMIT, their_limit, their_limit))
    fresh, mean = mse(ae.decode(z, seed=seed), x), mse(ae.decode_mean(z, seed=seed), x)
    text = f"From z_sem alone: MSE {fresh:.2e} of drawn noise, {mean:.2e} of the mean decode in one call, {mean / fresh:.2f} of it."
    if lpips and theirs is not None:
        more = to_image["ours, 10 + 1"] - to_image["authors', T = 100"]
        text += (
            f" LPIPS to the image, image by image: ours in 10 + 1 less the authors' at T = 100 is {number(float(more.mean()))} "
            f"(standard error {number(float(more.std()) / math.sqrt(len(more)))})."
        )
    return text, (["", "calls", "error to our limit", "to its own limit", "LPIPS to its own limit", "LPIPS to the image"], rows)


def _plot(points: list[tuple[int, float, str]]) -> Image.Image:
    def draw(axes: Any) -> None:
        kinds = dict.fromkeys(name.split(",")[0] for *_, name in points)
        for kind in kinds:
            chosen = sorted((calls, error) for calls, error, name in points if name.split(",")[0] == kind)
            axes.loglog(*np.array(chosen).T, "o-", markersize=4, label=kind)
        axes.set(xlabel="network calls there and back", ylabel="MSE of the reconstruction")

    return plotted(draw)


if __name__ == "__main__":
    tyro.cli(main)
