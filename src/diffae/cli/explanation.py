"""Commands that explain: others' classifiers, and images that are unlike a model's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from diffae.cli import arguments, inputs
from diffae.cli.bars import say, warn, work_bar
from diffae.config import Count, Range, Seed

if TYPE_CHECKING:
    from diffae.data import ImageSet
    from diffae.evaluation.pages.figures import Progress
    from diffae.semantics.classifiers import Classifier
    from diffae.semantics.explanations import Explainer


@dataclass(frozen=True, kw_only=True)
class Anomaly(arguments.Labelling):
    """Find images that are not like those that a model was trained on: OUT/report.html, anomaly.json, images.csv, pictures.

    Example: diffae anomaly runs/cells --data new/ --out runs/cells/anomaly
    """

    source: arguments.LocalSource
    out: arguments.Folder
    """Folder of the page."""
    data: str | None = None
    """The images to look at; by default those that the run held out."""
    labels: Path | None = None
    """Their labels, if they bring none."""
    column: str | None = None
    """Of their labels, the one that is 1 for anomalies and 0 for usual images: how well they are told is measured then."""
    usual: str | None = None
    """Images that are usual; by default those that the run was trained on."""
    num: Count = 16
    """How many images are drawn, of the least usual."""

    def run(self) -> None:
        from diffae.explanation.anomalies import write_anomalies
        from diffae.explanation.anomaly import Usual

        ae = inputs.autoencoder(self.source)
        kinds = {"labels_kind": self.labels_kind}
        trained = inputs.images(ae, self.source, self.usual, self.labels if self.data is None else None, **kinds)
        data = trained if self.data is None else inputs.images(ae, self.source, self.data, self.labels, **kinds)
        indices = trained.validation if self.data is None else np.arange(len(data.names))
        if not len(indices):
            raise ValueError("The run holds no images out to look at: name some with --data.")
        with work_bar("Looking") as update:
            usual = Usual(ae, trained, update)
            page, result = write_anomalies(
                usual, trained, data, indices, self.out, column=self.column, num=self.num, progress=update
            )
        for image in result["images"][:5]:
            say(f"{image['file']}: {image['score']:.1f}")
        for name, value in result.get("auroc", {}).items():
            say(f"AUROC of {name}: {value:.3f}")
        print(f"Open {page}")


@dataclass(frozen=True, kw_only=True)
class Explain(arguments.Labelling):
    """Say why a classifier decides as it does, by images after which it decides otherwise: OUT/report.html, explain.json, PNGs.

    Of many images it is said how many decisions changed, how much the images did, whether a second classifier agrees, and
    whether moves at random would have done the same. A classifier with gradients (a module of torch, TorchScript, a function
    of torch) is followed by them, every other one is asked as a black box.

    Example: diffae explain runs/xrays --classifier mymodule:classify --out runs/xrays/why
    """

    source: arguments.LocalSource
    classifier: str
    """`module:function` (a function, module of torch or estimator of scikit-learn, of images in [-1, 1]), a file of TorchScript or
    ONNX, or a column of the labels, which a small network then learns from the pixels."""
    out: arguments.Folder
    """Folder of the page."""
    answers: Literal["probability", "logit", "value"] | None = None
    """What its answers are, where they are no probabilities: `logit`, or `value` for a measurement."""
    target: Annotated[int | None, Range(0)] = None
    """The class to move to. Of two classes each image is moved to the other one by default."""
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
    data: str | None = None
    """The images to explain; by default those that the run held out."""
    labels: Path | None = None
    """Their labels, if they bring none."""
    among: Annotated[int, Range(10)] = 2000
    """Training images that the classifier is asked about at first."""
    black_box: bool = False
    """Follow no gradients."""
    steps: arguments.Steps = 10
    """Solver steps in either direction."""
    batch_size: Count = 32
    """Images at a time."""
    seed: Seed = 0
    """Of which images are taken, and of the networks that learn here."""

    def run(self) -> None:
        from diffae.explanation.explaining import choose, explain_images
        from diffae.explanation.pages import write_explanation
        from diffae.semantics.explanations import Explainer

        ae = inputs.autoencoder(self.source)
        kinds = {"labels_kind": self.labels_kind}
        trained = inputs.images(ae, self.source, None, self.labels if self.data is None else None, **kinds)
        data = trained if self.data is None else inputs.images(ae, self.source, self.data, self.labels, **kinds)
        rng = np.random.default_rng(self.seed)
        among = np.sort(rng.permutation(trained.train)[: self.among])
        with work_bar("Explaining") as update:
            classifier = self._classifier(self.classifier, trained, among, 0, update)
            explainer = Explainer(
                ae, classifier, trained.images(among), gradients=False if self.black_box else None, steps=self.steps or 10,
                batch_size=self.batch_size, progress=update,
            )  # fmt: skip
            second = self._second(trained, among, explainer, update)
            candidates = rng.permutation(data.validation if self.data is None else np.arange(len(data.names)))
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

    def _classifier(self, name: str, data: "ImageSet", among: np.ndarray, seed: int, update: "Progress") -> "Classifier":
        """The classifier of this name; one that learns a column of labels is another for each seed."""
        from diffae.explanation.opening import learned, open_classifier
        from diffae.semantics.classifiers import Classifier

        if name in data.labels:
            return learned(data, data.train, data.labels[name][data.train], target=self.target, seed=seed, progress=update)
        try:
            return Classifier(open_classifier(name), answers=self.answers, target=self.target)
        except ValueError as error:
            raise ValueError(f"{error} Columns are: {', '.join(data.labels) or 'none'}.") from None

    def _second(self, data: "ImageSet", among: np.ndarray, explainer: "Explainer", update: "Progress") -> "Classifier":
        """Another classifier of the same."""
        from diffae.explanation.opening import learned

        name = self.second or (self.classifier if self.classifier in data.labels else None)
        if name is not None:
            return self._classifier(name, data, among, 1, update)
        said = explainer.scores.cpu().numpy()
        y = said if explainer.classifier.measures else (said > 0).astype(float)
        return learned(data, among, y, target=None, seed=1, progress=update)
