"""Attributes from example images, of the set or not."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from diffae.semantics.attributes import Attributes
from diffae.semantics.fitting import fit_few
from diffae.studio.batch import Edited, read
from diffae.studio.uploads import Uploads
from diffae.studio.visit import new_name
from diffae.studio.workshop import Workshop

OTHERS = 256
"""Codes that are drawn to compare examples with, where there is no set."""
LEAST = 3
"""Files on either side."""


def codes_of_examples(
    shop: Workshop, name: str, shows: Uploads, lacks: Uploads, seen: Edited, tell: Callable[[str, int, int], object]
) -> tuple[Float[Tensor, "p d"], Float[Tensor, "n d"]]:
    """Codes of example images.

    Args:
        shop: the model.
        name: that the attribute is to have.
        shows: images that show it.
        lacks: images that lack it, or none.
        seen: takes a sentence about each file that cannot be read.
        tell: called with what is being done, the number done, and the number in all.

    Raises:
        ValueError: no name, one that a fitted attribute has, or too few files; nothing is encoded then.
    """
    new_name(name, shop.fitted)
    for uploads, what in ((shows, "show"), (lacks, "lack")):
        if len(uploads) < LEAST and (uploads is shows or len(uploads)):
            unread = "".join(f" {sentence}" for sentence in uploads.unread)
            raise ValueError(f"Drop at least three images that {what} it, got {len(uploads)}.{unread}")
    done, total, codes = 0, len(shows) + len(lacks), []
    for uploads in (shows, lacks):
        found = [torch.empty(0, shop.ae.z_dim)]
        for _, x in read(shop, uploads, seen):
            if x is not None:
                found.append(shop.ae.encode(x))
            done += 1
            tell("Looking at the examples", done, total)
        codes.append(torch.cat(found))
    return codes[0], codes[1]


def from_examples(shop: Workshop, name: str, shows: Float[Tensor, "p d"], lacks: Float[Tensor, "n d"]) -> Attributes:
    """A classifier from examples.

    Args:
        shop: the model and its set.
        name: of the attribute.
        shows: codes of images that show it.
        lacks: codes of images that lack it; where there are none, those that show it are told from images of the set, or from
            what the model draws, some of which may show it too.

    Raises:
        ValueError: no name or one that a fitted attribute has, too few examples, or nothing to compare them with.
    """
    name = new_name(name, shop.fitted)
    standardizer = shop.standardizer or shop.ae.standardizer
    if standardizer is None:
        raise ValueError(
            "Attributes are learned on the scale of many codes, and there are none: start with `diffae studio RUN --data IMAGES`."
        )
    if len(lacks):
        return fit_few(name, shows, lacks, standardizer)
    others = shop.z_sem
    if others is None and shop.ae.prior is not None:
        others = shop.draw(OTHERS).z_sem
    if others is None:
        raise ValueError("There is nothing to compare the examples with: drop images that lack it too.")
    return fit_few(name, shows, others, standardizer, unlabelled=True)
