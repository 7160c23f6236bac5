"""The page that a run ends with: what the autoencoder does with images that it has never seen, in pictures and numbers."""

import contextlib
import json
import platform
import subprocess
import time
from html import escape
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import diffae
from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import RunConfig, read_json, spelled
from diffae.data.dataset import ImageSet
from diffae.evaluation.pages import figures
from diffae.evaluation.pages.figures import CHUNK, Encoded, Figure, Progress, mean_image
from diffae.evaluation.pages.page import figure_html, html, table_html
from diffae.metrics.images import mse, psnr, ssim
from diffae.metrics.probe import linear_probe, principal_components
from diffae.pictures import save_png
from diffae.runtime.files import write_text

STEPS, FRESH_STEPS = 20, 10
"""Steps of the measured reconstructions, either way, and of decoding from noise that was drawn."""
RANDOM, AVERAGE = f"z_sem and random x_T, {FRESH_STEPS} steps", "floor: mean training image"
"""What is named more than once of what the same images are made of."""


def write_report(run: Path, data: ImageSet, *, num: int = 64, device: str = "cpu", progress: Progress | None = None) -> Path:
    """Measures a run on held-out images and writes `report.html`, `report.json` and the PNGs in `report/`.

    Args:
        run: the run directory.
        data: its images.
        num: number of held-out images that are reconstructed.
        device: where the networks compute.
        progress: told how far it is.

    Returns:
        The page.
    """
    started = time.monotonic()
    progress = progress or (lambda what, done, total: None)
    config = read_json(RunConfig, run / "config.json")
    ae = diffae.load(run, device=device)
    x = data.images(data.some(data.validation if len(data.validation) else data.train, num))
    z_sem = ae.encode(x)
    train = Encoded.of(ae, data, data.train, progress)
    held = Encoded.of(ae, data, data.validation, progress)
    made = _reconstructions(ae, x, z_sem, data, progress)
    metrics = {what: {"mse": mse(y, x), "psnr": psnr(y, x), "ssim": ssim(y, x)} for what, y in made.items()}
    progress("Probing z_sem", 0, 1)
    probes = _probes(data, train, held)
    drawn = [
        figures.loss_curve(run),
        figures.reconstruction_figure(x, list(made.values())),
        figures.swap_figure(ae, x, z_sem),
        figures.variation_figure(ae, x),
        figures.interpolation_figure(ae, x),
        figures.neighbour_figure(data, x, z_sem, train),
        *figures.sample_figures(ae, data, train),
        *figures.edit_figures(ae, x),
    ]
    for figure in drawn:
        save_png(figure.picture, run / "report" / f"{figure.name}.png")
    result = {
        "n": len(x),
        "n_probe": [len(data.train), len(data.validation)],
        "seed": config.training.seed,
        "images_seen": config.training.images,
        "preset": config.preset,
        "machine": machine(),
        "seconds": round(time.monotonic() - started, 1),
        "reconstruction": metrics,
        "auroc": probes,
    }
    write_text(run / "report.json", json.dumps(result, indent=2) + "\n")
    write_text(run / "report.html", _page(config, run, result, drawn, data.notes))
    return run / "report.html"


def machine() -> str:
    """The processor that figures were measured on, in words."""
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads != 1)}{gpu}, torch {torch.__version__}"


