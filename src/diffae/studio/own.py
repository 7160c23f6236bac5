"""Attributes from example images, of the set or not."""

from jaxtyping import Float
from torch import Tensor

from diffae.semantics.attributes import Attributes
from diffae.semantics.fitting import fit_few
from diffae.studio.workshop import Workshop

OTHERS = 256
"""Codes that are drawn to compare examples with, where there is no set."""


def from_examples(shop: Workshop, name: str, shows: Float[Tensor, "p d"], lacks: Float[Tensor, "n d"]) -> Attributes:
    """A classifier from examples.

    Args:
        shop: the model and its set.
        name: of the attribute.
        shows: codes of images that show it.
        lacks: codes of images that lack it; where there are none, those that show it are told from images of the set, or from
            what the model draws, some of which may show it too.

    Raises:
        ValueError: no name, too few examples, or nothing to compare them with.
    """
    if not name.strip():
        raise ValueError("Give the attribute a name.")
    standardizer = shop.standardizer or shop.ae.standardizer
    if standardizer is None:
        raise ValueError(
            "Attributes are learned on the scale of many codes, and there are none: start with `diffae studio RUN --data IMAGES`."
        )
    if len(lacks):
        return fit_few(name.strip(), shows, lacks, standardizer)
    others = shop.z_sem
    if others is None and shop.ae.prior is not None:
        others = shop.ae.sample_z_sem(OTHERS).z_sem
    if others is None:
        raise ValueError("There is nothing to compare the examples with: drop images that lack it too.")
    return fit_few(name.strip(), shows, others, standardizer, unlabelled=True)
