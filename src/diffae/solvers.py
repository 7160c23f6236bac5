"""Solvers of the probability-flow ODE along a path, and conversions between what a network may predict.

A solver does not know that it drives a network: `eps_model` is any callable `(x_t, t) -> eps`, with whatever conditions
it bound beforehand (`functools.partial(unet, z_sem=z_sem)`).
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from diffae.config import Prediction
from diffae.schedule import Path

Solver = Literal["ddim", "dpmpp2m"]

EpsModel = Callable[[Tensor, Tensor], Tensor]
"""`(x_t (n, ...), t (n,)) -> eps (n, ...)`: the noise in x_t."""


def solve(
    eps_model: EpsModel, x: Float[Tensor, "n *s"], path: Path, *, solver: Solver = "ddim", clamp: bool = False
) -> Float[Tensor, "n *s"]:
    """Follows the probability-flow ODE along a path, from noise to image or from image to noise.

    Args:
        eps_model: predicts the noise in x_t at timestep t.
        x: the state at the path's first level, (n, ...).
        path: the levels to visit, see `schedule`.
        solver: `ddim` is of first order, `dpmpp2m` (DPM-Solver++, multistep) of second, for as many network calls.
        clamp: whether each predicted x_0 is clamped to [-1, 1], as the authors do for images in both directions.

    Returns:
        The state at the path's last level, shaped like x.

    References:
        Song et al. 2021 (DDIM), eq. 12 with sigma = 0; Preechakul et al. 2022, eqs. 2 and 8; Lu et al. 2022
        (DPM-Solver++), algorithm 2.
    """
    state = x
    for state, _ in trajectory(eps_model, x, path, solver=solver, clamp=clamp):  # noqa: B007 - the last state is the result
        pass
    return state


def trajectory(
    eps_model: EpsModel, x: Float[Tensor, "n *s"], path: Path, *, solver: Solver = "ddim", clamp: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same as `solve`, step by step: yields (state at the next level, x_0 predicted on the way there)."""
    before: tuple[Tensor, float] | None = None
    for i, t in enumerate(path.t):
        alpha, sigma = _alpha_sigma(path.alpha_bar[i], x)
        alpha_next, sigma_next = _alpha_sigma(path.alpha_bar[i + 1], x)
        eps = eps_model(x, t.to(x).expand(len(x)))
        x_0 = (x - sigma * eps) / alpha
        if clamp:
            # The eps that belongs to the clamped x_0, so that both still make up x_t.
            x_0 = x_0.clamp(-1, 1)
            eps = (x - alpha * x_0) / sigma
        h = _half_log_snr(path.alpha_bar[i + 1]) - _half_log_snr(path.alpha_bar[i])
        if solver == "ddim" or before is None or math.isinf(h):
            towards = x_0
        else:
            # Where x_0 will be half-way through the step, from what it was in the step before.
            towards = x_0 + h / (2 * before[1]) * (x_0 - before[0])
            eps = (x - alpha * towards) / sigma
        before = x_0, h
        x = alpha_next * towards + sigma_next * eps
        yield x, x_0


def to_eps(prediction: Prediction, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The noise that a network's output stands for; `v = alpha eps - sigma x_0` gives `eps = alpha v + sigma x_t`."""
    return output if prediction == "eps" else alpha * output + sigma * x_t


def to_target(prediction: Prediction, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What the network should have said: eps, or `v = alpha eps - sigma x_0` (Salimans & Ho 2022, appendix D)."""
    return eps if prediction == "eps" else alpha * eps - sigma * x_0


def _alpha_sigma(alpha_bar: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma of one level; rounded only after the float64 square root."""
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return alpha.to(like), sigma.to(like)


def _half_log_snr(alpha_bar: Tensor) -> float:
    """lambda = log(alpha / sigma) of a level; infinite at the clean image, minus infinite at pure noise."""
    level = float(alpha_bar)
    if level in (0.0, 1.0):
        return math.inf if level else -math.inf
    return 0.5 * (math.log(level) - math.log1p(-level))