def commit() -> str:
    """The code that figures were measured with: the package's version, and git's commit where it runs from a checkout."""
    root = Path(diffae.__file__).parents[2]
    if not (root / ".git").exists() or Path(diffae.__file__).parents[1].name != "src":
        return diffae.__version__
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
        said = subprocess.run(git, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return f"{diffae.__version__}, {said.stdout.strip()}"
    return diffae.__version__


def _reconstructions(ae: DiffusionAutoencoder, x: Tensor, z_sem: Tensor, data: ImageSet, progress: Progress) -> dict[str, Tensor]:
    """The same images made of both codes, of z_sem alone, and of nothing but the training images: what, and the images."""
    parts, what = [], f"Reconstructing with {STEPS} steps"
    for start in range(0, len(x), 32):
        progress(what, start, len(x))
        part, z = x[start : start + 32], z_sem[start : start + 32]
        both = ae.reconstruct(part, inversion="fast", steps=STEPS)
        parts.append((both, ae.decode(z, steps=FRESH_STEPS, seed=start), ae.decode_mean(z, seed=start)))
    inferred, random, mean = (torch.cat(column) for column in zip(*parts, strict=True))
    average, nearest = _pixel_floors(data, x)
    return {
        f"z_sem and inferred x_T, {STEPS} steps": inferred,
        RANDOM: random,
        "z_sem alone, mean decode, 1 call": mean,
        "floor: nearest training image in pixels": nearest,
        AVERAGE: average.expand_as(x),
    }


def _pixel_floors(data: ImageSet, x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean training image, and for each image the training image that is nearest in pixels; a chunk at a time."""
    best, nearest = torch.full((len(x),), torch.inf), torch.zeros(len(x), dtype=torch.long)
    for start in range(0, len(data.train), CHUNK):
        chunk = data.images(data.train[start : start + CHUNK])
        distance, index = torch.cdist(x.flatten(1), chunk.flatten(1)).min(1)
        nearest = torch.where(distance < best, index + start, nearest)
        best = torch.minimum(best, distance)
    return mean_image(data, data.train).to(x), data.images(data.train[nearest.numpy()])


def _probes(data: ImageSet, train: Encoded, held: Encoded) -> dict[str, dict[str, float]]:
    """AUROC per attribute of z_sem, of small pixels, and of their first principal components."""
    labels, held_labels = ({k: v[i] for k, v in data.labels.items()} for i in (data.train, data.validation))
    if not labels or not len(data.validation):
        return {}
    features = {
        "z_sem": (train.z_sem.numpy(), held.z_sem.numpy()),
        "16x16 pixels": (train.pixels, held.pixels),
        "128 principal components of them": principal_components(train.pixels, held.pixels),
    }
    return {name: linear_probe(a, labels, b, held_labels) for name, (a, b) in features.items()}


# Page ----------------------------------------------------------------------------------------------------------------


def _page(config: RunConfig, run: Path, result: dict, drawn: list[Figure], notes: list[str]) -> str:
    size = spelled(config.model.image_size)
    sections = [
        "<h1>A diffusion autoencoder, and what it has learned</h1>",
        f'<p class="soft">{escape(config.data.source)} at {size}, preset {escape(config.preset)}, '
        f"{result['images_seen']:,} images seen in training. Every image below was held out unless said otherwise. Measured on "
        f"{escape(result['machine'])}.</p>",
        *_too_early(result["reconstruction"], result["images_seen"]),
        figure_html(drawn[1]),
        "<h2>How near the reconstructions come</h2>",
        f"<p>{result['n']} held-out images, on the [0, 1] scale; seed {result['seed']}. The floors need no autoencoder.</p>",
        _reconstruction_table(result["reconstruction"]),
        *[figure_html(f) for f in drawn[2:]],
        _probe_section(result),
        figure_html(drawn[0]),
        *[f"<p>{escape(note)}</p>" for note in notes],
        "<h2>What to do next</h2>",
        _next_steps(run),
        f'<p class="soft">Made by <code>diffae quickstart --out {escape(str(run))}</code> (diffae {diffae.__version__}) in '
        f"{result['seconds']:.0f} s after training. The same figures as JSON: report.json; the pictures as PNG: report/.</p>",
    ]
    return html("diffae report", sections)


def _too_early(metrics: dict[str, dict[str, float]], seen: int) -> list[str]:
    """What whoever sees noise in place of images has to know."""
    if metrics[RANDOM]["mse"] < metrics[AVERAGE]["mse"]:
        return []
    return [
        f"<p><b>This model has been trained too little to make images of noise:</b> after {seen:,} images, what it makes of z_sem "
        "and random noise is further from the held-out images than the mean training image is. The command that made this page "
        "goes on where it stopped when it is given more <code>--minutes</code>.</p>"
    ]


def _reconstruction_table(metrics: dict[str, dict[str, float]]) -> str:
    base = metrics[AVERAGE]["mse"]
    rows = [
        [what, f"{m['mse']:.2e}", f"{m['mse'] / base:.2g}", f"{m['psnr']:.1f}", f"{m['ssim']:.3f}"] for what, m in metrics.items()
    ]
    return table_html(["", "MSE", "MSE / mean image's", "PSNR, dB", "SSIM"], rows)


def _probe_section(result: dict) -> str:
    probes = result["auroc"]
    if not probes:
        return ""
    train, held = result["n_probe"]
    names = list(probes["z_sem"])
    if not names:
        return ""
    lines = [(name, [p[name] for p in probes.values()]) for name in names]
    lines.append(("mean", [float(np.mean(list(p.values()))) for p in probes.values()]))
    rows = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))}</td>"
        + "".join(f'<td class="best">{v:.3f}</td>' if v == max(values) else f"<td>{v:.3f}</td>" for v in values)
        + "</tr>"
        for name, values in lines
    )
    header = "".join(f"<th>{escape(name)}</th>" for name in probes)
    return (
        "<h2>What z_sem knows</h2><p>AUROC of a linear probe (logistic regression, C = 0.1, on standardised features) of each "
        f"attribute, fitted on {train:,} images and measured on {held:,} held-out ones; 0.5 is guessing. The autoencoder never "
        f"saw a label.</p><table><tr><td></td>{header}</tr>{rows}</table>"
    )


def _next_steps(run: Path) -> str:
    code = f"""import diffae

ae = diffae.load({str(run)!r})
z_sem = ae.encode(x)                     # x: (n, c, h, w) in [-1, 1]
x_T = ae.invert(x, z_sem)
x_hat = ae.decode(z_sem, x_T)"""
    return (
        f"<p>The same on your own pictures, any folder or zip of them:</p><pre>diffae train PICTURES --preset pictures64 --out "
        f"runs/mine --minutes 60</pre><p>Longer training makes z_sem sharper: the command that made this page goes on when it is "
        f"given more minutes. The model in Python:</p><pre>{escape(code)}</pre>"
    )
