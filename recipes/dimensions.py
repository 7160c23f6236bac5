"""How many numbers z_sem needs: the ablation of the paper's table 2, b to e. The same training for each d, and their tables.

    python recipes/dimensions.py avatars --out runs/dimensions
    python recipes/dimensions.py ffhq256.lmdb --preset ffhq128 --dims 64 128 256 512 --images 48000000 --steps 10 20 50 100

The first line is for two processor cores; the second is the paper's, 4 x 61 hours of an NVIDIA A100 (counted as in
`celebahq128.py`), and nobody has run it with this package. Every command goes on where it stopped.

Reached with the first line (12,000 avatars, 20,000 images each, seed 0, one thread of an Intel Xeon, 7 minutes a training;
`--num 300`), d = 16, 32, 64, 128: MSE from z_sem with random x_T at T = 10 .0201, .0175, .0159, .0153; of the mean decode .0132,
.0116, .0104, .0101; SSIM with random x_T .457, .490, .522, .536.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro


def run(arguments: Sequence[str]) -> None:
    """One command of diffae."""
    subprocess.run([sys.executable, "-m", "diffae", *arguments], check=True)


def main(
    data: tyro.conf.Positional[str],
    out: Path = Path("runs/dimensions"),
    preset: str = "avatars32",
    dims: tuple[int, ...] = (16, 32, 64, 128),
    images: int = 20_000,
    avatars: int = 12_000,
    num: int = 500,
    steps: tuple[int, ...] = (10,),
    run: tyro.conf.Suppress[Callable[[Sequence[str]], None]] = run,
) -> None:
    """Train an autoencoder for each dimension, evaluate its reconstructions, and compare.

    Args:
        data: the images, or the name `avatars`.
        out: folder of the runs and of the comparison, `compare.html`.
        preset: what is trained.
        dims: of z_sem.
        images: budget of each training.
        avatars: number of avatars, where the data are these.
        num: held-out images that are reconstructed.
        steps: network calls of the decoder.
        run: runs a command.
    """
    pages = []
    for d in dims:
        budget = ["--images", str(images), "--data.avatars", str(avatars), "--model.z-dim", str(d)]
        run(["train", data, "--preset", preset, *budget, "--out", str(out / f"d{d}")])
        page = str(out / f"evaluation d = {d}")
        measured = ["--num", str(num), "--steps", *map(str, steps)]
        run(["evaluate", str(out / f"d{d}"), "--suite", "reconstruction", *measured, "--out", page])
        pages.append(page)
    run(["compare", *pages, "--out", str(out)])


if __name__ == "__main__":
    tyro.cli(main)
