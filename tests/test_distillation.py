"""Distillation: one call leads as far as many small steps would, and many small steps lead where they did."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import checkpoint
from test_nn import perturb

import diffae
from diffae import cli
from diffae.autoencoder import DiffusionAutoencoder
from diffae.cli.distillation import Distill
from diffae.config import RunConfig, ScheduleConfig, StartConfig, read_json
from diffae.config.presets import DISTILLED_SHARE
from diffae.data import prepare
from diffae.diffusion.schedule import Schedule, spaced_path
from diffae.diffusion.solvers import ddim_step, predict, solve
from diffae.evaluation.calibration import calibrate
from diffae.runtime.seeding import Draws
from diffae.semantics.prior import GaussianPrior
from diffae.semantics.standardizer import Standardizer
from diffae.training.distillation import PAIRS, DistilledSubject, Levels, jump_target, pairs
from diffae.training.log import read_metrics
from diffae.training.run import resolve, train

SCHEDULE = Schedule(ScheduleConfig())
SCALE = 0.5
"""Of Gaussian data, whose ODE has a closed form: all states are of one image, scaled to the standard deviation of the level."""


def deviation(t):
    """Standard deviation of x_t, of data N(0, SCALE^2)."""
    level = torch.where(t < 0, torch.ones_like(t, dtype=torch.float64), SCHEDULE.levels(t.double().clamp(min=0)))
    return (level * SCALE**2 + 1 - level).sqrt()[:, None], level[:, None]


def exact_jump(x_t, t, to=None):
    """The noise with which DDIM's step leads from t to where the ODE of Gaussian data is at `to`."""
    here, level = deviation(t)
    if to is None:
        return x_t * (1 - level).sqrt() / here**2
    there, other = deviation(to)
    return jump_target("eps", x_t, x_t * there / here, level[:, 0], other[:, 0])[0]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_jumps_of_an_exact_flow_map_land_on_the_ode_however_few_they_are(steps):
    x_T = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    path = replace(spaced_path(SCHEDULE, steps), jumps=True)
    first, _ = deviation(path.t[:1])
    image = solve(exact_jump, x_T, path.ending_in_the_image(), solver="jump")
    torch.testing.assert_close(image, x_T * SCALE / first, rtol=1e-6, atol=0)
    at_zero = solve(exact_jump, x_T, path, solver="jump")
    torch.testing.assert_close(solve(exact_jump, at_zero, path.backwards(), solver="jump"), x_T, rtol=1e-6, atol=0)
    # The same levels without jumps are far off, so the test sees the difference.
    assert (solve(exact_jump, x_T, replace(path, jumps=False)) - at_zero).abs().max() > 0.01


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_target_is_what_leads_from_one_state_to_the_other(prediction):
    generator = torch.Generator().manual_seed(0)
    x_t, x_s = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    path = spaced_path(SCHEDULE, 6)
    for i in range(6):
        level, other = path.alpha_bar[i].expand(4), path.alpha_bar[i + 1].expand(4)
        target, sine = jump_target(prediction, x_t, x_s, level, other)
        alpha, sigma = level[0].sqrt(), (1 - level[0]).sqrt()
        eps = target if prediction == "eps" else alpha * target + sigma * x_t
        led = ddim_step(x_t, path, i, [(x_t - sigma * eps) / alpha])
        torch.testing.assert_close(led, x_s)
        angle = torch.atan2((1 - other).sqrt(), other.sqrt()) - torch.atan2((1 - level).sqrt(), level.sqrt())
        torch.testing.assert_close(sine.flatten(), angle.sin())


def jumping(tiny, **changes):
    """A model that jumps, whose every weight matters."""
    torch.manual_seed(3)
    config = replace(tiny, unet=replace(tiny.unet, jumps=True), prediction="v", **changes)
    return perturb(DiffusionAutoencoder(config)).eval()


