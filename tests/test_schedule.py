"""The schedule and its paths against closed forms, and where their limits lie."""

import math

import pytest
import torch

from diffae.config import ScheduleConfig
from diffae.diffusion.schedule import (
    Calibration,
    NoisePath,
    Schedule,
    draw_timesteps,
    last_usable_timestep,
    spaced_path,
    uncalibrated,
    uniform_timesteps,
)

SCHEDULE = Schedule(ScheduleConfig())


def test_noise_is_added_so_that_data_of_variance_one_keep_it():
    alpha_bar = SCHEDULE.alpha_bar[[0, 400, 999]]
    x_0, eps = torch.ones(3, 2, 2, dtype=torch.float64), torch.full((3, 2, 2), 2.0, dtype=torch.float64)
    expected = alpha_bar.sqrt() + 2 * (1 - alpha_bar).sqrt()
    noisy = SCHEDULE.add_noise(x_0, eps, torch.tensor([0, 400, 999]))
    torch.testing.assert_close(noisy, expected.reshape(3, 1, 1).expand(3, 2, 2), rtol=1e-14, atol=0)


def test_half_way_between_two_timesteps_alpha_bar_is_their_geometric_mean():
    middle = SCHEDULE.levels(torch.tensor([0.5, 500.5, 998.5], dtype=torch.float64))
    a, b = SCHEDULE.alpha_bar[[0, 500, 998]], SCHEDULE.alpha_bar[[1, 501, 999]]
    torch.testing.assert_close(middle, (a * b).sqrt(), rtol=1e-12, atol=0)


def test_levels_above_the_first_and_below_the_last_have_the_nearest_timestep():
    assert SCHEDULE.timesteps_of(torch.tensor([1.0, 1e-9], dtype=torch.float64)).tolist() == [0, 999]


def test_a_terminal_snr_of_zero_is_algorithm_1_of_lin_et_al():
    plain, zero = (Schedule(ScheduleConfig(zero_terminal_snr=on)).alpha_bar.sqrt() for on in (False, True))
    torch.testing.assert_close(zero[:-1], ((plain - plain[-1]) * plain[0] / (plain[0] - plain[-1]))[:-1], rtol=1e-12, atol=0)
    assert float(zero[-1]) == 1e-6


def test_drawn_timesteps_are_t_times_u_or_its_root():
    u = torch.tensor([0.0, 0.0625, 0.25, 0.5, 1.0])
    assert draw_timesteps(u, 1000).tolist() == [0, 62, 250, 500, 999]
    assert draw_timesteps(u, 1000, noisy=True).tolist() == [0, 250, 500, 707, 999]


def test_the_authors_spacing_has_the_first_stride_that_gives_the_number():
    assert uniform_timesteps(10, 1) == [0]
    assert uniform_timesteps(10, 2) == [0, 5], "strides of 5 to 9 give two"
    assert uniform_timesteps(10, 4) == [0, 3, 6, 9]
    assert uniform_timesteps(10, 10) == list(range(10))
    with pytest.raises(ValueError, match="must be between 1 and T=10, got 11"):
        uniform_timesteps(10, 11)


def test_the_last_steps_of_a_path_end_where_it_does():
    path = spaced_path(SCHEDULE, 7)
    for steps in (0, 1, 3, 7):
        last = path.last(steps)
        assert len(last) == steps
        assert torch.equal(last.t, path.t[7 - steps :])
        assert torch.equal(last.alpha_bar, path.alpha_bar[7 - steps :])


def test_one_step_is_a_path_and_the_last_timestep_is_a_beginning():
    path = spaced_path(SCHEDULE, 1, t_max=999.0)
    assert path.t.tolist() == [999, 0]
    assert torch.equal(path.t, spaced_path(SCHEDULE, 1).t), "as where none is given"
    for t_max in (0.0, -1.0, 999.5, math.nan):
        with pytest.raises(ValueError, match=f"above 0 and at most 999, got {t_max}"):
            spaced_path(SCHEDULE, 5, t_max=t_max)


def test_a_path_to_the_image_asks_no_network_there():
    path = NoisePath(torch.tensor([0.2, 0.9], dtype=torch.float64), torch.tensor([700.0, 0.0], dtype=torch.float64)).to_the_image()
    assert path.alpha_bar.tolist() == [0.2, 0.9, 1.0]
    assert path.t[:2].tolist() == [700, 0]
    assert path.t[2].isnan()


def test_the_last_usable_timestep_has_just_the_alpha_that_is_asked_for():
    """Alphas are powers of two, whose squares are exact."""
    schedule = Schedule(ScheduleConfig(T=4))
    schedule.alpha_bar = torch.tensor([0.5, 0.25, 0.125, 0.0625], dtype=torch.float64) ** 2
    assert last_usable_timestep(schedule, least_alpha=0.125) == 2, "not below is usable"
    assert last_usable_timestep(schedule, least_alpha=0.126) == 1
    assert last_usable_timestep(schedule) == 3


def test_networks_begin_where_their_kind_can_be_asked():
    """All timesteps for v; for eps, and for v where nothing is left at the end, those of alpha >= .01, and >= .1 for the mean."""
    zero = Schedule(ScheduleConfig(zero_terminal_snr=True))
    assert uncalibrated(SCHEDULE, "v") == Calibration(t_max=999.0, mean_t=999)
    for schedule, prediction in ((SCHEDULE, "eps"), (zero, "v")):
        alpha, found = schedule.alpha_bar.sqrt(), uncalibrated(schedule, prediction)
        assert alpha[int(found.t_max)] >= 0.01 > alpha[int(found.t_max) + 1]
        assert alpha[found.mean_t] >= 0.1 > alpha[found.mean_t + 1]


def test_what_is_not_calibrated_takes_twenty_steps_each_way_and_ten_for_a_sample():
    found = Calibration(t_max=999.0, mean_t=999)
    assert (found.spacing, found.steps, found.sample_steps) == ("log_snr", 20, 10)
