"""Solvers of the probability-flow ODE along a path, and conversions between what a network may predict.

A solver does not know that it drives a network: `eps_model` is any callable `(x_t, t) -> eps`, with whatever conditions
it bound beforehand (`functools.partial(unet, z_sem=z_sem)`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, get_args, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from diffae.config import Prediction
from diffae.diffusion.schedule import NoisePath, kind_of_t

EpsModel = Callable[..., Tensor]
"""`(x_t (n, ...), t (n,)) -> eps (n, ...)`: the noise in x_t. Where a path `jumps`, `(x_t, t, to (n,)) -> eps`: that with which
DDIM's step leads from t to where the ODE is at `to`; of -1, to the image."""


@runtime_checkable
class Step(Protocol):
    """One step of a solver: write one to try a solver of your own (`ddim_step` is the shortest)."""

    def __call__(self, x: Tensor, path: NoisePath, i: int, x_0s: Sequence[Tensor], /) -> Tensor:
        """The state at level i + 1.

        Args:
            x: the state at level i of the path.
            path: the levels.
            i: number of the step.
            x_0s: the last predicted x_0, at most three; the last one is that at level i.
        """
        ...


IMAGE = -1.0
"""What a jumping network is told in place of the timestep of the image itself, which has none."""
SolverName = Literal["dpmpp2m", "unipc", "heun", "ddim", "jump"]
Solver = SolverName | Step
"""`dpmpp2m`: DPM-Solver++, second-order multistep. `unipc`: UniPC, which corrects each of its steps when the next has asked the
network. `heun`: Heun's method, two calls a step, as a reference. `ddim`: DDIM; for images the authors' scheme, with their spacing,
index shift and clamping. `jump`: of a distilled network, which is told where each step leads (`diffae distill`), and so
gets there in one to four. Or a step of your own."""


def check_solver(solver: Solver) -> None:
    """Refuses the name of a solver that there is not."""
    if not callable(solver) and solver not in get_args(SolverName):
        raise ValueError(f"Unknown solver {solver!r}; there are {', '.join(map(repr, get_args(SolverName)))}.")


def solve(
    eps_model: EpsModel, x: Float[Tensor, "n *s"], path: NoisePath, *, solver: Solver = "ddim", clamp: bool = False
) -> Float[Tensor, "n *s"]:
    """Follows the probability-flow ODE along a path, from noise to image or from image to noise.

    Args:
        eps_model: predicts the noise in x_t at timestep t.
        x: the state at the path's first level, (n, ...).
        path: the levels to visit, see `schedule`.
        solver: see `Solver`; one network call a step, Heun two.
        clamp: whether each predicted x_0 is clamped to [-1, 1], as the authors do for images in both directions.

    Returns:
        The state at the path's last level, shaped like x.

    References:
        Song et al. 2021 (DDIM), eq. 12 with sigma = 0; Preechakul et al. 2022, eqs. 2 and 8; Lu et al. 2022
        (DPM-Solver++), algorithm 2; Zhao et al. 2023 (UniPC), algorithm 1 of second order with B(h) = exp(h) - 1.
    """
    state = start = x.to(kind_of_t(x))  # Of at least float32: x_0 of v is a small difference, which bfloat16 would lose.
    for state, _ in trajectory(eps_model, start, path, solver=solver, clamp=clamp):  # noqa: B007 - the last state is the result
        pass
    return state.to(x)


