"""An audit finds what a classifier decides by, with a name or without, and suspects nothing of an honest one."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ideal import D, codes, ideal
from torch import nn

from diffae.config import DataConfig
from diffae.data.dataset import ImageSet
from diffae.explanation.auditing import audit, changes, known_attributes
from diffae.explanation.audits import verdict, write_audit
from diffae.semantics.classifiers import Classifier
from diffae.semantics.explanations import Explainer
from diffae.semantics.fitting import fit_attributes

NAMED = ["a", "b", "c"]
"""Attributes of the first numbers of z_sem; the others have no name."""


class Linear(nn.Module):
    def __init__(self, pattern, weight):
        super().__init__()
        self.pixels = nn.Parameter(torch.tensor(weight) @ pattern, requires_grad=False)

    def forward(self, x):
        return x.flatten(1) @ self.pixels


@pytest.fixture(scope="module")
def known():
    ae, pattern = ideal()
    z, held = codes(600), codes(200, 2)
    labels = [{name: (part[:, i] > 0).double().numpy() for i, name in enumerate(NAMED)} for part in (z, held)]
    attributes, _ = fit_attributes(z, labels[0], held_z_sem=held, held_labels=labels[1])
    draw = lambda part: (part @ pattern).view(-1, 1, 8, 8)  # noqa: E731
    return ae, pattern, attributes, draw(z), draw(codes(40, 3))


@pytest.mark.parametrize("groups", [None, 10])
def test_attributes_are_measured_on_images_that_they_were_not_fitted_to(groups):
    """Where none are held out: luck would have been known without fault, of more numbers than images."""
    rng = np.random.default_rng(0)
    images, luck = torch.from_numpy(rng.normal(size=(40, 1, 8, 8))).float(), np.arange(40.0) // 10 % 2  # Both in each group.
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).byte().numpy()
    data = ImageSet(
        [f"{i}.png" for i in range(40)], pixels, {"luck": luck}, np.arange(40), np.arange(0), [], DataConfig(), "",
        groups=None if groups is None else (np.arange(40) % groups).astype(str),
    )  # fmt: skip
    model = SimpleNamespace(attributes=None, encode=lambda x: x.flatten(1))
    found = known_attributes(model, data, data.train, lambda *_: None)
    score = found.scores["luck"]
    assert (score.n + score.n_held, found.names) == (40, ["luck"])
    assert 0 < score.n_held < 20
    if groups is None:
        assert score.auroc < 0.95
    else:
        assert score.n_held % 4 == 0, "a group is on one side"


def audited(known, weight, *, gradients=True, about="a"):
    ae, pattern, attributes, among, x = known
    assert len(weight) == D
    explainer = Explainer(ae, Classifier(Linear(pattern, weight).eval(), "logit"), among, gradients=gradients)
    return audit(explainer, attributes, x, changes(explainer, attributes, x, about=about), about=about)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize(
    ("weight", "suspicious"),
    [
        ([4.0, 0.0, 0.0, 0.0, 0.0, 0.0], []),
        ([3.0, 4.0, 0.0, 0.0, 0.0, 0.0], ["b"]),
        ([0.0, 0.0, 8.0, 0.0, 0.0, 0.0], ["c"]),
        ([3.0, 0.0, 0.0, 0.0, 8.0, 0.0], ["unnamed 1"]),
    ],
)
def test_what_a_classifier_decides_by_is_found(known, weight, suspicious, gradients):
    factors = audited(known, weight, gradients=gradients)
    assert [f.name for f in factors if f.suspicious] == suspicious
    assert [abs(f.effect) for f in factors] == sorted((abs(f.effect) for f in factors), reverse=True)
    said = verdict(factors, "a")
    assert not suspicious or f"decides by {', '.join(suspicious)} too" in said
    assert ("nothing else" in said) == (not suspicious)


def test_effects_have_their_sign_and_size(known):
    factors = {f.name: f for f in audited(known, [2.0, -1.0, 0.0, 0.0, 0.0, 0.0], about=None)}
    assert factors["a"].effect > 0 > factors["b"].effect
    assert not any(f.suspicious for f in factors.values())
    # a and b are known equally well; b varies less, and counts half.
    assert abs(factors["a"].effect) > 2 * abs(factors["b"].effect) > 0
    assert abs(factors["c"].effect) < 0.1 * factors["a"].effect


def test_what_changes_beside_a_factor_is_not_its_own(known):
    ae, pattern, _, among, x = known
    z, held = codes(600), codes(200, 2)
    # Who has e mostly has b, as who is bald has no black hair.
    labels = [
        {name: (v > 0).double().numpy() for name, v in (("a", part[:, 0]), ("b", part[:, 1]), ("e", part[:, 1] + part[:, 2]))}
        for part in (z, held)
    ]
    attributes, _ = fit_attributes(z, labels[0], held_z_sem=held, held_labels=labels[1])
    classifier = Linear(pattern, [3.0, 4.0, 0.0, 0.0, 0.0, 0.0]).eval()
    explainer = Explainer(ae, Classifier(classifier, "logit"), among)
    made = changes(explainer, attributes, x, about="a")
    factors = {f.name: f for f in audit(explainer, attributes, x, made, about="a")}
    (e,) = [change for change in made if change.name == "e"]
    assert float((classifier(e.given) - classifier(e.taken)).mean()) > 0.5 * abs(factors["b"].effect)
    assert abs(factors["e"].effect) < 0.1 * abs(factors["b"].effect)
    assert [f.name for f in factors.values() if f.suspicious] == ["b"]


def test_what_it_is_about_has_to_be_known(known):
    with pytest.raises(ValueError, match="no attribute that is known well enough; those are: a, b, c"):
        audited(known, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0], about="d")


def test_an_audit_is_written(known, tmp_path):
    factors = audited(known, [3.0, 4.0, 0.0, 0.0, 0.0, 0.0])
    page = write_audit(factors, tmp_path, ae=known[0], about={"classifier": "x<y", "about": "a", "n": 40, "seed": 0})
    text = page.read_text()
    assert "x&lt;y" in text
    assert "decides by b too" in text
    told = json.loads((tmp_path / "audit.json").read_text())
    assert {f["name"] for f in told["factors"]} >= {"a", "b", "c"}
    assert all((tmp_path / f"{i}-{f.name.replace(' ', '-')}.png").is_file() for i, f in enumerate(factors[:3], 1))


def test_a_label_that_says_the_same_is_left_out_with_a_line(known):
    ae, pattern, _, among, x = known
    z = codes(600)
    labels = {"a": (z[:, 0] > 0).double().numpy(), "no a": (z[:, 0] <= 0).double().numpy(), "b": (z[:, 1] > 0).double().numpy()}
    attributes, _ = fit_attributes(z, labels, held_z_sem=z, held_labels=labels)
    explainer = Explainer(ae, Classifier(Linear(pattern, [4.0, 0.0, 0.0, 0.0, 0.0, 0.0]).eval(), "logit"), among)
    told = []
    factors = audit(explainer, attributes, x, changes(explainer, attributes, x, about="a", tell=told.append), about="a")
    assert {f.name for f in factors} >= {"a", "b"}
    assert "no a" not in {f.name for f in factors}
    assert any("no a was left out" in line for line in told)


def test_an_attribute_that_is_hardly_known_is_left_out_with_a_line(known, tmp_path):
    """Or "nothing else that was looked at" would be read as if it had been."""
    ae, pattern, _, among, x = known
    z, rng = codes(600), np.random.default_rng(0)
    labels = {"a": (z[:, 0] > 0).double().numpy(), "scanner": rng.permutation(np.repeat([0.0, 1.0], 300))}
    attributes, _ = fit_attributes(z[:400], {k: v[:400] for k, v in labels.items()}, held_z_sem=z[400:],
                                   held_labels={k: v[400:] for k, v in labels.items()})  # fmt: skip
    explainer = Explainer(ae, Classifier(Linear(pattern, [4.0, 0.0, 0.0, 0.0, 0.0, 0.0]).eval(), "logit"), among)
    told = []
    made = changes(explainer, attributes, x, about="a", tell=told.append)
    assert [change.name for change in made] == ["a"]
    assert told == [f"scanner was left out: z_sem hardly knows it (AUROC {attributes.scores['scanner'].auroc:.2f})."]
    about = {"classifier": "x", "about": "a", "n": 40, "left_out": told}
    assert told[0] in write_audit(audit(explainer, attributes, x, made, about="a"), tmp_path, ae=ae, about=about).read_text()


def test_as_many_images_at_a_time_as_are_asked_for(known, monkeypatch):
    ae, pattern, attributes, among, x = known
    seen, draw = [], ae.unet.forward
    monkeypatch.setattr(ae.unet, "forward", lambda x_t, t, **k: seen.append(len(x_t)) or draw(x_t, t, **k))
    explainer = Explainer(ae, Classifier(Linear(pattern, [4.0, 0, 0, 0, 0, 0]).eval(), "logit"), among, batch_size=8)
    audit(explainer, attributes, x, changes(explainer, attributes, x))
    explainer.explain(x)
    assert max(seen) == 8