def test_a_jump_to_where_it_starts_is_the_networks_own_slope(tiny):
    ae, x, z = jumping(tiny), torch.randn(2, 3, 8, 8), torch.randn(2, 6)
    t = torch.tensor([17.0, 900.0])
    torch.testing.assert_close(ae.unet(x, t, z_sem=z, to=t), ae.unet(x, t, z_sem=z), rtol=0, atol=0)
    assert not torch.equal(ae.unet(x, t, z_sem=z, to=t - 10), ae.unet(x, t, z_sem=z))
    plain = DiffusionAutoencoder(tiny)
    with pytest.raises(ValueError, match="does not jump"):
        plain.unet(x, t, z_sem=z, to=t)
    with pytest.raises(ValueError, match="diffae distill"):
        plain.decode(z, steps=1, solver="jump")


def calls_of(ae, make):
    """What `make` does, and how often it asks the network, and where to."""
    asked, forward = [], ae.unet.forward

    def counted(x_t, t, *, z_sem=None, draws=None, to=None):
        asked.append(None if to is None else float(to[0]))
        return forward(x_t, t, z_sem=z_sem, draws=draws, **({} if to is None else {"to": to}))

    ae.unet.forward = counted
    try:
        return make(), asked
    finally:
        del ae.unet.forward


def test_few_steps_jump_and_cost_a_call_each(tiny):
    ae = jumping(tiny)
    z, x = torch.randn(2, 6), torch.rand(2, 3, 8, 8) * 2 - 1
    for make, calls in (
        (lambda: ae.decode(z, steps=1), [-1.0]),
        (lambda: ae.decode(z, ae.draw_x_T(2, 0), steps=1), [0.0]),
        (lambda: ae.invert(x, z, steps=1), [999.0]),
    ):
        assert calls_of(ae, make)[1] == calls
    _, asked = calls_of(ae, lambda: ae.decode(z, steps=4))
    assert len(asked) == 4
    assert asked[-1] == -1
    for make, calls in (
        (lambda: ae.decode(z, steps=5), 6),
        (lambda: ae.decode(z, steps=4, solver="dpmpp2m"), 5),
        (lambda: ae.invert(x, z, steps=8), 8),
    ):
        assert calls_of(ae, make)[1] == [None] * calls


@pytest.mark.parametrize("inversion", ["anchored", "reversible", "bdia"])
def test_what_is_exact_stays_so(tiny, inversion):
    ae, x = jumping(tiny), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    back, asked = calls_of(ae, lambda: ae.reconstruct(x, inversion=inversion, steps=2))
    torch.testing.assert_close(back, x, rtol=0, atol=0 if inversion == "anchored" else 1e-5)
    assert (asked[0] is not None) == (inversion == "anchored")
    if inversion == "anchored":
        assert len(asked) == 6
        code = ae.infer(x, steps=2)
        assert not torch.equal(ae.render(code, z_sem=code.z_sem + 1), back)


def levels_of(path):
    return Levels.of(path, torch.device("cpu"))


def test_pairs_are_of_two_levels_and_lead_where_they_are_meant_to():
    path = spaced_path(SCHEDULE, 6)
    to_image, of_image = levels_of(path.to_the_image()), levels_of(path)
    draws = Draws.of(3000, 0)
    start, end = pairs(draws, to_image)
    assert len(start) == PAIRS * 3000
    assert (start == end)[:3000].all()
    assert set(start[:3000].tolist()) == set(range(7))  # At the image itself nobody was asked.
    a, b = start[3000:], end[3000:]
    assert (a != b).all()
    assert set(a.tolist()) == set(range(7))
    whole = ((a == 0) & (b == 7)).double().mean()
    assert 0.5 < whole < 0.57
    assert abs((b == 7).double().mean() - 3 / 4) < 0.02
    assert (b < a).double().mean() > 0.08  # Some lead to noise.
    start, end = pairs(draws, of_image)
    assert set(start[:3000].tolist()) == set(range(1, 7))
    a, b = start[3000:], end[3000:]
    assert (a != b).all()
    assert set(a.tolist()) == set(b.tolist()) == set(range(7))
    assert abs((b < a).double().mean() - 0.5) < 0.02
    # What is drawn for an image depends on it alone.
    few = pairs(draws[:5], of_image)
    assert torch.equal(few[0].view(PAIRS, 5), start.view(PAIRS, 3000)[:, :5])


