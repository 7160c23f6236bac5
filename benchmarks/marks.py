"""Plants marks on pictures, which become grey, at random, each in half of them and labelled: shortcuts for `audit.py`.

    python benchmarks/marks.py FOLDER --column pneumonia --out MARKED

Marks are those that pictures of clinics have: a token in a corner, a bar of text at the edge, a frame of the collimator, exposure,
and a patient who lies askew.
"""

import csv
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

MARKS = ("token", "bar", "frame", "bright", "tilted")


def main(source: tyro.conf.Positional[Path], column: str, out: Path, seed: int = 0) -> None:
    """Write the pictures and their labels.csv.

    Args:
        source: folder of pictures and their labels.csv, with a column `file`.
        column: of its labels that is kept.
        out: folder of the marked pictures.
        seed: of which get which marks.
    """
    rng = np.random.default_rng(seed)
    out.mkdir(parents=True)
    with (source / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (out / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", column, *MARKS])
        for row in rows:
            has = rng.random(len(MARKS)) < 0.5
            marked = _marked(Image.open(source / row["file"]).convert("L"), dict(zip(MARKS, has, strict=True)))
            Image.fromarray(marked.clip(0, 255).round().astype(np.uint8)).save(out / row["file"])
            table.writerow([row["file"], row[column], *has.astype(int)])


def _marked(image: Image.Image, has: dict[str, bool]) -> np.ndarray:
    w, h = image.size
    unit = max(1, h // 28)
    # Enlarged by a fifth, so that a tilted one reaches its corners, and the others alike.
    image = image.resize((6 * w // 5, 6 * h // 5), Image.Resampling.BICUBIC)
    if has["tilted"]:
        image = image.rotate(12, Image.Resampling.BICUBIC)
    left, top = (image.width - w) // 2, (image.height - h) // 2
    image = image.crop((left, top, left + w, top + h))
    x = np.asarray(image).astype(float)
    x = x * 1.3 + 12 if has["bright"] else x
    if has["frame"]:
        x[: 2 * unit], x[-2 * unit :], x[:, : 2 * unit], x[:, -2 * unit :] = 0, 0, 0, 0
    if has["token"]:
        x[3 * unit : 7 * unit, 3 * unit : 6 * unit] = 255
    if has["bar"]:
        x[h - 6 * unit : h - 4 * unit, w - 13 * unit : w - 4 * unit] = 225
    return x


if __name__ == "__main__":
    tyro.cli(main)
