"""Figure 4: from image to image by the autoencoder and by the plain DDIM, and how smooth the path is."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.diffusion.ddim import DDIM
from diffae.diffusion.interpolation import slerp
from diffae.diffusion.inversion import interpolate_codes
from diffae.evaluation.pages.figures import interpolation_figure
from diffae.evaluation.pages.tables import by_metric
from diffae.evaluation.results import Result, spread_of
from diffae.evaluation.suites.bench import Bench, in_colour
from diffae.evaluation.suites.section import NotMeasurable, Section
from diffae.frozen.perceptual import LEAST
from diffae.runtime.seeding import Draws

SUITE = "interpolation"
EPSILON = 1e-2
"""Length of the step that path lengths are measured with. StyleGAN's 1e-4 leaves float32 images too little difference."""


def interpolation(bench: Bench) -> Section:
    """The perceptual path length of interpolations between pairs of held-out images, and pictures of some."""
    tested = bench.some_tested(min(bench.protocol.num, 100) // 2 * 2)
    x = bench.data.images(tested)
    if not len(x):
        raise NotMeasurable("A way leads from one held-out image to another, and fewer than two were asked for.")
    steps, pairs = max(bench.protocol.steps), len(x) // 2
    models: dict[str, DiffusionAutoencoder | DDIM] = {"diffae": bench.ae} | ({"ddim": bench.ddim} if bench.ddim else {})
    results: list[Result] = []
    for model, network in models.items():

        def measure(model: str = model, network: DiffusionAutoencoder | DDIM = network) -> list[Result]:
            def lengths(part: range) -> Tensor:
                a, b = x[part.start : part.stop], x[pairs + part.start : pairs + part.stop]
                weight = Draws.of(len(part), bench.seed, start=part.start).uniform("path") * (1 - EPSILON)
                return path_length(frames_between(network, a, b, steps=steps), weight, bench.network("vgg16")[0])

            each = bench.over(pairs, f"{SUITE}: {model}", lengths)
            detail = f"{bench.network('vgg16')[1]}; step {EPSILON}"
            return [
                Result(SUITE, model, "path_length", float(each.mean()), pairs, steps, spread_of(each), bench.seed,
                       detail=detail, each=each.tolist(), groups=tied(bench.groups(tested), pairs))
            ]  # fmt: skip

        if x.dim() == 4 and min(x.shape[-2:]) >= LEAST["vgg16"]:
            key = {"suite": SUITE, "model": model, "n": pairs, "steps": steps, "seed": bench.seed, "epsilon": EPSILON}
            results += bench.store.get(key, measure, on=["model" if network is bench.ae else "ddim"])
    text = (
        f"{pairs} pairs of held-out images, T = {steps}. Path length: LPIPS (VGG) between two neighbouring images of the way, over "
        "the square of the step (Karras et al. 2019). A cross-fade is short too: look at the pictures as well."
    )
    figures = [interpolation_figure(network, x[:12]) for network in models.values()]
    return Section(SUITE, "From image to image (figure 4)", text, results, [by_metric(results)] if results else [], figures)


def tied(groups: list[int] | None, pairs: int) -> list[int] | None:
    """A group of each pair, from those of its ends: pairs that share a group at either end are of one, and so is whatever they tie.

    Args:
        groups: from 0 on, of the first ends, then of the second ends (2 pairs,); None where nobody says.
        pairs: how many there are.
    """
    if groups is None:
        return None
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends, num = np.reshape(groups, (2, pairs)), max(groups) + 1
    _, component = connected_components(coo_array((np.ones(pairs), (ends[0], ends[1])), shape=(num, num)), directed=False)
    return component[ends[0]].tolist()


def frames_between(
    model: DiffusionAutoencoder | DDIM, x_a: Float[Tensor, "n c *sides"], x_b: Float[Tensor, "n c *sides"], *, steps: int
) -> Callable[[Float[Tensor, " n"]], Float[Tensor, "n c *sides"]]:
    """The way from each image to another: weights in 0..1, one a pair -> the images there."""
    if isinstance(model, DDIM):
        start, end = (model.invert(x, steps=steps, solver="ddim") for x in (x_a, x_b))
        return lambda weight: model.decode(slerp(start, end, weight), steps=steps, solver="ddim")
    a, b = (model.infer(x, inversion="official", steps=steps) for x in (x_a, x_b))
    return lambda weight: model.render(interpolate_codes(a, b, weight))


def path_length(
    frame: Callable[[Tensor], Tensor], weight: Float[Tensor, " n"], lpips: Callable[[Tensor, Tensor], Tensor]
) -> Float[Tensor, " n"]:
    """`d(x(w), x(w + step)) / step^2` of each way x at w (Karras et al. 2019, StyleGAN, eq. 2)."""
    image, moved = (in_colour(frame(w).clamp(-1, 1)) for w in (weight, weight + EPSILON))
    return lpips(image, moved) / EPSILON**2
