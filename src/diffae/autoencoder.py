"""The diffusion autoencoder: one image, two codes, and back.

`encode` finds z_sem, the meaning; `invert` finds x_T, what z_sem leaves open; `decode` makes the image of both. All the
rest (`reconstruct`, `vary`, `interpolate`, `manipulate`, `sample`) are short compositions of these three.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffae.config import AutoencoderConfig, to_dict
from diffae.diffusion.checks import NO_ATTRIBUTES, NO_PRIOR, check_codes, check_counts, check_timestep, check_weights
from diffae.diffusion.inversion import Code, Inversion, back, between, check_inversion, joined, there
from diffae.diffusion.model import DDIM, ImageDiffusion, ImageSolver
from diffae.diffusion.placement import at_home
from diffae.nn import SemanticEncoder
from diffae.runtime.seeding import Draws, drawn
from diffae.semantics.attributes import Accepted, Attributes, rejection_sample
from diffae.semantics.prior import LatentPrior, Prior
from diffae.semantics.standardizer import Standardizer


class DiffusionAutoencoder(ImageDiffusion):
    """Semantic encoder and conditional DDIM (decoder and stochastic encoder at once), with what was fitted to its z_sem.

    Args:
        config: the networks and the diffusion.

    Attributes:
        prior: the distribution of standardised z_sem, or None.
        standardizer: mean and standard deviation of z_sem over the training images, or None.
        attributes: linear classifiers of named attributes, or None.

    References:
        Preechakul et al. 2022, *Diffusion Autoencoders: Toward a Meaningful and Decodable Representation*.
    """

    prior: Prior | None
    standardizer: Standardizer | None
    attributes: Attributes | None

    def __init__(self, config: AutoencoderConfig) -> None:
        if config.z_dim is None:
            raise ValueError("A diffusion autoencoder needs a z_dim; without z_sem there is `DDIM`.")
        super().__init__(config)
        self.z_dim = config.z_dim
        self.encoder = SemanticEncoder(config.encoder, image_size=config.image_size, channels=config.channels, z_dim=config.z_dim)
        self.prior = self.standardizer = self.attributes = None

    # The two codes ---------------------------------------------------------------------------------------------------

    @at_home
    def encode(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """`z_sem = Enc(x)`: the meaning of images in [-1, 1] (Preechakul et al. 2022, section 3.2)."""
        return check_codes(self.encoder(self._check_images(x)))

    @at_home
    def invert(
        self,
        x: Float[Tensor, "n c h w"],
        z_sem: Float[Tensor, "n d"],
        *,
        steps: int | None = None,
        solver: ImageSolver = "dpmpp2m",
        clamp: bool | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """x_T: the noise that the DDIM, run backwards on z_sem, leaves of images in [-1, 1] (section 3.3, eq. 8).

        Args:
            x: images in [-1, 1].
            z_sem: their semantic codes.
            steps: number of network calls, by default 20.
            solver: see `ImageSolver`; `ddim` is the authors' scheme.
            clamp: whether predicted images are clamped to [-1, 1] on the way; by default as the authors do with `ddim`, else not.

        Raises:
            ValueError: images or codes of another shape or range, or a number of steps that the spacing cannot give.
        """
        return self._to_noise(x, self._check_codes(z_sem, len(x)), steps=steps, solver=solver, clamp=clamp)

    @at_home
    def decode(
        self,
        z_sem: Float[Tensor, "n d"],
        x_T: Float[Tensor, "n c h w"] | None = None,
        *,
        steps: int | None = None,
        solver: ImageSolver = "dpmpp2m",
        clamp: bool | None = None,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """Images of z_sem and x_T (section 3.1).

        Args:
            z_sem: semantic codes.
            x_T: stochastic codes as `invert` gives them, which are decoded along the path that they came by, in as many steps;
                without them they are drawn from N(0, I), and a last predicted x_0 takes the noise away.
            steps: number of steps, by default 20, or 10 where x_T is drawn.
            solver: see `ImageSolver`; `ddim` is the authors' scheme.
            clamp: whether predicted images are clamped to [-1, 1] on the way; by default where x_T is drawn, and with `ddim`.
            seed: of the drawn x_T; that of image number i depends on the seed and i alone.
            generator: in place of the seed.

        Raises:
            ValueError: codes of another shape, an x_T that is not normal noise, or an impossible number of steps.
        """
        z_sem = self._check_codes(z_sem, None)
        if x_T is None:
            x_T = self._draw_x_T(len(z_sem), seed if generator is None else generator)
            return self._to_sample(x_T, z_sem, steps=steps, solver=solver, clamp=clamp)
        return self._to_image(self._check_x_T(x_T, len(z_sem)), z_sem, steps=steps, solver=solver, clamp=clamp)

    @at_home
    def decode_mean(
        self, z_sem: Float[Tensor, "n d"], *, t: int | None = None, seed: int = 0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n c h w"]:
        """The mean image that z_sem leaves possible, `E[x_0 | z_sem]`, by one network call.

        Where x_t holds almost nothing of the image, the predicted x_0 is the mean over all images with this z_sem: blurred,
        and with the least squared error that any image made of z_sem alone can have.

        Args:
            z_sem: semantic codes.
            t: timestep at which pure noise is passed off as x_t; by default the calibration's.
            seed: of the noise.
            generator: in place of the seed.
        """
        z_sem = self._check_codes(z_sem, None)
        t = self.calibration.mean_t if t is None else t
        check_timestep(t, self.config.schedule.T)
        x_t = self._draw_x_T(len(z_sem), seed if generator is None else generator)
        t_all = torch.full((len(x_t),), float(t), device=x_t.device)
        alpha, sigma = self.schedule.alpha_sigma(t_all.long(), like=x_t)
        return self.in_range((x_t - sigma * self.eps_model(z_sem)(x_t, t_all)) / alpha)

    def loss(
        self, x_0: Float[Tensor, "n c h w"], draws: Draws, *, noisy: bool = False, min_snr: float | None = None,
        z_sem: Float[Tensor, "n d"] | None = None,
    ) -> Float[Tensor, ""]:  # fmt: skip
        """L_simple: the mean squared error of the network's prediction at one timestep per image (section 3.1, eq. 6).

        Args:
            x_0: images in [-1, 1].
            draws: of the images: of each, t and noise.
            noisy: draws t = T sqrt(u) rather than T u.
            min_snr: gamma of min-SNR weighting.
            z_sem: conditions on these codes instead of the images' own; the validation shuffles them.
        """
        return self._loss(x_0, draws, self.encoder(x_0) if z_sem is None else z_sem, noisy=noisy, min_snr=min_snr)

    @at_home
    def infer(self, x: Float[Tensor, "n c h w"], *, inversion: Inversion = "anchored", steps: int | None = None) -> Code:
        """Both codes of images in [-1, 1], and what else the inversion keeps; see `inversion` for what each costs and reaches."""
        check_inversion(inversion, self)
        steps = self.calibration.steps if steps is None else steps
        z_sem = self.encode(x)
        if inversion == "official":
            return Code(z_sem, self.invert(x, z_sem, steps=steps, solver="ddim"), inversion, steps)
        x_T, kept = there(inversion, self.eps_model(z_sem), x, self.path(steps))
        return Code(z_sem, x_T, inversion, steps, kept)

    @at_home
    def render(self, code: Code, *, z_sem: Float[Tensor, "n d"] | None = None, share: float = 1.0) -> Float[Tensor, "n c h w"]:
        """The images of a code, or what becomes of them with another z_sem.

        Args:
            code: as `infer` gives it.
            z_sem: in place of its own.
            share: of an `anchored` code, how much of the source's detail is kept: 1 all that encoding has seen, 0 none (`fast`).
        """
        z_sem = code.z_sem if z_sem is None else self._check_codes(z_sem, len(code.z_sem))
        if code.inversion == "official":
            return self._to_image(code.x_T, z_sem, steps=code.steps, solver="ddim", clamp=None)
        return back(self.eps_model(z_sem), code, self.path(code.steps), share=share)

    @at_home
    def reconstruct(
        self, x: Float[Tensor, "n c h w"], *, inversion: Inversion = "anchored", steps: int | None = None
    ) -> Float[Tensor, "n c h w"]:
        """`render(infer(x))`."""
        return self.render(self.infer(x, inversion=inversion, steps=steps))

    @at_home
    def vary(
        self,
        x: Float[Tensor, "n c h w"],
        *,
        num: int = 4,
        steps: int | None = None,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n num c h w"]:
        """Images of the same z_sem with fresh x_T: what z_sem leaves open (figure 3)."""
        check_counts(num=num)
        z_sem = self.encode(x).repeat_interleave(num, dim=0)
        return self.decode(z_sem, steps=steps, seed=seed, generator=generator).unflatten(0, (len(x), num))

    @at_home
    def interpolate(
        self,
        x_a: Float[Tensor, "n c h w"],
        x_b: Float[Tensor, "n c h w"],
        weights: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
        *,
        inversion: Inversion = "anchored",
        steps: int | None = None,
    ) -> Float[Tensor, "n frames c h w"]:
        """From image to image: lerp of z_sem, slerp of x_T (figure 4). Weight 0 is x_a, weight 1 is x_b."""
        check_weights(weights)
        a, b = (self.infer(x, inversion=inversion, steps=steps) for x in (x_a, x_b))
        return torch.stack([self.render(between(a, b, float(w))) for w in weights], dim=1)

    @at_home
    def interpolate_path(
        self, x: Float[Tensor, "n c h w"], *, frames: int = 8, inversion: Inversion = "anchored", steps: int | None = None
    ) -> Float[Tensor, "frames c h w"]:
        """From the first image through all others to the last, `frames` steps from each to the next.

        Raises:
            ValueError: fewer than two images.
        """
        check_counts(frames=frames)
        if len(x) < 2:
            raise ValueError(f"A path needs at least two images, got {len(x)}.")
        code = self.infer(x, inversion=inversion, steps=steps)
        legs = [(code[i : i + 1], code[i + 1 : i + 2]) for i in range(len(x) - 1)]
        between_them = [between(a, b, w / frames) for a, b in legs for w in range(frames)]
        return self.render(joined([*between_them, code[len(x) - 1 :]]))

    def edit(
        self,
        z_sem: Float[Tensor, "n d"],
        direction: str | Sequence[str] | Mapping[str, float] | Float[Tensor, " d"],
        *,
        strength: float = 0.3,
        target_probability: float | None = None,
        keep: Sequence[str] = (),
    ) -> Float[Tensor, "n d"]:
        """z_sem moved along directions; what `manipulate` decodes. Arguments as there."""
        if isinstance(direction, Tensor):
            if self.standardizer is None or keep or target_probability is not None:
                raise ValueError(
                    "A direction given as a vector needs the standardizer of z_sem (fit a prior), and can neither keep attributes "
                    "nor reach a probability: use the name of a fitted attribute for that."
                )
            return self.standardizer.move(z_sem, direction, strength)
        if self.attributes is None:
            raise ValueError(NO_ATTRIBUTES)
        names = _names(direction)
        if target_probability is not None:
            return self.attributes.reach(z_sem, dict.fromkeys(names, target_probability), keep)
        strengths = direction if isinstance(direction, Mapping) else dict.fromkeys(names, strength)
        return self.attributes.move(z_sem, strengths, keep)

    @at_home
    def manipulate(
        self,
        x: Float[Tensor, "n c h w"],
        direction: str | Sequence[str] | Mapping[str, float] | Float[Tensor, " d"],
        *,
        strength: float = 0.3,
        target_probability: float | None = None,
        keep: Sequence[str] = (),
        inversion: Inversion = "anchored",
        steps: int | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """The images with z_sem moved along a direction and their own x_T (section 5.3, figure 5).

        Args:
            x: images.
            direction: a fitted attribute, several of them, attributes with a strength each, a principal direction (`pc1`),
                or a unit vector in standardised space.
            strength: length of the move on the published scale, `strength * sqrt(d)` in standardised space: about 0.3,
                useful within -0.5..0.5; negative the other way.
            target_probability: in place of the strength, the probability that each attribute should have afterwards; each
                image moves as far as it has to, and no further (see `reach`). Below 0.5 takes the attribute away.
            keep: attributes whose classifiers the move must not touch.
            inversion: how x_T is found; `anchored` keeps the source's detail.
            steps: number of steps in either direction.

        Raises:
            ValueError: an attribute that was never fitted, a strength that is not finite, or a direction that `keep` leaves
                nothing of.
        """
        code = self.infer(x, inversion=inversion, steps=steps)
        if target_probability is not None and not isinstance(direction, Tensor):
            return self.reach(code, _names(direction), target_probability, keep=keep)
        edited = self.edit(code.z_sem, direction, strength=strength, target_probability=target_probability, keep=keep)
        return self.render(code, z_sem=edited)

    @at_home
    def reach(
        self, code: Code, names: Sequence[str], target_probability: float, *, keep: Sequence[str] = ()
    ) -> Float[Tensor, "n c h w"]:
        """The images moved until they show attributes with a probability, when looked at again (`Attributes.reach_visibly`)."""
        if self.attributes is None:
            raise ValueError(NO_ATTRIBUTES)

        def render(indices: Tensor, z_sem: Tensor) -> Tensor:
            return self.render(code[indices], z_sem=z_sem)

        targets = dict.fromkeys(names, target_probability)
        return self.attributes.reach_visibly(
            code.z_sem, targets, keep, render=render, encode=lambda x: self.encode(self.in_range(x))
        )

    @torch.no_grad()
    def sample_codes(
        self,
        num: int,
        *,
        prior_steps: int = 20,
        seed: int = 0,
        accept: Callable[[Tensor], Tensor] | None = None,
        max_proposals: int | None = None,
    ) -> Accepted:
        """z_sem of new images: drawn from the prior, un-normalised, and chosen among where `accept` is given.

        Args:
            num: number of codes.
            prior_steps: network calls of the prior.
            seed: proposal number i depends on the seed and i alone.
            accept: z_sem (n, d) -> probabilities (n,) with which codes are kept, such as `attributes.probability(name)`.
            max_proposals: bound on the number of proposals; by default 500 for each code asked for.

        Raises:
            ValueError: this autoencoder has no prior, or too few proposals were accepted.
        """
        check_counts(num=num, prior_steps=prior_steps, max_proposals=max_proposals)
        if self.prior is None or self.standardizer is None:
            raise ValueError(NO_PRIOR)
        prior, standardizer = self.prior, self.standardizer

        def propose(start: int, count: int) -> Tensor:
            return standardizer.inverse(prior.sample(count, seed=seed, start=start, steps=prior_steps))

        if accept is None:
            return Accepted(propose(0, num), num)
        return rejection_sample(propose, accept, num, seed=seed, max_proposals=max_proposals or 500 * num)

    @torch.no_grad()
    def sample(
        self,
        num: int = 1,
        *,
        steps: int | None = None,
        prior_steps: int = 20,
        accept: Callable[[Tensor], Tensor] | None = None,
        max_proposals: int | None = None,
        batch_size: int = 64,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "num c h w"]:
        """New images: z_sem from the prior, un-normalised, and x_T from N(0, I) (section 4); with `accept`, of a class
        (section 5.5). Number i depends on the seed and i alone. Arguments and errors as in `sample_codes`."""
        if generator is not None:
            seed = drawn(generator)
        z_sem, _ = self.sample_codes(num, prior_steps=prior_steps, seed=seed, accept=accept, max_proposals=max_proposals)
        return self.decode_samples(z_sem, steps=steps, seed=seed, batch_size=batch_size)

    @at_home
    def decode_samples(
        self, z_sem: Float[Tensor, "num d"], *, steps: int | None = None, solver: ImageSolver = "dpmpp2m", seed: int = 0,
        start: int = 0, batch_size: int = 64,
    ) -> Float[Tensor, "num c h w"]:  # fmt: skip
        """Images of sampled codes number `start` on, each with an x_T of its own: the last two of the paper's four steps."""
        check_counts(batch_size=batch_size)
        images = []
        for z in self._check_codes(z_sem, None).split(batch_size):
            x_T = self._draw_x_T(len(z), seed, start=start)
            images.append(self._to_sample(x_T, z, steps=steps, solver=solver, clamp=None))
            start += len(z)
        return torch.cat(images)

    def _parts(self) -> dict[str, Any]:
        prior = self.prior
        return {
            "prior": to_dict(prior.config) if isinstance(prior, LatentPrior) else "gaussian" if prior else None,
            "standardizer": self.standardizer is not None,
            "attributes": None if self.attributes is None else self.attributes.to_config(),
        }

    def _check_codes(self, z_sem: Tensor, num: int | None) -> Tensor:
        d = self.z_dim
        if z_sem.dim() != 2 or z_sem.shape[1] != d or (num is not None and len(z_sem) != num):
            raise ValueError(f"Expected z_sem of shape ({'n' if num is None else num}, {d}), got {tuple(z_sem.shape)}.")
        return z_sem


def build(config: AutoencoderConfig) -> "DiffusionAutoencoder | DDIM":
    """The model that a configuration describes, with fresh weights: an autoencoder, or without z_dim the plain DDIM."""
    return DDIM(config) if config.z_dim is None else DiffusionAutoencoder(config)


def _names(direction: str | Sequence[str] | Mapping[str, float]) -> list[str]:
    return [direction] if isinstance(direction, str) else list(direction)
