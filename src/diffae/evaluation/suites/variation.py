"""Figure 3: what is in z_sem and what in x_T, by changing one and keeping the other."""

from functools import partial

from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.evaluation.pages.figures import STEPS, Figure, swap_figure, variation_figure
from diffae.evaluation.pages.tables import by_metric
from diffae.evaluation.suites.bench import Bench
from diffae.evaluation.suites.section import Section
from diffae.pictures import scale_for, sheet
from diffae.runtime.seeding import Draws

SUITE = "variation"


def variation(bench: Bench) -> Section:
    """How far images move when their x_T is drawn anew, when their z_sem is another image's, and when both are."""
    ae, x = bench.ae, bench.test(min(bench.protocol.num, 100))
    z_sem = bench.latents(ae.encode, bench.data, bench.some_tested(len(x)))
    first = bench.over(len(x), "Variations", partial(decoded, ae, z_sem, bench.seed, 0))
    other = z_sem.roll(1, dims=0)
    ways = {"same z_sem, other x_T": (z_sem, 1), "other z_sem, same x_T": (other, 0), "both others": (other, 1)}
    results = []
    for model, (z, draw) in ways.items():
        make = partial(decoded, ae, z, bench.seed, draw)
        results += bench.distances(SUITE, model, first, make, on=["model", "calibration"], steps=STEPS)
    text = (
        f"{len(x)} held-out images' z_sem, decoded with an x_T drawn at random; distances to that image. What z_sem holds changes "
        "with it, what x_T holds with that."
    )
    figures = [variation_figure(ae, x), _many_codes(ae, x, z_sem), swap_figure(ae, x, z_sem)]
    return Section(SUITE, "Stochastic variation (figure 3)", text, results, [by_metric(results)], figures)


def decoded(ae: DiffusionAutoencoder, z_sem: Tensor, seed: int, draw: int, part: range) -> Tensor:
    """Images of some codes, image i with the same x_T in each `draw`."""
    draws = Draws.of(len(part), seed, start=part.start, device=z_sem.device).fork("variation", draw)
    x_T = draws.normal("x_T", ae.image_shape).to(z_sem)
    return ae.decode(z_sem[part.start : part.stop], x_T, steps=STEPS, clamp=True)


def _many_codes(ae: DiffusionAutoencoder, x: Tensor, z_sem: Tensor) -> Figure:
    rows, num = [x[:9]], len(x[:9])
    for draw in range(3):
        x_T = Draws.of(1, draw, device=x.device).normal("many", ae.image_shape).expand(num, *ae.image_shape).to(x)
        rows.append(ae.decode(z_sem[:num], x_T, steps=STEPS, clamp=True))
    text = "Top: images whose z_sem is taken. Each row below has one x_T for all: what is alike within a row is of x_T."
    return Figure("one-noise", "One x_T, many z_sem", text, sheet(rows, scale=scale_for(x)))
