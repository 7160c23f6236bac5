"""Networks on another device than images and codes, as on a machine with a GPU: everything still finds together."""

import contextlib
import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from pretended_device import DEVICE, Pretended, counting, pretended
from test_cli import SMALL
from test_evaluate import Means
from test_nn import perturb
from test_studio import shop, visiting  # noqa: F401 - a fixture

from diffae import cli
from diffae.autoencoder import DiffusionAutoencoder
from diffae.cli import inputs
from diffae.config import PriorConfig, RunConfig, read_json
from diffae.data import prepare
from diffae.diffusion import border
from diffae.diffusion.ddim import DDIM
from diffae.evaluation.pages.report import write_report
from diffae.evaluation.suites import bench
from diffae.semantics.fitting import fit_attributes
from diffae.semantics.prior import GaussianPrior, LatentPrior
from diffae.semantics.standardizer import Standardizer
from diffae.studio.examples import from_examples
from diffae.studio.visit import Visit
from diffae.studio.workshop import Workshop
from diffae.training.run import create_accelerator


@pytest.fixture(scope="module")
def ae(tiny):
    torch.manual_seed(0)
    model = perturb(DiffusionAutoencoder(replace(tiny, prediction="v"))).eval()
    z = torch.randn(200, 6)
    model.prior = perturb(LatentPrior(PriorConfig(z_dim=6, width=16, layers=3, gaussian_start=True))).eval()
    model.prior.start(z)
    model.standardizer = Standardizer.fit(z)
    labels = {"a": (z[:, 0] > 0).numpy().astype(float), "b": (z[:, 1] > 0).numpy().astype(float), "c": z[:, 2].numpy()}
    model.attributes, _ = fit_attributes(z, labels, held_z_sem=z, held_labels=labels)
    return model


@pytest.fixture
def away(ae):
    """The same with its networks on the device."""
    with pretended():
        yield copy.deepcopy(ae).to(DEVICE)


@pytest.fixture(scope="module")
def x():
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def z():
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(2))


USES = {
    "encode": lambda ae, x, z: ae.encode(x),
    "invert": lambda ae, x, z: ae.invert(x, z, steps=3),
    "invert as the authors": lambda ae, x, z: ae.invert(x, z, steps=3, solver="ddim"),
    "decode": lambda ae, x, z: ae.decode(z, steps=3),
    "decode an x_T": lambda ae, x, z: ae.decode(z, torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(3)).to(z)),
    "decode_mean": lambda ae, x, z: ae.decode_mean(z),
    "vary": lambda ae, x, z: ae.vary(x, num=2, steps=2),
    "interpolate": lambda ae, x, z: ae.interpolate(x, x.flip(0), [0.0, 0.3], steps=3),
    "interpolate_path": lambda ae, x, z: ae.interpolate_path(x, frames=2, steps=3),
    "edit": lambda ae, x, z: ae.edit(z, {"a": 0.2, "c": 0.1}, keep=["b"]),
    "edit towards a probability": lambda ae, x, z: ae.edit(z, ["a", "b"], target_probability=0.9),
    "edit along a vector": lambda ae, x, z: ae.edit(z, torch.eye(6)[0], strength=0.2),
    "manipulate": lambda ae, x, z: ae.manipulate(x, "pc1", steps=3),
    "manipulate towards a probability": lambda ae, x, z: ae.manipulate(x, "a", target_probability=0.7, keep=["b"], steps=3),
    "decode some of many": lambda ae, x, z: ae.decode(z, steps=2, start=4),
    "logits": lambda ae, x, z: ae.attributes.logits(z),
    "probabilities": lambda ae, x, z: ae.attributes.probabilities(z),
    "standardise": lambda ae, x, z: ae.standardizer.inverse(ae.standardizer(z)),
    "predict": lambda ae, x, z: ae.eps_model(z)(x, torch.full((3,), 500.0).to(x)),
    **{f"reconstruct, {name}": lambda ae, x, z, name=name: ae.reconstruct(x, inversion=name, steps=3)
       for name in ("fast", "anchored", "refine", "reversible", "bdia", "official")},
}  # fmt: skip


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_what_is_given_on_the_cpu_comes_back_there_and_is_the_same(ae, away, x, z, use):
    expected = use(ae, x, z)
    found = use(away, x, z)
    assert not isinstance(found, Pretended)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_what_is_given_on_the_device_stays_there(ae, away, x, z, use):
    expected = use(ae, x, z)
    found = use(away, x.to(DEVICE), z.to(DEVICE))
    assert found.device == DEVICE
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_samples_are_the_same(ae, away):
    for kwargs in ({}, {"accept": ae.attributes.probability("a")}):
        expected = ae.sample(4, steps=2, prior_steps=3, seed=5, **kwargs)
        if kwargs:
            kwargs = {"accept": away.attributes.probability("a")}
        torch.testing.assert_close(away.sample(4, steps=2, prior_steps=3, seed=5, **kwargs).cpu(), expected, rtol=1e-4, atol=1e-4)
    gaussian = GaussianPrior(6).fit(torch.randn(50, 6))
    expected = gaussian.sample(3, seed=1)
    torch.testing.assert_close(copy.deepcopy(gaussian).to(DEVICE).sample(3, seed=1).cpu(), expected)


