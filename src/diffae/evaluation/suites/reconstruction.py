"""Tables 1 and 2: how near an image comes to itself, through both codes, through z_sem alone, and through a plain DDIM."""

from functools import partial

from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.diffusion.ddim import DDIM
from diffae.diffusion.inversion import Inversion
from diffae.evaluation.pages.tables import by_metric
from diffae.evaluation.results import Result
from diffae.evaluation.suites.bench import Bench
from diffae.evaluation.suites.section import OURS, Section
from diffae.interop.comparators import Autoencoder
from diffae.runtime import seeding

SUITE = "reconstruction"


def reconstruction(bench: Bench) -> Section:
    """Held-out images, reconstructed with inferred and with random x_T at each number of steps, and by the plain DDIM."""
    x = bench.test(bench.protocol.num)
    results: list[Result] = []

    def both_ways(model: DiffusionAutoencoder | DDIM, name: str, inversion: Inversion, steps: int) -> list[Result]:
        make = partial(_through_both, model, x, steps, inversion)
        on = ["ddim"] if model is bench.ddim else ["model"] if inversion == "official" else ["model", "calibration"]
        return bench.distances(SUITE, name, x, make, on=on, steps=steps)

    for steps in bench.protocol.steps:
        results += both_ways(bench.ae, "diffae, inferred x_T", "official", steps)
        if bench.ddim is not None:
            results += both_ways(bench.ddim, "ddim", "official", steps)
        fresh = partial(_with_fresh_noise, bench, x, steps)
        results += bench.distances(SUITE, "diffae, random x_T", x, fresh, on=["model"], steps=steps)
    results += both_ways(bench.ae, f"diffae, fast inversion, {OURS}", "fast", 10)
    results += both_ways(bench.ae, f"diffae, fast inversion, {OURS}", "fast", 20)
    results += both_ways(bench.ae, f"diffae, anchored inversion, {OURS}", "anchored", 20)
    results += bench.distances(SUITE, "diffae, z_sem alone (mean)", x, partial(_mean, bench.ae, x), on=["model", "calibration"])
    for other in bench.comparators:
        results += bench.distances(SUITE, other.title, x, partial(_through_latents, other, x), on=[f"against {other.title}"])
    text = (
        f"{len(x)} held-out images, on the [0, 1] scale (LPIPS: AlexNet, [-1, 1]). With inferred x_T both codes are used, with "
        f"random x_T only z_sem. The paper's inversion, and ours on evenly spaced log-SNR ({OURS}; T steps in either direction). "
        "The paper trained on FFHQ and tested on CelebA-HQ, 128 x 128."
    )
    return Section(SUITE, "Reconstruction (tables 1 and 2)", text, results, [by_metric(results)])


def _through_both(model: DiffusionAutoencoder | DDIM, x: Tensor, steps: int, inversion: Inversion, part: range) -> Tensor:
    if isinstance(model, DDIM):
        return model.reconstruct(x[part.start : part.stop], steps=steps, solver="ddim")
    return model.reconstruct(x[part.start : part.stop], inversion=inversion, steps=steps)


def _through_latents(other: Autoencoder, x: Tensor, part: range) -> Tensor:
    return other.decode(other.encode(x[part.start : part.stop]))


def _with_fresh_noise(bench: Bench, x: Tensor, steps: int, part: range) -> Tensor:
    z_sem = bench.ae.encode(x[part.start : part.stop])
    seed = seeding.mix(bench.seed, "random x_T")
    return bench.ae.decode(z_sem, steps=steps, solver="ddim", seed=seed, start=part.start)


def _mean(ae: DiffusionAutoencoder, x: Tensor, part: range) -> Tensor:
    return ae.decode_mean(ae.encode(x[part.start : part.stop]), start=part.start)
