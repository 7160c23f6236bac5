"""Commands that explain others' classifiers."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from diffae.cli import arguments, inputs
from diffae.cli.bars import say, warn, work_bar
from diffae.config import Count, Range, Seed

if TYPE_CHECKING:
    from torch import Tensor

    from diffae.autoencoder import DiffusionAutoencoder
    from diffae.data import ImageSet
    from diffae.evaluation.pages.figures import Progress
    from diffae.semantics.classifiers import Classifier
    from diffae.semantics.explanations import Explainer


@dataclass(frozen=True, kw_only=True)
class Classifying(arguments.Labelling):
    """What the commands share that ask a classifier."""

    source: arguments.LocalSource
    classifier: str
    """`module:function` (a function or module of torch, of images in [-1, 1], or an estimator of scikit-learn, of pixels (n, c h w)
    in [0, 1]), a file of TorchScript or ONNX, or a column of the labels, which a small network then learns from the pixels."""
    out: arguments.Folder
    """Folder of the page."""
    answers: Literal["probability", "logit", "value"] | None = None
    """What its answers are, where they are no probabilities: `logit`, or `value` for a measurement."""
    target: Annotated[int | None, Range(0)] = None
    """The class that is asked for; of two it is class 1, and each image is moved to the other one, by default."""
    data: str | None = None
    """The images that are changed; by default those that the run held out."""
    labels: Path | None = None
    """Labels of the run's images, if they bring none."""
    among: Annotated[int, Range(10)] = 2000
    """Training images that the classifier is asked about at first."""
    black_box: bool = False
    """Follow no gradients."""
    hold: Annotated[tuple[int, ...] | None, Range(1)] = None
    """Channels that must stay what they are, counted from 1: such as that of the nuclei."""
    steps: Annotated[int, Range(1, 1000)] = 10
    """Solver steps in either direction."""
    batch_size: Count = 32
    """Images at a time."""
    seed: Seed = 0
    """Of which images are taken, and of the networks that learn here."""

    def sets(self, ae: "DiffusionAutoencoder") -> "tuple[ImageSet, ImageSet, np.ndarray, np.ndarray]":
        """The run's images; those that are changed, in the order in which they are taken; which training images are asked about.

        Raises:
            ValueError: as of `images` and `looked_at`; or answers are said of columns, which are learned as what they are.
        """
        trained = inputs.images(ae, self.source, None, self.labels, labels_kind=self.labels_kind)
        if self.answers is not None and all(name in trained.labels for name in self._named()):
            raise ValueError(
                f"--answers {self.answers} is about what a program says, and {self.classifier} is a column of the labels: leave it "
                "away."
            )
        data = trained if self.data is None else inputs.images(ae, self.source, self.data)
        rng = np.random.default_rng(self.seed)
        among = np.sort(rng.permutation(trained.train)[: self.among])
        candidates = rng.permutation(inputs.looked_at(data, self.data, "explain"))
        return trained, data, candidates, among

    def _named(self) -> list[str]:
        """The classifiers, by their names."""
        return [self.classifier]

    def opened(self, name: str, data: "ImageSet", seed: int, update: "Progress") -> "Classifier":
        """The classifier of this name; one that learns a column of labels is another for each seed."""
        from diffae.explanation.opening import learned, open_classifier
        from diffae.semantics.classifiers import Classifier

        if name in data.labels:
            return learned(data, data.train, data.labels[name][data.train], target=self.target, seed=seed, progress=update)
        try:
            return Classifier(open_classifier(name), answers=self.answers, target=self.target)
        except ValueError as error:
            raise ValueError(f"{error} Columns are: {', '.join(data.labels) or 'none'}.") from None

    def explainer(self, ae: "DiffusionAutoencoder", trained: "ImageSet", among: np.ndarray, update: "Progress") -> "Explainer":
        """Explains the classifier by the model."""
        from diffae.semantics.explanations import Explainer

        return Explainer(
            ae, self.opened(self.classifier, trained, self.seed, update), trained.images(among),
            gradients=False if self.black_box else None, steps=self.steps, batch_size=self.batch_size,
            hold=self._held(ae), progress=update,
        )  # fmt: skip

    def _held(self, ae: "DiffusionAutoencoder") -> "Tensor | None":
        """1 where images must stay what they are."""
        import torch

        if self.hold is None:
            return None
        channels, *sides = ae.image_shape
        if any(channel > channels for channel in self.hold):
            raise ValueError(f"--hold names channels of 1..{channels}, got {', '.join(map(str, self.hold))}.")
        held = torch.tensor([float(i + 1 in self.hold) for i in range(channels)])
        return held.view(1, channels, *[1] * len(sides))


