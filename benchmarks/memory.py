"""The most memory that each command takes on many images: benchmarks/memory.md.

    python benchmarks/memory.py

The images are links to a few files, so that they take no room on the disk; networks are as small as they can be, so that what is
seen is what the number of images costs. Each command is a process of its own; nothing heavy is imported here, as a process begins
with its parent's peak.
"""

import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro
from PIL import Image

from diffae.evaluation.pages.page import table_markdown
from diffae.runtime.files import write_text

FILES = 64
"""Different images among all."""
SMALL = """--model.image-size 16 16 --model.z-dim 8 --model.unet.base-channels 8 --model.unet.channel-mult 1 2
--model.unet.embed-channels 8 --model.encoder.base-channels 8 --model.encoder.channel-mult 1 2 --training.batch-size 16"""
COMMANDS = {
    "train, and prepare the images": f"train images --preset avatars32 --out run --images 32 {SMALL}",
    "train, going on": f"train images --preset avatars32 --out run --images 64 {SMALL}",
    "encode": "encode run images --out codes.parquet",
    "fit-attributes": "fit-attributes run",
    "train-prior": "train-prior run --images 512 --training.batch-size 128",
    "train-prior --preset gaussian": "train-prior run --preset gaussian",
    "neighbours": "neighbours run images/0/0.png",
    "sample": "sample run --num 16",
    "reconstruct": "reconstruct run images/0/0.png",
    "manipulate": "manipulate run images/0/0.png --attribute A",
    "calibrate": "calibrate run --num 16",
    "evaluate, attributes": "evaluate run --suite attributes --num 64 --out page",
}


def main(images: int = 100_000, out: Path = Path("benchmarks/memory.md")) -> None:
    """Measure.

    Args:
        images: how many.
        out: where the table goes.
    """
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _write(root, images)
        environment = os.environ | {"DIFFAE_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"}
        for what, command in COMMANDS.items():
            began = time.monotonic()
            with (root / "log").open("w") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "diffae", *shlex.split(command)], cwd=root, env=environment, stdout=log, stderr=log
                )
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"{command}\n{(root / 'log').read_text()}")
            rows.append([what, f"{usage.ru_maxrss / 2**20:.2f}", f"{time.monotonic() - began:.0f}"])
            print(*rows[-1], sep="\t", flush=True)
    table = table_markdown(["", "GiB at most", "seconds"], rows)
    write_text(out, f"# Memory of each command\n\nn = {images:,} images, {platform.platform()}, one thread.\n\n{table}\n")


def _write(root: Path, images: int) -> None:
    """The images, a thousand in a folder, and their labels."""
    for i in range(FILES):
        (root / "files").mkdir(exist_ok=True)
        Image.effect_noise((16, 16), 20 + 2 * i).convert("RGB").save(root / "files" / f"{i}.png")
    names = [f"{i // 1000}/{i % 1000}.png" for i in range(images)]
    for i, name in enumerate(names):
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(root / "files" / f"{i % FILES}.png", root / "images" / name)
    rows = "".join(f"{name},{i % FILES % 2},{i % FILES}\n" for i, name in enumerate(names))
    write_text(root / "images" / "labels.csv", f"file,A,B\n{rows}")


if __name__ == "__main__":
    tyro.cli(main)
