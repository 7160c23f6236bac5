"""The solvers against problems whose exact solution is known, and against another library."""

import itertools
import math

import numpy as np
import pytest
import torch

from diffae.config import ScheduleConfig
from diffae.diffusion.schedule import (
    NoisePath,
    Schedule,
    decoding_path,
    draw_timesteps,
    encoding_path,
    last_usable_timestep,
    spaced_path,
    uniform_timesteps,
)
from diffae.diffusion.solvers import correct, heun_step, predict, solve, to_eps, to_target, trajectory

SCHEDULE = Schedule(ScheduleConfig())
MEAN, STD = 0.3, 0.5


def gaussian_eps(x, t):
    """The exact noise prediction for data N(MEAN, STD^2)."""
    alpha, sigma = SCHEDULE.alpha_sigma(t.long(), like=x)
    return sigma * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)


def exact(x, alpha_bar_from, alpha_bar_to):
    """Where the probability-flow ODE of that data leads x: its place in the marginal distribution stays."""

    def marginal(alpha_bar):
        return alpha_bar.sqrt() * MEAN, (alpha_bar * STD**2 + 1 - alpha_bar).sqrt()

    (m_a, s_a), (m_b, s_b) = marginal(alpha_bar_from), marginal(alpha_bar_to)
    return (x - m_a) / s_a * s_b + m_b


@pytest.mark.parametrize("make_path", [decoding_path, encoding_path])
def test_ddim_is_of_first_order_in_both_directions(make_path):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(-1, 1)
    counts, errors = [25, 50, 100, 200], []
    for steps in counts:
        path = make_path(SCHEDULE, steps)
        solution = exact(x, path.alpha_bar[0], path.alpha_bar[-1])
        errors.append((solve(gaussian_eps, x, path) - solution).abs().max().item())
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert 0.8 <= order <= 1.2


def test_encoding_then_decoding_returns_gaussian_data():
    x = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(-1, 1)
    errors = []
    for steps in (50, 500):
        x_T = solve(gaussian_eps, x, encoding_path(SCHEDULE, steps))
        errors.append((solve(gaussian_eps, x_T, decoding_path(SCHEDULE, steps)) - x).abs().max().item())
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("steps", [10, 50, 100])
def test_decoding_is_what_diffusers_computes(steps):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", timestep_spacing="leading", steps_offset=0,
        set_alpha_to_one=True, clip_sample=True, prediction_type="epsilon",
    )  # fmt: skip
    theirs.set_timesteps(steps)
    x = x_hat = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    for t in theirs.timesteps:
        x = theirs.step(gaussian_eps(x, t.expand(3)), t, x, use_clipped_model_output=True).prev_sample
    x_hat = solve(gaussian_eps, x_hat, decoding_path(SCHEDULE, steps), clamp=True)
    assert (x - x_hat).abs().max() < 5e-6


def test_trajectory_ends_where_solve_does_and_clamps_x_0():
    x = torch.full((2, 3), 4.0)
    path = decoding_path(SCHEDULE, 10)
    states = list(trajectory(gaussian_eps, x, path, clamp=True))
    assert len(states) == len(path) == 10
    assert torch.equal(states[-1][0], solve(gaussian_eps, x, path, clamp=True))
    assert all(x_0.abs().max() <= 1 for _, x_0 in states)


