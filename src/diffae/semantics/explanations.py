"""What would have to change in images for a classifier to decide otherwise: counterfactuals of a model, by moves of z_sem."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffae.diffusion.border import check_one_each
from diffae.diffusion.inversion import Code, decode_along_path
from diffae.semantics.classifiers import Classifier
from diffae.semantics.counterfactuals import MovedCodes, Spread, answer_gradient, move_until

STEPS = 10
"""Solver steps of an explanation: fewer than of an edit, because each look decodes."""
NEAR = 0.02
"""How near a measured value comes to the one that is asked for, in standard deviations of those measured."""


@dataclass(frozen=True, slots=True)
class Counterfactuals:
    """Images after which a classifier decides otherwise.

    Attributes:
        images: (n, num, c, *sides) in [-1, 1]: of each image the counterfactual, and others that change something else.
        z_sem: (n, num, d), their codes; x_T is the images' own.
        before: (n,), what the classifier says of the images: the probability of the target, without one that of class 1; or the
            value that it measures.
        after: (n, num), what it says of the counterfactuals.
        reached: (n, num), whether that is what was asked for.
        length: (n, num), of the moves, in standard deviations of the codes (Mahalanobis).
        gradients: (n, num), whether the classifier's gradients were followed; else one direction, of what it says of many images.
    """

    images: Tensor
    z_sem: Tensor
    before: Tensor
    after: Tensor
    reached: Tensor
    length: Tensor
    gradients: Tensor

    def to(self, device: torch.device) -> "Counterfactuals":
        """The same on a device."""
        return Counterfactuals(**{each.name: getattr(self, each.name).to(device) for each in fields(self)})


class Explainer:
    """Explains a classifier by a model.

    Args:
        ae: the model, a `DiffusionAutoencoder`.
        classifier: the classifier.
        among: images as the model takes them, of which the classifier's answers and the codes' spread are taken: the more the
            better.
        gradients: whether to follow the classifier's gradients. None does where it has some, for the images that one direction
            for all does not move far enough: it is quicker, and where it arrives it changes images less (benchmarks/explain.md).
        steps: solver steps in either direction.
        batch_size: images at a time.
        hold: (1, c or 1, *sides or 1s), 1 where images must stay what they are.
        progress: told how far it is.

    Attributes:
        z_sem: (m, d), codes of `among`.
        scores: (m,), what the classifier says of them.
        spread: of the codes.
        slope: (d,), how scores change with standardised codes.
        gradients: whether the classifier has gradients that are followed.

    Raises:
        ValueError: the classifier fails, or says the same of all images.
    """

    def __init__(
        self, ae: Any, classifier: Classifier, among: Float[Tensor, "m c *sides"], *, gradients: bool | None = None,
        steps: int = STEPS, batch_size: int = 32, hold: Tensor | None = None,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:  # fmt: skip
        self.ae, self.classifier, self.among = ae, classifier, among
        self.steps, self.batch_size, self.hold, self.progress = steps, batch_size, hold, progress
        codes, scores = [], []
        for part in among.split(batch_size):
            codes.append(ae.encode(part))
            scores.append(self.ask(part))
            progress("Asking the classifier", sum(map(len, scores)), len(among))
        self.z_sem, self.scores = torch.cat(codes), torch.cat(scores)
        self.spread = Spread(self.z_sem)
        self.slope = answer_gradient(self.spread, self.z_sem, self.scores)
        self.gradients, self._at_once = gradients is not False and self._differentiable(among[:1]), gradients is True
        if gradients and not self.gradients:
            raise ValueError("The classifier has no gradients: torch does not know how its answers depend on images.")

    @torch.no_grad()
    def ask(self, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, " n"]:
        """What the classifier says of images, see `Classifier.scores`."""
        return self.classifier.scores(self.ae.to_pixels(self.ae.clamp(x)))

    def rendered(self, code: Code, z_sem: Float[Tensor, "n d"]) -> Float[Tensor, "n c *sides"]:
        """Images of a code with other z_sem, of which what is to stay stays."""
        return self.ae.clamp(self.ae.render(code, z_sem=z_sem, hold=self.hold))

    def explain(
        self, x: Float[Tensor, "n c *sides"], *, probability: float = 0.9, value: float | Tensor | None = None, num: int = 1
    ) -> Counterfactuals:
        """Counterfactuals of images.

        Args:
            x: the images.
            probability: that the target shall have at least; without a target, the class that an image is not of.
            value: that the classifier shall measure, one for all or (n,), where it measures.
            num: how many of each image: beside the first, others, whose codes move along other axes.

        Raises:
            ValueError: a probability that is not within .5..1, a value where there is none to measure, or none where there is.
        """
        if value is not None:
            check_one_each(value, len(x))
        parts: list[Tensor | None] = [None, *(self.spread.parts(self.slope, num - 1) if num > 1 else ())]
        before, found = [], []
        for rows in torch.arange(len(x)).split(self.batch_size):
            scores = self.ask(x[rows])
            asked = value[rows] if isinstance(value, Tensor) and value.dim() else value
            goal = self._goal(scores, probability, asked)
            code = self.ae.infer(x[rows], steps=self.steps)
            before.append(scores)
            found.append([self._moved(code, *goal, part) for part in parts])
            self.progress("Looking for counterfactuals", sum(map(len, before)), len(x))
        images, z_sem, after, reached, length, followed = (
            torch.cat([torch.stack([one[i] for one in column], 1) for column in found]) for i in range(6)
        )
        shown = torch.cat([torch.cat(before)[:, None], after], 1)
        shown = shown if self.classifier.measures else shown.sigmoid()
        return Counterfactuals(images, z_sem, shown[:, 0], shown[:, 1:], reached.bool(), length, followed)

    def inferred(self, x: Float[Tensor, "n c *sides"]) -> Iterator[tuple[Tensor, Code]]:
        """Images and their codes, as many at a time as are to be: codes keep every state on the way."""
        for part in x.split(self.batch_size):
            yield part, self.ae.infer(part, steps=self.steps)

    def slopes(self, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n d"]:
        """How scores change with standardised codes at images, float64: by gradients, or in one way for all."""
        if not self.gradients:
            return self.slope.expand(len(x), -1)
        return torch.cat([self._gradient(code, code.z_sem) for _, code in self.inferred(x)])

    def _goal(self, scores: Tensor, probability: float, value: float | Tensor | None) -> tuple[Tensor, Tensor]:
        """The score that each image shall have, and 1 where that is a least one, -1 where it is a most."""
        if (value is None) == self.classifier.measures:
            raise ValueError(
                "A classifier that measures needs the value that it shall measure, and one that decides a probability."
            )
        if value is not None:
            goal = torch.as_tensor(value).to(scores).expand_as(scores)
            sign = torch.where(goal >= scores, 1.0, -1.0).to(scores)
            return goal - sign * NEAR * float(self.scores.std()), sign
        if not 0.5 <= probability < 1:
            raise ValueError(f"The probability must be within 0.5..1, got {probability}.")
        sign = torch.ones_like(scores) if self.classifier.target is not None else torch.where(scores > 0, -1.0, 1.0).to(scores)
        return sign * torch.tensor(probability).logit(), sign

    def _moved(self, code: Code, goal: Tensor, sign: Tensor, part: Tensor | None) -> tuple[Tensor, ...]:
        """Images, codes, scores, whether they reach the goal, how far codes were moved, and whether along gradients."""

        def along(rows: Tensor, gradients: bool) -> MovedCodes:
            """These images moved, each along its own gradients or all in one direction."""

            def look(indices: Tensor, z_sem: Tensor) -> tuple[Tensor, Tensor]:
                images = self.rendered(code[rows[indices]], z_sem)
                return images, (goal[rows[indices]] - self.ask(images)) * sign[rows[indices]]

            def slope(indices: Tensor, z_sem: Tensor) -> Tensor:
                own = self._gradient(code[rows[indices]], z_sem) if gradients else self.slope.expand(len(indices), -1)
                return own * sign[rows[indices], None]

            return move_until(code.z_sem[rows], self.spread, look, slope, part=part)

        everyone = torch.arange(len(code.z_sem), device=code.z_sem.device)
        moved = along(everyone, self._at_once)
        followed = torch.full_like(everyone, self._at_once, dtype=torch.bool)
        missed = everyone[moved.lacking > 0]
        if self.gradients and not self._at_once and len(missed):
            again = along(missed, True)
            nearer = again.lacking < moved.lacking[missed]
            for tensor, other in zip(moved, again, strict=True):
                tensor[missed[nearer]] = other[nearer]
            followed[missed[nearer]] = True
        standardizer = self.spread.standardizer
        length = self.spread.length(standardizer(moved.z_sem) - standardizer(code.z_sem))
        return moved.images, moved.z_sem, goal - sign * moved.lacking, moved.lacking <= 0, length, followed & (length > 0)

    def _gradient(self, code: Code, z_sem: Tensor) -> Tensor:
        """Of the scores of a code's images, with respect to standardised codes."""
        with torch.enable_grad():
            leaf = z_sem.detach().clone().requires_grad_()
            ask = self.ae.eps_model(leaf)
            # What a call keeps for its gradient is computed again: all steps together would not fit into memory.
            images = decode_along_path(
                lambda *asked: checkpoint(ask, *asked, use_reentrant=False), code, self.ae.path(code.steps), hold=self.hold
            )
            scores = self.classifier.scores(self.ae.to_pixels(self.ae.clamp(images)))
            (found,) = torch.autograd.grad(scores.sum(), leaf)
        found = found.double() * self.spread.standardizer.std.to(found.device)
        # A classifier that is quite sure has no slope that could be computed: there, that of all images.
        known = found.isfinite().all(1) & (found.abs().amax(1) > 0)
        return torch.where(known[:, None], found, self.slope.to(found))

    def _differentiable(self, x: Tensor) -> bool:
        """Whether torch knows how answers depend on images."""
        try:
            with torch.enable_grad():
                return self.classifier.scores(self.ae.to_pixels(x.detach().clone().requires_grad_())).requires_grad
        except ValueError:  # It has answered before, without gradients.
            return False
