"""Distances between sets of features, against computations that share nothing with them."""

import itertools
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffae.metrics.statistics import Moments, frechet_distance, kernel_distance, precision_recall


def features(n, d=12, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator)
    return torch.randn(n, d, generator=generator) @ mix + shift


@pytest.mark.parametrize(("n", "m"), [(400, 300), (8, 300)])
def test_the_frechet_distance_is_that_of_scipys_matrix_square_root(n, m):
    a, b = features(n), features(m, seed=1, shift=0.5)
    x, y = a.double().numpy(), b.double().numpy()
    cov_x, cov_y = np.cov(x.T), np.cov(y.T)
    # Few features leave a singular covariance; scipy's root needs it to be regular.
    extra = 1e-9 * np.eye(12) if n < 12 else 0
    root = scipy.linalg.sqrtm((cov_x + extra) @ (cov_y + extra))
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(cov_x + cov_y - 2 * np.real(root))
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@given(cuts=st.lists(st.integers(1, 99), min_size=0, max_size=5, unique=True))
@settings(max_examples=20)
def test_moments_of_parts_add_up_to_those_of_the_whole(cuts):
    a = features(100)
    edges = [0, *sorted(cuts), 100]
    streamed = Moments.over(a[i:j] for i, j in itertools.pairwise(edges))
    whole = Moments.of(a)
    assert streamed.n == 100
    for part, expected in zip(streamed.mean_and_covariance(), whole.mean_and_covariance(), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-10, atol=1e-10)


def features_of(part):
    """What one of several processes sees: images by number, one at a time."""
    return Moments.over(torch.randn(1, 12, generator=torch.Generator().manual_seed(i)) for i in part)


def test_two_processes_equal_one():
    real = Moments.of(torch.randn(80, 12) * 1.1)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        first, second = pool.map(features_of, [range(0, 60, 2), range(1, 60, 2)])
    alone = frechet_distance(features_of(range(60)), real)
    assert (first + second).n == 60
    assert frechet_distance(first + second, real) == pytest.approx(alone, rel=1e-9)


def test_the_kernel_distance_is_its_written_out_sums():
    a, b = features(7, d=3), features(6, d=3, seed=1)

    def k(u, v):
        return (float(u.double() @ v.double()) / 3 + 1) ** 3

    within_a = [k(a[i], a[j]) for i in range(6) for j in range(6) if i != j]
    within_b = [k(b[i], b[j]) for i in range(6) for j in range(6) if i != j]
    across = [k(a[i], b[j]) for i in range(6) for j in range(6)]
    expected = np.mean(within_a) + np.mean(within_b) - 2 * np.mean(across)
    assert kernel_distance(a[:6], b) == (pytest.approx(expected, abs=1e-4), 0.0)


@pytest.mark.parametrize("size", [10, 100])
def test_the_kernel_distance_is_unbiased_at_any_size(size):
    """Of two draws of one distribution it is zero in the mean; with the diagonals of a V-statistic it would be far above."""
    generator = torch.Generator().manual_seed(0)
    found = [kernel_distance(*(torch.randn(size, 12, generator=generator) for _ in "ab"))[0] for _ in range(60)]
    assert abs(np.mean(found)) < 3 * np.std(found, ddof=1) / 60**0.5


def test_precision_and_recall_know_what_is_missing():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(400, 2, generator=generator)
    one_corner = real[(real[:, 0] > 0) & (real[:, 1] > 0)] + 0.01
    assert precision_recall(real.clone(), real) == (1, 1)
    precision, recall = precision_recall(one_corner, real)
    assert precision > 0.9
    assert recall < 0.5
    assert precision_recall(real + 100, real) == (0, 0)


def test_too_few_images_are_an_error_in_words():
    with pytest.raises(ValueError, match="no features"):
        Moments.over([])
    with pytest.raises(ValueError, match="at least two images, got 1"):
        frechet_distance(Moments.of(features(1)), Moments.of(features(9)))
    with pytest.raises(ValueError, match="at least two images of either set, got 9 and 1"):
        kernel_distance(features(9), features(1))
    with pytest.raises(ValueError, match="more than 3 of either, got 3 and 9"):
        precision_recall(features(3), features(9))


def test_the_frechet_distance_is_symmetric_and_sees_shift_and_scale_alone():
    a, b = features(500), features(500, seed=1)
    x, y = Moments.of(a), Moments.of(b)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, Moments.of(a + 2)) == pytest.approx(4 * 12, rel=1e-4)
    # Of N(0, S) and N(0, c^2 S) it is (c - 1)^2 tr S.
    centred = a - a.mean(0)
    trace = float(Moments.of(centred).mean_and_covariance()[1].trace())
    assert frechet_distance(Moments.of(centred), Moments.of(3 * centred)) == pytest.approx(4 * trace, rel=1e-4)


def test_streamed_moments_keep_their_digits_far_from_zero():
    a = features(1000).double() + 1e4
    mean, covariance = Moments.over(a.split(7)).mean_and_covariance()
    torch.testing.assert_close(mean, a.mean(0))
    torch.testing.assert_close(covariance, torch.cov(a.T), rtol=1e-5, atol=1e-5)


def test_the_kernel_distance_does_not_depend_on_how_many_there_are():
    far = [kernel_distance(features(800, shift=1.0), features(800, seed=1), subsets=60, size=size)[0] for size in (20, 400)]
    assert far[0] == pytest.approx(far[1], rel=0.15)
    assert kernel_distance(features(90), features(90, seed=2), seed=3, size=30) == kernel_distance(
        features(90), features(90, seed=2), seed=3, size=30
    ), "the seed decides the subsets"


def test_precision_and_recall_are_each_others_mirror():
    a, b = features(200), features(150, seed=0, shift=1.0)
    precision, recall = precision_recall(a, b)
    assert precision_recall(b, a) == (recall, precision)
