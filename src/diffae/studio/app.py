"""The page: its panels, and how it is served."""

import asyncio
import atexit
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import gradio as gr
import gradio.routes
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from diffae.config import spelled
from diffae.runtime.memory import share_arenas
from diffae.studio.display import CSS, scrolling
from diffae.studio.page import HOURS, Page
from diffae.studio.panels import edit, explore, folder, morph, own, sample, teach, variations, why
from diffae.studio.visit import Visit
from diffae.studio.workshop import Workshop

R = TypeVar("R")
LOCAL = ("127.0.0.1", "localhost", "::1")
ENDS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What ends the studio beside Ctrl-C: a request to end, and a terminal that is closed."""
ARENAS = 2
"""Of the allocator, for all threads of the server."""
SWEEP, AGE = 3600, 24 * 3600
"""Seconds between looks for old uploads and downloads, which are then deleted, and how old they may get: work may wait for its
turn, and a download for who asked for it."""
GRACE = 5
"""Seconds that visitors have, when the studio is to end, to be answered."""
THEME = gr.themes.Default(
    primary_hue="blue",
    neutral_hue="slate",
    font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for what visitors upload and download, removed at the end of the block, and once more when the process ends: work
    that a visitor asked for may still be going on when the block ends, and write."""
    folder = Path(tempfile.mkdtemp(prefix="diffae-studio-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _uploads_in(folder: Path) -> Iterator[None]:
    """Within it Gradio keeps what visitors upload there."""
    folder.mkdir()
    named, default = os.environ.get("GRADIO_TEMP_DIR"), gradio.routes.DEFAULT_TEMP_DIR
    os.environ["GRADIO_TEMP_DIR"] = gradio.routes.DEFAULT_TEMP_DIR = str(folder)
    try:
        yield
    finally:
        gradio.routes.DEFAULT_TEMP_DIR = default
        os.environ.pop("GRADIO_TEMP_DIR")
        if named is not None:
            os.environ["GRADIO_TEMP_DIR"] = named


def build(shop: Workshop, files: Path) -> gr.Blocks:
    """The page with all panels.

    Args:
        shop: model and images.
        files: where files to download are written; see `temporary_folder`.
    """
    with gr.Blocks(title=f"diffae studio: {shop.name}", analytics_enabled=False, delete_cache=(SWEEP, AGE)) as blocks:
        gr.Markdown(f"# diffae studio: {shop.name}\n{_summary(shop)}")
        if control := scrolling(shop.ae.pixels_shape())[0]:
            gr.HTML(control)
        visit = gr.State(Visit(), time_to_live=HOURS * 3600)
        # Inside there may be nothing but tabs: Gradio counts its children.
        with gr.Tabs() as tabs:
            page = Page(shop, blocks, visit, tabs, files)
            editor = edit.panel(page)
            folder.panel(page)
            morph.panel(page)
            variations.panel(page)
            sample.panel(page, editor)
            explore.panel(page, editor)
            teach.panel(page, editor)
            own.panel(page, editor)
            why.panel(page)
        blocks.unload(page.forget)
    return blocks


def reserve(host: str, port: int) -> socket.socket:
    """The port, taken before anything is loaded for it; nobody is answered on it before the page is served.

    Raises:
        OSError: another program has it, or there is no such address here.
    """
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        # Two can be bound to a port; it is taken by who listens.
        found.listen()
    except OSError as error:
        found.close()
        reason = (error.strerror or str(error)).rstrip(".")
        raise OSError(error.errno, f"{host}:{port} cannot be listened on ({reason}). Give another --port.") from None
    return found


def serve(
    shop: Workshop,
    reserved: socket.socket,
    *,
    host: str = "127.0.0.1",
    password: str | None = None,
    opened: Callable[[], object] = lambda: None,
) -> None:
    """Serves the page until it is interrupted, or told to end by SIGTERM or SIGHUP; files of visitors are then gone.

    Args:
        shop: model and images.
        reserved: the port; see `reserve`.
        host: address that it is of.
        password: asked for with the name `diffae`; must be given where others than this machine can reach the page.
        opened: called when the page can be opened.

    Raises:
        ValueError: no password, and a host that others can reach.
    """

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            opened()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            shop.ended.set()
            # That it ends visitors' connections is no error.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            await super().shutdown(sockets)

    def end(number: int, frame: object) -> None:
        # An exit, unlike a signal's end, removes what is temporary; it waits for work, which has to know.
        shop.ended.set()
        sys.exit(128 + number)

    # What is ignored, as SIGHUP under nohup, stays so.
    previous = {number: signal.signal(number, end) for number in ENDS if signal.getsignal(number) != signal.SIG_IGN}
    share_arenas(ARENAS)
    try:
        with shop.serving(), temporary_folder() as temporary, _uploads_in(temporary / "uploads"):
            page = application(shop, temporary / "downloads", host=host, password=password)
            Server(uvicorn.Config(page, log_level="warning", timeout_graceful_shutdown=GRACE)).run([reserved])
    finally:
        for number, handler in previous.items():
            # None: it was not set from Python, and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def application(shop: Workshop, files: Path, *, host: str = "127.0.0.1", password: str | None = None) -> FastAPI:
    """What is served; arguments and errors as of `build` and `serve`."""
    if host not in LOCAL and not password:
        raise ValueError(f"With --host {host} others can reach the page: give a --password. The name to log in with is diffae.")

    served = FastAPI()
    served.add_middleware(_Counting, shop=shop)
    return _within_a_loop(
        lambda: gr.mount_gradio_app(
            served,
            build(shop, files),
            path="",
            auth=("diffae", password) if password else None,
            theme=THEME,
            css=CSS + scrolling(shop.ae.pixels_shape())[1],
            show_error=True,
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            max_file_size="64mb",
        )
    )


class _Counting:
    """Tells the workshop of what visitors and scripts send when it comes: Gradio would tell when its turn has come."""

    def __init__(self, app: ASGIApp, shop: Workshop) -> None:
        self._app, self._shop = app, shop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            self._shop.requests += 1
        await self._app(scope, receive, send)


def _within_a_loop(make: Callable[[], R]) -> R:
    """What is made, while an event loop runs: where none does, Gradio opens some of its own and leaves them, with their sockets."""

    async def made() -> R:
        return make()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(made())
    return make()


def _summary(shop: Workshop) -> str:
    c, *sides = shop.ae.pixels_shape()
    images = "no images" if shop.data is None else f"{len(shop.data.names):,} images"
    fitted = shop.ae.attributes
    known = "no attributes" if fitted is None else f"{len(fitted.scores)} attributes"
    return f"{spelled(sides)}, {c} channel{'s' * (c != 1)}, z_sem of {shop.ae.z_dim}, {known}, {images}."
