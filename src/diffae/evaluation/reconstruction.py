"""Tables 1 and 2: how near an image comes to itself, through both codes, through z_sem alone, and through a plain DDIM."""

from functools import partial

from torch import Tensor

from diffae import seeding
from diffae.autoencoder import DiffusionAutoencoder
from diffae.diffusion import DDIM
from diffae.evaluation.bench import Bench, Section
from diffae.evaluation.tables import by_metric
from diffae.interop.comparators import Autoencoder

SUITE = "reconstruction"


def reconstruction(bench: Bench) -> Section:
    """Held-out images, reconstructed with inferred and with random x_T at each number of steps, and by the plain DDIM."""
    x = bench.test(bench.protocol.num)
    results = []
    for steps in bench.protocol.steps:
        both = partial(_through_both, bench.ae, x, steps)
        results += bench.distances(SUITE, "diffae, inferred x_T", x, both, on=["model"], steps=steps)
        if bench.ddim is not None:
            results += bench.distances(SUITE, "ddim", x, partial(_through_both, bench.ddim, x, steps), on=["ddim"], steps=steps)
        fresh = partial(_with_fresh_noise, bench, x, steps)
        results += bench.distances(SUITE, "diffae, random x_T", x, fresh, on=["model"], steps=steps)
    results += bench.distances(SUITE, "diffae, z_sem alone (mean)", x, partial(_mean, bench.ae, x), on=["model"])
    for other in bench.against:
        results += bench.distances(SUITE, other.title, x, partial(_through_latents, other, x), on=[f"against {other.title}"])
    text = (
        f"{len(x)} held-out images, on the [0, 1] scale (LPIPS: AlexNet, [-1, 1]). With inferred x_T both codes are used, with "
        "random x_T only z_sem. The paper trained on FFHQ and tested on CelebA-HQ, 128 x 128."
    )
    return Section(SUITE, "Reconstruction (tables 1 and 2)", text, results, [by_metric(results)])


def _through_both(model: DiffusionAutoencoder | DDIM, x: Tensor, steps: int, part: range) -> Tensor:
    return model.reconstruct(x[part.start : part.stop], steps=steps)


def _through_latents(other: Autoencoder, x: Tensor, part: range) -> Tensor:
    return other.decode(other.encode(x[part.start : part.stop]))


def _with_fresh_noise(bench: Bench, x: Tensor, steps: int, part: range) -> Tensor:
    z_sem = bench.ae.encode(x[part.start : part.stop])
    return bench.ae.decode_samples(z_sem, steps=steps, seed=seeding.mix(bench.seed, "random x_T", part.start))


def _mean(ae: DiffusionAutoencoder, x: Tensor, part: range) -> Tensor:
    return ae.decode_mean(ae.encode(x[part.start : part.stop]))
