"""What distilling brings and costs: images of one, two and four calls beside those of eleven, samples, inversions and edits.

    diffae distill runs/signs --out runs/signs-quick
    python benchmarks/jumps.py runs/signs-quick --num 500 --page benchmarks/jumps-signs.md

Each run names its teacher. Images are held-out ones; where several runs are given (seeds of one set), figures are ± over them.
LPIPS and KID are by the genuine networks, KID beside as many other held-out images: a picture made of an image is too near to it.
Samples are of a smoothed bootstrap of training codes, which asks no network. Edits go half of the way to the z_sem of another
image, with their own x_T, and are compared with those along the teacher's ODE in 100 steps either way.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tyro
from beside import is_measured, measured_on, publish, spread
from torch import Tensor

import diffae
from diffae.autoencoder import DiffusionAutoencoder
from diffae.cli import inputs
from diffae.cli.bars import say, work_bar
from diffae.config import RunConfig, read_json
from diffae.data import ImageSet
from diffae.evaluation.pages.figures import Encoded
from diffae.evaluation.pages.page import table_markdown
from diffae.evaluation.suites.bench import in_colour
from diffae.frozen.weights import load_network
from diffae.metrics.images import mse
from diffae.metrics.statistics import kernel_distance
from diffae.pictures import save_png, scale_for, sheet
from diffae.runtime.files import write_text
from diffae.semantics.prior import KernelPrior
from diffae.semantics.standardizer import Standardizer

MEASURED = "jumps.json"
EDITED = 100
"""Images that are edited and inverted, at most."""
TRUE_STEPS = 100
"""Of the teacher's ODE, either way."""


def main(runs: tyro.conf.Positional[tuple[Path, ...]], num: int = 500, batch: int = 50, page: Path | None = None) -> None:
    """Measure, and print the table.

    Args:
        runs: distilled runs. What is measured of one is kept in RUN/jumps.json.
        num: held-out images, and as many samples; at most half of those held out.
        batch: images at a time.
        page: where the table goes, and beside it the first run's picture.
    """
    for run in runs:
        if not is_measured(run / MEASURED, num=num):
            say(str(run))
            found = measured(run, num, batch)
            write_text(run / MEASURED, json.dumps(found | {"num": num}) + "\n")
    publish(_page(runs, page), page)


