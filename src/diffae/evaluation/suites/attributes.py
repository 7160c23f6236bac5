"""What a linear classifier of z_sem knows of each attribute: AUROC and average precision, beside pixels (0.925 in the paper).

It is measured on held-out images of its own set, and on another set, where nothing is fitted anew. Beside it: how much single
values of the code stand for single attributes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from diffae.data.dataset import ImageSet
from diffae.evaluation.pages.tables import by_metric, by_model
from diffae.evaluation.results import Result
from diffae.evaluation.suites.bench import Bench
from diffae.evaluation.suites.section import NotMeasurable, Section
from diffae.metrics.disentanglement import dci, factors, tad
from diffae.metrics.probe import linear_scores, principal_components, small_pixels

SUITE, ELSEWHERE, DISENTANGLEMENT = "attributes", "attributes elsewhere", "disentanglement"

PIXELS = "16x16 pixels"

Part = tuple[ImageSet, np.ndarray]
"""A set, and indices of images of it."""


@dataclass(frozen=True, slots=True)
class Representation:
    """What classifiers may look at.

    Attributes:
        name: of it.
        make: the features of some images, (n, d).
        on: what they depend on.
    """

    name: str
    make: Callable[[Part], np.ndarray]
    on: list[str]
    _made: dict[tuple[str, bytes], np.ndarray] = field(default_factory=dict)

    def features(self, part: Part) -> np.ndarray:
        """The features of some images, computed once."""
        key = (part[0].key, part[1].tobytes())
        if key not in self._made:
            self._made[key] = self.make(part)
        return self._made[key]


def attributes(bench: Bench) -> Section:
    """Every binary label of the held-out images, and of those of another set, by a classifier of the training images' z_sem.

    Raises:
        NotMeasurable: the images have no labels.
        ValueError: the other set has no label of the same name.
    """
    data, transfer_data = bench.data, bench.transfer_data
    if not data.labels:
        raise NotMeasurable(
            "These images have no labels, so nothing is known of attributes. Leave the suite out, or give --labels."
        )
    if transfer_data is not None and not set(data.labels) & set(transfer_data.labels):
        raise ValueError(
            f"The other images have no label of the same name: {', '.join(transfer_data.labels) or 'none'} there, and here "
            f"{', '.join(data.labels)}."
        )
    results: list[Result] = []
    for r in _representations(bench):
        key = {"model": r.name, "seed": bench.seed}
        on = [*r.on, "labels"]
        results += bench.store.get({"suite": SUITE} | key, partial(_known, bench, r), on=on)
        if transfer_data is not None:
            results += bench.store.get({"suite": ELSEWHERE} | key, partial(_known_elsewhere, bench, r), on=[*on, "elsewhere"])
        if r.name != PIXELS and len(factors(_labels(data, data.train), _labels(data, data.validation))) > 1:
            results += bench.store.get({"suite": DISENTANGLEMENT} | key, partial(_disentangled, bench, r), on=on)
    rows = {suite: [r for r in results if r.suite == suite] for suite in (SUITE, ELSEWHERE, DISENTANGLEMENT)}
    tables = [by_model(rows[SUITE], "auroc", "AUROC"), by_model(rows[SUITE], "ap", "Average precision")]
    if rows[ELSEWHERE]:
        assert transfer_data is not None
        where = f"AUROC on {len(transfer_data.names):,} images of {transfer_data.config.source}, with the same classifiers"
        tables.append(by_model(rows[ELSEWHERE], "auroc", where))
    if rows[DISENTANGLEMENT]:
        tables.append(by_metric(rows[DISENTANGLEMENT], "Do single values stand for single attributes?"))
    text = (
        f"Logistic regressions (C = 0.1, standardised features) of {len(data.train):,} images, measured on {len(data.validation):,}"
        " held out. 0.5 is guessing. The autoencoder never saw a label. Disentanglement, completeness and informativeness are "
        "those of random forests (Eastwood & Williams 2018); TAD is the total AUROC difference of an attribute's best two values, "
        "over those attributes that one value captures (Yeats et al. 2022)."
    )
    if transfer_data is not None and not rows[ELSEWHERE]:
        text += f" No attribute has both values among the training images and in {transfer_data.config.source}: left out."
    return Section(SUITE, "What z_sem knows (section 5.3)", text, results, tables)


def _representations(bench: Bench) -> list[Representation]:
    def latents(encode: Callable, part: Part) -> np.ndarray:
        return bench.latents(encode, *part).numpy()

    pixels = Representation(PIXELS, partial(latents, lambda x: torch.from_numpy(small_pixels(x))), [])

    def components(part: Part) -> np.ndarray:
        return principal_components(pixels.features((bench.data, bench.data.train)), pixels.features(part))[1]

    return [
        Representation("z_sem", partial(latents, bench.ae.encode), ["model"]),
        pixels,
        Representation("128 principal components of them", components, []),
        *[Representation(o.title, partial(latents, o.encode), [f"against {o.title}"]) for o in bench.comparators],
    ]


def _labels(data: ImageSet, indices: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[indices] for name, values in data.labels.items()}


def _known(bench: Bench, r: Representation) -> list[Result]:
    return _scores(bench, r, SUITE, bench.data, bench.data.validation)


def _known_elsewhere(bench: Bench, r: Representation) -> list[Result]:
    assert bench.transfer_data is not None
    try:
        return _scores(bench, r, ELSEWHERE, bench.transfer_data, np.arange(len(bench.transfer_data.names)))
    except NotMeasurable:  # What was held out is told of all the same.
        return []


def _scores(bench: Bench, r: Representation, suite: str, data: ImageSet, indices: np.ndarray) -> list[Result]:
    """AUROC and average precision of each attribute that both sets have, their mean, and the mean weighted as in the paper."""
    bench.progress(f"Probing {r.name}", 0, 1)
    shared = [name for name in bench.data.labels if name in data.labels]
    train, test = _labels(bench.data, bench.data.train), _labels(data, indices)
    fit = {name: train[name] for name in shared}
    scores = linear_scores(r.features((bench.data, bench.data.train)), fit, r.features((data, indices)), test)
    if not scores:
        raise NotMeasurable("No attribute has both values among the training images and among those tested.")
    found = []
    for metric in ("auroc", "ap"):
        values = {name: score[metric] for name, score in scores.items()}
        weights = [float(np.nansum(test[name])) for name in values]
        every = list(values.values())
        values |= {"mean": float(np.mean(every)), "weighted by positives": float(np.average(every, weights=weights))}
        found += [Result(suite, r.name, metric, v, len(indices), seed=bench.seed, subject=name) for name, v in values.items()]
    return found


def _disentangled(bench: Bench, r: Representation) -> list[Result]:
    bench.progress(f"Disentanglement of {r.name}", 0, 1)
    data = bench.data
    train, held = r.features((data, data.train)), r.features((data, data.validation))
    values = dci(train, _labels(data, data.train), held, _labels(data, data.validation), seed=bench.seed)
    values["tad"], values["attributes captured"] = tad(held, _labels(data, data.validation))
    n = len(data.validation)
    return [Result(DISENTANGLEMENT, r.name, metric, value, n, seed=bench.seed) for metric, value in values.items()]
