"""The noise schedule, and the paths that solvers take through it.

Notation: `x_t = alpha_t x_0 + sigma_t eps` with `alpha_t = sqrt(alpha_bar_t)`, `sigma_t = sqrt(1 - alpha_bar_t)`. The
tables are float64: in float32 they would move inferred codes by 2e-3.

Direction is data: a `Path` is the list of noise levels that a solver visits and the timesteps at which it asks the
network. `decoding_path` leads from noise to image, `encoding_path` from image to noise; `solvers.solve` serves both.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffae.config import ScheduleConfig


class Schedule:
    """The variance-preserving noise schedule of Ho et al. 2020.

    Attributes:
        T: number of training timesteps; they are numbered 0..T-1.
        alpha_bar: float64 (T,), `prod_{s<=t} (1 - beta_s)`.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        self.T = config.T
        betas = torch.linspace(config.beta_start, config.beta_end, config.T, dtype=torch.float64)
        self.alpha_bar: Float[Tensor, " T"] = torch.cumprod(1 - betas, dim=0)

    def add_noise(self, x_0: Float[Tensor, "n *s"], eps: Float[Tensor, "n *s"], t: Int[Tensor, " n"]) -> Float[Tensor, "n *s"]:
        """`x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps` (Ho et al. 2020, eq. 4), t in 0..T-1."""
        alpha, sigma = self.alpha_sigma(t, like=x_0)
        return alpha * x_0 + sigma * eps

    def alpha_sigma(self, t: Tensor, *, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t of timesteps t in 0..T-1, in the type of `like` and shaped to multiply it; between whole timesteps
        log alpha_bar is interpolated."""
        alpha_bar = self.alpha_bar.to(t.device)
        if t.is_floating_point():
            below = t.floor().long().clamp(0, self.T - 1)
            logs = alpha_bar.log()
            alpha_bar = torch.lerp(logs[below], logs[(below + 1).clamp(max=self.T - 1)], t.double() - below).exp()
        else:
            alpha_bar = alpha_bar[t]
        alpha_bar = alpha_bar.reshape(-1, *[1] * (like.dim() - 1))
        return alpha_bar.sqrt().to(like), (1 - alpha_bar).sqrt().to(like)


@dataclass(frozen=True, slots=True)
class Path:
    """The way of a solver: step i leads from level i to level i + 1 and asks the network at `t[i]`.

    Attributes:
        alpha_bar: float64 (steps + 1,), the noise levels visited, in 0..1; rising towards the image, falling towards
            the noise.
        t: float64 (steps,), the timesteps at which the network is asked.
    """

    alpha_bar: Float[Tensor, " steps_plus_1"]
    t: Float[Tensor, " steps"]

    def __len__(self) -> int:
        return len(self.t)

    def last(self, steps: int) -> "Path":
        """The last `steps` steps of the way."""
        start = len(self) - steps
        return Path(self.alpha_bar[start:], self.t[start:])


def uniform_timesteps(T: int, steps: int) -> list[int]:
    """The authors' spacing: `0, stride, 2 stride, ...` below T, for the first integer stride that gives `steps` of them.

    Raises:
        ValueError: no integer stride gives that number; the message names the nearest numbers that exist.
    """
    if not 1 <= steps <= T:
        raise ValueError(f"The number of steps must be between 1 and T={T}, got {steps}.")
    possible = {-(-T // stride): stride for stride in range(T, 0, -1)}
    if steps not in possible:
        below = max(n for n in possible if n < steps)
        above = min(n for n in possible if n > steps)
        raise ValueError(
            f"The authors' spacing cannot give {steps} steps for T={T}; the nearest that it can are {below} and {above}."
        )
    return list(range(0, T, possible[steps]))


def draw_timesteps(u: Float[Tensor, " n"], T: int, *, noisy: bool = False) -> Int[Tensor, " n"]:
    """Integer timesteps 0..T-1 from uniform numbers u in [0, 1): `T u` as in the paper, or `T sqrt(u)`, more often noisy."""
    return torch.clamp((T * (u.sqrt() if noisy else u)).long(), max=T - 1)


def decoding_path(schedule: Schedule, steps: int) -> Path:
    """From noise to image in the authors' spacing: t falls to 0, and the last step ends at alpha_bar = 1."""
    t = torch.tensor(uniform_timesteps(schedule.T, steps)[::-1])
    levels = torch.cat([schedule.alpha_bar[t], schedule.alpha_bar.new_ones(1)])
    return Path(levels, t.double())


def encoding_path(schedule: Schedule, steps: int) -> Path:
    """From image to noise in the authors' spacing: the clean image is taken as level t = 0, the end is alpha_bar = 0.

    So x_T is the last predicted eps, and `decoding_path` is not this path reversed but shifted by one level against it,
    which is one reason why the authors' reconstruction is not exact.
    """
    t = torch.tensor(uniform_timesteps(schedule.T, steps))
    levels = torch.cat([schedule.alpha_bar[t], schedule.alpha_bar.new_zeros(1)])
    return Path(levels, t.double())


def log_snr_path(schedule: Schedule, steps: int) -> Path:
    """From noise to image, `steps` levels evenly spaced in lambda = log(alpha / sigma), the last of them t = 0, then alpha_bar = 1.

    The spacing in which the probability-flow ODE changes about as much in each step (Lu et al. 2022, DPM-Solver).

    Raises:
        ValueError: fewer than two steps.
    """
    if steps < 2:
        raise ValueError(f"The log-SNR spacing needs at least two steps, got {steps}.")
    half_log_snr = 0.5 * (schedule.alpha_bar.log() - (-schedule.alpha_bar).log1p())
    levels = torch.linspace(float(half_log_snr[-1]), float(half_log_snr[0]), steps, dtype=torch.float64)
    # lambda falls with t: its inverse by interpolation in the table.
    falling = half_log_snr.flip(0)
    above = torch.searchsorted(falling, levels).clamp(1, schedule.T - 1)
    share = ((levels - falling[above - 1]) / (falling[above] - falling[above - 1])).clamp(0, 1)
    t = (schedule.T - 1) - (above - 1 + share)
    alpha_bar, _ = schedule.alpha_sigma(t, like=levels)
    return Path(torch.cat([alpha_bar.square(), alpha_bar.new_ones(1)]), t)
