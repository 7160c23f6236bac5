"""What the panels share: the page that they are on, how their errors are shown, and how they reach the panel that edits."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from torch import Tensor

from diffae.data import ImageSet
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
    """The page that a panel is put on.

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


def images_or_notice(page: Page, name: str, use: str) -> ImageSet | None:
    """The images and codes that a panel needs; where there are none, a tab in its place says so.

    Args:
        page: the page.
        name: of the panel, as its tab shows it.
        use: what the images are for: `explore`, `label`.

    Returns:
        The images, or None where the tab was made.
    """
    if page.shop.data is not None and page.shop.z_sem is not None:
        return page.shop.data
    with gr.Tab(name, id=name.lower()):
        gr.Markdown(f"There are no images to {use}: start with `diffae studio RUN --data IMAGES`.")
    return None


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
        open: (visit, image (1, c, h, w)) -> what `open_outputs` show, with the panel in front.
        open_outputs: the visitor's state, components of the panel, and the tabs.
        define: (visit, name, images with it, images without it) -> what `define_outputs` show once the attribute is a slider.
        define_outputs: the visitor's state, and components that list attributes; the last is Sample's, which that panel adds.
    """

    open: Callable[[Visit, Tensor], list[Any]]
    open_outputs: list[Any]
    define: Callable[[Visit, str, list[int], list[int]], list[Any]]
    define_outputs: list[Any]
