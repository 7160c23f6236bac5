"""Does an audit find a shortcut that was planted, and suspect nothing of honest classifiers?

    python benchmarks/audit.py RUN --about Smiling Long_Hair --out runs/audit

RUN is a training run whose images have labels of yes and no. Shortcuts are drawn for what classifiers are about; of each such
pair, an honest classifier learns the first from all training images, and a planted one from those alone in which the second
says the same, so that it can decide by either. How often it then follows the shortcut, in held-out images where the two
differ, is told beside. Both are audited about the first; planted ones once more as if nobody had labelled the shortcut, which
then has to come out without a name: how much more probable it is in the images of the first such factor is told.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from beside import measured_on, publish, shrunk, with_side

import diffae
from diffae.autoencoder import DiffusionAutoencoder
from diffae.cli.bars import say, work_bar
from diffae.config import RunConfig, read_json
from diffae.data import ImageSet, prepare
from diffae.evaluation.pages.page import table_markdown
from diffae.evaluation.pages.tables import number
from diffae.explanation.auditing import Change, Factor, audit, changes, known_attributes
from diffae.explanation.audits import write_audit
from diffae.explanation.opening import learned
from diffae.metrics.batches import in_batches
from diffae.metrics.disentanglement import factors
from diffae.runtime.files import write_text
from diffae.semantics.attributes import Attributes
from diffae.semantics.classifiers import Classifier
from diffae.semantics.explanations import Explainer

FOLLOWS = 0.3
"""A shortcut is one that decides in as many of the images where it differs from the label."""
SHOWN = 0.5
"""A factor without a name shows a shortcut that is as much more probable in its images."""


def main(
    run: tyro.conf.Positional[Path],
    out: Path,
    about: tuple[str, ...],
    pairs: int = 5,
    num: int = 24,
    among: int = 1000,
    side: int = 32,
    gradients: bool = False,
    seed: int = 0,
) -> None:
    """Train, audit, and print the table.

    Args:
        run: the training run.
        out: folder of the pages and the table.
        about: columns that classifiers are about, in turn.
        pairs: of such a column and a shortcut, each with an honest and a planted classifier.
        num: images that are changed.
        among: training images that classifiers are asked about.
        side: of the images that classifiers see.
        gradients: whether classifiers' gradients are followed.
        seed: of pairs, images and networks.
    """
    config = read_json(RunConfig, run / "config.json")
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    small = with_side(data, side)
    ae = diffae.load(str(run))
    rng = np.random.default_rng(seed)
    names = factors({name: values[data.train] for name, values in data.labels.items()})
    able = {a: rng.permutation([b for b in names if b != a and _can_agree(data, a, b)]).tolist() for a in about}
    chosen = [(a, able[a][turn]) for turn in range(pairs) for a in about if turn < len(able[a])][:pairs]
    if len(chosen) < pairs:
        say(f"There are {len(chosen)} pairs that can agree, fewer than the {pairs} that are asked for.")
    asked = data.images(np.sort(rng.permutation(data.train)[:among]))
    x = data.images(rng.permutation(data.validation)[:num])
    with work_bar("Attributes") as update:
        attributes = known_attributes(ae, data, np.sort(rng.permutation(data.train)[:2000]), update)
    assert attributes is not None
    rows: list[list[str]] = []
    told: list[dict[str, Any]] = []
    made: dict[str, list[Change]] = {}
    for k, ((name, shortcut), planted) in enumerate((pair, planted) for pair in chosen for planted in (True, False)):
        y, z = data.labels[name], data.labels[shortcut]
        indices = data.train[y[data.train] == z[data.train]] if planted else data.train
        differ = data.some(data.validation[np.abs(y - z)[data.validation] == 1], 400)
        with work_bar(f"{name}, {shortcut if planted else 'honest'}") as update:
            network = learned(small, indices, y[indices], target=None, seed=seed + k, progress=update).call
            classifier = Classifier(lambda part, network=network: network(shrunk(part, side)), "logit")
            said = in_batches(lambda part, c=classifier: c.scores(part).detach(), data.images(differ), batch_size=64)
            explainer = Explainer(ae, classifier, asked, gradients=gradients, progress=update)
            if name not in made:
                made[name] = changes(explainer, attributes, x, about=name, progress=update)
            found = audit(explainer, attributes, x, made[name], about=name)
            case: dict[str, Any] = {"about": name, "shortcut": shortcut if planted else None}
            case["follows"] = float(((said > 0).numpy() == z[differ]).mean()) if planted else None
            others = [f for f in found if f.name != name]
            case["first"], case["suspicious"] = others[0].name, [f.name for f in found if f.suspicious]
            case["right"] = shortcut in (others[0].name, *case["suspicious"]) if planted else not case["suspicious"]
            if planted:
                rest = [change for change in made[name] if change.name != shortcut]
                hidden = [f for f in audit(explainer, attributes, x, rest, about=name, drawn=num) if f.name != name]
                case["without its label"] = hidden[0].name
                unnamed = next((f for f in hidden if f.name.startswith("unnamed")), None)
                case["shown by"] = 0.0 if unnamed is None else _shown(ae, attributes, shortcut, unnamed)
        told.append(case)
        effects = {f.name: number(abs(f.effect)) for f in found}
        cells = ["", "", ""]
        if planted:
            cells = [number(case["follows"]), case["without its label"], number(case["shown by"])]
        rows.append(
            [name, case["shortcut"] or "", cells[0], ", ".join(case["suspicious"]), case["first"], effects[name],
             effects[case["first"]], *cells[1:]]
        )  # fmt: skip
        kind = "planted" if planted else "honest"
        write_audit(found, out / f"{k}-{kind}", ae=ae, about={"classifier": f"{name}, {kind}", "about": name, "n": num})
        say(json.dumps(case))
    taken = [t for t in told if t["shortcut"] and t["follows"] >= FOLLOWS]
    hits, alarms = sum(t["right"] for t in taken), sum(not t["right"] for t in told if not t["shortcut"])
    unnamed = sum(t["without its label"].startswith("unnamed") and t["shown by"] >= SHOWN for t in taken)
    result = {"found": hits, "found without labels": unnamed, "taken up": len(taken), "false alarms": alarms, "each": told}
    write_text(out / "audit.json", json.dumps(result, indent=1) + "\n")
    header = [
        "about", "shortcut", "where they differ, it follows", "suspicious", "the other of the largest effect",
        "effect of what it is about", "of that other", "first, were it not labelled", "which gives the shortcut",
    ]  # fmt: skip
    how = "gradients" if gradients else "as black boxes"
    head = (
        f"# Shortcuts, {run.name}\n\n{hits} of {len(taken)} planted ones named or first "
        f"({len(chosen) - len(taken)} more were not taken up), {unnamed} first and seen where they have no label; "
        f"{alarms} false alarms of {len(chosen)}; {how}; {num} held-out images; classifiers see {side} x {side}; "
        f"{measured_on()}; seed {seed}.\n\n"
    )
    publish(head + table_markdown(header, rows), out / "audit.md")


def _shown(ae: DiffusionAutoencoder, attributes: Attributes, name: str, factor: Factor) -> float:
    """How much more, or less, probable an attribute is in images with a factor than without it."""
    taken, given = (
        attributes.probability(name)(in_batches(ae.encode, part, batch_size=32)).mean() for part in (factor.taken, factor.given)
    )
    return float((given - taken).abs())


def _can_agree(data: ImageSet, a: str, b: str) -> bool:
    """Whether enough images have either, both, and none, so that one can stand for the other."""
    y, z = (data.labels[name][data.train] for name in (a, b))
    shares = [np.nanmean(y), np.nanmean(z), np.mean((y == 1) & (z == 1)), np.mean((y == 0) & (z == 0))]
    return shares[2] > 0.02 and min(shares[:2]) > 0.1 and max(shares[:2]) < 0.9 and shares[3] > 0.1


if __name__ == "__main__":
    tyro.cli(main)