def trajectory(
    eps_model: EpsModel, x: Float[Tensor, "n *s"], path: NoisePath, *, solver: Solver = "ddim", clamp: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same as `solve`, step by step: yields (state at the next level, x_0 predicted on the way there)."""
    x_0s: list[Tensor] = []
    before = x
    for i in range(len(path)):
        x_0s = [*x_0s[-2:], predict(eps_model, x, path, i, clamp=clamp)]
        if solver == "unipc" and i > 0:
            x = correct(before, path, i, x_0s)
        before = x
        if solver == "heun":
            x = heun_step(eps_model, x, path, i, x_0s, clamp=clamp)
        else:
            step = solver if callable(solver) else ddim_step if solver == "ddim" else dpmpp2m_step
            x = step(x, path, i, x_0s)
        yield x, x_0s[-1]


def predict(
    eps_model: EpsModel, x: Float[Tensor, "n *s"], path: NoisePath, i: int, *, clamp: bool = False
) -> Float[Tensor, "n *s"]:
    """`x_0 = (x_t - sigma eps) / alpha`, predicted at level i: one network call."""
    alpha, sigma = _alpha_sigma(path, i)
    x_0 = (x - sigma * ask(eps_model, x, path, i)) / alpha
    return x_0.clamp(-1, 1) if clamp else x_0


def ask(eps_model: EpsModel, x: Float[Tensor, "n *s"], path: NoisePath, i: int) -> Float[Tensor, "n *s"]:
    """The noise in x at level i, or where the path jumps, that with which DDIM's step leads to the next: one network call."""
    t = x.new_full((len(x),), float(path.t[i]), dtype=kind_of_t(x))
    if not path.jumps:
        return eps_model(x, t)
    to = float(path.t[i + 1])
    return eps_model(x, t, t.new_full(t.shape, IMAGE if math.isnan(to) else to))


def ddim_step(x: Tensor, path: NoisePath, i: int, x_0s: Sequence[Tensor]) -> Tensor:
    """From level i to the next: Euler's step, with the noise that makes up x together with the last predicted x_0."""
    return _towards(x_0s[-1], x, path, i)


def dpmpp2m_step(x: Tensor, path: NoisePath, i: int, x_0s: Sequence[Tensor]) -> Tensor:
    """The same towards where x_0 will be half-way through the step, from what it was at this level and at the one before. Of a path
    that jumps, whose x_0 is already that of the whole step, DDIM's."""
    h, last = _step(path, i), len(x_0s) > 1
    if not last or path.jumps or math.isinf(h):
        return ddim_step(x, path, i, x_0s)
    return _towards(x_0s[-1] + h / (2 * _step(path, i - 1)) * (x_0s[-1] - x_0s[-2]), x, path, i)


def correct(before: Tensor, path: NoisePath, i: int, x_0s: Sequence[Tensor]) -> Tensor:
    """The state at level i again, from that at level i - 1, now that x_0 is known at level i too: UniPC's corrector."""
    h = _step(path, i - 1)
    (alpha, sigma), (_, sigma_before) = _alpha_sigma(path, i), _alpha_sigma(path, i - 1)
    growth = math.expm1(-h)
    new = x_0s[-1] - x_0s[-2]
    if len(x_0s) < 3:
        change = 0.5 * new
    else:
        # The weights with which the step is exact for x_0 that is quadratic in lambda: rho of UniPC's eq. 9, for r = (ratio, 1).
        ratio = -_step(path, i - 2) / h
        first = growth / -h - 1
        b_1, b_2 = first / growth, 2 * (first / -h - 0.5) / growth
        rho_new = (b_2 - ratio * b_1) / (1 - ratio)
        change = (b_1 - rho_new) * (x_0s[-3] - x_0s[-2]) / ratio + rho_new * new
    return sigma / sigma_before * before - alpha * growth * (x_0s[-2] + change)


def heun_step(eps_model: EpsModel, x: Tensor, path: NoisePath, i: int, x_0s: Sequence[Tensor], *, clamp: bool = False) -> Tensor:
    """Euler's step, and again with the mean of the slopes at both ends (Karras et al. 2022, algorithm 1); `x / alpha` has the slope
    eps in tau = sigma / alpha. Where the step ends at the image or at pure noise, Euler's."""
    predicted = ddim_step(x, path, i, x_0s)
    if path.t[i + 1].isnan():
        return predicted
    (alpha, sigma), (alpha_next, sigma_next) = _alpha_sigma(path, i), _alpha_sigma(path, i + 1)
    x_0_next = predict(eps_model, predicted, path, i + 1, clamp=clamp)
    slope = ((x - alpha * x_0s[-1]) / sigma + (predicted - alpha_next * x_0_next) / sigma_next) / 2
    return alpha_next * (x / alpha + (sigma_next / alpha_next - sigma / alpha) * slope)


def _towards(x_0: Tensor, x: Tensor, path: NoisePath, i: int) -> Tensor:
    """`alpha' x_0 + sigma' eps` at the next level, with the eps that belongs to x and x_0 at this."""
    (alpha, sigma), (alpha_next, sigma_next) = _alpha_sigma(path, i), _alpha_sigma(path, i + 1)
    return alpha_next * x_0 + sigma_next * ((x - alpha * x_0) / sigma)


def _step(path: NoisePath, i: int) -> float:
    """How far step i goes in lambda."""
    return _half_log_snr(path.alpha_bar[i + 1]) - _half_log_snr(path.alpha_bar[i])


def to_eps(prediction: Prediction, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The noise that a network's output stands for; `v = alpha eps - sigma x_0` gives `eps = alpha v + sigma x_t`."""
    return output if prediction == "eps" else alpha * output + sigma * x_t


def to_target(prediction: Prediction, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What the network should have said: eps, or `v = alpha eps - sigma x_0` (Salimans & Ho 2022, appendix D)."""
    return eps if prediction == "eps" else alpha * eps - sigma * x_0


def _alpha_sigma(path: NoisePath, i: int) -> tuple[float, float]:
    """alpha and sigma of level i; numbers of the host, so that no device has to be sent them."""
    alpha_bar = float(path.alpha_bar[i])
    return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)


def _half_log_snr(alpha_bar: Tensor) -> float:
    """lambda = log(alpha / sigma) of a level; infinite at the clean image, minus infinite at pure noise."""
    level = float(alpha_bar)
    if level in (0.0, 1.0):
        return math.inf if level else -math.inf
    return 0.5 * (math.log(level) - math.log1p(-level))
