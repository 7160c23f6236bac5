"""What a classifier decides by: each known factor, and what is left, taken from images and given to them, and the classifier asked.

Images are changed, not compared: a factor that only goes along with the right one in the data does nothing here, and one that the
classifier has taken for it (a hat for a smile, a mark in the corner) does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.diffusion.inversion import Code
from diffae.evaluation.pages.figures import Progress
from diffae.semantics.attributes import Attributes
from diffae.semantics.explanations import Explainer
from diffae.semantics.fitting import fit_attributes

if TYPE_CHECKING:
    from diffae.data.dataset import ImageSet

TAKEN, GIVEN = 0.1, 0.9
"""Probability of an attribute after it was taken, and given; of a measurement, the quantile of its value."""
LENGTH = 2.0
"""How far an unnamed factor is moved to either side, in standard deviations of the codes."""
UNNAMED = 3
"""Unnamed factors at most."""
LEAST_FLIPS, LEAST_SHARE = 0.15, 0.3
"""What makes a factor suspicious: which share of decisions it changes, and its effect beside that of what should be decided by."""
LEAST_KNOWN = 0.7
"""AUROC, or root of R², below which an attribute is not known well enough to be given."""


@dataclass(frozen=True, slots=True)
class Factor:
    """Something that can be taken from images, and given to them.

    Attributes:
        name: of a labelled attribute, or `unnamed 1` and so on.
        effect: mean of what the classifier's score rises by when it is given rather than taken: a logit, or what is measured.
        flips: share of images whose decision then changes.
        suspicious: whether the classifier decides by it, and is about something else.
        taken: (m, c, *sides), images without it.
        given: (m, c, *sides), the same with it.
    """

    name: str
    effect: float
    flips: float
    suspicious: bool
    taken: Tensor
    given: Tensor


def audit(
    explainer: Explainer, attributes: Attributes | None, x: Float[Tensor, "n c *sides"], *, about: str | None = None,
    drawn: int = 6, progress: Progress = lambda what, done, total: None, tell: Callable[[str], object] = lambda what: None,
) -> list[Factor]:  # fmt: skip
    """The factors that a classifier decides by, those of the largest effect first.

    Args:
        explainer: of the classifier.
        attributes: what is known of z_sem; those that are hardly known are left out.
        x: images that are changed.
        about: the attribute that the classifier is meant to decide by. It stays as it is while other factors change.
        drawn: images of each factor that are kept.
        progress: told how far it is.
        tell: told of attributes that are left out.

    Raises:
        ValueError: `about` is no attribute that is known well enough.
    """
    known = [] if attributes is None else [name for name, score in attributes.scores.items() if _known(score)]
    if about is not None and about not in known:
        raise ValueError(
            f"{about!r} is no attribute that is known well enough; those are: {', '.join(known) or 'none'}. Fit it with "
            "`diffae fit-attributes`."
        )
    found = []
    for i, name in enumerate(known):
        assert attributes is not None
        keep = [about] if about not in (None, name) else []
        progress(f"Taking and giving {name}", i, len(known))
        try:
            found.append(_factor(explainer, name, x, partial(_changed, explainer, attributes, name, keep), drawn))
        except ValueError as error:  # It says the same as what is to be kept.
            if not keep:
                raise
            tell(f"{name} was left out: {error}")
    for i, move in enumerate(_unnamed(explainer, attributes, known, x), 1):
        found.append(_factor(explainer, f"unnamed {i}", x, partial(_moved, explainer, move), drawn))
    own = max((abs(f.effect) for f in found if f.name == about), default=0.0)
    told = [_judged(f, about, own, explainer.classifier.measures) for f in found]
    return sorted(told, key=lambda f: -abs(f.effect))


def known_attributes(ae: Any, data: "ImageSet", among: np.ndarray, progress: Progress) -> Attributes | None:
    """The model's attributes, or such as are fitted here to the images' labels; None where there are neither."""
    if ae.attributes is not None and ae.attributes.names:
        found: Attributes = ae.attributes
        return found
    if not data.labels:
        return None
    held = np.random.default_rng(0).permutation(data.validation)[:500] if len(data.validation) else among
    parts = [np.array_split(part, max(1, len(part) // 64)) for part in (among, held)]
    codes = [torch.cat([ae.encode(data.images(rows)) for rows in part]) for part in parts]
    labels = [{name: values[part] for name, values in data.labels.items()} for part in (among, held)]
    return fit_attributes(codes[0], labels[0], held_z_sem=codes[1], held_labels=labels[1], progress=progress)[0]


def _known(score: Any) -> bool:
    value = score.auroc if score.kind == "binary" else None if score.r2 is None else max(score.r2, 0) ** 0.5
    return value is not None and value >= LEAST_KNOWN


def _judged(f: Factor, about: str | None, own: float, measures: bool) -> Factor:
    enough = abs(f.effect) >= LEAST_SHARE * own and (measures or f.flips >= LEAST_FLIPS)
    return Factor(f.name, f.effect, f.flips, about is not None and f.name != about and enough, f.taken, f.given)


def _factor(
    explainer: Explainer, name: str, x: Tensor, change: Callable[[Code], tuple[Tensor, Tensor]], drawn: int
) -> Factor:  # fmt: skip
    """What becomes of the classifier's answers when images are changed, as many at a time as are to be."""
    taken, given, first = [], [], []
    for _, code in explainer.inferred(x):
        images = change(code)
        taken.append(explainer.ask(images[0]))
        given.append(explainer.ask(images[1]))
        first.append([part[:drawn].clone() for part in images])
    a, b = torch.cat(taken), torch.cat(given)
    flips = float("nan") if explainer.classifier.measures else float(((a > 0) != (b > 0)).double().mean())
    shown = [torch.cat(parts)[:drawn] for parts in zip(*first, strict=True)]
    return Factor(name, float((b - a).mean()), flips, False, shown[0], shown[1])


