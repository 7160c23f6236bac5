"""The plain DDIM, whose noise has to hold everything: what the paper compares a diffusion autoencoder with."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from diffae.config import AutoencoderConfig
from diffae.diffusion.border import border
from diffae.diffusion.interpolation import slerp
from diffae.diffusion.model import ImageDiffusion
from diffae.diffusion.predictor import NoisePredictor
from diffae.diffusion.schedule import decoding_path
from diffae.diffusion.solvers import Solver
from diffae.runtime.seeding import Draws, draw_seed


class DDIM(ImageDiffusion):
    """The plain DDIM: the same UNet without z_sem, to compare with. Its x_T alone is the code of an image.

    Args:
        config: the network and the diffusion, with `z_dim=None`.
        unet: a network of your own in place of the configured one.

    Raises:
        ValueError: a configuration with a z_sem.

    References:
        Song et al. 2021, *Denoising Diffusion Implicit Models*; the baseline of Preechakul et al. 2022, section 5.
    """

    def __init__(self, config: AutoencoderConfig, *, unet: NoisePredictor | None = None) -> None:
        if config.z_dim is not None:
            raise ValueError(f"A plain DDIM has no z_sem: its z_dim must be None, got {config.z_dim}.")
        super().__init__(config, unet=unet)

    @border
    def invert(
        self, x: Float[Tensor, "n c *sides"], *, steps: int | None = None, solver: Solver | None = None, clamp: bool | None = None
    ) -> Float[Tensor, "n c *sides"]:
        """x_T of images: the DDIM run backwards. Arguments as in `DiffusionAutoencoder.invert`."""
        return self._to_noise(x, None, steps=steps, solver=solver, clamp=clamp)

    @border
    def decode(
        self, x_T: Float[Tensor, "n c *sides"], *, steps: int | None = None, solver: Solver | None = None, clamp: bool | None = None
    ) -> Float[Tensor, "n c *sides"]:
        """Images of the x_T that `invert` gave. Arguments as in `DiffusionAutoencoder.decode`."""
        return self._to_image(x_T, None, steps=steps, solver=solver, clamp=clamp)

    @border
    def reconstruct(
        self, x: Float[Tensor, "n c *sides"], *, steps: int | None = None, solver: Solver | None = None
    ) -> Float[Tensor, "n c *sides"]:
        """`decode(invert(x))`."""
        return self.decode(self.invert(x, steps=steps, solver=solver), steps=steps, solver=solver)

    @border
    def sample(
        self, num: int = 1, *, steps: int | None = None, solver: Solver | None = None, batch_size: int = 64, seed: int = 0,
        generator: torch.Generator | None = None, start: int = 0,
    ) -> Float[Tensor, "num c *sides"]:  # fmt: skip
        """New images number `start` on, from x_T ~ N(0, I). Number i depends on the seed and i alone."""
        seed = seed if generator is None else draw_seed(generator)
        parts = [range(i, min(i + batch_size, num)) for i in range(0, num, batch_size)]
        noises = (self.draw_x_T(len(part), seed, start=start + part.start) for part in parts)
        return torch.cat([self._to_sample(x_T, None, steps=steps, solver=solver, clamp=None) for x_T in noises])

    @border
    def interpolate(
        self,
        x_a: Float[Tensor, "n c *sides"],
        x_b: Float[Tensor, "n c *sides"],
        weights: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
        *,
        steps: int | None = None,
        solver: Solver | None = None,
    ) -> Float[Tensor, "n frames c *sides"]:
        """From image to image by slerp of x_T (figure 4, beside the autoencoder's)."""
        a, b = (self.invert(x, steps=steps, solver=solver) for x in (x_a, x_b))
        frames = (slerp(a, b, w) for w in map(float, weights))
        return torch.stack([self.decode(x_T, steps=steps, solver=solver) for x_T in frames], dim=1)

    @border
    def sdedit(
        self, x: Float[Tensor, "n c *sides"], *, t_0: float = 0.5, steps: int = 100, seed: int = 0, start: int = 0
    ) -> Float[Tensor, "n c *sides"]:
        """Images noised part of the way and denoised again: what is lost is made up anew.

        Args:
            x: images, or sketches of images.
            t_0: how much of the way to noise, in 0..1: 0 returns the image, 1 all but a fresh sample.
            steps: network calls of the whole way; about this share of them is made.
            seed: of the noise.
            start: number of the first image, whose noise depends on the seed and its number alone.

        References:
            Meng et al. 2022, *SDEdit*, algorithm 1, with the deterministic DDIM.
        """
        if not 0 <= t_0 <= 1:
            raise ValueError(f"The share of the way to noise must be within 0..1, got {t_0}.")
        path = decoding_path(self.schedule, steps).last(round(t_0 * steps))
        if not len(path):
            return x
        return self._redrawn(x, self.draw_x_T(len(x), seed, start=start), None, path)

    def loss(
        self, x_0: Float[Tensor, "n c *sides"], draws: Draws, *, noisy: bool = False, min_snr: float | None = None,
        known: Float[Tensor, "n 1 *sides"] | None = None,
    ) -> Float[Tensor, ""]:  # fmt: skip
        """L_simple, as in `DiffusionAutoencoder.loss`."""
        return self._loss(x_0, draws, None, noisy=noisy, min_snr=min_snr, known=known)
