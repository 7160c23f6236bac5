"""Randomness belongs to what it is for: never to the batch, the order or the moment in which it is drawn."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffae.runtime import philox, seeding
from diffae.runtime.seeding import Draws


def test_a_seed_is_the_same_on_every_machine_and_in_every_version():
    # A change of these numbers changes every run and every sample that somebody has written down.
    assert seeding.mix(0) == 2631537505891389924
    assert seeding.mix(0, "image", 1) == 4403659794881473473


@given(st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=4))
def test_a_seed_is_one_that_torch_takes(parts):
    seed = seeding.mix(*parts)
    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)


def test_a_seed_is_the_same_whoever_writes_it():
    for three in (np.int64(3), np.uint8(3), torch.tensor(3)):
        assert torch.equal(Draws.of(2, three).normal("x", (2,)), Draws.of(2, 3).normal("x", (2,)))
    assert seeding.mix(np.int64(3), "x_T") == seeding.mix(3, "x_T")
    with pytest.raises(TypeError, match="integer"):
        Draws.of(2, 3.0)


def test_the_order_and_the_kind_of_what_is_mixed_matter():
    mixed = [seeding.mix(0, 1), seeding.mix(1, 0), seeding.mix(0, "1"), seeding.mix("0", 1), seeding.mix(1), seeding.mix()]
    assert len(set(mixed)) == len(mixed)


# The vectors that the authors of Philox publish with it (Random123, kat_vectors): counter, key, words.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def by_definition(counter, key):
    """Philox4x32-10 in integers of Python, as in figure 2 of Salmon et al."""
    (a, b, c, d), (k, l) = counter, key  # noqa: E741
    for _ in range(10):
        low, high = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = high >> 32 ^ b ^ k, high & 0xFFFFFFFF, low >> 32 ^ d ^ l, low & 0xFFFFFFFF
        k, l = (k + 0x9E3779B9) & 0xFFFFFFFF, (l + 0xBB67AE85) & 0xFFFFFFFF  # noqa: E741
    return [a, b, c, d]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_definition_has_the_published_words(counter, key, words):
    counter, key, words = ([int(word, 16) for word in text.split()] for text in (counter, key, words))
    assert by_definition(counter, key) == words


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4), st.integers(0, 2**64 - 1))
def test_words_are_those_of_the_definition(numbers, key):
    found = torch.stack(philox.words(torch.tensor(numbers), key, 3), -1)
    halves = [key & 0xFFFFFFFF, key >> 32]
    for row, number in zip(found.tolist(), numbers, strict=True):
        for block, words in enumerate(row):
            assert words == by_definition([block, 0, number & 0xFFFFFFFF, number >> 32], halves)


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_a_draw_depends_on_its_own_number_alone(numbers, random):
    def drawn(numbers):
        draws = Draws(3, torch.tensor(numbers))
        return {
            n: (a, b, c.tolist())
            for n, a, b, c in zip(
                numbers, draws.uniform("u").tolist(), draws.uniform("v").tolist(), draws.normal("n", (2, 3)), strict=True
            )
        }

    whole = drawn(numbers)
    assert drawn(random.sample(numbers, len(numbers))) == whole
    assert drawn(numbers[:1])[numbers[0]] == whole[numbers[0]]


def test_more_numbers_of_a_sample_begin_with_the_same_ones():
    draws = Draws.of(3, 7, start=2**40)
    assert torch.equal(draws.normal("n", (5,)), draws.normal("n", (9,))[:, :5])
    assert torch.equal(draws[1:].uniform("n", (2, 2)), draws.uniform("n", (4,))[1:].view(2, 2, 2))


def test_draws_of_neighbours_purposes_and_seeds_are_independent_and_as_they_should_be():
    x = Draws.of(400, 0).normal("x", (1000,)).double()
    for moment, expected in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert x.pow(moment).mean() == pytest.approx(expected, abs=0.03)
    others = [x.roll(1, 0), x.roll(1, 1), Draws.of(400, 0).normal("y", (1000,)), Draws.of(400, 1).normal("x", (1000,))]
    for other in [*others, Draws.of(400, 0).fork("z").normal("x", (1000,))]:
        assert float((x * other).mean()) == pytest.approx(0, abs=0.008)
    u = Draws.of(400, 0).uniform("u", (1000,)).double()
    assert 0 <= u.min() < 1e-4
    assert 0.9999 < u.max() < 1
    assert torch.histc(u, 10, 0, 1) / u.numel() == pytest.approx([0.1] * 10, abs=0.003)


def test_a_generator_gives_other_samples_each_time_and_the_same_ones_again():
    generator = torch.Generator().manual_seed(1)
    first, second = (Draws.of(3, generator).seed for _ in range(2))
    assert first != second
    assert Draws.of(3, torch.Generator().manual_seed(1)).seed == first


def test_numbers_may_be_named_one_by_one_in_any_whole_type():
    wanted = Draws.of(6, 7).normal("x", (2,))[[4, 0, 4]]
    for kind in (torch.int64, torch.int32, torch.uint8):
        assert torch.equal(Draws.of(3, 7, start=torch.tensor([4, 0, 4], dtype=kind)).normal("x", (2,)), wanted)
    apart = torch.tensor([4, 9, 0, 9, 4])[::2]
    assert Draws.of(3, 7, start=apart).numbers.is_contiguous()
    assert torch.equal(Draws.of(3, 7, start=apart).normal("x", (2,)), wanted)
    with pytest.raises(ValueError, match=r"a whole number for each of 3 samples, got \(3,\) of torch.float32"):
        inspect.unwrap(Draws.of.__func__)(Draws, 3, 7, start=torch.zeros(3))  # As users call it.
