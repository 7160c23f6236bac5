"""What all visitors of the page share: the model, its images and their codes. All work of the page is done here, without a page."""

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.data import ImageSet
from diffae.data.images import load_images
from diffae.diffusion.inversion import Code
from diffae.edits import Edit
from diffae.explanation.opening import learned
from diffae.interop.fingerprints import fingerprint
from diffae.runtime import seeding
from diffae.semantics.attributes import Attributes
from diffae.semantics.classifiers import Classifier
from diffae.semantics.explanations import Explainer
from diffae.semantics.fitting import fit_few
from diffae.semantics.standardizer import Standardizer

PREVIEW_STEPS = 4
"""Solver steps in either direction while a slider moves."""
MOST_UNDOS = 50
ASKED = 500
"""Images that a classifier is asked about before it is explained."""
WHY_STEPS = 5
"""Solver steps of an explanation: a visitor waits for many."""


class Opened:
    """An image that a visitor works on.

    Args:
        ae: the model.
        x: (1, c, *sides)

    Attributes:
        preview: its code at few steps; the unmoved image stays exact all the same, thanks to the code's defects.
    """

    def __init__(self, ae: DiffusionAutoencoder, x: Float[Tensor, "1 c *sides"]) -> None:
        self.x = x
        self.preview = ae.infer(x, steps=PREVIEW_STEPS)
        self._ae = ae

    @functools.cached_property
    def code(self) -> Code:
        """The code at full quality; a preview does not wait for it."""
        return self._ae.infer(self.x)


@dataclass(frozen=True)
class Visit:
    """What one visitor has done.

    Attributes:
        opened: the image.
        past: strengths before each change, the newest last.
        defined: attributes that the visitor defined, each with its classifier.
        z_sem: where the last edit moved the code to.
        asked: strengths, targets and attributes to keep, by which the code was moved.
    """

    opened: Opened | None = None
    past: tuple[Mapping[str, float], ...] = ()
    defined: Mapping[str, Attributes] = field(default_factory=dict)
    z_sem: Tensor | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)


