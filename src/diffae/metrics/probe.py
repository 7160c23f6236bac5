"""What a representation knows: a linear probe of each labelled attribute."""

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def linear_probe(
    train: np.ndarray, train_labels: dict[str, np.ndarray], test: np.ndarray, test_labels: dict[str, np.ndarray]
) -> dict[str, float]:
    """The AUROC of `linear_scores`."""
    return {name: score["auroc"] for name, score in linear_scores(train, train_labels, test, test_labels).items()}


def linear_scores(
    train: np.ndarray, train_labels: dict[str, np.ndarray], test: np.ndarray, test_labels: dict[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """What a logistic regression (C = 0.1, standardised features) knows of each binary attribute, on test features.

    Args:
        train: (n, d) features to fit on.
        train_labels: attribute -> (n,) of 0, 1 or NaN for unknown.
        test: (m, d) features to measure on.
        test_labels: attribute -> (m,).

    Returns:
        attribute -> `auroc` and `ap`, the average precision. Attributes that are not binary, or have only one class on either
        side, are left out.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score, roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = {}
    for name, y in train_labels.items():
        known, known_test = ~np.isnan(y), ~np.isnan(test_labels[name])
        if set(y[known]) != {0.0, 1.0} or set(test_labels[name][known_test]) != {0.0, 1.0}:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(train[known], y[known])
        predicted, true = model.decision_function(test[known_test]), test_labels[name][known_test]
        found[name] = {"auroc": float(roc_auc_score(true, predicted)), "ap": float(average_precision_score(true, predicted))}
    return found


def small_pixels(x: Float[Tensor, "n c *sides"], side: int = 16) -> np.ndarray:
    """Images shrunk to side x side pixels, volumes to half as many voxels a side, flattened: the floor that a representation must
    beat."""
    if x.dim() == 5:
        return F.adaptive_avg_pool3d(x, side // 2).flatten(1).numpy()
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True).flatten(1).numpy()


def principal_components(train: np.ndarray, test: np.ndarray, num: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Both sets' coordinates along the first `num` principal components of the first."""
    from sklearn.decomposition import PCA

    pca = PCA(min(num, *train.shape), random_state=0).fit(train)
    return pca.transform(train), pca.transform(test)