def test_eps_and_v_are_two_ways_to_say_one_thing():
    x_0, eps = torch.randn(2, 5, 1, dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha_sigma(torch.tensor([0, 100, 500, 900, 999]), like=x_0)
    x_t = alpha * x_0 + sigma * eps
    for prediction in ("eps", "v"):
        target = to_target(prediction, x_0, eps, alpha, sigma)
        assert torch.allclose(to_eps(prediction, target, x_t, alpha, sigma), eps, atol=1e-12)


def test_the_schedule_is_ho_et_al():
    betas = np.linspace(1e-4, 0.02, 1000)
    assert np.allclose(SCHEDULE.alpha_bar.numpy(), np.cumprod(1 - betas), rtol=1e-12)
    assert SCHEDULE.alpha_bar.dtype == torch.float64


@pytest.mark.parametrize("steps", [10, 20, 30, 50, 100, 250, 1000])
def test_the_spacing_has_a_stride_for_every_number_it_promises(steps):
    t = uniform_timesteps(1000, steps)
    assert len(t) == steps
    assert t[0] == 0
    assert len({b - a for a, b in itertools.pairwise(t)}) == 1


def test_an_impossible_number_of_steps_names_its_neighbours():
    with pytest.raises(ValueError, match=r"cannot give 37 steps for T=1000; the nearest that it can are 36 and 38"):
        uniform_timesteps(1000, 37)
    with pytest.raises(ValueError, match="between 1 and T=1000, got 0"):
        uniform_timesteps(1000, 0)


def test_timesteps_cover_0_to_999_and_noisy_ones_are_later():
    u = torch.linspace(0, 1, 100_001)[:-1]
    uniform, noisy = draw_timesteps(u, 1000), draw_timesteps(u, 1000, noisy=True)
    assert uniform.min() == 0
    assert uniform.max() == noisy.max() == 999
    assert abs(noisy.double().mean() - 666) < 2


def gaussian_ode(scales, schedule):
    """The exact eps of data N(0, diag(scales^2)), and the exact end of its probability-flow ODE from x at a level."""

    def eps(x, t):
        alpha, sigma = schedule.alpha_sigma(t, like=x)
        return sigma * x / (alpha**2 * scales**2 + sigma**2)

    def end(x, alpha_bar):
        return x * scales / (alpha_bar * scales**2 + 1 - alpha_bar).sqrt()

    return eps, end


def test_dpmpp2m_is_of_second_order_on_evenly_spaced_log_snr():
    schedule = Schedule(ScheduleConfig())
    scales = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    eps, end = gaussian_ode(scales, schedule)
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def error(steps, solver):
        path = spaced_path(schedule, steps)
        level = path.alpha_bar[-1]
        exact = end(x, path.alpha_bar[0]) / scales * (level * scales**2 + 1 - level).sqrt()
        return float((solve(eps, x, path, solver=solver) - exact).abs().max())

    first, second = ([error(n, solver) for n in (40, 80, 160)] for solver in ("ddim", "dpmpp2m"))
    assert 1.8 < first[0] / first[1] < 2.3
    assert 3.3 < second[0] / second[1] < 4.8
    assert 3.3 < second[1] / second[2] < 4.8
    assert second[0] < first[2], "twenty calls do what a hundred did"


def test_a_log_snr_path_is_evenly_spaced_and_meets_its_levels():
    schedule = Schedule(ScheduleConfig(beta_start=0.008, beta_end=0.008))
    path = spaced_path(schedule, 19).to_the_image()
    assert len(path) == 20
    assert path.alpha_bar[-1] == 1
    assert (float(path.t[0]), float(path.t[-2])) == (schedule.T - 1, 0)
    levels = path.alpha_bar[:-1]
    steps = (levels.log() - (-levels).log1p()).diff()
    torch.testing.assert_close(steps, steps.mean().expand(19), rtol=1e-2, atol=0)
    alpha, sigma = schedule.alpha_sigma(path.t[:-1], like=levels)
    torch.testing.assert_close(alpha.square(), levels)
    torch.testing.assert_close(sigma.square(), 1 - levels)
    with pytest.raises(ValueError, match="at least one step, got 0"):
        spaced_path(schedule, 0)


def test_between_timesteps_alpha_is_interpolated_and_at_them_exact():
    schedule = Schedule(ScheduleConfig())
    like = torch.zeros(3, 1, dtype=torch.float64)
    whole = schedule.alpha_sigma(torch.tensor([0, 500, 999]), like=like)
    for a, b in zip(whole, schedule.alpha_sigma(torch.tensor([0.0, 500.0, 999.0]), like=like), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=0)
    middle = schedule.alpha_sigma(torch.tensor([500.5]), like=like)[0]
    assert schedule.alpha_bar[501].sqrt() < middle < schedule.alpha_bar[500].sqrt()


def test_the_priors_solver_keeps_the_variance_of_every_axis():
    """Of data that vary by 10, 1 and 0.3; the first-order solver with five times the calls loses more."""
    schedule = Schedule(ScheduleConfig(beta_start=0.008, beta_end=0.008))
    scales = torch.tensor([3.0, 1.0, 0.3], dtype=torch.float64)
    eps, _ = gaussian_ode(scales, schedule)
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    second = solve(eps, x, spaced_path(schedule, 19).to_the_image(), solver="dpmpp2m").std(0) / scales
    first = solve(eps, x, decoding_path(schedule, 100)).std(0) / scales
    assert (second - 1).abs().max() < 0.06
    assert (second - 1).abs()[2] < 0.5 * (first - 1).abs()[2]


@pytest.mark.parametrize("spacing", ["log_snr", "power", "karras"])
def test_every_spacing_starts_and_ends_where_it_is_told(spacing):
    path = spaced_path(SCHEDULE, 12, spacing=spacing, t_max=953.0)
    assert len(path) == 12
    assert (float(path.t[0]), float(path.t[-1])) == (953, 0)
    assert (path.t.diff() < 0).all()
    assert (path.alpha_bar.diff() > 0).all()
    torch.testing.assert_close(path.alpha_bar[[0, -1]], SCHEDULE.alpha_bar[[953, 0]])
    back = path.backwards()
    assert torch.equal(back.t.flip(0), path.t)
    assert torch.equal(back.backwards().alpha_bar, path.alpha_bar)


def test_spacings_are_even_in_what_they_say():
    tau = {
        s: ((1 - p.alpha_bar) / p.alpha_bar).sqrt() for s in ("karras", "log_snr") for p in [spaced_path(SCHEDULE, 20, spacing=s)]
    }
    for steps in ((tau["karras"] ** (1 / 7)).diff(), tau["log_snr"].log().diff()):
        torch.testing.assert_close(steps, steps.mean().expand(20), rtol=2e-2, atol=0)
    t = spaced_path(SCHEDULE, 20, spacing="power").t ** (2 / 3)
    torch.testing.assert_close(t.diff(), t.diff().mean().expand(20))


def test_paths_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="above 0 and at most 999, got 1000"):
        spaced_path(SCHEDULE, 5, t_max=1000.0)
    with pytest.raises(ValueError, match="cannot be gone backwards"):
        decoding_path(SCHEDULE, 10).backwards()
    assert len(spaced_path(SCHEDULE, 5).to_the_image()) == 6


