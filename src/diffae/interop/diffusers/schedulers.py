"""Schedulers of diffusers and solvers of ours: the one as the other, and whether both speak of the same noise."""

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LMSDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from diffae.config import AutoencoderConfig
from diffae.diffusion.schedule import NoisePath, Schedule

PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}
"""What diffusers calls our predictions."""
SCALED = (EulerDiscreteScheduler, LMSDiscreteScheduler)
"""Schedulers whose state is x / alpha."""
ADAPTABLE = (DDIMScheduler, DPMSolverMultistepScheduler, DEISMultistepScheduler, UniPCMultistepScheduler, *SCALED)
"""Those whose steps are functions of the levels, the state and the predicted x_0 alone, one network call each."""
DECODING = (DDIMScheduler, UniPCMultistepScheduler, LMSDiscreteScheduler)
"""Those of them that go to the image alone: the other way the first has the root of a negative variance, the second corrects with
the levels in the wrong order, and the third extrapolates a cubic over ever longer steps."""


class SchedulerStep:
    """The step of a scheduler of diffusers as a solver: `ae.decode(z_sem, x_T, solver=SchedulerStep(scheduler))`.

    The levels are the path's, not the scheduler's own: its betas, spacing, timesteps and prediction type count for nothing; its
    order, its algorithm and what it does at the last steps do. Predicted images are clamped if `clamp` says so, whatever
    `clip_sample` says. A step to the image itself is the predicted x_0, in which all of them end but LMS, whose last step is of
    higher order.

    Args:
        scheduler: one of `ADAPTABLE`, which stays as it is.

    Raises:
        ValueError: another scheduler, or one whose settings make its steps random, or of another kind of noise.
    """

    def __init__(self, scheduler: Any) -> None:
        name, known = type(scheduler).__name__, ", ".join(kind.__name__ for kind in ADAPTABLE)
        if type(scheduler) not in ADAPTABLE:
            raise ValueError(
                f"{name} cannot be a solver here, where a step follows from levels, state and the last predicted images: it "
                f"draws noise, asks the network twice, or keeps to timesteps of its own. These can: {known}. In a DiffAEPipeline "
                "others decode too."
            )
        config = scheduler.config
        for refused, why in (
            (str(config.get("algorithm_type", "")).startswith("sde"), f"algorithm_type={config.get('algorithm_type')!r} is random"),
            (bool(config.get("thresholding")), "thresholding=True changes what the network predicts (`clamp=True` clamps it)"),
            (
                bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction",
                "it is set for flow matching, and this network diffuses",
            ),
        ):
            if refused:
                raise ValueError(f"This {name} cannot be a solver here: {why}. Make one with other settings.")
        self._kind, self._config, self._running = type(scheduler), dict(config), scheduler

    def __call__(self, x: Tensor, path: NoisePath, i: int, x_0s: Sequence[Tensor], /) -> Tensor:
        """The state at level i + 1; see `diffusion.solvers.Step`.

        Raises:
            ValueError: one of `DECODING` on the way to noise, or a path that visits noise alone.
        """
        if i == 0:
            self._begin(path)
        level, following = float(path.alpha_bar[i]), float(path.alpha_bar[i + 1])
        if following == 1:
            return x_0s[-1]
        if self._kind is DDIMScheduler:
            return self._running.step(x_0s[-1], len(path) - i, x).prev_sample.to(x)
        scaled = self._kind in SCALED
        state = x / level**0.5 if scaled else x
        state = self._running.step(x_0s[-1], self._running.timesteps[i], state).prev_sample
        return (state * following**0.5 if scaled else state).to(x)

    def _begin(self, path: NoisePath) -> None:
        """A fresh scheduler with the path's levels in place of its own."""
        rises = bool((path.alpha_bar.diff() > 0).all())
        if not rises and self._kind in DECODING:
            raise ValueError(
                f"{self._kind.__name__} decodes, but does not invert: its steps ask for levels in the other order. Invert with "
                "'ddim', 'dpmpp2m' or DPMSolverMultistepScheduler."
            )
        if bool((path.alpha_bar <= 0).any()):
            raise ValueError("This path visits noise alone, where schedulers cannot step. Give `diffusion.schedule.spaced_path`.")
        num = len(path)
        own = {"prediction_type": "sample", "clip_sample": False, "final_sigmas_type": "sigma_min"}
        more = {name: value for name, value in own.items() if name in self._config}
        self._running = new = self._kind.from_config(self._config, **more)
        if self._kind is DDIMScheduler:
            # It looks levels up by whole timesteps: here they are numbered along the path, the last 0.
            new.alphas_cumprod, new.num_inference_steps = path.alpha_bar.flip(0), new.config.num_train_timesteps
            return
        new.sigmas = ((1 - path.alpha_bar) / path.alpha_bar).sqrt().cpu()
        # How many there are is what counts: some change their order at the end.
        new.timesteps, new.num_inference_steps = torch.arange(num, 0, -1, dtype=torch.float64), num
        new.set_begin_index(0)
        new.is_scale_input_called = True


