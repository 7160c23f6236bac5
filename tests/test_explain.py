"""Explanations: the shortest likely move that changes a decision, of any classifier; and the page that tells of it."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from browsing import chromium
from ideal import D, codes, ideal
from PIL import Image
from runs import run
from test_nn import perturb
from torch import nn

from diffae import DiffusionAutoencoder, cli
from diffae.cli.anomaly import Anomaly
from diffae.cli.explanation import Audit, Explain
from diffae.config import DataConfig
from diffae.data import prepare
from diffae.explanation import explaining, opening
from diffae.explanation.explaining import explain_images
from diffae.explanation.heat import difference, heat
from diffae.explanation.opening import learned, open_classifier
from diffae.explanation.pages import write_explanation
from diffae.semantics.classifiers import Classifier
from diffae.semantics.explanations import Explainer


def test_a_classifier_stays_where_its_owner_put_it(tiny):
    """Those of others have a `device` and a `to`, as tensors have."""

    class Placed(nn.Module):
        device = torch.device("cpu")

        def to(self, *args, **settings):
            pytest.fail("it was moved")

        def forward(self, x):
            return x.mean((1, 2, 3)).sigmoid()

    ae = perturb(DiffusionAutoencoder(tiny)).eval()
    ae.explain(torch.rand(12, 3, 8, 8) * 2 - 1, Placed().eval(), steps=4)


class Linear(nn.Module):
    """Logits of images, linear in z_sem."""

    def __init__(self, pattern, weight, bias):
        super().__init__()
        self.pixels = nn.Parameter(weight @ pattern, requires_grad=False)  # Rows of the pattern are orthonormal.
        self.bias = nn.Parameter(torch.tensor(bias), requires_grad=False)

    def forward(self, x):
        return x.flatten(1) @ self.pixels + self.bias


def browser(page):
    """Opens a page in a browser, where there is one: nothing fails, and every picture is seen."""
    with chromium() as opened:
        seen, errors = opened.new_page(), []
        seen.on("pageerror", lambda error: errors.append(str(error)))
        seen.goto(page.as_uri())
        assert seen.locator("h1").count() == 1
        assert not errors
        widths = seen.eval_on_selector_all("img", "all => all.map(image => image.naturalWidth)")
        assert widths
        assert all(widths)
        assert all(seen.eval_on_selector_all("img", "all => all.map(image => image.alt.length > 10)"))


WEIGHT = torch.tensor([2.0, -1.0, 0.0, 0.0, 3.0, 0.0])


@pytest.fixture(scope="module")
def made():
    ae, pattern = ideal()
    return (
        ae,
        Linear(pattern, WEIGHT, 0.3).eval(),
        (codes(400) @ pattern).view(-1, 1, 8, 8),
        (codes(12, 2) @ pattern).view(-1, 1, 8, 8),
    )


def shortest(ae, spread, x, goal):
    """The move of least Mahalanobis length after which the linear logit is `goal`, and that length."""
    std = spread.standardizer.std
    g = (WEIGHT * std).double()
    way = spread.likeliest(g[None])[0]
    lack = goal - (ae.encode(x) @ WEIGHT + 0.3).double()
    return lack.abs() / (g @ way).sqrt()


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of the formats that users' networks come in.


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What is learned here is easy."""
    monkeypatch.setattr(opening, "SEEN", 3000)


@pytest.mark.parametrize("gradients", [True, False])
def test_a_counterfactual_is_the_shortest_move_that_is_likely(made, gradients):
    ae, network, among, x = made
    found = ae.explain(x, network, among=among, answers="logit", probability=0.9, gradients=gradients)
    before, after = network(x).sigmoid(), network(found.images[:, 0]).sigmoid()
    assert torch.allclose(found.before, before.double(), atol=1e-5)
    assert torch.allclose(found.after[:, 0], after.double(), atol=1e-5)
    assert found.reached.all()
    assert (found.gradients == gradients).all()
    assert ((before > 0.5) != (after > 0.5)).all()
    explainer = Explainer(ae, Classifier(network, "logit"), among)
    goal = torch.where(before > 0.5, -1, 1).double() * torch.tensor(0.9).logit()
    # The way is divided until the end is a thirtieth too far at most; a little more is the margin of the step itself.
    ratio = found.length[:, 0] / shortest(ae, explainer.spread, x, goal)
    assert ((ratio > 0.97) & (ratio < 1.1)).all(), ratio


