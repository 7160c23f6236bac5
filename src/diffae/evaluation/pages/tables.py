"""Rows of results as tables for people: what was measured first, then what the paper reports."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from diffae.evaluation.paper import PUBLISHED
from diffae.evaluation.results import Result


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        title: heading; empty where the section's own says it.
        header: names of the columns, the first of which holds words.
        rows: cells.
    """

    title: str
    header: list[str]
    rows: list[list[str]]


def by_metric(results: Sequence[Result], title: str = "") -> Table:
    """A row for each model, subject and number of steps; a column for each metric; then the paper's rows of that suite."""
    metrics = list(dict.fromkeys(r.metric for r in results))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for r in results:
        name = ", ".join(part for part in (r.model, r.subject, r.steps and f"T = {r.steps}") if part)
        rows.setdefault((name, f"{r.n:,}"), {})[r.metric] = _cell(r)
    for p in PUBLISHED:
        if any(p.suite == r.suite for r in results) and p.metric in metrics:
            name = f"paper: {p.model}" + (f", T = {p.steps}" if p.steps else "")
            rows.setdefault((name, p.where), {})[p.metric] = number(p.value)
    lines = [[name, n, *(values.get(metric, "") for metric in metrics)] for (name, n), values in rows.items()]
    return Table(title, ["", "images", *(_heading(metric) for metric in metrics)], lines)


def by_model(results: Sequence[Result], metric: str, title: str) -> Table:
    """A row for each subject, a column for each model, of one metric; then the paper's rows, in the first column."""
    rows = [r for r in results if r.metric == metric]
    models = list(dict.fromkeys(r.model for r in rows))
    lines: dict[str, dict[str, str]] = {}
    for r in rows:
        lines.setdefault((r.subject or "").replace("_", " "), {})[r.model] = _cell(r)
    cells = [[subject, *(values.get(model, "") for model in models)] for subject, values in lines.items()]
    published = [p for p in PUBLISHED if rows and p.suite == rows[0].suite and p.metric == metric]
    cells += [[f"paper: {p.model} ({p.where})", number(p.value), *[""] * (len(models) - 1)] for p in published]
    return Table(title, ["", *models], cells)


def number(value: float) -> str:
    """A number as tables show it: three figures that count."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.2e}" if abs(value) < 1e-3 else f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"


def _cell(r: Result) -> str:
    spread = f" ± {number(r.spread)}" if r.spread is not None and r.each is None else ""
    return number(r.value) + spread


def _heading(metric: str) -> str:
    names = {"ap": "average precision", "ms_ssim": "MS-SSIM", "lpips vgg16": "LPIPS (VGG)", "path_length": "path length"}
    shouted = ("mse", "psnr", "ssim", "lpips", "fid", "kid", "auroc", "ppl")
    return names.get(metric, metric.upper() if metric in shouted else metric.replace("_", " "))
