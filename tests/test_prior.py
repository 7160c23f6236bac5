"""The latent DDIM: a second diffusion, in the space of standardised codes."""

import copy

import pytest
import torch

from diffae.autoencoder import build
from diffae.config import PriorConfig, ScheduleConfig
from diffae.interop.parts import PART_FORMAT, load_part, save_part
from diffae.interop.reading import read_weights
from diffae.metrics.codes import compare_codes
from diffae.runtime.seeding import Draws
from diffae.runtime.weights import write_weights
from diffae.semantics.prior import GaussianPrior, KernelPrior, LatentPrior
from diffae.semantics.standardizer import Standardizer

SMALL = PriorConfig(z_dim=2, width=32, layers=3, time_channels=16)


def test_the_latent_schedule_has_a_constant_beta():
    alpha_bar = LatentPrior(SMALL).schedule.alpha_bar
    expected = 0.992 ** torch.arange(1, 1001, dtype=torch.float64)
    torch.testing.assert_close(alpha_bar, expected, rtol=1e-9, atol=0)
    assert alpha_bar[-1] < 4e-4, "z_T is pure noise"


@pytest.mark.parametrize(("layers", "width"), [(10, 2048), (20, 2048), (2, 8)])
def test_every_layer_but_the_first_sees_the_input_again(layers, width):
    with torch.device("meta"):
        net = LatentPrior(PriorConfig(z_dim=4, width=width, layers=layers)).net
    assert [layer.linear.in_features for layer in net.hidden] == [4] + [width + 4] * (layers - 2)
    assert net.out.in_features == width + 4
    assert net.out.out_features == 4


def test_every_parameter_gets_a_gradient():
    prior = LatentPrior(SMALL)
    prior.loss(torch.randn(5, 2), Draws.of(5, 0)).backward()
    for name, p in prior.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().sum() > 0, name


def test_the_loss_is_the_mean_absolute_error_of_each_codes_own_draw():
    prior = LatentPrior(SMALL)
    z = torch.randn(6, 2)
    draws = Draws.of(6, 0, start=100)
    each = torch.stack([prior.loss(z[i : i + 1], draws[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(prior.loss(z, draws), each.mean())
    torch.nn.init.zeros_(prior.net.out.weight)
    torch.nn.init.zeros_(prior.net.out.bias)
    many = prior.loss(torch.zeros(4000, 2), Draws.of(4000, 0)).item()
    assert many == pytest.approx((2 / torch.pi) ** 0.5, abs=0.02), "E|eps|, where nothing is predicted"


def test_a_sample_depends_on_its_number_and_the_seed_alone():
    prior = LatentPrior(SMALL).eval()
    torch.testing.assert_close(prior.sample(5, steps=4, seed=3)[:2], prior.sample(2, steps=4, seed=3))
    assert not torch.allclose(prior.sample(2, steps=4, seed=3), prior.sample(2, steps=4, seed=4))
    torch.testing.assert_close(prior.sample(5, steps=4, seed=3)[2:], prior.sample(3, steps=4, seed=3, start=2))


def test_it_learns_the_codes_it_is_given():
    # Two clusters: something that no Gaussian is.
    generator = torch.Generator().manual_seed(0)
    side = torch.randint(0, 2, (512, 1), generator=generator) * 2 - 1
    codes = torch.tensor([[3.0, 1.0]]) * side + 0.3 * torch.randn(512, 2, generator=generator) + 5
    standardizer = Standardizer.fit(codes)
    z = standardizer(codes)
    torch.manual_seed(0)
    prior = LatentPrior(PriorConfig(z_dim=2, width=64, layers=4, time_channels=16, schedule=ScheduleConfig(
        T=100, beta_start=0.08, beta_end=0.08
    )))  # fmt: skip
    optimizer = torch.optim.AdamW(prior.parameters(), lr=3e-3)
    for step in range(400):
        optimizer.zero_grad()
        index = torch.randint(0, 512, (128,), generator=generator)
        prior.loss(z[index], Draws.of(128, 0, start=step * 128)).backward()
        optimizer.step()
    made = standardizer.inverse(prior.sample(400, steps=50, seed=0))
    assert made.mean(0) == pytest.approx([5, 5], abs=0.8)
    distance = torch.cdist(made, torch.tensor([[8.0, 6.0], [2.0, 4.0]])).min(1).values
    assert distance.median() < 1
    assert 0.25 < (made[:, 0] > 5).float().mean() < 0.75, "both clusters"


def test_the_gaussian_computes_in_float32_where_the_network_does_not():
    z = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 0.1, 0.01])
    gaussian = GaussianPrior(4).fit(z)
    alpha, sigma = torch.tensor(0.9), torch.tensor(0.1)
    plain = gaussian.eps(z, alpha, sigma)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gaussian.eps(z, alpha, sigma), plain)


def test_a_gaussian_is_the_codes_own_and_its_denoiser_the_conditional_mean():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5000, 3, generator=generator) @ torch.tensor([[1.0, 0.9, 0], [0, 0.4, 0], [0, 0, 1]]) + 1
    gaussian = GaussianPrior(3).fit(z)
    made = gaussian.sample(5000, seed=1)
    torch.testing.assert_close(torch.cov(made.T), torch.cov(z.T), atol=0.08, rtol=0)
    torch.testing.assert_close(made.mean(0), z.mean(0), atol=0.08, rtol=0)
    alpha, sigma = torch.tensor(0.8), torch.tensor(0.6)
    eps = torch.randn(5000, 3, generator=generator)
    predicted = gaussian.eps(alpha * z + sigma * eps, alpha, sigma)
    # What is left is uncorrelated with what was seen: nothing linear could say more.
    seen = alpha * (z - z.mean(0)) + sigma * eps
    assert (seen.T @ (eps - predicted) / len(z)).abs().max() < 0.05
    with pytest.raises(ValueError, match="needs at least two codes, got 1"):
        GaussianPrior(3).fit(z[:1])


