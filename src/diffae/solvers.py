"""Solvers of the probability-flow ODE along a path, and conversions between what a network may predict.

A solver does not know that it drives a network: `eps_model` is any callable `(x_t, t) -> eps`, with whatever conditions
it bound beforehand (`functools.partial(unet, z_sem=z_sem)`).
"""

from collections.abc import Callable, Iterator

from jaxtyping import Float
from torch import Tensor

from diffae.config import Prediction
from diffae.schedule import Path

EpsModel = Callable[[Tensor, Tensor], Tensor]
"""`(x_t (n, ...), t (n,)) -> eps (n, ...)`: the noise in x_t."""


def solve(eps_model: EpsModel, x: Float[Tensor, "n *s"], path: Path, *, clamp: bool = False) -> Float[Tensor, "n *s"]:
    """Follows the deterministic DDIM along a path, from noise to image or from image to noise.

    Args:
        eps_model: predicts the noise in x_t at timestep t.
        x: the state at the path's first level, (n, ...).
        path: the levels to visit, see `schedule`.
        clamp: whether each predicted x_0 is clamped to [-1, 1], as the authors do for images in both directions.

    Returns:
        The state at the path's last level, shaped like x.

    References:
        Song et al. 2021 (DDIM), eq. 12 with sigma = 0; Preechakul et al. 2022, eqs. 2 and 8.
    """
    state = x
    for state, _ in trajectory(eps_model, x, path, clamp=clamp):  # noqa: B007 - the last state is the result
        pass
    return state


def trajectory(
    eps_model: EpsModel, x: Float[Tensor, "n *s"], path: Path, *, clamp: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same as `solve`, step by step: yields (state at the next level, x_0 predicted on the way there)."""
    for i, t in enumerate(path.t):
        alpha, sigma = _alpha_sigma(path.alpha_bar[i], x)
        alpha_next, sigma_next = _alpha_sigma(path.alpha_bar[i + 1], x)
        eps = eps_model(x, t.to(x).expand(len(x)))
        x_0 = (x - sigma * eps) / alpha
        if clamp:
            # The eps that belongs to the clamped x_0, so that both still make up x_t.
            x_0 = x_0.clamp(-1, 1)
            eps = (x - alpha * x_0) / sigma
        x = alpha_next * x_0 + sigma_next * eps
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
