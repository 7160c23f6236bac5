"""Distillation: a trained decoder learns to jump, from any noise level to any other in one call.

The teacher follows its ODE in a few steps, from drawn noise to an image and from an image to its noise. Of the states that it
comes through, the student learns pairs: with the noise that it says in the first, one DDIM step shall lead to the second. Where
both are the same level that is the ODE's own slope, so the way of many steps goes on working with the same network. No network is
differentiated by its inputs, and no target is the student's own.

References:
    Boffi et al. 2024, *Flow map matching*; Luhman & Luhman 2021, *Knowledge distillation in iterative generative models*, whose
    pairs are those from end to end. `docs/design/jumps.md` says what else was tried.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import RunConfig
from diffae.data.contents import Progress
from diffae.data.dataset import ImageSet
from diffae.diffusion.schedule import NoisePath, each_error
from diffae.diffusion.solvers import IMAGE, to_target, trajectory
from diffae.interop import official
from diffae.interop.fingerprints import digest_model
from diffae.interop.weights import load
from diffae.pictures import save_png, scale_for, sheet
from diffae.runtime import processes
from diffae.runtime.seeding import Draws, mix
from diffae.training.subjects import ImageSubject

TEACHER_STEPS = 6
"""Of the teacher's ways. Of a model of minutes, images of 6 calls are as good as those of 21."""
PAIRS = 4
"""Of states, that are learned of each way; one of them is a state and itself. A call of the teacher costs a third of a pair."""
INVERTED = 4
"""One of so many images is followed to its noise, the others' z_sem from noise to an image."""
NEAR = 0.3
"""Sine of the angle between two levels below which a pair counts less: there what the network shall say is a small difference, and
the teacher's errors large beside it."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of a way from noise to image, for the host and where the states are.

    Attributes:
        path: the way.
        t: float64, timesteps, `IMAGE` for the image itself.
        alpha_bar: float64.
    """

    path: NoisePath
    t: Float[Tensor, " levels"]
    alpha_bar: Float[Tensor, " levels"]

    @classmethod
    def of(cls, path: NoisePath, device: torch.device) -> "Levels":
        """Those of a path."""
        return cls(path, path.t.nan_to_num(IMAGE).to(device), path.alpha_bar.to(device))

    @property
    def ends_in_the_image(self) -> bool:
        """Whether the last level is the image itself, not that at which images are taken to live."""
        return bool(self.path.t[-1].isnan())


