"""Counterfactuals beside other ways to change a decision: how many flip, at which change, and whether another network agrees.

    python benchmarks/explain.py RUN --column Eyeglasses --out runs/explain/Eyeglasses

RUN is a training run whose images have labels. The classifier is a CNN on pixels that learns the column; a second one, of another
seed and width, says whether it sees the same; a judge of all columns says what else changed. Each way explains the same held-out
images:

- `both`: `diffae explain` as it is, one direction of what the classifier says of many images, and its gradients where that does not
  move an image far enough; `black box`, `gradients`: the first alone, the second alone;
- `fixed`: the shortest move of one length for all, in the black box's direction, that flips as many as `black box` does;
- `pixels`: no model, the classifier's gradient followed in pixels (DeepFool, Moosavi-Dezfooli et al. 2016) as far as the same
  probability: what a change is that only this classifier sees.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tyro
from beside import measured_on, publish, shrunk, with_side
from torch import Tensor

import diffae
from diffae.cli.bars import say, work_bar
from diffae.config import RunConfig, read_json
from diffae.data import ImageSet, prepare
from diffae.evaluation.pages.page import table_markdown
from diffae.evaluation.pages.tables import number
from diffae.evaluation.suites.bench import in_colour
from diffae.explanation.explaining import one_move
from diffae.explanation.heat import difference
from diffae.explanation.opening import SEEN, learned
from diffae.frozen.weights import load_network
from diffae.metrics.batches import in_batches
from diffae.metrics.disentanglement import factors
from diffae.metrics.judge import Judge, train_judge
from diffae.pictures import save_png, scale_for, sheet
from diffae.runtime.files import write_text
from diffae.semantics.classifiers import Classifier
from diffae.semantics.explanations import Explainer


def main(
    run: tyro.conf.Positional[Path],
    column: str,
    out: Path,
    num: int = 100,
    among: int = 2000,
    probability: float = 0.9,
    steps: int = 10,
    judged: bool = True,
    side: int | None = None,
    seed: int = 0,
) -> None:
    """Explain, measure, and print the table.

    Args:
        run: the training run.
        column: of its labels, what the classifier learns.
        out: folder of the table and the picture.
        num: held-out images.
        among: training images that the classifier is asked about.
        probability: that counterfactuals shall have.
        steps: solver steps.
        judged: whether a judge of all columns says what else changed.
        side: of the images that classifiers and the judge see; by default the model's.
        seed: of everything.
    """
    config = read_json(RunConfig, run / "config.json")
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    ae, small = diffae.load(str(run)), data if side is None else with_side(data, side)
    rng = np.random.default_rng(seed)
    y = data.labels[column]
    known = data.train[~np.isnan(y[data.train])]
    with work_bar("Learning") as update:
        networks = [learned(small, known, y[known], target=None, seed=s, progress=update) for s in (2 * seed, 2 * seed + 1)]
        judge = _judge(small, update) if judged else None
    first, second = (Classifier(lambda x, network=network: network.call(shrunk(x, side)), "logit") for network in networks)
    x = data.images(rng.permutation(data.validation)[:num])
    asked = data.images(np.sort(rng.permutation(data.train)[:among]))
    before = in_batches(lambda part: first.scores(part).detach(), x, batch_size=64)
    truth = torch.from_numpy(y[data.validation])
    held = torch.cat([first.scores(data.images(part)).detach() for part in np.array_split(data.validation, 20)])
    from sklearn.metrics import roc_auc_score

    auroc = float(roc_auc_score(truth[~truth.isnan()], held[~truth.isnan()]))
    say(f"AUROC of the classifier {auroc:.3f}")
    made: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    for name, gradients in (("both", None), ("gradients", True), ("black box", False)):
        with work_bar(name) as update:
            explainer = Explainer(ae, first, asked, gradients=gradients, steps=steps, progress=update)
            started = time.monotonic()
            made[name] = explainer.explain(x, probability=probability).images[:, 0]
            seconds[name] = (time.monotonic() - started) / len(x)
        say(f"{name}: {seconds[name]:.2f} s an image")
    wanted = float(_flipped(first, made["black box"], before).mean())
    started = time.monotonic()
    made["fixed"], *_ = one_move(explainer, x, before, torch.where(before > 0, -1.0, 1.0), wanted=wanted)
    seconds["fixed"] = (time.monotonic() - started) / len(x)
    started = time.monotonic()
    made["pixels"] = _pixels(first, x, before, probability)
    seconds["pixels"] = (time.monotonic() - started) / len(x)
    lpips = load_network("alexnet")[0]
    rows, told = [], {}
    for name, images in made.items():
        flips = _flipped(first, images, before)
        after, other = (in_batches(lambda part, c=c: c.scores(part).detach(), images, batch_size=64) for c in (first, second))
        values = {
            "flipped": float(flips.mean()),
            "second agrees": float(((other > 0) == (after > 0))[flips.bool()].double().mean()) if flips.any() else float("nan"),
            "l1": float((images - x).abs().mean() / 2),
            "lpips": float(in_batches(lambda a, b: lpips(in_colour(a), in_colour(b)), images, x, batch_size=32).mean()),
            "others changed": _others(judge, column, shrunk(x, side), shrunk(images, side)),
            "seconds": seconds[name],
        }
        told[name] = values
        rows.append([name, *("" if v is None else number(v) for v in values.values())])
        say(f"{name}: {values}")
    shown = min(10, len(x))
    columns = [x[:shown], *(images[:shown] for images in made.values())]
    heats = [difference(x[:shown], images) for images in columns[1:]]
    lines = [columns[0], *(part for pair in zip(columns[1:], heats, strict=True) for part in pair)]
    names = ["image", *(part for name in made for part in (name, ""))]
    save_png(sheet(lines, scale=scale_for(x, 64), names=names), out / "explain.png")
    write_text(out / "explain.json", json.dumps({"auroc": auroc, "n": len(x), "seed": seed, "measured": told}, indent=1) + "\n")
    header = ["", "flipped", "a second network agrees", "L1, of [0, 1]", "LPIPS", "other attributes changed", "seconds an image"]
    head = (
        f"# {column}, {run.name}\n\n{len(x)} held-out images; the classifier's AUROC {auroc:.3f}; asked for {probability:g}; "
        f"{measured_on()}; seed {seed}.\n\n"
    )
    publish(head + table_markdown(header, rows), out / "explain.md")


def _flipped(first: Classifier, images: Tensor, before: Tensor) -> Tensor:
    after = in_batches(lambda part: first.scores(part).detach(), images, batch_size=64)
    return ((after > 0) != (before > 0)).double()


def _pixels(first: Classifier, x: Tensor, before: Tensor, probability: float) -> Tensor:
    """Pixels moved along the classifier's gradient until it says so."""
    sign = torch.where(before > 0, -1.0, 1.0).double()
    goal = sign * torch.tensor(probability).logit()
    made = x.clone()
    for _ in range(20):
        with torch.enable_grad():
            leaf = made.clone().requires_grad_()
            scores = first.scores(leaf)
            (slope,) = torch.autograd.grad(scores.sum(), leaf)
        lack = ((goal - scores.detach()) * sign).clamp(min=0) * sign
        ones = [1] * (x.dim() - 1)
        move = (lack / slope.flatten(1).square().sum(1).clamp(min=1e-12)).view(-1, *ones) * slope
        made = (made + 1.05 * move.to(made)).clamp(-1, 1)
    return made


def _judge(data: ImageSet, update: Callable[[str, int, int], None]) -> Judge | None:
    """A judge of all columns of yes and no; None where there are not two."""
    names = factors({name: values[data.train] for name, values in data.labels.items()})
    if len(names) < 2:
        return None
    labels = torch.from_numpy(np.stack([data.labels[name][data.train] for name in names], 1)).float()
    known = torch.isfinite(labels).any(1).nonzero()[:, 0].numpy()
    return train_judge(
        names, lambda i: data.images(data.train[known[i.numpy()]]), labels[known],
        epochs=max(1, 2 * SEEN // len(known)), seed=17, width=40, flip=data.config.flip, progress=update,
    )  # fmt: skip


def _others(judge: Judge | None, column: str, x: Tensor, images: Tensor) -> float | None:
    """The share of the judge's decisions about other columns that changed."""
    if judge is None or column not in judge.names:
        return None
    others = [k for k, name in enumerate(judge.names) if name != column]
    return float((judge.decide(x)[:, others] != judge.decide(images)[:, others]).double().mean())


if __name__ == "__main__":
    tyro.cli(main)
