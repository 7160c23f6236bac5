"""The sliders of attributes, however many: the best known and those that are moved are shown, all others are searched for."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from diffae.studio.display import worded

LIST = Path(__file__).with_name("sliders.js").read_text(encoding="utf-8")


def slider_list(names: Sequence[str], own: Collection[str], strengths: Mapping[str, float] | None, told: int = 0) -> dict[str, Any]:
    """What the list is told: which attributes there are, and where their sliders stand.

    Args:
        names: of all attributes, the best known first.
        own: those of them that the visitor made.
        strengths: attribute -> strength; all others are at 0. None where they stay as the page has them.
        told: a number that comes back with what the page sends, until it is told another.
    """
    listed = [{"name": name, "label": worded(name), "own": name in own} for name in names]
    at = None if strengths is None else {name: s for name, s in strengths.items() if name in names and s}
    return {"names": listed, "strengths": at, "told": told}


def sliders(value: dict[str, Any], **settings: Any) -> gr.HTML:
    """The list; it shows what `slider_list` returns, and what it sends is read by `strengths`.

    It is no class of its own: Gradio writes a file beside the source of each.

    Args:
        value: see `slider_list`.
        settings: Gradio's.
    """
    return gr.HTML(value, html_template="", js_on_load=LIST, **settings)


def strengths(sent: Any, known: Sequence[str]) -> dict[str, float]:
    """Attribute -> strength, of those that are moved, as a page or a script sends them; a script sends nothing else.

    Raises:
        ValueError: they are no numbers by name, or of attributes that there are not.
    """
    sent = {} if sent is None else sent
    if _of_the_page(sent):
        sent = sent["strengths"]
    if not isinstance(sent, dict) or not all(
        isinstance(s, int | float) and not isinstance(s, bool) and math.isfinite(s) for s in sent.values()
    ):
        raise ValueError(f"Strengths are a number for each attribute, by its name, got {sent!r:.80}.")
    if unknown := [name for name in sent if name not in known]:
        raise ValueError(f"There is no attribute {unknown[0]!r}; there are {', '.join(map(repr, known)) or 'none'}.")
    return {name: float(s) for name, s in sent.items() if s}


def is_late(sent: Any, told: int) -> bool:
    """Whether a page sent it before it knew what it was told last; see `slider_list`."""
    return _of_the_page(sent) and sent.get("told", told) != told


def _of_the_page(sent: Any) -> bool:
    return isinstance(sent, dict) and isinstance(sent.get("strengths"), dict)
