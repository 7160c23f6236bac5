"""The studio under visitors: whether its memory stays, whether each sees only what is theirs, and what bad uploads come to.

    python benchmarks/studio.py

A small untrained model is served behind a password. Visitors, each with an image of an own colour, open it, move it, vary it and
morph it, and in between upload what is no image, and ask for files that are not theirs. The unmoved image has to come back as
it is. At last one visitor opens more images than a visit has memory for. It ends with 1 where anything is not as it should be.
"""

import contextlib
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
import tyro
from PIL import Image

from diffae.cli.bars import work_bar
from diffae.config import AutoencoderConfig, EncoderConfig, UNetConfig
from diffae.evaluation.pages.figures import plotted
from diffae.evaluation.pages.page import table_markdown
from diffae.evaluation.pages.report import machine
from diffae.pictures import save_png
from diffae.runtime.files import write_text
from diffae.studio.visit import MOST_BYTES

PASSWORD = "a password"
SETTLED = 100
"""Requests after which memory is to be flat."""
MOST_GROWN = 50.0
"""MiB."""
BAD = ("text.png", "cut.png", "bomb.png", "empty.png", "page.html", "array.npy")


def main(
    requests: int = 2000, visitors: int = 8, images: int = 1000, seed: int = 0, out: Path = Path("benchmarks/studio.md")
) -> None:
    """Measure.

    Args:
        requests: in all.
        visitors: at the same time.
        images: that one visitor opens in the end, each another.
        seed: of what each asks.
        out: where the figures go; the curve lies beside them as PNG.
    """
    with tempfile.TemporaryDirectory() as name:
        root, (here, there) = Path(name), multiprocessing.Pipe()
        (root / "server").mkdir()
        server = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, root / "server"), daemon=True)
        server.start()
        address = f"http://127.0.0.1:{here.recv()}"
        record = Record(server.pid or 0)
        refused = _strangers(address)
        each = [
            threading.Thread(target=_visit, args=(i, address, root, record, requests // visitors, random.Random(seed + i)))
            for i in range(visitors)
        ]
        with work_bar("Requests") as update:
            for thread in each:
                thread.start()
            while any(thread.is_alive() for thread in each):
                update("Requests", len(record.memory), requests)
                time.sleep(0.5)
        opened = _open_many(address, root, record, images)
        strays = [p for p in root.rglob("evil.png") if not p.relative_to(root).match("server/diffae-studio-*/uploads/*/*")]
        os.kill(server.pid or 0, 15)
        server.join(60)
        left = [p for p in (root / "server").rglob("*") if p.is_file()]
    memory = np.array(record.memory[: len(record.memory) - len(opened)])
    after = memory[SETTLED:]
    grown = float(np.median(after[-SETTLED:]) - np.median(after[:SETTLED])) if len(after) > 2 * SETTLED else float("nan")
    halves = (opened[len(opened) // 2] - opened[0], opened[-1] - opened[len(opened) // 2])
    rows = [
        ["requests, visitors", f"{len(memory):,}, {visitors}"],
        ["of these", ", ".join(f"{n} {what}" for what, n in sorted(record.asked.items()))],
        [f"MiB after {SETTLED} requests; at the end; most", f"{memory[:SETTLED][-1]:.0f}; {memory[-1]:.0f}; {memory.max():.0f}"],
        ["MiB grown since then (medians of 100)", f"{grown:.1f}"],
        [f"MiB grown as one visitor opens {images // 2:,} images; as many more", f"{halves[0]:.1f}; {halves[1]:.1f}"],
        ["errors (HTTP 500, a traceback, an answer that is none)", str(len(record.errors))],
        ["images of another visitor", str(record.others)],
        ["bad uploads: refused in a sentence", f"{record.refused} of {record.asked['bad upload']}"],
        ["without the password: refused", f"{refused[0]} of {refused[1]} addresses"],
        ["uploads outside of their folder; files left at the end", f"{len(strays)}; {len(left)}"],
    ]
    text = f"# The studio under visitors\n\nn = {len(memory)}, seed {seed}, {machine()}.\n\n{table_markdown(['', ''], rows)}\n"
    errors = "".join(f"- {error}\n" for error in record.errors[:20])
    write_text(out, text + (f"\nErrors:\n\n{errors}" if errors else "") + f"\n![Memory of the server]({out.stem}.png)\n")

    def draw(axes: Any) -> None:
        axes.plot(memory, label="memory of the server")
        axes.axvline(SETTLED, color="0.7", linewidth=1, label="where it should be flat from")
        axes.set(xlabel="requests", ylabel="MiB", ylim=(0, None))

    save_png(plotted(draw), out.with_suffix(".png"))
    print(text)
    wrong = (record.errors, record.others, record.refused < record.asked["bad upload"], refused[0] < refused[1], strays, left)
    if any(wrong) or grown > MOST_GROWN or sum(halves) - MOST_BYTES / 2**20 > MOST_GROWN:
        sys.exit(1)


@dataclass
class Record:
    """What was seen, by all visitors.

    Attributes:
        server: its process.
        memory: MiB of the server after each request.
        asked: kinds of requests.
        errors: answers that should not have been.
        refused: bad uploads that were refused in a sentence.
        others: images that came back in another's colour.
    """

    server: int
    memory: list[float] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    refused: int = 0
    others: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, what: str, *, error: str | None = None, refused: bool = False, other: bool = False) -> None:
        lines = Path(f"/proc/{self.server}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
        with self.lock:
            self.memory.append(resident)
            self.asked[what] += 1
            self.refused += refused
            self.others += other
            if error is not None:
                self.errors.append(f"{what}: {error}")


def _serve(told: Connection, folder: Path) -> None:
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    warnings.simplefilter("ignore")
    from diffae.autoencoder import DiffusionAutoencoder
    from diffae.studio.app import reserve, serve
    from diffae.studio.workshop import Workshop

    torch.set_num_threads(1)
    torch.manual_seed(0)
    small: dict[str, Any] = dict(base_channels=8, channel_mult=(1, 2), blocks_per_level=1, attention_resolutions=())
    config = AutoencoderConfig(
        image_size=(16, 16), z_dim=8, unet=UNetConfig(embed_channels=16, **small), encoder=EncoderConfig(**small)
    )
    shop = Workshop(DiffusionAutoencoder(config).eval(), None, None, name="small")
    with reserve("127.0.0.1", 0) as port:
        serve(shop, port, password=PASSWORD, opened=lambda: told.send(port.getsockname()[1]))


def _open_many(address: str, root: Path, record: Record, images: int) -> list[float]:
    """MiB of the server after each of many images that one visitor opens."""
    from gradio_client import Client, handle_file

    client = Client(address, auth=("diffae", PASSWORD), verbose=False, download_files=root / "many")
    pixels, found = np.random.default_rng(0), len(record.memory)
    with work_bar("Images") as update:
        for i in range(images):
            Image.fromarray(pixels.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / "another.png")
            client.predict(handle_file(root / "another.png"), api_name="/open")
            record.note("image of many")
            update("Images", i + 1, images)
    return record.memory[found:]


def _strangers(address: str) -> tuple[int, int]:
    """How many of the addresses are closed to who has not logged in."""
    asked = ("info", "queue/data?session_hash=a", "file=/etc/hostname")
    sent = ("upload", "queue/join", "call/open", "run/open")
    paths = (f"{address}/config", *asked, *sent)
    with httpx.Client(base_url=f"{address}/gradio_api/") as client:
        answers = [client.post(path, json={}) if path in sent else client.get(path) for path in paths]
    return sum(a.status_code in (401, 403) for a in answers), len(paths)


def _bad(folder: Path, name: str) -> Path:
    """A file that is no image, whatever its name says."""
    content = {"text.png": b"no image", "empty.png": b"", "page.html": b"<html>404</html>", "array.npy": b"\x93NUMPY\x01\0"}
    file = folder / name
    if name == "bomb.png":
        Image.new("1", (20_000, 20_000)).save(file)
    elif name == "cut.png":
        Image.effect_noise((64, 64), 50).save(file)
        file.write_bytes(file.read_bytes()[:900])
    else:
        file.write_bytes(content[name])
    return file


def _visit(number: int, address: str, root: Path, record: Record, requests: int, chance: random.Random) -> None:
    from gradio_client import Client, handle_file

    folder = root / f"visitor-{number}"
    folder.mkdir()
    colour = tuple(np.random.default_rng(number).integers(0, 256, 3).tolist())
    own = folder / "own.png"
    Image.new("RGB", (16, 16), colour).save(own)
    bad = [_bad(folder, name) for name in BAD]
    client = Client(address, auth=("diffae", PASSWORD), verbose=False, download_files=folder / "answers")
    web = httpx.Client(base_url=address, timeout=60)
    web.post("/login", data={"username": "diffae", "password": PASSWORD})

    def is_own(file: str) -> bool:
        pixels = np.asarray(Image.open(file).convert("RGB"), dtype=int)
        return bool(np.abs(pixels - colour).max() <= 1)

    opened = False
    for _ in range(requests):
        what = chance.choices(
            ["open", "edit", "vary", "morph", "bad upload", "stranger's file", "odd name"], [4, 4, 2, 1, 3, 1, 1]
        )[0]
        what = what if opened or what != "edit" else "open"
        try:
            if what == "open":
                answer = client.predict(handle_file(own), api_name="/open")
                opened = True
                record.note(what, other=not is_own(answer[0]))
            elif what == "edit":
                answer = client.predict([], {}, api_name="/edit")
                record.note(what, other=not is_own(answer[0]))
            elif what == "vary":
                answer = client.predict(handle_file(own), 1, "fresh detail", number, api_name="/vary")
                record.note(what, other=not is_own(answer[0]["image"]))
            elif what == "morph":
                answer = client.predict([handle_file(own)] * 2, 2, api_name="/morph")
                record.note(what, error=None if len(answer) == 4 else f"{len(answer)} answers")
            elif what == "bad upload":
                with contextlib.suppress(AssertionError):
                    client.predict(handle_file(chance.choice(bad)), api_name="/open")
                    raise RuntimeError("a bad upload was opened")
            elif what == "stranger's file":
                path = chance.choice(["/etc/hostname", "../../../../etc/hostname", f"{root}/server/x", "/proc/self/environ"])
                status = web.get(f"/gradio_api/file={path}").status_code
                record.note(what, error=None if status in (403, 404) else f"HTTP {status} for {path}")
            else:
                name = chance.choice(
                    ["../../../evil.png", "/tmp/evil.png", "..\\evil.png", "a\nb.png", "名前.png", "x" * 300 + ".png"]
                )
                status = web.post("/gradio_api/upload", files={"files": (name, own.read_bytes(), "image/png")}).status_code
                record.note(what, error=None if status < 500 else f"HTTP {status} for {name[:20]!r}")
        except Exception as error:
            said = str(error)
            sentence = what == "bad upload" and " is " in said and "Traceback" not in said and str(root) not in said
            record.note(what, refused=sentence, error=None if sentence else f"{type(error).__name__}: {said[:200]}")
    web.close()


if __name__ == "__main__":
    tyro.cli(main)
