"""The page of images that are not like a model's own."""

import csv
import io
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffae.evaluation.pages.figures import Figure, Progress
from diffae.evaluation.pages.page import figure_html, html, table_html
from diffae.evaluation.pages.report import commit, machine
from diffae.explanation.anomaly import AnomalyScorer, AnomalyScores
from diffae.explanation.heat import heat
from diffae.pictures import save_png, scale_for, sheet
from diffae.runtime.files import write_text

if TYPE_CHECKING:
    from diffae.data.dataset import ImageSet

COMPONENTS = 128
"""Principal components of pixels whose error is the floor."""


def write_anomalies(
    scorer: AnomalyScorer, trained: "ImageSet", data: "ImageSet", indices: np.ndarray, out: Path, *, column: str | None = None,
    num: int = 16, progress: Progress = lambda what, done, total: None,
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    """Measures how unlike images are, and writes `report.html`, `anomaly.json`, `images.csv` (a row each) and a picture.

    Args:
        scorer: knows what the model's own images are like.
        trained: these.
        data: the images to look at.
        indices: which of them.
        out: the folder.
        column: of their labels, the one that is 1 for anomalies and 0 for usual images; gives the AUROC.
        num: how many are drawn, of the least usual.
        progress: told how far it is.

    Returns:
        The page, and what `anomaly.json` says.

    Raises:
        ValueError: there is no such column, or it has not both values.
    """
    y = None if column is None else _labels(data, indices, column)
    found = scorer.score(data, indices, progress)
    result: dict[str, Any] = {"n": len(indices), "n_train": len(trained.train), "machine": machine(), "version": commit()}
    result["beside"] = (
        "images that were held out" if scorer.held_out else "the images that it was trained on, for none was held out"
    )
    if y is not None:
        result["auroc"] = _auroc(y, found, trained, data, indices)
        result["column"] = column
    order = np.argsort(-found.score)
    names = [data.names[i] for i in indices]
    result["images"] = [
        {"file": names[i], "score": float(found.score[i]), "distance": float(found.distance[i]), "error": float(found.error[i])}
        for i in order
    ]
    figures = [_figure("least-usual", "The least usual", scorer, data, indices[order[:num]])]
    figures.append(_figure("most-usual", "The most usual", scorer, data, indices[order[::-1][: max(1, num // 2)]]))
    for figure in figures:
        save_png(figure.picture, out / f"{figure.name}.png")
    write_text(out / "anomaly.json", json.dumps(result, indent=1) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, ["file", "score", "distance", "error"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["images"])
    write_text(out / "images.csv", text.getvalue())
    write_text(out / "report.html", _page(result, figures))
    return out / "report.html", result


def _labels(data: "ImageSet", indices: np.ndarray, column: str) -> np.ndarray:
    if column not in data.labels:
        raise ValueError(f"There is no column {column!r}; there are {', '.join(data.labels) or 'none'}.")
    y = data.labels[column][indices]
    if set(np.unique(y[~np.isnan(y)])) != {0.0, 1.0}:
        raise ValueError(f"{column!r} should be 1 for anomalies and 0 for usual images, and both should be among those looked at.")
    return y


def _auroc(y: np.ndarray, found: AnomalyScores, trained: "ImageSet", data: "ImageSet", indices: np.ndarray) -> Mapping[str, float]:
    """How well anomalies are told from usual images: by each measure, and by the error of pixels' principal components."""
    from sklearn.decomposition import PCA
    from sklearn.metrics import roc_auc_score

    known = ~np.isnan(y)
    train = trained.images(np.random.default_rng(0).permutation(trained.train)[:4000]).flatten(1).numpy()
    pca = PCA(min(COMPONENTS, *train.shape), random_state=0).fit(train)
    floor = np.concatenate([
        np.average(np.square(pca.inverse_transform(pca.transform(x)) - x), 1, weights)
        for x, weights in (_flat(data, part) for part in np.array_split(indices, -(-len(indices) // 256)))
    ])  # fmt: skip
    measures = {"score": found.score, "distance": found.distance, "error": found.error, "pixels": floor}
    return {name: float(roc_auc_score(y[known], values[known])) for name, values in measures.items()}


def _flat(data: "ImageSet", indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, pixels), and 1 for those of their numbers that count, else 0."""
    x, counted = data.images(indices), data.counted(indices)
    weights = torch.ones_like(x) if counted is None else counted.to(x).expand_as(x)
    return x.flatten(1).numpy(), weights.flatten(1).numpy()


def _figure(name: str, title: str, scorer: AnomalyScorer, data: "ImageSet", indices: np.ndarray) -> Figure:
    x = data.images(indices)
    ae = scorer.ae
    mean, error = scorer.maps(x, ae.encode(x), data.counted(indices))
    shown, made = ae.to_pictures(x), ae.to_pictures(mean)
    hot = heat(error, most=float(error.flatten(1).quantile(0.995, dim=1).max()))
    text = (
        "Top: images, the least usual first. Middle: what z_sem alone says of them (the mean decode). Bottom: where the two differ."
        if name == "least-usual"
        else "The same of those that are most like the training images, for comparison."
    )
    return Figure(name, title, text, sheet([shown, made, hot], scale=scale_for(shown)))


def _page(result: Mapping[str, Any], figures: list[Figure]) -> str:
    rows = [[r["file"], *(f"{r[key]:.3g}" for key in ("score", "distance", "error"))] for r in result["images"][:50]]
    sections = [
        "<h1>Images unlike those that the model knows</h1>",
        f'<p class="soft">{result["n"]:,} images, beside {result["n_train"]:,} that the model was trained on. Measured on '
        f"{escape(result['machine'])} with diffae {escape(result['version'])}.</p>",
        *(figure_html(figure) for figure in figures),
    ]
    if "auroc" in result:
        names = {
            "score": "both", "distance": "distance of z_sem", "error": "error of the mean decode",
            "pixels": f"floor: error of {COMPONENTS} principal components of pixels",
        }  # fmt: skip
        table = table_html(["", "AUROC"], [[names[key], f"{value:.3f}"] for key, value in result["auroc"].items()])
        sections += [f"<h2>How well {escape(str(result['column']))} is told</h2>", table]
    sections += [
        "<h2>The least usual, in numbers</h2>",
        "<p>Score: the mean of the logarithms of both measures, in standard deviations above those of "
        f"{result['beside']}. "
        "Distance: of z_sem from the training images' codes (Mahalanobis). Error: mean squared error of the mean decode, on the "
        "[0, 1] scale. All images are in images.csv.</p>",
        table_html(["image", "score", "distance", "error"], rows),
    ]
    return html("diffae anomaly", sections)
