"""What the two codes can do, judged by somebody else: edits, few-shot samples and priors of a quick start's model.

    diffae quickstart
    python recipes/avatars.py runs/quickstart --out runs/avatars

A judge, a small CNN, is trained on the pixels of 12,000 avatars that the model has never seen. It says how often an edit to
the opposite value is seen and how much of the rest changed, how many samples show the class that a few labels ask for, and how
near the priors' codes come to real ones is measured in z_sem.

Reached with a model of 18 minutes (`diffae train avatars --preset avatars32 --data.avatars 12000 --images 80000`, then
`fit-attributes`, `train-prior --images 1000000` and `train-prior --preset gaussian`; seed 0; two threads of an Intel Xeon;
`--samples 60`; 23 minutes beside other work): mean AUROC .939 on 616 held-out images; edits at a target probability of .9 flip
the judge in .84 (Long_Hair), .92 (Wearing_Hat), .77 (Sunglasses) and .65 (Black_Hair) of 200 images. Of 60 few-shot samples,
two draws of the labels, mean (standard deviation): from 50 + 50 labels .36 (.11) show Sunglasses, from 100 positives among
unlabelled images .39 (.04), of the prior's own .08, of real images .13, of the positives' z_sem again .90; Long_Hair .62 (.16),
.55 (.02), .25, .33, .97; Wearing_Hat .24 (.04), .28 (.02), .17, .09, .88. `docs/design/` has the rest.
"""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

import diffae
from diffae.cli import inputs
from diffae.cli.bars import say, work_bar
from diffae.config import RunConfig, read_json
from diffae.data import ImageSet, prepare
from diffae.data.avatars import ATTRIBUTES
from diffae.evaluation.pages.figures import Encoded
from diffae.evaluation.pages.report import machine
from diffae.interop.parts import available_priors
from diffae.metrics.codes import prior_table
from diffae.metrics.images import mse
from diffae.metrics.judge import Judge, train_judge
from diffae.pictures import save_png, scale_for, sheet
from diffae.runtime import seeding
from diffae.runtime.files import write_text
from diffae.semantics.attributes import Attributes
from diffae.semantics.fitting import fit_few

UNSEEN = 2_000
"""Avatars after those that the model was made with, whose codes the priors are compared with. Those after them train the judge,
but for the last thousand, on which it is measured."""

Edits = dict[str, dict[str, dict[str, float]]]
"""attribute -> way -> what the judge saw -> share."""