def measured(run: Path, num: int, batch: int) -> dict[str, dict[str, float]]:
    """Of each way, its figures."""
    config = read_json(RunConfig, run / "config.json")
    assert config.start.model is not None
    teacher, student = diffae.load(config.start.model), diffae.load(str(run))
    assert isinstance(teacher, DiffusionAutoencoder)
    assert isinstance(student, DiffusionAutoencoder)
    data = inputs.images(student, str(run), None)
    num = min(num, len(data.validation) // 2)
    x, others = (data.images(part) for part in np.split(np.random.default_rng(0).permutation(data.validation)[: 2 * num], 2))
    lpips, inception = load_network("alexnet")[0], load_network("inception")[0]

    def each(make: Callable[[range], Tensor], count: int = num) -> Tensor:
        return torch.cat([make(range(i, min(i + batch, count))) for i in range(0, count, batch)])

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        return each(lambda part: inception(in_colour(teacher.to_pictures(images[part.start : part.stop]))), len(images))

    real, z_sem = features(others), each(lambda part: teacher.encode(x[part.start : part.stop]))

    @torch.no_grad()
    def judged(images: Tensor, seconds: float) -> dict[str, float]:
        far = each(lambda part: lpips(*(in_colour(teacher.to_pictures(v[part.start : part.stop])) for v in (images, x))))
        kid = kernel_distance(features(images), real)[0]
        return {"MSE": mse(images, x), "LPIPS": float(far.mean()), "KID": kid, "seconds": seconds / num}

    def decoded(ae: DiffusionAutoencoder, z: Tensor, steps: int) -> Tensor:
        return ae.clamp(each(lambda part: ae.decode(z[part.start : part.stop], steps=steps, start=part.start)))

    found: dict[str, dict[str, float]] = {}
    shown = {"held out": x}

    def timed(name: str, make: Callable[[], Tensor]) -> None:
        started = time.perf_counter()
        images = make()
        found[name] = judged(images, time.perf_counter() - started)
        shown[name] = images
        say(f"  {name}: {found[name]}")

    timed("teacher, 10 + 1 calls", lambda: decoded(teacher, z_sem, 10))
    timed("teacher, the mean", lambda: each(lambda part: teacher.decode_mean(z_sem[part.start : part.stop], start=part.start)))
    sharp = lambda part: teacher.decode_mean(z_sem[part.start : part.stop], sharpen=100, start=part.start)  # noqa: E731
    timed("teacher, the mean sharpened", lambda: each(sharp))
    for steps in (1, 2, 4):
        timed(f"jumps, {steps}", lambda steps=steps: decoded(student, z_sem, steps))  # type: ignore[misc]
    timed("student, 10 + 1 calls", lambda: decoded(student, z_sem, 10))
    found |= sampled(teacher, student, data, num, decoded, features, real)
    few = min(num, EDITED)
    found |= edited(teacher, student, x[:few], z_sem[:few], z_sem.roll(1, 0)[:few])
    rows = [teacher.to_pictures(images[:10]) for images in shown.values()]
    save_png(sheet(rows, scale=scale_for(rows[0], 64), names=list(shown)), run / "jumps.png")
    return found


def sampled(
    teacher: DiffusionAutoencoder, student: DiffusionAutoencoder, data: ImageSet, num: int,
    decoded: Callable[[DiffusionAutoencoder, Tensor, int], Tensor], features: Callable[[Tensor], Tensor], real: Tensor,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """KID of samples."""
    with work_bar("Encoding") as update:
        codes = Encoded.of(teacher, data, data.train, update).z_sem
    standardizer = Standardizer.fit(codes)
    made = standardizer.inverse(KernelPrior.of(standardizer(codes)).sample(num))
    ways = {"samples: teacher, 10 + 1 calls": (teacher, 10), "samples: one jump": (student, 1)}
    return {name: {"KID": kernel_distance(features(decoded(ae, made, steps)), real)[0]} for name, (ae, steps) in ways.items()}


def edited(
    teacher: DiffusionAutoencoder, student: DiffusionAutoencoder, x: Tensor, z_sem: Tensor, other: Tensor
) -> dict[str, dict[str, float]]:
    """Errors of x_T and of edited images beside those along the teacher's ODE, and of images that are not edited."""
    moved = (z_sem + other) / 2
    true_x_T = teacher.invert(x, z_sem, steps=TRUE_STEPS)
    true = teacher.decode(moved, true_x_T, steps=TRUE_STEPS)
    found = {}
    for name, ae, inversion, steps in (
        ("edit: teacher, anchored, 41 calls", teacher, "anchored", 20),
        ("edit: teacher, anchored, 7 calls", teacher, "anchored", 2),
        ("edit: jumps, anchored, 3 calls", student, "anchored", 1),
        ("edit: jumps, anchored, 6 calls", student, "anchored", 2),
        ("edit: jumps, fast, 8 calls", student, "fast", 4),
    ):
        code = ae.infer(x, inversion=inversion, steps=steps)  # type: ignore[arg-type]
        found[name] = {
            "MSE": mse(ae.render(code, z_sem=moved), true),
            "unmoved": mse(ae.render(code), x),
            "x_T": float((code.x_T - true_x_T).square().mean()),
        }
        say(f"  {name}: {found[name]}")
    return found


def _page(runs: tuple[Path, ...], page: Path | None) -> str:
    """The tables; the first run's picture is copied beside the page."""
    found = [json.loads((run / MEASURED).read_text()) for run in runs]
    first = read_json(RunConfig, runs[0] / "config.json")
    about = diffae.load(str(runs[0])).about
    lines = [
        f"# In few calls: {'/'.join(Path(first.data.source).parts[-2:])}",
        f"{len(runs)} run{'s' * (len(runs) > 1)}, {first.training.images:,} images seen by each; the teacher saw "
        f"{about.get('images_seen', '?')}. ± over runs. {measured_on()}.",
    ]
    for title, beginning, measures in (
        ("Of z_sem and drawn noise", ("teacher", "jumps", "student"), ("MSE", "LPIPS", "KID", "seconds")),
        ("Samples", ("samples",), ("KID",)),
        ("Edits: error beside the ODE's own edit, of the unmoved image, and of x_T", ("edit",), ("MSE", "unmoved", "x_T")),
    ):
        names = [name for name in found[0] if name.startswith(beginning)]
        rows = [[name, *(spread([each[name][measure] for each in found]) for measure in measures)] for name in names]
        lines += [f"## {title}", table_markdown(["", *measures], rows)]
    if page is not None:
        picture = page.with_suffix(".png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes((runs[0] / "jumps.png").read_bytes())
        lines.append(f"![held-out images, and what is made of their z_sem]({picture.name})")
    return "\n\n".join(lines) + "\n"


if __name__ == "__main__":
    tyro.cli(main)
