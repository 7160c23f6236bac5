"""DCI and TAD on codes whose answer is known."""

import numpy as np
import pytest

from diffae.metrics.disentanglement import dci, factors, importance_scores, tad


def codes(rng, n, mixing=None):
    """Three binary factors, each on an axis of its own beside an idle one; or all mixed."""
    y = rng.integers(0, 2, (n, 3)).astype(float)
    z = np.concatenate([y + 0.1 * rng.standard_normal((n, 3)), rng.standard_normal((n, 1))], axis=1)
    return z if mixing is None else z @ mixing, {f"f{i}": y[:, i] for i in range(3)}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_an_axis_for_each_factor_is_disentangled_complete_and_informative(rng):
    found = dci(*codes(rng, 400), *codes(rng, 200))
    assert found["disentanglement"] > 0.8, "forests look at two values a split, so the idle one is not quite idle"
    assert found["completeness"] > 0.8
    assert found["informativeness"] > 0.98


def test_mixed_factors_are_informative_but_not_disentangled(rng):
    mixing = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    found = dci(*codes(rng, 400, mixing), *codes(rng, 200, mixing))
    assert found["disentanglement"] < 0.6
    assert found["completeness"] < 0.6
    assert found["informativeness"] > 0.8


def test_importances_are_scored_as_written_out():
    assert importance_scores(np.eye(3)) == {"disentanglement": pytest.approx(1), "completeness": pytest.approx(1)}
    assert importance_scores(np.ones((4, 3))) == {"disentanglement": pytest.approx(0), "completeness": pytest.approx(0)}
    assert importance_scores(np.zeros((4, 3))) == {"disentanglement": 0, "completeness": pytest.approx(0)}, "nothing is known"
    # Value 0 serves factor 0 alone; values 1 and 2 serve factor 1, value 1 three times as much; value 3 serves nothing.
    found = importance_scores(np.array([[1, 0], [0, 0.75], [0, 0.25], [0, 0]]))
    assert found["disentanglement"] == pytest.approx(1)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(4)
    assert found["completeness"] == pytest.approx(1 - entropy / 2)


def test_the_auroc_difference_is_between_the_best_two_values(rng):
    from sklearn.metrics import roc_auc_score

    z, labels = codes(rng, 300)
    z[:, 1] = -z[:, 0] + 0.5 * rng.standard_normal(300)  # Tells factor 0 too, the other way round; factor 1 is lost.
    total, captured = tad(z, labels)
    assert captured == 2
    auroc = {name: [roc_auc_score(y, z[:, i]) for i in range(4)] for name, y in labels.items()}
    best = {name: sorted((max(a, 1 - a) for a in values), reverse=True) for name, values in auroc.items()}
    assert total == pytest.approx(best["f0"][0] - best["f0"][1] + best["f2"][0] - best["f2"][1])


def test_unknown_and_constant_labels_are_no_factors(rng):
    z, labels = codes(rng, 60)
    labels["f1"][:30] = np.nan
    labels |= {"constant": np.ones(60), "grade": np.arange(60.0)}
    assert factors(labels) == ["f0", "f1", "f2"]
    assert tad(z, labels)[1] == 3
    with pytest.raises(ValueError, match="expected at least two binary labels, got 1"):
        dci(z, {"f0": labels["f0"]}, z, {"f0": labels["f0"]})


def test_a_code_of_one_number_is_complete():
    z = np.random.default_rng(0).normal(size=(200, 1))
    labels = {"a": (z[:, 0] > 0).astype(float), "b": (z[:, 0] > 0.5).astype(float)}
    found = dci(z[:100], {k: v[:100] for k, v in labels.items()}, z[100:], {k: v[100:] for k, v in labels.items()}, seed=0)
    assert all(np.isfinite(value) for value in found.values())
    assert found["completeness"] == pytest.approx(1)
