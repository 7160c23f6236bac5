"""The diffusion autoencoder: one image, two codes, and back.

`encode` finds z_sem, the meaning; `invert` finds x_T, what z_sem leaves open; `decode` makes the image of both. All the
rest (`reconstruct`, `vary`, `interpolate`, `sample`) are short compositions of these three.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffae import seeding
from diffae.config import AutoencoderConfig, PriorConfig, from_dict, to_dict
from diffae.files import replacing, write_text
from diffae.latents import Standardizer, lerp, slerp
from diffae.nn import SemanticEncoder, UNet
from diffae.prior import LatentPrior
from diffae.schedule import Schedule, decoding_path, draw_timesteps, encoding_path
from diffae.solvers import EpsModel, solve, to_eps, to_target

Solver = Literal["ddim"]
Inversion = Literal["official"]


@dataclass(frozen=True, slots=True)
class Code:
    """What `infer` found of images, and how: all that `render` needs.

    Attributes:
        z_sem: (n, d), the semantic codes.
        x_T: (n, c, h, w), the stochastic codes.
        inversion: how x_T was found.
        steps: number of solver steps, the same in both directions.
    """

    z_sem: Tensor
    x_T: Tensor
    inversion: Inversion
    steps: int


class DiffusionAutoencoder(nn.Module):
    """Semantic encoder, conditional DDIM (decoder and stochastic encoder at once) and, if fitted, a latent prior.

    Args:
        config: the networks and the diffusion.

    Attributes:
        prior: the latent DDIM, or None.
        standardizer: mean and standard deviation of z_sem over the training images, or None.

    References:
        Preechakul et al. 2022, *Diffusion Autoencoders: Toward a Meaningful and Decodable Representation*.
    """

    prior: LatentPrior | None
    standardizer: Standardizer | None

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = Schedule(config.schedule)
        size, channels, d = config.image_size, config.channels, config.z_dim
        self.encoder = SemanticEncoder(config.encoder, image_size=size, channels=channels, z_dim=d)
        self.unet = UNet(config.unet, image_size=size, channels=channels, z_dim=d)
        self.prior = None
        self.standardizer = None

    # The two codes ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """`z_sem = Enc(x)`: the meaning of images in [-1, 1] (Preechakul et al. 2022, section 3.2)."""
        return self.encoder(self._check_images(x))

    @torch.no_grad()
    def invert(
        self,
        x: Float[Tensor, "n c h w"],
        z_sem: Float[Tensor, "n d"],
        *,
        steps: int = 100,
        solver: Solver = "ddim",
        clamp: bool = True,
    ) -> Float[Tensor, "n c h w"]:
        """x_T: the noise that the DDIM, run backwards on z_sem, leaves of images in [-1, 1] (section 3.3, eq. 8).

        Args:
            x: images in [-1, 1].
            z_sem: their semantic codes.
            steps: number of network calls.
            solver: `ddim` is the authors' scheme, spacing and index shift included.
            clamp: whether predicted images are clamped to [-1, 1] on the way, as the authors do.

        Raises:
            ValueError: images or codes of another shape or range, or a number of steps that the spacing cannot give.
        """
        _check_solver(solver)
        path = encoding_path(self.schedule, steps)
        return solve(self.eps_model(self._check_codes(z_sem, len(x))), self._check_images(x), path, clamp=clamp)

    @torch.no_grad()
    def decode(
        self,
        z_sem: Float[Tensor, "n d"],
        x_T: Float[Tensor, "n c h w"] | None = None,
        *,
        steps: int = 100,
        solver: Solver = "ddim",
        clamp: bool = True,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """Images of z_sem and x_T (section 3.1).

        Args:
            z_sem: semantic codes.
            x_T: stochastic codes as `invert` gives them; without them they are drawn from N(0, I).
            steps: number of network calls.
            solver: `ddim` is the authors' scheme.
            clamp: whether predicted images are clamped to [-1, 1] on the way, as the authors do.
            seed: of the drawn x_T; that of image number i depends on the seed and i alone.
            generator: in place of the seed.

        Raises:
            ValueError: codes of another shape, an x_T that is not normal noise, or an impossible number of steps.
        """
        _check_solver(solver)
        z_sem = self._check_codes(z_sem, None)
        if x_T is None:
            x_T = self._draw_x_T(len(z_sem), seed=seed, generator=generator)
        return solve(self.eps_model(z_sem), self._check_x_T(x_T, len(z_sem)), decoding_path(self.schedule, steps), clamp=clamp)

    @torch.no_grad()
    def decode_mean(
        self, z_sem: Float[Tensor, "n d"], *, t: int | None = None, seed: int = 0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n c h w"]:
        """The mean image that z_sem leaves possible, `E[x_0 | z_sem]`, by one network call.

        Where x_t holds almost nothing of the image, the predicted x_0 is the mean over all images with this z_sem: blurred,
        and with the least squared error that any image made of z_sem alone can have.

        Args:
            z_sem: semantic codes.
            t: timestep at which pure noise is passed off as x_t. By default the last, or with an eps-predicting network
                the last at which 1 / alpha <= 10: beyond, dividing by alpha magnifies the network's errors.
            seed: of the noise.
            generator: in place of the seed.
        """
        z_sem = self._check_codes(z_sem, None)
        if t is None:
            usable = self.schedule.alpha_bar >= (1e-2 if self.config.prediction == "eps" else 0)
            t = int(usable.sum()) - 1
        x_t = self._draw_x_T(len(z_sem), seed=seed, generator=generator)
        t_all = torch.full((len(x_t),), float(t), device=x_t.device)
        alpha, sigma = self.schedule.alpha_sigma(t_all.long(), like=x_t)
        return ((x_t - sigma * self.eps_model(z_sem)(x_t, t_all)) / alpha).clamp(-1, 1)

    def eps_model(self, z_sem: Float[Tensor, "n d"]) -> EpsModel:
        """The decoder's network as solvers want it: `(x_t, t) -> eps`, whatever it was trained to predict."""
        return functools.partial(self._eps, z_sem=z_sem)

    def _eps(self, x_t: Tensor, t: Tensor, *, z_sem: Tensor) -> Tensor:
        output = self.unet(x_t, t, z_sem=z_sem).to(x_t.dtype)
        alpha, sigma = self.schedule.alpha_sigma(t.long(), like=x_t)
        return to_eps(self.config.prediction, output, x_t, alpha, sigma)

    # Training --------------------------------------------------------------------------------------------------------

    def loss(
        self,
        x_0: Float[Tensor, "n c h w"],
        seeds: Sequence[int],
        *,
        noisy: bool = False,
        z_sem: Float[Tensor, "n d"] | None = None,
    ) -> Float[Tensor, ""]:
        """L_simple: the mean squared error of the network's prediction at one timestep per image (section 3.1, eq. 6).

        Args:
            x_0: images in [-1, 1].
            seeds: one per image; its draw of t and noise depends on nothing else.
            noisy: draws t = T sqrt(u) rather than T u.
            z_sem: conditions on these codes instead of the images' own; the validation shuffles them.
        """
        t = draw_timesteps(seeding.uniform(seeds), self.schedule.T, noisy=noisy).to(x_0.device)
        eps = seeding.normal([seeding.mix(s, "eps") for s in seeds], tuple(x_0.shape[1:])).to(x_0)
        x_t = self.schedule.add_noise(x_0, eps, t)
        output = self.unet(x_t, t.to(x_0), z_sem=self.encoder(x_0) if z_sem is None else z_sem)
        target = to_target(self.config.prediction, x_0, eps, *self.schedule.alpha_sigma(t, like=x_0))
        return F.mse_loss(output.to(target.dtype), target)

    # Compositions ----------------------------------------------------------------------------------------------------

    def infer(self, x: Float[Tensor, "n c h w"], *, inversion: Inversion = "official", steps: int = 100) -> Code:
        """Both codes of images in [-1, 1].

        Args:
            x: images.
            inversion: `official`, the authors' scheme.
            steps: number of network calls.
        """
        _check_inversion(inversion)
        z_sem = self.encode(x)
        return Code(z_sem, self.invert(x, z_sem, steps=steps), inversion, steps)

    def render(self, code: Code, *, z_sem: Float[Tensor, "n d"] | None = None) -> Float[Tensor, "n c h w"]:
        """The images of a code, or what becomes of them with another z_sem."""
        _check_inversion(code.inversion)
        return self.decode(code.z_sem if z_sem is None else z_sem, code.x_T, steps=code.steps)

    def reconstruct(
        self, x: Float[Tensor, "n c h w"], *, inversion: Inversion = "official", steps: int = 100
    ) -> Float[Tensor, "n c h w"]:
        """`render(infer(x))`."""
        return self.render(self.infer(x, inversion=inversion, steps=steps))

    def vary(
        self,
        x: Float[Tensor, "n c h w"],
        *,
        num: int = 4,
        steps: int = 100,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n num c h w"]:
        """Images of the same z_sem with fresh x_T: what z_sem leaves open (figure 3)."""
        z_sem = self.encode(x).repeat_interleave(num, dim=0)
        return self.decode(z_sem, steps=steps, seed=seed, generator=generator).unflatten(0, (len(x), num))

    def interpolate(
        self,
        x_a: Float[Tensor, "n c h w"],
        x_b: Float[Tensor, "n c h w"],
        weights: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
        *,
        inversion: Inversion = "official",
        steps: int = 100,
    ) -> Float[Tensor, "n frames c h w"]:
        """From image to image: lerp of z_sem, slerp of x_T (figure 4). Weight 0 is x_a, weight 1 is x_b."""
        a, b = (self.infer(x, inversion=inversion, steps=steps) for x in (x_a, x_b))
        frames = [Code(lerp(a.z_sem, b.z_sem, w), slerp(a.x_T, b.x_T, w), inversion, steps) for w in weights]
        return torch.stack([self.render(code) for code in frames], dim=1)

    @torch.no_grad()
    def sample(
        self,
        num: int = 1,
        *,
        steps: int = 100,
        prior_steps: int = 100,
        batch_size: int = 64,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "num c h w"]:
        """New images: z_sem from the prior, un-normalised, and x_T from N(0, I) (section 4). Number i depends on the seed
        and i alone.

        Raises:
            ValueError: this autoencoder has no latent prior.
        """
        if self.prior is None or self.standardizer is None:
            raise ValueError("This autoencoder has no latent prior, so it can reconstruct and edit but not sample.")
        z = self.prior.sample(num, steps=prior_steps, seed=seed, generator=generator)
        z_sem = self.standardizer.inverse(z)
        x_T = self._draw_x_T(num, seed=seeding.mix(seed, "x_T"), generator=generator)
        batches = zip(z_sem.split(batch_size), x_T.split(batch_size), strict=True)
        return torch.cat([self.decode(z_b, x_b, steps=steps) for z_b, x_b in batches])

    # Files -----------------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json` and `model.safetensors`, each atomically; `diffae.load(folder)` reads them."""
        folder = Path(folder)
        config = {
            "format": "diffae-1",
            "model": to_dict(self.config),
            "prior": None if self.prior is None else to_dict(self.prior.config),
            "standardizer": self.standardizer is not None,
        }
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.state_dict().items()}
        write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
        with replacing(folder / "model.safetensors") as part:
            safetensors.torch.save_file(tensors, part, metadata={"format": "pt"})

    @classmethod
    def from_config(cls, config: dict) -> "DiffusionAutoencoder":
        """The networks that a `config.json` of `save_pretrained` describes, with fresh weights, in eval mode."""
        model = cls(from_dict(AutoencoderConfig, config.get("model"), path="model"))
        if config.get("prior") is not None:
            model.prior = LatentPrior(from_dict(PriorConfig, config["prior"], path="prior"))
        if config.get("standardizer"):
            d = model.config.z_dim
            model.standardizer = Standardizer(torch.zeros(d), torch.ones(d))
        return model.eval()

    # Checks ----------------------------------------------------------------------------------------------------------

    def _draw_x_T(self, num: int, *, seed: int, generator: torch.Generator | None) -> Tensor:
        shape = (self.config.channels, *self.config.image_size)
        return seeding.normal(seeding.sample_seeds(num, generator or seed), shape).to(self.unet.conv_in.weight)

    def _check_images(self, x: Tensor) -> Tensor:
        shape = (self.config.channels, *self.config.image_size)
        if x.dim() != 4 or tuple(x.shape[1:]) != shape:
            c, h, w = shape
            raise ValueError(f"Expected images of shape (n, {c}, {h}, {w}), got {tuple(x.shape)}: crop and resize them first.")
        if not x.is_floating_point():
            raise TypeError(f"Expected floating-point images in [-1, 1], got {x.dtype}: convert, divide by 127.5 and subtract 1.")
        low, high = (v.item() for v in x.detach().aminmax()) if x.numel() else (0.0, 0.0)
        if not (low >= -1.001 and high <= 1.001):
            if low != low:
                raise ValueError("Expected images in [-1, 1], got values that are not a number (NaN).")
            advice = "divide by 127.5 and subtract 1" if low >= 0 and high <= 255 else "rescale them"
            raise ValueError(f"Expected images in [-1, 1], got {low:g}..{high:g}: {advice}.")
        return x

    def _check_codes(self, z_sem: Tensor, num: int | None) -> Tensor:
        d = self.config.z_dim
        if z_sem.dim() != 2 or z_sem.shape[1] != d or (num is not None and len(z_sem) != num):
            raise ValueError(f"Expected z_sem of shape ({'n' if num is None else num}, {d}), got {tuple(z_sem.shape)}.")
        return z_sem

    def _check_x_T(self, x_T: Tensor, num: int) -> Tensor:
        shape = (num, self.config.channels, *self.config.image_size)
        if tuple(x_T.shape) != shape:
            raise ValueError(f"Expected x_T of shape {shape}, got {tuple(x_T.shape)}.")
        if x_T.min() >= 0 and x_T.max() > 0 and x_T.numel() > 1:
            raise ValueError(
                "Expected x_T to be normal noise, but it has no negative value: draw it with torch.randn, not torch.rand."
            )
        return x_T


def _check_solver(solver: str) -> None:
    if solver != "ddim":
        raise ValueError(f"Unknown solver {solver!r}; there is 'ddim'.")


def _check_inversion(inversion: str) -> None:
    if inversion != "official":
        raise ValueError(f"Unknown inversion {inversion!r}; there is 'official'.")
