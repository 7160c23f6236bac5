"""Figure 6: what one network call predicts of the image, with and without z_sem, from more and more noise."""

from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.diffusion.model import ImageDiffusion
from diffae.evaluation.pages.figures import Figure, plotted
from diffae.evaluation.pages.tables import by_metric
from diffae.evaluation.results import Result
from diffae.evaluation.suites.bench import Bench
from diffae.evaluation.suites.section import Section
from diffae.pictures import scale_for, sheet
from diffae.runtime.seeding import Draws

SUITE = "denoising"
FRACTIONS = (0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.999)
"""The timesteps that are looked at, as fractions of T."""


def denoising(bench: Bench) -> Section:
    """The predicted x_0 of noised held-out images against t, of the autoencoder and of the plain DDIM."""
    x = bench.test(min(bench.protocol.num, 200))
    T = bench.ae.schedule.T
    times = [min(round(fraction * T), T - 1) for fraction in FRACTIONS]
    models: dict[str, ImageDiffusion] = {"diffae, z_sem": bench.ae} | ({"ddim": bench.ddim} if bench.ddim is not None else {})
    one = [range(i % len(x), i % len(x) + 1) for i in range(len(times))]
    results: list[Result] = []
    rows = {}
    for model, network in models.items():
        for t in times:
            make = partial(predicted, network, x, t, bench.seed)
            results += bench.distances(SUITE, f"{model}, t = {t}", x, make, on=["ddim" if network is bench.ddim else "model"])
        rows[model] = torch.cat([predicted(network, x, t, bench.seed, i) for i, t in zip(one, times, strict=True)])
    shown = torch.cat([noised(bench.ae, x, t, bench.seed, i)[0] for i, t in zip(one, times, strict=True)])
    images = x[[i.start for i in one]]
    picture = sheet([images, shown.clamp(-1, 1), *rows.values()], scale=scale_for(x), names=["image", "noised", *rows])
    text = (
        f"Mean squared error of the predicted image of {len(x)} noised held-out images. With z_sem it stays near the image "
        "where nothing of it is left in the noise, which is why few steps suffice."
    )
    figures = [
        Figure("denoising", "What one network call sees", f"Noise of t = {', '.join(map(str, times))}, of {T}.", picture),
        Figure("denoising-plot", "Error against noise", "", _plot(results, times, list(models))),
    ]
    return Section(SUITE, "Faster denoising (figure 6)", text, results, [by_metric(results)], figures)


def noised(model: ImageDiffusion, x: Tensor, t: int, seed: int, part: range) -> tuple[Tensor, Tensor]:
    """x_t of some images, and t for each."""
    eps = Draws.of(len(part), seed, start=part.start, device=x.device).normal("noised", tuple(x.shape[1:])).to(x)
    t_all = torch.full((len(part),), t, device=x.device)
    return model.schedule.add_noise(x[part.start : part.stop], eps, t_all), t_all


@torch.no_grad()
def predicted(model: ImageDiffusion, x: Tensor, t: int, seed: int, part: range) -> Tensor:
    """The image that the network sees in x_t, clamped to [-1, 1]."""
    x_t, t_all = noised(model, x, t, seed, part)
    z_sem = model.encode(x[part.start : part.stop]) if isinstance(model, DiffusionAutoencoder) else None
    alpha, sigma = model.schedule.alpha_sigma(t_all, like=x_t)
    return ((x_t - sigma * model.eps_model(z_sem)(x_t, t_all.to(x))) / alpha).clamp(-1, 1)


def _plot(results: list[Result], times: list[int], models: list[str]) -> Image.Image:
    value = {r.model: r.value for r in results if r.metric == "mse"}

    def draw(axes: Any) -> None:
        for model, color in zip(models, ("#1f5fbf", "#d9722e"), strict=False):
            axes.semilogy(times, [value[f"{model}, t = {t}"] for t in times], "o-", color=color, markersize=4, label=model)
        axes.set(xlabel="t", ylabel="MSE of the predicted image")

    return plotted(draw)
