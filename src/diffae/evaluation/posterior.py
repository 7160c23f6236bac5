"""What z_sem says of measurements, with intervals, how true that is of measured images, and its page."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.evaluation.pages.figures import Figure, plotted
from diffae.evaluation.pages.page import figure_html, html, table_html
from diffae.evaluation.pages.report import commit, machine
from diffae.pictures import save_png
from diffae.runtime.files import write_text
from diffae.semantics.posterior import Posterior

SHARES = tuple(i / 10 for i in range(1, 10))
"""Of intervals whose coverage is drawn."""
DRAWN = 300
"""Images in a plot."""


@dataclass(frozen=True)
class PredictedMeasurement:
    """What z_sem says of one measurement of n images.

    Attributes:
        name: of the measurement.
        y: (n,), what was measured, NaN where nothing was.
        mean: (n,), what is to be expected.
        interval: (n, 2), in which `share` of the numbers should lie.
        share: of that interval.
        covered: share of an interval -> which share of the measured numbers lies in it; empty where nothing was measured.
        r2: coefficient of determination; None where nothing, or only one number, was measured.
    """

    name: str
    y: np.ndarray
    mean: np.ndarray
    interval: np.ndarray
    share: float
    covered: dict[float, float]
    r2: float | None


def predict_measurement(
    posterior: Posterior, name: str, z_sem: Float[Tensor, "n d"], y: np.ndarray, *, share: float = 0.9
) -> PredictedMeasurement:
    """What a posterior says of images, and how true it is where they were measured.

    Args:
        posterior: of the measurement.
        name: of it.
        z_sem: codes that it was not fitted to.
        y: (n,), what was measured, NaN where nothing was.
        share: of numbers that shall lie within the interval.

    Raises:
        ValueError: infinite measurements.
    """
    mean, interval = posterior.mean(z_sem).numpy(), posterior.interval(z_sem, share).numpy()
    if np.isinf(y).any():
        raise ValueError(f"Some of the measurements of {name!r} are infinite.")
    known = ~np.isnan(y)
    covered, r2 = {}, None
    if known.any():
        shares = sorted({*SHARES, share})
        ends = torch.tensor([[(1 - s) / 2, (1 + s) / 2] for s in shares]).flatten()
        quantiles = posterior.quantile(z_sem[torch.from_numpy(known)], ends).numpy()
        inside = (quantiles[:, 0::2] <= y[known, None]) & (y[known, None] <= quantiles[:, 1::2])
        covered = dict(zip(shares, inside.mean(0).tolist(), strict=True))
        variance = float(np.square(y[known] - y[known].mean()).mean())
        r2 = None if variance == 0 else 1 - float(np.square(y[known] - mean[known]).mean()) / variance
    return PredictedMeasurement(name, y, mean, interval, share, covered, r2)


def write_posterior(found: Sequence[PredictedMeasurement], names: Sequence[str], out: Path, *, about: Mapping[str, Any]) -> Path:
    """Writes `report.html`, `posterior.json`, `images.csv` (a row for each image) and a plot of each measurement.

    Args:
        found: what was said of the same images.
        names: of the images.
        out: the folder.
        about: `images`, a phrase that says which they are, and whatever else identifies the figures.

    Returns:
        The page.
    """
    figures = [f for i, one in enumerate(found, 1) if one.covered for f in (_predicted(i, one), _coverage(i, one))]
    for figure in figures:
        save_png(figure.picture, out / f"{figure.name}.png")
    measured = {
        p.name: {"r2": p.r2, "n": int((~np.isnan(p.y)).sum()), "coverage": {f"{s:g}": c for s, c in p.covered.items()}}
        for p in found
    }
    result = {**about, "machine": machine(), "version": commit(), "measured": measured}
    write_text(out / "posterior.json", json.dumps(result, indent=1) + "\n")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", *(f"{p.name}{kind}" for p in found for kind in ("", " expected", " low", " high"))])
    for i, name in enumerate(names):
        cells = [c for t in found for c in ("" if np.isnan(t.y[i]) else _six(t.y[i]), *map(_six, (t.mean[i], *t.interval[i])))]
        writer.writerow([name, *cells])
    write_text(out / "images.csv", text.getvalue())
    write_text(out / "report.html", _page(found, figures, result, len(names)))
    return out / "report.html"


def _six(value: float) -> str:
    return f"{value:.6g}"


def _file(number: int, prediction: PredictedMeasurement, kind: str) -> str:
    return f"{number}-" + "".join(c if c.isalnum() or c in "_=.-" else "-" for c in prediction.name) + f"-{kind}"


def _predicted(number: int, prediction: PredictedMeasurement) -> Figure:
    """Measured numbers, and the intervals in which they were expected."""
    rows = np.flatnonzero(~np.isnan(prediction.y))
    rows = rows[np.linspace(0, len(rows) - 1, min(DRAWN, len(rows))).astype(int)]
    y, mean = prediction.y[rows], prediction.mean[rows]
    low, high = prediction.interval[rows].T

    def draw(axes: Any) -> None:
        axes.vlines(y, low, high, color="#b8c4d6", linewidth=0.8, label=f"interval of {prediction.share:g}")
        axes.plot(y, mean, "o", color="#1f5fbf", markersize=2.5, label="expected")
        ends = [float(y.min()), float(y.max())]
        axes.plot(ends, ends, color="#d9722e", linewidth=1, label="as measured")
        axes.set(xlabel=f"{prediction.name}, measured", ylabel="said by z_sem")

    return Figure(_file(number, prediction, "said"), prediction.name, "What z_sem says, beside what was measured.", plotted(draw))


def _coverage(number: int, prediction: PredictedMeasurement) -> Figure:
    """Whether as many numbers lie within intervals as should."""

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color="#d9722e", linewidth=1, label="as it should be")
        axes.plot(
            list(prediction.covered), list(prediction.covered.values()), "o-", color="#1f5fbf", markersize=3, label="measured"
        )
        axes.set(xlabel="share that an interval should hold", ylabel="share that it holds", xlim=(0, 1), ylim=(0, 1))

    title = f"{prediction.name}, how true intervals are"
    return Figure(_file(number, prediction, "coverage"), title, "On the line, intervals hold what they promise.", plotted(draw))


def _page(found: Sequence[PredictedMeasurement], figures: Sequence[Figure], result: Mapping[str, Any], n: int) -> str:
    rows = []
    for t in found:
        width = float(np.median(t.interval[:, 1] - t.interval[:, 0]))
        covered = f"{t.covered[t.share]:.3f}" if t.covered else ""
        rows.append([t.name, "" if t.r2 is None else f"{t.r2:.3f}", covered, f"{(~np.isnan(t.y)).sum():,}", f"{width:.3g}"])
    share = found[0].share
    sections = [
        "<h1>What z_sem says of measurements</h1>",
        f'<p class="soft">{n:,} images, {escape(result["images"])}. Measured on {escape(result["machine"])} with diffae '
        f"{escape(result['version'])}.</p>",
        table_html(["", "R²", f"within intervals of {share:g}", "measured images", "median width of these"], rows),
        "<p>Every image's numbers are in images.csv.</p>",
        *(figure_html(figure) for figure in figures),
    ]
    return html("diffae posterior", sections)
