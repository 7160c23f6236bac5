"""What is the user's own in place of what the project brings: each a few lines, without a fork."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import diffae
from diffae.autoencoder import DiffusionAutoencoder
from diffae.data import prepare
from diffae.diffusion.predictor import NoisePredictor
from diffae.diffusion.schedule import Schedule, spaced_path
from diffae.diffusion.solvers import Step, ddim_step, solve
from diffae.nn.encoder import Encoder
from diffae.runtime.seeding import Draws
from diffae.training.run import Logged, resolve, train
from diffae.training.subjects import ImageSubject


class Means(nn.Module):
    """z_sem by a linear map of each channel's mean."""

    def __init__(self, z_dim):
        super().__init__()
        self.linear = nn.Linear(3, z_dim)

    def forward(self, x):
        return self.linear(x.mean((2, 3)))


class Convolution(nn.Module):
    """The noise by one convolution, shifted by z_sem and t."""

    def __init__(self, z_dim):
        super().__init__()
        self.conv, self.shift = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(z_dim + 1, 3)

    def forward(self, x_t, t, *, z_sem=None, draws=None):
        condition = torch.cat([z_sem, t[:, None] / 1000], dim=1)
        return self.conv(x_t) + self.shift(condition)[:, :, None, None]


def euler(x, path, i, x_0s):
    """Euler's step of dx/dtau with x / alpha and tau = sigma / alpha, which is DDIM's."""
    alpha, sigma = path.alpha_bar[i].sqrt(), (1 - path.alpha_bar[i]).sqrt()
    after, sigma_after = path.alpha_bar[i + 1].sqrt(), (1 - path.alpha_bar[i + 1]).sqrt()
    eps = (x - alpha * x_0s[-1]) / sigma
    return (after * (x / alpha + (sigma_after / after - sigma / alpha) * eps)).to(x)


@pytest.fixture
def own(tiny):
    torch.manual_seed(0)
    return DiffusionAutoencoder(tiny, encoder=Means(6), unet=Convolution(6)).eval()


@pytest.fixture(scope="module")
def x():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_foreign_encoder_and_network_have_all_verbs_and_gradients(own, x):
    assert isinstance(own.encoder, Encoder)
    assert isinstance(own.unet, NoisePredictor)
    assert torch.equal(own.encode(x), own.encoder(x))
    torch.testing.assert_close(own.reconstruct(x, steps=5), x, atol=1e-4, rtol=0)
    assert own.decode(own.encode(x), steps=2).shape == x.shape
    own.loss(x, Draws.of(2, 0)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in own.parameters())


def test_a_model_of_foreign_networks_is_saved_and_asks_for_them_when_it_is_read(own, tiny, x, tmp_path):
    own.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"its unet is one of its maker's own, test_plugs\.Convolution: build one, and give it as"):
        diffae.load(tmp_path / "model", encoder=Means(6))
    again = diffae.load(tmp_path / "model", encoder=Means(6), unet=Convolution(6))
    assert torch.equal(again.encode(x), own.encode(x))
    assert torch.equal(again.decode(again.encode(x), seed=1, steps=2), own.decode(own.encode(x), seed=1, steps=2))
    DiffusionAutoencoder(tiny).save_pretrained(tmp_path / "configured")
    assert "networks" not in (tmp_path / "configured" / "config.json").read_text()


@pytest.mark.filterwarnings("ignore:x_T has a standard deviation")
def test_a_foreign_solver_is_a_step(own, x):
    assert isinstance(euler, Step)
    path = spaced_path(Schedule(own.config.schedule), 7)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    eps_model = own.eps_model(own.encode(x))
    expected = solve(eps_model, noise, path, solver="ddim")
    torch.testing.assert_close(solve(eps_model, noise, path, solver=euler), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(solve(eps_model, noise, path, solver=ddim_step), expected)
    z_sem = own.encode(x)
    x_T = own.invert(x, z_sem, steps=7, solver=euler)
    torch.testing.assert_close(x_T, own.invert(x, z_sem, steps=7, solver=ddim_step), rtol=1e-4, atol=1e-4)
    assert own.decode(z_sem, x_T, steps=7, solver=euler).shape == x.shape


def test_a_foreign_network_serves_a_plain_ddim_too(tiny, x):
    class Plain(nn.Conv2d):
        def forward(self, x_t, t, *, z_sem=None, draws=None):
            return super().forward(x_t)

    ddim = diffae.DDIM(replace(tiny, z_dim=None), unet=Plain(3, 3, 3, padding=1)).eval()
    assert ddim.sample(2, steps=2).shape == x.shape


class Line:
    """A line through points, by its absolute error: a subject that has nothing to do with images."""

    identity = "the line of slope 3"

    def __init__(self, config):
        self.config = config

    def build(self):
        return nn.Linear(1, 1)

    def batch(self, positions):
        return torch.tensor([[p % 8 / 8] for p in positions])

    def loss(self, model, batch, draws):
        return (model(batch) - 3 * batch).abs().mean()

    def save(self, ema, folder, images):
        folder.mkdir(exist_ok=True)
        (folder / "slope").write_text(str(float(ema.weight)))

    def nothing(self, *_):
        return None

    begin = place = validate = names = draw = nothing


def test_a_foreign_subject_is_trained_by_the_one_loop(tiny_run, tmp_path):
    seldom = {"validate_every": 2048, "sample_every": 2048, "checkpoint_every": 2048}
    config = resolve(tiny_run(images=2048, learning_rate=0.05, learning_rate_schedule="cosine", **seldom), tmp_path / "run")
    losses = [event.loss for event in train(Line(config), tmp_path / "run") if isinstance(event, Logged)]
    assert losses[-1] < losses[0] / 10
    assert float((tmp_path / "run" / "model" / "slope").read_text()) == pytest.approx(3, abs=0.2)


def test_a_model_of_foreign_networks_is_trained_on_images(tiny_run, tmp_path, write_colours):
    write_colours(tmp_path / "images", 12)
    config = tiny_run(images=16)
    config = resolve(replace(config, data=replace(config.data, source=str(tmp_path / "images"))), tmp_path / "run")
    data = prepare(config.data, size=config.model.image_size, channels=3)

    def make(settings):
        return DiffusionAutoencoder(settings, encoder=Means(settings.z_dim), unet=Convolution(settings.z_dim))

    for _ in train(ImageSubject(config, data, make=make), tmp_path / "run"):
        pass
    again = diffae.load(tmp_path / "run", encoder=Means(config.model.z_dim), unet=Convolution(config.model.z_dim))
    assert again.encode(data.images([0, 1])).shape == (2, config.model.z_dim)
    whitened = replace(config, training=replace(config.training, whitened_start=True))
    with pytest.raises(ValueError, match=r"whitened_start sets the last layer of the configured encoder"):
        ImageSubject(whitened, data, make=make).begin(make(config.model))