def test_without_gradients_the_classifier_is_a_black_box(made):
    ae, network, among, x = made
    found = ae.explain(x, lambda images: network(images).detach().sigmoid(), among=among)
    assert not found.gradients.any()
    assert found.reached.all()
    with pytest.raises(ValueError, match="no gradients"):
        ae.explain(x, lambda images: network(images).detach().sigmoid(), among=among, gradients=True)


def test_gradients_lead_through_jumps_too(tiny):
    torch.manual_seed(0)
    ae = perturb(DiffusionAutoencoder(replace(tiny, prediction="v", unet=replace(tiny.unet, jumps=True)))).eval()
    x, weight = torch.rand(12, 3, 8, 8) * 2 - 1, torch.randn(192)
    explainer = Explainer(ae, Classifier(lambda images: images.flatten(1) @ weight, "logit"), x, steps=2)
    code = ae.infer(x[:2], steps=2)
    found = explainer._gradient(code, code.z_sem)
    assert found.isfinite().all()
    assert found.abs().amax(1).min() > 0


def test_what_one_direction_does_not_reach_follows_gradients(made):
    ae, network, among, x = made
    # Far from most images the answer falls off to another side: no line through all of them says so.
    bend = (among.flatten(1).norm(dim=1) ** 2).median()

    def bent(images):
        size = images.flatten(1).square().sum(1)
        return network(images).view(-1) - 0.7 * (size - bend) / bend

    one, own, both = (ae.explain(x, bent, among=among, answers="logit", probability=0.97, gradients=g) for g in (False, True, None))
    assert not one.reached.all(), "the test is of what one direction does not reach"
    assert (both.gradients == ~one.reached).all()
    assert torch.equal(both.images[one.reached], one.images[one.reached])
    assert torch.allclose(both.images[~one.reached], own.images[~one.reached], atol=1e-5)
    assert both.reached.sum() >= own.reached.sum()


def test_a_target_is_moved_to_and_what_is_there_already_stays(made):
    ae, network, among, x = made
    three = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    with torch.no_grad():
        three[1].weight.copy_(4 * torch.randn(3, 64, generator=torch.Generator().manual_seed(3)))
    found = ae.explain(x, three, among=among, answers="logit", target=2, probability=0.8)
    assert (three(found.images[:, 0]).softmax(1)[:, 2] >= 0.79).all()
    assert found.reached.all()
    there = found.before >= 0.8
    assert there.any()
    assert (found.length[there] < 1e-4).all()
    one = ae.explain(x, network, among=among, answers="logit", target=0)
    assert (network(one.images[:, 0]).sigmoid() < 0.101).all()


def test_a_measurement_is_brought_to_its_value(made):
    ae, network, among, x = made
    spread = network(among).std()
    found = ae.explain(x, network, among=among, answers="value", value=1.5)
    assert ((network(found.images[:, 0]) - 1.5).abs() < 0.1 * spread).all()
    each = torch.linspace(-1, 1, len(x))
    found = ae.explain(x, network, among=among, answers="value", value=each)
    assert ((network(found.images[:, 0]) - each).abs() < 0.1 * spread).all()


def test_nothing_is_moved_to_where_no_codes_are(made):
    ae, network, among, x = made
    found = ae.explain(x, lambda images: network(images) / 40, among=among, answers="logit")
    assert (found.length < 8.01).all()
    assert not found.reached.all()


def test_what_is_held_stays_to_the_bit(made):
    ae, network, among, x = made
    hold = torch.zeros(1, 1, 8, 8)
    hold[..., :3] = 1
    found = ae.explain(x, network, among=among, answers="logit", hold=hold, probability=0.7)
    held = (hold > 0).expand_as(x)
    assert torch.equal(found.images[:, 0][held], x[held])
    assert ((found.images[:, 0] - x).abs()[~held].view(len(x), -1).amax(1) > 0.01).all()
    assert found.reached.all()
    free = ae.explain(x, network, among=among, answers="logit", probability=0.7)
    assert (found.length > free.length).all()  # What may not change makes the way longer.
    with pytest.raises(ValueError, match="Only an `anchored` code"):
        ae.render(ae.infer(x, inversion="fast"), hold=hold)
    with pytest.raises(ValueError, match="Only an `anchored` code"):
        ae.render(ae.infer(x, inversion="official"), hold=hold)