class Workshop:
    """The model and its images.

    Args:
        ae: the model.
        data: images that it knows, or None.
        z_sem: (n, d), their codes, or None.
        name: of the model, for the page.
        classifiers: of others, by name, to be explained.

    Attributes:
        ended: set when the studio ends: work that takes long gives up then.
    """

    def __init__(
        self, ae: DiffusionAutoencoder, data: ImageSet | None, z_sem: Tensor | None, *, name: str,
        classifiers: Mapping[str, Classifier] | None = None,
    ) -> None:  # fmt: skip
        self.ae, self.data, self.z_sem, self.name, self.classifiers = ae, data, z_sem, name, dict(classifiers or {})
        self.ended = threading.Event()
        self._explainers: dict[str, Explainer] = {}
        self.model = fingerprint(ae)
        self.standardizer = None if z_sem is None else Standardizer.fit(z_sem)

    def attributes(self, visit: Visit) -> list[str]:
        """What can be edited: the fitted attributes, those known best first, then those that the visitor defined."""
        fitted = self.ae.attributes
        scores = {} if fitted is None else fitted.scores
        binary = sorted((n for n, s in scores.items() if s.kind == "binary"), key=lambda n: -(scores[n].auroc or 0.0))
        return [*binary, *visit.defined]

    def open_files(self, files: Sequence[str | Path], tell: Callable[[str], object] = lambda what: None) -> Tensor:
        """Image files as the model takes them; arguments and errors as of `load_images`."""
        channels, *sides = self.ae.pixels_shape()
        paths = [Path(file) for file in files]

        def named(said: str) -> str:
            # Where an upload lies is of no use to who sent it.
            return functools.reduce(lambda text, path: text.replace(str(path), path.name), paths, said)

        def warn(what: str) -> object:
            return tell(named(what))

        try:
            x = load_images(paths, size=tuple(sides), channels=channels, preparation=self.ae.preparation, warn=warn)
            return self.ae.from_pixels(x)
        except ValueError as error:
            raise ValueError(named(str(error))) from None

    def dropped_or_opened(self, visit: Visit, path: str | None, tell: Callable[[str], object]) -> Tensor:
        """The image that was dropped, else the one that is open in Edit.

        Raises:
            ValueError: neither is there.
        """
        if path is not None:
            return self.open_files([path], tell)
        if visit.opened is None:
            raise ValueError("Drop an image, or open one in Edit.")
        return visit.opened.x

    def moved(self, visit: Visit, strengths: Mapping[str, float], targets: Mapping[str, float], keep: Sequence[str]) -> Tensor:
        """z_sem of the opened image, moved by strengths and then to probabilities."""
        assert visit.opened is not None
        z, fitted = visit.opened.preview.z_sem, self.ae.attributes
        strengths = {name: s for name, s in strengths.items() if s}
        for name in [n for n in strengths if n in visit.defined]:
            z = visit.defined[name].move(z, {name: strengths[name]})
        known = {name: s for name, s in strengths.items() if name not in visit.defined}
        unchanged = [name for name in keep if name not in visit.defined and name not in known and name not in targets]
        if known and fitted is not None:
            z = fitted.move(z, known, unchanged)
        for name, target in targets.items():
            if name in visit.defined:
                z = visit.defined[name].reach(z, {name: target})
            else:
                assert fitted is not None
                z = fitted.reach(z, {name: target}, unchanged)
        return z

    def probabilities(self, visit: Visit, z_sem: Float[Tensor, "1 d"]) -> dict[str, float]:
        """The probability of every attribute at a code."""
        found: dict[str, float] = {}
        if self.ae.attributes is not None:
            found = {name: values[0] for name, values in self.ae.attributes.by_name(z_sem).items()}
        for name, classifier in visit.defined.items():
            found[name] = float(classifier.probabilities(z_sem)[0, 0])
        return {name: found[name] for name in self.attributes(visit)}

    def edit_of(self, visit: Visit) -> Edit:
        """The visitor's edit, to be saved."""
        if visit.opened is None or visit.z_sem is None:
            raise ValueError("Nothing is edited yet: open an image and move a slider.")
        code = visit.opened.code
        return Edit(self.model, visit.opened.x[0], visit.z_sem[0], code.inversion, code.steps, visit.asked)

    def define(self, name: str, positives: Sequence[int], negatives: Sequence[int]) -> Attributes:
        """An attribute from two groups of the set's images; errors as of `fit_few`."""
        if not name.strip():
            raise ValueError("Give the attribute a name.")
        z_sem, standardizer = self._codes()
        return fit_few(name.strip(), z_sem[list(positives)], z_sem[list(negatives)], standardizer)

    def neighbours(self, index: int, num: int) -> list[int]:
        """The images of the set whose codes are nearest, the image itself first."""
        z_sem, standardizer = self._codes()
        z = standardizer(z_sem)
        return (z - z[index]).square().sum(1).topk(min(num, len(z)), largest=False).indices.tolist()

    def map(self) -> np.ndarray:
        """(n, 2), the two principal coordinates of each image's standardised code, within 0..1."""
        z_sem, standardizer = self._codes()
        z = standardizer(z_sem)
        _, _, axes = torch.pca_lowrank(z, q=2, niter=4)
        at = z @ axes[:, :2]
        low, high = at.quantile(0.002, dim=0), at.quantile(0.998, dim=0)
        return ((at - low) / (high - low)).clamp(0, 1).numpy()

    def most_uncertain(self, labels: Mapping[int, int], *, seed: int = 0) -> int:
        """The image to label next: at first any, later the one that the classifier knows least about."""
        z_sem, standardizer = self._codes()
        open_ones = [i for i in range(len(z_sem)) if i not in labels]
        if not open_ones:
            raise ValueError("All images are labelled.")
        sides = [[i for i, y in labels.items() if y == value] for value in (1, 0)]
        if min(map(len, sides)) < 3:
            return open_ones[seeding.mix(seed, "teach", len(labels)) % len(open_ones)]
        classifier = fit_few("taught", z_sem[sides[0]], z_sem[sides[1]], standardizer)
        return open_ones[int((classifier.logits(z_sem[open_ones])[:, 0]).abs().argmin())]

    def taught_auroc(self, labels: Mapping[int, int]) -> float | None:
        """How well labels so far tell images apart that they were not fitted on (folds), or None while there are too few."""
        z_sem, standardizer = self._codes()
        known = [(i, y) for i, y in labels.items() if y in (0, 1)]
        y = np.array([b for _, b in known])
        if min((y == 0).sum(), (y == 1).sum(), 100) < 4:
            return None
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedKFold, cross_val_predict

        z = standardizer(z_sem[[i for i, _ in known]]).numpy()
        model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=500)
        folds = StratifiedKFold(4, shuffle=True, random_state=0)
        return float(roc_auc_score(y, cross_val_predict(model, z, y, cv=folds, method="decision_function")))

    def classifiable(self) -> list[str]:
        """What can be explained: others' classifiers, and labels of yes and no, which a small network learns when it is asked."""
        # Of latents there are no pixels to learn from.
        labels = {} if self.data is None or self.ae.config.latents is not None else self.data.labels
        known = [name for name, y in labels.items() if set(np.unique(y[~np.isnan(y)])) == {0.0, 1.0}]
        return [*self.classifiers, *(name for name in known if name not in self.classifiers)]

    def explainer(self, name: str, progress: Callable[[str, int, int], None]) -> Explainer:
        """What explains a classifier; it is made when it is asked for first."""
        if name not in self._explainers:
            data = self.data
            if data is None or name not in self.classifiable():
                raise ValueError(f"There is no classifier {name!r}.")
            among = np.sort(np.random.default_rng(0).permutation(data.train)[:ASKED])
            classifier = self.classifiers.get(name)
            if classifier is None:
                y = data.labels[name][data.train]
                classifier = learned(data, data.train, y, target=None, seed=0, progress=progress)
            self._explainers[name] = Explainer(self.ae, classifier, data.images(among), steps=WHY_STEPS, progress=progress)
        return self._explainers[name]

    def accept(self, visit: Visit, name: str, present: bool) -> Callable[[Tensor], Tensor]:
        """The probability with which a code shows, or lacks, an attribute."""
        classifier = visit.defined.get(name, self.ae.attributes)
        assert classifier is not None
        return classifier.probability(name, value=present)

    def _codes(self) -> tuple[Tensor, Standardizer]:
        if self.z_sem is None or self.standardizer is None:
            raise ValueError("This needs images: start with `diffae studio RUN --data IMAGES`.")
        return self.z_sem, self.standardizer
