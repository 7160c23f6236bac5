"""Ours against what the authors' code computes with the same weights."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

import diffae
from diffae.diffusion.schedule import decoding_path
from diffae.diffusion.solvers import solve

FIXTURES = Path(__file__).parent / "fixtures" / "official"
LIGHTNING = Path(__file__).parents[2] / "shared" / "reference" / "official" / "last_as_lightning_writes_it.ckpt"


@pytest.fixture(scope="module")
def expected():
    return safetensors.torch.load_file(FIXTURES / "expected.safetensors")


@pytest.fixture(scope="module")
def ae():
    return diffae.interop.official.load(FIXTURES / "last.ckpt")


def relative_error(a, b):
    return ((a - b).norm() / b.norm()).item()


def test_z_sem_is_the_authors(ae, expected):
    assert relative_error(ae.encode(expected["x0"]), expected["z_sem"]) <= 1e-5


def test_eps_is_the_authors(ae, expected):
    eps = ae.eps_model(expected["z_sem"])(expected["x_t"], expected["t"].float())
    assert relative_error(eps, expected["eps"]) <= 1e-5


def test_raw_weights_can_be_asked_for(expected):
    raw = diffae.interop.official.load(FIXTURES / "last.ckpt", ema=False)
    eps = raw.eps_model(raw.encode(expected["x0"]))(expected["x_t"], expected["t"].float())
    assert relative_error(eps, expected["eps_of_raw_weights"]) <= 1e-5
    assert relative_error(eps, expected["eps"]) > 1e-2


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_inversion_and_decoding_are_the_authors(ae, expected, steps):
    z_sem = expected["z_sem"]
    x_T = ae.invert(expected["x0"], z_sem, steps=steps, solver="ddim")
    assert relative_error(x_T, expected[f"x_T.ddim{steps}"]) <= 1e-4
    x_hat = ae.decode(z_sem, expected[f"x_T.ddim{steps}"], steps=steps, solver="ddim")
    assert relative_error(x_hat, expected[f"reconstruction.ddim{steps}"]) <= 1e-4
    x_hat = ae.decode(z_sem, expected["x_t"], steps=steps, solver="ddim")
    assert relative_error(x_hat, expected[f"decode_of_x_t.ddim{steps}"]) <= 1e-4


def test_latent_eps_is_the_authors(ae, expected):
    eps = ae.prior.net(expected["latent.z_t"], expected["latent.t"].float())
    assert relative_error(eps, expected["latent.eps"]) <= 1e-5


@pytest.mark.parametrize("steps", [10, 20])
@torch.no_grad()
def test_latent_sampling_is_the_authors(ae, expected, steps):
    z = solve(ae.prior.net, expected["latent.z_t"], decoding_path(ae.prior.schedule, steps))
    assert relative_error(z, expected[f"latent.sample_normalized.ddim{steps}"]) <= 1e-4
    assert relative_error(ae.standardizer.inverse(z), expected[f"latent.sample.ddim{steps}"]) <= 1e-4


@pytest.mark.skipif(not LIGHTNING.is_file(), reason=f"there is no {LIGHTNING}")
def test_a_real_lightning_file_gives_the_same_model(ae):
    with pytest.raises(Exception, match="pytorch_lightning"):
        torch.load(LIGHTNING, weights_only=True)
    other = diffae.interop.official.load(LIGHTNING)
    assert other.config == ae.config
    for (name, a), (_, b) in zip(ae.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_an_imported_model_survives_saving(ae, tmp_path, expected):
    ae.save_pretrained(tmp_path / "saved")
    again = diffae.load(tmp_path / "saved")
    assert torch.equal(again.encode(expected["x0"]), ae.encode(expected["x0"]))
    assert torch.equal(again.sample(2, steps=2, prior_steps=2), ae.sample(2, steps=2, prior_steps=2))
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["prior"]["layers"] == 4


@pytest.mark.parametrize(("ema", "name"), [(False, "classifier.logits"), (True, "classifier.ema_logits")])
def test_classifier_logits_are_the_authors(ae, expected, ema, name):
    attributes = diffae.interop.official.load_classifier(FIXTURES / "classifier.ckpt", z_dim=ae.z_dim, ema=ema)
    assert attributes.names == ["class_0", "class_1", "class_2", "class_3"]
    assert relative_error(attributes.logits(expected["z_sem"]), expected[name]) <= 1e-5


def test_manipulation_is_the_authors(ae, expected):
    ae.attributes = diffae.interop.official.load_classifier(FIXTURES / "classifier.ckpt", z_dim=ae.z_dim, ema=False)
    z_sem = ae.edit(expected["z_sem"], "class_2", strength=0.3)
    assert relative_error(z_sem, expected["manipulated.z_sem"]) <= 1e-5
    image = ae.decode(z_sem, expected["x_T.ddim20"], steps=20, solver="ddim")
    assert relative_error(image, expected["manipulated.image.ddim20"]) <= 1e-4
    whole = ae.manipulate(expected["x0"], "class_2", strength=0.3, inversion="official", steps=20)
    assert relative_error(whole, expected["manipulated.image.ddim20"]) <= 1e-4


def test_a_classifier_of_something_else_is_refused(ae):
    with pytest.raises(ValueError, match="holds no linear classifier of z_sem of 512 dimensions"):
        diffae.interop.official.load_classifier(FIXTURES / "classifier.ckpt", z_dim=512)
    with pytest.raises(ValueError, match="is no classifier of the authors' code: it lacks ema_classifier.weight"):
        diffae.interop.official.load_classifier(FIXTURES / "last.ckpt", z_dim=48)