def test_further_counterfactuals_change_something_else(made):
    ae, network, among, x = made
    found = ae.explain(x, network, among=among, answers="logit", num=3)
    assert found.images.shape == (len(x), 3, 1, 8, 8)
    assert found.reached[:, 0].all()
    explainer = Explainer(ae, Classifier(network, "logit"), among)
    standard = explainer.spread.standardizer
    moves = (standard(found.z_sem.flatten(0, 1)).view(len(x), 3, D) - standard(ae.encode(x))[:, None]).double()
    parts = (moves @ explainer.spread.axes.T).abs() > 1e-4
    assert not (parts[:, 1] & parts[:, 2]).any()  # No axis in both.
    assert found.reached[:, 1:].float().mean() > 0.9


def test_estimators_and_files_are_classifiers(made, tmp_path, monkeypatch):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ae, network, among, x = made
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    pipeline.fit(((among + 1) / 2).flatten(1).numpy(), (network(among) > 0).numpy())
    found = ae.explain(x, pipeline, among=among, probability=0.7)
    assert found.reached.all()
    assert not found.gradients.any()

    torch.jit.trace(network, x).save(str(tmp_path / "network.pt"))
    scripted = Classifier(open_classifier(str(tmp_path / "network.pt")), "logit")
    assert torch.allclose(scripted.scores(x).float(), network(x), atol=1e-5)
    (tmp_path / "mine.py").write_text("import torch\ndef classify(x):\n    return (x.mean((1, 2, 3)) * 9).sigmoid()\nnothing = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    named = Classifier(open_classifier("mine:classify"))
    assert torch.allclose(named.scores(x).float(), x.mean((1, 2, 3)) * 9, atol=1e-4)
    with pytest.raises(ImportError, match="nowhere:classify cannot be imported"):
        open_classifier("nowhere:classify")
    with pytest.raises(FileNotFoundError, match="no file"):
        open_classifier("nothing.onnx")
    with pytest.raises(ValueError, match="no classifier"):
        open_classifier("nothing")


def test_an_onnx_file_is_a_classifier(made, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    _, network, _, x = made
    torch.onnx.export(
        network, (x[:4],), str(tmp_path / "network.onnx"), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
    )
    asked = Classifier(open_classifier(str(tmp_path / "network.onnx")), "logit")
    assert torch.allclose(asked.scores(x).float(), network(x), atol=1e-4)


def broken(kind, network):
    def classify(x):
        if kind == "raises":
            raise RuntimeError("no such layer\nmore")
        if kind == "nan":
            return torch.full((len(x),), torch.nan)
        if kind == "shape":
            return torch.zeros(len(x), 2, 2)
        if kind == "rows":
            return torch.zeros(len(x) + 1)
        if kind == "words":
            return {"logits": network(x).detach()}
        if kind == "same":
            return torch.full((len(x),), 0.7)
        return network(x).detach()

    return classify


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("raises", "fails on images of shape .* RuntimeError: no such layer"),
        ("words", "should give numbers"),
        ("nan", "not finite"),
        ("shape", r"should answer \(n,\) or \(n, k\)"),
        ("rows", r"should answer \(n,\) or \(n, k\)"),
        ("same", "says the same of all"),
        ("logits", "no probabilities. Say what they are"),
    ],
)
def test_a_classifier_that_is_none_is_refused_in_a_line(made, kind, said):
    ae, network, among, x = made
    with pytest.raises(ValueError, match=said):
        ae.explain(x, broken(kind, network), among=among)


def test_what_cannot_be_asked_for_is_refused(made):
    ae, network, among, x = made
    with pytest.raises(ValueError, match="call eval"):
        ae.explain(x, nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), among=among)
    with pytest.raises(ValueError, match="needs the value"):
        ae.explain(x, network, among=among, answers="value")
    with pytest.raises(ValueError, match=r"within \.5\.\.1|within 0\.5\.\.1"):
        ae.explain(x, network, among=among, answers="logit", probability=0.3)
    with pytest.raises(ValueError, match="at least 10"):
        ae.explain(x[:4], network, answers="logit")
    with pytest.raises(ValueError, match="name one as target"):
        ae.explain(x, nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval(), among=among, answers="logit")
    with pytest.raises(ValueError, match="answers must be one of"):
        ae.explain(x, network, among=among, answers="score")