@pytest.fixture
def teacher(tiny, tmp_path, make_images, tiny_run):
    """A run, whose network says something of its own, with all that can be fitted to it."""
    torch.manual_seed(7)
    ae = perturb(DiffusionAutoencoder(replace(tiny, prediction="v"))).eval()
    for weights in ae.parameters():
        weights.data *= 0.7
    ae.standardizer = Standardizer.fit(torch.randn(64, 6))
    ae.prior = GaussianPrior(6).fit(torch.randn(64, 6))
    ae.about = {"images_seen": 640, "preset": "tiny", "metrics": {"MSE, the teacher's": 0.1}}
    ae.save_pretrained(tmp_path / "teacher")
    return ae


def distilling(teacher, tmp_path, tiny_run, **training):
    config = tiny_run(model={"prediction": "v"}, **training)
    model = replace(config.model, unet=replace(config.model.unet, jumps=True))
    return replace(config, model=model, start=StartConfig(model=str(tmp_path / "teacher"), freeze="encoder"))


def distilled(config, out):
    config = resolve(config, out)
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    return list(train(DistilledSubject(config, data), out))


def test_a_student_learns_to_jump_and_keeps_what_is_not_its_own(teacher, tmp_path, tiny_run):
    seldom = {"validate_every": 960, "sample_every": 960, "checkpoint_every": 960}
    config = distilling(teacher, tmp_path, tiny_run, images=960, learning_rate=3e-3, precision="float32", **seldom)
    distilled(config, tmp_path / "out")
    student = diffae.load(tmp_path / "out")
    z = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    wanted = teacher.decode(z, steps=40)

    def error(x):
        return float((x - wanted).square().mean())

    # One call of the teacher that leads all the way is what the student begins with.
    begun = replace(teacher.path(1), jumps=False).ending_in_the_image()
    eps_model, x_T = teacher.eps_model(z), teacher.draw_x_T(16, 0)
    with torch.no_grad():
        one = teacher.clamp(predict(eps_model, x_T, begun, 0))
    assert error(student.decode(z, steps=1)) < 0.7 * error(one)
    assert error(student.decode(z, steps=2)) < 0.7 * error(one)
    for name, weights in teacher.encoder.state_dict().items():
        assert torch.equal(weights, student.encoder.state_dict()[name])
    assert student.prior is not None
    assert student.standardizer is not None
    before = student.calibration
    assert before == teacher.calibration
    found, measured = calibrate(student, wanted.clamp(-1, 1), progress=lambda *_: None)
    assert (found.spacing, found.t_max) == (before.spacing, before.t_max)
    assert {what for what, *_ in measured} == {"mean decode", "reconstruction", "decoding drawn noise"}
    torch.testing.assert_close(student.decode(z), student.decode(z, steps=1))
    assert student.about == {"images_seen": 640, "preset": "tiny", "distilled": "960 images"}
    assert "prior" not in " ".join(checkpoint(tmp_path / "out"))


