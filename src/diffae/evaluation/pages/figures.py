"""The pictures of a report: what the two codes do, one idea each."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.data.dataset import ImageSet
from diffae.diffusion.ddim import DDIM
from diffae.metrics.probe import small_pixels
from diffae.pictures import scale_for, sheet
from diffae.semantics.fitting import fit_few

Progress = Callable[[str, int, int], None]
STEPS = 20
"""Solver steps of pictures."""
CHUNK = 256
"""Images that are looked at together, where all are."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture of the report.

    Attributes:
        name: of its PNG file.
        title: heading.
        text: what to see in it.
        picture: the picture.
    """

    name: str
    title: str
    text: str
    picture: Image.Image


def mean_image(data: ImageSet, indices: np.ndarray) -> Float[Tensor, "c *sides"]:
    """The mean of some images, a chunk at a time."""
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    return (torch.stack([data.images(chunk).double().sum(0) for chunk in chunks]).sum(0) / len(indices)).float()


@dataclass(frozen=True, slots=True)
class Encoded:
    """z_sem and small pixels of a part of the images."""

    z_sem: Tensor
    pixels: np.ndarray

    @classmethod
    def of(cls, ae: DiffusionAutoencoder, data: ImageSet, indices: np.ndarray, progress: Progress) -> "Encoded":
        codes, pixels = [torch.empty(0, ae.z_dim)], []
        for start in range(0, len(indices), 128):
            x = data.images(indices[start : start + 128])
            codes.append(ae.encode(x))
            pixels.append(small_pixels(x))
            progress("Encoding images", start + len(x), len(indices))
        return cls(torch.cat(codes), np.concatenate(pixels) if pixels else np.empty((0, 1)))


def plotted(draw: Callable[[Any], None]) -> Image.Image:
    """A plot, of what `draw` draws into the axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.2), dpi=160, layout="constrained")
    draw(axes)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return Image.open(buffer).convert("RGB")


def loss_curve(run: Path) -> Figure:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train = [(m["images"], m["loss"]) for m in lines if "loss" in m]
    held = [(m["images"], m["validation/loss"], m["validation/shuffled_loss"]) for m in lines if "validation/loss" in m]

    def draw(axes: Any) -> None:
        axes.plot(*zip(*train, strict=True), color="#b8c4d6", linewidth=0.8, label="training, one batch each")
        if held:
            images, loss, shuffled = zip(*held, strict=True)
            axes.plot(images, loss, "o-", color="#1f5fbf", markersize=3, label="held out")
            axes.plot(images, shuffled, "o-", color="#d9722e", markersize=3, label="held out, z_sem of another image")
            axes.set_ylim(0, max(shuffled) * 1.15)
        axes.set(xlabel="images seen", ylabel="loss")

    text = (
        "The gap between the held-out curves is what z_sem tells the decoder. If they lay on each other, z_sem would not be used."
    )
    return Figure("loss", "Training", text, plotted(draw))


def reconstruction_figure(x: Tensor, made: list[Tensor]) -> Figure:
    text = (
        "Rows: held-out images; made of both codes; of z_sem with random noise; of z_sem alone, by one network call "
        "(the mean of all images with that z_sem, therefore blurred); the nearest training image."
    )
    picture = sheet([x[:12], *[y[:12] for y in made[:4]]], scale=scale_for(x))
    return Figure("reconstructions", "Two codes, one image", text, picture)


def swap_figure(ae: DiffusionAutoencoder, x: Tensor, z_sem: Tensor) -> Figure:
    x, z_sem = x[:8], z_sem[:8]
    swapped = ae.render(ae.infer(x, inversion="fast", steps=STEPS), z_sem=z_sem.roll(-1, dims=0))
    text = (
        "Top: images whose x_T is kept. Middle: images whose z_sem is taken. Bottom: the two together. Where the bottom row "
        "looks like the middle one, z_sem holds the meaning."
    )
    return Figure("swap", "With another image's z_sem", text, sheet([x, x.roll(-1, dims=0), swapped], scale=scale_for(x)))


def variation_figure(ae: DiffusionAutoencoder, x: Tensor) -> Figure:
    varied = ae.vary(x[:4], num=9, steps=STEPS, seed=1)
    rows = [torch.cat([image[None], row]) for image, row in zip(x[:4], varied, strict=True)]
    text = "Left: the image. Then its z_sem, each time with fresh noise: what stays is in z_sem, what changes was in x_T."
    return Figure("variations", "One z_sem, many x_T", text, sheet(rows, scale=scale_for(x)))


