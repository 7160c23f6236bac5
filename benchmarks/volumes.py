"""What a run on volumes of shapes holds: what z_sem tells, how near both codes come, and whether *volume* can be moved.

    diffae train adrenalmnist3d.npz --preset volume32 --data.validation published --out runs/adrenal
    python benchmarks/volumes.py runs/adrenal --label label --out benchmarks/volumes.md

Volumes are shapes, bright on black; a voxel counts where it is above the middle of the range. What is told is told of held-out
volumes: AUROC of a logistic regression of z_sem, beside one of principal components of voxels. `volume` is the logarithm of the
number of voxels that count, fitted on the training volumes; each volume is moved until its picture, encoded anew, says 20 % more.
Last, each is moved until 20 % more voxels count: `explain` with a function that counts them.
"""

from pathlib import Path

import numpy as np
import torch
import tyro
from beside import measured_on, publish
from torch import Tensor

import diffae
from diffae.cli.inputs import prepared
from diffae.config import RunConfig, read_json
from diffae.evaluation.pages.figures import Encoded
from diffae.evaluation.pages.page import table_markdown
from diffae.metrics.images import each_mse, mse
from diffae.metrics.probe import linear_probe, principal_components
from diffae.pictures import save_png, sheet
from diffae.semantics.classifiers import Classifier
from diffae.semantics.explanations import Explainer
from diffae.semantics.fitting import fit_attributes

ASKED = 400
"""Training volumes whose voxels are counted for `explain`."""


def main(run: tyro.conf.Positional[Path], label: str, out: Path, num: int = 32, more: float = 0.2, seed: int = 0) -> None:
    """Measure, and print the table.

    Args:
        run: directory of the run.
        label: the column that is told.
        out: the page; a picture is written beside it.
        num: held-out volumes that are decoded and moved.
        more: share of voxels by which they are moved.
        seed: which of them.
    """
    config, ae = read_json(RunConfig, run / "config.json"), diffae.load(str(run))
    data = prepared(config.data, config.model)
    codes = [Encoded.of(ae, data, part, lambda *_: None).z_sem for part in (data.train, data.validation)]
    labels = [{label: data.labels[label][part]} for part in (data.train, data.validation)]
    voxels = [data.images(part).flatten(1).numpy() for part in (data.train, data.validation)]
    told = linear_probe(codes[0].numpy(), labels[0], codes[1].numpy(), labels[1])[label]
    components = principal_components(voxels[0], voxels[1])
    floor = linear_probe(components[0], labels[0], components[1], labels[1])[label]
    chosen = np.random.default_rng(seed).permutation(data.validation)[:num]
    x = data.images(chosen)
    z_sem = torch.cat([ae.encode(part) for part in x.split(8)])
    mean = torch.cat([ae.decode_mean(z) for z in z_sem.split(8)])
    fast = torch.cat([ae.reconstruct(part, inversion="fast", steps=20) for part in x.split(8)])
    anchored = torch.cat([ae.reconstruct(part) for part in x[:8].split(8)])
    sizes = [{"volume": np.log(np.maximum(1, (v > 0).sum(1)))} for v in voxels]
    ae.attributes, _ = fit_attributes(codes[0], sizes[0], held_z_sem=codes[1], held_labels=sizes[1])
    wanted = ae.attributes.logits(z_sem)[:, 0] + float(np.log(1 + more))
    moved = [ae.manipulate(p, "volume", target_value=w) for p, w in zip(x.split(8), wanted.split(8), strict=True)]
    asked = data.images(np.random.default_rng(seed + 1).permutation(data.train)[:ASKED])
    explainer = Explainer(ae, Classifier(_counted, "value"), asked, batch_size=8)
    grown = explainer.explain(x, value=_counted(x) + float(np.log(1 + more))).images[:, 0]
    names = ["volume", "mean", "both codes", f"{100 * more:+g} %", "as counted"]
    save_png(sheet([v[:6] for v in (x, mean, fast, torch.cat(moved), grown)], scale=2, names=names), out.with_suffix(".png"))
    rows = [
        [f"AUROC of {label}, z_sem", f"{told:.3f}"],
        [f"AUROC of {label}, principal components of voxels", f"{floor:.3f}"],
        ["mean decode, MSE", f"{mse(mean, x):.4f}"],
        ["both codes (`fast`, 41 calls), MSE: mean", f"{mse(fast, x):.1e}"],
        ["the same, median", f"{float(each_mse(fast, x).median()):.1e}"],
        ["`anchored`, MSE", f"{mse(anchored, x[:8]):.1e}"],
        ["R² of *volume*, held out", f"{ae.attributes.scores['volume'].r2:.3f}"],
        *_grown(f"counted voxels after {100 * more:+g} %, as z_sem sees them", x, torch.cat(moved)),
        *_grown(f"counted voxels after {100 * more:+g} %, as they are counted", x, grown),
    ]
    seen = ae.about["images_seen"]
    head = f"{len(data.train):,} volumes to train on, {seen:,} seen, {len(data.validation):,} held out"
    publish(f"# {config.preset}\n\n{head}, {num} decoded; seed {seed}; {measured_on()}.\n\n{table_markdown(['', ''], rows)}", out)


def _counted(x: Tensor) -> Tensor:
    """The logarithm of the number of voxels that count."""
    return (x > 0).flatten(1).sum(1).clamp(min=1).double().log()


def _grown(what: str, x: Tensor, moved: Tensor) -> list[list[str]]:
    """Rows of how the number changed."""
    grown = (100 * ((_counted(moved) - _counted(x)).exp() - 1)).numpy()
    ends = " .. ".join(f"{q:+.1f}" for q in np.percentile(grown, (10, 90)))
    return [
        [f"{what}: mean", f"{grown.mean():+.1f} %"],
        ["the same, median", f"{np.median(grown):+.1f} %"],
        ["the same, 10th and 90th percentile", f"{ends} %"],
    ]


if __name__ == "__main__":
    tyro.cli(main)