@dataclass(frozen=True, kw_only=True)
class Explain(Classifying):
    """Say why a classifier decides as it does, by images after which it decides otherwise: OUT/report.html, explain.json, PNGs.

    Of many images it is said how many decisions changed, how much the images did, whether a second classifier agrees, and
    whether moves at random would have done the same. Every classifier is asked as a black box at first: what it says of many
    images gives one direction for all. Images that this does not move far enough follow its gradients, where it has some.

    Example: diffae explain runs/xrays --classifier mymodule:classify --out runs/xrays/why
    """

    probability: Annotated[float, Range(0.5, 0.999)] = 0.9
    """That the counterfactual shall have at least."""
    value: Annotated[float | None, Range(-1e30, 1e30)] = None
    """In place of it, what a classifier that measures shall measure."""
    num: Count = 100
    """Images that are explained."""
    different: Count = 1
    """Counterfactuals of each image; those after the first change something else."""
    second: str | None = None
    """Another classifier of the same, named in the same way; by default a small network that learns what the first one says."""

    def run(self) -> None:
        from diffae.explanation.explaining import choose, explain_images
        from diffae.explanation.pages import write_explanation

        ae = inputs.autoencoder_of_pixels(self.source)
        trained, data, candidates, among = self.sets(ae)
        with work_bar("Explaining") as update:
            explainer = self.explainer(ae, trained, among, update)
            if explainer.classifier.measures == (self.value is None):
                what = "measures: give the --value that it shall measure" if self.value is None else "decides: leave --value away"
                raise ValueError(f"{self.classifier} {what}.")
            second = self._second(trained, among, explainer, update)
            chosen = choose(explainer, data, candidates, self.num)
            found = explain_images(
                explainer, data, chosen, second=second, probability=self.probability, value=self.value, num=self.different,
                seed=self.seed, progress=update,
            )  # fmt: skip
        about = {key: getattr(self, key) for key in ("classifier", "target", "probability", "value", "second", "steps", "seed")}
        page = write_explanation(found, [data.names[i] for i in chosen], self.out, ae=ae, about=about)
        for note in found.notes:
            warn(note)
        for name, value in found.shares.items():
            say(f"{name}: {value:.3g}")
        print(f"Open {page}")

    def _named(self) -> list[str]:
        return [self.classifier, *([] if self.second is None else [self.second])]

    def _second(self, data: "ImageSet", among: np.ndarray, explainer: "Explainer", update: "Progress") -> "Classifier | None":
        """Another classifier of the same."""
        from diffae.explanation.opening import learned

        name, seed = self.second or (self.classifier if self.classifier in data.labels else None), self.seed + 1
        if name is not None:
            return self.opened(name, data, seed, update)
        said = explainer.scores.cpu().numpy()
        y = said if explainer.classifier.measures else (said > 0).astype(float)
        if len(np.unique(y)) < 2:
            warn("The classifier decides all training images in the same way, so no second one can learn it: name one, --second.")
            return None
        return learned(data, among, y, target=None, seed=seed, progress=update)


@dataclass(frozen=True, kw_only=True)
class Audit(Classifying):
    """Say what a classifier decides by, of what is known of the images and what has no name: OUT/report.html, audit.json, PNGs.

    Each labelled attribute that z_sem knows is taken from held-out images and given to them, and the classifier asked what it says
    now; so is what it follows beside all of them. What it should decide by is --about: other factors that change decisions are
    suspicious.

    Example: diffae audit runs/quickstart --classifier mymodule:smiles --about Smiling --out runs/quickstart/audit
    """

    about: str | None = None
    """The labelled attribute that it is meant to decide by."""
    num: Count = 48
    """Images that are changed."""

    def run(self) -> None:
        from diffae.explanation.auditing import audit, changes, known_attributes
        from diffae.explanation.audits import verdict, write_audit

        ae = inputs.autoencoder_of_pixels(self.source)
        trained, data, candidates, among = self.sets(ae)
        with work_bar("Auditing") as update:
            attributes = known_attributes(ae, trained, among, update)
            explainer = self.explainer(ae, trained, among, update)
            chosen = candidates[: self.num]
            notes: list[str] = []
            x = data.images(chosen)
            made = changes(explainer, attributes, x, about=self.about, progress=update, tell=notes.append)
            factors = audit(explainer, attributes, x, made, about=self.about)
        unfitted = sorted({*trained.labels, *data.labels} - {*(attributes.names if attributes is not None else ())})
        if unfitted:
            notes.append(f"{', '.join(unfitted)}: no attributes of the model. `diffae fit-attributes` makes them, or says why not.")
        for note in notes:
            warn(note)
        about = {key: getattr(self, key) for key in ("classifier", "about", "target", "steps", "seed")}
        about |= {"n": len(chosen), "left_out": notes}
        page = write_audit(factors, self.out, ae=ae, about=about)
        for factor in factors[:8]:
            said = ", suspicious" if factor.suspicious else ""
            say(f"{factor.name}: {factor.effect:+.2f}, changes {factor.flips:.0%}{said}")
        print(verdict(factors, self.about))
        print(f"Open {page}")
