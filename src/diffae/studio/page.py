"""What the panels share: the page that they are on, how their errors are shown, and how they reach the panel that edits."""

import contextlib
import functools
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from diffae.data import ImageSet
from diffae.runtime.files import replacing
from diffae.semantics.attributes import Attributes
from diffae.studio.progress import TimeLeft
from diffae.studio.visit import Visit
from diffae.studio.workshop import Workshop

R = TypeVar("R")
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
"""What asks the network takes turns at it; and what changes a visit, of which the later would drop what the earlier did."""
PROGRESS = gr.Progress()
"""Where a panel says how far it is; Gradio gives each call its own."""
HOURS = 4
"""After which a visit ends in which nothing changed."""
LASTS = f"Attributes of your own last until this page is closed or loaded again, or {HOURS} hours without a change."
ANY = "anything"
"""What Sample draws where no attribute is asked for."""


@dataclass
class Page:
    """The page that a panel is put on.

    Attributes:
        shop: model and images.
        blocks: the page as Gradio has it.
        visit: the visitor's state.
        tabs: the panels.
        folder: where files are written, a folder for each visitor and in it one of each kind.
    """

    shop: Workshop
    blocks: gr.Blocks
    visit: gr.State
    tabs: gr.Tabs
    folder: Path
    _at_work: list[tuple[Path, threading.Event]] = field(default_factory=list)

    def file(self, request: gr.Request, name: str) -> Path:
        """Where a file of a visitor's lies."""
        return self.folder_of(request) / name

    def forget(self, request: gr.Request) -> None:
        """Removes the files of a visitor who left, and ends their work."""
        folder = self.folder_of(request)
        for whose, gone in list(self._at_work):
            if whose == folder:
                gone.set()
        shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def working(self, request: gr.Request, progress: gr.Progress) -> Iterator[TimeLeft]:
        """Within it a visitor's work goes on, and its bar; where the visitor leaves, the bar ends the work, and nothing is left of
        what it wrote."""
        folder, gone = self.folder_of(request), threading.Event()
        self._at_work.append((folder, gone))
        try:
            yield TimeLeft(progress, self.shop, gone)
        finally:
            self._at_work.remove((folder, gone))
            if gone.is_set():
                shutil.rmtree(folder, ignore_errors=True)

    def keep(self, request: gr.Request, name: str, x: Tensor) -> None:
        """Keeps images on disk until they are asked for, or others under that name are kept: they would take much memory."""
        with replacing(self.file(request, f"{name}.npy")) as part, part.open("wb") as opened:
            np.save(opened, x.numpy(), allow_pickle=False)

    def kept(self, request: gr.Request, name: str, index: int) -> Tensor | None:
        """One of the images that were kept, or None where there are none."""
        file = self.file(request, f"{name}.npy")
        if not file.is_file():
            return None
        images = np.load(file, mmap_mode="r", allow_pickle=False)
        return torch.from_numpy(images[min(index, len(images) - 1)].copy())

    def folder_of(self, request: gr.Request) -> Path:
        """Where all files of a visitor lie; it is removed when they leave, and with all others when the studio ends."""
        # A session's name is whatever the visitor sent, a path too: it is never a part of one here.
        return self.folder / hashlib.sha256(str(request.session_hash).encode(errors="surrogatepass")).hexdigest()


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
        opens: (gallery, pick, its inputs): lets a click in a gallery open an image, which is picked at once; when its turn comes,
            the gallery may show others.
        define: (visit, name, attribute) -> what `define_outputs` show once the attribute is a slider.
        listed: (visit) -> the same, where attributes were taken away.
        define_outputs: the visitor's state, and components that list attributes; the last is Sample's, which that panel adds.
    """

    opens: Callable[[gr.Gallery, Callable[..., Tensor], list[Any]], object]
    define: Callable[[Visit, str, Attributes], list[Any]]
    listed: Callable[[Visit], list[Any]]
    define_outputs: list[Any]
