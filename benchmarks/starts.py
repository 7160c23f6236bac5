"""What a trained model's weights bring to a small set, and what augmentation does: held-out error over seconds, and KID of samples.

    python benchmarks/starts.py SET --num 200 --out runs/starts/SET
    python benchmarks/starts.py SET --num 100 --variants scratch "scratch, augmented" start "start, augmented" --out runs/small/SET

SET is a folder of images. Of those not held out, `--num` are trained on, the same for all. `start` begins with the weights of
`--model`, `scratch` with the same networks at random and the preset's own way to begin (a whitened z_sem). Seconds are of training
alone. A run that is finished is not repeated; OUT/starts.md, starts.png.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from beside import is_measured, measured_on, publish, spread, to_the_end
from torch import nn

import diffae
from diffae.autoencoder import DiffusionAutoencoder
from diffae.cli.bars import say, work_bar
from diffae.config import DataConfig, RunConfig, StartConfig
from diffae.config.presets import preset
from diffae.data import ImageSet, prepare
from diffae.evaluation.pages.page import table_markdown
from diffae.metrics.images import mse
from diffae.runtime.files import write_text
from diffae.semantics.prior import GaussianPrior
from diffae.semantics.standardizer import Standardizer
from diffae.training.health import Health
from diffae.training.run import Noted, Validated, resolve, train
from diffae.training.starting import trained_config
from diffae.training.subjects import ImageSubject

VARIANTS = ("scratch", "start", "scratch, augmented", "start, augmented")


def main(
    source: tyro.conf.Positional[str],
    out: Path,
    model: str = "models/avatars64",
    num: int = 200,
    size: int = 64,
    variants: tuple[str, ...] = VARIANTS[:2],
    seeds: tuple[int, ...] = (0, 1, 2),
    images: int = 10_000,
    every: int = 500,
    augment: float = 0.12,
    flip: bool = False,
    kid: int = 200,
) -> None:
    """Train, measure, and print the table.

    Args:
        source: the images.
        out: folder of the runs.
        model: to start from.
        num: images to train on.
        size: side of the images.
        variants: which of them.
        seeds: of each.
        images: of training.
        every: images between two measurements.
        augment: probability of each change, of those that are augmented.
        flip: whether training mirrors images.
        kid: samples whose KID is measured, by a Gaussian of the codes; 0 leaves it out.
    """
    config = preset("avatars64")
    networks = dataclasses.replace(trained_config(model), image_size=(size, size))
    data_config = DataConfig(source=source, flip=flip, validation=0.1)
    with work_bar("Images") as update:
        whole = prepare(data_config, size=(size, size), channels=networks.channels, progress=update)
    chosen = np.sort(np.random.default_rng(0).permutation(whole.train)[:num])
    data = dataclasses.replace(whole, train=chosen)
    for seed in seeds:
        for variant in variants:
            folder = out / f"{variant}, seed {seed}"
            asked = {"num": num, "size": size, "images": images, "augment": augment, "kid_of": kid}
            if is_measured(folder / "measured.json", **asked):
                continue
            starts = variant.startswith("start")
            training = dataclasses.replace(
                config.training, images=images, minutes=None, seed=seed, whitened_start=not starts, validate_every=every,
                checkpoint_every=10**9, sample_every=10**9, augment=augment if "augmented" in variant else 0.0,
            )  # fmt: skip
            start = StartConfig(model=str(Path(model).resolve()) if starts else None)
            run = resolve(dataclasses.replace(config, model=networks, data=data_config, training=training, start=start), folder)
            say(folder.name)
            points, told = points_of(Watched(run, data), folder)
            measured: dict[str, Any] = {"variant": variant, "seed": seed, "points": points, "told": told} | asked
            measured["kid"] = _kid(folder, data, whole, kid) if kid else None
            write_text(folder / "measured.json", json.dumps(measured) + "\n")
            say(f"  {points[-1]}, KID {measured['kid']}; {' '.join(told)}")
    publish(_table(out, data, size), out / "starts.md")
    _plot(out)


def points_of(subject: "Watched", run: Path) -> tuple[list[dict[str, float]], list[str]]:
    """Trains to the end. What is measured at validations, by processes before too, which a file beside the run keeps; and notes."""
    went_on = (run / "checkpoints").is_dir()
    file, told = run.with_name(f"{run.name}.points.json"), []
    points = {point["images"]: point for point in json.loads(file.read_text())} if went_on and file.is_file() else {}
    for event in to_the_end(train(subject, run)):
        if isinstance(event, Validated):
            points[event.images] = {"images": event.images, **subject.point}
            if went_on:  # How long it took in all nobody knows.
                points[event.images]["seconds"] = float("nan")
            write_text(file, json.dumps(list(points.values())) + "\n")
        elif isinstance(event, Noted):
            told.append(event.text)
    return sorted(points.values(), key=lambda point: point["images"]), told


class Watched(ImageSubject):
    """A run that measures the mean decode of held-out images at every validation, off its clock: `point`."""

    point: dict[str, float]

    def __init__(self, config: RunConfig, data: ImageSet) -> None:
        super().__init__(config, data)
        self._away, self._began = 0.0, time.monotonic()

    @torch.no_grad()
    def validate(self, ema: nn.Module) -> Health | None:
        arrived = time.monotonic()
        assert isinstance(ema, DiffusionAutoencoder)
        health = super().validate(ema)
        assert health is not None
        x = self._images(self.data.some(self.data.validation, 100), ema)
        self.point = {"loss": health.loss, "seconds": arrived - self._began - self._away}
        self.point["mean"] = mse(ema.decode_mean(ema.encode(x)), x)
        self._away += time.monotonic() - arrived
        return health


def _kid(run: Path, data: ImageSet, whole: ImageSet, num: int) -> float:
    """KID of samples against images that no run was trained on."""
    from diffae.frozen.weights import load_network
    from diffae.metrics.statistics import kernel_distance

    ae = diffae.load(str(run))
    z_sem = torch.cat([ae.encode(data.images(part)) for part in np.array_split(data.train, 8)])
    ae.standardizer = Standardizer.fit(z_sem)
    ae.prior = GaussianPrior(ae.z_dim).fit(ae.standardizer(z_sem))
    samples = ae.clamp(ae.sample(num, steps=10))
    rest = np.setdiff1d(np.arange(len(whole.names)), data.train)
    real = whole.images(np.random.default_rng(1).permutation(rest)[:num])
    network, _ = load_network("inception")
    with torch.no_grad():
        a, b = (torch.cat([network(_colour(p)) for p in x.split(25)]).numpy() for x in (real, samples))
    return kernel_distance(torch.from_numpy(a), torch.from_numpy(b))[0]


def _colour(x: torch.Tensor) -> torch.Tensor:
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x


def _runs(out: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(out.glob("*/measured.json"))]


def _table(out: Path, data: ImageSet, size: int) -> str:
    runs, rows = _runs(out), []
    final = {r["seed"]: r["points"][-1]["mean"] for r in runs if r["variant"] == "scratch"}
    for variant in VARIANTS:
        same = [r for r in runs if r["variant"] == variant]
        if not same:
            continue
        # The share of scratch's images after which this run was as good as scratch at its end.
        shares = []
        for r in same:
            reached = [p["images"] for p in r["points"] if r["seed"] in final and p["mean"] <= final[r["seed"]]]
            shares.append(reached[0] / r["points"][-1]["images"] if reached else float("nan"))
        lowest = [min(r["points"], key=lambda p: p["loss"]) for r in same]
        cells = [
            [r["points"][-1]["mean"] for r in same], shares, [p["loss"] for p in lowest], [p["images"] for p in lowest],
            [r["points"][-1]["loss"] for r in same], [r["kid"] for r in same if r["kid"] is not None],
            [r["points"][-1]["seconds"] for r in same],
        ]  # fmt: skip
        rows.append([variant, str(len(same)), *(spread(c) for c in cells)])
    header = [
        "", "seeds", "mean decode, MSE", "share of the images to scratch's last", "lowest held-out loss", "after images",
        "last held-out loss", "KID", "seconds",
    ]  # fmt: skip
    images = runs[0]["points"][-1]["images"] if runs else 0
    what = f"{len(data.train)} images to train on, {images:,} seen, {len(data.validation)} held out, {size} x {size}"
    return f"# {out.name}\n\n{what}; {measured_on()}. ± over seeds.\n\n{table_markdown(header, rows)}"


def _plot(out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    for axis, key, title in zip(axes, ("mean", "loss"), ("mean decode, held out, MSE", "held-out loss"), strict=True):
        for i, variant in enumerate(VARIANTS):
            for r in (r for r in _runs(out) if r["variant"] == variant):
                label = variant if r["seed"] == 0 else None
                axis.plot([p["images"] for p in r["points"]], [p[key] for p in r["points"]], color=f"C{i}", label=label)
        axis.set(xlabel="images seen", title=title, yscale="log")
        axis.legend()
    figure.tight_layout()
    figure.savefig(out / "starts.png", dpi=110)


if __name__ == "__main__":
    tyro.cli(main)
