"""Shapes and types are enforced while testing; tests never touch the user's cache, and use one thread a worker."""

import atexit
import contextlib
import errno
import gc
import importlib.util
import os
import random
import shutil
import sys
import tempfile
import threading
import zipfile
import zlib
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Machines are shared: how long an example takes says nothing.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")
# Each test has a cache of its own (below); this one is for what modules share.
os.environ["DIFFAE_CACHE"] = tempfile.mkdtemp(prefix="diffae-tests-")
atexit.register(shutil.rmtree, os.environ["DIFFAE_CACHE"], ignore_errors=True)
# Where diffusers copies the code in a pipeline's folder to before it imports it.
os.environ["HF_MODULES_CACHE"] = str(Path(os.environ["DIFFAE_CACHE"]) / "modules")

# Not of old names, whose warnings tell the line of whoever asks.
SOURCE = Path(importlib.util.find_spec("diffae").origin).parent
install_import_hook([f"diffae.{path.stem}" for path in SOURCE.iterdir() if path.stem != "_moved"], "shapes.enforced")

import torch  # noqa: E402

torch.set_num_threads(1)

from diffae.config import (  # noqa: E402
    AutoencoderConfig,
    DataConfig,
    EncoderConfig,
    RunConfig,
    TrainingConfig,
    UNetConfig,
)


def seed(name):
    """What draws without a seed of its own draws by a name, the same each time and in any order of tests."""
    number = zlib.crc32(name.encode())
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    seed(fixturedef.argname)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    seed(item.nodeid)


def is_tracker(process):
    with contextlib.suppress(OSError):
        return b"resource_tracker" in Path(f"/proc/{process}/cmdline").read_bytes()
    return True


def is_of_a_test(file):
    """Whether an open file is one that a test made. What libraries keep open of their own, such as fonts, lies with them, which may
    be below the temporary folder too."""
    return file.startswith(tempfile.gettempdir()) and not file.startswith(sys.prefix)


def unmapped(found):
    """Without mapped files: an array keeps its file for as long as it lives itself, and nobody is warned of it. Few ask, as the
    system takes long to say what is mapped."""
    return {what for what in found if not what.startswith("/") or what not in Path("/proc/self/maps").read_text()}


def held():
    """What this process has open that a test must not leave: sockets, files, threads that keep it alive, processes that it began.

    Python's own tracker of what processes share lives as long as the process.
    """
    found = {f"thread {t.name}" for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()}
    with contextlib.suppress(OSError):
        for task in os.listdir("/proc/self/task"):
            children = Path(f"/proc/self/task/{task}/children")
            with contextlib.suppress(OSError):
                found |= {f"process {child}" for child in children.read_text().split() if not is_tracker(child)}
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                link = os.readlink(f"/proc/self/fd/{descriptor}")
                if link.startswith("socket:") or is_of_a_test(link):
                    found.add(link)
    return found


@pytest.fixture(autouse=True)
def nothing_is_left():
    """A test that leaves a socket, a file, a thread or a process fails itself, in place of the one during which it is collected."""
    before = held()
    yield
    if unmapped(held() - before):
        gc.collect()  # What waits in a circle of references to be closed.
        left = unmapped(held() - before)
        assert not left, f"left behind: {', '.join(sorted(left))}"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def failing_disk(monkeypatch):
    """Has a disk fail while members of a zip are read, and looks whether each way to read says so, with the system's number."""

    def fails(self, *args):
        raise OSError(errno.EIO, "Input/output error")

    def check(*reads):
        monkeypatch.setattr(zipfile.ZipExtFile, "read", fails)
        for read in reads:
            with pytest.raises(OSError, match="Input/output error") as error:
                read()
            assert error.value.errno == errno.EIO

    return check


@pytest.fixture
def fresh_accelerator():
    """What `accelerate` remembers of processes and devices is forgotten before and after."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def tiny() -> AutoencoderConfig:
    """The smallest autoencoder that has every part: levels, attention, both codes."""
    return AutoencoderConfig(
        image_size=(8, 8),
        z_dim=6,
        unet=UNetConfig(
            base_channels=8, channel_mult=(1, 2), blocks_per_level=1, attention_resolutions=(4,), embed_channels=16, dropout=0.0
        ),
        encoder=EncoderConfig(base_channels=8, channel_mult=(1, 2), blocks_per_level=1, attention_resolutions=(4,)),
    )


@pytest.fixture(scope="session")
def write_colours():
    """Writes images of one colour each into a folder, 00.png on, and returns their colours."""

    def write(folder, num):
        from PIL import Image

        folder.mkdir()
        generator = torch.Generator().manual_seed(0)
        colours = [torch.randint(0, 256, (3,), generator=generator).tolist() for _ in range(num)]
        for i, colour in enumerate(colours):
            Image.new("RGB", (16, 16), tuple(colour)).save(folder / f"{i:02d}.png")
        return colours

    return write


@pytest.fixture(scope="session")
def write_images():
    """Writes `num` small PNGs into a folder and returns it."""

    def write(root, num=24, *, size=(16, 16)):
        from PIL import Image

        root.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(0)
        for i in range(num):
            pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8, generator=generator)
            Image.fromarray(pixels.numpy()).save(root / f"{i:03d}.png")
        return root

    return write


@pytest.fixture
def make_images(tmp_path, write_images):
    """`write_images` into a folder of the test's own."""

    def make(num=24, *, size=(16, 16), folder="images"):
        return write_images(tmp_path / folder, num, size=size)

    return make


@pytest.fixture
def tiny_run(tiny, make_images):
    """The configuration of a run that takes seconds."""
    from dataclasses import replace

    def make(*, images=64, source=None, model=None, data=None, **training):
        return RunConfig(
            preset="tiny",
            model=replace(tiny, **(model or {})),
            data=DataConfig(source=str(source or make_images()), **({"validation": 0.25} | (data or {}))),
            training=TrainingConfig(
                **{"images": images, "batch_size": 8, "learning_rate": 1e-3, "log_every": 8, "validate_every": 32}
                | {"sample_every": 64, "checkpoint_every": 16, "ema_decay": 0.9, "precision": "float32"}
                | training
            ),
        )

    return make
