"""What a reader goes through who follows one image through `encode` and `manipulate`, and one batch through `train`.

    python tests/journeys.py

Functions in the order in which they are first called, each read once: how many files that enters, and how often it goes back to a
file that it has left. Networks (nn) and this machine (runtime) are taken as known, as a reader takes them.
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np
import torch

import diffae
from diffae.config import AutoencoderConfig, DataConfig, EncoderConfig, RunConfig, TrainingConfig, UNetConfig

ROOT = Path(diffae.__file__).parent
KNOWN = ("nn", "kernels", "runtime", "files.py", "seeding.py", "processes.py", "processor.py", "memory.py", "graphs.py", "config")
KNOWN += ("config.py", "strict.py", "_moved.py", "__init__.py")


@contextlib.contextmanager
def followed() -> Iterator[list[tuple[str, str]]]:
    """Collects (file, function) of what is called for the first time."""
    found: list[tuple[str, str]] = []
    seen: set[object] = set()

    def look(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event != "call" or code in seen or not code.co_filename.startswith(str(ROOT)):
            return
        seen.add(code)
        file = Path(code.co_filename).relative_to(ROOT)
        if file.parts[0] not in KNOWN and not code.co_name.startswith("<"):
            found.append((file.as_posix(), code.co_name))

    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(None)


def counted(steps: list[tuple[str, str]]) -> tuple[list[str], int]:
    """The files entered, in order, and the number of returns to one that was left."""
    entered: list[str] = []
    returns, here = 0, None
    for file, _ in steps:
        if file != here and file in entered:
            returns += 1
        if file not in entered:
            entered.append(file)
        here = file
    return entered, returns


def journeys() -> dict[str, Callable[[], list[tuple[str, str]]]]:
    """The three, on the smallest networks."""
    from diffae.autoencoder import DiffusionAutoencoder

    unet = UNetConfig(base_channels=8, channel_mult=(1, 2), blocks_per_level=1, attention_resolutions=(), embed_channels=16)
    encoder = EncoderConfig(base_channels=8, channel_mult=(1, 2), blocks_per_level=1, attention_resolutions=())
    tiny = AutoencoderConfig(image_size=(8, 8), z_dim=6, unet=unet, encoder=encoder, prediction="v")
    ae = DiffusionAutoencoder(tiny).eval()
    z = torch.randn(64, 6)
    labels = {"a": (z[:, 0] > 0).numpy().astype(float)}
    try:
        from diffae.semantics.fitting import fit_attributes
    except ImportError:
        from diffae.fitting import fit_attributes
    ae.attributes, _ = fit_attributes(z, labels, held_z_sem=z, held_labels=labels)
    x = torch.rand(1, 3, 8, 8) * 2 - 1

    def train() -> list[tuple[str, str]]:
        from PIL import Image

        from diffae.data import prepare
        from diffae.training.run import Stepped, resolve
        from diffae.training.run import train as run
        from diffae.training.subjects import ImageSubject

        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "images").mkdir()
            for i in range(8):
                Image.fromarray(np.full((8, 8, 3), 30 * i, np.uint8)).save(Path(folder) / "images" / f"{i}.png")
            data = DataConfig(source=f"{folder}/images", validation=0.0)
            config = RunConfig(model=replace(tiny), data=data, training=TrainingConfig(images=16, batch_size=4))
            config = resolve(config, Path(folder) / "run")
            images = prepare(config.data, size=(8, 8), channels=3)
            events = run(ImageSubject(config, images), Path(folder) / "run")
            next(event for event in events if isinstance(event, Stepped))
            # The second batch: the run has begun.
            with followed() as steps:
                next(event for event in events if isinstance(event, Stepped))

        return steps

    def following(what: Callable[[], object]) -> list[tuple[str, str]]:
        with followed() as steps:
            what()
        return steps

    return {
        "encode": lambda: following(lambda: ae.encode(x)),
        "manipulate": lambda: following(lambda: ae.manipulate(x, "a", strength=0.2, steps=2)),
        "train": train,
    }


if __name__ == "__main__":
    for name, journey in journeys().items():
        files, returns = counted(journey())
        print(f"{name}: {len(files)} files entered, {returns} returns: {', '.join(files)}")
