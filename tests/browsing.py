"""Chromium for the tests of pages, where there is one."""

import contextlib
import shutil

import pytest

ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@contextlib.contextmanager
def chromium():
    """A browser, closed at the end; without one the test is skipped, and says so."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Pages are opened with playwright: pip install playwright.")
    path = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("NO BROWSER: the page is not tested. Install one: apt-get install chromium.")
    with playwright.sync_playwright() as p:
        opened = p.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield opened
        finally:
            opened.close()
