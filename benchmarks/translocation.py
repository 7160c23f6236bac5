"""Counterfactuals measured by physics: a protein moved into the nuclei of cells, and out of them.

    python benchmarks/translocation.py RUN --out runs/translocation

RUN is a training run on cells of two channels, a protein and DNA, whose labels say which well a cell is of (`label`, 0: the
protein is in the nucleus) and the measured `nucleus_to_cytoplasm`. A CNN learns that ratio from the pixels; counterfactuals
bring it to the other well's while the channel of DNA is held. Then the ratio is measured in the images themselves, with no
network: the protein's mean in the nucleus over that in a ring around it, nuclei found in the DNA by local thresholds and
watersheds (`pip install scikit-image`).
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
import tyro
from beside import measured_on, publish
from torch import Tensor

import diffae
from diffae.cli.bars import say, work_bar
from diffae.config import RunConfig, read_json
from diffae.data import prepare
from diffae.evaluation.pages.page import table_markdown
from diffae.evaluation.pages.tables import number
from diffae.explanation.heat import difference
from diffae.metrics.judge import train_judge
from diffae.pictures import save_png, sheet
from diffae.runtime.files import write_text
from diffae.semantics.classifiers import Classifier
from diffae.semantics.explanations import Explainer

LEAST, MOST = 0.5, 3.5
"""Ratios that the network tells apart; few cells lie beyond."""
INNER, OUTER = 2, 7
"""Pixels from the nucleus to its ring's ends."""
WINDOW = 61
"""Side of the neighbourhood whose weighted mean is the local threshold."""


def main(
    run: tyro.conf.Positional[Path],
    out: Path,
    num: int = 200,
    into: float = 2.8,
    out_of: float = 0.8,
    steps: int = 10,
    passes: int = 20,
    seed: int = 0,
) -> None:
    """Explain, measure, and print the table.

    Args:
        run: the training run.
        out: folder of the table and the picture.
        num: held-out cells of either well.
        into: ratio that cells of well 1 shall have, as the network sees it.
        out_of: ratio that those of well 0 shall have.
        steps: solver steps.
        passes: of the network over the training cells.
        seed: of the network.
    """
    started = time.monotonic()
    config = read_json(RunConfig, run / "config.json")
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    ae = diffae.load(str(run))
    well, ratio = data.labels["label"], data.labels["nucleus_to_cytoplasm"]
    soft = torch.from_numpy((ratio.clip(LEAST, MOST) - LEAST) / (MOST - LEAST)).float()[data.train, None]
    with work_bar("Learning the ratio") as update:
        network = train_judge(
            ["ratio"], lambda i: data.images(data.train[i.numpy()]), soft, epochs=passes, batch_size=32, seed=seed,
            flip=config.data.flip, progress=update,
        )  # fmt: skip
    for weight in network.parameters():
        weight.requires_grad_(False)

    def measures(x: Tensor) -> Tensor:
        return LEAST + (MOST - LEAST) * network(x)[:, 0].sigmoid()

    hold = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    with work_bar("Cells") as update:
        explainer = Explainer(ae, Classifier(measures, "value"), data.images(data.train), steps=steps, hold=hold, progress=update)
    rows, told, lines = [], {}, []
    for name, side, value in (("into the nucleus", 1, into), ("out of it", 0, out_of)):
        x = data.images(data.some(data.validation[well[data.validation] == side], num))
        before = _physics(x)
        # Cells whose nucleus is not found, or has no ring, cannot be measured.
        measured = np.isfinite(before).all(1)
        x, before = x[torch.from_numpy(measured)], before[measured]
        began = time.monotonic()
        with work_bar(name) as update:
            explainer.progress = update
            made = explainer.explain(x, value=value)
        after = _physics(made.images[:, 0])
        area = np.abs(after[:, 0] / before[:, 0] - 1)
        moved = np.linalg.norm(after[:, 2:] - before[:, 2:], axis=1)
        there = after[:, 1] >= 1.8 if side else after[:, 1] <= 1.2
        good = there & (area < 0.05) & (moved < 1)
        told[name] = {
            "n": len(x), "ratio before": float(np.median(before[:, 1])), "ratio after": float(np.median(after[:, 1])),
            "there": float(there.mean()), "area within .05": float((area < 0.05).mean()), "unmoved": float((moved < 1).mean()),
            "all three": float(good.mean()), "seconds a cell": (time.monotonic() - began) / len(x),
        }  # fmt: skip
        rows.append([name, *(number(v) for v in told[name].values())])
        say(f"{name}: {told[name]}")
        shown = slice(0, 10)
        heats = difference(x[shown, :1], made.images[shown, 0, :1])
        lines += [x[shown], made.images[shown, 0], heats]
    names = ["well 1", "moved into", "protein", "well 0", "moved out", "protein"]
    save_png(sheet(lines, scale=1, names=names), out / "translocation.png")
    result = {"seconds": time.monotonic() - started, "seed": seed, "measured": told}
    write_text(out / "translocation.json", json.dumps(result, indent=1) + "\n")
    header = [
        "", "cells", "ratio before, median", "after", "at least 1.8, at most 1.2", "area within 5 %", "within a pixel", "all three",
        "seconds a cell",
    ]  # fmt: skip
    head = (
        f"# Protein and nuclei, {run.name}\n\n{result['seconds']:.0f} s from the run to this table; the channel of DNA is held; "
        f"asked for {into:g} and {out_of:g}; {measured_on()}; seed {seed}.\n\n"
    )
    publish(head + table_markdown(header, rows), out / "translocation.md")


def _physics(x: Tensor) -> np.ndarray:
    """Area of the nucleus in the middle, the protein's ratio, and where the nucleus is (n, 4); NaN where there is none."""
    return np.array([_cell(image) for image in ((x.clamp(-1, 1) + 1) * 127.5).round().numpy().astype(float)])


def _cell(image: np.ndarray) -> tuple[float, float, float, float]:
    try:
        from skimage.filters import threshold_local
        from skimage.morphology import h_maxima
        from skimage.segmentation import watershed
    except ImportError:
        raise ImportError("Nuclei are found with scikit-image: pip install scikit-image.") from None
    from scipy import ndimage

    protein, dna = image
    smooth = ndimage.gaussian_filter(dna, 1.0)
    mask = (smooth > threshold_local(smooth, WINDOW, method="gaussian")) & (smooth > np.percentile(smooth, 5) + 10)
    mask = ndimage.binary_opening(ndimage.binary_fill_holes(mask), iterations=2)
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1)
    nuclei = watershed(-depth, ndimage.label(h_maxima(depth, 0.75))[0], mask=mask)
    if not nuclei.any():
        return (np.nan,) * 4
    h, w = (side // 2 for side in nuclei.shape)
    found = nuclei[h, w]
    if not found:
        nearest = ndimage.distance_transform_edt(nuclei == 0, return_distances=False, return_indices=True)[:, h, w]
        found = nuclei[tuple(nearest)]
    nucleus = nuclei == found
    near, far = (ndimage.binary_dilation(nucleus, iterations=i) for i in (INNER, OUTER))
    ring = far & ~near & ~ndimage.binary_dilation(nuclei > 0)
    if not ring.any():
        return (np.nan,) * 4
    y, x = ndimage.center_of_mass(nucleus)
    return float(nucleus.sum()), float(protein[nucleus].mean() / protein[ring].mean()), float(y), float(x)


if __name__ == "__main__":
    tyro.cli(main)