def test_what_knows_no_gradients_is_asked_without(made):
    ae, network, among, x = made
    found = ae.explain(x, lambda images: 1 / (1 + np.exp(-network(torch.from_numpy(images.numpy())).numpy())), among=among)
    assert not found.gradients.any()
    assert found.reached.all()


def test_a_classifier_that_is_quite_sure_is_explained(made):
    ae, network, among, x = made
    found = ae.explain(x, lambda images: (60 * network(images)).sigmoid(), among=among, gradients=True)
    assert found.gradients.all()
    assert found.reached.float().mean() > 0.9


def test_an_estimator_is_asked_for_what_its_numbers_are_said_to_be(made):
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier

    _, network, among, x = made
    pixels = ((among + 1) / 2).flatten(1).numpy()
    decides = LogisticRegression().fit(pixels, (network(among) > 0).numpy())
    shown = ((x + 1) / 2).flatten(1).numpy()
    assert np.allclose(Classifier(decides, "logit").scores(x), decides.decision_function(shown), atol=1e-4)
    assert np.allclose(Classifier(decides).scores(x).sigmoid(), decides.predict_proba(shown)[:, 1], atol=1e-4)
    measures = Ridge().fit(pixels, network(among).numpy())
    assert np.allclose(Classifier(measures, "value").scores(x), measures.predict(shown), atol=1e-4)
    nearest = KNeighborsClassifier().fit(pixels, (network(among) > 0).numpy())
    for estimator, answers, has in ((nearest, "logit", "'probability', 'value'"), (measures, "probability", "'value'")):
        with pytest.raises(ValueError, match=f"so its answers cannot be '{answers}': it has those of {has}"):
            Classifier(estimator, answers)


def test_heat_is_red_above_and_blue_below():
    red, blue, white = heat(torch.tensor([[[1.0, -1.0, 0.0]]]))[0].unbind(-1)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert (white == 1).all()
    x = torch.zeros(1, 3, 2, 2)
    y = x.clone()
    y[0, 1, 0, 0] = 0.5
    assert (difference(x, y)[0, :, 0, 0] < 1).any()
    assert (difference(x, y)[0, :, 1, 1] == 1).all()


@pytest.fixture
def folder(tmp_path, made):
    """Images that the ideal autoencoder draws, as files, with labels."""
    import csv

    from diffae.pictures import save_png, to_pil

    _, network, among, _ = made
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "bright", "how much"])
        for i, image in enumerate(among[:200]):
            save_png(to_pil(image.expand(3, 8, 8)), tmp_path / f"{i:03d}.png")
            writer.writerow([f"{i:03d}.png", int(network(image[None])[0] > 0), float(network(image[None])[0])])
    return tmp_path


def test_a_set_is_explained_and_measured(made, folder, tmp_path):
    ae, network, *_ = made
    data = prepare(DataConfig(source=str(folder), validation=0.4), size=(8, 8), channels=1)
    explainer = Explainer(ae, Classifier(network, "logit"), data.images(data.train))
    weak = Classifier(lambda x: (network(x) * 0.5).sigmoid().detach())
    found = explain_images(explainer, data, data.validation[:60], second=weak)
    shares = found.shares
    assert shares["flipped"] == 1
    assert shares["second agrees"] == 1
    assert shares["random flipped"] < 0.5
    assert 0 < shares["l1"] < shares["fixed l1"]
    assert shares["fixed flipped"] == 1
    assert found.frames.shape[:2] == (24, 5)
    rising = found.answers[:, -1] > found.answers[:, 0]
    assert (found.answers.diff(dim=1).sign() == torch.where(rising, 1, -1)[:, None]).float().mean() > 0.95
    about = {"classifier": "bright <b>", "target": None, "seed": 0}
    page = write_explanation(found, [data.names[i] for i in data.validation[:60]], tmp_path / "out", ae=ae, about=about)
    text = page.read_text()
    assert "bright &lt;b&gt;" in text
    assert "<b>" not in text
    assert "sanity check" in text
    assert 'alt="' in text
    assert "<main>" in text
    assert page.stat().st_size < 2e6
    told = json.loads((page.parent / "explain.json").read_text())
    assert told["n"] == 60
    assert told["measured"]["flipped"] == 1
    assert len(told["images"]) == 60
    assert all((page.parent / image["counterfactuals"][0]).is_file() for image in told["images"])


