"""Real pictures of many fields, one command: what z_sem tells of held-out images, and how near both codes come.

    python benchmarks/real.py SETS --out runs/real --minutes 12
    python benchmarks/real.py SETS --only hubble signs --seeds 0

SETS is the folder that the archives lie in. `pneumoniamnist.npz` and `breastmnist.npz` are MedMNIST's. `signs64.zip` and
`bloodcells64.zip` hold images and a `labels.csv`: `file`, what is told (`digit`; `cell`) and the group (`person`; `smear`). The
other .npz files hold `images` and an array for each label: `flycells3ch_48` (`labels`), `translocation2ch_64` (`labels`),
`hubble_32` (`flux`, `area`, `redness`, `ellipticity`), `coil20_32` (`labels`, `pose`). Of each set an autoencoder is
trained without labels; a linear model of standardised z_sem, as strong as cross-validation says, is fitted on the images that it
was trained on, and tells the others: of signs by person, of blood by smear, of MedMNIST the official test set, else at random.
Where there are persons or smears, cross-validation keeps each on one side too. Beside it stands the same linear model of principal
components of pixels. With `--changes "" frozen` half of z_sem is components of a frozen Inception's features, whose own linear
model stands beside it too. A run that is measured is not repeated, and one that was stopped goes on.
"""

import contextlib
import csv
import dataclasses
import json
import math
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from beside import is_measured, kinds_of, measured_on, publish, spread
from PIL import Image
from torch import Tensor

import diffae
from diffae.autoencoder import DiffusionAutoencoder
from diffae.cli.bars import say, work_bar
from diffae.cli.runs import show_training
from diffae.config import DataConfig, FeaturesConfig, RunConfig
from diffae.config.presets import preset
from diffae.data import ImageSet, prepare
from diffae.diffusion.interpolation import geodesic, lerp
from diffae.evaluation.pages.figures import Encoded
from diffae.evaluation.pages.page import table_markdown
from diffae.evaluation.posterior import predict_measurement
from diffae.evaluation.suites.bench import in_colour
from diffae.frozen.weights import load_network
from diffae.metrics.codes import compare_codes
from diffae.metrics.images import mse
from diffae.metrics.probe import principal_components
from diffae.metrics.statistics import kernel_distance
from diffae.pictures import save_png, scale_for, sheet
from diffae.runtime.files import write_text
from diffae.semantics.posterior import Posterior
from diffae.semantics.prior import GaussianPrior, KernelPrior, Prior
from diffae.semantics.standardizer import Standardizer
from diffae.training.features import features_of
from diffae.training.run import create_accelerator, resolve
from diffae.training.subjects import ImageSubject

Row = dict[str, Any]
"""Of one image: `file`, `image` (h, w) or (h, w, 3) of 8 bits, or (c, h, w) in [-1, 1], where the loss looks (`mask`, by default
everywhere), and its labels."""
COMPONENTS = 128
"""Of pixels, to compare with."""
FEW = 16
"""Numbers of a z_sem each of whose axes is drawn."""


@dataclass(frozen=True)
class Picked:
    """A set, and what is told of its images.

    Attributes:
        title: what it shows.
        credit: whose the images are, and the licence.
        rows: (folder of the archives) -> its images and labels.
        told: columns; of kinds in words or numbers their accuracy, of two of them the AUROC, of numbers R^2.
        measure: which of these.
        channels: of the images.
        flip: whether a mirrored image is as good a one.
        preset: of training.
        z_dim: of z_sem.
        beside: what others measured on it, in words.
        tested: the beginning of the names of those held-out images that are told, such as an official test set's; by default all.
        data: settings of the images.
        training: settings of training, where not the preset's.
        besides: what else is measured of the trained model.
    """

    title: str
    credit: str
    rows: Callable[[Path], Iterator[Row]]
    told: tuple[str, ...]
    measure: Literal["AUROC", "accuracy", "R²"]
    channels: int = 3
    flip: bool = True
    preset: str = "pictures32"
    z_dim: int = 512
    beside: str = ""
    tested: str = ""
    data: dict[str, Any] = field(default_factory=lambda: {"validation": 0.2})
    training: dict[str, Any] = field(default_factory=dict)
    besides: Callable[[DiffusionAutoencoder, ImageSet], dict[str, float]] = lambda ae, data: {}