def test_timesteps_of_levels_are_the_inverse_of_levels_of_timesteps():
    t = torch.tensor([0.0, 0.25, 17.5, 500.0, 998.75, 999.0], dtype=torch.float64)
    alpha, _ = SCHEDULE.alpha_sigma(t, like=t)
    torch.testing.assert_close(SCHEDULE.timesteps_of(alpha.square()), t, atol=1e-6, rtol=0)


def test_an_eps_network_is_asked_only_where_alpha_is_not_too_small():
    last = last_usable_timestep(SCHEDULE)
    assert last == 953
    assert SCHEDULE.alpha_bar[int(last)].sqrt() >= 0.01 > SCHEDULE.alpha_bar[int(last) + 1].sqrt()


@pytest.mark.parametrize(
    ("solver", "low", "high"), [("ddim", 0.8, 1.2), ("dpmpp2m", 1.8, 2.3), ("unipc", 1.8, 3.5), ("heun", 1.8, 2.3)]
)
def test_each_solver_has_its_order(solver, low, high):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(-1, 1)
    counts, errors = [20, 40, 80, 160], []

    def eps(x, t):
        alpha, sigma = SCHEDULE.alpha_sigma(t, like=x)
        return sigma * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)

    for steps in counts:
        path = spaced_path(SCHEDULE, steps)
        errors.append((solve(eps, x, path, solver=solver) - exact(x, path.alpha_bar[0], path.alpha_bar[-1])).abs().max().item())
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert low <= order <= high


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("solver", ["dpmpp2m", "unipc"])
def test_multistep_solvers_are_diffusers(solver):
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

    common = dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", solver_order=2, prediction_type="epsilon")
    more = (
        dict(solver_type="bh2", predict_x0=True)
        if solver == "unipc"
        else dict(algorithm_type="dpmsolver++", solver_type="midpoint")
    )
    theirs = (UniPCMultistepScheduler if solver == "unipc" else DPMSolverMultistepScheduler)(
        **common, **more, lower_order_final=False, final_sigmas_type="sigma_min"
    )
    theirs.set_timesteps(12)
    x = ours = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for t in theirs.timesteps:
        x = theirs.step(gaussian_eps(x, t.expand(3)), t, x).prev_sample
    sigmas = theirs.sigmas.double()
    t = torch.cat([theirs.timesteps.double(), torch.zeros(1, dtype=torch.float64)])
    path = NoisePath(1 / (1 + sigmas**2), t)
    assert (solve(gaussian_eps, ours, path, solver=solver) - x).abs().max() < 1e-4 * x.abs().max()


