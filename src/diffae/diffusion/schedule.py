"""The noise schedule, and the paths that solvers take through it.

Notation: `x_t = alpha_t x_0 + sigma_t eps` with `alpha_t = sqrt(alpha_bar_t)`, `sigma_t = sqrt(1 - alpha_bar_t)`. The
tables are float64: in float32 they would move inferred codes by 2e-3.

Direction is data: a `NoisePath` is the list of noise levels that a solver visits and the timesteps at which it asks the
network. `decoding_path` leads from noise to image, `encoding_path` from image to noise; `solvers.solve` serves both.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffae.config import Prediction, ScheduleConfig

Spacing = Literal["log_snr", "power", "karras"]
"""How the levels of a path lie: evenly in lambda = log(alpha / sigma) (Lu et al. 2022, DPM-Solver), in t^(2/3), or in
(sigma / alpha)^(1/7) (Karras et al. 2022, eq. 5)."""

NOTHING = 1e-12
"""alpha_bar of noise alone; not quite 0, so that it has a logarithm."""
LEAST_ALPHA, LEAST_ALPHA_OF_MEAN = 0.01, 0.1
"""An eps-predicting network is not asked where alpha is below: there x_0 is its error, magnified by 1 / alpha. The mean decode, one
call of which nothing corrects, keeps away further."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What suits one trained network; `diffae calibrate` measures it."""

    spacing: Spacing = "log_snr"
    """How the levels of a path lie."""
    t_max: float
    """The timestep at which paths begin: the noise of x_T."""
    mean_t: int
    """The timestep at which pure noise is passed off as x_t for the mean decode."""
    steps: int = 20
    """Of the way to an image's x_T, and of the way back."""
    sample_steps: int = 10
    """From noise that was drawn; a last predicted x_0 follows. A network that jumps takes one step, and none follows."""


class Schedule:
    """The variance-preserving noise schedule of Ho et al. 2020.

    Attributes:
        T: number of training timesteps; they are numbered 0..T-1.
        alpha_bar: float64 (T,), `prod_{s<=t} (1 - beta_s)`.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        self.T = config.T
        # On the host, also where a model is only sketched (`torch.device("meta")`): there PyTorch would load its compiler for this.
        betas = torch.linspace(config.beta_start, config.beta_end, config.T, dtype=torch.float64, device="cpu")
        self.alpha_bar: Float[Tensor, " T"] = torch.cumprod(1 - betas, dim=0)
        if config.zero_terminal_snr:
            # Algorithm 1 of Lin et al.: the first alpha stays, the last becomes 0.
            alpha = self.alpha_bar.sqrt()
            alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
            self.alpha_bar = alpha.square().clamp(min=NOTHING)
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def add_noise(self, x_0: Float[Tensor, "n *s"], eps: Float[Tensor, "n *s"], t: Int[Tensor, " n"]) -> Float[Tensor, "n *s"]:
        """`x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps` (Ho et al. 2020, eq. 4), t in 0..T-1."""
        alpha, sigma = self.alpha_sigma(t, like=x_0)
        return alpha * x_0 + sigma * eps

    def alpha_sigma(self, t: Tensor, *, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t of timesteps t in 0..T-1, in the type of `like` and shaped to multiply it; between whole timesteps
        log alpha_bar is interpolated."""
        alpha_bar = self.levels(t).reshape(-1, *[1] * (like.dim() - 1))
        return alpha_bar.sqrt().to(like), (1 - alpha_bar).sqrt().to(like)

    def levels(self, t: Tensor) -> Float[Tensor, " n"]:
        """alpha_bar of timesteps t in 0..T-1, float64, where t is."""
        if t.device not in self._tables:  # Each device is sent the tables once.
            self._tables[t.device] = (self.alpha_bar.to(t.device), self.alpha_bar.log().to(t.device))
        alpha_bar, logs = self._tables[t.device]
        if not t.is_floating_point():
            return alpha_bar[t]
        below = t.floor().long().clamp(0, self.T - 1)
        return torch.lerp(logs[below], logs[(below + 1).clamp(max=self.T - 1)], t.double() - below).exp()

    def timesteps_of(self, alpha_bar: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The timesteps of levels, between whole ones by the same interpolation as `alpha_sigma`."""
        rising = -self.alpha_bar.log()
        wanted = -alpha_bar.log()
        above = torch.searchsorted(rising, wanted).clamp(1, self.T - 1)
        return above - 1 + ((wanted - rising[above - 1]) / (rising[above] - rising[above - 1])).clamp(0, 1)


@dataclass(frozen=True, slots=True)
class NoisePath:
    """The way of a solver: step i leads from level i to level i + 1 and asks the network at `t[i]`.

    Attributes:
        alpha_bar: float64 (steps + 1,), the noise levels visited, in 0..1; rising towards the image, falling towards
            the noise.
        t: float64 (steps + 1,), the timesteps of these levels; NaN at the clean image and at pure noise, which have none and can
            only be the last.
        jumps: whether the network is told, at each step, where that leads: one call goes as far as many small steps would.
    """

    alpha_bar: Float[Tensor, " steps_plus_1"]
    t: Float[Tensor, " steps_plus_1"]
    jumps: bool = False

    def __len__(self) -> int:
        return len(self.t) - 1

    def last(self, steps: int) -> "NoisePath":
        """The last `steps` steps of the way."""
        start = len(self) - steps
        return replace(self, alpha_bar=self.alpha_bar[start:], t=self.t[start:])

    def backwards(self) -> "NoisePath":
        """The same levels the other way round.

        Raises:
            ValueError: the last level has no timestep, so nothing can start there.
        """
        if self.t[-1].isnan():
            raise ValueError("This path ends where no network can be asked, so it cannot be gone backwards.")
        return replace(self, alpha_bar=self.alpha_bar.flip(0), t=self.t.flip(0))

    def to_the_image(self) -> "NoisePath":
        """The way and one step more, from its last level to the predicted x_0 itself."""
        alpha_bar, t = torch.cat([self.alpha_bar, self.alpha_bar.new_ones(1)]), torch.cat([self.t, self.t.new_tensor([math.nan])])
        return replace(self, alpha_bar=alpha_bar, t=t)

    def ending_in_the_image(self) -> "NoisePath":
        """The way in as many steps, the last of which leads to the predicted x_0 itself."""
        return replace(self, alpha_bar=self.alpha_bar[:-1], t=self.t[:-1]).to_the_image()


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


def kind_of_t(x: Tensor) -> torch.dtype:
    """The type of timesteps beside x: bfloat16, for one, has steps of 4 above 512."""
    return torch.promote_types(x.dtype, torch.float32)


def each_error(
    output: Float[Tensor, "n c *sides"], target: Float[Tensor, "n c *sides"], known: Float[Tensor, "n 1 *sides"] | None
) -> Float[Tensor, " n"]:
    """The mean squared error of each image, over the pixels that count (1, not 0); over all, where `known` is None."""
    squares = (output - target).square()
    if known is None:
        return squares.flatten(1).mean(1)
    return (squares * known).flatten(1).sum(1) / (target.shape[1] * known.flatten(1).sum(1)).clamp(min=1)


def min_snr_weights(alpha_bar: Float[Tensor, " n"], gamma: float, prediction: Prediction) -> Float[Tensor, " n"]:
    """Weights of the prediction's squared errors, with which those of x_0 have min(SNR, gamma) (Hang et al. 2023, eq. 4)."""
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=gamma) / (snr + 1 if prediction == "v" else snr)