class DistilledSubject(ImageSubject):
    """Images, and an autoencoder whose decoder learns to jump; its encoder stays as it is.

    Args:
        config: the run's, whose `model.unet` jumps, and which starts from the teacher with its encoder frozen.
        data: its images.
        progress: as of `ImageSubject`.

    Raises:
        ValueError: the model to start from is no autoencoder, but a plain DDIM; or another one than when the run began.
    """

    def __init__(self, config: RunConfig, data: ImageSet, *, progress: Progress | None = None) -> None:
        assert config.start.model is not None, "checked by RunConfig"
        # With prior and attributes, which lie beside a run's model.
        source = config.start.model
        self.teacher = (official.load(source) if Path(source).suffix == ".ckpt" else load(source)).eval().requires_grad_(False)
        self.teacher.precision, self.teacher.records = config.training.precision, False
        training, num = config.training, processes.count()
        if training.accumulation == "auto" or training.batch_size % (INVERTED * num * training.accumulation):
            raise ValueError(
                f"One of {INVERTED} images is followed to its noise, so each of {num} processes takes a multiple of as many: "
                f"training.batch_size {training.batch_size} and training.accumulation {training.accumulation!r} do not give that."
            )
        told = f"{digest_model(self.teacher)}-{mix(json.dumps(dataclasses.asdict(self.teacher.calibration))):016x}"
        if config.start.digest not in (None, told):
            raise ValueError(
                f"{source} is another model than when this run began, or is calibrated otherwise, and a student of two teachers is "
                "one of neither: give another folder."
            )
        start = dataclasses.replace(config.start, digest=told)
        super().__init__(dataclasses.replace(config, start=start), data, progress=progress)

    def build(self) -> DiffusionAutoencoder:
        model = super().build()
        assert isinstance(model, DiffusionAutoencoder)
        if model.mean_decoder is not None:
            model.mean_decoder.requires_grad_(False)
        model.preparation, model.calibration = self.teacher.preparation, self.teacher.calibration
        return model

    def place(self, device: torch.device) -> None:
        super().place(device)
        self.teacher.to(device)
        path = self.teacher.path(TEACHER_STEPS, "dpmpp2m")
        self._to_image, self._of_image = (Levels.of(way, device) for way in (path.to_the_image(), path))

    def loss(self, model: nn.Module, batch: Tensor, draws: Draws) -> Tensor:
        assert isinstance(model, DiffusionAutoencoder)
        x, known, features = self.view(batch, draws)
        with torch.no_grad():
            # In float32, as states and timesteps are then, whatever the networks compute in.
            z_sem = (model.encoder(x) if features is None else model.encoder(x, features)).float()
        if len(x) % INVERTED:  # Known to the host, as all of this, so that no device is waited for.
            raise ValueError(f"Every {INVERTED}th image of a run is followed to its noise, and here {len(x)} come at a time.")
        # Every fourth of the run, whoever computes it.
        some = [torch.arange(len(x), device=x.device)[first::INVERTED] for first in range(INVERTED)]
        halves = [(some[0], self._of_image), (torch.cat(some[1:]), self._to_image)]
        losses = []
        for rows, levels in halves:
            counted = None if known is None else known[rows].repeat(PAIRS, *[1] * (known.dim() - 1))
            states, x_0s = self._way(z_sem[rows], draws[rows], levels, x[rows])
            losses.append(pair_loss(model, z_sem[rows], states, x_0s, levels, draws[rows], counted))
        return torch.cat(losses).mean()

    @torch.no_grad()
    def _way(
        self, z_sem: Tensor, draws: Draws, levels: "Levels", x: Tensor
    ) -> tuple[Float[Tensor, "levels n *s"], Float[Tensor, "levels n *s"]]:
        """The states that the teacher comes through, and the x_0 that it predicts there, in the order of the levels: from drawn
        noise where they end in the image itself, else from x back. At the last of its way it is not asked, and x_0 is repeated."""
        if levels.ends_in_the_image:
            path, start = levels.path, draws.normal("x_T", self.teacher.image_shape).to(z_sem)
        else:
            path, start = levels.path.backwards(), x
        states, x_0s = zip(*trajectory(self.teacher.eps_model(z_sem), start, path, solver="dpmpp2m"), strict=True)
        way = torch.stack([start, *states]), torch.stack([*x_0s, x_0s[-1]])
        return way if levels.ends_in_the_image else (way[0].flip(0), way[1].flip(0))

    @torch.no_grad()
    def draw(self, ema: nn.Module, file: Path) -> Path:
        """A sheet with a row each of images, and of their z_sem with the same noise by the teacher and in 1, 2, 4 jumps."""
        assert isinstance(ema, DiffusionAutoencoder)
        x = self._images(self.data.validation[:8] if len(self.data.validation) else self.data.train[:8], ema)
        z_sem = ema.encode(x)
        jumps = {f"{n} call{'s' * (n > 1)}": ema.decode(z_sem, steps=n, solver="jump") for n in (1, 2, 4)}
        rows = {"image": x, "teacher": self.teacher.to(x.device).decode(z_sem)} | jumps
        pictures = [ema.to_pictures(row) for row in rows.values()]
        return save_png(sheet(pictures, scale=scale_for(pictures[0]), names=list(rows)), file)

    def save(self, ema: nn.Module, folder: Path, images: int) -> None:
        """Writes the model with all that was fitted to the teacher's z_sem, which is also its own. What was measured of the
        teacher's decoder is not said of it."""
        assert isinstance(ema, DiffusionAutoencoder)
        about = {key: value for key, value in self.teacher.about.items() if key != "metrics"}
        ema.about = about | {"distilled": f"{images:,} images"}
        fitted: dict[str, Any] = {name: getattr(self.teacher, name) for name in ("prior", "standardizer", "attributes")}
        try:
            for name, part in fitted.items():
                setattr(ema, name, part)
            ema.save_pretrained(folder)
        finally:
            for name in fitted:
                setattr(ema, name, None)


