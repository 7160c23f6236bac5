"""Whether single values of a code stand for single factors: DCI and TAD.

A diffusion autoencoder's z_sem is linear, not axis-aligned: nothing in its training turns an attribute towards an axis.
"""

from collections.abc import Mapping

import numpy as np

CAPTURED = 0.75
"""AUROC of a single value from which on it captures an attribute (Yeats et al. 2022)."""
FORESTS_SEE = 4000
"""Training images of the random forests; more change the third digit and cost minutes."""


def dci(
    train: np.ndarray,
    train_labels: Mapping[str, np.ndarray],
    test: np.ndarray,
    test_labels: Mapping[str, np.ndarray],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Disentanglement, completeness and informativeness, of random forests that predict each binary factor.

    With R the importance of value i for factor j: disentanglement is `1 - H(R_ij / sum_j R_ij)`, weighted by each value's share
    of all importance; completeness `1 - H(R_ij / sum_i R_ij)`, averaged over factors; entropies in units of their maximum.
    Informativeness is the mean balanced accuracy on test codes.

    Args:
        train: (n, d) codes to fit on.
        train_labels: factor -> (n,) of 0, 1 or NaN for unknown.
        test: (m, d) codes to measure on.
        test_labels: factor -> (m,).
        seed: of the forests.

    Raises:
        ValueError: fewer than two factors.

    References:
        Eastwood & Williams 2018, *A framework for the quantitative evaluation of disentangled representations*.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import balanced_accuracy_score

    names = factors(train_labels, test_labels)
    if len(names) < 2:
        raise ValueError(f"Disentanglement is between factors: expected at least two binary labels, got {len(names)}.")
    importance, accuracy = [], []
    for name in names:
        y, y_test = train_labels[name], test_labels[name]
        # In any order: codes often come sorted by kind.
        known, known_test = np.random.default_rng(seed).permutation(np.flatnonzero(~np.isnan(y)))[:FORESTS_SEE], ~np.isnan(y_test)
        forest = RandomForestClassifier(100, class_weight="balanced", min_samples_leaf=5, random_state=seed, n_jobs=1)
        forest.fit(train[known], y[known])
        importance.append(forest.feature_importances_)
        accuracy.append(balanced_accuracy_score(y_test[known_test], forest.predict(test[known_test])))
    return importance_scores(np.stack(importance, axis=1)) | {"informativeness": float(np.mean(accuracy))}


def importance_scores(importance: np.ndarray) -> dict[str, float]:
    """Disentanglement and completeness of importances, (d, k) and not negative: of value i for factor j."""
    weight = importance.sum(1) / max(importance.sum(), 1e-12)
    return {
        "disentanglement": float((weight * (1 - _entropy(importance.T))).sum()),
        "completeness": float((1 - _entropy(importance)).mean()),
    }


def tad(z: np.ndarray, labels: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The total AUROC difference, and the number of attributes captured.

    An attribute is captured if one value alone tells it with an AUROC of at least `CAPTURED`, either way round; it then adds the
    difference between the AUROC of its best value and of its second best.

    Args:
        z: (n, d) codes.
        labels: attribute -> (n,) of 0, 1 or NaN for unknown.

    References:
        Yeats et al. 2022, *NashAE: Disentangling representations through adversarial covariance minimization*.
    """
    from scipy.stats import rankdata

    total, captured = 0.0, 0
    for name in factors(labels):
        known = ~np.isnan(labels[name])
        positive = labels[name][known] == 1
        p, n = positive.sum(), (~positive).sum()
        auroc = (rankdata(z[known], axis=0)[positive].sum(0) - p * (p + 1) / 2) / (p * n)  # Mann & Whitney 1947
        best = np.sort(np.maximum(auroc, 1 - auroc))[::-1]
        if best[0] >= CAPTURED:
            captured += 1
            total += best[0] - (best[1] if len(best) > 1 else 0.5)
    return float(total), float(captured)


def factors(*sides: Mapping[str, np.ndarray]) -> list[str]:
    """Labels with both values and no others, on every side."""
    return [name for name in sides[0] if all(set(np.unique(s[name][~np.isnan(s[name])])) == {0.0, 1.0} for s in sides)]


def _entropy(weights: np.ndarray) -> np.ndarray:
    """Of each column, scaled to sum to one; in units of the largest possible. Of zeros, the largest; of one value, 0."""
    if len(weights) == 1:
        return np.zeros(weights.shape[1])
    total = weights.sum(0)
    p = np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / len(weights))
    terms = np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0)
    return -terms.sum(0) / np.log(len(p))
