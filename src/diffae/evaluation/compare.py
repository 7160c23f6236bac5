"""Several evaluations side by side, with differences over the same images."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from diffae.evaluation.pages.page import html, table_html, table_markdown
from diffae.evaluation.pages.tables import number
from diffae.evaluation.results import Result
from diffae.runtime.files import write_text

RESAMPLES = 10_000
"""Resamples of the images for one interval."""
LEAST = 4
"""Images of an interval: of fewer, resamples say nothing, and of one that there is no doubt."""


def compare(folders: Mapping[str, Path], out: Path) -> Path:
    """Writes `compare.html` and `compare.md`: each measured row, a column an evaluation, and the difference from the first.

    Where both know each image's value, the difference is paired and carries a 95% bootstrap interval over the images.

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
    if base.each is None or other.each is None or len(base.each) != len(other.each) or len(base.each) < LEAST:
        return shown
    low, high = interval(np.array(other.each) - np.array(base.each))
    return f"{shown} [{low:+.2g}, {high:+.2g}]"


def interval(values: np.ndarray, *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979)."""
    rng = np.random.default_rng(seed)
    means = np.concatenate([values[rng.integers(0, len(values), (500, len(values)))].mean(1) for _ in range(RESAMPLES // 500)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _key(r: Result) -> tuple:
    return r.suite, r.model, r.subject, f"T = {r.steps}" if r.steps else None, r.metric, f"(n = {r.n})"


def _read(folder: Path) -> tuple[dict, list[Result]]:
    file = folder / "results.json"
    if not file.is_file():
        raise FileNotFoundError(f"There is no {file}. Make it with `diffae evaluate RUN --out {folder}`.")
    about = json.loads(file.read_text(encoding="utf-8"))
    return about, [Result(**row) for row in about["results"]]
