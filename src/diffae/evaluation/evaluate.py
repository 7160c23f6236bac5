"""Every table and figure, from one command: the suites, and the page that they end in."""

import dataclasses
import json
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

import diffae
from diffae.evaluation import attributes, denoising, figures, generation, reconstruction
from diffae.evaluation.bench import Bench, Section, number
from diffae.evaluation.page import figure_html, html, table_html, table_markdown
from diffae.evaluation.paper import PUBLISHED
from diffae.evaluation.report import machine
from diffae.evaluation.results import Result
from diffae.files import write_text
from diffae.pictures import save_png

SUITES = ("reconstruction", "denoising", "generation", "attributes", "fewshot", "pictures")


def evaluate(bench: Bench, suites: Sequence[str], out: Path, *, fewshot: Sequence[str] = (), command: str = "") -> Path:
    """Measures, and writes `results.json`, `tables.md`, `report.html` and the pictures as PNG.

    Args:
        bench: models and images.
        suites: of `SUITES`.
        out: the folder. What an earlier evaluation measured there is not measured again.
        fewshot: attributes of the few-shot table; by default the two best known that are frequent enough.
        command: that was typed, for the page.

    Returns:
        The page.

    Raises:
        ValueError: an unknown suite, fewer images than asked for, or nothing to evaluate.
    """
    unknown = [suite for suite in suites if suite not in SUITES]
    if unknown:
        raise ValueError(f"There is no suite {', '.join(unknown)}. There are: {', '.join(SUITES)}.")
    started = time.monotonic()
    sections = []
    for suite in suites:
        sections.append(_section(bench, suite, fewshot))
        for figure in sections[-1].figures:
            save_png(figure.picture, out / "pictures" / f"{figure.name}.png")
    about = {
        "command": command,
        "diffae": diffae.__version__,
        "machine": machine(),
        "seed": bench.seed,
        "model": bench.ae.about,
        "depends": bench.store.depends,
        "seconds": round(time.monotonic() - started, 1),
    }
    results = [dataclasses.asdict(r) for section in sections for r in section.results]
    write_text(out / "results.json", json.dumps(about | {"results": results}, indent=1) + "\n")
    tables = [f"## {s.title}\n\n{s.text}\n\n{table_markdown(*table(s))}" for s in sections if s.results]
    write_text(out / "tables.md", "\n".join(tables))
    write_text(out / "report.html", _page(sections, about))
    return out / "report.html"


def table(section: Section) -> tuple[list[str], list[list[str]]]:
    """A section's results as a header and rows: what was measured first, then what the paper reports."""
    metrics = list(dict.fromkeys(r.metric for r in section.results))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for r in section.results:
        name = ", ".join(part for part in (r.model, r.subject, r.steps and f"T = {r.steps}") if part)
        rows.setdefault((name, f"{r.n:,}"), {})[r.metric] = _cell(r)
    for p in PUBLISHED:
        if p.suite == section.suite:
            name = f"paper: {p.model}" + (f", T = {p.steps}" if p.steps else "")
            rows.setdefault((name, p.where), {})[p.metric] = number(p.value)
    lines = [[name, n, *(values.get(metric, "") for metric in metrics)] for (name, n), values in rows.items()]
    return ["", "images", *(_heading(metric) for metric in metrics)], lines


def _section(bench: Bench, suite: str, fewshot: Sequence[str]) -> Section:
    match suite:
        case "reconstruction":
            return reconstruction.reconstruction(bench)
        case "denoising":
            return denoising.denoising(bench)
        case "generation":
            return generation.generation(bench)
        case "attributes":
            return attributes.attributes(bench)
        case "fewshot":
            return generation.fewshot(bench, fewshot or _frequent(bench))
        case _:
            x = bench.test(min(bench.num, 12))
            drawn = [
                figures.variation_figure(bench.ae, x),
                figures.swap_figure(bench.ae, x, bench.ae.encode(x)),
                figures.interpolation_figure(bench.ae, x),
                *([figures.interpolation_figure(bench.ddim, x)] if bench.ddim is not None else []),
                *figures.edit_figures(bench.ae, x),
            ]
            return Section(suite, "Variation, interpolation, manipulation (figures 3 to 5)", "", [], drawn)


def _frequent(bench: Bench) -> list[str]:
    """The two best-known attributes that enough training images show.

    Raises:
        ValueError: there is none.
    """
    fitted, data = bench.ae.attributes, bench.data
    scores = {} if fitted is None else {name: s.auroc for name, s in fitted.scores.items() if s.auroc is not None}
    enough = [n for n in scores if n in data.labels and (data.labels[n][data.train] == 1).sum() >= max(bench.num_inception, 100)]
    if not enough:
        raise ValueError(
            "No attribute is fitted that enough training images show, so there is no class to sample. Fit attributes, ask for "
            "fewer images, or leave the suite fewshot out."
        )
    return sorted(enough, key=lambda name: -scores[name])[:2]


def _cell(r: Result) -> str:
    spread = f" ± {number(r.spread)}" if r.spread is not None and r.each is None else ""
    return number(r.value) + spread


def _heading(metric: str) -> str:
    names = {"ap": "average precision", "precision": "precision", "recall": "recall"}
    return names.get(metric, metric.upper())


def _page(sections: list[Section], about: dict) -> str:
    parts = [
        "<h1>A diffusion autoencoder beside its paper</h1>",
        f'<p class="soft">{escape(str(about["model"].get("data", "")))}, preset {escape(str(about["model"].get("preset", "?")))}, '
        f'{about["model"].get("images_seen", 0):,} images seen in training. "Paper" rows are the paper\'s figures on '
        "the paper's data, at its size and training: they show the order of things, not a race. Seed "
        f"{about['seed']}, {escape(about['machine'])}.</p>",
    ]
    for section in sections:
        parts.append(f"<h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>")
        if section.results:
            parts.append(table_html(*table(section)))
        parts += [figure_html(figure) for figure in section.figures]
    parts.append(f'<p class="soft">Made by <code>{escape(about["command"])}</code>, diffae {about["diffae"]}.</p>')
    return html("diffae evaluation", parts)
