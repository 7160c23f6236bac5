"""Attributes: what is fitted, how codes move along them, and how a few labels choose among samples."""

import numpy as np
import pytest
import torch

from diffae.semantics.attributes import LOOKS, Attributes, Score
from diffae.semantics.fitting import fit_attributes, fit_few
from diffae.semantics.rejection import rejection_sample
from diffae.semantics.standardizer import Standardizer

D = 8


def world(n, seed=0):
    """Correlated codes and attributes that are linear in them: Round and Red overlap, Age is a measurement."""
    rng = np.random.default_rng(seed)
    z = (
        rng.normal(size=(n, D))
        @ np.diag([5, 3, 1, 1, 1, 0.2, 0.2, 0.2])
        @ np.linalg.qr(np.random.default_rng(9).normal(size=(D, D)))[0]
    )
    axes = np.linalg.qr(np.random.default_rng(9).normal(size=(D, D)))[0]
    a, b, c = z @ axes[0] / 5, z @ axes[1] / 3, z @ axes[2]
    noise = 0.3 * rng.normal(size=(3, n))
    labels = {
        "Round": (a + noise[0] > 0).astype(float),
        "Red": (0.6 * a + 0.8 * b + noise[1] > 0.8).astype(float),
        "Age": 40 + 10 * c + noise[2],
    }
    return torch.from_numpy(z).float() + 3, labels


@pytest.fixture(scope="module")
def fitted():
    z, labels = world(2000)
    held_z, held_labels = world(1000, seed=1)
    attributes, notes = fit_attributes(z, labels, held_z_sem=held_z, held_labels=held_labels, components=3)
    assert notes == []
    return attributes


def test_every_kind_of_column_is_fitted_and_measured_on_held_out_images(fitted):
    assert fitted.names == ["Round", "Red", "Age"]
    assert fitted.scores["Round"].auroc > 0.95
    assert fitted.scores["Red"].average_precision > 0.8
    assert fitted.scores["Age"].r2 > 0.95
    assert fitted.scores["Age"].kind == "continuous"
    assert fitted.scores["Round"].n == 2000
    assert fitted.scores["Round"].n_held == 1000


def test_probabilities_are_calibrated_although_classes_are_weighted_alike(fitted):
    z, labels = world(4000, seed=2)
    p = fitted.probabilities(z)
    for i, name in enumerate(("Round", "Red")):
        y = torch.from_numpy(labels[name])
        assert abs(p[:, i].mean() - y.mean()) < 0.03
        for low in (0.1, 0.4, 0.7):
            inside = (p[:, i] > low) & (p[:, i] < low + 0.2)
            assert abs(p[inside, i].mean() - y[inside].mean()) < 0.1
    assert torch.allclose(p[:, 2], fitted.logits(z)[:, 2])
    assert np.corrcoef(p[:, 2], labels["Age"])[0, 1] > 0.95


def test_calibration_asks_about_groups_that_it_was_not_fitted_to():
    # Each of few persons has one code, with a little noise: their other images say what a person's label is.
    def people(n, seed):
        rng = np.random.default_rng(seed)
        person = np.repeat(np.arange(n), 20)
        signal = rng.normal(size=n)
        z = rng.normal(size=(n, 40))
        z[:, 0] += signal
        y = (signal + rng.normal(size=n) > 0).astype(float)
        return torch.from_numpy(z[person] + 0.02 * rng.normal(size=(20 * n, 40))).float(), y[person], person

    z, y, person = people(40, 0)
    other, other_y, _ = people(400, 1)
    losses = []
    for groups in (None, person):
        found, _ = fit_attributes(z, {"Ill": y}, held_z_sem=other, held_labels={"Ill": other_y}, groups=groups)
        p = found.probabilities(other)[:, 0].double().numpy()
        losses.append(-np.log(np.where(other_y == 1, p, 1 - p).clip(1e-12)).mean())
    assert losses[0] > 1.5 * losses[1], "without groups it is too sure"
    assert losses[1] < 0.75
    few = np.where(y == 1, person % 2, 2 + person)
    alike = [fit_attributes(z, {"Ill": y}, held_z_sem=other, held_labels={"Ill": other_y}, groups=g)[0] for g in (None, few)]
    assert torch.equal(alike[0].calibration, alike[1].calibration), "of two groups there are no three folds"


