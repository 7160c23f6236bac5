"""What every diffusion of images has: a UNet, a schedule, a way back and forth between image and noise.

`ddim.DDIM` is the plain one, whose noise has to hold everything; `autoencoder.DiffusionAutoencoder` puts the meaning into z_sem.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffae.config import AutoencoderConfig, Precision
from diffae.diffusion.images import ImageModel
from diffae.diffusion.inversion import RECURSIONS, Inversion
from diffae.diffusion.networks import configured
from diffae.diffusion.predictor import NoisePredictor, Predictor, Recordings
from diffae.diffusion.schedule import (
    Calibration,
    NoisePath,
    Schedule,
    decoding_path,
    draw_timesteps,
    each_error,
    encoding_path,
    min_snr_weights,
    one_step,
    spaced_path,
    uncalibrated,
)
from diffae.diffusion.solvers import EpsModel, Solver, solve, to_target
from diffae.nn import UNet
from diffae.runtime.seeding import Draws as Draws
from diffae.runtime.seeding import Start as Start
from diffae.runtime.seeding import draw_seed as draw_seed

JUMPS = 4
"""Steps up to which a network that jumps does so, where no solver is named."""
ImageSolver = Solver
"""What images are decoded and inverted with. `ddim` is the authors' scheme, with their spacing, index shift and clamping; the
others go evenly in log-SNR and do not clamp. UniPC is for decoding."""


class ImageDiffusion(ImageModel):
    """A UNet, a noise schedule, and what follows from the two.

    Args:
        config: the network and the diffusion.
        unet: a network of your own in place of the configured one; see `NoisePredictor`.

    Attributes:
        precision: of the UNet's calls by solvers, float32 unless set. `bfloat16` is up to twice as quick where the processor has it
            (`auto` asks), and errs by a hundredth of what the network says; images keep the type that they came in.
        watch: told, before each call of the UNet by a solver, of how many images it is; what it raises ends the work.
        records: whether a card records the UNet's calls by solvers, a few shapes of batches, and replays them (CUDA graphs).
    """

    precision: Precision = "float32"
    records = True
    watch: Callable[[int], None] | None = None

    def __init__(self, config: AutoencoderConfig, *, unet: NoisePredictor | None = None) -> None:
        super().__init__(config)
        self.schedule = Schedule(config.schedule)
        self._calibration: Calibration | None = None
        self._recordings = Recordings()
        if unet is None:
            unet = UNet(config.unet, image_size=config.image_size, channels=config.channels, z_dim=config.z_dim)
        self.unet: Any = unet

    @property
    def calibration(self) -> Calibration:
        """Where paths begin, how many steps they take, and the timestep of the mean decode."""
        return self._calibration or uncalibrated(self.schedule, self.config.prediction)

    @calibration.setter
    def calibration(self, calibration: Calibration) -> None:
        self._calibration = calibration

    def to_config(self) -> dict[str, Any]:
        """`config.json`, with the calibration if there is one, and with what stands in the place of the configured networks."""
        calibration = None if self._calibration is None else dataclasses.asdict(self._calibration)
        networks = {"unet": self.unet, "encoder": getattr(self, "encoder", None)}
        own = {k: f"{type(net).__module__}.{type(net).__qualname__}" for k, net in networks.items() if not configured(net)}
        return super().to_config() | {"calibration": calibration} | ({"networks": own} if own else {})

    def eps_model(self, z_sem: Float[Tensor, "n d"] | None = None) -> EpsModel:
        """The network as solvers want it: `(x_t, t) -> eps`, whatever it was trained to predict."""
        return Predictor(
            self.unet, z_sem, schedule=self.schedule, prediction=self.config.prediction, precision=self.precision,
            recordings=self._recordings if self.records else None, watch=self.watch,
        )  # fmt: skip

    @property
    def jumps(self) -> bool:
        """Whether the network was distilled (`diffae distill`): from noise to image, and back, in one to four calls."""
        return configured(self.unet) and self.config.unet.jumps

    @property
    def sample_steps(self) -> int:
        """Steps from drawn noise to an image where none are asked for: one where the network jumps, else the calibration's."""
        return 1 if self.jumps else self.calibration.sample_steps

    def solver(self, asked: Solver | None, steps: int) -> Solver:
        """The solver of so many steps: by default `jump` where the network does and the steps are few, else `dpmpp2m`. A ValueError
        where `jump` is asked of a network that does not."""
        if asked == "jump" and not self.jumps:
            raise ValueError("The solver 'jump' is for distilled models, and this one is not: distil it with `diffae distill`.")
        return asked or ("jump" if self.jumps and steps <= JUMPS else "dpmpp2m")

    def path(self, steps: int, solver: Solver | None = None) -> NoisePath:
        """From noise to the level at which images are taken to live; `path(steps).backwards()` is the way there."""
        path = spaced_path(self.schedule, steps, spacing=self.calibration.spacing, t_max=self.calibration.t_max)
        return dataclasses.replace(path, jumps=self.solver(solver, steps) == "jump")

    def path_of(self, inversion: Inversion, steps: int) -> NoisePath:
        """The path of an inversion; those by a recursion ask at the levels themselves, and never jump."""
        return self.path(steps, "dpmpp2m" if inversion in RECURSIONS else None)

    def sample_path(self, steps: int | None = None, solver: Solver | None = None) -> NoisePath:
        """From drawn noise to an image: with a last predicted x_0, so that no noise is left in it; by default in `sample_steps`."""
        steps = self.sample_steps if steps is None else steps
        if solver == "ddim":
            return decoding_path(self.schedule, steps)
        path = self.path(steps, solver)
        return path.ending_in_the_image() if path.jumps else path.to_the_image()

    def draw_x_T(self, num: int, seed: int | torch.Generator, *, start: Start = 0) -> Float[Tensor, "n c *sides"]:
        """Noise of images of these numbers (see `Draws.of`): that of each depends on the seed and its number alone."""
        x_T = Draws.of(num, seed, start=start, device=self.device).normal("x_T", self.image_shape)
        return x_T.to(next(self.unet.parameters()))

    def _to_noise(self, x: Tensor, z_sem: Tensor | None, *, steps: int | None, solver: Solver | None, clamp: bool | None) -> Tensor:
        """x_T of images: the DDIM run backwards."""
        if solver == "unipc":
            raise ValueError("UniPC decodes, but does not invert: its corrector asks for levels in the other order. Use 'dpmpp2m'.")
        authors, steps = solver == "ddim", self.calibration.steps if steps is None else steps
        path = encoding_path(self.schedule, steps) if authors else self.path(steps, solver).backwards()
        return self._solve(x, z_sem, path, self.solver(solver, steps), clamp=self._clamps(clamp, authors))

    def _to_image(
        self, x_T: Tensor, z_sem: Tensor | None, *, steps: int | None, solver: Solver | None, clamp: bool | None
    ) -> Tensor:
        """The image of its own x_T, along the path that it came by."""
        authors, steps = solver == "ddim", self.calibration.steps if steps is None else steps
        path = decoding_path(self.schedule, steps) if authors else self.path(steps, solver)
        return self._solve(x_T, z_sem, path, self.solver(solver, steps), clamp=self._clamps(clamp, authors))

    def _to_sample(
        self, x_T: Tensor, z_sem: Tensor | None, *, steps: int | None, solver: Solver | None, clamp: bool | None
    ) -> Tensor:
        """The image of noise that was drawn."""
        path = self.sample_path(steps, solver)
        return self._solve(x_T, z_sem, path, "jump" if path.jumps else solver or "dpmpp2m", clamp=self._clamps(clamp, True))

    def _redrawn(self, x: Tensor, noise: Tensor, z_sem: Tensor | None, path: NoisePath) -> Tensor:
        """Images with noise of the path's first level laid over them, and taken away along it (SDEdit; Meng et al. 2022)."""
        t = torch.full((len(x),), int(path.t[0]), device=x.device)
        return self._solve(self.schedule.add_noise(x, noise.to(x), t), z_sem, path, clamp=self._clamps(None, True))

    def _sharpened(self, x: Tensor, noise: Tensor, z_sem: Tensor | None, t: int) -> Tensor:
        """The same at the level of timestep t, by one call."""
        if not 0 < t < self.schedule.T:
            raise ValueError(f"The timestep of noise must be within 1..{self.schedule.T - 1}, got {t}.")
        return self._redrawn(x, noise, z_sem, one_step(self.schedule, t))

    def _clamps(self, asked: bool | None, usual: bool) -> bool:
        """Whether predicted images are clamped: as asked for, or as usual for pixels."""
        return usual and self.config.latents is None if asked is None else asked

    def _solve(self, x: Tensor, z_sem: Tensor | None, path: NoisePath, solver: Solver = "ddim", *, clamp: bool) -> Tensor:
        return solve(self.eps_model(z_sem), x, path, solver=solver, clamp=clamp)

    def _loss(
        self, x_0: Tensor, draws: Draws, z_sem: Tensor | None, *, noisy: bool, min_snr: float | None = None,
        known: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Mean squared error of the network's prediction at one timestep per image; of what counts, where not all does."""
        t = draw_timesteps(draws.uniform("t"), self.schedule.T, noisy=noisy)
        eps = draws.normal("eps", tuple(x_0.shape[1:])).to(x_0)
        alpha, sigma = self.schedule.alpha_sigma(t, like=x_0)
        output = self.unet(alpha * x_0 + sigma * eps, t.to(x_0), z_sem=z_sem, draws=draws)
        target = to_target(self.config.prediction, x_0, eps, alpha, sigma)
        if min_snr is None and known is None:
            return F.mse_loss(output.to(target.dtype), target)
        weights = 1.0 if min_snr is None else min_snr_weights(self.schedule.levels(t), min_snr, self.config.prediction).to(target)
        return (each_error(output.to(target.dtype), target, known) * weights).mean()
