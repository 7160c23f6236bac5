"""The ways to x_T and back, on a denoiser that is exact: a mixture of Gaussians over natural patches, conditioned on thumbnails.

What the authors' scheme reaches on it stands beside, in the same run.
"""

import inspect
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diffae.autoencoder import build
from diffae.config import ScheduleConfig
from diffae.diffusion.interpolation import geodesic
from diffae.diffusion.inversion import (
    RECURSIONS,
    Code,
    anchored_decode,
    anchored_encode,
    bdia,
    check_inversion,
    concatenate,
    decode_along_path,
    encode_along_path,
    interpolate_codes,
    refine,
    reversible_decode,
    reversible_encode,
)
from diffae.diffusion.schedule import Schedule, decoding_path, encoding_path, spaced_path
from diffae.diffusion.solvers import solve

SCHEDULE = Schedule(ScheduleConfig())
MIXTURE = Path(__file__).parents[2] / "shared" / "reference" / "gmm" / "gmm.npz"
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
        self.log_weights = torch.stack(log_weights, 1).log_softmax(1)
        self.values, axes = torch.linalg.eigh(torch.stack(spreads))
        self.centres = torch.einsum("nkd,kde->nke", torch.stack(centres, 1), axes)  # Along each component's own axes.
        self.axes = axes.transpose(0, 1).flatten(1)  # (d, k e): two matrix products are a call.

    def __call__(self, x, t):
        flat = x.flatten(1).double()
        alpha, sigma = (v[:1] for v in SCHEDULE.alpha_sigma(t.double(), like=flat))
        variance = alpha**2 * self.values.clamp(min=0) + sigma**2
        along = (flat @ self.axes).view(len(flat), *self.values.shape) - alpha * self.centres
        weighted = along / variance
        log_share = self.log_weights - 0.5 * (along * weighted).sum(2) - 0.5 * variance.log().sum(1)
        share = log_share.softmax(1)[..., None]
        return (sigma * ((share * weighted).flatten(1) @ self.axes.T)).reshape(x.shape).to(x)