def main(
    run: tyro.conf.Positional[Path],
    out: Path = Path("runs/avatars"),
    n: int = 200,
    edited: int = 4,
    samples: int = 100,
    steps: int = 20,
    avatars: int = 26_000,
    draws: int = 2,
    seed: int = 0,
) -> None:
    """Measures a run.

    Args:
        run: the run directory, with attributes and priors.
        out: where results.json and the pictures go.
        n: held-out images that are edited.
        edited: attributes that they are edited by, the best known first.
        samples: images of each few-shot class.
        steps: network calls of the decoder, either way.
        avatars: how many to draw in all.
        draws: draws of the few labels.
        seed: of samples and draws.
    """
    started = time.monotonic()
    ae, config = diffae.load(run), read_json(RunConfig, run / "config.json")
    size = ae.config.image_size
    with work_bar("Data") as update:
        trained_on = prepare(config.data, size=size, channels=3, progress=update)
        data = prepare(dataclasses.replace(config.data, avatars=avatars), size=size, channels=3, progress=update)
    labels = torch.from_numpy(np.stack([data.labels[a] for a in ATTRIBUTES], 1)).float()
    with work_bar("Judge") as update:
        fit = torch.arange(config.data.avatars + UNSEEN, avatars - 1_000)
        judge = train_judge(list(ATTRIBUTES), lambda i: data.images(fit[i].numpy()), labels[fit], seed=seed, progress=update)
    held = torch.arange(avatars - 1_000, avatars)
    right = (judge.decide(data.images(held.numpy())) == labels[held].bool()).float().mean(0)
    accuracy = dict(zip(ATTRIBUTES, right.tolist(), strict=True))
    say(f"The judge is right on {right.mean():.3f} of 1,000 held-out avatars' attributes")
    x = trained_on.images(trained_on.validation[:n])
    result = {
        "machine": machine(), "n": n, "seed": seed, "steps": steps, "images_seen": config.training.images,
        "judge_accuracy": accuracy,
        "edits": edits(ae, judge, x, steps=steps, edited=edited),
        "few_shot": few_shot(run, ae, judge, trained_on, samples=samples, steps=steps, draws=draws, seed=seed),
        "priors": priors(run, data, start=config.data.avatars, seed=seed),
    }  # fmt: skip
    assert ae.attributes is not None
    result["auroc"] = {name: s.auroc for name, s in ae.attributes.scores.items() if s.auroc is not None}
    save_png(strip(ae, trained_on.images(trained_on.validation[:6]), best(ae.attributes)[:4], steps=steps), out / "edits.png")
    result["seconds"] = round(time.monotonic() - started, 1)
    write_text(out / "results.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def best(attributes: Attributes) -> list[str]:
    """Binary attributes, the best known first."""
    scores = {name: s.auroc for name, s in attributes.scores.items() if s.auroc is not None}
    return sorted(scores, key=lambda name: -scores[name])


def edits(ae: diffae.DiffusionAutoencoder, judge: Judge, x: Tensor, *, steps: int, edited: int) -> Edits:
    """The best-known attributes of every image to their opposite, as the judge sees it before and after.

    Measured are the share of images in which it flips, how many of the other attributes change, and how far the picture moves.
    Three ways: plainly, keeping the other attributes' classifiers, and along the classifier's weights as in the paper.
    """
    code, attributes = ae.infer(x, steps=steps), ae.attributes
    assert attributes is not None
    before = judge.decide(ae.render(code))
    names, wanted = best(attributes), best(attributes)[:edited]
    judged: Edits = {}
    paper = Attributes(attributes.scores, ae.z_dim, components=len(attributes.components))
    paper.load_state_dict(attributes.state_dict() | {"pattern": attributes.weight})
    with work_bar("Editing") as update:
        for i, name in enumerate(wanted):
            update("Editing", i, len(wanted))
            row = judge.names.index(name)
            target = torch.where(before[:, row], 0.1, 0.9)
            others = [k for k in range(len(judge.names)) if k != row]
            keep = [k for k in names if k != name]
            judged[name] = {}
            for way, classifiers, untouched in (("plain", attributes, []), ("keep", attributes, keep), ("paper", paper, [])):
                ae.attributes = classifiers
                images = torch.empty_like(x)
                for p in (0.1, 0.9):
                    indices = (target == torch.tensor(p)).nonzero()[:, 0]
                    if len(indices):
                        images[indices] = ae.manipulate(code[indices], name, target_probability=p, keep=untouched)
                after = judge.decide(images)
                judged[name][way] = {
                    "flipped": float((after[:, row] != before[:, row]).float().mean()),
                    "others_changed": float((after != before)[:, others].float().mean()),
                    "mse": mse(images, x),
                }
            say(f"{name}: {judged[name]}")
    ae.attributes = attributes
    return judged


def few_shot(
    run: Path, ae: diffae.DiffusionAutoencoder, judge: Judge, data: ImageSet, *, samples: int, steps: int, draws: int, seed: int
) -> dict[str, dict[str, float]]:
    """The share of generated images that the judge gives the class, from 50 + 50 labels, from 100 positives among unlabelled
    images, and of the two baselines."""
    z = inputs.codes(ae, str(run), data)[data.train]
    assert ae.standardizer is not None
    shares_of: dict[str, dict[str, float]] = {}
    for name in ("Wearing_Hat", "Sunglasses", "Long_Hair"):
        row, y = judge.names.index(name), data.labels[name][data.train]
        shares: dict[str, list[float]] = {}
        for draw in range(draws):
            rng = np.random.default_rng([seed, draw])
            positive, negative = rng.permutation(np.flatnonzero(y == 1)), rng.permutation(np.flatnonzero(y == 0))
            unlabelled = np.setdiff1d(np.arange(len(y)), positive[:100])
            few = fit_few(name, z[positive[:50]], z[negative[:50]], ae.standardizer)
            pu = fit_few(name, z[positive[:100]], z[unlabelled], ae.standardizer, unlabelled=True)
            drawn = seeding.mix(seed, "few", draw)
            codes = {
                "binary": ae.sample_z_sem(samples, seed=drawn, accept=few.probability(name)).z_sem,
                "positive-unlabelled": ae.sample_z_sem(samples, seed=drawn, accept=pu.probability(name)).z_sem,
                "base rate of the prior": ae.sample_z_sem(samples, seed=drawn).z_sem,
                "baseline: all real images": z[rng.permutation(len(z))[:samples]],
                "baseline: the positives again": z[np.resize(positive[:50], samples)],
            }
            for way, z_sem in codes.items():
                images = ae.decode(z_sem, steps=steps, seed=drawn)
                shares.setdefault(way, []).append(float(judge.decide(images)[:, row].float().mean()))
        shares_of[name] = {way: float(np.mean(values)) for way, values in shares.items()}
        shares_of[name] |= {f"{way}, spread": float(np.std(values, ddof=1)) for way, values in shares.items() if draws > 1}
        shares_of[name]["share in the data"] = float(y.mean())
        say(f"{name}: {shares_of[name]}")
    return shares_of


def priors(run: Path, data: ImageSet, *, start: int, seed: int) -> dict[str, dict[str, float]]:
    """Each prior's codes against those of avatars that nothing was trained on."""
    samples, real = {}, None
    for name in available_priors(run):
        ae = diffae.load(run, prior=name)
        assert ae.standardizer is not None
        assert ae.prior is not None
        with work_bar("Encoding") as update:
            real = ae.standardizer(Encoded.of(ae, data, np.arange(start, start + UNSEEN), update).z_sem)
        samples[name] = ae.prior.sample(UNSEEN // 2, seed=seed)
    assert real is not None
    return prior_table(samples, real, seed=seed)


def strip(ae: diffae.DiffusionAutoencoder, x: Tensor, names: list[str], *, steps: int) -> Image.Image:
    """A row an image, a group of columns an attribute: strengths -0.5 to 0.5."""
    code = ae.infer(x, steps=steps)
    columns: Iterator[Tensor] = (
        ae.render(code, z_sem=ae.edit(code.z_sem, name, strength=s)) for name in names for s in (-0.5, -0.25, 0.25, 0.5)
    )
    grid = torch.stack([x, *columns], dim=1)
    return sheet(list(grid), scale=max(1, scale_for(x, 64)))


if __name__ == "__main__":
    tyro.cli(main)