def test_unknown_labels_are_left_out(fitted):
    z, labels = world(2000)
    labels["Round"][::2] = np.nan
    attributes, _ = fit_attributes(z, labels, held_z_sem=z[:0], held_labels={k: v[:0] for k, v in labels.items()})
    assert attributes.scores["Round"].n == 1000
    assert attributes.scores["Round"].auroc is None
    assert torch.cosine_similarity(attributes.direction("Round"), fitted.direction("Round"), dim=0) > 0.95


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (np.ones(50), "all 50 labelled images have the value 1"),
        (np.full(50, np.nan), "none of the images has a value"),
        (np.eye(50)[0], r"only 1 of 50 labelled images have the value 1, and three are needed"),
    ],
)
def test_columns_that_cannot_be_fitted_are_named_and_cost_no_others(column, reason):
    z, labels = world(50)
    good = {"Round": labels["Round"]}
    attributes, notes = fit_attributes(z, {"bad": column} | good, held_z_sem=z, held_labels={"bad": column} | good)
    assert attributes.names == ["Round"]
    assert len(notes) == 1
    assert notes[0].startswith("bad was left out: ")
    with pytest.raises(ValueError, match=f"No attribute can be fitted. bad was left out: {reason}"):
        fit_attributes(z, {"bad": column}, held_z_sem=z, held_labels={"bad": column})


def test_a_move_has_the_published_length_and_raises_the_attribute(fitted):
    z, _ = world(10, seed=3)
    moved = fitted.move(z, {"Round": 0.3})
    step = fitted.standardizer(moved) - fitted.standardizer(z)
    assert torch.allclose(step.norm(dim=1), torch.full((10,), 0.3 * D**0.5), atol=1e-4)
    assert (fitted.logits(moved)[:, 0] > fitted.logits(z)[:, 0]).all()
    assert torch.allclose(fitted.move(moved, {"Round": -0.3}), z, atol=1e-4)
    both = fitted.move(z, {"Round": 0.2, "Age": -0.1})
    assert torch.allclose(both, fitted.move(fitted.move(z, {"Age": -0.1}), {"Round": 0.2}), atol=1e-4)


def test_patterns_are_the_difference_of_the_classes_means(fitted):
    z, labels = world(2000)
    n = fitted.standardizer(z)
    y = torch.from_numpy(labels["Round"]).bool()
    difference = n[y].mean(0) - n[~y].mean(0)
    pattern, weight = (torch.cosine_similarity(v, difference, dim=0) for v in (fitted.direction("Round"), fitted.weight[0]))
    assert pattern > 0.999
    assert weight < 0.995, "the weights are something else"


def test_keep_leaves_the_other_classifiers_untouched(fitted):
    z, _ = world(10, seed=4)
    before = fitted.logits(z)
    assert (fitted.logits(fitted.move(z, {"Red": 0.5})) - before)[:, 0].abs().min() > 0.1
    kept = fitted.logits(fitted.move(z, {"Red": 0.5}, keep=["Round", "Age"])) - before
    assert kept[:, [0, 2]].abs().max() < 1e-3 * kept[:, 1].abs().min()
    assert (kept[:, 1] > 0).all()


@pytest.mark.parametrize("target", [0.9, 0.1])
def test_reach_gives_the_probability_asked_for_and_moves_no_further_than_it_has_to(fitted, target):
    z, _ = world(200, seed=5)
    before, moved = fitted.probabilities(z)[:, 0], fitted.reach(z, {"Round": target})
    after = fitted.probabilities(moved)[:, 0]
    there = before >= target if target > 0.5 else before <= target
    assert there.any()
    assert torch.allclose(moved[there], z[there], atol=1e-5), "what has it already stays"
    assert torch.allclose(after[~there], torch.tensor(target), atol=1e-3)


def test_reach_meets_several_targets_at_once_and_keeps_the_rest(fitted):
    z, _ = world(50, seed=6)
    moved = fitted.reach(z, {"Round": 0.95, "Red": 0.05}, keep=["Age"])
    p = fitted.probabilities(moved)
    assert (p[:, 0] > 0.949).all()
    assert (p[:, 1] < 0.051).all()
    assert torch.allclose(p[:, 2], fitted.probabilities(z)[:, 2], atol=1e-2)