def decoding_path(schedule: Schedule, steps: int) -> NoisePath:
    """From noise to image in the authors' spacing: t falls to 0, and the last step ends at alpha_bar = 1."""
    t = torch.tensor(uniform_timesteps(schedule.T, steps)[::-1])
    return NoisePath(schedule.alpha_bar[t], t.double()).to_the_image()


def encoding_path(schedule: Schedule, steps: int) -> NoisePath:
    """From image to noise in the authors' spacing: the clean image is taken as level t = 0, the end is alpha_bar = 0.

    So x_T is the last predicted eps, and `decoding_path` is not this path reversed but shifted by one level against it,
    which is one reason why the authors' reconstruction is not exact.
    """
    t = torch.tensor(uniform_timesteps(schedule.T, steps))
    levels = torch.cat([schedule.alpha_bar[t], schedule.alpha_bar.new_zeros(1)])
    return NoisePath(levels, torch.cat([t.double(), torch.tensor([math.nan], dtype=torch.float64)]))


def spaced_path(schedule: Schedule, steps: int, *, spacing: Spacing = "log_snr", t_max: float | None = None) -> NoisePath:
    """From noise to the level of t = 0, where the image is taken to live, in `steps` steps; `backwards` is the way from the image.

    Both ways visit the same levels, so that a solver errs by its own order alone.

    Args:
        schedule: the levels that there are.
        steps: number of steps.
        spacing: how the levels lie.
        t_max: the timestep of the first level; by default the last that there is.

    Raises:
        ValueError: no step, or a t_max that is not between 0 and T - 1.
    """
    t_max = schedule.T - 1.0 if t_max is None else t_max
    if steps < 1:
        raise ValueError(f"A path needs at least one step, got {steps}.")
    if not 0 < t_max <= schedule.T - 1:
        raise ValueError(f"The first timestep must be above 0 and at most {schedule.T - 1}, got {t_max}.")
    share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if spacing == "power":
        t = t_max * (1 - share) ** 1.5
    else:
        alpha, sigma = schedule.alpha_sigma(torch.tensor([t_max, 0.0], dtype=torch.float64), like=share)
        tau = sigma / alpha
        if spacing == "log_snr":
            tau = torch.lerp(tau[0].log(), tau[1].log(), share).exp()
        else:
            tau = torch.lerp(tau[0] ** (1 / 7), tau[1] ** (1 / 7), share) ** 7
        t = schedule.timesteps_of(1 / (1 + tau**2)).clamp(0, t_max)
    # Exactly t_max and 0, whatever the rounding of the inverse.
    t[0], t[-1] = t_max, 0.0
    alpha, _ = schedule.alpha_sigma(t, like=share)
    return NoisePath(alpha.square(), t)


def one_step(schedule: Schedule, t: int) -> NoisePath:
    """From the level of timestep t to the image itself: one call, whose predicted x_0 it is."""
    return NoisePath(schedule.levels(torch.tensor([t])), torch.tensor([float(t)], dtype=torch.float64)).to_the_image()


def uncalibrated(schedule: Schedule, prediction: Prediction) -> Calibration:
    """What suits most networks of a kind: all timesteps if it predicts v (but where nothing of the image is left, log-SNR has no
    grid), those of no small alpha if it predicts eps."""
    if prediction == "v" and float(schedule.alpha_bar[-1]) > NOTHING:
        return Calibration(t_max=schedule.T - 1.0, mean_t=schedule.T - 1)
    mean_t = int(last_usable_timestep(schedule, least_alpha=LEAST_ALPHA_OF_MEAN))
    return Calibration(t_max=last_usable_timestep(schedule), mean_t=mean_t)


def last_usable_timestep(schedule: Schedule, *, least_alpha: float = LEAST_ALPHA) -> float:
    """The last timestep at which alpha is not below `least_alpha`."""
    return float((schedule.alpha_bar >= least_alpha**2).sum()) - 1
