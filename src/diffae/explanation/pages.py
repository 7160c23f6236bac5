"""The page that explains a classifier."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffae.evaluation.pages.figures import Figure
from diffae.evaluation.pages.page import figure_html, html, table_html
from diffae.evaluation.pages.report import commit, machine
from diffae.explanation.explaining import FRAMES, Explained
from diffae.explanation.heat import difference
from diffae.pictures import save_png, scale_for, sheet, to_pil
from diffae.runtime.files import write_text

WORDS = {
    "flipped": "decisions changed",
    "reached": "what was asked for was reached",
    "second agrees": "of those changed, a second classifier decides so too",
    "random flipped": "changed by moves as long, of answers dealt out at random (sanity check: few)",
    "compared images": "images of which that was measured, and the one move below",
    "l1": "mean change of the pixels, of [0, 1]",
    "lpips": "LPIPS between image and counterfactual",
    "length": "length of the move of z_sem, in standard deviations of the codes",
    "fixed flipped": "one move for all images, in one direction: decisions changed",
    "fixed l1": "its mean change of the pixels",
    "fixed length": "its length",
    "fid": "FID of counterfactuals, beside images of the side that they were moved to",
    "fid of images": "FID of the images themselves, beside those",
}
"""What is measured, in the order in which it is told."""


def write_explanation(explained: Explained, names: Sequence[str], out: Path, *, ae: Any, about: Mapping[str, Any]) -> Path:
    """Writes `report.html`, which needs nothing beside it, `explain.json`, and each counterfactual as PNG under `counterfactuals/`.

    Args:
        explained: what was found.
        names: of the images.
        out: the folder.
        ae: the model.
        about: classifier, target and whatever else identifies the figures.

    Returns:
        The page.
    """
    found = explained.found
    folder = out / "counterfactuals"
    images = []
    for i, name in enumerate(names):
        files = []
        for k, picture in enumerate(ae.to_pictures(found.images[i])):
            file = folder / f"{i:04d}-{Path(name).stem}{'' if k == 0 else f'-{k + 1}'}.png"
            files.append(str(save_png(to_pil(picture), file).relative_to(out)))
        images.append(
            {
                "file": name, "before": float(found.before[i]), "after": found.after[i].tolist(),
                "reached": found.reached[i].tolist(), "gradients": found.gradients[i].tolist(),
                "length": found.length[i].tolist(), "counterfactuals": files,
                "attributes": {key: values[i].tolist() for key, values in explained.attributes.items()},
            }
        )  # fmt: skip
    result = {
        **about, "n": len(names), "machine": machine(), "version": commit(),
        "measured": explained.shares, "attributes": _moved(explained, ae), "notes": explained.notes,
        "way": {"places": FRAMES, "answers": explained.answers.tolist()}, "images": images,
    }  # fmt: skip
    write_text(out / "explain.json", json.dumps(result, indent=1) + "\n")
    write_text(out / "report.html", _page(explained, names, ae, result))
    return out / "report.html"


def _moved(explained: Explained, ae: Any) -> dict[str, dict[str, float]]:
    """Of each attribute how it changed, on the mean; and, of those of yes and no, in how many images it is another now."""
    found = {}
    for name, values in explained.attributes.items():
        change = values[:, 1] - values[:, 0]
        found[name] = {"mean change": float(change.mean()), "mean of size": float(np.abs(change).mean())}
        if ae.attributes.scores[name].kind == "binary":
            found[name]["changed"] = float(((values[:, 0] > 0.5) != (values[:, 1] > 0.5)).mean())
    return found


def _page(explained: Explained, names: Sequence[str], ae: Any, result: Mapping[str, Any]) -> str:
    asked = f", towards class {result['target']}" if result.get("target") is not None else ""
    along, every = int(explained.found.gradients[:, 0].sum()), len(names)
    how = "by what it says of many images (a black box)"
    if along == every:
        how = "by the classifier's gradients"
    elif along:
        how += f", and {along:,} of them, which that did not move far enough, by its gradients"
    rows = [[WORDS[key], f"{result['measured'][key]:.3g}"] for key in WORDS if key in result["measured"]]
    sections = [
        f"<h1>Why {escape(str(result['classifier']))} decides so</h1>",
        f'<p class="soft">{len(names):,} images{asked}, explained {how}; x_T and the detail of each image are kept. Seed '
        f"{result['seed']}. Measured on {escape(result['machine'])} with diffae {escape(result['version'])}.</p>",
        figure_html(_rows(explained, ae)),
        _ways(explained, names, result),
        "<h2>How much it is worth</h2>",
        table_html(["", "mean"], rows),
        *(f"<p>{escape(note)}</p>" for note in explained.notes),
    ]
    if explained.attributes:
        told = sorted(result["attributes"].items(), key=lambda item: -item[1].get("changed", -1.0))
        table = []
        for name, v in told:
            changed = f"{v['changed']:.2f}" if "changed" in v else ""
            table.append([name.replace("_", " "), f"{v['mean change']:+.3f}", f"{v['mean of size']:.3f}", changed])
        sections += [
            "<h2>Which attributes moved</h2>",
            "<p>What the attributes' own classifiers see in the image and in its counterfactual, when it is encoded anew.</p>",
            table_html(["attribute", "mean change", "mean size of change", "share that is another now"], table),
        ]
    return html("diffae explain", sections)


def _rows(explained: Explained, ae: Any) -> Figure:
    """Images, the way, the counterfactual, and the difference."""
    m = min(len(explained.frames), 12)
    shown = [
        torch.cat(
            [
                _coloured(ae.to_pictures(part))
                for part in (explained.x[i : i + 1], explained.frames[i][1:-1], explained.found.images[i])
            ]
        )
        for i in range(m)
    ]
    heats = difference(*(ae.to_pictures(part) for part in (explained.x[:m], explained.found.images[:m, 0])))
    rows = [torch.cat([row, hot[None]]) for row, hot in zip(shown, heats, strict=True)]
    others = explained.found.images.shape[1] - 1
    text = (
        "From the left: the image; a quarter, a half and three quarters of the way; the counterfactual"
        + (f"; {others} others, which change something else" if others else "")
        + "; what became brighter (red) and darker (blue) in the first."
    )
    return Figure("counterfactuals", "What would have to be different", text, sheet(rows, scale=scale_for(rows[0])))


def _coloured(x: Tensor) -> Tensor:
    """Grey images, and those of two channels, as `pictures.to_pil` shows them: in three channels, beside coloured ones."""
    return x.expand(-1, 3, *x.shape[2:]) if x.shape[1] == 1 else x[:, [0, 1, 0]] if x.shape[1] == 2 else x[:, :3]


def _ways(explained: Explained, names: Sequence[str], result: Mapping[str, Any]) -> str:
    """The classifier's answers along the way, a line an image."""
    rows = [
        [name, *(f"{v:.2f}" for v in answers.tolist())] for name, answers in zip(names[:12], explained.answers[:12], strict=True)
    ]
    lines = "".join(
        f'<polyline fill="none" stroke="currentColor" stroke-opacity=".35" points="{_points(answers, explained.answers)}"/>'
        for answers in explained.answers
    )
    chart = (
        f'<svg viewBox="-2 -4 204 108" width="420" role="img" aria-label="What the classifier says on the way, a line an image">'
        f'<path d="M0 0V100H200" fill="none" stroke="currentColor" stroke-opacity=".5"/>{lines}</svg>'
    )
    what = "what it measures" if result.get("value") is not None else "the probability"
    header = ["image", *(f"{place:.0%} of the way" for place in FRAMES)]
    text = f"{what.capitalize()}, from image to counterfactual."
    return f"<h2>What the classifier says on the way</h2><p>{escape(text)}</p>{chart}{table_html(header, rows)}"


def _points(answers: Tensor, every: Tensor) -> str:
    low, high = float(every.min()), float(every.max())
    return " ".join(
        f"{200 * place:.0f},{100 - 100 * (float(v) - low) / max(high - low, 1e-9):.1f}"
        for place, v in zip(FRAMES, answers, strict=True)
    )