def test_counterfactuals_are_compared_with_real_ones_of_every_kind(monkeypatch):
    """Real images are in the order of their names, dark kinds first; as many are taken as there are counterfactuals."""
    shades = torch.linspace(-0.9, 0.9, 400).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    ae, classifier = SimpleNamespace(to_pictures=lambda x: x), SimpleNamespace(measures=False)
    explainer = SimpleNamespace(ae=ae, among=shades, scores=torch.ones(400), classifier=classifier)
    given = []
    monkeypatch.setattr(explaining, "load_network", lambda name: (lambda images: given.append(images.mean((1, 2, 3))), ""))
    monkeypatch.setattr(explaining.Moments, "over", lambda parts: [*parts])
    monkeypatch.setattr(explaining, "frechet_distance", lambda a, b: 0.0)
    num = explaining.LEAST_FID
    before = torch.cat([-torch.ones(num), torch.ones(3)])
    explaining._distances(explainer, shades[: num + 3], shades[: num + 3], before, [])
    real, images = torch.cat(given)[:num], torch.cat(given)[num : 2 * num]
    torch.testing.assert_close(images, shades[:num, 0, 0, 0], atol=1e-6, rtol=0)
    assert real.min() < -0.6
    assert real.max() > 0.6


def test_images_of_two_channels_are_explained(tmp_path):
    ae, pattern = ideal(channels=2)
    x = (codes(80) @ pattern).view(-1, 2, 8, 8)
    for i, image in enumerate(x):
        np.save(tmp_path / f"{i:03d}.npy", ((image + 1) / 2).numpy())
    data = prepare(DataConfig(source=str(tmp_path), validation=0.3, range=(0.0, 1.0)), size=(8, 8), channels=2)
    network = Linear(pattern, WEIGHT, 0.0).eval()
    explainer = Explainer(ae, Classifier(network, "logit"), data.images(data.train))
    found = explain_images(explainer, data, data.validation)
    assert found.shares["flipped"] == 1
    assert "lpips" not in found.shares
    assert any("grey and colour" in note for note in found.notes)
    page = write_explanation(
        found, [data.names[i] for i in data.validation], tmp_path / "out", ae=ae, about={"classifier": "x", "seed": 0}
    )
    assert page.is_file()