def test_attributes_that_say_the_same_can_be_kept_together(z):
    many = torch.randn(300, 6, generator=torch.Generator().manual_seed(5))
    labels = {"a": (many[:, 0] > 0).double().numpy(), "b": (many[:, 1] > 0).double().numpy()}
    labels["b again"] = labels["b"]
    fitted, _ = fit_attributes(many, labels, held_z_sem=many, held_labels=labels)
    expected = fitted.move(z, {"a": 0.2}, keep=["b", "b again"])
    torch.testing.assert_close(fitted.logits(expected)[:, 1:], fitted.logits(z)[:, 1:], rtol=1e-3, atol=1e-3)
    with pretended():
        found = copy.deepcopy(fitted).to(DEVICE).move(z.to(DEVICE), {"a": 0.2}, keep=["b", "b again"])
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_classifiers_of_few_labels_need_not_be_where_codes_are(ae, away, z):
    expected = ae.attributes.probability("a")(z)
    torch.testing.assert_close(ae.attributes.probability("a")(z.to(DEVICE)).cpu(), expected)


DDIM_USES = {
    "reconstruct": lambda model, x: model.reconstruct(x, steps=3),
    "interpolate": lambda model, x: model.interpolate(x, x.flip(0), [0.3], steps=3),
    "sdedit": lambda model, x: model.sdedit(x, steps=10),
    "decode": lambda model, x: model.decode(model.invert(x, steps=3), steps=3),
}


