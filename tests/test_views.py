"""Options of training that others found to need fewer images: each is what its paper says, and a run stays a function of images."""

from dataclasses import replace

import pytest
import torch

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import AutoencoderConfig, ScheduleConfig
from diffae.diffusion.schedule import Schedule, min_snr_weights, spaced_path, uncalibrated
from diffae.diffusion.solvers import solve, to_eps, to_target
from diffae.runtime.seeding import Draws
from diffae.training.views import dropped, shifted


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
