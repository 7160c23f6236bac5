"""What is chosen for a network is what serves it best among what is tried, and it travels with the weights."""

import json
from dataclasses import replace

import pytest
import torch

import diffae
from diffae import cli
from diffae.autoencoder import build
from diffae.config import to_dict
from diffae.diffusion.schedule import Calibration, uncalibrated
from diffae.evaluation import calibration
from diffae.evaluation.calibration import calibrate
from diffae.interop.weights import save_calibration
from diffae.metrics.images import mse
from diffae.runtime.files import write_text

FEW = (2, 4, 8)


def quiet(what, done, total):
    """Tells nobody."""


@pytest.fixture
def ae(tiny, monkeypatch):
    monkeypatch.setattr(calibration, "STEPS", FEW)
    monkeypatch.setattr(calibration, "LIMIT", 16)
    torch.manual_seed(0)
    return build(replace(tiny, prediction="v")).eval()


@pytest.fixture
def x():
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_best_of_what_is_tried_is_chosen(ae, x):
    found, measured = calibrate(ae, x, progress=quiet)
    assert ae.calibration == found
    errors = {what: {setting: float(e) for w, setting, e in measured if w == what} for what, _, _ in measured}
    means = errors["mean decode"]
    assert means[f"t = {found.mean_t}"] == min(means.values())
    assert mse(ae.decode_mean(ae.encode(x)), x) == pytest.approx(min(means.values()), rel=1e-2)
    grids = errors["levels, 10 steps"]
    assert grids[f"{found.spacing}, from t = {found.t_max:g}"] == min(grids.values())
    assert len(grids) == 9
    assert found.steps in FEW


def test_the_fewest_steps_that_are_exact_in_a_file_are_enough(ae, x, monkeypatch):
    monkeypatch.setattr(calibration, "ROUNDING", 1e9)
    monkeypatch.setattr(calibration, "NEAR", 0.0)
    found, measured = calibrate(ae, x, progress=quiet)
    assert (found.steps, found.sample_steps) == (2, 8), "any error is small enough there, and none here"
    assert [row for row in measured if "though no number" in row[1]] == [
        ["decoding drawn noise", "8 steps, though no number errs so little as", "0"]
    ]


def test_those_of_which_more_is_measured_are_of_all_kinds(ae, monkeypatch):
    """The first half is black and the second white, as folders by kind are in the order of their names."""
    monkeypatch.setattr(calibration, "FEW_IMAGES", 4)
    x = torch.ones(10, 3, 8, 8)
    x[:5] = -1
    seen = []
    monkeypatch.setattr(type(ae), "reconstruct", lambda self, few, **_: seen.append(few) or few)
    calibrate(ae, x, progress=quiet)
    assert {tuple(few.mean((1, 2, 3)).tolist()) for few in seen} == {(-1.0, -1.0, 1.0, 1.0)}


def test_what_was_calibrated_is_what_is_used(ae, x):
    z_sem = ae.encode(x)
    before = ae.decode(z_sem), ae.infer(x).steps, ae.decode_mean(z_sem)
    ae.calibration = Calibration(spacing="karras", t_max=900.0, mean_t=500, steps=3, sample_steps=4)
    assert len(ae.path(7)) == 7
    assert float(ae.path(7).t[0]) == 900
    assert ae.infer(x).steps == 3
    torch.testing.assert_close(ae.decode(z_sem), ae.decode(z_sem, steps=4))
    torch.testing.assert_close(ae.decode_mean(z_sem), ae.decode_mean(z_sem, t=500))
    assert before[1] == 20
    assert not torch.equal(before[0], ae.decode(z_sem))


def test_networks_that_predict_eps_are_not_asked_where_alpha_is_small(tiny):
    v, eps = (build(replace(tiny, prediction=p)) for p in ("v", "eps"))
    assert (v.calibration.t_max, v.calibration.mean_t) == (999, 999)
    assert eps.calibration.t_max == 953
    assert 600 < eps.calibration.mean_t < 800
    assert eps.calibration == uncalibrated(eps.schedule, "eps")


def test_a_calibration_travels_with_the_weights(ae, tmp_path):
    ae.calibration = Calibration(spacing="power", t_max=950.5, mean_t=700, steps=12)
    ae.save_pretrained(tmp_path / "saved")
    assert diffae.load(tmp_path / "saved").calibration == ae.calibration


def test_the_command_saves_beside_a_run_what_belongs_to_these_weights_alone(ae, tiny_run, make_images, tmp_path, capsys):
    config = tiny_run(source=make_images(24))
    config = replace(config, model=ae.config)
    run = tmp_path / "run"
    ae.save_pretrained(run / "model")
    write_text(run / "config.json", json.dumps(to_dict(config)))
    cli.main(["calibrate", str(run), "--num", "4"])
    text = capsys.readouterr().out
    assert "Mean decode at t = " in text
    assert str(run / "calibration.json") in text
    stored = diffae.load(run).calibration
    assert stored != ae.calibration
    assert f"{stored.steps} steps there and back" in " ".join(text.split())
    with torch.no_grad():
        ae.unet.conv_in.weight.add_(1)
    ae.save_pretrained(run / "model")
    with pytest.warns(UserWarning, match="is of an earlier state of this model. Calibrate it again"):
        assert diffae.load(run).calibration == ae.calibration


@pytest.mark.parametrize("text", ["{", "[]", '{"model": "m"}', '{"model": "m", "calibration": {"t_max": "far"}}'])
def test_a_damaged_calibration_is_said(ae, tmp_path, text):
    ae.save_pretrained(tmp_path)
    save_calibration(ae, tmp_path).write_text(text)
    with pytest.raises(ValueError, match=r"calibration.json is damaged \(.*\). Calibrate again, or delete it."):
        diffae.load(tmp_path)


def test_what_cannot_be_calibrated_is_said(ae, tiny_run, make_images, tmp_path, capsys):
    run = tmp_path / "run"
    ae.save_pretrained(run / "model")
    config = tiny_run(source=make_images(24), data={"validation": 0.0})
    write_text(run / "config.json", json.dumps(to_dict(replace(config, model=ae.config))))
    for source, said in ((str(run), "at least two held-out images"), ("user/model", "is on the hub")):
        with pytest.raises(SystemExit):
            cli.main(["calibrate", source])
        assert said in " ".join(capsys.readouterr().err.split())


def test_noise_of_another_scale_is_warned_of(ae, x):
    z_sem = ae.encode(x)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for scale in (0.2, 3.0):
        with pytest.warns(UserWarning, match="where that of normal noise is 1: is it scaled"):
            ae.decode(z_sem, scale * noise, steps=2)
    ae.decode(z_sem, noise, steps=2)


def test_calibrating_again_tries_the_same(ae, x):
    first = calibrate(ae, x, progress=quiet)
    ae.calibration = Calibration(spacing="karras", t_max=940.0, mean_t=400, steps=3, sample_steps=4)
    again = calibrate(ae, x, progress=quiet)
    assert again == first, "what a first try with few images found is no bound"
