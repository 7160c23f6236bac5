"""The judge learns what is drawn, decides for itself, and is the same judge each time."""

import pytest
import torch

from diffae.metrics.judge import Judge, train_judge


def scenes(n, seed):
    """Grey images with a bright square at the left (or none) and a dark bar below (or none)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (n, 2), generator=generator)
    x = 0.1 * torch.randn(n, 1, 16, 16, generator=generator)
    x[:, :, 4:8, 6:10] += labels[:, 0, None, None, None].float()
    x[:, :, 12:15] -= labels[:, 1, None, None, None].float()
    return x.clamp(-1, 1), labels.float()


@pytest.fixture(scope="module")
def judge():
    x, labels = scenes(1024, 0)
    return train_judge(["Square", "Bar"], lambda i: x[i], labels, epochs=4, batch_size=64)


def test_the_judge_is_right_on_images_that_it_has_not_seen(judge):
    x, labels = scenes(400, 1)
    right = (judge.decide(x) == labels.bool()).float().mean(0)
    assert (right > 0.95).all(), right


def test_each_attribute_is_judged_by_itself(judge):
    x, _ = scenes(200, 2)
    with_square = x.clone()
    with_square[:, :, 4:8, 6:10] = 1.0
    decided = judge.decide(with_square)
    assert decided[:, 0].float().mean() > 0.95
    assert (decided[:, 1] == judge.decide(x)[:, 1]).float().mean() > 0.95


def test_decisions_do_not_depend_on_the_batch(judge):
    x, _ = scenes(50, 3)
    assert torch.equal(judge.decide(x), judge.decide(x, batch_size=7))
    assert judge.decide(x).dtype == torch.bool


def test_of_unknown_labels_nothing_is_learned():
    """Half of each column is unknown, so that hardly an image has both."""
    x, labels = scenes(1024, 0)
    generator = torch.Generator().manual_seed(9)
    known = torch.rand(labels.shape, generator=generator) < 0.5
    partly = train_judge(["Square", "Bar"], lambda i: x[i], labels.where(known, torch.nan), epochs=6, batch_size=64)
    others, truth = scenes(400, 1)
    right = (partly.decide(others) == truth.bool()).float().mean(0)
    assert (right > 0.95).all(), right


def test_the_same_seed_gives_the_same_judge():
    x, labels = scenes(256, 4)
    a, b, other = (train_judge(["Square", "Bar"], lambda i: x[i], labels, epochs=1, batch_size=64, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a.out.weight, b.out.weight)
    assert not torch.equal(a.out.weight, other.out.weight)


def test_what_tells_left_from_right_is_learned_where_nothing_is_mirrored():
    generator = torch.Generator().manual_seed(7)
    x, left = 0.1 * torch.randn(400, 1, 16, 16, generator=generator), torch.arange(400) % 2 == 0
    x[left, :, 4:8, 2:6] += 1
    x[~left, :, 4:8, 10:14] += 1
    right = []
    for flip in (True, False):
        judge = train_judge(["Left"], lambda i: x[i], left[:256, None].float(), epochs=10, batch_size=32, width=8, flip=flip)
        right.append(float((judge.decide(x[256:])[:, 0] == left[256:]).double().mean()))
    assert right[0] < 0.8
    assert right[1] > 0.95


def test_fewer_images_than_a_batch_are_one_batch():
    x, labels = scenes(20, 6)
    judge = train_judge(["Square", "Bar"], lambda i: x[i], labels, epochs=1, batch_size=64)
    assert judge.decide(x).shape == (20, 2)


def test_progress_reaches_its_end():
    x, labels = scenes(128, 5)
    told = []
    train_judge(["Square", "Bar"], lambda i: x[i], labels, epochs=2, batch_size=64, progress=lambda *a: told.append(a))
    assert told[-1][1:] == (4, 4)


def test_a_judge_is_the_same_whether_in_colour_or_grey():
    for channels in (1, 3, 5):
        assert Judge(["a"], channels=channels)(torch.zeros(2, channels, 32, 32)).shape == (2, 1)


def test_a_large_volume_is_seen_at_half_its_sides_and_few_at_a_time():
    judge = Judge(["a"], channels=1, rank=3, width=2).eval()
    seen = []
    judge.features[0].register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))
    x = torch.rand(9, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    assert judge.decide(x).shape == (9, 1)
    assert seen == [(8, 1, 32, 32, 32), (1, 1, 32, 32, 32)]
