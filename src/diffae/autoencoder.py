"""The diffusion autoencoder: one image, two codes, and back.

| verb | makes | of | paper |
|---|---|---|---|
| `encode` | z_sem, the meaning | images | 3.2 |
| `invert` | x_T, what z_sem leaves open | images and z_sem | 3.3 |
| `decode` | images | z_sem, and x_T or fresh noise | 3.1 |
| `decode_mean` | the mean image that z_sem leaves possible | z_sem | |
| `infer`, `render` | a `Code` (both codes), and the image of one | images; a `Code` | |
| `reconstruct`, `vary`, `interpolate`, `interpolate_path` | images | images | figures 3, 4 |
| `edit` | another z_sem | z_sem and a direction | 5.3 |
| `manipulate` | the edited images | images or their `Code`, and a direction | 5.3 |
| `explain` | images after which a classifier decides otherwise | images, a classifier | |
| `sample_z_sem`, `sample` | new z_sem; new images | the prior | 4, 5.5 |

The first three are the method; all others are short compositions of them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffae.config import AutoencoderConfig
from diffae.diffusion import DDIM, ImageDiffusion
from diffae.diffusion.border import border, check_encoded
from diffae.diffusion.inversion import Code, Inversion, concatenate, decode_along_path, encode_along_path, way_between
from diffae.diffusion.model import Draws, Start, draw_seed
from diffae.diffusion.networks import encoder_of, mean_decoder_of
from diffae.diffusion.predictor import NoisePredictor
from diffae.diffusion.schedule import one_step
from diffae.diffusion.solvers import Solver
from diffae.nn.encoder import Encoder
from diffae.semantics.classifiers import Answers, Classifier
from diffae.semantics.explanations import STEPS, Counterfactuals, Explainer
from diffae.semantics.space import Direction, SemanticSpace, names_of


class DiffusionAutoencoder(SemanticSpace, ImageDiffusion):
    """Semantic encoder and conditional DDIM (decoder and stochastic encoder at once), with what was fitted to its z_sem.

    Args:
        config: the networks and the diffusion.
        encoder: a network of your own in place of the configured one.
        unet: likewise, of the decoder.

    References:
        Preechakul et al. 2022, *Diffusion Autoencoders: Toward a Meaningful and Decodable Representation*.
    """

    def __init__(self, config: AutoencoderConfig, *, encoder: Encoder | None = None, unet: NoisePredictor | None = None) -> None:
        if config.z_dim is None:
            raise ValueError("A diffusion autoencoder needs a z_dim; without z_sem there is `DDIM`.")
        super().__init__(config, unet=unet)
        self.z_dim = config.z_dim
        self.encoder: Any = encoder_of(config) if encoder is None else encoder
        self.mean_decoder = mean_decoder_of(config)
        self.prior = self.standardizer = self.attributes = None

    # The two codes ---------------------------------------------------------------------------------------------------

    @border
    def encode(self, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n d"]:
        """`z_sem = Enc(x)`: the meaning of images in [-1, 1] (Preechakul et al. 2022, section 3.2), of their type."""
        like = next((p for p in self.encoder.parameters() if p.is_floating_point()), x)
        return check_encoded(self.encoder(x.to(like))).to(x)

    @border
    def invert(
        self, x: Float[Tensor, "n c *sides"], z_sem: Float[Tensor, "n d"], *, steps: int | None = None,
        solver: Solver | None = None, clamp: bool | None = None,
    ) -> Float[Tensor, "n c *sides"]:  # fmt: skip
        """x_T: the noise that the DDIM, run backwards on z_sem, leaves of images in [-1, 1] (section 3.3, eq. 8).

        Args:
            x: images in [-1, 1].
            z_sem: their semantic codes.
            steps: number of network calls, by default the calibration's, without one 20.
            solver: see `Solver`; `ddim` is the authors' scheme. By default `dpmpp2m`, of a distilled model up to 4 steps `jump`.
            clamp: whether predicted images are clamped to [-1, 1] on the way; by default as the authors do with `ddim`, else not.

        Raises:
            ValueError: images or codes of another shape or range, or a number of steps that the spacing cannot give.
        """
        return self._to_noise(x, z_sem, steps=steps, solver=solver, clamp=clamp)

    @border
    def decode(
        self, z_sem: Float[Tensor, "n d"], x_T: Float[Tensor, "n c *sides"] | None = None, *, steps: int | None = None,
        solver: Solver | None = None, clamp: bool | None = None, seed: int = 0, generator: torch.Generator | None = None,
        start: Start = 0,
    ) -> Float[Tensor, "n c *sides"]:  # fmt: skip
        """Images of z_sem and x_T (section 3.1).

        Args:
            z_sem: semantic codes.
            x_T: as `invert` gives them, decoded along the path that they came by, in as many steps; by default drawn from N(0, I),
                and a last predicted x_0 takes the noise away.
            steps: and `solver`, as for `invert`; where x_T is drawn by default the calibration's, else 10, of a distilled model 1.
            clamp: whether predicted images are clamped on the way; by default where x_T is drawn, and with `ddim`.
            seed: of the drawn x_T; that of image number i depends on the seed and i alone. Or a `generator` in its place.
            start: number of the first image, or (n,) of each.

        Raises:
            ValueError: codes of another shape, an x_T of uniform noise (of other noise it warns), or an impossible number of steps.
        """
        if x_T is not None:
            return self._to_image(x_T, z_sem, steps=steps, solver=solver, clamp=clamp)
        x_T = self.draw_x_T(len(z_sem), seed if generator is None else generator, start=start)
        return self._to_sample(x_T, z_sem, steps=steps, solver=solver, clamp=clamp)

    @border
    def decode_mean(
        self, z_sem: Float[Tensor, "n d"], *, t: int | None = None, sharpen: int = 0, seed: int = 0,
        generator: torch.Generator | None = None, start: Start = 0,
    ) -> Float[Tensor, "n c *sides"]:  # fmt: skip
        """The mean image that z_sem leaves possible, `E[x_0 | z_sem]`, by one network call.

        Blurred, and with the least squared error that any image made of z_sem alone can have. By the `mean_decoder`, where there
        is one; else by the decoder at timestep `t`, by default the calibration's, noise being passed off as x_t. With `sharpen`, a
        timestep such as 100, noise of that level is laid over the mean and taken away by one call more, so that it is sharp again
        (`docs/design/mean.md`). `seed`, `generator` and `start` as for `decode`.
        """
        noise = partial(self.draw_x_T, len(z_sem), generator or seed, start=start)
        if t is None and (own := self.mean_decoder) is not None:
            mean = self.clamp(own(z_sem.to(own.linear.weight)))
        else:
            path = one_step(self.schedule, self.calibration.mean_t if t is None else t)
            mean = self._solve(noise(), z_sem, path, clamp=self._clamps(None, True))
        return self._sharpened(mean, noise(), z_sem, sharpen) if sharpen else mean

    def loss(
        self, x_0: Float[Tensor, "n c *sides"], draws: Draws, *, noisy: bool = False, min_snr: float | None = None,
        z_sem: Float[Tensor, "n d"] | None = None, known: Float[Tensor, "n 1 *sides"] | None = None,
    ) -> Float[Tensor, ""]:  # fmt: skip
        """L_simple: the mean squared error of the network's prediction at one timestep per image (section 3.1, eq. 6).

        Args:
            x_0: images in [-1, 1].
            draws: of the images: of each, t and noise.
            noisy: draws t = T sqrt(u) rather than T u.
            min_snr: gamma of min-SNR weighting.
            z_sem: conditions on these codes instead of the images' own; the validation shuffles them.
            known: which pixels count, 0 or 1; all by default.
        """
        return self._loss(x_0, draws, self.encoder(x_0) if z_sem is None else z_sem, noisy=noisy, min_snr=min_snr, known=known)

    # Both codes at once ----------------------------------------------------------------------------------------------

    @border
    def infer(self, x: Float[Tensor, "n c *sides"], *, inversion: Inversion = "anchored", steps: int | None = None) -> Code:
        """Both codes of images in [-1, 1], and what else the inversion keeps; see `inversion` for what each costs and reaches."""
        steps = self.calibration.steps if steps is None else steps
        z_sem = self.encode(x)
        if inversion == "official":
            return Code(z_sem, self.invert(x, z_sem, steps=steps, solver="ddim"), inversion, steps)
        x_T, states = encode_along_path(inversion, self.eps_model(z_sem), x, self.path_of(inversion, steps))
        return Code(z_sem, x_T, inversion, steps, states)

    @border
    def render(
        self, code: Code, *, z_sem: Float[Tensor, "n d"] | None = None, detail: float = 1.0,
        hold: Float[Tensor, "#n #c *_"] | None = None,
    ) -> Float[Tensor, "n c *sides"]:  # fmt: skip
        """The images of a code, or what becomes of them with another z_sem.

        Args:
            code: as `infer` gives it.
            z_sem: in place of its own.
            detail: of an `anchored` code, how much of the source's detail is kept: 1 all that encoding has seen, 0 none (`fast`).
            hold: likewise, 1 where the image stays what it was, whatever z_sem says, and 0 where it is drawn to go with that.
        """
        z_sem = code.z_sem if z_sem is None else z_sem
        if code.inversion == "official" and hold is None:
            return self.decode(z_sem, code.x_T, steps=code.steps, solver="ddim")
        return decode_along_path(self.eps_model(z_sem), code, self.path_of(code.inversion, code.steps), detail=detail, hold=hold)

    # Compositions ----------------------------------------------------------------------------------------------------

    @border
    def reconstruct(
        self, x: Float[Tensor, "n c *sides"], *, inversion: Inversion = "anchored", steps: int | None = None
    ) -> Float[Tensor, "n c *sides"]:
        """`render(infer(x))`."""
        return self.render(self.infer(x, inversion=inversion, steps=steps))

    @border
    def vary(
        self, x: Float[Tensor, "n c *sides"], *, num: int = 4, steps: int | None = None, seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n num c *sides"]:  # fmt: skip
        """Images of the same z_sem with fresh x_T: what z_sem leaves open (figure 3). Variation j of each has noise number j."""
        z_sem, start = self.encode(x).repeat_interleave(num, dim=0), torch.arange(num).repeat(len(x))
        return self.decode(z_sem, steps=steps, seed=seed, generator=generator, start=start).unflatten(0, (len(x), num))

    @border
    def interpolate(
        self, x_a: Float[Tensor, "n c *sides"], x_b: Float[Tensor, "n c *sides"],
        weights: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0), *, past: Float[Tensor, "m d"] | None = None,
        inversion: Inversion = "anchored", steps: int | None = None,
    ) -> Float[Tensor, "n frames c *sides"]:  # fmt: skip
        """From image to image: lerp of z_sem, slerp of x_T (figure 4). Weight 0 is x_a, weight 1 is x_b. Where z_sem of others
        is given, that of these goes `past` them, on the shortest way between codes (`geodesic`), rather than straight."""
        a, b = (self.infer(x, inversion=inversion, steps=steps) for x in (x_a, x_b))
        return torch.stack([self.render(code) for code in way_between(a, b, [float(w) for w in weights], past)], dim=1)

    @border
    def interpolate_path(
        self, x: Float[Tensor, "n c *sides"], *, frames: int = 8, past: Float[Tensor, "m d"] | None = None,
        inversion: Inversion = "anchored", steps: int | None = None,
    ) -> Float[Tensor, "frames c *sides"]:  # fmt: skip
        """From the first image through all others to the last, `frames` steps from each to the next; of two images at least."""
        if len(x) < 2:
            raise ValueError(f"A path needs at least two images, got {len(x)}.")
        code, weights = self.infer(x, inversion=inversion, steps=steps), [w / frames for w in range(frames)]
        legs = (way_between(code[i : i + 1], code[i + 1 : i + 2], weights, past) for i in range(len(x) - 1))
        return self.render(concatenate([*(frame for leg in legs for frame in leg), code[len(x) - 1 :]]))

    @border
    def manipulate(
        self, x: Float[Tensor, "n c *sides"] | Code, direction: Direction, *, strength: float = 0.3,
        target_probability: float | None = None, target_value: float | Tensor | None = None, keep: Sequence[str] = (),
        inversion: Inversion = "anchored", steps: int | None = None,
    ) -> Float[Tensor, "n c *sides"]:  # fmt: skip
        """The images with z_sem moved along a direction and their own x_T (section 5.3, figure 5).

        Args:
            x: images, or their code, which many edits then share.
            direction: see `semantics.space.Direction`.
            strength: length of the move, `strength * sqrt(d)` in standardised space: about 0.3, useful within -0.5..0.5.
            target_probability: in place of the strength, the probability that each attribute should have when the edited image is
                looked at again; each moves as far as it has to, and no further. Below 0.5 takes the attribute away.
            target_value: likewise the value of a continuous attribute, one for all images or (n,).
            keep: attributes whose classifiers the move must not touch.
            inversion: how x_T is found, in `steps` either way; `anchored` keeps the source's detail.

        Raises:
            ValueError: an attribute never fitted, a strength that is not finite, two targets, or no move that `keep` leaves.
        """
        if target_probability is not None and target_value is not None:
            raise ValueError("A target probability and a target value say two things of one move: give one of them.")
        code = x if isinstance(x, Code) else self.infer(x, inversion=inversion, steps=steps)
        target: Any = target_probability if target_value is None else torch.as_tensor(target_value)
        if target is None or isinstance(direction, Tensor) or self.attributes is None:
            edited = self.edit(code.z_sem, direction, strength=strength, target_probability=target, keep=keep)
            return self.render(code, z_sem=edited)
        return self.attributes.reach_visibly(
            code.z_sem, dict.fromkeys(names_of(direction), target), keep,
            render=lambda indices, z_sem: self.render(code[indices], z_sem=z_sem),
            encode=lambda images: self.encode(self.clamp(images)),
        )  # fmt: skip

    @border
    def explain(
        self, x: Float[Tensor, "n c *sides"], classifier: Any, *, among: Float[Tensor, "m c *sides"] | None = None,
        target: int | None = None, answers: Answers | None = None, probability: float = 0.9, value: float | Tensor | None = None,
        num: int = 1, gradients: bool | None = None, steps: int | None = None, hold: Float[Tensor, "1 #c *_"] | None = None,
    ) -> Counterfactuals:  # fmt: skip
        """Counterfactuals: what would have to change in images for a classifier to decide otherwise; see `semantics.explanations`.

        Args:
            x: images in [-1, 1].
            classifier: any callable of images -> (n,) or (n, k), or an estimator of scikit-learn.
            among: images that the classifier is asked about at first; by default x, of which there have to be enough then.
            target: the class to move to; by default, of two, the other one.
            answers: what the classifier's numbers are, where they are no probabilities: `logit`, or `value`.
            probability: that the target shall have at least; or the `value` that a classifier which measures shall measure.
            num: counterfactuals of each image, which change different things.
            gradients: whether to follow the classifier's; None does for images that one direction does not move far enough.
            steps: solver steps in either direction, by default 10.
            hold: 1 where all images must stay what they are, as in `render`: a channel, a region.

        Raises:
            ValueError: the classifier fails, or says the same of all images; too few of them; or no probability.
        """
        judged, among = Classifier(classifier, answers, target), x if among is None else among
        explainer = Explainer(self, judged, among, gradients=gradients, steps=STEPS if steps is None else steps, hold=hold)
        return explainer.explain(x, probability=probability, value=value, num=num)

    @border
    def sample(
        self, num: int = 1, *, steps: int | None = None, prior_steps: int = 20, accept: Callable[[Tensor], Tensor] | None = None,
        max_proposals: int | None = None, batch_size: int = 64, seed: int = 0, generator: torch.Generator | None = None,
    ) -> Float[Tensor, "num c *sides"]:  # fmt: skip
        """New images: z_sem from the prior, un-normalised, and x_T from N(0, I) (section 4); with `accept`, of a class
        (section 5.5). Number i depends on the seed and i alone. Arguments and errors as in `sample_z_sem`."""
        seed = seed if generator is None else draw_seed(generator)
        z_sem, _ = self.sample_z_sem(num, prior_steps=prior_steps, seed=seed, accept=accept, max_proposals=max_proposals)
        parts = enumerate(z_sem.split(batch_size))
        return torch.cat([self.decode(z, steps=steps, seed=seed, start=i * batch_size) for i, z in parts])


def build(
    config: AutoencoderConfig, *, encoder: Encoder | None = None, unet: NoisePredictor | None = None
) -> DiffusionAutoencoder | DDIM:
    """The model that a configuration describes, with fresh weights: an autoencoder, or without z_dim the plain DDIM."""
    return DDIM(config, unet=unet) if config.z_dim is None else DiffusionAutoencoder(config, encoder=encoder, unet=unet)
