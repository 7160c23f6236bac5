"""Which timesteps, levels and numbers of steps suit one trained network: a few hundred images tell."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
from jaxtyping import Float
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.diffusion.schedule import Calibration, Spacing, uncalibrated
from diffae.evaluation.pages.figures import Progress
from diffae.metrics.batches import in_batches
from diffae.metrics.images import mse

ROUNDING = (1 / 255) ** 2 / 12
"""Mean squared error of writing an image in 256 steps, on the [0, 1] scale: a reconstruction that errs less is exact in a file."""
BATCH = 50
"""Images at a time."""
FEW_IMAGES = 64
"""Those of which more than the mean decode is measured; names are often sorted by kind, so they are spread over all."""
STEPS = (5, 8, 10, 15, 20, 30, 40)
"""Numbers of steps that are tried."""
FEW = 10
"""Steps with which levels are compared."""
LIMIT = 100
"""Steps of the decode of drawn noise that others are compared with."""
NEAR = 10 * ROUNDING
"""Mean squared error of a decode of drawn noise, against that of many steps, below which more steps are not seen."""


def calibrate(
    ae: DiffusionAutoencoder, x: Float[Tensor, "n c *sides"], *, progress: Progress
) -> tuple[Calibration, list[list[str]]]:
    """Chooses timestep, levels and numbers of steps for one trained network, and sets them as its calibration.

    The mean decode gets the timestep of the smallest error. The levels are those from which ten steps reconstruct best. A
    reconstruction gets the fewest steps that err less than the rounding of 8 bits. A decode of drawn noise gets the fewest steps
    that come within ten times this rounding of the decode in `LIMIT` steps. Where no number does, it is the largest, and a row says
    so. Of a distilled model the levels stay: between them it has learned to jump.

    Args:
        ae: the autoencoder; its calibration is set.
        x: held-out images; the mean decode is measured on all of them, the rest on 64, evenly spread.
        progress: told how far it is.

    Returns:
        The calibration, and what was measured: rows of what, with which setting, and its error.
    """
    measured: list[list[str]] = []

    def best(what: str, settings: dict[str, Calibration], error: Callable[[], float]) -> str:
        errors = {}
        for i, (name, calibration) in enumerate(settings.items()):
            progress(f"Calibrating: {what}", i, len(settings))
            ae.calibration = calibration
            errors[name] = error()
            measured.append([what, name, f"{errors[name]:.3g}"])
        return min(errors, key=errors.__getitem__)

    def of_the_decoder(z_sem: Tensor) -> Tensor:
        return ae.decode_mean(z_sem, t=ae.calibration.mean_t)

    z_sem = in_batches(ae.encode, x, batch_size=BATCH)
    spread = np.unique(np.linspace(0, len(x) - 1, FEW_IMAGES).round().astype(int))
    few, z_few = x[spread], z_sem[spread]
    # Only a distilled model keeps the levels that it had; what an earlier calibration chose is no bound.
    most, T = uncalibrated(ae.schedule, ae.config.prediction), ae.schedule.T
    start = ae.calibration if ae.jumps else most
    times = sorted({min(round(fraction * T), most.mean_t) for fraction in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)})
    means = {f"t = {t}": replace(start, mean_t=t) for t in times}
    chosen = means[best("mean decode", means, lambda: mse(in_batches(of_the_decoder, z_sem, batch_size=BATCH), x))]
    ends = sorted({min(t, most.t_max) for t in (0.94 * T, 0.97 * T, T - 1.0)})
    grids = {
        f"{spacing}, from t = {t:g}": replace(chosen, spacing=spacing, t_max=t)
        for spacing, t in itertools.product(get_args(Spacing), ends)
    }
    if not ae.jumps:
        chosen = grids[best(f"levels, {FEW} steps", grids, lambda: mse(ae.reconstruct(few, inversion="fast", steps=FEW), few))]
    ae.calibration = chosen

    def fewest(what: str, error: Callable[[int], float], enough: float) -> int:
        for i, n in enumerate(STEPS):
            progress(f"Calibrating: {what}", i, len(STEPS))
            found = error(n)
            measured.append([what, f"{n} steps", f"{found:.3g}"])
            if found <= enough:
                return n
        measured.append([what, f"{STEPS[-1]} steps, though no number errs so little as", f"{enough:.3g}"])
        return STEPS[-1]

    steps = fewest("reconstruction", lambda n: mse(ae.reconstruct(few, inversion="fast", steps=n), few), ROUNDING)
    limit = ae.decode(z_few, steps=LIMIT)
    sample_steps = fewest("decoding drawn noise", lambda n: mse(ae.decode(z_few, steps=n), limit), NEAR)
    ae.calibration = replace(chosen, steps=steps, sample_steps=sample_steps)
    return ae.calibration, measured
