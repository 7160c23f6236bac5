"""Options of training that others found to need fewer images: each is what its paper says, and a run stays a function of images."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import AutoencoderConfig, ScheduleConfig
from diffae.data import prepare
from diffae.diffusion.schedule import Schedule, min_snr_weights, spaced_path, uncalibrated
from diffae.diffusion.solvers import solve, to_eps, to_target
from diffae.runtime.seeding import Draws
from diffae.training.run import train
from diffae.training.subjects import ImageSubject
from diffae.training.views import (
    TEMPERATURE,
    VIEWS,
    another_direction,
    another_view,
    contrastive_loss,
    dropped,
    shifted,
    view_contrast,
)


def test_min_snr_counts_no_error_of_x_0_more_than_gamma_times():
    """An error of eps is one of x_0 divided by alpha / sigma, an error of v one divided by its own hypotenuse."""
    alpha_bar = Schedule(ScheduleConfig()).alpha_bar
    snr = alpha_bar / (1 - alpha_bar)
    for prediction, per_x_0 in (("eps", snr), ("v", snr + 1)):
        weighted = min_snr_weights(alpha_bar, 5.0, prediction) * per_x_0
        torch.testing.assert_close(weighted, snr.clamp(max=5))


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_weighted_loss_is_the_mean_of_weighted_errors(tiny, prediction):
    torch.manual_seed(0)
    ae = DiffusionAutoencoder(replace(tiny, prediction=prediction)).eval()
    for p in ae.parameters():
        p.data += 0.05 * torch.randn(p.shape)
    x, draws = torch.rand(6, 3, 8, 8) * 2 - 1, Draws.of(6, 0)
    with torch.no_grad():
        each = torch.stack([ae.loss(x[i : i + 1], draws[i : i + 1]) for i in range(6)])
        t = (ae.schedule.T * draws.uniform("t")).long()
        weights = min_snr_weights(ae.schedule.alpha_bar[t], 5.0, prediction).float()
        torch.testing.assert_close(ae.loss(x, draws, min_snr=5.0), (each * weights).mean(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(ae.loss(x, draws), each.mean(), rtol=1e-4, atol=1e-6)


def test_a_terminal_snr_of_zero_leaves_the_first_level_and_noise_alone_at_the_last():
    plain, zero = (Schedule(ScheduleConfig(zero_terminal_snr=on)) for on in (False, True))
    assert zero.alpha_bar[0] == pytest.approx(float(plain.alpha_bar[0]))
    assert float(zero.alpha_bar[-1]) < 1e-9 < 1e-5 < float(plain.alpha_bar[-1])
    assert (zero.alpha_bar.diff() < 0).all()
    assert (zero.alpha_bar < plain.alpha_bar + 1e-12).all()
    with pytest.raises(ValueError, match="zero_terminal_snr needs prediction 'v'"):
        AutoencoderConfig(schedule=ScheduleConfig(zero_terminal_snr=True), prediction="eps")


def test_paths_of_a_zero_terminal_snr_begin_where_something_is_left_and_invert():
    schedule = Schedule(ScheduleConfig(zero_terminal_snr=True))
    calibration = uncalibrated(schedule, "v")
    assert 900 < calibration.t_max < 999
    path = spaced_path(schedule, 40, t_max=calibration.t_max)
    assert torch.isfinite(path.alpha_bar).all()
    x_0 = torch.randn(4, 3, dtype=torch.float64)

    def eps_model(x_t, t):
        """Of data that are normal with standard deviation .5: eps is linear in x_t."""
        alpha, sigma = schedule.alpha_sigma(t, like=x_t)
        v = to_target(
            "v", 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * x_t, sigma / (0.25 * alpha**2 + sigma**2) * x_t, alpha, sigma
        )
        return to_eps("v", v, x_t, alpha, sigma)

    x_T = solve(eps_model, x_0, path.backwards(), solver="dpmpp2m")
    torch.testing.assert_close(solve(eps_model, x_T, path, solver="dpmpp2m"), x_0, rtol=1e-3, atol=1e-3)


def test_a_shifted_view_is_the_image_moved_by_whole_pixels():
    x = torch.arange(6 * 64, dtype=torch.float32).reshape(6, 1, 8, 8)
    moved = shifted(x, Draws.of(6, 0), 0.25)
    offsets = set()
    for image, view in zip(x, moved, strict=True):
        padded = torch.nn.functional.pad(image[None], (2, 2, 2, 2), mode="replicate")[0]
        found = [(i, j) for i in range(5) for j in range(5) if torch.equal(padded[:, i : i + 8, j : j + 8], view)]
        assert len(found) == 1
        offsets |= set(found)
    assert len(offsets) > 2
    torch.testing.assert_close(shifted(x[3:4], Draws.of(1, 0, start=3), 0.25), moved[3:4])
    assert torch.equal(shifted(x, Draws.of(6, 0), 0.05), x), "less than a pixel"


def test_dropped_codes_are_a_share_chosen_by_their_draws():
    z = torch.ones(4000, 3)
    kept = dropped(z, Draws.of(4000, 0), 0.1)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert float((kept[:, 0] == 0).float().mean()) == pytest.approx(0.1, abs=0.02)
    assert torch.equal(dropped(z[7:9], Draws.of(2, 0, start=7), 0.1), kept[7:9])
    assert torch.equal(dropped(z, Draws.of(4000, 0), 0.0), z)


def test_a_contrastive_loss_is_that_of_finding_the_own_view_among_all():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = 0.0
    for mine, theirs in ((a, b), (b, a)):
        mine, theirs = (z - z.mean(0) for z in (mine, theirs))
        for i in range(6):
            alike = torch.stack([mine[i] @ other / mine[i].norm() / other.norm() for other in theirs]) / TEMPERATURE
            expected += float(alike.exp().sum().log() - alike[i]) / 12
    assert float(contrastive_loss(a, b)) == pytest.approx(expected, rel=2e-3)
    apart = torch.eye(4)
    assert contrastive_loss(apart, apart) < 0.1 < contrastive_loss(apart, apart.roll(1, 0))
    assert contrastive_loss(torch.ones(5, 3), torch.ones(5, 3)) == pytest.approx(torch.tensor(5.0).log())
    # Of codes that are equal but for rounding nothing is learned, least of all quickly.
    for n in (1, 2, 16):
        same = torch.randn(1, 512, generator=generator).expand(n, 512).clone().requires_grad_()
        contrastive_loss(same, same * (1 + 1e-7)).backward()
        assert float(same.grad.norm()) < 10


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 18), (2, 6, 16, 16)])
def test_from_another_direction_all_but_the_direction_is_the_same(shape):
    draws = Draws.of(256, 5)
    y, x = (torch.arange(side) - (side - 1) / 2 for side in shape[-2:])
    # A disc, brighter on its right, in each channel another brightness.
    inside = (y[:, None] ** 2 + x**2 < 25).float() * (1 + x / 10)
    image = (inside * torch.arange(1, shape[0] + 1).view(-1, *[1] * (len(shape) - 1))).expand(shape)
    seen = another_direction(image.expand(256, *shape), draws)
    torch.testing.assert_close(another_direction(image.expand(2, *shape), draws[3:5]), seen[3:5])
    # As bright and as large, in each channel, within what sampling between pixels loses.
    sides = tuple(range(2, seen.dim()))
    for most, (made, given) in ((0.03, (seen, image)), (0.1, ((seen > 0.5).float(), (image > 0.5).float()))):
        shares = made.mean(sides) / given.mean(tuple(side - 1 for side in sides))
        assert float((shares - 1).abs().mean()) < most
    # The bright side is on any side, as often.
    weight = seen.flatten(1, -3).mean(1)
    where = torch.stack([(weight * x).mean((1, 2)), (weight * y[:, None]).mean((1, 2))], 1)
    assert float((where / where.norm(dim=1, keepdim=True)).mean(0).norm()) < 0.2
    assert float(where.norm(dim=1).mean()) > 0.05
    # Half of them are mirrored: seen from its arm, a hook's other end is on its left, or on its right.
    arm, hook = torch.zeros(2, *shape[-2:]).unbind(0)
    arm[7:9, 8:13], hook[4:7, 11:13] = 1.0, 1.0
    arms, hooks = (another_direction(part.expand(256, *shape), draws).flatten(1, -3).mean(1) for part in (arm, hook))
    (ax, ay), (hx, hy) = (((seen * x).sum((1, 2)), (seen * y[:, None]).sum((1, 2))) for seen in (arms, hooks))
    assert 0.4 < float((ax * hy > ay * hx).float().mean()) < 0.6


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12), (2, 6, 8, 8)])
def test_another_view_is_each_images_own_and_near_it(shape):
    draws = Draws.of(64, 5)
    ramp = torch.linspace(-0.5, 0.5, shape[-1]).expand(64, *shape)
    seen = another_view(ramp, draws)
    assert seen.shape == ramp.shape
    torch.testing.assert_close(another_view(ramp[3:5], draws[3:5]), seen[3:5])
    assert len({tuple(image.flatten()[:4].tolist()) for image in seen}) == 64
    # On the whole it is the same picture: bright where that is, and no brighter.
    assert float((seen.mean(0) - ramp[0]).abs().max()) < 0.2
    assert torch.corrcoef(torch.stack([seen.mean(0).flatten(), ramp[0].flatten()]))[0, 1] > 0.95


def test_codes_are_compared_within_a_whole_batch_alone(tiny_run, tmp_path):
    with pytest.raises(ValueError, match=r"training\.contrast takes for the same, and that is 0"):
        tiny_run(images=8, batch_size=8, views="direction")
    with pytest.raises(ValueError, match="accumulation 2 would divide"):
        tiny_run(images=8, batch_size=8, contrast=0.1, accumulation=2)
    config = tiny_run(images=8, batch_size=8, contrast=0.1)
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    two = SimpleNamespace(is_main_process=False, num_processes=2, device=torch.device("cpu"))
    with pytest.raises(ValueError, match="2 processes would divide"):
        next(iter(train(ImageSubject(config, data), tmp_path, accelerator=two)))
    with pytest.raises(ValueError, match="compares 8 images, and there are 5"):
        ImageSubject(config, replace(data, train=data.train[:5]))
    for changes, told in (({"z_dim": None}, "0 numbers"), ({"z_dim": 1}, "1 numbers"), ({"latents": "some"}, "latents")):
        with pytest.raises(ValueError, match=told):
            replace(config, model=replace(config.model, **changes))
    with pytest.raises(ValueError, match="keeps that as it is"):
        replace(config, start=replace(config.start, model="some", freeze="encoder"))


def test_what_does_not_count_is_in_no_other_view():
    x, draws, encoder = torch.randn(8, 3, 8, 8), Draws.of(8, 3), nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    known = (torch.rand(8, 1, 8, 8) < 0.7).float()
    other, z_sem = torch.where(known > 0, x, torch.randn_like(x)), torch.randn(8, 4)
    for views in VIEWS:
        with torch.no_grad():
            apart = [float(view_contrast(views, z_sem, encoder, images, known, draws)) for images in (x, other)]
            all_seen = float(view_contrast(views, z_sem, encoder, other, None, draws))
        assert apart[0] == apart[1] != all_seen


@pytest.mark.parametrize("views", VIEWS)
def test_contrast_is_added_to_the_loss_and_moves_the_encoder_alone(tiny_run, views):
    found = []
    for weight in (0.0, 0.5):
        config = tiny_run(images=8, batch_size=8, contrast=weight, views=views if weight else "moment")
        subject = ImageSubject(config, prepare(config.data, size=config.model.image_size, channels=config.model.channels))
        torch.manual_seed(0)
        model, draws = subject.build(), Draws.of(8, 3)
        loss = subject.loss(model, subject.batch(range(8)), draws)
        loss.backward()
        found.append((float(loss.detach()), {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}))
    x, *_ = subject.view(subject.batch(range(8)), draws)
    with torch.no_grad():
        apart = contrastive_loss(model.encoder(x), model.encoder(VIEWS[views](x, draws)))
    assert found[1][0] - found[0][0] == pytest.approx(0.5 * float(apart), rel=1e-4)
    changed = {n for n, g in found[0][1].items() if g is not None and not torch.allclose(g, found[1][1][n], atol=1e-6)}
    assert changed
    assert all(name.startswith("encoder.") for name in changed)
