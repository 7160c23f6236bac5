"""Several evaluations side by side, with differences over the same images."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import NormalDist

import numpy as np

from diffae.evaluation.pages.page import html, table_html, table_markdown
from diffae.evaluation.pages.tables import number
from diffae.evaluation.results import Result
from diffae.runtime.files import write_text

RESAMPLES = 10_000
"""Resamples of the images for one interval."""
LEAST = 8
"""Images of an interval, or groups of them: the resamples of fewer are too few to hold the truth in 95 of 100 cases."""


def compare(folders: Mapping[str, Path], out: Path) -> Path:
    """Writes `compare.html` and `compare.md`: each measured row, a column an evaluation, and the difference from the first.

    Where both know each image's value, the difference is paired and carries a 95% bootstrap interval over the images, or over
    their groups (persons, slides) where they have some.

    Args:
        folders: name -> what `diffae evaluate --out` wrote.
        out: the folder of the page.

    Returns:
        The page.

    Raises:
        ValueError: fewer than two, evaluations of other images or labels, or nothing that all of them measured.
        FileNotFoundError: a folder without results.
    """
    if len(folders) < 2:
        raise ValueError("A comparison needs at least two evaluations.")
    found = {name: _read(folder) for name, folder in folders.items()}
    for what, same in (("images", "--data, of which all hold out the same"), ("labels", "--labels")):
        keys = {name: about["depends"].get(what) for name, (about, _) in found.items()}
        if len(set(keys.values())) > 1:
            raise ValueError(
                f"These evaluations are of different {what}, so their numbers cannot be compared: "
                f"{', '.join(f'{name} of {key}' for name, key in keys.items())}. Evaluate all with one {same}."
            )
    header, rows = side_by_side({name: results for name, (_, results) in found.items()})
    text = (
        f"The difference is from {next(iter(folders))}; in brackets, a 95% bootstrap interval of the paired difference over images."
    )
    write_text(out / "compare.md", f"{text}\n\n{table_markdown(header, rows)}")
    write_text(
        out / "compare.html", html("diffae compare", ["<h1>Side by side</h1>", f"<p>{escape(text)}</p>", table_html(header, rows)])
    )
    return out / "compare.html"


def side_by_side(results: Mapping[str, Sequence[Result]]) -> tuple[list[str], list[list[str]]]:
    """The rows that all have, as a table.

    Raises:
        ValueError: there is none.
    """
    keyed = {name: {_key(r): r for r in rows} for name, rows in results.items()}
    first, *others = keyed
    rows = []
    for key, base in keyed[first].items():
        if all(key in keyed[name] for name in others):
            cells = [number(base.value)]
            for name in others:
                other = keyed[name][key]
                cells += [number(other.value), difference(base, other)]
            rows.append([" ".join(str(part) for part in key if part is not None), *cells])
    if not rows:
        raise ValueError(f"{' and '.join(results)} have no row in common: evaluate the same suites with the same settings.")
    return ["", first, *(cell for name in others for cell in (name, "difference"))], rows


def difference(base: Result, other: Result) -> str:
    """How far a row is from another, with an interval where both know each image."""
    value = other.value - base.value
    shown = f"{'+' if value >= 0 else '-'}{number(abs(value))}"
    between = paired(base, other)
    return shown if between is None else f"{shown} [{between[0]:+.2g}, {between[1]:+.2g}]"


def paired(base: Result, other: Result) -> tuple[float, float] | None:
    """The interval of the difference of two results over the same images; None where they are too few, or not known one by one."""
    if base.each is None or other.each is None or len(base.each) != len(other.each):
        return None
    groups = range(len(base.each)) if base.groups is None else base.groups
    if len(set(groups)) < LEAST:
        return None
    return interval(np.array(other.each) - np.array(base.each), np.array(groups))


def interval(values: np.ndarray, groups: np.ndarray | None = None, *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval of the mean over groups of values (each its own by default), by expanded percentiles: of few, resamples
    vary too little, and by how much Student's t and the variance's own bias say (Hesterberg 2015, section 5.3)."""
    rng = np.random.default_rng(seed)
    _, group = np.unique(np.arange(len(values)) if groups is None else groups, return_inverse=True)
    sums, sizes = np.bincount(group, values), np.bincount(group)
    n = len(sums)
    means = []
    for _ in range(RESAMPLES // 500):
        drawn = rng.integers(0, n, (500, n))
        means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    tail = NormalDist().cdf(-_student((1 + level) / 2, n - 1) * math.sqrt(n / (n - 1)))
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _student(p: float, freedom: int) -> float:
    """The quantile of Student's t, by the normal's (Abramowitz & Stegun 1964, 26.7.5)."""
    x = NormalDist().inv_cdf(p)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / freedom ** (i + 1) for i, term in enumerate(terms))


def _key(r: Result) -> tuple:
    return r.suite, r.model, r.subject, f"T = {r.steps}" if r.steps else None, r.metric, f"(n = {r.n})"


def _read(folder: Path) -> tuple[dict, list[Result]]:
    file = folder / "results.json"
    if not file.is_file():
        raise FileNotFoundError(f"There is no {file}. Make it with `diffae evaluate RUN --out {folder}`.")
    about = json.loads(file.read_text(encoding="utf-8"))
    return about, [Result(**row) for row in about["results"]]