class Sluggish:
    """Images that follow a move of their code by a share only, as those do whose x_T stays, and drift along another direction."""

    def __init__(self, z, share, drift=0.0):
        self.z, self.share, self.drift = z, share, drift
        self.drawn = []

    def render(self, indices, z_sem):
        self.drawn.append(len(indices))
        moved = z_sem - self.z[indices]
        drift = self.drift * moved.norm(dim=1, keepdim=True) * torch.nn.functional.one_hot(torch.tensor(2), D)
        return (self.z[indices] + self.share * moved + drift)[:, :, None, None]

    def encode(self, x):
        return x[:, :, 0, 0]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.3])
@pytest.mark.parametrize("target", [0.9, 0.1])
def test_reach_visibly_goes_on_until_it_is_seen(fitted, share, target):
    z, _ = world(100, seed=7)
    picture = Sluggish(z, share)
    x = fitted.reach_visibly(z, {"Round": target}, [], render=picture.render, encode=picture.encode)
    seen = fitted.probabilities(picture.encode(x))[:, 0]
    assert ((seen > target - 1e-3) if target > 0.5 else (seen < target + 1e-3)).all()
    there = fitted.probabilities(z)[:, 0] >= target if target > 0.5 else fitted.probabilities(z)[:, 0] <= target
    assert torch.allclose(picture.encode(x)[there], z[there], atol=1e-5), "what has it already stays"
    assert sum(picture.drawn[1:]) <= (~there).sum() * (0 if share == 1 else 3), "only what is not seen yet is drawn again"


def test_reach_visibly_moves_kept_attributes_back(fitted):
    z, _ = world(100, seed=8)
    targets, row = {"Red": 0.9}, fitted.names.index("Round")
    before = fitted.logits(z)[:, row]

    def change(keep):
        picture = Sluggish(z, 0.4, drift=0.2)
        x = fitted.reach_visibly(z, targets, keep, render=picture.render, encode=picture.encode)
        assert (fitted.probabilities(picture.encode(x))[:, 1] > 0.85).float().mean() > 0.9
        return float((fitted.logits(picture.encode(x))[:, row] - before).abs().mean())

    assert change(["Round"]) < 0.5 * change([])


def test_reach_visibly_gives_up_after_some_looks(fitted):
    z, _ = world(20, seed=9)
    picture = Sluggish(z, 0.0)
    x = fitted.reach_visibly(z, {"Round": 0.99}, [], render=picture.render, encode=picture.encode)
    assert torch.isfinite(x).all()
    assert len(picture.drawn) == 1 + LOOKS


def test_principal_directions_need_no_labels():
    z, _ = world(500)
    attributes, _ = fit_attributes(z, {}, held_z_sem=z, held_labels={}, components=3)
    assert attributes.names == []
    pc1 = attributes.direction("pc1")
    along = Standardizer.fit(z)(z) @ torch.stack([pc1, attributes.direction("pc2")]).T
    assert along.var(0)[0] > along.var(0)[1]
    with pytest.raises(ValueError, match="There is no attribute 'pc4'"):
        attributes.direction("pc4")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, z: a.move(z, {"Smiling": 0.3}), "no attribute 'Smiling'. Fitted are: Round, Red, Age"),
        (lambda a, z: a.move(z, {"Round": float("nan")}), "strength must be a finite number, got nan"),
        (lambda a, z: a.move(z, {"Round": 0.3}, keep=["Round"]), "Round cannot be both changed and kept"),
        (lambda a, z: a.reach(z, {"Round": 1.0}), "must lie between 0 and 1, got 1.0 for 'Round'"),
        (lambda a, z: a.reach(z, {"Age": 0.9}), "'Age' is continuous and has no probability: give a strength"),
        (lambda a, z: a.probability("Age"), "'Age' is continuous and has no probability"),
        (lambda a, z: a.reach(z, {"Round": torch.tensor(1.0)}), "'Round' is no measurement and has no value to reach"),
        (lambda a, z: a.reach(z, {"Age": torch.tensor([float("nan")])}), "A target value must be finite, got .nan. for 'Age'"),
        (
            lambda a, z: a.standardizer.move(z, torch.ones(D), 0.3),
            r"direction of shape \(8,\) and length 1, got \(8,\) of length 2.8",
        ),
    ],
)
def test_what_cannot_be_done_says_why(fitted, call, message):
    with pytest.raises(ValueError, match=message):
        call(fitted, torch.zeros(1, D))


