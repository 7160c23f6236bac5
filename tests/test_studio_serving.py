"""The studio as a process: what is left of it when it is told to end."""

import contextlib
import copy
import os
import select
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("gradio", reason="The studio's tests need gradio: pip install 'diffae[studio]'.")
gradio_client = pytest.importorskip("gradio_client")

from shops import small

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
def studio(folder, work="short", hangup=signal.SIG_DFL):
    """The process of a studio, and its address; it is ended in any case. `hangup` is what SIGHUP does to it before it says more."""
    settings = os.environ | {"TMPDIR": str(folder)}
    script = [sys.executable, "-W", "ignore", "-c", SCRIPT, work]
    # Unbuffered: a line that was read ahead is none that select sees.
    with subprocess.Popen(
        script, env=settings, stdout=subprocess.PIPE, bufsize=0, preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup)
    ) as process:
        try:
            yield process, f"http://127.0.0.1:{line(process)}"
        finally:
            process.kill()


def line(process, seconds=240):
    """The next line that a process says."""
    assert select.select([process.stdout], [], [], seconds)[0], f"nothing was said for {seconds} s"
    return process.stdout.readline().decode().strip()


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
        assert line(process) == "decoding"
        process.send_signal(signal.SIGTERM)
        assert gone(folder)
        assert process.poll() is None, "the work goes on"


@pytest.mark.slow
def test_a_terminal_that_is_closed_does_not_end_what_nohup_started(tmp_path):
    (tmp_path / "temporary").mkdir()
    with studio(tmp_path / "temporary", hangup=signal.SIG_IGN) as (process, _):
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM


@pytest.mark.filterwarnings("ignore")  # What Gradio and its servers warn of is theirs.
def test_what_a_studio_changes_is_as_it_was_once_it_has_ended(tiny, make_images, monkeypatch, tmp_path):
    import gradio.routes

    from diffae.studio.app import ENDS, reserve, serve
    from diffae.studio.workshop import Workshop

    shop = small(tiny, make_images)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    seen, default = [], gradio.routes.DEFAULT_TEMP_DIR
    handlers = [signal.getsignal(number) for number in ENDS]

    def opened():
        seen.append(os.environ["GRADIO_TEMP_DIR"])
        signal.raise_signal(signal.SIGTERM)

    for one in (shop, shop, Workshop(shop.ae, None, None, name="another")):
        with reserve("127.0.0.1", 0) as port, pytest.raises(SystemExit):
            serve(one, port, opened=opened)
        assert len(copy.deepcopy(shop.ae).decode(shop.z_sem[:1], steps=2)) == 1
    assert str(tmp_path) not in seen
    assert len(set(seen)) == 3
    assert (os.environ["GRADIO_TEMP_DIR"], gradio.routes.DEFAULT_TEMP_DIR) == (str(tmp_path), default)
    assert [signal.getsignal(number) for number in ENDS] == handlers
