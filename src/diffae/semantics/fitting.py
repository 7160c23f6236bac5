"""Fitting linear classifiers to z_sem: of many labels, of few, and of positives among unlabelled images."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.semantics.attributes import LEAST_SLOPE, Attributes, Kind, Score
from diffae.semantics.standardizer import Standardizer

C = 0.01
"""Inverse strength of the classifiers' penalty."""


def fit_attributes(
    z_sem: Float[Tensor, "n d"],
    labels: Mapping[str, np.ndarray],
    *,
    held_z_sem: Float[Tensor, "m d"],
    held_labels: Mapping[str, np.ndarray],
    groups: np.ndarray | None = None,
    components: int = 10,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[Attributes, list[str]]:
    """A linear classifier of every labelled attribute, or a ridge regression where it is continuous.

    Classifiers weight both classes alike; their probabilities are calibrated on predictions for images that they were not
    fitted on (three folds). Groups stay in one fold, where each class is of three groups at least.

    Args:
        z_sem: codes to fit on.
        labels: attribute -> (n,), 0, 1 or NaN for unknown; other numbers make it continuous, but for -1 and 1 alone, which are
            left out.
        held_z_sem: codes to measure on.
        held_labels: their labels.
        groups: (n,), of images that belong together, such as a person's; None where each stands for itself.
        components: number of principal directions to keep beside them.
        progress: told how many attributes are done.

    Returns:
        The attributes, and sentences about columns that could not be fitted.

    Raises:
        ValueError: labels were given, and none of them can be fitted.
    """
    standardizer = Standardizer.fit(z_sem)
    z, held = standardizer(z_sem).double().numpy(), standardizer(held_z_sem).double().numpy()
    notes, rows, scores = [], [], {}
    for i, (name, y) in enumerate(labels.items()):
        progress("Fitting attributes", i, len(labels))
        known = ~np.isnan(y)
        held_y = np.asarray(held_labels[name])
        measured = ~np.isnan(held_y)
        # A number stays one where those to fit on happen to be 0 and 1.
        values = set(np.unique(np.concatenate([y[known], held_y[measured]])).tolist())
        kind: Kind = "binary" if values <= {0, 1} else "continuous"
        reason = _unusable(y[known], values)
        if reason:
            notes.append(f"{name} was left out: {reason}.")
            continue
        rows.append(_fit_row(z[known], y[known], kind, groups=None if groups is None else groups[known]))
        scores[name] = _score(rows[-1], y[known], held[measured], held_y[measured])
    if labels and not rows:
        raise ValueError("No attribute can be fitted. " + " ".join(notes))
    # Of n codes about their mean there are n - 1 directions.
    found = Attributes(scores, z_sem.shape[1], components=min(components, len(z_sem) - 1, z_sem.shape[1]))
    found.components.copy_(torch.linalg.svd(torch.from_numpy(z), full_matrices=False).Vh[: len(found.components)])
    return _filled(found, standardizer, rows, z), notes


def merge_attributes(earlier: Attributes, new: Attributes) -> Attributes:
    """New attributes, after those earlier ones whose names are not among them. The components are the new ones.

    All are behind the new ones' standardiser; the earlier ones' logits, and their ways through z_sem, stay what they were.
    """
    earlier_names = [name for name in earlier.names if name not in new.scores]
    rows = [earlier.names.index(name) for name in earlier_names]
    found = Attributes(
        {name: earlier.scores[name] for name in earlier_names} | new.scores, new.weight.shape[1], components=len(new.components)
    )
    before, after = earlier.standardizer, new.standardizer
    scale, shift = after.std.double() / before.std.double(), (after.mean.double() - before.mean.double()) / before.std.double()
    weight = earlier.weight[rows].double()
    found.weight.copy_(torch.cat([weight * scale, new.weight]))
    found.bias.copy_(torch.cat([earlier.bias[rows] + weight @ shift, new.bias]))
    found.pattern.copy_(torch.cat([earlier.pattern[rows] / scale, new.pattern]))
    found.calibration.copy_(torch.cat([earlier.calibration[rows], new.calibration]))
    found.ceiling.copy_(torch.cat([earlier.ceiling[rows], new.ceiling]))
    found.components.copy_(new.components)
    found.standardizer.load_state_dict(after.state_dict())
    return found


def fit_few(
    name: str,
    positives: Float[Tensor, "p d"],
    others: Float[Tensor, "n d"],
    standardizer: Standardizer,
    *,
    unlabelled: bool = False,
) -> Attributes:
    """A classifier from few labels: positives and negatives, or positives and unlabelled images.

    With unlabelled images, g(z) = P(labelled | z) is fitted in place of P(y | z), and `P(y | z) = g(z) / c` with
    c = P(labelled | y), the mean of g over positives that it was not fitted on (Elkan & Noto 2008, eq. 1 and 4).

    Args:
        name: of the attribute.
        positives: codes of images that have it.
        others: codes of images that lack it, or of unlabelled ones.
        standardizer: of z_sem over many images.
        unlabelled: whether `others` are unlabelled.

    Raises:
        ValueError: fewer than three images on either side.
    """
    if min(len(positives), len(others)) < 3:
        kind = "unlabelled" if unlabelled else "negative"
        raise ValueError(f"A classifier needs at least three images on either side, got {len(positives)} positive and "
                         f"{len(others)} {kind}.")  # fmt: skip
    z = standardizer(torch.cat([positives, others])).double().numpy()
    y = np.repeat([1.0, 0.0], [len(positives), len(others)])
    row = _fit_row(z, y, "binary", labelled_share=unlabelled)
    return _filled(Attributes({name: Score("binary", len(y), len(positives) / len(y))}, z.shape[1]), standardizer, [row], z)


def fit_labelled(name: str, z_sem: Float[Tensor, "n d"], y: np.ndarray) -> tuple[Attributes, str]:
    """A classifier of the few images that have a label, among the codes of all: see `fit_few`.

    Args:
        name: of the attribute.
        z_sem: codes of all images, which standardise.
        y: (n,), 1, 0, or NaN for unknown; where there is no 0, the unknown ones are taken as unlabelled.

    Returns:
        The classifier, and how many images of which kind it was fitted to, in a sentence.
    """
    negatives, unlabelled = np.flatnonzero(y == 0), np.flatnonzero(np.isnan(y))
    others, kind = (negatives, "negative") if len(negatives) else (unlabelled, "unlabelled")
    positives = np.flatnonzero(y == 1)
    standardizer = Standardizer.fit(z_sem)
    few = fit_few(name, z_sem[positives], z_sem[others], standardizer, unlabelled=not len(negatives))
    return few, f"{len(positives)} positive and {len(others)} {kind} images"


class _Row(NamedTuple):
    """One fitted attribute."""

    kind: Kind
    weight: np.ndarray
    bias: float
    scale: float = 1.0
    shift: float = 0.0
    ceiling: float = 1.0


def _filled(attributes: Attributes, standardizer: Standardizer, rows: Sequence[_Row], z: np.ndarray) -> Attributes:
    centred = z - z.mean(0)
    for i, row in enumerate(rows):
        attributes.weight[i] = torch.from_numpy(row.weight)
        # S w without S: how the codes go along with the logit (Haufe et al. 2014, eq. 6).
        attributes.pattern[i] = torch.from_numpy(centred.T @ (centred @ row.weight) / len(z))
        attributes.bias[i] = row.bias
        attributes.calibration[i] = torch.tensor([row.scale, row.shift])
        attributes.ceiling[i] = row.ceiling
    attributes.standardizer.load_state_dict(standardizer.state_dict())
    return attributes


def _unusable(y: np.ndarray, everywhere: set[float]) -> str | None:
    """Why these labels, with those to measure on of these values, cannot be fitted, if they cannot."""
    if not np.isfinite(list(everywhere)).all():
        return "some of its values are infinite"
    if everywhere == {-1, 1}:
        return "its only values are -1 and 1, and yes and no are 1 and 0 here"
    values, counts = np.unique(y, return_counts=True)
    if not len(y):
        return "none of the images has a value"
    if len(values) == 1:
        return f"all {len(y)} labelled images have the value {values[0]:g}"
    if set(values) == {0.0, 1.0} and counts.min() < 3:
        return f"only {counts.min()} of {len(y)} labelled images have the value {values[counts.argmin()]:g}, and three are needed"
    return f"only {len(y)} images have a value" if len(y) < 6 else None


def _fit_row(z: np.ndarray, y: np.ndarray, kind: Kind, *, groups: np.ndarray | None = None, labelled_share: bool = False) -> _Row:
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import cross_val_predict

    if kind == "continuous":
        ridge = RidgeCV(alphas=np.logspace(0, 5, 11)).fit(z, y)
        return _Row("continuous", ridge.coef_, float(ridge.intercept_))
    model = LogisticRegression(C=C, class_weight=None if labelled_share else "balanced", max_iter=1000)
    out_of_fold = cross_val_predict(model, z, y, cv=_folds(z, y, groups), method="decision_function")
    model.fit(z, y)
    # Targets of (N+ + 1) / (N+ + 2) and 1 / (N- + 2) in place of 1 and 0, as many as few images allow (Platt 1999, section 2.2).
    wrong = 1 / (np.where(y == 1, y.sum(), len(y) - y.sum()) + 2)
    platt = LogisticRegression(C=1e4).fit(
        np.tile(out_of_fold, 2)[:, None], np.concatenate([y, 1 - y]), sample_weight=np.concatenate([1 - wrong, wrong])
    )
    scale, shift = max(float(platt.coef_[0, 0]), LEAST_SLOPE), float(platt.intercept_[0])
    ceiling = 1.0
    if labelled_share:
        ceiling = float((1 / (1 + np.exp(-(scale * out_of_fold[y == 1] + shift)))).mean())
    return _Row("binary", model.coef_[0], float(model.intercept_[0]), scale, shift, ceiling)


def _folds(z: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Three times which images to fit on and which to predict; of one group on the same side, where that leaves both classes."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    settings = {"n_splits": 3, "shuffle": True, "random_state": 0}
    if groups is not None and min(len(np.unique(groups[y == value])) for value in (0, 1)) >= 3:
        found = list(StratifiedGroupKFold(**settings).split(z, y, groups))
        if all(len(np.unique(y[fit])) == 2 and len(predicted) for fit, predicted in found):
            return found
    return list(StratifiedKFold(**settings).split(z, y))


def _score(row: _Row, y: np.ndarray, held: np.ndarray, held_y: np.ndarray) -> Score:
    from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

    predicted = held @ row.weight + row.bias
    if row.kind == "continuous":
        r2 = float(r2_score(held_y, predicted)) if len(held_y) > 1 else None
        return Score("continuous", len(y), float(y.mean()), len(held_y), r2=r2)
    both = set(np.unique(held_y)) == {0.0, 1.0}
    return Score(
        "binary",
        len(y),
        float(y.mean()),
        len(held_y),
        auroc=float(roc_auc_score(held_y, predicted)) if both else None,
        average_precision=float(average_precision_score(held_y, predicted)) if both else None,
    )