def test_keeping_an_attributes_own_twin_leaves_nothing():
    twins = Attributes({"a": Score("binary", 1, 0.5), "b": Score("binary", 1, 0.5)}, 4)
    for buffer in (twins.weight, twins.pattern):
        buffer.copy_(torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0]]))
    with pytest.raises(ValueError, match="Nothing of the direction of 'a' is left beside b: keep fewer"):
        twins.direction("a", keep=["b"])


def test_what_z_sem_does_not_tell_reaches_no_probability():
    """It would have been moved by thousands of standard deviations."""
    z, _ = world(300)
    for seed in range(20):
        y = np.random.default_rng(seed).permutation(np.repeat([0.0, 1.0], 150))
        found, _ = fit_attributes(z, {"Luck": y}, held_z_sem=z, held_labels={"Luck": y})
        if found.calibration[0, 0] > 0.002:
            continue
        with pytest.raises(ValueError, match="'Luck' is not told by z_sem.*no move makes it 0.9 probable"):
            found.reach(z, {"Luck": 0.9})
        assert torch.isfinite(found.move(z, {"Luck": 0.3})).all()
        return
    pytest.fail("chance alone told all of them")


def test_two_that_say_the_same_or_the_opposite_are_not_changed_together():
    z, labels = world(500)
    y = labels["Round"]
    sexes = {"sex=m": y, "sex=f": 1 - y, "Red": labels["Red"]}
    found, _ = fit_attributes(z, sexes, held_z_sem=z, held_labels=sexes)
    for targets in ({"sex=m": 0.9, "sex=f": 0.9}, {"sex=m": 0.9, "sex=f": 0.1}):
        with pytest.raises(ValueError, match="sex=m, sex=f cannot all be changed as asked.*Name one of those"):
            found.reach(z, targets)
    moved = found.probabilities(found.reach(z, {"sex=m": 0.9, "Red": 0.9}))
    assert moved[:, [0, 2]].min() > 0.899


def test_a_probability_and_a_value_are_reached_at_once(fitted):
    z, _ = world(20, seed=4)
    moved = fitted.reach(z, {"Round": 0.95, "Age": torch.tensor(40.0)})
    assert fitted.probabilities(moved)[:, 0].min() > 0.949
    torch.testing.assert_close(fitted.logits(moved)[:, 2], torch.full((20,), 40.0), atol=1e-3, rtol=0)


def by_hand():
    """Three attributes of codes of four numbers; every weight is its own, and a 1 in the pattern."""
    scores = {"a": Score("binary", 1, 0.5), "b": Score("binary", 1, 0.5), "age": Score("continuous", 1, 0.5)}
    attributes = Attributes(scores, 4, components=3)
    attributes.weight.copy_(torch.tensor([[2.0, 0, 0, 0], [0, -3.0, 0, 0], [0, 0, 5.0, 0]]))
    attributes.pattern.copy_(torch.eye(3, 4))
    attributes.bias.copy_(torch.tensor([0.5, 0.0, 40.0]))
    attributes.components.copy_(torch.eye(4)[1:])
    return attributes


def test_probabilities_are_the_sigmoid_of_the_logit_until_they_are_calibrated():
    attributes, z = by_hand(), torch.tensor([[1.0, 2.0, 3.0, 4.0], [-0.5, 0.1, 0.0, 0.0]])
    logits = torch.tensor([[2.5, -6.0, 55.0], [-0.5, -0.3, 40.0]])
    torch.testing.assert_close(attributes.logits(z), logits)
    p = torch.cat([logits[:, :2].sigmoid(), logits[:, 2:]], dim=1)
    torch.testing.assert_close(attributes.probabilities(z), p)
    attributes.calibration.copy_(torch.tensor([[2.0, -1.0], [1.0, 0.5], [1.0, 0.0]]))
    attributes.ceiling.copy_(torch.tensor([0.8, 1.0, 1.0]))
    p[:, 0] = torch.tensor([1.0, (torch.tensor(-2.0).sigmoid() / 0.8).item()])
    p[:, 1] = (logits[:, 1] + 0.5).sigmoid()
    torch.testing.assert_close(attributes.probabilities(z), p)
    torch.testing.assert_close(attributes.probability("a", value=False)(z), 1 - p[:, 0])