def _medmnist(name: str) -> Callable[[Path], Iterator[Row]]:
    def rows(sets: Path) -> Iterator[Row]:
        with np.load(sets / f"{name}.npz") as file:
            for part in ("train", "val", "test"):
                for i, (image, label) in enumerate(zip(file[f"{part}_images"], file[f"{part}_labels"].reshape(-1), strict=True)):
                    yield {"file": f"{part}/{i:05d}.png", "image": image, "label": int(label)}

    return rows


def _zipped(name: str, column: str, group: str) -> Callable[[Path], Iterator[Row]]:
    def rows(sets: Path) -> Iterator[Row]:
        with zipfile.ZipFile(sets / f"{name}.zip") as archive:
            table = csv.DictReader(archive.read("labels.csv").decode().splitlines())
            for row in table:
                with archive.open(row["file"]) as file:
                    image = np.asarray(Image.open(file).convert("RGB"))
                # As a word, so that digits are kinds, not numbers.
                kind = f"{column[0]}{row[column]}" if row[column].isdecimal() else row[column]
                yield {"file": Path(row["file"]).with_suffix(".png"), "image": image, column: kind, "group": row[group]}

    return rows


def _arrays(name: str, columns: dict[str, Callable[[Any, int], Any]], image: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Of an archive of `images` and arrays beside them: column -> its value of image i."""

    def rows(sets: Path) -> Iterator[Row]:
        with np.load(sets / f"{name}.npz") as file:
            arrays = dict(file)
        for i, pixels in enumerate(arrays["images"]):
            made = image(pixels)
            suffix = "npy" if made.dtype == np.float32 else "png"
            yield {"file": f"{i:05d}.{suffix}", "image": made, **{key: value(arrays, i) for key, value in columns.items()}}

    return rows


def _over_mean(pixels: np.ndarray) -> np.ndarray:
    """Channels divided by their means, so that how bright a well was says nothing; 0 to 12 times the mean in [-1, 1]."""
    relative = pixels / pixels.mean((1, 2), keepdims=True)
    return (relative.clip(0, 12) / 6 - 1).astype(np.float32)


def _disc(side: int, radius: int) -> np.ndarray:
    """255 within a radius of the middle: other galaxies around it need no numbers."""
    place = np.arange(side) - (side - 1) / 2
    return np.where(place[:, None] ** 2 + place**2 <= radius**2, 255, 0).astype(np.uint8)


def _turned(sets: Path) -> Iterator[Row]:
    """Twenty objects on a turntable; every second view, of 10 degrees, is held out."""
    with np.load(sets / "coil20_32.npz") as file:
        for image, kind, pose in zip(file["images"], file["labels"], file["pose"], strict=True):
            part = "train" if pose % 10 == 0 else "test"
            yield {"file": f"{part}/{kind:02d}-{pose:03d}.png", "image": image, "object": f"o{kind}"}


def _between(ae: DiffusionAutoencoder, data: ImageSet) -> dict[str, float]:
    """PSNR, of the mean squared error, of the middle between two views of an object beside the view that lies there, held out: both
    codes interpolated, z_sem alone, that on the way past training codes, and pixels."""
    index = {Path(name).stem: i for i, name in enumerate(data.names)}
    with work_bar("Encoding") as update:
        known = Encoded.of(ae, data, data.train, update).z_sem
    found = {}
    for degrees in (5, 20):
        pairs = []
        for i in data.validation:
            kind, pose = Path(data.names[i]).stem.split("-")
            pairs.append([i, *(index[f"{kind}-{(int(pose) + turn) % 360:03d}"] for turn in (-degrees, degrees))])
        middle, left, right = (data.images(np.array(rows)) for rows in zip(*pairs, strict=True))
        made: dict[str, list[Tensor]] = {"both codes": [], "z_sem alone": [], "z_sem past codes": [], "pixels": []}
        for a, b in zip(left.split(64), right.split(64), strict=True):
            made["both codes"].append(ae.interpolate(a, b, (0.5,))[:, 0])
            ends = ae.encode(a), ae.encode(b)
            made["z_sem alone"].append(ae.decode_mean(lerp(*ends, 0.5)))
            made["z_sem past codes"].append(ae.decode_mean(geodesic(*ends, known, (0.5,))[:, 0]))
            made["pixels"].append((a + b) / 2)
        for name, parts in made.items():
            found[f"PSNR at {degrees} degrees: {name}"] = -10 * math.log10(mse(torch.cat(parts), middle))
    return found


def _posteriors(ae: DiffusionAutoencoder, data: ImageSet) -> dict[str, float]:
    """R^2 of the posterior's mean, and the share of held-out numbers in its intervals of .9."""
    with work_bar("Encoding") as update:
        train, held = (Encoded.of(ae, data, part, update).z_sem for part in (data.train, data.validation))
    found: dict[str, float] = {}
    for column, y in data.labels.items():
        posterior = Posterior(train, y[data.train], groups=data.grouped(data.train))
        result = predict_measurement(posterior, column, held, y[data.validation], share=0.9)
        found |= {f"posterior: {column}": float(result.r2 or 0), f"within .9: {column}": result.covered[0.9]}
    return found


SETS = {
    "pneumonia": Picked(
        "chest X-rays, children; normal or pneumonia",
        "MedMNIST v2 (Yang et al. 2023), CC BY 4.0", _medmnist("pneumoniamnist"), ("label",), "AUROC", 1, flip=False,
        beside="A supervised ResNet-18 has .944 (Yang et al. 2023, MedMNIST v2)", tested="test/", data={"validation": "published"},
    ),
    "breast": Picked(
        "ultrasound of breasts; malignant or not",
        "MedMNIST v2 (Yang et al. 2023), CC BY 4.0", _medmnist("breastmnist"), ("label",), "AUROC", 1,
        beside="A supervised ResNet-18 has .901 (Yang et al. 2023, MedMNIST v2)", tested="test/", data={"validation": "published"},
    ),
    "signs": Picked("hands, digits of a sign language; by person",
        "Sign Language Digits Dataset, Apache-2.0", _zipped("signs64", "digit", "person"), ("digit",), "accuracy"),
    "blood": Picked("cells of blood smears, 3 kinds; by smear",
        "BCCD, MIT", _zipped("bloodcells64", "cell", "smear"), ("cell",), "accuracy"),
    "flycells": Picked(
        "cells of flies, three dyes; which of three wells",
        "CellProfiler's ExampleFly, BSD-3",
        _arrays("flycells3ch_48", {"well": lambda a, i: f"w{a['labels'][i]}"}, lambda x: x.transpose(1, 2, 0)),
        ("well",), "accuracy",
    ),
    "translocation": Picked(
        "human cells, a protein in the nucleus or around it; channels over their means",
        "BBBC014 (Ljosa et al. 2012), CC BY 3.0",
        _arrays("translocation2ch_64", {"label": lambda a, i: int(a["labels"][i])}, _over_mean), ("label",), "AUROC", 2,
    ),
    "hubble": Picked(
        "galaxies of a deep field; five numbers of what lies within 9 pixels of the middle, while components are of all pixels",
        "NASA/ESA, Hubble Extreme Deep Field, public domain",
        _arrays(
            "hubble_32",
            {
                "log flux": lambda a, i: f"{np.log(a['flux'][i]):.6f}", "log area": lambda a, i: f"{np.log(a['area'][i]):.6f}",
                "redness": lambda a, i: f"{a['redness'][i]:.6f}", "ellipticity": lambda a, i: f"{a['ellipticity'][i]:.6f}",
                "mask": lambda a, i: _disc(32, 9),
            },
            lambda x: x,
        ),
        ("log flux", "log area", "redness", "ellipticity"), "R²", preset="numbers32", z_dim=5,
        training={"contrast": 0.03, "views": "direction"}, besides=_posteriors,
    ),
    "coil": Picked(
        "objects on a turntable, every second view held out; at 20 degrees the two ends are held out too",
        "COIL-20 (Nene et al. 1996), for research: not shown", _turned, ("object",),
        "accuracy", 1, flip=False, data={"validation": "published"}, besides=_between,
    ),
}  # fmt: skip


def _changed(**training: Any) -> Callable[[RunConfig], RunConfig]:
    return lambda c: dataclasses.replace(c, training=dataclasses.replace(c.training, **training))


CHANGES: dict[str, Callable[[RunConfig], RunConfig]] = {
    "": lambda c: c,
    "plain": _changed(contrast=0.0, views="moment"),
    "contrast.01": _changed(contrast=0.01),
    "contrast.1": _changed(contrast=0.1),
    "shift": _changed(contrast=0.0, encoder_shift=0.1),
    "augment": _changed(contrast=0.0, augment=0.12),
    "rate": _changed(contrast=0.0, encoder_rate=0.5),
    "mean": lambda c: dataclasses.replace(c, model=dataclasses.replace(c.model, mean_decoder=True)),
    "frozen": lambda c: dataclasses.replace(
        c, model=dataclasses.replace(c.model, features=FeaturesConfig(network="inception"), learned=(c.model.z_dim or 0) // 2)
    ),
}
"""What may be changed in training, by name."""


def main(
    sets: tyro.conf.Positional[Path],
    out: Path = Path("runs/real"),
    only: tuple[str, ...] = tuple(SETS),
    seeds: tuple[int, ...] = (0, 1, 2),
    minutes: float = 12.0,
    images: int | None = None,
    changes: tuple[str, ...] = ("",),
    num: int = 128,
    samples: int = 0,
    page: Path | None = None,
) -> None:
    """Train, measure, and print the table.

    Args:
        sets: the folder of the archives.
        out: folder of the runs.
        only: which sets: pneumonia, breast, signs, blood, flycells, translocation, hubble, coil.
        seeds: of each.
        minutes: of training.
        images: of training, in place of minutes.
        changes: what is changed in training, a run of each: plain, contrast.01, contrast.1, shift, augment, rate, mean, frozen.
        num: held-out images that are decoded.
        samples: images that are sampled and compared with autoencoded ones; with 0 none are.
        page: where the table and its pictures go; by default OUT/results.md.
    """
    for name in only:
        picked = SETS[name]
        folder = out / name
        if not (folder / "images/labels.csv").is_file():
            write_images(picked.rows(sets), folder / "images")
        for seed in seeds:
            for change in changes:
                run = folder / f"{change or 'preset'}-{seed}"
                if not is_measured(run / "measured.json", images=images, num=num, samples=samples):
                    config = CHANGES[change](_config(picked, folder / "images", seed, minutes, images))
                    _trained(config, run, picked, num, samples)
    publish(_page(out, only, changes, seeds, page or out / "results.md"), page or out / "results.md")


def _config(picked: Picked, images: Path, seed: int, minutes: float, budget: int | None) -> RunConfig:
    base, masks = preset(picked.preset), images.with_name("masks")
    model = dataclasses.replace(base.model, channels=picked.channels, z_dim=picked.z_dim)
    data = DataConfig(source=str(images), flip=picked.flip, mask=str(masks) if masks.is_dir() else None, **picked.data)
    training = dataclasses.replace(base.training, **picked.training, seed=seed, sample_every=10**9)
    training = dataclasses.replace(training, minutes=None if budget else minutes, images=budget)
    return dataclasses.replace(base, model=model, data=data, training=training)


def _trained(config: RunConfig, run: Path, picked: Picked, num: int, samples: int) -> None:
    """Trains a run to its end and writes measured.json."""
    started = time.monotonic()
    config = resolve(config, run)
    with work_bar("Images") as update:
        data = prepare(config.data, size=config.model.image_size, channels=picked.channels, progress=update)
    say(str(run))
    # What a run took that was stopped in between, nobody knows.
    began = float("nan") if (run / "checkpoints").is_dir() else time.monotonic()
    show_training(ImageSubject(config, data), run, create_accelerator(), what="images")
    seconds = time.monotonic() - began
    ae = diffae.load(str(run))
    assert isinstance(ae, DiffusionAutoencoder)
    measured = told(ae, data, picked) | pictured(ae, data, run, num) | picked.besides(ae, data)
    if samples:
        measured |= sampled(ae, data, samples)
    budget = json.loads((run / "config.json").read_text())["training"]["images"]
    measured |= {"images": budget, "num": num, "samples": samples}
    measured |= {"training": seconds, "all": time.monotonic() - started}
    write_text(run / "measured.json", json.dumps(measured) + "\n")
    say(json.dumps(measured))


def write_images(rows: Iterator[Row], folder: Path) -> None:
    """Images as files, and the table of their labels; masks beside the folder. All of it or nothing, as another process may be
    about to read it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as part:
        _write_images(rows, Path(part) / folder.name)
        for made in sorted(Path(part).iterdir(), reverse=True):  # Masks first.
            with contextlib.suppress(OSError):  # Another process was quicker.
                made.rename(folder.with_name(made.name))


def _write_images(rows: Iterator[Row], folder: Path) -> None:
    table = []
    for row in rows:
        file, image = folder / row["file"], row["image"]
        file.parent.mkdir(parents=True, exist_ok=True)
        if "mask" in row:
            save_png(Image.fromarray(row.pop("mask")), folder.with_name("masks") / row["file"])
        if file.suffix == ".npy":
            np.save(file, image)
        else:
            Image.fromarray(image).save(file)
        table.append({key: value for key, value in row.items() if key != "image"})
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def told(ae: DiffusionAutoencoder, data: ImageSet, picked: Picked) -> dict[str, float]:
    """What z_sem tells of held-out images, and principal components of their pixels beside it; effective dimensions of z_sem."""
    test = np.array([i for i in data.validation if data.names[i].startswith(picked.tested)])
    with work_bar("Encoding") as update:
        z = [Encoded.of(ae, data, part, update).z_sem for part in (data.train, test)]
    pixels = [data.images(part).flatten(1).numpy() for part in (data.train, test)]
    variances = torch.linalg.eigvalsh(torch.cov(z[1].T.double()))
    found = {"dimensions": float(variances.sum() ** 2 / variances.square().sum()), "tested": float(len(test))}
    groups = data.grouped(data.train)
    known = {"z_sem": [part.numpy() for part in z], "pixels": principal_components(pixels[0], pixels[1], COMPONENTS)}
    if ae.config.features.network is not None:
        with work_bar("Features") as update:
            features = features_of(data, ae.config.features, progress=update)[0]
        known["features"] = features[data.train], features[test]
    for name, (fit, held) in known.items():
        for column in picked.told:
            y = kinds_of(data, column)
            found[f"{name}: {column}"] = _score(fit, y[data.train], groups, held, y[test], picked.measure)
    return found


def _score(fit: np.ndarray, y: np.ndarray, groups: Any, held: np.ndarray, y_held: np.ndarray, measure: str) -> float:
    """Of a linear model of standardised features, of the strength that cross-validation finds, which keeps groups together."""
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.metrics import r2_score, roc_auc_score
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    parts = None if groups is None else list(GroupKFold(5).split(fit, y, groups))
    if measure == "R²":
        ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=[10.0**i for i in range(-3, 5)], cv=parts)).fit(fit, y)
        return float(r2_score(y_held, ridge.predict(held)))
    logistic = LogisticRegressionCV(
        Cs=[1e-3, 1e-2, 1e-1, 1.0], l1_ratios=(0,), cv=parts or 5, max_iter=500, scoring="neg_log_loss", use_legacy_attributes=False
    )
    model = make_pipeline(StandardScaler(), logistic).fit(fit, y)
    if measure == "AUROC":
        return float(roc_auc_score(y_held, model.predict_proba(held)[:, 1]))
    return float((model.predict(held) == y_held).mean())


def pictured(ae: DiffusionAutoencoder, data: ImageSet, run: Path, num: int) -> dict[str, float]:
    """Squared errors of held-out images, where they count, decoded from z_sem and x_T, from z_sem alone and with noise, and their
    picture."""
    chosen = np.random.default_rng(0).permutation(data.validation)[:num]
    x, known = data.images(chosen), data.counted(chosen)

    def each(make: Callable[[range], Tensor]) -> Tensor:
        return torch.cat([make(range(i, min(i + 32, len(x)))) for i in range(0, len(x), 32)])

    z_sem = each(lambda part: ae.encode(x[part.start : part.stop]))
    mean = each(lambda part: ae.decode_mean(z_sem[part.start : part.stop], start=part.start))
    both = each(lambda part: ae.reconstruct(x[part.start : part.stop], inversion="fast"))
    noisy = each(lambda part: ae.decode(z_sem[part.start : part.stop], seed=0, start=part.start))
    shown = {"held out": x, "z_sem and x_T": both, "z_sem alone": mean, "with noise": noisy}
    # What the loss leaves out is drawn at random by z_sem alone: it is shown in black.
    pictures = [
        ae.to_pictures(part[:12] if known is None else torch.where(known[:12] > 0, part[:12], -1)) for part in shown.values()
    ]
    save_png(sheet(pictures, scale=scale_for(pictures[0], 64), names=list(shown)), run / "pictures.png")
    if ae.z_dim <= FEW:
        save_png(_axes(ae, x[:64], known), run / "axes.png")
    counts = torch.ones_like(x) if known is None else known.expand_as(x)
    errors = {
        name: float(((made - x).square() * counts).sum() / counts.sum()) / 4
        for name, made in (("both", both), ("mean", mean), ("noise", noisy))
    }
    return errors | {"n": float(len(x))}


def _axes(ae: DiffusionAutoencoder, x: Tensor, known: Tensor | None) -> Image.Image:
    """What each principal direction of z_sem does: a row each, from two standard deviations below the mean code to two above."""
    z = ae.encode(x)
    center = z.mean(0)
    _, singular, axes = torch.linalg.svd(z - center, full_matrices=False)
    steps = torch.linspace(-2, 2, 9)
    rows = [
        ae.decode_mean(center + steps[:, None] * (size / len(z) ** 0.5) * axis) for size, axis in zip(singular, axes, strict=True)
    ]
    rows = [ae.to_pictures(row if known is None else torch.where(known[:1] > 0, row, -1)) for row in rows]
    return sheet(rows, scale=scale_for(rows[0], 64), names=[f"axis {i + 1}" for i in range(len(rows))])


def sampled(ae: DiffusionAutoencoder, data: ImageSet, num: int) -> dict[str, float]:
    """Samples of the priors that need no training: how well they are told from held-out codes, precision and recall, and KID of
    their images beside held-out ones; and KID of autoencoded training images, below which no prior comes."""
    with work_bar("Encoding") as update:
        train, held = (Encoded.of(ae, data, part, update).z_sem for part in (data.train, data.validation))
    standardizer, network = Standardizer.fit(train), load_network("inception")[0]

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        return torch.cat([network(in_colour(ae.to_pictures(part))) for part in images.split(32)])

    def drawn(z_sem: Tensor) -> Tensor:
        return features(torch.cat([ae.decode(z_sem[i : i + 32], seed=1, start=i) for i in range(0, num, 32)]))

    chosen = np.random.default_rng(1).permutation(len(data.train))[:num]
    real = features(data.images(data.some(data.validation, 2 * num)))
    found = {"KID: autoencoded": kernel_distance(drawn(train[chosen]), real)[0]}
    z = standardizer(train)
    priors: dict[str, Prior] = {"Gaussian": GaussianPrior(ae.z_dim).fit(z), "kernel": KernelPrior.of(z)}
    for name, prior in priors.items():
        made = prior.sample(max(num, len(held)))
        codes = compare_codes(made, standardizer(held))
        found |= {f"told: {name}": max(codes["auroc"], 1 - codes["auroc"])}
        found |= {f"{key}: {name}": codes[key] for key in ("precision", "recall")}
        found[f"KID: {name}"] = kernel_distance(drawn(standardizer.inverse(made[:num])), real)[0]
    return found


def _page(out: Path, only: tuple[str, ...], changes: tuple[str, ...], seeds: tuple[int, ...], page: Path) -> str:
    """A table of all runs that are there, and of each set the pictures of its first one, copied beside the page."""
    header = [
        "set",
        "",
        "seeds",
        "tested",
        "z_sem",
        "pixels",
        "frozen features",
        "both codes, MSE",
        "z_sem alone, MSE",
        "dimensions",
        "images seen",
        "minutes",
    ]
    rows, sections = [], []
    for name in only:
        picked, shown = SETS[name], ""
        for change in changes:
            files = [out / name / f"{change or 'preset'}-{seed}" / "measured.json" for seed in seeds]
            files = [file for file in files if file.is_file()]
            runs = [json.loads(file.read_text()) for file in files]
            if not runs:
                continue
            shown = shown or ("" if "not shown" in picked.credit else _pictures(files[0].parent, name, picked, page))
            for column in picked.told:
                of = f"{name}, {picked.measure} of {column}"
                known = [[run.get(f"{what}: {column}") for run in runs] for what in ("z_sem", "pixels", "features")]
                cells = ["" if None in values else spread(values) for values in known]
                cells += [spread([run[key] for run in runs]) for key in ("both", "mean", "dimensions")]
                cells[:0] = [" or ".join(sorted({f"{run['tested']:,.0f}" for run in runs if "tested" in run}))]
                cells += [
                    " or ".join(sorted({f"{run['images']:,}" for run in runs})),
                    f"{statistics.mean(run['training'] for run in runs) / 60:.1f}",
                ]
                rows.append([of, change, str(len(runs)), *cells])
            more = {key: spread([run[key] for run in runs]) for key in runs[0] if ": " in key and all(key in run for run in runs)}
            more = {key: value for key, value in more.items() if not key.startswith(("z_sem: ", "pixels: ", "features: "))}
            if more:
                title = f"also, {change}" if change else "also"
                shown += f"\n\n{table_markdown([title, ''], [list(pair) for pair in more.items()])}"
        if shown:
            beside = f" {picked.beside}." if picked.beside else ""
            sections.append(
                f"## {name}\n\n{picked.title[0].upper()}{picked.title[1:]}.{beside} Images: {picked.credit}.\n\n{shown}"
            )
    head = (
        "# Real pictures\n\nA linear model of z_sem, and one of 128 principal components of pixels, on images that neither has "
        f"seen; ± over seeds. {measured_on()}.\n\n"
    )
    return head + table_markdown(header, rows) + "\n\n" + "\n\n".join(sections)


def _pictures(run: Path, name: str, picked: Picked, page: Path) -> str:
    """The pictures of a run, beside the page that shows them."""
    found = []
    for file, what in {
        "pictures.png": picked.title,
        "axes.png": "each axis of z_sem, from two standard deviations below to above",
    }.items():
        if (run / file).is_file():
            picture = page.parent / "pictures" / f"real-{name}{'' if file == 'pictures.png' else '-axes'}.png"
            save_png(Image.open(run / file), picture)
            found.append(f"![{what}]({picture.relative_to(page.parent)})")
    return "\n\n".join(found)


if __name__ == "__main__":
    tyro.cli(main)
