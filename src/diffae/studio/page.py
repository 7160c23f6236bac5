"""What the panels share: the page that they are on, and how they reach the panel that edits."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from torch import Tensor

from diffae.studio.workshop import Visit, Workshop

R = TypeVar("R")
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
"""What asks the network takes turns at it."""
PROGRESS = gr.Progress()
"""Where a panel says how far it is; Gradio gives each call its own."""
ANY = "anything"
"""What Sample draws where no attribute is asked for."""


@dataclass
class Page:
    """What the panels share.

    Attributes:
        shop: model and images.
        visit: the visitor's state.
        tabs: the panels.
        folder: where files to download are written, one of each kind a visitor.
    """

    shop: Workshop
    visit: gr.State
    tabs: gr.Tabs
    folder: Path


def shows_errors(work: Callable[..., R]) -> Callable[..., R]:
    """The work; what goes wrong in it is a sentence on the page."""

    @functools.wraps(work)
    def wrapped(*args: Any, **kwargs: Any) -> R:
        try:
            return work(*args, **kwargs)
        except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
            raise gr.Error(str(error), print_exception=False) from None

    return wrapped


@dataclass(frozen=True)
class EditPanel:
    """How other panels reach the one that edits.

    Attributes:
        open: (visit, image (1, c, h, w)) -> what `outputs` show.
        outputs: components.
        define: (visit, name, images with it, images without it) -> what `sliders` show when the visitor has made this attribute.
        sliders: the visitor's state and components; the last is Sample's choice of an attribute, which that panel adds.
    """

    open: Callable[[Visit, Tensor], list[Any]]
    outputs: list[Any]
    define: Callable[[Visit, str, list[int], list[int]], list[Any]]
    sliders: list[Any]