@pytest.mark.parametrize("target", [0.2, 0.5, 0.9])
def test_a_target_is_met_exactly_whatever_the_calibration_and_the_sign_of_its_scale(target):
    """Half is a target from below: what is likelier already stays."""
    attributes, z = by_hand(), torch.zeros(1, 4)
    for scale, shift, ceiling in ((1.0, 0.0, 1.0), (2.0, -1.0, 0.95), (-0.5, 0.3, 1.0)):
        attributes.calibration[0] = torch.tensor([scale, shift])
        attributes.ceiling[0] = ceiling
        for start in (-4.0, 4.0):
            z[0, 0] = start
            before, after = (float(attributes.probabilities(v)[0, 0]) for v in (z, attributes.reach(z, {"a": target})))
            met = before >= target if target >= 0.5 else before <= target
            assert after == pytest.approx(before if met else target, abs=1e-4)


@pytest.mark.parametrize("response", [1.0, 0.4])
def test_a_value_is_reached_when_images_are_looked_at_again(response):
    """Images that follow a move only in part are moved on; each to a value of its own."""
    attributes, z = by_hand(), torch.zeros(3, 4)
    wanted = torch.tensor([40.0, 47.0, 20.0])
    seen = attributes.reach_visibly(z, {"age": wanted}, ["a"], render=lambda i, codes: response * codes, encode=lambda x: x)
    torch.testing.assert_close(attributes.logits(seen)[:, 2], wanted, atol=0.06, rtol=0)
    torch.testing.assert_close(seen[:, [0, 1, 3]], torch.zeros(3, 3))
    same = attributes.reach_visibly(z, {"age": torch.tensor(50.0)}, [], render=lambda i, codes: codes, encode=lambda x: x)
    torch.testing.assert_close(attributes.logits(same)[:, 2], torch.full((3,), 50.0), atol=0.06, rtol=0)


def test_directions_found_without_labels_are_numbered_from_one():
    attributes = by_hand()
    for i in (1, 2, 3):
        assert torch.equal(attributes.direction(f"pc{i}"), torch.eye(4)[i])
    for name in ("pc0", "pc4", "pc-1", "pc", "3", "pcpc1"):
        with pytest.raises(ValueError, match=f"There is no attribute '{name}'. Fitted are: a, b, age. Fit others with"):
            attributes.direction(name)
    named = Attributes({"pc2": Score("binary", 1, 0.5)}, 4, components=3)
    named.pattern.copy_(torch.eye(4)[:1])
    assert torch.equal(named.direction("pc2"), torch.eye(4)[0]), "what was fitted under that name goes first"
    with pytest.raises(ValueError, match="Fitted are: none"):
        Attributes({}, 4).direction("a")


@pytest.mark.parametrize("keep", [[], ["b"]])
def test_an_attribute_that_says_the_same_of_every_image_cannot_be_edited(keep):
    """It would have been a direction of NaN."""
    attributes, z = by_hand(), torch.ones(1, 4)
    attributes.pattern[0] = attributes.weight[0] = attributes.components[1] = 0
    for edit in (lambda: attributes.move(z, {"a": 0.3}, keep), lambda: attributes.reach(z, {"a": 0.9}, keep)):
        with pytest.raises(ValueError, match="'a' has no direction: what was fitted says the same of every image"):
            edit()
    with pytest.raises(ValueError, match="'pc2' has no direction"):
        attributes.direction("pc2", keep)


def test_what_is_written_of_attributes_makes_the_same_anew():
    attributes = by_hand()
    again = Attributes.from_config(attributes.to_config(), 4)
    assert again.scores == attributes.scores
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in attributes.state_dict().items()}
    again.load_state_dict(attributes.state_dict())
    assert torch.equal(again.logits(torch.ones(1, 4)), attributes.logits(torch.ones(1, 4)))


def test_a_kept_attribute_that_drifted_is_brought_back_by_exactly_as_much():
    """Weights along other axes than the patterns, so that moving one logit moves the others."""
    attributes, z = by_hand(), torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    attributes.weight.copy_(torch.tensor([[2.0, 1.0, 0, 0], [0.5, -3.0, 0, 1.0], [0, 1.0, 5.0, 0]]))
    change, back = torch.full((5, 1), 1.5, dtype=torch.float64), torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    moved = attributes._shift(z, ["a"], change, ["b"], back)
    torch.testing.assert_close((attributes.logits(moved) - attributes.logits(z))[:, 0], torch.full((5,), 1.5))
    torch.testing.assert_close((attributes.logits(moved) - attributes.logits(z))[:, 1], back[:, 0].float())
    still = attributes._shift(z, ["a"], change, ["b"])
    torch.testing.assert_close((attributes.logits(still) - attributes.logits(z))[:, :2], torch.tensor([[1.5, 0.0]]).repeat(5, 1))


