"""What a classifier decides by: each known factor, and what is left, taken from images and given to them, and the classifier asked.

Images are changed, not compared: a factor that only goes along with the right one in the data does nothing here, and one that the
classifier has taken for it (a hat for a smile, a mark in the corner) does. What changes beside a factor (who goes bald has no black
hair) is told apart by regression over all changes, so that each factor answers for itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.data.dataset import split
from diffae.diffusion.inversion import Code
from diffae.evaluation.pages.figures import Progress
from diffae.metrics.batches import in_batches
from diffae.semantics.attributes import Attributes, Score, least_squares
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
LEAST_FLIPS, LEAST_SHARE = 0.15, 0.5
"""What makes a factor suspicious: which share of decisions it changes, and its effect beside the largest."""
LEAST_KNOWN = 0.7
"""AUROC, or root of R², below which an attribute is not known well enough to be given."""


@dataclass(frozen=True, slots=True)
class Change:
    """An attribute taken from images, and given to them.

    Attributes:
        name: of the attribute.
        taken: (n, c, *sides), images without it; of a measurement with a small one.
        given: (n, c, *sides), the same with it.
    """

    name: str
    taken: Tensor
    given: Tensor


@dataclass(frozen=True, slots=True)
class Factor:
    """Something that can be taken from images, and given to them.

    Attributes:
        name: of a labelled attribute, or `unnamed 1` and so on.
        effect: mean of what the classifier's score, a logit or what is measured, rises by when it is given rather than taken: of a
            known attribute what its own growth is worth, by regression over all changes; of what has no name, what none of those
            explains.
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


def changes(
    explainer: Explainer, attributes: Attributes | None, x: Float[Tensor, "n c *sides"], *, about: str | None = None,
    progress: Progress = lambda what, done, total: None, tell: Callable[[str], object] = lambda what: None,
) -> list[Change]:  # fmt: skip
    """Images changed in each attribute that is known well. The classifier is not asked: audits of others can take them too.

    Args:
        explainer: by its model and its images.
        attributes: what is known of z_sem; those that are hardly known are left out.
        x: images that are changed.
        about: the attribute that stays as it is while others change.
        progress: told how far it is.
        tell: told of each attribute that is left out, and why.

    Raises:
        ValueError: `about` is no attribute that is known well enough.
    """
    scores = {} if attributes is None else attributes.scores
    known = [name for name, score in scores.items() if _known(score) and attributes is not None and attributes.tells(name)]
    for name in (name for name in scores if name not in known):
        tell(f"{name} was left out: z_sem hardly knows it ({_measured(scores[name])}).")
    if about is not None and about not in known:
        raise ValueError(
            f"{about!r} is no attribute that is known well enough; those are: {', '.join(known) or 'none'}. Fit it with "
            "`diffae fit-attributes`."
        )
    made = []
    for i, name in enumerate(known):
        assert attributes is not None
        keep = [about] if about not in (None, name) else []
        progress(f"Taking and giving {name}", i, len(known))
        try:
            made.append(Change(name, *_both(explainer, x, partial(_changed, explainer, attributes, name, keep))))
        except ValueError as error:  # It says the same as what is to be kept.
            if not keep:
                raise
            tell(f"{name} was left out: {error}")
    return made


def audit(
    explainer: Explainer, attributes: Attributes | None, x: Float[Tensor, "n c *sides"], made: Sequence[Change], *,
    about: str | None = None, drawn: int = 6,
) -> list[Factor]:  # fmt: skip
    """The factors that a classifier decides by, those of the largest effect first.

    Args:
        explainer: of the classifier.
        attributes: what is known of z_sem.
        x: images that are changed.
        made: what `changes` made of them, with the same `about`.
        about: the attribute that the classifier is meant to decide by.
        drawn: images of each factor that are kept.
    """
    known = [change.name for change in made]
    unnamed = [
        Change(f"unnamed {i}", *_both(explainer, x, partial(_moved, explainer, move)))
        for i, move in enumerate(_unnamed(explainer, attributes, known, x), 1)
    ]
    every = [*made, *unnamed]
    if not every:
        return []
    scores = [[in_batches(explainer.ask, part, batch_size=explainer.batch_size) for part in (c.taken, c.given)] for c in every]
    risen = torch.stack([given - taken for taken, given in scores]).double().cpu()
    grown = _grown(explainer, attributes, known, every)
    worth = _worth(grown[: len(made)], risen[: len(made)])
    found = []
    for k, (change, (taken, given)) in enumerate(zip(every, scores, strict=True)):
        # Of a known attribute what its own growth is worth, of another what no known one explains.
        own = grown[k, :, k] * worth[k] if k < len(made) else risen[k] - grown[k] @ worth
        flips = float("nan") if explainer.classifier.measures else float(((taken > 0) != (given > 0)).double().mean())
        found.append(
            Factor(change.name, float(own.mean()), flips, False, change.taken[:drawn].clone(), change.given[:drawn].clone())
        )
    largest = max((abs(f.effect) for f in found), default=0.0)
    told = [_judged(f, about, largest, explainer.classifier.measures) for f in found]
    return sorted(told, key=lambda f: -abs(f.effect))


