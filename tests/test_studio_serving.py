"""The studio as a process: what is left of it when it is told to end."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("gradio", reason="The studio's tests need gradio: pip install 'diffae[studio]'.")
gradio_client = pytest.importorskip("gradio_client")

SCRIPT = """
import sys, time
from dataclasses import replace
import torch
from diffae.autoencoder import build
from diffae.config.presets import preset
from diffae.studio.app import reserve, serve
from diffae.studio.workshop import Workshop

config = preset("avatars32").model
ae = build(replace(config, unet=replace(config.unet, base_channels=8, attention_resolutions=()))).eval()
if sys.argv[1] == "long":
    def decode(*_, **__):
        print("decoding", flush=True)
        time.sleep(600)
    ae.decode = decode
with reserve("127.0.0.1", 0) as port:
    serve(Workshop(ae, None, None, name="a"), port, opened=lambda: print(port.getsockname()[1], flush=True))
"""


@contextlib.contextmanager
def studio(folder, work="short"):
    """The process of a studio, and its address; it is ended in any case."""
    settings = os.environ | {"TMPDIR": str(folder)}
    script = [sys.executable, "-W", "ignore", "-c", SCRIPT, work]
    with subprocess.Popen(script, env=settings, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def left(folder):
    """What the studio keeps in the folder of temporary files."""
    return [path for path in folder.rglob("*") if "diffae" in path.name or path.name == "gradio" or path.is_file()]


def gone(folder, seconds=60):
    """Whether nothing is left of it, before that much time has passed."""
    until = time.monotonic() + seconds
    while left(folder) and time.monotonic() < until:
        time.sleep(0.2)
    return not left(folder)


@pytest.fixture
def image(tmp_path):
    from PIL import Image

    Image.new("RGB", (32, 32), (200, 30, 30)).save(tmp_path / "own.png")
    (tmp_path / "temporary").mkdir()
    return gradio_client.handle_file(tmp_path / "own.png")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_nothing_is_left_when_the_studio_is_told_to_end(tmp_path, image, name):
    folder = tmp_path / "temporary"
    with studio(folder) as (process, address):
        client = gradio_client.Client(address, verbose=False, download_files=tmp_path / "answers")
        client.predict(image, api_name="/open")
        assert left(folder), "uploads and pictures lie there"
        process.send_signal(getattr(signal, name))
        process.wait(60)
        assert not left(folder)


@pytest.mark.slow
def test_files_of_visitors_are_gone_also_where_one_still_waits_for_work(tmp_path, image):
    folder = tmp_path / "temporary"
    with studio(folder, "long") as (process, address):
        client = gradio_client.Client(address, verbose=False, download_files=tmp_path / "answers")
        client.submit(image, 1, "fresh detail", 0, api_name="/vary")
        assert process.stdout.readline().strip() == "decoding"
        process.send_signal(signal.SIGTERM)
        assert gone(folder)
        assert process.poll() is None, "the work goes on"
