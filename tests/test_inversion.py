"""The ways to x_T and back, on a denoiser that is exact: a mixture of Gaussians over natural patches, conditioned on thumbnails.

What the authors' scheme reaches on it stands beside, in the same run.
"""

from pathlib import Path as File

import numpy as np
import pytest
import torch

from diffae.config import ScheduleConfig
from diffae.inversion import RECURSIONS, Code, anchor, between, joined, refine, release, reversible_decode, reversible_encode
from diffae.schedule import Schedule, decoding_path, encoding_path, spaced_path
from diffae.solvers import solve

SCHEDULE = Schedule(ScheduleConfig())
MIXTURE = File(__file__).parents[2] / "shared" / "reference" / "gmm" / "gmm.npz"
NOISE = 0.05
"""Of the thumbnails."""


def thumbnails():
    """The linear map from 8 x 8 x 3 patches to their 4 x 4 x 3 means."""
    picture = torch.eye(192, dtype=torch.float64).reshape(192, 3, 8, 8)
    return torch.nn.functional.avg_pool2d(picture, 2).flatten(1).T


class Oracle:
    """`(x_t, t) -> eps`, in closed form, of the mixture given z: again a mixture, with other weights and means."""

    def __init__(self, weights, means, covariances, z):
        a = thumbnails()
        log_weights, centres, spreads = [], [], []
        for weight, mean, covariance in zip(weights, means, covariances, strict=True):
            seen = a @ covariance @ a.T + NOISE**2 * torch.eye(48, dtype=torch.float64)
            gain = covariance @ a.T @ torch.linalg.inv(seen)
            off = z - a @ mean
            centres.append(mean + off @ gain.T)
            spreads.append(covariance - gain @ a @ covariance)
            log_weights.append(weight.log() - 0.5 * ((off @ torch.linalg.inv(seen)) * off).sum(1) - 0.5 * torch.logdet(seen))
        self.log_weights, self.centres = torch.stack(log_weights, 1).log_softmax(1), torch.stack(centres, 1)
        self.values, self.axes = torch.linalg.eigh(torch.stack(spreads))

    def __call__(self, x, t):
        flat = x.flatten(1).double()
        alpha, sigma = (v[:1] for v in SCHEDULE.alpha_sigma(t.double(), like=flat))
        variance = alpha**2 * self.values.clamp(min=0) + sigma**2
        along = torch.einsum("nkd,kde->nke", flat[:, None] - alpha * self.centres, self.axes)
        log_share = self.log_weights - 0.5 * (along.square() / variance).sum(2) - 0.5 * variance.log().sum(1)
        score = torch.einsum("nke,kde->nkd", along / variance, self.axes)
        return (sigma * (log_share.softmax(1)[..., None] * score).sum(1)).reshape(x.shape).to(x)