def test_columns_are_learned(tmp_path):
    generator = np.random.default_rng(0)
    rows = ["file,bright,how much"]
    for i in range(240):
        level = generator.uniform(40, 215)
        Image.fromarray((level + generator.normal(0, 20, (16, 16))).clip(0, 255).astype(np.uint8)).save(tmp_path / f"{i:03d}.png")
        rows.append(f"{i:03d}.png,{int(level > 128)},{level}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    data = prepare(DataConfig(source=str(tmp_path), validation=0.25), size=(16, 16), channels=1)
    decides = learned(data, data.train, data.labels["bright"][data.train], target=None, seed=0, progress=lambda *_: None)
    x = data.images(data.validation)
    assert ((decides.scores(x) > 0).numpy() == data.labels["bright"][data.validation]).mean() > 0.8
    measures = learned(data, data.train, data.labels["how much"][data.train], target=None, seed=0, progress=lambda *_: None)
    assert np.corrcoef(measures.scores(x), data.labels["how much"][data.validation])[0, 1] > 0.8
    with pytest.raises(ValueError, match="same label"):
        learned(data, data.train[:3], np.ones(3), target=None, seed=0, progress=lambda *_: None)


def test_what_columns_are_taken_for_is_said_of_the_table_that_is_named_alone(tmp_path, monkeypatch):
    kinds = {}

    def images(ae, source, data, labels=None, *, labels_kind=()):
        kinds[data] = labels_kind
        return SimpleNamespace(names=[], labels={}, train=np.arange(4), validation=np.arange(4))

    monkeypatch.setattr("diffae.cli.inputs.images", images)
    monkeypatch.setattr("diffae.cli.inputs.looked_at", lambda *_: np.arange(4))
    monkeypatch.setattr("diffae.cli.inputs.autoencoder_of_pixels", lambda source: None)
    said = {"labels_kind": ("grade=ordinal",), "out": tmp_path / "out"}
    Audit(source="run", classifier="grade", data="new", **said).sets(None)
    assert kinds == {None: said["labels_kind"], "new": ()}
    kinds.clear()
    monkeypatch.setattr("diffae.explanation.anomaly.AnomalyScorer", lambda *_: None)
    monkeypatch.setattr("diffae.explanation.anomalies.write_anomalies", lambda *_, **__: ("page", {"images": []}))
    Anomaly(source="run", data="new", usual="usual", **said).run()
    assert kinds == {"new": said["labels_kind"], "usual": ()}


def test_answers_are_said_of_programs_and_refused_where_columns_alone_are_named(tmp_path, monkeypatch):
    data = SimpleNamespace(labels={"Red": [], "Green": []}, train=np.arange(4), validation=np.arange(4, 6))
    monkeypatch.setattr("diffae.cli.inputs.images", lambda *_, **__: data)
    asked = {"source": "run", "out": tmp_path, "answers": "logit"}
    for columns in (
        Explain(classifier="Red", **asked), Audit(classifier="Red", **asked), Explain(classifier="Red", second="Green", **asked)
    ):  # fmt: skip
        with pytest.raises(ValueError, match="--answers logit is about what a program says, and Red is a column"):
            columns.sets(None)
    for program in (Explain(classifier="theirs:f", second="Red", **asked), Explain(classifier="Red", second="theirs:f", **asked)):
        assert program.sets(None)[0] is data


def test_the_command_explains_a_run_and_its_page_opens(tmp_path, tiny_run, made, monkeypatch, capsys):
    source = tmp_path / "images"
    source.mkdir()
    generator = np.random.default_rng(0)
    for i in range(80):
        level = generator.uniform(0, 255)
        Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(source / f"{i:03d}.png")
    seldom = {"validate_every": 10**6, "sample_every": 10**6, "checkpoint_every": 10**6}
    config = tiny_run(source=source, images=200, **seldom)
    run(config, tmp_path / "run")
    (tmp_path / "theirs.py").write_text("def classify(x):\n    return (x.mean((1, 2, 3)) * 4).sigmoid()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    out = tmp_path / "why"
    cli.main(["explain", str(tmp_path / "run"), "--classifier", "theirs:classify", "--num", "8", "--steps", "4", "--out", str(out)])
    assert "Open" in capsys.readouterr().out
    told = json.loads((out / "explain.json").read_text())
    assert told["n"] == 8
    data = prepare(config.data, size=(8, 8), channels=3)
    assert {image["file"] for image in told["images"]} <= {data.names[i] for i in data.validation}
    assert [len(image["gradients"]) for image in told["images"]] == [1] * 8
    assert 0 <= told["measured"]["flipped"] <= 1
    with pytest.raises(SystemExit):
        cli.main(["explain", str(tmp_path / "run"), "--classifier", "colour", "--out", str(out)])
    assert "is no classifier: give a column" in " ".join(capsys.readouterr().err.split())
    browser(out / "report.html")


@pytest.mark.parametrize(("shares", "wanted", "expected"), [
    ((0, 0, 0.4, 0.95, 0.95, 0.5, 0.5, 0.5), 0.9, (3, 0.95)),
    ((0, 0, 0.4, 0.6, 0.95, 0.5, 0.5, 0.5), 0.9, (4, 0.95)),
    ((1.0,) * 8, 0.9, (0, 1.0)),
    ((0.5,) * 8, 0.9, (None, 0.0)),
])  # fmt: skip
def test_the_fixed_move_is_the_least_though_longer_ones_do_less(shares, wanted, expected, monkeypatch):
    lengths = explaining.STRENGTHS[: len(shares)]
    monkeypatch.setattr(explaining, "STRENGTHS", lengths)
    monkeypatch.setattr(explaining, "move_images", lambda explainer, x, direction, length: length[:, None, None, None] + 0 * x)

    def scores(explainer, images):
        flipped = round(20 * shares[int(np.argmin(np.abs(np.array(lengths) - float(images[0, 0, 0, 0]))))])
        return torch.where(torch.arange(20) < flipped, 1.0, -1.0)

    monkeypatch.setattr(explaining, "_scores", scores)
    explainer = Explainer.__new__(Explainer)
    explainer.spread, explainer.slope = SimpleNamespace(likeliest=lambda slope: slope), torch.zeros(3)
    _, length, share = explaining.one_move(explainer, torch.zeros(20, 1, 2, 2), -torch.ones(20), torch.ones(20), wanted=wanted)
    assert (length, share) == (0.0 if expected[0] is None else lengths[expected[0]], pytest.approx(expected[1]))