@pytest.fixture(scope="module")
def oracles():
    """Test patches, the oracle of their own thumbnails, and that of the next patch's, which is an edit."""
    if not MIXTURE.is_file():
        pytest.skip(f"the mixture {MIXTURE} is not there")
    stored = np.load(MIXTURE)
    mixture = [torch.from_numpy(stored[name]).double() for name in ("weights", "means", "covariances")]
    x = torch.from_numpy(stored["test_patches"]).double()
    z = x @ thumbnails().T + NOISE * torch.randn(len(x), 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.float(), Oracle(*mixture, z), Oracle(*mixture, z.roll(1, 0))


@pytest.fixture(scope="module")
def exact(oracles):
    """The patches' x_T."""
    x, own, _ = oracles
    return solve(own, x, spaced_path(SCHEDULE, 300).backwards(), solver="dpmpp2m")


@pytest.fixture(scope="module")
def patches(oracles, exact):
    """The oracles, and where the edit leads."""
    return *oracles, solve(oracles[2], exact, spaced_path(SCHEDULE, 300), solver="dpmpp2m")


def mse(a, b):
    return float(((a - b).double() / 2).square().mean())


def authors(patches, steps):
    """Errors of the authors' reconstruction, then of their edit."""
    x, own, other, edited = patches
    x_T = solve(own, x, encoding_path(SCHEDULE, steps), clamp=True)
    path = decoding_path(SCHEDULE, steps)
    yield mse(solve(own, x_T, path, clamp=True), x)
    yield mse(solve(other, x_T, path, clamp=True), edited)


def fast(patches, steps):
    x, own, other, edited = patches
    path = spaced_path(SCHEDULE, steps)
    x_T = solve(own, x, path.backwards(), solver="dpmpp2m")
    yield mse(solve(own, x_T, path, solver="dpmpp2m"), x)
    yield mse(solve(other, x_T, path, solver="dpmpp2m"), edited)


@pytest.fixture(scope="module")
def of_the_authors(patches):
    return list(authors(patches, 250))


def test_twenty_fast_steps_beat_250_of_the_authors(patches, of_the_authors):
    ours = list(fast(patches, 20))
    assert ours[0] < of_the_authors[0]
    assert ours[1] < of_the_authors[1] / 10
    assert next(fast(patches, 10)) < next(authors(patches, 100))


def test_an_anchored_code_is_the_image_and_edits_better_than_the_authors(patches, of_the_authors):
    x, own, other, edited = patches
    path = spaced_path(SCHEDULE, 20)
    x_T, anchors = anchored_encode(own, x, path)
    assert anchors.shape == (len(x), 20, 2, 192)
    assert torch.equal(anchored_decode(own, x_T, path, anchors), x)
    assert mse(anchored_decode(other, x_T, path, anchors), edited) <= of_the_authors[1]


@pytest.mark.parametrize("recursion", RECURSIONS.values())
def test_a_reversible_code_is_the_image(oracles, recursion):
    x, own, _ = oracles
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


def test_bdia_keeps_the_x_t_of_the_ode_and_o_belm_does_not(oracles, exact):
    """So of the two only BDIA's x_T means to another solver what it means to its own."""
    x, own, _ = oracles
    path = spaced_path(SCHEDULE, 20)
    belm, bdia = (reversible_encode(own, x, path, r)[0] for r in RECURSIONS.values())
    assert (bdia - exact).square().mean().sqrt() < 0.1 * exact.std()
    assert bdia.std() == pytest.approx(float(exact.std()), rel=0.1)
    assert (belm - exact).square().mean().sqrt() > exact.std()


def test_an_error_in_the_code_shrinks_on_o_belms_way_back_and_grows_on_bdias(oracles):
    """As where a code was stored in half precision."""
    x, own, _ = oracles
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


def test_refining_gains_where_the_ode_is_tame_and_never_much_loses(oracles):
    """About a tenth of the patches sit where the mixture switches modes: there no x_T is found. Half of all gain a thousandfold."""
    x, own, _ = oracles
    path = spaced_path(SCHEDULE, 20)

    def errors(x_T):
        return ((solve(own, x_T, path, solver="dpmpp2m") - x) / 2).double().square().mean(1)

    before, after = errors(solve(own, x, path.backwards(), solver="dpmpp2m")), errors(refine(own, x, path))
    assert after.median() < 1e-3 * before.median()
    assert after.mean() < 1.5 * before.mean()


def test_nine_calls_are_3_db_nearer_to_the_limit_than_the_authors_100(oracles):
    """Each against its own limit. The median patch gains 9 dB; the mean depends on whether a patch lies on a mode switch: of five
    draws of noise it gained 4.0, -3.2, 6.3, 5.3 and 2.3 dB."""
    _, own, _ = oracles
    noise = torch.randn(96, 192, generator=torch.Generator().manual_seed(0))

    def ours(steps):
        return solve(own, noise, spaced_path(SCHEDULE, steps).to_the_image(), solver="dpmpp2m", clamp=True)

    def theirs(steps):
        return solve(own, noise, decoding_path(SCHEDULE, steps), clamp=True)

    def each(a, b):
        return (a - b).double().square().mean(1)

    off, ours_off = each(theirs(100), theirs(1000)), each(ours(8), ours(300))
    assert 10 * (off / ours_off).median().log10() >= 6
    assert 10 * (off.mean() / ours_off.mean()).log10() >= 3


def test_dpmpp2m_is_of_second_order_on_the_mixture(oracles):
    """In float64, on the patches of no mode switch, whose path is smooth. The order is 2.00, and 1.95 beside 600 steps of Heun."""
    x, own, _ = oracles
    x = x.double()
    exact = solve(own, x, spaced_path(SCHEDULE, 300).backwards(), solver="heun")
    counts = [20, 40, 80]
    errors = torch.stack(
        [(solve(own, x, spaced_path(SCHEDULE, n).backwards(), solver="dpmpp2m") - exact).square().mean(1).sqrt() for n in counts]
    )
    order = -np.polyfit(np.log(counts), errors.median(1).values.log().numpy(), 1)[0]
    assert order >= 1.85


def identity_eps(x, t):
    """Of data N(0, 1): x_t is as wide as x_0, and eps its share of it."""
    return SCHEDULE.alpha_sigma(t, like=x)[1] * x


def test_codes_are_taken_apart_joined_and_mixed():
    x = torch.randn(3, 1, 2, 2)
    path = spaced_path(SCHEDULE, 4)
    x_T, kept = anchored_encode(identity_eps, x, path)
    code = Code(torch.arange(6.0).reshape(3, 2), x_T, "anchored", 4, kept)
    again = concatenate([code[:1], code[1:]])
    assert [one.x_T.shape for one in code] == [(1, 1, 2, 2)] * 3
    for last in (-1, np.int64(2), torch.tensor(2)):
        assert torch.equal(code[last].z_sem, code.z_sem[2:])
    with pytest.raises(IndexError):
        code[3]
    for a, b in ((code.z_sem, again.z_sem), (code.x_T, again.x_T), (code.states, again.states)):
        assert torch.equal(a, b)
    ends = [interpolate_codes(code[:1], code[1:2], w) for w in (0.0, 1.0)]
    for end, image in zip(ends, x, strict=False):
        assert torch.equal(anchored_decode(identity_eps, end.x_T, path, end.states), image[None])
    assert interpolate_codes(code[:1], code[1:2], 0.5).z_sem.tolist() == [[1.0, 2.0]]


def test_a_way_past_known_codes_goes_around_where_there_are_none():
    angles = torch.linspace(0, torch.pi, 41)
    ring = torch.stack([angles.cos(), angles.sin()], 1)
    ends = ring[:1], ring[-1:]
    way = geodesic(*ends, ring[torch.randperm(41, generator=torch.Generator().manual_seed(0))], (0.0, 0.25, 0.5, 1.0))
    assert torch.equal(way[:, 0], ends[0])
    assert torch.equal(way[:, -1], ends[1])
    torch.testing.assert_close(way[0, 2], torch.tensor([0.0, 1.0]), rtol=0, atol=1e-3)  # The straight line is at 0 there.
    torch.testing.assert_close(way[0, 1], torch.tensor([0.5, 0.5]).sqrt(), rtol=0, atol=0.01)
    # Where codes are no help the way is straight, and of one place it stays there.
    far = ring[:1] + 100
    torch.testing.assert_close(geodesic(*ends, far, (0.5,))[:, 0], (ends[0] + ends[1]) / 2)
    assert torch.equal(geodesic(ends[0], ends[0], ring, (0.0, 0.5))[0], ends[0].expand(2, 2))
    with pytest.raises(ValueError, match=r"shape \(m, 2\) to go past, got \(3, 5\)"):
        inspect.unwrap(geodesic)(*ends, torch.zeros(3, 5), (0.5,))  # As users have it: tests enforce shapes by themselves.
    with pytest.raises(ValueError, match="within 0..1, got"):
        geodesic(*ends, ring, (1.5,))
    with pytest.raises(ValueError, match="not finite"):
        geodesic(*ends, torch.full((1, 2), torch.nan), (0.5,))


def test_images_are_reached_past_other_codes_as_by_a_straight_way(tiny):
    ae, draw = build(tiny).eval(), torch.Generator().manual_seed(0)
    for weights in ae.parameters():  # Of a new decoder some are zero, so that it does not look at z_sem.
        torch.nn.init.trunc_normal_(weights, std=0.1, generator=draw)
    ae.double()  # Rounding grows in such networks, differently in batches of other sizes and on other machines.
    x = torch.rand(2, *ae.image_shape, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    with torch.no_grad():  # Such an encoder hardly tells images apart: codes that are alike but for rounding have no way between.
        ae.encoder.linear.weight *= 30_000
        ae.encoder.linear.bias -= ae.encode(x).mean(0)
    past = ae.encode(x).mean(0, keepdim=True) + torch.tensor([[0.3], [0.05]]).double()
    frames = ae.interpolate(x[:1], x[1:], (0.0, 0.5, 1.0), past=past)
    torch.testing.assert_close(frames[0, [0, 2]], x, rtol=0, atol=1e-5)
    assert (frames - ae.interpolate(x[:1], x[1:], (0.0, 0.5, 1.0))).abs().max() > 0.01
    along = ae.interpolate_path(x, frames=2, past=past)
    torch.testing.assert_close(along, frames[0], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="z_sem"):
        ae.interpolate(x[:1], x[1:], past=past[:, :-1])


def test_refining_one_round_costs_three_ways():
    calls = []

    def counted(x, t):
        calls.append(float(t[0]))
        return identity_eps(x, t)

    refine(counted, torch.randn(2, 3), spaced_path(SCHEDULE, 5), rounds=1)
    assert len(calls) == 15
    calls.clear()
    anchored_encode(counted, torch.randn(2, 3), spaced_path(SCHEDULE, 5))
    assert len(calls) == 6
    calls.clear()
    reversible_encode(counted, torch.randn(2, 3), spaced_path(SCHEDULE, 5))
    assert len(calls) == 5


def linear_eps(factors):
    """A network whose decoding after encoding in one step is `u -> k u`, with a k of its own for each image."""

    def eps(x, t):
        return torch.where(t > 500, factors, 0.0)[:, None] * x

    return eps


def refined(k, rounds):
    """What x is decoded to after so many rounds, where decode(encode(u)) = k u: each takes 1 - k of what was missing."""
    return 1 - (1 - k) ** (rounds + 1)


def there_and_back(eps, x, path):
    x_T = solve(eps, x, path.backwards(), solver="dpmpp2m")
    return x_T, solve(eps, x_T, path, solver="dpmpp2m")


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_each_round_of_refining_takes_its_share_of_what_is_missing(rounds):
    path, eps = spaced_path(SCHEDULE, 1, t_max=700.0), linear_eps(torch.tensor([-0.3, 0.2], dtype=torch.float64))
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    k = (there_and_back(eps, x, path)[1] / x)[:, :1]
    assert ((k - 1).abs() > 0.1).all()
    assert ((k - 1).abs() < 0.5).all()
    decoded = solve(eps, refine(eps, x, path, rounds=rounds), path, solver="dpmpp2m")
    torch.testing.assert_close(decoded, refined(k, rounds) * x, rtol=1e-9, atol=0)


def test_refining_keeps_the_best_it_has_seen_of_each_image():
    """Of a calm one the last; of one whose error falls, but not by half, the second, and no third; of one whose error grows the
    first, which is `fast`."""
    path, x = spaced_path(SCHEDULE, 1, t_max=700.0), torch.ones(3, 2, dtype=torch.float64)
    one = there_and_back(linear_eps(torch.ones(3, dtype=torch.float64)), x, path)[1][0, 0] - 1
    wanted = torch.tensor([0.8, 1.8, 2.5], dtype=torch.float64)
    eps = linear_eps((wanted - 1) / one)
    x_T, decoded = there_and_back(eps, x, path)
    torch.testing.assert_close(decoded[:, 0], wanted)
    found = refine(eps, x, path)
    kept = [refined(0.8, 2), refined(1.8, 1), 2.5]
    torch.testing.assert_close(solve(eps, found, path, solver="dpmpp2m")[:, 0], torch.tensor(kept, dtype=torch.float64))
    assert torch.equal(found[2], x_T[2])
    assert torch.equal(refine(linear_eps(((wanted - 1) / one)[2:]), x[2:], path), x_T[2:]), "alone likewise"


def test_refining_takes_two_rounds_unless_told_otherwise():
    calls = []

    def counted(x, t):
        calls.append(float(t[0]))
        return identity_eps(x, t)

    refine(counted, torch.randn(2, 3), spaced_path(SCHEDULE, 5))
    assert len(calls) == 5 * 5


@pytest.mark.parametrize("said", [1e200, float("nan")])
def test_an_image_that_no_round_brings_back_has_no_code_and_is_not_asked_again(said):
    """Not its own pixels for noise: it overflows on the way back, or the network is broken."""
    calls = []

    def broken(x, t):
        calls.append(float(t[0]))
        return torch.full_like(x, said if t[0] > 500 else 0.0)

    x = torch.ones(1, 3, dtype=torch.float64)
    assert refine(broken, x, spaced_path(SCHEDULE, 1)).isnan().all()
    assert len(calls) == 2


def network(*, training=False, on_gpu=False):
    """A stand-in that says where it is."""
    return SimpleNamespace(training=training, parameters=lambda: [SimpleNamespace(is_cuda=False), SimpleNamespace(is_cuda=on_gpu)])


@pytest.mark.parametrize("inversion", list(RECURSIONS))
def test_steps_are_taken_back_where_the_network_gives_the_same_twice(inversion, monkeypatch):
    """Which it may not while it trains, and not on a GPU while cuDNN tries what is quickest."""
    for benchmark, on_gpu, training in [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)]:
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", benchmark)
        check_inversion("anchored", network(training=training, on_gpu=on_gpu))
        if training or (benchmark and on_gpu):
            with pytest.raises(ValueError, match=f"The inversion '{inversion}' needs a network that gives the same twice"):
                check_inversion(inversion, network(training=training, on_gpu=on_gpu))
        else:
            check_inversion(inversion, network(training=training, on_gpu=on_gpu))
    with pytest.raises(ValueError, match="Unknown inversion 'quick'; there are 'fast', 'anchored'"):
        check_inversion("quick", network())


@pytest.mark.parametrize("inversion", ["fast", "anchored", "refine", "reversible", "bdia"])
def test_the_way_back_takes_all_that_was_kept_unless_it_is_told_a_share(inversion):
    x, path = torch.randn(2, 1, 4, 4, dtype=torch.float64), spaced_path(SCHEDULE, 6)
    x_T, kept = encode_along_path(inversion, identity_eps, x, path)
    code = Code(torch.zeros(2, 3, dtype=x.dtype), x_T, inversion, 6, kept)

    def other(x, t):
        return 0.9 * identity_eps(x, t)

    assert (kept is None) == (inversion in ("fast", "refine"))
    if inversion != "anchored":
        torch.testing.assert_close(
            decode_along_path(identity_eps, code, path), x, rtol=1e-9 if kept is not None else 0.2, atol=1e-9
        )
        return
    assert torch.equal(decode_along_path(identity_eps, code, path), x)
    assert torch.equal(decode_along_path(other, code, path), anchored_decode(other, x_T, path, kept, detail=1.0))
    torch.testing.assert_close(decode_along_path(other, code, path, detail=0.0), solve(other, x_T, path, solver="dpmpp2m"))


def test_half_way_to_a_code_without_defects_nothing_is_kept():
    x, path = torch.randn(1, 1, 4, 4), spaced_path(SCHEDULE, 4)
    x_T, kept = encode_along_path("anchored", identity_eps, x, path)
    anchored, plain = (Code(torch.zeros(1, 3), x_T, "anchored", 4, k) for k in (kept, None))
    for a, b in ((anchored, plain), (plain, anchored)):
        assert interpolate_codes(a, b, 0.5).states is None
    assert interpolate_codes(anchored, anchored, 0.5).states is not None
    state, before = reversible_encode(identity_eps, x, path)
    two = Code(torch.zeros(1, 3), state, "reversible", 4, before[:, None])
    with pytest.raises(ValueError, match="Between two codes of `reversible` there is nothing"):
        interpolate_codes(two, two, 0.5)


def test_a_code_on_its_device_is_the_same_code():
    x_T, kept = encode_along_path("anchored", identity_eps, torch.randn(2, 1, 4, 4), spaced_path(SCHEDULE, 3))
    for k in (kept, None):
        code = Code(torch.randn(2, 3), x_T, "anchored", 3, k)
        moved = code.to(code.device)
        assert (moved.inversion, moved.steps, moved.device) == ("anchored", 3, torch.device("cpu"))
        assert torch.equal(moved.z_sem, code.z_sem)
        assert torch.equal(moved.x_T, code.x_T)
        assert moved.states is None if k is None else torch.equal(moved.states, k)


def test_two_steps_are_enough_for_a_recursion_and_one_is_not():
    x = torch.randn(2, 3, dtype=torch.float64)
    for recursion in RECURSIONS.values():
        path = spaced_path(SCHEDULE, 2)
        states = reversible_encode(identity_eps, x, path, recursion)
        torch.testing.assert_close(reversible_decode(identity_eps, *states, path, recursion), x, rtol=1e-9, atol=1e-9)
        with pytest.raises(ValueError, match="needs at least two steps"):
            reversible_encode(identity_eps, x, spaced_path(SCHEDULE, 1), recursion)


def test_bdia_is_what_two_ddim_steps_from_the_middle_say():
    path = spaced_path(SCHEDULE, 5).backwards()
    alpha, sigma = path.alpha_bar.sqrt(), (1 - path.alpha_bar).sqrt()
    x, eps = torch.tensor(0.7, dtype=torch.float64), torch.tensor(-0.4, dtype=torch.float64)
    for i in range(1, 5):
        x_0 = (x - sigma[i] * eps) / alpha[i]
        to_image, to_noise = (alpha[j] * x_0 + sigma[j] * eps for j in (i - 1, i + 1))
        a, b, c = bdia(path, i)
        assert a == 1
        assert float(b * x + c * eps) == pytest.approx(float(to_image - to_noise), abs=1e-12)