# One step, in closed form ------------------------------------------------------------------------------------------


def levels(*half_log_snr):
    """A path over these lambdas, its timesteps numbered down to 0, with alpha and sigma of each level."""
    alpha_bar = torch.tensor(half_log_snr, dtype=torch.float64).mul(2).sigmoid()
    path = NoisePath(alpha_bar, torch.arange(len(half_log_snr) - 1, -1, -1, dtype=torch.float64))
    return path, alpha_bar.sqrt().tolist(), (1 - alpha_bar).sqrt().tolist()


def three(x, t):
    """The noise in whatever is 3, which makes x_0 lie far outside [-1, 1]."""
    return torch.full_like(x, 3.0) * (1 + t[:, None])


def test_ddims_steps_are_song_et_al_and_nothing_is_clamped_unless_it_is_asked_for():
    start = torch.tensor([[5.0, -7.0]], dtype=torch.float64)
    path, alpha, sigma = levels(-1.0, 0.5, 0.9)
    for clamp in (False, True):
        x, states = start, []
        for i in (0, 1):
            x_0 = (x - sigma[i] * 3 * (3 - i)) / alpha[i]
            assert x_0.abs().max() > 1
            x_0 = x_0.clamp(-1, 1) if clamp else x_0
            x = alpha[i + 1] * x_0 + sigma[i + 1] * (x - alpha[i] * x_0) / sigma[i]
            states.append((x, x_0))
        torch.testing.assert_close(list(trajectory(three, start, path, clamp=clamp)), states)
        torch.testing.assert_close(solve(three, start, path, clamp=clamp), x)
        torch.testing.assert_close(predict(three, start, path, 0, clamp=clamp), states[0][1])
    for (state, x_0), (also, too) in zip(trajectory(three, start, path), trajectory(three, start, path, clamp=False), strict=True):
        assert torch.equal(state, also)
        assert torch.equal(x_0, too)
    assert torch.equal(solve(three, start, path), solve(three, start, path, solver="ddim", clamp=False))
    assert torch.equal(predict(three, start, path, 0), predict(three, start, path, 0, clamp=False))


def test_a_path_of_no_steps_leaves_everything_where_it_is():
    x = torch.randn(2, 3)
    path = spaced_path(SCHEDULE, 5).last(0)
    assert torch.equal(solve(three, x, path), x)
    assert list(trajectory(three, x, path)) == []