def pair_loss(
    model: DiffusionAutoencoder, z_sem: Float[Tensor, "n d"], states: Float[Tensor, "levels n *s"],
    x_0s: Float[Tensor, "levels n *s"], levels: Levels, draws: Draws, known: Tensor | None,
) -> Float[Tensor, " m"]:  # fmt: skip
    """The squared errors of what the network says of `PAIRS` pairs of states of each way: n PAIRS numbers.

    Args:
        model: whose UNet jumps.
        z_sem: of the ways.
        states: at each level.
        x_0s: that were predicted there.
        levels: of the ways.
        draws: of the ways.
        known: which pixels count, (n PAIRS, 1, *s); all by default.
    """
    start, end = pairs(draws, levels)
    rows = torch.arange(len(z_sem), device=z_sem.device).repeat(PAIRS)
    x_t, x_s = states[start, rows], states[end, rows]
    t, to = (levels.t[i].to(x_t) for i in (start, end))
    output = model.unet(x_t, t, z_sem=z_sem[rows], to=to, draws=draws[rows])
    prediction, level = model.config.prediction, levels.alpha_bar[start]
    target, far = jump_target(prediction, x_t, x_s, level, levels.alpha_bar[end])
    own, stays = slope_target(prediction, x_t, x_0s[start, rows], level), start == end
    errors = each_error(output.to(target.dtype), torch.where(_like(stays, target), own, target), known)
    return errors * torch.where(stays, 1, (far.abs() / NEAR).clamp(max=1).flatten())


def pairs(draws: Draws, levels: Levels) -> tuple[Tensor, Tensor]:
    """Of each way `PAIRS` levels to start from and as many to lead to, numbers of the path's levels.

    The first of each leads from a level where the teacher was asked to itself. Of the others half lead from end to end, a quarter
    from anywhere to the end, a quarter between any two, in either direction. Where the last level is not the image itself, half of
    these are turned round.
    """
    last, finite = len(levels.path), len(levels.path) - int(levels.ends_in_the_image)
    u = draws.uniform("pairs", (PAIRS, 4)).transpose(0, 1).flatten(0, 1).unbind(1)
    any_start = (u[1] * last).long().clamp(max=last - 1)
    other = (u[1] * (finite + 1)).long().clamp(max=finite)
    another = (other + 1 + (u[2] * finite).long().clamp(max=finite - 1)) % (finite + 1)
    whole, to_end = u[0] < 1 / 2, u[0] < 3 / 4
    start = torch.where(whole, 0, torch.where(to_end, any_start, other))
    end = torch.where(to_end, last, another)
    turned = (u[3] < 0.5) & (not levels.ends_in_the_image)
    start, end = torch.where(turned, end, start), torch.where(turned, start, end)
    # From noise all but the image itself are asked, from the image all but the noise.
    asked = any_start if levels.ends_in_the_image else any_start + 1
    stays = torch.arange(PAIRS, device=start.device).repeat_interleave(len(draws)) == 0
    return torch.where(stays, asked, start), torch.where(stays, asked, end)


def jump_target(prediction: Any, x_t: Tensor, x_s: Tensor, from_level: Tensor, to_level: Tensor) -> tuple[Tensor, Tensor]:
    """What a network shall say in x_t for DDIM's step to lead to x_s: both are `alpha x_0 + sigma eps` of the same x_0 and eps.

    Args:
        prediction: what it says, eps or v.
        x_t: the state to start from.
        x_s: that to lead to.
        from_level: alpha_bar of x_t, float64 (n,).
        to_level: likewise of x_s.

    Returns:
        The target, and the sine of the angle between both levels, `alpha sigma' - sigma alpha'`, shaped to multiply it.
    """
    levels = [_like(level, x_t) for level in (from_level, to_level)]
    (alpha, sigma), (alpha_s, sigma_s) = ((level.sqrt(), (1 - level).sqrt()) for level in levels)
    sine = alpha * sigma_s - sigma * alpha_s
    x_0, eps = (sigma_s * x_t - sigma * x_s) / sine, (alpha * x_s - alpha_s * x_t) / sine
    return to_target(prediction, x_0, eps, alpha, sigma).to(x_t), sine.to(x_t)


def slope_target(prediction: Any, x_t: Tensor, x_0: Tensor, level: Tensor) -> Tensor:
    """What a network says in x_t that predicts x_0 there, at levels alpha_bar (n,)."""
    alpha, sigma = _like(level, x_t).sqrt(), (1 - _like(level, x_t)).sqrt()
    return to_target(prediction, x_0, (x_t - alpha * x_0) / sigma, alpha, sigma).to(x_t)


def _like(each: Tensor, x: Tensor) -> Tensor:
    """Numbers (n,) shaped to multiply x."""
    return each.reshape(-1, *[1] * (x.dim() - 1))
