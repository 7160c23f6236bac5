"""Moves of z_sem by fitted attributes and a visitor's own, together."""

import copy
import functools
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from diffae.semantics.attributes import Attributes
from diffae.semantics.fitting import merge_attributes


def move(
    z: Float[Tensor, "n d"], fitted: Attributes | None, defined: Mapping[str, Attributes],
    strengths: Mapping[str, float], targets: Mapping[str, float], keep: Sequence[str],
) -> Float[Tensor, "n d"]:  # fmt: skip
    """z_sem moved by strengths and then to probabilities.

    Args:
        z: the codes.
        fitted: the model's attributes, or None.
        defined: attributes that the visitor defined, each with its classifier.
        strengths: attribute -> strength.
        targets: attribute -> probability.
        keep: attributes that stay as they are, but for those that are moved.

    Raises:
        ValueError: see `Attributes.move` and `Attributes.reach`.
    """
    strengths = {name: s for name, s in strengths.items() if s}
    keep = [name for name in keep if name not in strengths and name not in targets]
    if not strengths and not targets:
        return z
    together = _together(fitted, [defined[name] for name in dict.fromkeys((*strengths, *targets, *keep)) if name in defined])
    z = together.move(z, strengths, keep)
    return together.reach(z, targets, keep) if targets else z


def _together(fitted: Attributes | None, own: Sequence[Attributes]) -> Attributes:
    """The fitted attributes, exactly as they are, and own ones on their scale."""
    if fitted is not None and not own:
        return fitted
    # The model may be on another device than what visitors made.
    return functools.reduce(merge_attributes, [*own, *([] if fitted is None else [copy.deepcopy(fitted).cpu()])])