def test_a_step_of_heun_has_the_mean_of_the_slopes_at_both_ends():
    x = torch.tensor([[5.0, -7.0]], dtype=torch.float64)
    path, alpha, sigma = levels(-1.0, 0.5)
    tau = [s / a for s, a in zip(sigma, alpha, strict=True)]
    slope = (3 * 2 + 3 * 1) / 2  # of x / alpha against tau: what the network says at either end
    expected = alpha[1] * (x / alpha[0] + (tau[1] - tau[0]) * slope)
    x_0 = predict(three, x, path, 0)
    torch.testing.assert_close(heun_step(three, x, path, 0, [x_0]), expected)
    torch.testing.assert_close(solve(three, x, path, solver="heun"), expected)
    assert not torch.allclose(heun_step(three, x, path, 0, [x_0], clamp=True), expected)


def test_a_step_of_heun_that_ends_at_the_image_is_eulers():
    x = torch.tensor([[5.0, -7.0]], dtype=torch.float64)
    path = levels(-1.0, 0.5)[0].to_the_image()
    x_0s = [x_0 for _, x_0 in trajectory(three, x, path, solver="heun")]
    assert torch.equal(solve(three, x, path, solver="heun"), x_0s[-1])


def test_a_step_of_dpmpp2m_goes_towards_x_0_half_way_ahead():
    """x_0 linear in lambda: what it will be in the middle of the step is what is stepped towards, whatever the steps' ratio."""
    lambdas = (-1.2, -0.5, 0.8)
    path, alpha, sigma = levels(*lambdas)

    def eps(x, t):
        i = 2 - int(t[0])
        return (x - alpha[i] * (2 + 3 * lambdas[i])) / sigma[i]

    x = torch.tensor([[1.0]], dtype=torch.float64)
    (first, _), (second, _) = trajectory(eps, x, path, solver="dpmpp2m")
    towards = 2 + 3 * lambdas[0], 2 + 3 * (lambdas[1] + lambdas[2]) / 2
    torch.testing.assert_close(first, alpha[1] * towards[0] + sigma[1] * (x - alpha[0] * towards[0]) / sigma[0])
    torch.testing.assert_close(second, alpha[2] * towards[1] + sigma[2] * (first - alpha[1] * towards[1]) / sigma[1])


def test_unipcs_corrector_is_exact_where_x_0_is_quadratic_in_lambda():
    """x / sigma grows by the integral of exp(lambda) x_0, which for such x_0 is in closed form."""
    lambdas = (-1.2, -0.5, 0.8)
    path, alpha, sigma = levels(*lambdas)

    def x_0(at):
        return 2 - 3 * at + 0.7 * at**2

    def integral(at):
        return math.exp(at) * (x_0(at) - (-3 + 1.4 * at) + 1.4)

    before = torch.tensor([[0.3]], dtype=torch.float64)
    x_0s = [torch.full_like(before, x_0(at)) for at in lambdas]
    exact = sigma[2] / sigma[1] * before + sigma[2] * (integral(lambdas[2]) - integral(lambdas[1]))
    torch.testing.assert_close(correct(before, path, 2, x_0s), exact, rtol=1e-12, atol=0)
    mean, h = (x_0s[0] + x_0s[1]) / 2, lambdas[1] - lambdas[0]
    first = sigma[1] / sigma[0] * before + alpha[1] * (1 - math.exp(-h)) * mean
    torch.testing.assert_close(correct(before, path, 1, x_0s[:2]), first, rtol=1e-12, atol=0)


def test_v_is_the_slope_of_the_way_from_x_0_to_noise():
    """`alpha = cos phi, sigma = sin phi`: v is the derivative of x_t by phi."""
    phi, x_0, eps = (torch.tensor(v, dtype=torch.float64) for v in (0.3, 2.0, -5.0))
    v = to_target("v", x_0, eps, phi.cos(), phi.sin())
    assert float(v) == pytest.approx(math.cos(0.3) * -5 - math.sin(0.3) * 2)
    assert float(to_target("eps", x_0, eps, phi.cos(), phi.sin())) == -5
    assert float(to_eps("eps", v, x_0, phi.cos(), phi.sin())) == float(v)
