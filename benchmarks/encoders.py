"""What a frozen network's features bring to z_sem: probe, mean decode and both codes, beside a z_sem that is all our own.

    python benchmarks/encoders.py SET --column digit --out runs/encoders

SET is a folder or a zip of images with a label table; `--column` is the kind that the probe tells. Each variant is trained for
as many images with each seed: `own` (512 values of our CNN), `frozen` (256 components of the network's features alone), `both`.
The probe's ceiling is one of the features themselves, its floor one of pixels. `--edits` moves held-out images to other kinds,
which a judge (a CNN on pixels, of another seed) has to see; LPIPS says how far the picture went. A run that is finished is not
repeated.
"""

import dataclasses
import json
import statistics
from pathlib import Path

import numpy as np
import torch
import tyro
from beside import is_measured, kinds_of, measured_on, publish, seconds_of, spread, to_the_end

import diffae
from diffae.cli.bars import say, work_bar
from diffae.config import DataConfig, FeaturesConfig
from diffae.config.presets import preset
from diffae.data import ImageSet, prepare
from diffae.evaluation.pages.figures import Encoded
from diffae.evaluation.pages.page import table_markdown
from diffae.evaluation.pages.tables import number
from diffae.frozen.perceptual import LPIPS
from diffae.metrics.images import mse
from diffae.metrics.judge import Judge, train_judge
from diffae.metrics.probe import principal_components
from diffae.runtime.files import write_text
from diffae.runtime.seeding import Draws
from diffae.semantics.fitting import fit_attributes
from diffae.training.features import features_of
from diffae.training.run import resolve, train
from diffae.training.subjects import ImageSubject

VARIANTS = ("own", "both", "frozen")
MEASURES = {
    "probe": "right, held out", "mean": "mean decode, MSE", "random": "random x_T, T = 10, MSE", "codes": "both codes (fast), MSE",
}  # fmt: skip


def main(
    source: tyro.conf.Positional[str],
    column: str,
    out: Path,
    name: str = "avatars32",
    network: str = "inception",
    variants: tuple[str, ...] = VARIANTS[:2],
    seeds: tuple[int, ...] = (0, 1, 2),
    images: int = 24_000,
    num: int = 200,
    flip: bool = False,
    validation: float = 0.1,
    edits: int = 0,
) -> None:
    """Train, measure, and print the table.

    Args:
        source: the images.
        column: of their labels, the one that the probe tells: a kind of 0, 1, 2 ...
        out: folder of the runs.
        name: preset.
        network: the frozen one.
        variants: which of them.
        seeds: of each.
        images: of training, the same for all: a step of each costs as much, since features are computed before.
        num: held-out images that are decoded.
        flip: whether training mirrors images.
        validation: share of the images that is held out.
        edits: images that are edited to each of the kinds.
    """
    config = preset(name)
    data_config = DataConfig(source=source, flip=flip, validation=validation)
    with work_bar("Images") as update:
        data = prepare(data_config, size=config.model.image_size, channels=config.model.channels, progress=update)
        features = features_of(data, FeaturesConfig(network=network), progress=update)[0]
    kinds = kinds_of(data, column)
    write_text(out / "floors.json", json.dumps(_floors(data, features, kinds)) + "\n")
    for seed in seeds:
        for variant in variants:
            folder = out / f"{variant}, seed {seed}"
            if is_measured(folder / "measured.json", images=images, n=min(num, len(data.validation))):
                continue
            parts = {"own": {}, "frozen": {"z_dim": 256}, "both": {"z_dim": 512, "learned": 256}}[variant]
            used = FeaturesConfig() if variant == "own" else FeaturesConfig(network=network)
            asked = {"z_dim": 512, "features": used, **parts}
            training = dataclasses.replace(
                config.training, images=images, minutes=None, seed=seed, validate_every=10**9, sample_every=10**9,
                checkpoint_every=10**9,
            )  # fmt: skip
            model = dataclasses.replace(config.model, **asked)  # type: ignore[arg-type]
            run = resolve(dataclasses.replace(config, model=model, data=data_config, training=training), folder)
            say(folder.name)
            with seconds_of(folder) as seconds:
                for _ in to_the_end(train(ImageSubject(run, data), folder)):
                    pass
            measured = _measured(folder, data, kinds, num) | {"variant": variant, "seed": seed}
            write_text(folder / "measured.json", json.dumps(measured | {"seconds": seconds()}) + "\n")
            say(json.dumps(measured))
    if edits:
        judge = _judge(data, kinds)
        for file in sorted(out.glob("*/measured.json")):
            if "lpips" not in (measured := json.loads(file.read_text())):
                measured |= _edited(file.parent, data, kinds, judge, edits)
                write_text(file, json.dumps(measured) + "\n")
                say(f"{file.parent.name}: {measured['flipped']:.3f} flipped, LPIPS {measured['lpips']:.4f}")
    publish(_table(out, len(data.train), len(data.validation)), out / "encoders.md")


