"""The page of an audit."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from diffae.evaluation.pages.figures import Figure
from diffae.evaluation.pages.page import figure_html, html, table_html
from diffae.evaluation.pages.report import commit, machine
from diffae.explanation.auditing import GIVEN, LEAST_FLIPS, LEAST_SHARE, LENGTH, TAKEN, Factor
from diffae.explanation.heat import difference
from diffae.pictures import save_png, scale_for, sheet
from diffae.runtime.files import write_text

DRAWN = 6
"""Factors that are drawn."""


def write_audit(factors: Sequence[Factor], out: Path, *, ae: Any, about: Mapping[str, Any]) -> Path:
    """Writes `report.html`, `audit.json` and a picture of each factor that is drawn.

    Args:
        factors: as `audit` found them.
        out: the folder.
        ae: the model.
        about: classifier, what it is about, which attributes were left out, and whatever else identifies the figures.

    Returns:
        The page.
    """
    figures = [_figure(rank, factor, ae) for rank, factor in enumerate(factors[:DRAWN], 1)]
    for figure in figures:
        save_png(figure.picture, out / f"{figure.name}.png")
    told = [
        {"name": f.name, "effect": f.effect, "flips": None if math.isnan(f.flips) else f.flips, "suspicious": f.suspicious}
        for f in factors
    ]
    result = {**about, "machine": machine(), "version": commit(), "factors": told}
    write_text(out / "audit.json", json.dumps(result, indent=1) + "\n")
    write_text(out / "report.html", _page(factors, figures, result))
    return out / "report.html"


def verdict(factors: Sequence[Factor], about: str | None) -> str:
    """What was found, in a sentence."""
    suspicious = [f.name.replace("_", " ") for f in factors if f.suspicious]
    if about is None:
        return f"It decides most by {factors[0].name.replace('_', ' ')}." if factors else "No factor is known."
    if suspicious:
        return f"It is about {about.replace('_', ' ')}, and decides by {', '.join(suspicious)} too."
    return f"It is about {about.replace('_', ' ')}, and nothing else that was looked at changes its decisions as much."


def _figure(rank: int, factor: Factor, ae: Any) -> Figure:
    taken, given = ae.to_pictures(factor.taken), ae.to_pictures(factor.given)
    text = (
        f"Images without it, with it, and what became brighter (red) and darker (blue). Effect on the score {factor.effect:+.2f}."
    )
    name = factor.name.replace("_", " ")
    rows = [taken, given, difference(taken, given)]
    title = f"{name}, suspicious" if factor.suspicious else name
    return Figure(f"{rank}-{re.sub(r'[^A-Za-z0-9_=.-]', '-', factor.name)}", title, text, sheet(rows, scale=scale_for(taken)))


def _page(factors: Sequence[Factor], figures: Sequence[Figure], result: Mapping[str, Any]) -> str:
    rows = []
    for f in factors:
        flips = "" if math.isnan(f.flips) else f"{f.flips:.2f}"
        rows.append([f.name.replace("_", " "), f"{f.effect:+.3f}", flips, "yes" if f.suspicious else ""])
    text = (
        f"Each factor is taken from the images and given to them (to a probability of {TAKEN:g} and {GIVEN:g}, or the quantiles of "
        "a measurement), while what the classifier is about stays. What else changes with it is told apart by regression: effects "
        "are a factor's own, the share of decisions is of all that changed. Unnamed factors are what the classifier follows beside "
        f"all that has a name, {LENGTH:g} standard deviations of the codes to either side. Suspicious is what changes at least "
        f"{LEAST_FLIPS:.0%} of the decisions, with {LEAST_SHARE:g} times the largest effect."
    )
    sections = [
        f"<h1>What {escape(str(result['classifier']))} decides by</h1>",
        f"<p>{escape(verdict(factors, result['about']))}</p>",
        f'<p class="soft">{result["n"]:,} images, changed and looked at again by the classifier. Measured on '
        f"{escape(result['machine'])} with diffae {escape(result['version'])}.</p>",
        table_html(["factor", "effect on the score", "share of decisions changed", "suspicious"], rows),
        f"<p>{escape(text)}</p>",
        *(f"<p>Not looked at: {escape(note)}</p>" for note in result.get("left_out", ())),
        *(figure_html(figure) for figure in figures),
    ]
    return html("diffae audit", sections)
