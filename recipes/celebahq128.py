"""The paper's own protocol: a model of FFHQ at 128 x 128, tested on CelebA-HQ, beside a DDIM, two VAEs and two VQ-VAEs.

    python recipes/celebahq128.py ffhq256.lmdb celebahq256.lmdb CelebAMask-HQ-attribute-anno.txt --out runs/celebahq128 --plan
    python recipes/celebahq128.py ffhq256.lmdb celebahq256.lmdb CelebAMask-HQ-attribute-anno.txt --out runs/celebahq128

`--plan` prints the commands and what each costs, and runs nothing. Each command goes on where it stopped, so the recipe can be
started again at any time. With `--checkpoint` the authors' weights (`ffhq128_autoenc_latent/last.ckpt`) take the place of training
the autoencoder and its prior. `--images` trains on fewer than the paper's 130 million.

Costs are counted, not measured: 167 GFLOP an image forward (torch's counter; encoder 19, UNet 148), three times that in training,
at 35% of the 312 TFLOP/s that an NVIDIA A100 has in bfloat16: the autoencoder 165 hours of one A100, the DDIM 147, each of the four
others up to 18, tables 1 and 2 of 30,000 images 10, table 4 of 50,000 samples 10; 404 in all. On tiny data the tests run all of it;
at full size nobody has yet. The seed is 0.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

A100 = 0.35 * 312e12
"""FLOP a second."""
ENCODER, UNET, COMPARATOR = 19.0e9, 147.7e9, 18e9
"""FLOP of one forward pass, an image: of the preset ffhq128, and of the larger of its comparators."""
PAPER = 130_000_000


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        what: in words.
        arguments: of `diffae`.
        flop: that it takes.
    """

    what: str
    arguments: list[str]
    flop: float


def stages(ffhq: Path, celebahq: Path, attributes: Path, out: Path, *, images: int, checkpoint: Path | None) -> list[Stage]:
    """The commands in their order."""
    model, ddim = str(out / "ffhq128"), str(out / "ffhq128-ddim")
    commands = []

    def train(what: str, command: list[str], folder: str, flop: float) -> None:
        commands.append(Stage(what, [*command, "--images", str(images), "--out", folder], 3 * flop * images))

    if checkpoint is not None:
        commands.append(Stage("The authors' weights", ["import", str(checkpoint), "--out", model], 0))
    else:
        train("The autoencoder", ["train", str(ffhq), "--preset", "ffhq128"], model, ENCODER + UNET)
        prior = ["train-prior", model, "--preset", "latent10", "--images", str(images * 101 // 130)]
        commands.append(Stage("The latent prior", prior, ENCODER * 70_000 + 6 * 33e6 * images * 101 // 130))
    train("The plain DDIM", ["train", str(ffhq), "--preset", "ffhq128-ddim"], ddim, UNET)
    # As many latent values as z_sem has, 8 x 8 x 8; and those of Stable Diffusion, an eighth of the side with 4 channels, 1,024.
    against = []
    for kind in ("vae", "vq"):
        for size, channels, halvings in ((512, 8, 4), (1024, 4, 3)):
            beside = ["--preset", "ffhq128", "--kind", kind, "--latent-channels", str(channels), "--halvings", str(halvings)]
            against.append(str(out / f"{kind}-{size}"))
            train(f"A {kind} of {size:,} values", ["train-comparator", str(ffhq), *beside], against[-1], COMPARATOR)
    labelled = ["--data", str(celebahq), "--labels", str(attributes)]
    commands.append(Stage("Attributes", ["fit-attributes", model, *labelled], ENCODER * 30_000))
    tables = ["evaluate", model, "--protocol", "celebahq128", *labelled, "--ddim", ddim, "--comparators", *against]
    both_ways = 180 * (2 + 2 + 1)  # The autoencoder's and the DDIM's inversion and decoding, and random x_T.
    flop = UNET * both_ways * 30_000
    commands.append(Stage("Tables 1 and 2, figures 3 to 6, AUROC", [*tables, "--out", str(out / "celebahq128")], flop))
    samples = ["evaluate", model, "--protocol", "ffhq128", "--data", str(ffhq), "--ddim", ddim]
    commands.append(Stage("Table 4", [*samples, "--out", str(out / "generation")], UNET * 180 * 50_000 * 3))
    return commands


def run(arguments: Sequence[str]) -> None:
    """One command of diffae."""
    subprocess.run([sys.executable, "-m", "diffae", *arguments], check=True)


def main(
    ffhq: tyro.conf.Positional[Path],
    celebahq: tyro.conf.Positional[Path],
    attributes: tyro.conf.Positional[Path],
    out: Path = Path("runs/celebahq128"),
    images: int = PAPER,
    checkpoint: Path | None = None,
    plan: bool = False,
    run: tyro.conf.Suppress[Callable[[Sequence[str]], None]] = run,
) -> None:
    """Train what the paper compares, and measure its tables.

    Args:
        ffhq: FFHQ, as the authors' LMDB or a folder.
        celebahq: CelebA-HQ, likewise.
        attributes: CelebA-HQ's annotations.
        out: folder of the runs and the pages.
        images: budget of each training.
        checkpoint: the authors' weights in place of training.
        plan: print the commands and their cost, and run nothing.
        run: runs a command.
    """
    commands = stages(ffhq, celebahq, attributes, out, images=images, checkpoint=checkpoint)
    for stage in commands:
        print(f"{stage.what}: about {stage.flop / A100 / 3600:.3g} hours of an A100\n  diffae {' '.join(stage.arguments)}")
        if not plan:
            run(stage.arguments)
    print(f"In all about {sum(s.flop for s in commands) / A100 / 3600:.0f} hours of an A100.")


if __name__ == "__main__":
    tyro.cli(main)