def two_rings(n, seed):
    """Codes of two planes, in each of which they lie on a ring: uncorrelated, and nothing like a Gaussian."""
    angles = 2 * torch.pi * torch.rand(n, 2, generator=torch.Generator().manual_seed(seed))
    z = torch.stack([angles.cos(), angles.sin()], 2).flatten(1) * 2**0.5
    return z + 0.05 * torch.randn(n, 4, generator=torch.Generator().manual_seed(seed + 100))


def test_a_smoothed_bootstrap_knows_what_no_gaussian_does_and_repeats_no_code():
    z, held = two_rings(1000, 0), two_rings(200, 1)
    kernel, gaussian = KernelPrior.of(z), GaussianPrior(4).fit(z)
    told = {type(prior): compare_codes(prior.sample(200), held)["auroc"] for prior in (kernel, gaussian)}
    assert told[KernelPrior] < 0.65 < told[GaussianPrior]
    samples = kernel.sample(500, seed=3)
    nearest, usual = (torch.cdist(part, z).min(1).values.mean() for part in (samples, held))
    assert float(nearest / usual) == pytest.approx(1, abs=0.3)
    torch.testing.assert_close(torch.cov(kernel.sample(4000).T), torch.cov(z.T), rtol=0, atol=0.1)


def test_a_smoothed_bootstrap_of_a_gaussian_still_has_its_covariance():
    scale = torch.linspace(0.1, 2, 20)
    z = scale * torch.randn(3000, 20, generator=torch.Generator().manual_seed(0))
    made = KernelPrior.of(z).sample(4000)
    torch.testing.assert_close(made.std(0), scale, rtol=0, atol=0.1)


def test_a_smoothed_bootstrap_of_images_that_are_there_twice_is_that_of_each_once():
    z = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    twice = torch.cat([z, z + 1e-6 * torch.randn(400, 8, generator=torch.Generator().manual_seed(1))])
    once, again = (KernelPrior.of(codes) for codes in (z, twice))
    far = [float(torch.cdist(prior.sample(300), z).amin(1).mean()) for prior in (once, again)]
    assert far[1] > 0.8 * far[0], "no sample is an image that there was"


def test_a_sample_of_a_smoothed_bootstrap_depends_on_its_number_and_the_seed_alone():
    for z in (two_rings(1500, 0), torch.randn(400, 30, generator=torch.Generator().manual_seed(0))):
        prior = KernelPrior.of(z)
        whole = prior.sample(64, seed=1)
        alone = torch.cat([prior.sample(1, seed=1, start=i) for i in range(64)])
        torch.testing.assert_close(alone, whole, rtol=0, atol=1e-4)
        assert not torch.equal(prior.sample(64, seed=2), whole)
    prior.neighbours.fill_(401)
    with pytest.raises(ValueError, match="400 codes has 2 to 400 neighbours of each, and its file says 401"):
        prior.sample(1)
    with pytest.raises(ValueError, match="at least three codes, got 2"):
        KernelPrior.of(two_rings(2, 0))


def test_one_step_is_too_few_for_a_latent_ddim():
    with pytest.raises(ValueError, match=r"two steps or more \(prior_steps\), got 1"):
        LatentPrior(PriorConfig(z_dim=4, width=8, layers=2)).sample(2, steps=1)


def test_a_smoothed_bootstrap_is_read_as_it_was_and_one_of_an_earlier_kind_is_left_out(tiny, tmp_path):
    ae = build(tiny)
    z = torch.randn(300, tiny.z_dim, generator=torch.Generator().manual_seed(0))
    ae.standardizer, ae.prior = Standardizer.fit(z), KernelPrior.of(z)
    save_part(ae, tmp_path, ["prior", "standardizer"])
    again = copy.deepcopy(ae)
    again.prior = None
    load_part(again, tmp_path)
    torch.testing.assert_close(again.prior.sample(5), ae.prior.sample(5), rtol=0, atol=0)
    config, tensors = read_weights(tmp_path, PART_FORMAT)
    write_weights(tmp_path, config, tensors | {"prior.axes": torch.eye(tiny.z_dim)})
    again.prior = None
    with pytest.warns(UserWarning, match="of an earlier kind"):
        load_part(again, tmp_path)
    assert again.prior is None