def scheduler_of(config: AutoencoderConfig) -> DDIMScheduler:
    """The scheduler that decodes as the authors do: DDIM over the levels that a model was trained with."""
    schedule = config.schedule
    return DDIMScheduler(
        num_train_timesteps=schedule.T,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule="linear",
        rescale_betas_zero_snr=schedule.zero_terminal_snr,
        prediction_type=PREDICTIONS[config.prediction],
        clip_sample=config.latents is None,
        set_alpha_to_one=True,
        steps_offset=0,
        timestep_spacing="leading",
    )


def check_scheduler(scheduler: Any, config: AutoencoderConfig) -> None:
    """Refuses a scheduler that takes the network's output for something else, or is of other noise levels.

    Raises:
        ValueError: it is so; the message says what to make it from.
    """
    name = type(scheduler).__name__
    advice = f"Make it by {name}.from_config(pipe.scheduler.config), from the scheduler that the model came with."
    own, levels = getattr(scheduler, "alphas_cumprod", None), Schedule(config.schedule).alpha_bar
    if own is None or own.shape != levels.shape or bool((own.double().cpu() - levels).abs().max() > 1e-4):
        raise ValueError(f"The noise levels of this {name} are not those that the network was trained with. {advice}")
    said, wanted = scheduler.config.get("prediction_type"), PREDICTIONS[config.prediction]
    if said != wanted:
        raise ValueError(f"The network predicts {wanted!r}, and this {name} takes its output for {said!r}. {advice}")


def clips(scheduler: Any) -> bool:
    """Whether a scheduler clamps predicted images to [-1, 1]. One that does not know the setting still has it, if it was made from
    another's configuration."""
    return "clip_sample" in inspect.signature(type(scheduler).__init__).parameters and bool(scheduler.config["clip_sample"])


def way_to_noise(scheduler: Any, schedule: Schedule) -> tuple[NoisePath, Literal["ddim", "dpmpp2m"]]:
    """The way from an image to the noise from which a scheduler, its timesteps set, decodes it, and the solver that goes it.

    Of a DDIMScheduler whose timesteps end at 0 it is the authors' (`diffusion.schedule.encoding_path`), index shift included; else
    the levels of all timesteps, from that of t = 0 on.
    """
    t = scheduler.timesteps.double().cpu().unique()
    ddim = isinstance(scheduler, DDIMScheduler)
    if ddim and t[0] == 0:
        nothing = torch.zeros(1, dtype=torch.float64)
        return NoisePath(torch.cat([schedule.levels(t), nothing]), torch.cat([t, nothing * torch.nan])), "ddim"
    if t[0] > 0:
        t = torch.cat([t.new_zeros(1), t])
    return NoisePath(schedule.levels(t), t), "ddim" if ddim else "dpmpp2m"
