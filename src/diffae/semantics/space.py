"""The space of z_sem: what was fitted to it, moves in it, and codes drawn from it. No image is made or seen here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from diffae.config import to_dict
from diffae.diffusion.border import border
from diffae.semantics.attributes import Attributes
from diffae.semantics.prior import KernelPrior, LatentPrior, Prior
from diffae.semantics.rejection import Accepted, rejection_sample
from diffae.semantics.standardizer import Standardizer

NO_PRIOR = (
    "This autoencoder has no latent prior, so it can reconstruct and edit but not sample. Fit one with `diffae train-prior RUN`."
)
NO_ATTRIBUTES = "This autoencoder has no attributes yet. Fit them with `diffae fit-attributes RUN --labels TABLE`."
Direction = str | Sequence[str] | Mapping[str, float] | Float[Tensor, " d"]
"""A fitted attribute, several of them, attributes with a strength each, a principal direction (`pc1`), or a unit vector in
standardised space."""


class SemanticSpace:
    """What a model has whose images have a z_sem.

    Attributes:
        z_dim: dimension d of z_sem.
        prior: the distribution of standardised z_sem, or None.
        standardizer: mean and standard deviation of z_sem over the training images, or None.
        attributes: linear classifiers of named attributes, or None.
    """

    z_dim: int
    prior: Prior | None
    standardizer: Standardizer | None
    attributes: Attributes | None

    def edit(
        self,
        z_sem: Float[Tensor, "n d"],
        direction: Direction,
        *,
        strength: float = 0.3,
        target_probability: float | None = None,
        keep: Sequence[str] = (),
    ) -> Float[Tensor, "n d"]:
        """z_sem moved along directions (section 5.3); `manipulate` decodes it, and explains the arguments."""
        if isinstance(direction, Tensor):
            if self.standardizer is None or keep or target_probability is not None:
                raise ValueError(
                    "A direction given as a vector needs the standardizer of z_sem (fit a prior), and can neither keep attributes "
                    "nor reach a probability: use the name of a fitted attribute for that."
                )
            return self.standardizer.move(z_sem, direction, strength)
        if self.attributes is None:
            raise ValueError(NO_ATTRIBUTES)
        names = names_of(direction)
        if target_probability is not None:
            return self.attributes.reach(z_sem, dict.fromkeys(names, target_probability), keep)
        strengths = direction if isinstance(direction, Mapping) else dict.fromkeys(names, strength)
        return self.attributes.move(z_sem, strengths, keep)

    @border
    def sample_z_sem(
        self,
        num: int,
        *,
        prior_steps: int = 20,
        seed: int = 0,
        accept: Callable[[Tensor], Tensor] | None = None,
        max_proposals: int | None = None,
    ) -> Accepted:
        """z_sem of new images: drawn from the prior, un-normalised, and chosen among where `accept` is given (section 5.5).

        Args:
            num: number of codes.
            prior_steps: network calls of the prior.
            seed: proposal number i depends on the seed and i alone.
            accept: z_sem (n, d) -> probabilities (n,) with which codes are kept, such as `attributes.probability(name)`.
            max_proposals: bound on the number of proposals; by default 500 for each code asked for.

        Raises:
            ValueError: this autoencoder has no prior, or too few proposals were accepted.
        """
        if self.prior is None or self.standardizer is None:
            raise ValueError(NO_PRIOR)
        prior, standardizer = self.prior, self.standardizer

        def propose(start: int, count: int) -> Tensor:
            return standardizer.inverse(prior.sample(count, seed=seed, start=start, steps=prior_steps))

        if accept is None:
            return Accepted(propose(0, num), num)
        return rejection_sample(propose, accept, num, seed=seed, max_proposals=max_proposals or 500 * num)

    def fitted_config(self) -> dict[str, Any]:
        """What `config.json` says of prior, standardiser and attributes; their numbers are in the weights."""
        told: dict[str, Any] | str | None
        match self.prior:
            case LatentPrior(config=config):
                told = to_dict(config)
            case KernelPrior(codes=codes):
                told = {"codes": len(codes)}
            case prior:
                told = "gaussian" if prior else None
        return ({"given": self.prior.given} if self.prior and self.prior.given else {}) | {
            "prior": told,
            "standardizer": self.standardizer is not None,
            "attributes": None if self.attributes is None else self.attributes.to_config(),
        }


def names_of(direction: str | Sequence[str] | Mapping[str, float]) -> list[str]:
    """The attributes that a direction names."""
    return [direction] if isinstance(direction, str) else list(direction)
