"""Every table and figure, from one command: the suites, and the page that they end in."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import diffae
from diffae.evaluation.claims import Claim, claims, claims_table
from diffae.evaluation.pages.page import figure_html, html, table_html, table_markdown
from diffae.evaluation.pages.report import machine
from diffae.evaluation.suites.attributes import attributes
from diffae.evaluation.suites.bench import Bench, Suite
from diffae.evaluation.suites.denoising import denoising
from diffae.evaluation.suites.generation import fewshot, generation
from diffae.evaluation.suites.interpolation import interpolation
from diffae.evaluation.suites.manipulation import manipulation
from diffae.evaluation.suites.reconstruction import reconstruction
from diffae.evaluation.suites.section import NotMeasurable, Section
from diffae.evaluation.suites.variation import variation
from diffae.pictures import save_png
from diffae.runtime import processes
from diffae.runtime.files import write_text

SUITES: dict[str, Suite] = {
    "reconstruction": reconstruction,
    "denoising": denoising,
    "generation": generation,
    "attributes": attributes,
    "fewshot": fewshot,
    "interpolation": interpolation,
    "variation": variation,
    "manipulation": manipulation,
}


def evaluate(bench: Bench, names: Sequence[str], out: Path, *, suites: Mapping[str, Suite] = SUITES) -> Path:
    """Measures, and writes `results.json`, `tables.md`, `report.html` and the pictures as PNG.

    Args:
        bench: models and images.
        names: of suites; or `all`, which leaves out those that this model or these images cannot show, and says why.
        out: the folder. What an earlier evaluation measured there is not measured again. Of several processes the first writes.
        suites: what there is, by name; a suite of your own stands beside ours in `{**SUITES, "mine": mine}`.

    Returns:
        The page.

    Raises:
        ValueError: an unknown suite, fewer images than asked for, or nothing to evaluate.
    """
    unknown = [name for name in names if name not in suites and name != "all"]
    if unknown:
        raise ValueError(f"There is no suite {', '.join(unknown)}. There are: all, {', '.join(suites)}.")
    started = time.monotonic()
    sections = []
    for name in suites if "all" in names else names:
        try:
            section = suites[name](bench)
        except NotMeasurable as error:
            if "all" not in names:
                raise
            section = Section(name, name.capitalize(), f"Left out: {error}", [], [])
        sections.append(section)
    about = {
        **bench.store.made,
        "diffae": diffae.__version__,
        "machine": machine(),
        "seed": bench.seed,
        "model": bench.ae.about,
        "masked": bench.data.known is not None,
        "depends": bench.store.depends,
        "seconds": round(time.monotonic() - started, 1),
    }
    if processes.is_first():
        _write(sections, about, out)
    return out / "report.html"


def _write(sections: list[Section], about: dict, out: Path) -> None:
    for figure in (figure for section in sections for figure in section.figures):
        save_png(figure.picture, out / "pictures" / f"{figure.name}.png")
    results = [r for section in sections for r in section.results]
    found = claims(results)
    rows = [dataclasses.asdict(r) for r in results]
    write_text(
        out / "results.json",
        json.dumps(about | {"claims": [dataclasses.asdict(c) for c in found], "results": rows}, indent=1) + "\n",
    )
    write_text(out / "tables.md", _markdown(sections, found))
    write_text(out / "report.html", _page(sections, found, about))


def _markdown(sections: list[Section], found: list[Claim]) -> str:
    parts = []
    if found:
        claimed = claims_table(found)
        parts.append(f"## What the paper claims\n\n{table_markdown(claimed.header, claimed.rows)}")
    for s in sections:
        tables = [(f"### {t.title}\n\n" if t.title else "") + table_markdown(t.header, t.rows) for t in s.tables]
        parts.append("\n".join([f"## {s.title}\n\n{s.text}\n", *tables]))
    return "\n".join(parts)


def _page(sections: list[Section], found: list[Claim], about: dict) -> str:
    parts = [
        "<h1>A diffusion autoencoder beside its paper</h1>",
        f'<p class="soft">{escape(str(about["model"].get("data", "")))}, preset {escape(str(about["model"].get("preset", "?")))}, '
        f'{about["model"].get("images_seen", 0):,} images seen in training. "Paper" rows are the paper\'s figures on '
        "the paper's data, at its size and training: they show the order of things, not a race. Seed "
        f"{about['seed']}, {escape(about['machine'])}.</p>",
    ]
    if about["masked"]:
        parts.append(
            "<p>In training some pixels of these images did not count (data.mask), so nothing taught the decoder what to draw "
            "there. Here they count as all others do.</p>"
        )
    if found:
        summary = f"{sum(c.holds for c in found)} of {len(found)} orderings that the paper reports come out the same here."
        claimed = claims_table(found)
        parts.append(f"<h2>What the paper claims</h2><p>{summary}</p>{table_html(claimed.header, claimed.rows)}")
    for section in sections:
        parts.append(f"<h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>")
        for table in section.tables:
            heading = f"<h3>{escape(table.title)}</h3>" if table.title else ""
            parts.append(heading + table_html(table.header, table.rows))
        parts += [figure_html(figure, level=3) for figure in section.figures]
    parts.append(f'<p class="soft">Made by <code>{escape(about.get("command", ""))}</code>, diffae {about["diffae"]}.</p>')
    return html("diffae evaluation", parts)