def _moved(explainer: Explainer, move: Tensor, code: Code) -> tuple[Tensor, Tensor]:
    """Images to either side of what they are."""
    standardizer = explainer.spread.standardizer
    standard = standardizer(code.z_sem)
    ends = [standardizer.inverse(standard + (sign * LENGTH * move).to(standard)) for sign in (-1, 1)]
    return explainer.rendered(code, ends[0]), explainer.rendered(code, ends[1])


def _changed(explainer: Explainer, attributes: Attributes, name: str, keep: list[str], code: Code) -> tuple[Tensor, Tensor]:
    """Images without an attribute and with it, as far as z_sem sees; of a measurement at its tenth and ninetieth percentile."""
    targets: list[Any] = [TAKEN, GIVEN]
    if attributes.scores[name].kind == "continuous":
        values = attributes.logits(explainer.z_sem)[:, attributes.names.index(name)]
        targets = [values.double().quantile(q).to(values) for q in (TAKEN, GIVEN)]
    taken, given = (
        attributes.reach_visibly(
            code.z_sem, {name: target}, keep,
            render=lambda indices, z_sem: explainer.rendered(code[indices], z_sem), encode=explainer.ae.encode,
        )
        for target in targets
    )  # fmt: skip
    return taken, given


def _unnamed(explainer: Explainer, attributes: Attributes | None, known: list[str], x: Tensor) -> list[Tensor]:
    """Moves of length 1 that change the classifier's score, and no known attribute: what all images agree on, then what is left."""
    spread = explainer.spread
    slopes = explainer.slopes(x)
    if known and attributes is not None:
        rows = [attributes.names.index(name) for name in known]
        std = spread.standardizer.std
        weight = (attributes.weight[rows].to(std) * (std / attributes.standardizer.std.to(std))).double()
        along = spread.likeliest(weight)
        # W S W^T c = W S g: what is left moves no logit.
        share = torch.linalg.lstsq(weight @ along.T, along @ slopes.T).solution
        slopes = slopes - share.T @ weight
    moves = spread.likeliest(slopes)
    white = moves @ spread.axes.T / spread.variances.sqrt()
    # What all agree on comes first: the mean, then what is left of it.
    found: list[Tensor] = []
    for _ in range(UNNAMED if explainer.gradients else 1):
        size = white.norm(dim=1)
        if float(size.max()) < 1e-9:
            break
        direction = white.mean(0) if not found else torch.linalg.svd(white, full_matrices=False).Vh[0]
        if float(direction.norm()) < 1e-3 * float(size.mean()):
            break
        direction = direction / direction.norm()
        direction = direction * (1 if float((white @ direction).sum()) >= 0 else -1)
        found.append((direction * spread.variances.sqrt()) @ spread.axes)
        white = white - (white @ direction)[:, None] * direction
    return found