def known_attributes(ae: Any, data: "ImageSet", among: np.ndarray, progress: Progress) -> Attributes | None:
    """The model's attributes, or such as are fitted here to the images' labels; None where there are neither."""
    if ae.attributes is not None and ae.attributes.names:
        found: Attributes = ae.attributes
        return found
    if not data.labels:
        return None
    held = np.random.default_rng(0).permutation(data.validation)[:500]
    if not len(held):
        # How well an attribute is known is told by images that it was not fitted to.
        groups = data.grouped(among)
        kept, apart = split([data.names[i] for i in among], None if groups is None else groups.tolist(), 0.2)
        among, held = among[kept], among[apart]
    parts = [np.array_split(part, max(1, len(part) // 64)) for part in (among, held)]
    codes = [torch.cat([ae.encode(data.images(rows)) for rows in part]) for part in parts]
    labels = [{name: values[part] for name, values in data.labels.items()} for part in (among, held)]
    return fit_attributes(
        codes[0], labels[0], held_z_sem=codes[1], held_labels=labels[1], groups=data.grouped(among), progress=progress
    )[0]


def _measured(score: Score) -> str:
    value, name = (score.auroc, "AUROC") if score.kind == "binary" else (score.r2, "R²")
    return "not measured" if value is None else f"{name} {value:.2f}"


def _known(score: Score) -> bool:
    value = score.auroc if score.kind == "binary" else None if score.r2 is None else max(score.r2, 0) ** 0.5
    return value is not None and value >= LEAST_KNOWN


def _judged(f: Factor, about: str | None, largest: float, measures: bool) -> Factor:
    enough = abs(f.effect) >= LEAST_SHARE * largest and (measures or f.flips >= LEAST_FLIPS)
    return Factor(f.name, f.effect, f.flips, about is not None and f.name != about and enough, f.taken, f.given)


def _both(explainer: Explainer, x: Tensor, change: Callable[[Code], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Images without something and with it, as many at a time as are to be."""
    taken, given = zip(*(change(code) for _, code in explainer.inferred(x)), strict=True)
    return torch.cat(taken), torch.cat(given)


def _grown(
    explainer: Explainer, attributes: Attributes | None, known: list[str], changed: Sequence[Change]
) -> Float[Tensor, "m n k"]:  # fmt: skip
    """How much more of each known attribute is seen in the images with something than in those without it, beside how it varies."""
    if attributes is None or not known:
        return torch.zeros(len(changed), len(changed[0].taken), 0, dtype=torch.float64)
    rows = [attributes.names.index(name) for name in known]

    def logits(z_sem: Tensor) -> Tensor:
        return attributes.logits(z_sem)[:, rows].double().cpu()

    def seen(images: Tensor) -> Tensor:
        return logits(in_batches(explainer.ae.encode, images, batch_size=explainer.batch_size))

    usual = logits(explainer.z_sem).std(0)
    return torch.stack([(seen(change.given) - seen(change.taken)) / usual for change in changed])


def _worth(grown: Float[Tensor, "m n m"], risen: Float[Tensor, "m n"]) -> Float[Tensor, " m"]:
    """What the classifier's score rises by for each known attribute, by ridge regression over all changes."""
    from sklearn.linear_model import RidgeCV

    if not len(grown):
        return torch.zeros(0, dtype=torch.float64)
    ridge = RidgeCV(alphas=[10.0**i for i in range(-2, 3)], fit_intercept=False)
    return torch.from_numpy(ridge.fit(grown.flatten(0, 1).numpy(), risen.flatten().numpy()).coef_)


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
        share = least_squares(weight @ along.T, along @ slopes.T)
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