@pytest.mark.parametrize("use", DDIM_USES.values(), ids=DDIM_USES)
def test_a_plain_ddim_does_so_too(tiny, x, use):
    torch.manual_seed(0)
    model = perturb(DDIM(replace(tiny, prediction="v", z_dim=None))).eval()
    expected = use(model, x)
    with pretended():
        away = copy.deepcopy(model).to(DEVICE)
        torch.testing.assert_close(use(away, x), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(away.sample(2, steps=2).cpu(), model.sample(2, steps=2), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_colours):
    """A run that was trained on the device, with attributes and a prior, beside its labelled images."""
    root = tmp_path_factory.mktemp("trained")
    colours = write_colours(root / "images", 40)
    lines = ["file,Red", *(f"{i:02d}.png,{int(red > 127)}" for i, (red, _, _) in enumerate(colours))]
    (root / "images" / "labels.csv").write_text("\n".join(lines) + "\n")
    run, images = str(root / "run"), str(root / "images")
    small = ["--training.batch-size", "4", "--training.checkpoint-every", "16", "--training.precision", "bfloat16"]
    own = ["train", images, "--preset", "avatars32", "--out", run, *SMALL, *small, "--data.validation", "0.3"]
    own += ["--training.average-every", "16", "--training.accumulation", "auto"]
    small += ["--images", "32"]
    with on_the_device():
        cli.main([*own, "--images", "16"])
        cli.main([*own, "--images", "32"])  # Which goes on.
        cli.main(["fit-attributes", run])
        cli.main(["train-prior", run, *small, "--model.width", "16", "--model.layers", "2"])
        cli.main(["train-prior", run, "--preset", "gaussian"])
    return root


@contextlib.contextmanager
def on_the_device():
    """Commands find it as they would a GPU."""
    AcceleratorState._reset_state(reset_partial_state=True)
    with pretended(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "device", lambda: DEVICE)
        patch.setattr(Accelerator, "device", property(lambda self: DEVICE))
        patch.setattr(bench, "load_network", lambda name, weights: (Means(), "means.pt"))
        # Where tensors are does not depend on how many steps are taken.
        for where in ("pages.figures", "pages.report", "suites.manipulation", "suites.variation"):
            patch.setattr(f"diffae.evaluation.{where}.STEPS", 4)
        patch.setattr("diffae.evaluation.calibration.STEPS", (2, 4, 8))
        patch.setattr("diffae.evaluation.calibration.LIMIT", 16)
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


COMMANDS = [
    "encode RUN IMAGES --out OUT/codes.parquet --x-T-steps 2",
    "neighbours RUN IMAGES/03.png --num 2 --out OUT/a.png",
    "reconstruct RUN IMAGES/03.png --steps 3 --out OUT/a.png",
    "vary RUN IMAGES/03.png --num 2 --steps 2 --out OUT/a.png",
    "interpolate RUN IMAGES/03.png IMAGES/04.png --frames 2 --steps 3 --out OUT/a.gif",
    "manipulate RUN IMAGES/03.png --attribute Red --strengths 0.2 --steps 3 --out OUT/a.png",
    "manipulate RUN IMAGES/03.png --attribute Red --target-probability 0.8 --steps 3 --out OUT/a.png",
    "sample RUN --num 3 --steps 2 --prior-steps 2 --out OUT/a.png",
    "sample RUN --num 2 --steps 2 --attribute Red --labels IMAGES/labels.csv --out OUT/many",
    "sample RUN --num 2 --prior gaussian --steps 2 --out OUT/a.png",
    "calibrate RUN",
    "sample RUN --num 3 --steps 6 --precision bfloat16 --batch-size 2 --out OUT/a.png",
    "average RUN --lengths 0.1 --out OUT/averaged",
    "export RUN OUT/exported --dtype bfloat16",
    "bench network --preset avatars32 --batches 1 --seconds 0.01",
    "evaluate RUN --out OUT/e --suite reconstruction denoising attributes variation --num 8 --steps 2",
    "evaluate RUN --out OUT/e --suite generation manipulation --num 8 --num-inception 12 --attributes Red --generation-steps 2",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compute_on_the_device(trained, tmp_path, command):
    for name, value in {"RUN": trained / "run", "IMAGES": trained / "images", "OUT": tmp_path / "out"}.items():
        command = command.replace(name, str(value))
    with on_the_device(), counting() as counts:
        cli.main(command.split())
    assert command.startswith(("calibrate", "bench")) or any((tmp_path / "out").rglob("*.*"))
    # What is only written elsewhere asks no network.
    assert command.startswith("export") or counts.of["convolution"] > 0


def test_the_page_of_a_run_is_made_on_the_device(trained):
    run = trained / "run"
    config = read_json(RunConfig, run / "config.json")
    data = prepare(config.data, size=(16, 16), channels=3)
    with on_the_device(), counting() as counts:
        page = write_report(run, data, num=8, device=str(DEVICE))
    assert page.is_file()
    assert counts.of["convolution"] > 0


def test_the_studio_computes_on_the_device(shop):  # noqa: F811 - the fixture
    with pretended():
        expected = shop.moved(visiting(shop), {"Red": 0.3}, {}, ["Green"])
        shop.ae.to(DEVICE)
        visit = visiting(shop)
        moved = shop.moved(visit, {"Red": 0.3}, {}, ["Green"])
        torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)
        assert not isinstance(shop.ae.render(visit.opened.preview, z_sem=moved), Pretended)
        own = shop.define("Mine", [0, 1, 2, 3], [4, 5, 6, 7])
        visit = replace(visit, defined={"Mine": own})
        assert set(shop.probabilities(visit, moved)) >= {"Red", "Mine"}
        assert np.isfinite(shop.map()).all()
        drawn = shop.draw(4, seed=1)
        images = shop.ae.decode(drawn.z_sem)
        assert not any(isinstance(found, Pretended) for found in (drawn.z_sem, images))
        alone = Workshop(shop.ae, None, None, name="alone")
        assert not isinstance(alone.examples, Pretended)
        visit, _ = alone.open(Visit(), alone.examples[:1])
        assert visit.find_opened(images[:1]) is None
        from_examples(alone, "Own", torch.randn(6, shop.ae.z_dim), torch.empty(0, shop.ae.z_dim))


def test_the_device_finds_mistakes(ae, away, x):
    """That it would: the network itself wants its images beside it."""
    with pytest.raises(RuntimeError, match="on the same device"):
        away.encoder(x)
    with pytest.raises((RuntimeError, TypeError)):
        np.asarray(away.encode(x.to(DEVICE)))


def test_a_device_that_has_no_float64_is_refused_in_one_line(ae, x, monkeypatch):
    monkeypatch.setattr(border, "device_of", lambda model: torch.device("mps"))
    with pytest.raises(ValueError, match="DiffusionAutoencoder is on Apple's GPU, which has no float64"):
        ae.encode(x)


@pytest.mark.usefixtures("fresh_accelerator")
def test_training_takes_no_device_without_float64(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("mps"))
    assert create_accelerator().device.type == "cpu"