@pytest.fixture(scope="module")
def patches():
    """Test patches, the oracle of their own thumbnails, and that of the next patch's, which is an edit; and where that leads."""
    if not MIXTURE.is_file():
        pytest.skip(f"the mixture {MIXTURE} is not there")
    stored = np.load(MIXTURE)
    mixture = [torch.from_numpy(stored[name]).double() for name in ("weights", "means", "covariances")]
    x = torch.from_numpy(stored["test_patches"]).double()
    z = x @ thumbnails().T + NOISE * torch.randn(len(x), 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own, other = Oracle(*mixture, z), Oracle(*mixture, z.roll(1, 0))
    x, path = x.float(), spaced_path(SCHEDULE, 300)
    return x, own, other, solve(other, solve(own, x, path.backwards(), solver="dpmpp2m"), path, solver="dpmpp2m")


def mse(a, b):
    return float(((a - b).double() / 2).square().mean())


def authors(patches, steps):
    """Errors of the authors' reconstruction and edit."""
    x, own, other, edited = patches
    x_T = solve(own, x, encoding_path(SCHEDULE, steps), clamp=True)
    path = decoding_path(SCHEDULE, steps)
    return mse(solve(own, x_T, path, clamp=True), x), mse(solve(other, x_T, path, clamp=True), edited)


def fast(patches, steps):
    x, own, other, edited = patches
    path = spaced_path(SCHEDULE, steps)
    x_T = solve(own, x, path.backwards(), solver="dpmpp2m")
    return mse(solve(own, x_T, path, solver="dpmpp2m"), x), mse(solve(other, x_T, path, solver="dpmpp2m"), edited)


def test_twenty_fast_steps_beat_250_of_the_authors(patches):
    ours, theirs = fast(patches, 20), authors(patches, 250)
    assert ours[0] < theirs[0]
    assert ours[1] < theirs[1] / 10
    assert fast(patches, 10)[0] < authors(patches, 100)[0]


def test_an_anchored_code_is_the_image_and_edits_better_than_the_authors(patches):
    x, own, other, edited = patches
    path = spaced_path(SCHEDULE, 20)
    x_T, anchors = anchor(own, x, path)
    assert anchors.shape == (len(x), 20, 2, 192)
    assert torch.equal(release(own, x_T, path, anchors), x)
    assert mse(release(other, x_T, path, anchors), edited) <= authors(patches, 250)[1]


@pytest.mark.parametrize("recursion", RECURSIONS.values())
def test_a_reversible_code_is_the_image(patches, recursion):
    x, own, _, _ = patches
    for steps in (10, 20):
        path = spaced_path(SCHEDULE, steps)
        assert mse(reversible_decode(own, *reversible_encode(own, x, path, recursion), path, recursion), x) <= 1e-9


def test_edits_of_o_belm_are_nearer_to_the_limit_than_those_of_bdia(patches):
    x, own, other, edited = patches
    path = spaced_path(SCHEDULE, 20)
    belm, bdia = (
        ((reversible_decode(other, *reversible_encode(own, x, path, r), path, r) - edited) / 2).square().flatten(1).mean(1)
        for r in RECURSIONS.values()
    )
    assert belm.mean() < bdia.mean() / 2
    assert belm.median() < bdia.median() / 1000, "it is of second order"


def test_bdia_keeps_the_x_t_of_the_ode_and_o_belm_does_not(patches):
    """So of the two only BDIA's x_T means to another solver what it means to its own."""
    x, own, _, _ = patches
    exact = solve(own, x, spaced_path(SCHEDULE, 300).backwards(), solver="dpmpp2m")
    path = spaced_path(SCHEDULE, 20)
    belm, bdia = (reversible_encode(own, x, path, r)[0] for r in RECURSIONS.values())
    assert (bdia - exact).square().mean().sqrt() < 0.1 * exact.std()
    assert bdia.std() == pytest.approx(float(exact.std()), rel=0.1)
    assert (belm - exact).square().mean().sqrt() > exact.std()


def test_an_error_in_the_code_shrinks_on_o_belms_way_back_and_grows_on_bdias(patches):
    """As where a code was stored in half precision."""
    x, own, _, _ = patches
    x, path = x.double(), spaced_path(SCHEDULE, 20)
    gains = []
    for recursion in RECURSIONS.values():
        states = reversible_encode(own, x, path, recursion)
        assert mse(reversible_decode(own, *states, path, recursion), x) <= 1e-20, "in float64 nothing is lost"
        rounded = [s.half().double() for s in states]
        lost = torch.stack(rounded).sub(torch.stack(states)).square().mean().sqrt()
        gains.append(float((reversible_decode(own, *rounded, path, recursion) - x).square().mean().sqrt() / lost))
    assert gains[0] < 0.5
    assert gains[1] > 5


def test_reversible_recursions_hold_on_the_solution_where_eps_is_constant():
    """Along x = alpha u + sigma e with constant e, whatever the levels, both recursions are exact."""
    path = spaced_path(SCHEDULE, 7).backwards()
    alpha, sigma = path.alpha_bar.sqrt(), (1 - path.alpha_bar).sqrt()
    u, e = 0.3, -1.2
    for recursion in RECURSIONS.values():
        for i in range(1, len(path)):
            a, b, c = recursion(path, i)
            x = alpha * u + sigma * e
            assert float(a * x[i + 1] + b * x[i] + c * e) == pytest.approx(float(x[i - 1]), abs=1e-9)


def test_refining_gains_where_the_ode_is_tame_and_never_much_loses(patches):
    """About a tenth of the patches sit where the mixture switches modes: there no x_T is found. Half of all gain a thousandfold."""
    x, own, _, _ = patches
    path = spaced_path(SCHEDULE, 20)

    def errors(x_T):
        return ((solve(own, x_T, path, solver="dpmpp2m") - x) / 2).double().square().mean(1)

    before, after = errors(solve(own, x, path.backwards(), solver="dpmpp2m")), errors(refine(own, x, path))
    assert after.median() < 1e-3 * before.median()
    assert after.mean() < 1.5 * before.mean()


def test_nine_calls_are_3_db_nearer_to_the_limit_than_the_authors_100(patches):
    """Each against its own limit. The median patch gains 9 dB; the mean depends on whether a patch lies on a mode switch: of five
    draws of noise it gained 4.0, -3.2, 6.3, 5.3 and 2.3 dB."""
    _, own, _, _ = patches
    noise = torch.randn(96, 192, generator=torch.Generator().manual_seed(0))

    def ours(steps):
        return solve(own, noise, spaced_path(SCHEDULE, steps).to_the_image(), solver="dpmpp2m", clamp=True)

    def theirs(steps):
        return solve(own, noise, decoding_path(SCHEDULE, steps), clamp=True)

    def each(a, b):
        return (a - b).double().square().mean(1)

    gain = each(theirs(100), theirs(1000)) / each(ours(8), ours(300))
    assert 10 * gain.median().log10() >= 6
    assert 10 * np.log10(mse(theirs(100), theirs(1000)) / mse(ours(8), ours(300))) >= 3


def test_dpmpp2m_is_of_second_order_on_the_mixture(patches):
    """In float64, on the patches of no mode switch, whose path is smooth."""
    x, own, _, _ = patches
    x = x.double()
    exact = solve(own, x, spaced_path(SCHEDULE, 1000).backwards(), solver="heun")
    counts = [40, 80, 160]
    errors = torch.stack(
        [(solve(own, x, spaced_path(SCHEDULE, n).backwards(), solver="dpmpp2m") - exact).square().mean(1).sqrt() for n in counts]
    )
    order = -np.polyfit(np.log(counts), errors.median(1).values.log().numpy(), 1)[0]
    assert order >= 1.8


def identity_eps(x, t):
    """Of data N(0, 1): x_t is as wide as x_0, and eps its share of it."""
    return SCHEDULE.alpha_sigma(t, like=x)[1] * x


def test_codes_are_taken_apart_joined_and_mixed():
    x = torch.randn(3, 1, 2, 2)
    path = spaced_path(SCHEDULE, 4)
    x_T, kept = anchor(identity_eps, x, path)
    code = Code(torch.arange(6.0).reshape(3, 2), x_T, "anchored", 4, kept)
    again = joined([code[:1], code[1:]])
    for a, b in ((code.z_sem, again.z_sem), (code.x_T, again.x_T), (code.kept, again.kept)):
        assert torch.equal(a, b)
    ends = [between(code[:1], code[1:2], w) for w in (0.0, 1.0)]
    for end, image in zip(ends, x, strict=False):
        assert torch.equal(release(identity_eps, end.x_T, path, end.kept), image[None])
    assert between(code[:1], code[1:2], 0.5).z_sem.tolist() == [[1.0, 2.0]]


def test_refining_one_round_costs_three_ways():
    calls = []

    def counted(x, t):
        calls.append(float(t[0]))
        return identity_eps(x, t)

    refine(counted, torch.randn(2, 3), spaced_path(SCHEDULE, 5), rounds=1)
    assert len(calls) == 15
    calls.clear()
    anchor(counted, torch.randn(2, 3), spaced_path(SCHEDULE, 5))
    assert len(calls) == 6
    calls.clear()
    reversible_encode(counted, torch.randn(2, 3), spaced_path(SCHEDULE, 5))
    assert len(calls) == 5