def right(train: np.ndarray, test: np.ndarray, kinds: np.ndarray, data: ImageSet) -> float:
    """The share of held-out images whose kind a logistic regression of standardised features tells."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(train, kinds[data.train])
    return float((model.predict(test) == kinds[data.validation]).mean())


def _floors(data: ImageSet, features: np.ndarray, kinds: np.ndarray) -> dict[str, float]:
    x_train, x_test = (data.images(part).flatten(1).numpy() for part in (data.train, data.validation))
    pixels = principal_components(x_train, x_test)
    f_train, f_test = features[data.train], features[data.validation]
    reduced = principal_components(f_train, f_test, 256)
    mean_image = torch.from_numpy(x_train.mean(0))
    return {
        "pixels": right(*pixels, kinds, data),
        "features": right(f_train, f_test, kinds, data),
        "components": right(*reduced, kinds, data),
        "mean image": float((torch.from_numpy(x_test) - mean_image).square().mean()) / 4,
    }


def _measured(run: Path, data: ImageSet, kinds: np.ndarray, num: int) -> dict[str, float]:
    ae = diffae.load(str(run))
    x = data.images(data.some(data.validation, num))
    parts = x.split(50)
    z_sem = torch.cat([ae.encode(part) for part in parts])
    mean = torch.cat([ae.decode_mean(part) for part in z_sem.split(50)])
    x_T = Draws.of(len(z_sem), 0).normal("encoders", ae.image_shape)
    random = torch.cat([ae.decode(z, noise, steps=10) for z, noise in zip(z_sem.split(50), x_T.split(50), strict=True)])
    codes = torch.cat([ae.reconstruct(part, inversion="fast") for part in parts])
    train, held = (Encoded.of(ae, data, part, lambda *_: None).z_sem.numpy() for part in (data.train, data.validation))
    images = json.loads((run / "config.json").read_text())["training"]["images"]
    return {
        "probe": right(train, held, kinds, data), "mean": mse(mean, x), "random": mse(random, x),
        "codes": mse(codes, x), "images": images, "n": len(x),
    }  # fmt: skip


def _judge(data: ImageSet, kinds: np.ndarray) -> Judge:
    """A judge of all kinds, and what it knows of held-out images."""
    names = [f"{k:g}" for k in np.unique(kinds)]
    labels = torch.from_numpy(np.stack([kinds == k for k in np.unique(kinds)], 1)).float()
    with work_bar("Judge") as update:
        judge = train_judge(
            names,
            lambda i: data.images(data.train[i.numpy()]),
            labels[data.train],
            epochs=20,
            seed=17,
            flip=data.config.flip,
            progress=update,
        )
    held = torch.from_numpy(data.validation)
    right = (judge(data.images(data.validation)).argmax(1) == labels[held].argmax(1)).float().mean()
    say(f"The judge is right in {right:.3f} of {len(held)} held-out images")
    return judge


def _edited(run: Path, data: ImageSet, kinds: np.ndarray, judge: Judge, num: int) -> dict[str, float]:
    """Held-out images moved to a kind that they are not of, for each of the first four kinds: flips that the judge sees, LPIPS."""
    from diffae.frozen.weights import load_network

    ae = diffae.load(str(run))
    z_train, z_held = (Encoded.of(ae, data, part, lambda *_: None).z_sem for part in (data.train, data.validation))
    every = np.unique(kinds)
    labels, held = ({f"{k:g}": (kinds[part] == k).astype(float) for k in every} for part in (data.train, data.validation))
    groups = data.grouped(data.train)
    ae.attributes, _ = fit_attributes(z_train, labels, held_z_sem=z_held, held_labels=held, groups=groups)
    perceptual = load_network("alexnet")[0]
    assert isinstance(perceptual, LPIPS)
    flipped, far = [], []
    for k in every[:4]:
        chosen = data.some(data.validation[kinds[data.validation] != k], num)
        x, column = data.images(chosen), judge.names.index(f"{k:g}")
        moved = ae.clamp(ae.manipulate(x, f"{k:g}", target_probability=0.9))
        before, after = judge.decide(x)[:, column], judge.decide(moved)[:, column]
        flipped.append(float((after & ~before).float().sum() / (~before).float().sum()))
        with torch.no_grad():
            far.append(float(perceptual(x, moved).mean()))
    return {"flipped": statistics.mean(flipped), "lpips": statistics.mean(far)}


def _table(out: Path, trained_on: int, held_out: int) -> str:
    runs = [json.loads(file.read_text()) for file in sorted(out.glob("*/measured.json"))]
    floors = json.loads((out / "floors.json").read_text())

    keys = [*MEASURES, *(["flipped", "lpips"] if runs and all("lpips" in r for r in runs) else []), "images", "seconds"]
    groups = [same for variant in VARIANTS if (same := [r for r in runs if r["variant"] == variant])]
    rows = [[same[0]["variant"], str(len(same)), *(spread([r[key] for r in same]) for key in keys)] for same in groups]
    told = "; ".join(f"{name} {number(value)}" for name, value in floors.items())
    names = MEASURES | {"flipped": "edits seen", "lpips": "LPIPS of edits", "images": "images seen"}
    header = ["z_sem", "seeds", *(names.get(key, key) for key in keys)]
    what = f"{trained_on:,} images to train on, {held_out:,} held out, {runs[0]['n'] if runs else 0} of them decoded"
    head = f"# {out.name}\n\n{what}; {measured_on()}. ± over seeds. Probes of others, and errors: {told}."
    return f"{head}\n\n{table_markdown(header, rows)}"


if __name__ == "__main__":
    tyro.cli(main)