def test_which_images_are_inverted_does_not_depend_on_who_computes_them(teacher, tmp_path, tiny_run):
    with pytest.raises(ValueError, match=r"a multiple of as many: training.batch_size 8 and training.accumulation 4 do not"):
        distilled(distilling(teacher, tmp_path, tiny_run, images=16, batch_size=8, accumulation=4), tmp_path / "two")
    losses = []
    for parts in (1, 2):
        out = tmp_path / f"{parts}"
        distilled(distilling(teacher, tmp_path, tiny_run, images=16, batch_size=8, accumulation=parts), out)
        losses.append([line["loss"] for line in read_metrics(out) if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_student_of_another_teacher_does_not_go_on(teacher, tmp_path, tiny_run):
    config = distilling(teacher, tmp_path, tiny_run, images=16)
    distilled(config, tmp_path / "out")
    more = replace(config, training=replace(config.training, images=24))
    with torch.no_grad():
        teacher.unet.conv_out.bias.add_(0.1)
    teacher.save_pretrained(tmp_path / "teacher")
    with pytest.raises(ValueError, match="is another model than when this run began"):
        distilled(more, tmp_path / "out")


def test_a_distillation_that_was_stopped_goes_on_as_if_it_had_not(teacher, tmp_path, tiny_run):
    config = distilling(teacher, tmp_path, tiny_run, images=64)
    distilled(config, tmp_path / "whole")
    stopped = resolve(config, tmp_path / "parts")
    data = prepare(stopped.data, size=stopped.model.image_size, channels=3)
    for event in train(DistilledSubject(stopped, data), tmp_path / "parts"):
        if getattr(getattr(event, "step", None), "images", 0) >= 24:
            break
    distilled(config, tmp_path / "parts")
    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_network_that_jumps_is_only_learned_from_a_trained_one(tiny_run):
    config = tiny_run()
    for start in (StartConfig(), StartConfig(model="m")):
        with pytest.raises(ValueError, match="diffae distill"):
            replace(config, model=replace(config.model, unet=replace(config.model.unet, jumps=True)), start=start)


def test_the_command_distils_a_run_with_its_images(teacher, tmp_path, make_images, tiny_run, capsys):
    run = tmp_path / "run"
    teacher.save_pretrained(run / "model")
    (run / "config.json").write_text(json.dumps(_as_json(tiny_run(source=make_images()))))
    cli.main(["distill", str(run), "--out", str(tmp_path / "quick"), "--seed", "5"])
    config = read_json(RunConfig, tmp_path / "quick" / "config.json")
    assert config.training.images == 640 // DISTILLED_SHARE
    assert config.training.seed == 5
    assert config.data.source == str(make_images())
    assert diffae.load(tmp_path / "quick").decode(torch.zeros(1, 6), steps=1).shape == (1, 3, 8, 8)
    cli.main(["distill", str(run), "--out", str(tmp_path / "quick"), "--seed", "5", "--images", "48"])
    assert "Going on after 32 images" in capsys.readouterr().err
    cli.main(["distill", str(run), "--out", str(tmp_path / "quick"), "--seed", "5", "--images", "48"])
    assert "48 images were seen already, and no more are asked for" in capsys.readouterr().err


def test_a_model_without_images_is_distilled_on_its_samples(teacher, tmp_path, capsys):
    command = ["distill", str(tmp_path / "teacher"), "--out", str(tmp_path / "quick"), "--samples", "24"]
    cli.main([*command, "--images", "16"])
    assert "24 samples take their place" in capsys.readouterr().err
    assert len(list((tmp_path / "quick-samples").glob("*.png"))) == 24
    assert Path(read_json(RunConfig, tmp_path / "quick" / "config.json").data.source) == tmp_path / "quick-samples"


def test_no_model_is_distilled_on_the_samples_of_another(teacher, tmp_path):
    ours, asked = Distill(source="teacher", out=tmp_path / "quick", samples=2), tmp_path / "quick-samples"
    ours._claim(asked, teacher)
    Image.new("RGB", (8, 8)).save(asked / "00000.png")
    ours._claim(asked, teacher)
    for other in (replace(ours, seed=1), replace(ours, samples=3)):
        with pytest.raises(ValueError, match=r"none that are known to be . samples of .*, drawn with seed"):
            other._claim(asked, teacher)
    teacher.prior = GaussianPrior(6).fit(torch.randn(64, 6))
    with pytest.raises(ValueError, match="quick-samples holds images"):
        ours._claim(asked, teacher)
    teacher.prior = None
    with pytest.raises(ValueError, match="no prior to draw samples by: name images with --data"):
        ours._claim(asked, teacher)


def _as_json(config):
    from diffae.config import to_dict

    return to_dict(config)
