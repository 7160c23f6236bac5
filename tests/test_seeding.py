"""Randomness belongs to what it is for: never to the batch, the order or the moment in which it is drawn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffae import seeding

SEEDS = st.integers(0, 2**63 - 1)


def test_a_seed_is_the_same_on_every_machine_and_in_every_version():
    # A change of these numbers changes every run and every sample that somebody has written down.
    assert seeding.mix(0) == 2631537505891389924
    assert seeding.mix(0, "image", 1) == 4403659794881473473


@given(st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=4))
def test_a_seed_is_one_that_torch_takes(parts):
    seed = seeding.mix(*parts)
    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)


def test_the_order_and_the_kind_of_what_is_mixed_matter():
    mixed = [seeding.mix(0, 1), seeding.mix(1, 0), seeding.mix(0, "1"), seeding.mix("0", 1), seeding.mix(1), seeding.mix()]
    assert len(set(mixed)) == len(mixed)


@given(st.lists(SEEDS, min_size=1, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_a_draw_depends_on_its_own_seed_alone(seeds, random):
    whole = dict(zip(seeds, seeding.normal(seeds, (2, 3)), strict=True))
    shuffled = random.sample(seeds, len(seeds))
    for seed, row in zip(shuffled, seeding.normal(shuffled, (2, 3)), strict=True):
        assert torch.equal(row, whole[seed])
    numbers = dict(zip(seeds, seeding.uniform(seeds), strict=True))
    assert seeding.uniform(seeds[:1])[0] == numbers[seeds[0]]


def test_draws_of_neighbouring_seeds_are_independent_and_standard_normal():
    x = seeding.normal([seeding.mix(0, i) for i in range(400)], (100,)).double()
    assert x.mean() == pytest.approx(0, abs=0.02)
    assert x.std() == pytest.approx(1, abs=0.02)
    neighbours = (x[1:] * x[:-1]).mean(1)
    assert neighbours.mean() == pytest.approx(0, abs=0.02)
    u = seeding.uniform([seeding.mix(0, i) for i in range(4000)])
    assert 0 <= u.min() < 0.01
    assert 0.99 < u.max() < 1
    assert u.mean() == pytest.approx(0.5, abs=0.02)


def test_more_samples_begin_with_the_same_ones():
    assert seeding.sample_seeds(8, 3)[:2] == seeding.sample_seeds(2, 3)
    assert not set(seeding.sample_seeds(8, 3)) & set(seeding.sample_seeds(8, 4))


def test_a_generator_gives_other_samples_each_time_and_the_same_ones_again():
    generator = torch.Generator().manual_seed(1)
    first, second = seeding.sample_seeds(3, generator), seeding.sample_seeds(3, generator)
    assert first != second
    assert seeding.sample_seeds(3, torch.Generator().manual_seed(1)) == first
