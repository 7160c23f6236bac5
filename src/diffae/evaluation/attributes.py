"""What a linear classifier of z_sem knows of each attribute: AUROC and average precision, beside pixels (0.925 in the paper)."""

import numpy as np

from diffae.evaluation.bench import Bench, Section
from diffae.evaluation.figures import Encoded
from diffae.evaluation.probe import linear_scores, principal_components
from diffae.evaluation.results import Result

SUITE = "attributes"


def attributes(bench: Bench) -> Section:
    """Every binary label of the held-out images, by a classifier of the training images' z_sem."""
    data = bench.data
    if not data.labels:
        raise ValueError("These images have no labels, so nothing is known of attributes. Leave the suite out, or give --labels.")
    labels, held = ({k: v[i] for k, v in data.labels.items()} for i in (data.train, data.validation))

    def measure() -> list[Result]:
        a, b = (Encoded.of(bench.ae, data, i, bench.progress) for i in (data.train, data.validation))
        features: dict[str, tuple[np.ndarray, ...]] = {
            "z_sem": (a.z_sem.numpy(), b.z_sem.numpy()),
            "16x16 pixels": (a.pixels, b.pixels),
            "128 principal components of them": principal_components(a.pixels, b.pixels),
        }
        for other in bench.against:
            features[other.title] = tuple(bench.latents(other.encode, i).numpy() for i in (data.train, data.validation))
        found = []
        for model, (train, test) in features.items():
            bench.progress(f"Probing {model}", 0, 1)
            scores = linear_scores(train, labels, test, held)
            for metric in ("auroc", "ap"):
                values = {name: score[metric] for name, score in scores.items()}
                weights = [float(np.nansum(held[name])) for name in values]
                every = list(values.values())
                values |= {"mean": float(np.mean(every)), "weighted by positives": float(np.average(every, weights=weights))}
                found += [
                    Result(SUITE, model, metric, value, len(data.validation), seed=bench.seed, subject=name)
                    for name, value in values.items()
                ]
        return found

    results = bench.store.get({"suite": SUITE, "seed": bench.seed, "against": [o.title for o in bench.against]}, measure)
    text = (
        f"Logistic regressions (C = 0.1, standardised features) of {len(data.train):,} images, measured on {len(data.validation):,}"
        " held out. 0.5 is guessing. The autoencoder never saw a label."
    )
    return Section(SUITE, "What z_sem knows (section 5.3)", text, results)
