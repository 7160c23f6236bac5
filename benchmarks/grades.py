"""Images moved to each grade of something that a classifier measures: is the grade read back by another network?

    python benchmarks/grades.py RUN --column Skin_Tone --out runs/grades

RUN is a training run whose images have numbers as labels. A CNN on pixels learns them and is explained, with each held-out image
moved to each grade; a second one, of another seed and width, reads the grade of what comes out. Grades are the labels'
values, of many the quantiles.
"""

import json
import time
from pathlib import Path

import numpy as np
import tyro
from beside import measured_on, publish, shrunk, with_side

import diffae
from diffae.cli.bars import say, work_bar
from diffae.config import RunConfig, read_json
from diffae.data import prepare
from diffae.evaluation.pages.page import table_markdown
from diffae.evaluation.pages.tables import number
from diffae.explanation.opening import learned
from diffae.metrics.batches import in_batches
from diffae.pictures import save_png, scale_for, sheet
from diffae.runtime.files import write_text
from diffae.semantics.classifiers import Classifier
from diffae.semantics.explanations import Explainer

MOST = 7
"""Grades."""


def main(
    run: tyro.conf.Positional[Path],
    column: str,
    out: Path,
    num: int = 30,
    among: int = 1000,
    side: int = 32,
    gradients: bool = True,
    seed: int = 0,
) -> None:
    """Move, read back, and print the table.

    Args:
        run: the training run.
        column: of its labels.
        out: folder of the table and the picture.
        num: held-out images.
        among: training images that the classifier is asked about.
        side: of the images that classifiers see.
        gradients: whether the classifier's gradients are followed.
        seed: of everything.
    """
    from scipy.stats import spearmanr

    config = read_json(RunConfig, run / "config.json")
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    small, ae, rng = with_side(data, side), diffae.load(str(run)), np.random.default_rng(seed)
    y = data.labels[column]
    known = data.train[~np.isnan(y[data.train])]
    values = np.unique(y[known])
    grades = values if len(values) <= MOST else np.quantile(y[known], np.linspace(0.05, 0.95, MOST))
    with work_bar("Learning") as update:
        networks = [learned(small, known, y[known], target=None, seed=s, progress=update) for s in (2 * seed, 2 * seed + 1)]
    first, second = (Classifier(lambda x, network=network: network.call(shrunk(x, side)), "value") for network in networks)
    held = data.some(data.validation[~np.isnan(y[data.validation])], 1000)
    readers = [in_batches(lambda x, c=c: c.scores(x).detach(), data.images(held), batch_size=64).numpy() for c in (first, second)]
    truth = [float(spearmanr(read, y[held])[0]) for read in readers]
    x = data.images(rng.permutation(data.validation)[:num])
    asked = data.images(np.sort(rng.permutation(data.train)[:among]))
    made, reached = [], []
    with work_bar("Grades") as update:
        explainer = Explainer(ae, first, asked, gradients=gradients, progress=update)
        started = time.monotonic()
        for grade in grades:
            found = explainer.explain(x, value=float(grade))
            made.append(found.images[:, 0])
            reached.append(float(found.reached.double().mean()))
    seconds = (time.monotonic() - started) / len(x) / len(grades)
    read = np.stack([in_batches(lambda part: second.scores(part).detach(), images, batch_size=64).numpy() for images in made])
    order = np.repeat(grades[:, None], len(x), 1)
    whole = float(spearmanr(order.ravel(), read.ravel())[0])
    each = [float(spearmanr(grades, column_of)[0]) for column_of in read.T]
    result = {
        "spearman": whole, "spearman of each image": float(np.mean(each)), "classifiers' own": truth, "seconds": seconds,
        "read": read.mean(1).tolist(), "n": len(x), "seed": seed,
    }  # fmt: skip
    write_text(out / "grades.json", json.dumps(result, indent=1) + "\n")
    say(json.dumps(result))
    shown = x[:8]
    save_png(
        sheet([shown, *(images[:8] for images in made)], scale=scale_for(x, 64), names=["image", *(f"{g:.3g}" for g in grades)]),
        out / "grades.png",
    )
    rows = [
        [f"{grade:.3g}", number(float(part.mean())), number(float(part.std())), number(arrived)]
        for grade, part, arrived in zip(grades, read, reached, strict=True)
    ]
    head = (
        f"# {column}, {run.name}\n\n{len(x)} held-out images to each of {len(grades)} grades: Spearman's correlation of what was "
        f"asked for and what a second network reads {whole:.3f}, within an image {np.mean(each):.3f}; that network's own with the "
        f"labels of {len(held)} images {truth[1]:.3f}, the explained one's {truth[0]:.3f}. {seconds:.2f} s an image and grade; "
        f"{measured_on()}; seed {seed}.\n\n"
    )
    publish(head + table_markdown(["asked for", "read", "±", "the explained one says so"], rows), out / "grades.md")


if __name__ == "__main__":
    tyro.cli(main)