# Few labels ----------------------------------------------------------------------------------------------------------


def test_fifty_and_fifty_labels_make_a_classifier():
    z, labels = world(3000)
    y = labels["Round"] == 1
    few = fit_few("Round", z[y][:50], z[~y][:50], Standardizer.fit(z))
    p = few.probability("Round")(z[200:]).numpy()
    assert ((p > 0.5) == y[200:]).mean() > 0.85
    assert np.allclose(few.probability("Round", value=False)(z[200:]), 1 - p)


def test_few_labels_are_never_quite_sure():
    """Whatever tells fifty from fifty without fault may err on one in fifty-two (Platt 1999)."""
    z = torch.cat([torch.randn(50, 4) + 20, torch.randn(50, 4) - 20])
    few = fit_few("far", z[:50], z[50:], Standardizer.fit(z))
    p = few.probability("far")(z)
    # A classifier of all is somewhat surer than those of two thirds, on which the scale was found.
    assert 0.96 < p[:50].mean() < 0.997
    assert 0.003 < p[50:].mean() < 0.04


def test_positives_among_unlabelled_images_give_the_same_probability():
    z, labels = world(6000)
    y = labels["Red"] == 1
    positives = np.flatnonzero(y)[:200]
    rest = np.setdiff1d(np.arange(6000), positives)
    few = fit_few("Red", z[positives], z[rest], Standardizer.fit(z), unlabelled=True)
    assert 0 < float(few.ceiling) < 1
    p = few.probability("Red")(z[rest]).numpy()
    assert abs(p.mean() - y[rest].mean()) < 0.1, "without the correction it would be a few per cent"
    assert p[y[rest]].mean() > 2 * p[~y[rest]].mean()


def test_too_few_labels_are_refused():
    with pytest.raises(ValueError, match="at least three images on either side, got 2 positive and 5 negative"):
        fit_few("a", torch.zeros(2, 4), torch.zeros(5, 4), Standardizer(torch.zeros(4), torch.ones(4)))


def test_rejection_sampling_gives_the_class_and_does_not_depend_on_the_batch():
    def propose(start, count):
        rows = [torch.randn(2, generator=torch.Generator().manual_seed(i)) for i in range(start, start + count)]
        return torch.stack(rows)

    def probability(z):
        return (z[:, 0] * 4).sigmoid()

    once = rejection_sample(propose, probability, 100, seed=0, max_proposals=10_000, batch=64)
    again = rejection_sample(propose, probability, 100, seed=0, max_proposals=10_000, batch=7)
    assert torch.equal(once.z_sem, again.z_sem)
    assert once.proposals == again.proposals
    assert 150 < once.proposals < 260, "half of them are accepted"
    assert (once.z_sem[:, 0] > 0).double().mean() > 0.85
    assert len(rejection_sample(propose, probability, 0, seed=0, max_proposals=10).z_sem) == 0


def test_an_empty_acceptance_ends_with_its_rate():
    with pytest.raises(ValueError, match=r"Only 0 of 50 proposals were accepted \(0.00%\), and 3 were asked for"):
        rejection_sample(lambda s, n: torch.zeros(n, 2), lambda z: torch.zeros(len(z)), 3, seed=0, max_proposals=50)


def always(z):
    return torch.ones(len(z))


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 100])
def test_proposals_are_counted_up_to_the_last_that_was_needed(batch):
    asked = []

    def propose(start, count):
        asked.append((start, count))
        return torch.arange(start, start + count, dtype=torch.float32)[:, None]

    found = rejection_sample(propose, always, 3, seed=0, max_proposals=3, batch=batch)
    assert found.z_sem[:, 0].tolist() == [0, 1, 2], "in the order in which they were proposed"
    assert found.proposals == 3
    assert sum(count for _, count in asked) <= 3, "the bound holds for what is drawn too"
    with pytest.raises(ValueError, match=r"Only 3 of 3 proposals were accepted \(100.00%\), and 4 were asked for"):
        rejection_sample(propose, always, 4, seed=0, max_proposals=3, batch=batch)
