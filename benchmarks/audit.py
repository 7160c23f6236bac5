"""Does an audit find a shortcut that was planted, and suspect nothing of honest classifiers?

    python benchmarks/audit.py RUN --out runs/audit

RUN is a training run whose images have labels of yes and no. Pairs of columns are drawn; of each, an honest classifier learns
the first from all training images, and a planted one from those alone in which the second says the same, so that it can
decide by either. How often it then follows the shortcut, in held-out images where the two differ, is told beside. Both are
audited about the first.
"""

import json
from pathlib import Path

import numpy as np
import tyro
from beside import measured_on, publish

import diffae
from diffae.cli.bars import say, work_bar
from diffae.config import RunConfig, read_json
from diffae.data import ImageSet, prepare
from diffae.evaluation.pages.page import table_markdown
from diffae.evaluation.pages.tables import number
from diffae.explanation.auditing import audit, known_attributes
from diffae.explanation.audits import write_audit
from diffae.explanation.opening import learned
from diffae.metrics.batches import in_batches
from diffae.metrics.disentanglement import factors
from diffae.runtime.files import write_text
from diffae.semantics.explanations import Explainer

FOLLOWS = 0.3
"""A shortcut is one that decides in as many of the images where it differs from the label."""


def main(
    run: tyro.conf.Positional[Path],
    out: Path,
    pairs: int = 5,
    num: int = 32,
    among: int = 1000,
    images: int = 2000,
    gradients: bool = False,
    seed: int = 0,
) -> None:
    """Train, audit, and print the table.

    Args:
        run: the training run.
        out: folder of the pages and the table.
        pairs: of columns, each with an honest and a planted classifier.
        num: images that are changed.
        among: training images that classifiers are asked about.
        images: that each classifier learns from.
        gradients: whether classifiers' gradients are followed.
        seed: of pairs, images and networks.
    """
    config = read_json(RunConfig, run / "config.json")
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    ae = diffae.load(str(run))
    rng = np.random.default_rng(seed)
    names = factors({name: values[data.train] for name, values in data.labels.items()})
    order = [(a, b) for a in names for b in names if a != b and _can_agree(data, a, b)]
    chosen = [order[i] for i in rng.permutation(len(order))[:pairs]]
    asked = data.images(np.sort(rng.permutation(data.train)[:among]))
    x = data.images(rng.permutation(data.validation)[:num])
    with work_bar("Attributes") as update:
        attributes = known_attributes(ae, data, np.sort(rng.permutation(data.train)[:2000]), update)
    rows, told = [], []
    for k, (about, shortcut) in enumerate(chosen):
        for planted in (True, False):
            file = out / f"{k}-{'planted' if planted else 'honest'}"
            y, z = data.labels[about], data.labels[shortcut]
            indices = rng.permutation(data.train[y[data.train] == z[data.train]] if planted else data.train)[:images]
            with work_bar(f"{about}, {shortcut if planted else 'honest'}") as update:
                classifier = learned(data, indices, data.labels[about][indices], target=None, seed=seed + k, progress=update)
                differ = data.validation[y[data.validation] != z[data.validation]][:400]
                said = in_batches(lambda part, c=classifier: c.scores(part).detach(), data.images(differ), batch_size=64)
                follows = float(((said > 0).numpy() == z[differ]).mean())
                explainer = Explainer(ae, classifier, asked, gradients=gradients, progress=update)
                found = audit(explainer, attributes, x, about=about, progress=update)
            others = [f for f in found if f.name != about]
            first = others[0].name
            suspicious = [f.name for f in found if f.suspicious]
            right = shortcut in suspicious or first == shortcut if planted else not suspicious
            case = {"about": about, "shortcut": shortcut if planted else None, "follows": follows}
            told.append(case | {"first": first, "suspicious": suspicious, "right": right})
            own = next(f for f in found if f.name == about)
            effects = [number(abs(f.effect)) for f in (own, others[0])]
            rows.append([about, shortcut if planted else "", number(follows), ", ".join(suspicious), first, *effects])
            kind = "planted" if planted else "honest"
            write_audit(found, file, ae=ae, about={"classifier": f"{about}, {kind}", "about": about, "n": num})
            say(json.dumps(told[-1]))
    taken = [t for t in told if t["shortcut"] and t["follows"] >= FOLLOWS]
    hits = sum(t["right"] for t in taken)
    alarms = sum(not t["right"] for t in told if not t["shortcut"])
    result = {"found": hits, "taken up": len(taken), "false alarms": alarms, "pairs": len(chosen), "each": told}
    write_text(out / "audit.json", json.dumps(result, indent=1) + "\n")
    header = [
        "about",
        "shortcut",
        "where they differ, it follows",
        "suspicious",
        "the other of the largest effect",
        "effect of what it is about",
        "of that other",
    ]
    how = "gradients" if gradients else "as black boxes"
    head = (
        f"# Shortcuts, {run.name}\n\n{hits} of {len(taken)} planted ones named or first "
        f"({len(chosen) - len(taken)} more were not taken up), {alarms} false alarms of {len(chosen)}; "
        f"{how}; {num} held-out images; {measured_on()}; seed {seed}.\n\n"
    )
    publish(head + table_markdown(header, rows), out / "audit.md")


def _can_agree(data: ImageSet, a: str, b: str) -> bool:
    """Whether enough images have either, both, and none, so that one can stand for the other."""
    y, z = (data.labels[name][data.train] for name in (a, b))
    shares = [np.nanmean(y), np.nanmean(z), np.mean((y == 1) & (z == 1)), np.mean((y == 0) & (z == 0))]
    return shares[2] > 0.02 and min(shares[:2]) > 0.1 and max(shares[:2]) < 0.9 and shares[3] > 0.1


if __name__ == "__main__":
    tyro.cli(main)