def interpolation_figure(model: DiffusionAutoencoder | DDIM, x: Tensor) -> Figure:
    half = min(4, len(x) // 2)
    first, second = x[:half], x[half : 2 * half]
    frames = model.interpolate(first, second, np.linspace(0, 1, 8).tolist(), steps=STEPS)
    picture = sheet([torch.cat([a[None], f, b[None]]) for a, f, b in zip(first, frames, second, strict=True)], scale=scale_for(x))
    if isinstance(model, DDIM):
        text = "The same pairs through the plain DDIM, which has x_T alone to go along."
        return Figure("ddim-interpolations", "From image to image without z_sem", text, picture)
    text = "Between the originals at both ends: z_sem on a straight line, x_T on the sphere."
    return Figure("interpolations", "From image to image", text, picture)


def neighbour_figure(data: ImageSet, x: Tensor, z_sem: Tensor, train: Encoded) -> Figure:
    mean, std = train.z_sem.mean(0), train.z_sem.std(0) + 1e-8
    distance = torch.cdist((z_sem[:5] - mean) / std, (train.z_sem - mean) / std)
    nearest = distance.topk(min(8, len(data.train)), largest=False).indices
    rows = [torch.cat([x[i][None], data.images(data.train[nearest[i].numpy()])]) for i in range(len(nearest))]
    text = "Left: a held-out image. Then the training images whose standardised z_sem is nearest to its own."
    return Figure("neighbours", "Nearest neighbours in z_sem", text, sheet(rows, scale=scale_for(x)))


def sample_figures(ae: DiffusionAutoencoder, data: ImageSet, train: Encoded) -> list[Figure]:
    """Samples beside real images; of a class, where fifty labels a side can be had. None without a prior."""
    if ae.prior is None or ae.standardizer is None:
        return []
    real, made = data.images(data.train[:10]), ae.sample(20, steps=STEPS, seed=1)
    text = "Top row: training images. Below: z_sem drawn from the latent prior, x_T from noise."
    found = [Figure("samples", "New images", text, sheet([real, made[:10], made[10:]], scale=scale_for(real)))]
    rows: list[Tensor] = []
    names: list[str] = []
    for name, values in data.labels.items():
        y = values[data.train]
        positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
        if set(np.unique(y[~np.isnan(y)])) != {0.0, 1.0} or min(len(positive), len(negative)) < 50 or len(rows) == 4:
            continue
        few = fit_few(name, train.z_sem[positive[:50]], train.z_sem[negative[:50]], ae.standardizer)
        rows.append(ae.sample(8, steps=STEPS, accept=few.probability(name), seed=2))
        names.append(name.replace("_", " "))
    if rows:
        text = "The same prior, and a classifier of 50 positive and 50 negative labels that chooses among its samples."
        picture = sheet(rows, scale=scale_for(real), names=names)
        found.append(Figure("few-shot", "New images of a class, from a hundred labels", text, picture))
    return found


def edit_figures(ae: DiffusionAutoencoder, x: Tensor) -> list[Figure]:
    """Each attribute on an image of its own, from less to more. None without attributes."""
    attributes = ae.attributes
    if attributes is None or not attributes.names:
        return []
    names = sorted(attributes.names, key=lambda name: -(attributes.scores[name].auroc or 0))[: len(x)]
    x, strengths = x[: len(names)], (-0.5, -0.25, 0.0, 0.25, 0.5)
    code = ae.infer(x, steps=STEPS)
    moved = [torch.cat([ae.edit(z[None], name, strength=s) for z, name in zip(code.z_sem, names, strict=True)]) for s in strengths]
    columns = torch.stack([x, *(ae.render(code, z_sem=z) for z in moved)], dim=1)
    text = (
        "Left: a held-out image. Then z_sem moved along one attribute, by -0.5, -0.25, 0, 0.25 and 0.5; x_T is the image's own. "
        "The attributes that z_sem knows best come first."
    )
    picture = sheet(list(columns), scale=max(1, scale_for(x, 72)), names=[name.replace("_", " ") for name in names])
    return [Figure("edits", "Attributes are directions", text, picture)]
