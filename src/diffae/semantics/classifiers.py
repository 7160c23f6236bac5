"""Classifiers of images that others made, as explanations ask them: any callable, and what its answers mean."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae.runtime.files import first_line

Answers = Literal["probability", "logit", "value"]
"""What the numbers of a classifier are: probabilities; logits, of one class or, through a softmax, of several; measurements."""
METHODS = {"probability": "predict_proba", "logit": "decision_function", "value": "predict"}
"""By which method an estimator of scikit-learn says each of them."""
LEAST = 1e-6
"""The least probability that is told from none."""


@dataclass(frozen=True)
class Classifier:
    """A classifier, or a regression, of images in [-1, 1].

    Attributes:
        call: images (n, c, *sides) -> (n,) or (n, k); or an estimator of scikit-learn, which is given pixels (n, c h w) in [0, 1].
        answers: what its numbers are; None takes numbers within 0..1 for probabilities, and refuses others.
        target: the class to decide for; of several measurements the one that is meant.
    """

    call: Any
    answers: Answers | None = None
    target: int | None = None

    def __post_init__(self) -> None:
        if self.answers not in (None, *get_args(Answers)):
            raise ValueError(f"answers must be one of {', '.join(get_args(Answers))}, got {self.answers!r}.")
        if isinstance(self.call, nn.Module) and self.call.training:
            raise ValueError("The classifier is in training mode, where it may say something else each time: call eval() first.")
        if self._methods and self.answers is not None and METHODS[self.answers] not in self._methods:
            kind = type(self.call).__name__
            said = ", ".join(repr(answers) for answers, method in METHODS.items() if method in self._methods)
            raise ValueError(
                f"{kind} has no {METHODS[self.answers]}, so its answers cannot be {self.answers!r}: it has those of {said}."
            )

    @property
    def _methods(self) -> list[str]:
        """Of an estimator of scikit-learn, by which methods it answers."""
        return [] if isinstance(self.call, nn.Module) else [method for method in METHODS.values() if hasattr(self.call, method)]

    @property
    def measures(self) -> bool:
        """Whether its answers are measurements, and no decisions."""
        return self.answers == "value"

    def scores(self, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, " n"]:
        """What a decision for the target depends on: the logit of its probability, or the value that was measured; float64.

        Without a target it is that of class 1 of two.

        Raises:
            ValueError: the classifier fails on such images, or its answers are not what was said of them.
        """
        given = self._asked(x)
        k = given.shape[1]
        if self.measures:
            return given[:, self._column(k, None if k > 1 else 0)]
        column = self._column(max(k, 2), None if k > 2 else 1)
        if self.answers == "logit":
            if k == 1:
                return given[:, 0] if column else -given[:, 0]
            return given[:, column] - given[:, [i for i in range(k) if i != column]].logsumexp(1)
        low, high = (float(v) for v in given.detach().aminmax()) if given.numel() else (0.0, 0.0)
        if not -1e-4 <= low <= high <= 1 + 1e-4:
            raise ValueError(
                f"The classifier's answers are within {low:.3g}..{high:.3g}, so they are no probabilities. Say what they are: "
                "answers='logit', or 'value' for a measurement."
            )
        p = given[:, column] if k > 1 else given[:, 0] if column else 1 - given[:, 0]
        return p.clamp(LEAST, 1 - LEAST).logit()

    def _column(self, k: int, usual: int | None) -> int:
        """Which of k things is asked for."""
        column = usual if self.target is None else self.target
        if column is None or not 0 <= column < k:
            raise ValueError(f"The classifier tells {k} things of an image: name one as target, 0..{k - 1}; got {self.target}.")
        return column

    def _asked(self, x: Tensor) -> Float[Tensor, "n k"]:
        """Its answers as they are, float64."""
        try:
            given = self._call()(x)
            given = given if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))
        except Exception as error:  # It may raise anything.
            raise ValueError(
                f"The classifier fails on images of shape {tuple(x.shape)} in [-1, 1], of which it should give numbers (n,) or "
                f"(n, k): {type(error).__name__}: {first_line(error)}"
            ) from error
        if given.dim() == 1:
            given = given[:, None]
        if given.dim() != 2 or len(given) != len(x) or not given.shape[1]:
            raise ValueError(f"The classifier should answer (n,) or (n, k) for {len(x)} images, and gave {tuple(given.shape)}.")
        if not given.isfinite().all():
            wrong = int((~given.isfinite().all(1)).sum())
            raise ValueError(f"The classifier's answers are not finite (NaN or infinite) for {wrong} of {len(x)} images.")
        return given.to(x.device).double()

    def _call(self) -> Callable[[Tensor], Any]:
        """How it is asked: a module where its weights are, an estimator of scikit-learn for what its numbers are said to be."""
        classifier = self.call
        if isinstance(classifier, nn.Module):
            weights = next(classifier.parameters(), None)
            return classifier if weights is None else lambda x: classifier(x.to(weights.device))
        if self._methods:
            asked = getattr(classifier, self._methods[0] if self.answers is None else METHODS[self.answers])
            return lambda x: asked(((x.detach() + 1) / 2).flatten(1).cpu().double().numpy())
        if not callable(classifier):
            raise TypeError(f"{type(classifier).__name__} is no function of images, and no estimator")
        return classifier
