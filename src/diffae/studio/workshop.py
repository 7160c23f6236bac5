"""What all visitors of the page share: the model, its images and their codes. All work of the page is done here, without a page."""

import contextlib
import functools
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.data import ImageSet
from diffae.data.images import load_images
from diffae.edits import Edit, levels_of
from diffae.explanation.opening import learned
from diffae.interop.fingerprints import digest_model, fingerprint
from diffae.runtime import seeding
from diffae.semantics.attributes import Attributes
from diffae.semantics.classifiers import Classifier
from diffae.semantics.explanations import Explainer
from diffae.semantics.fitting import fit_few
from diffae.semantics.rejection import Accepted
from diffae.semantics.standardizer import Standardizer
from diffae.studio.moves import move
from diffae.studio.visit import OpenImage, Visit, new_name

EXAMPLES = 16
"""Images to begin with."""
DRAWN, PATIENCE = 8, 5.0
"""How many of them are drawn where there is no set, and seconds after which no more are."""
LEAVING = 5.0
"""Seconds that work has, when the studio ends, to give up."""
ASKED = 500
"""Images that a classifier is asked about before it is explained."""
WHY_STEPS = 5
"""Solver steps of an explanation: a visitor waits for many."""


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
        requests: how often visitors have asked for something.
        paces: seconds that one of what was done took, by what it was.
    """

    def __init__(
        self, ae: DiffusionAutoencoder, data: ImageSet | None, z_sem: Tensor | None, *, name: str,
        classifiers: Mapping[str, Classifier] | None = None,
    ) -> None:  # fmt: skip
        self.ae, self.data, self.z_sem, self.name, self.classifiers = ae, data, z_sem, name, dict(classifiers or {})
        self.ended, self.requests, self.paces = threading.Event(), 0, dict[str, float]()
        self._watching, self._workers = threading.local(), weakref.WeakSet[threading.Thread]()
        self._explainers: dict[str, Explainer] = {}
        self.model, self.networks = fingerprint(ae), digest_model(ae)
        self.standardizer = None if z_sem is None else Standardizer.fit(z_sem)

    def check_open(self) -> None:
        """Raises RuntimeError where the studio has ended."""
        if self.ended.is_set():
            raise RuntimeError("The studio has ended.")

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Within it the studio is open: network calls are told to who watches. At its end they are given up, and the model is then
        as it was before; work that is within a call for longer than `LEAVING` seconds keeps it until that call ends."""
        self.ended.clear()
        owner, before = threading.current_thread(), self.ae.watch
        self.ae.watch = self._asked

        def leave() -> None:
            for worker in set(self._workers) - {owner}:
                worker.join()
            self.ae.watch = before

        try:
            yield
        finally:
            self.ended.set()
            (leaving := threading.Thread(target=leave, daemon=True)).start()
            leaving.join(LEAVING)

    @contextlib.contextmanager
    def watched(self, tell: Callable[[int], object]) -> Iterator[None]:
        """Within it, while the studio is open, for each network call that this thread makes, the number of images is told."""
        self._watching.tell = tell
        try:
            yield
        finally:
            del self._watching.tell

    def _asked(self, images: int) -> None:
        self._workers.add(threading.current_thread())
        self.check_open()
        if tell := getattr(self._watching, "tell", None):
            tell(images)

    @functools.cached_property
    def examples(self) -> Tensor:
        """(n, c, *sides), images to begin with: of the set those that it has not seen, else some that it draws, if it can."""
        if self.data is not None:
            held = self.data.validation if len(self.data.validation) else self.data.train
            return self.data.images([int(i) for i in held[:EXAMPLES]])
        drawn: list[Tensor] = []
        until = time.monotonic() + PATIENCE
        if self.ae.prior is not None and self.ae.standardizer is not None:
            z = self.draw(DRAWN).z_sem
            while len(drawn) < DRAWN and (not drawn or time.monotonic() < until):
                drawn.append(self.ae.decode(z[len(drawn) : len(drawn) + 1], start=len(drawn)))
        return self.ae.clamp(torch.cat(drawn)) if drawn else torch.empty(0, *self.ae.image_shape)

    def draw(self, num: int, **settings: Any) -> Accepted:
        """`sample_z_sem`, of which everything else here is on the processor, wherever the model computes."""
        z_sem, proposals = self.ae.sample_z_sem(num, **settings)
        return Accepted(z_sem.cpu(), proposals)

    @functools.cached_property
    def first(self) -> OpenImage | None:
        """The image that is open when a visitor comes, for all of them one, with its codes; None where there is none."""
        if not len(self.examples):
            return None
        opened = OpenImage(self.ae, self.examples[:1])
        # Whoever comes moves a slider at once, and it should not have to wait for these.
        _ = opened.preview, opened.code
        return opened

    def open(self, visit: Visit, x: Float[Tensor, "1 c *sides"]) -> tuple[Visit, int]:
        """The visit with an image opened; see `Visit.open`. One that was opened before need not be encoded again."""
        return visit.open(visit.find_opened(x) or OpenImage(self.ae, x))

    def attributes(self, visit: Visit) -> list[str]:
        """What can be edited: the fitted attributes, those known best first, then those that the visitor defined."""
        fitted = self.ae.attributes
        scores = {} if fitted is None else fitted.scores
        binary = sorted((n for n, s in scores.items() if s.kind == "binary"), key=lambda n: -(scores[n].auroc or 0.0))
        return [*binary, *visit.defined]

    @property
    def fitted(self) -> list[str]:
        """The names that are taken: of all fitted attributes, measurements too, which no slider moves."""
        return [] if self.ae.attributes is None else list(self.ae.attributes.names)

    def open_files(self, files: Sequence[str | Path], tell: Callable[[str], object] = lambda what: None) -> Tensor:
        """Image files as the model takes them; arguments and errors as of `load_images`."""
        channels, *sides = self.ae.pixels_shape()
        paths = [Path(file) for file in files]

        def named(said: str) -> str:
            # Where an upload lies is of no use to who sent it.
            return functools.reduce(lambda text, path: text.replace(str(path), path.name), paths, said)

        settings: dict[str, Any] = {"channels": channels, "preparation": self.ae.preparation}
        try:
            x = load_images(paths, size=tuple(sides), warn=lambda what: tell(named(what)), **settings)
            return self.ae.from_pixels(x)
        except FileNotFoundError as error:
            raise FileNotFoundError(named(str(error))) from None
        except OSError as error:
            raise OSError(named(str(error))) from None
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
        return move(visit.opened.z_sem, self.ae.attributes, visit.defined, strengths, targets, keep)

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
        levels = levels_of(self.ae)
        return Edit(self.model, visit.opened.x[0], visit.z_sem[0], code.inversion, code.steps, visit.asked, self.networks, levels)

    def define(self, name: str, positives: Sequence[int], negatives: Sequence[int]) -> Attributes:
        """An attribute from two groups of the set's images; errors as of `new_name` and `fit_few`."""
        name = new_name(name, self.fitted)
        z_sem, standardizer = self._codes()
        return fit_few(name, z_sem[list(positives)], z_sem[list(negatives)], standardizer)

    def neighbours(self, index: int, num: int) -> list[int]:
        """The images of the set whose codes are nearest, the image itself first."""
        z_sem, standardizer = self._codes()
        z = standardizer(z_sem)
        return (z - z[index]).square().sum(1).topk(min(num, len(z)), largest=False).indices.tolist()

    def map(self) -> np.ndarray:
        """(n, 2), the two principal coordinates of each image's standardised code, within 0..1; 0.5 where there is but one."""
        z_sem, standardizer = self._codes()
        z = standardizer(z_sem)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # It begins with random directions.
            axes = torch.pca_lowrank(z, q=min(2, *z.shape), niter=4)[2]
        at = torch.nn.functional.pad(z @ axes, (0, 2 - axes.shape[1]))
        low, high = at.quantile(0.002, dim=0), at.quantile(0.998, dim=0)
        return ((at - low) / (high - low)).nan_to_num(0.5).clamp(0, 1).numpy()

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
                classifier = learned(data, data.train, data.labels[name][data.train], target=None, seed=0, progress=progress)
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
