"""Evened z_sem: other coordinates, the same images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from runs import run
from torch import nn

import diffae
from diffae import cli
from diffae.autoencoder import DiffusionAutoencoder, build
from diffae.config import DataConfig, FeaturesConfig
from diffae.data import prepare
from diffae.frozen.features import described_features
from diffae.interop.fingerprints import digest_model
from diffae.nn.evening import POWER, Evening
from diffae.training.evening import evened
from diffae.training.starting import take_weights
from diffae.training.subjects import ImageSubject


def with_evening(tiny, **changes):
    return replace(tiny, unet=replace(tiny.unet, evened=True), **changes)


def trained(config):
    """Not trained, but unlike a fresh network: its ends are not zero, and z_sem varies far more in some directions."""
    torch.manual_seed(0)
    ae = build(config).eval()
    with torch.no_grad():
        for p in ae.parameters():
            p.add_(0.05 * torch.randn(p.shape))
        ours = ae.encoder.learned if config.features.network is not None else ae.encoder
        ours.linear.weight.mul_(torch.logspace(0, 2, len(ours.linear.weight))[:, None])
    return ae


@pytest.fixture
def x():
    return torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def spectrum(z):
    return torch.linalg.eigvalsh(torch.cov(z.T.double())).clamp(min=1e-12)


def left_out(*views):
    """The covariance by which codes are evened, axis by axis: in each fifth that is left out, along the axes of the others."""
    views = [view.double().numpy() for view in views]
    found = np.zeros((views[0].shape[1],) * 2)
    for fold in range(5):
        rest = np.concatenate([np.delete(view, slice(fold, None, 5), axis=0) for view in views])
        out = np.concatenate([view[fold::5] for view in views]) - rest.mean(0)
        for axis in np.linalg.svd(rest - rest.mean(0))[2]:
            found += np.mean((out @ axis) ** 2) * np.outer(axis, axis) / 5
    return torch.from_numpy(found)


@pytest.mark.parametrize("mean_decoder", [False, True])
def test_codes_are_evened_and_images_stay(tiny, x, mean_decoder):
    ae = trained(with_evening(tiny, mean_decoder=mean_decoder))
    z_sem, mirrored = ae.encode(x), ae.encode(x.flip(-1))
    even = evened(ae, z_sem, mirrored)
    found, turned = even.encode(x), even.encode(x.flip(-1))
    torch.testing.assert_close(torch.cat([found, turned]).mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    # Covariances of codes that are mapped by M are M S M.
    to_codes = torch.linalg.lstsq((z_sem - z_sem[:1])[1:].double(), (found - found[:1])[1:].double()).solution
    before = torch.linalg.eigvalsh(left_out(z_sem, mirrored))
    after = torch.linalg.eigvalsh(to_codes.T @ left_out(z_sem, mirrored) @ to_codes)
    assert after.mean() == pytest.approx(1, rel=1e-3)
    torch.testing.assert_close(after / after[-1], (before / before[-1]) ** POWER, atol=1e-3, rtol=1e-2)
    x_T = even.draw_x_T(64, 0)
    torch.testing.assert_close(even.decode(found, x_T, steps=4), ae.decode(z_sem, x_T, steps=4), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(even.decode_mean(found), ae.decode_mean(z_sem), atol=1e-4, rtol=1e-3)
    half = 0.5 * (z_sem[:8] + z_sem[8:16])
    torch.testing.assert_close(even.decode_mean(0.5 * (found[:8] + found[8:16])), ae.decode_mean(half), atol=1e-4, rtol=1e-3)
    assert torch.equal(ae.encode(x), z_sem), "the model itself stays"


def test_what_was_evened_is_evened_again_and_says_the_same(tiny, x):
    ae = trained(with_evening(tiny))
    once = evened(ae, ae.encode(x[:40]))
    twice = evened(once, once.encode(x))
    torch.testing.assert_close(twice.decode_mean(twice.encode(x)), ae.decode_mean(ae.encode(x)), atol=1e-4, rtol=1e-3)
    a, b = (spectrum(model.encode(x)) for model in (ae, twice))
    torch.testing.assert_close(b / b[-1], (a / a[-1]) ** (POWER**2), atol=0.05, rtol=0.2)


def test_codes_of_other_images_vary_as_those_that_it_was_made_of():
    """Of fewer codes than dimensions most directions are unknown: what lies there must not be stretched."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(2100, 100)) * np.arange(1, 101) ** -0.75)
    for num in (50, 150):
        evening = Evening.of(z[:num])
        known, others = ((part - evening.mean) @ evening.map for part in (z[:num], z[num:]))
        assert float(others.square().sum(1).mean() / known.square().sum(1).mean()) < 2.0


def test_rounding_is_not_evened():
    """A collapsed z_sem stays one, and is seen to be one."""
    z = torch.ones(40, 6) + 1e-8 * torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(Evening.of(z).map, torch.eye(6).double())


def test_what_a_frozen_network_says_stays(tiny, x, monkeypatch):
    def moments(images):
        return torch.cat([images.mean((2, 3)), images.std((2, 3))], 1)

    monkeypatch.setitem(__import__("sys").modules, "moments_of", type("M", (), {"call": staticmethod(moments)}))
    config = with_evening(tiny, z_dim=7, learned=3, features=FeaturesConfig(network="moments_of:call"))
    ae = DiffusionAutoencoder(described_features(config)).eval()
    ae.encoder.fit(ae.encoder.features(x))
    with torch.no_grad():
        ae.unet.conv_out.weight.add_(0.05)
    z_sem = ae.encode(x)
    even = evened(ae, z_sem)
    found = even.encode(x)
    assert torch.equal(found[:, :4], z_sem[:, :4])
    assert not torch.allclose(found[:, 4:], z_sem[:, 4:])
    torch.testing.assert_close(even.decode_mean(found), ae.decode_mean(z_sem), atol=1e-4, rtol=1e-3)


def test_codes_that_are_all_alike_or_few_stay_finite():
    for z in (torch.ones(5, 4), torch.ones(1, 4), torch.eye(4)[:2]):
        evening = Evening.of(z)
        torch.testing.assert_close(evening.map @ evening.inverse, torch.eye(4).double())
        assert ((z.double() - evening.mean) @ evening.map).isfinite().all()


def test_a_run_saves_evened_codes_and_goes_on_with_its_own(tiny_run, tiny, make_images, tmp_path):
    source = make_images(48)
    plain = tiny_run(images=48, source=source, whitened_start=True)
    config = replace(plain, model=with_evening(plain.model))
    run(plain, tmp_path / "plain")
    events = run(config, tmp_path / "run")
    model, other = diffae.load(tmp_path / "run"), diffae.load(tmp_path / "plain")
    data = prepare(DataConfig(source=str(source), validation=0.25), size=(8, 8), channels=3)
    x = data.images(data.train)
    found, z_sem = model.encode(x), other.encode(x)
    expected = evened(other_with_evening(other), z_sem, other.encode(x.flip(-1)))
    torch.testing.assert_close(found, expected.encode(x), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(model.decode_mean(found), other.decode_mean(z_sem), atol=1e-4, rtol=1e-3)
    assert digest_model(model) != digest_model(other)
    dimensions = [e.health.z_dimensions for e in events if hasattr(e, "health")][-1]
    held = spectrum(other.encode(data.images(data.validation)))
    assert dimensions == pytest.approx(float(held.sum() ** 2 / held.square().sum()), rel=1e-2), "of what is trained"
    run(replace(config, training=replace(config.training, images=64)), tmp_path / "run")
    run(replace(plain, training=replace(plain.training, images=64)), tmp_path / "plain")
    model, other = diffae.load(tmp_path / "run"), diffae.load(tmp_path / "plain")
    torch.testing.assert_close(model.decode_mean(model.encode(x)), other.decode_mean(other.encode(x)), atol=1e-4, rtol=1e-3)


@pytest.mark.filterwarnings("error:None of these images")
def test_bright_images_are_not_taken_for_images_of_another_range(tiny_run, tmp_path):
    (tmp_path / "bright").mkdir()
    for i in range(40):
        pixels = np.random.default_rng(i).integers(130, 200, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "bright" / f"{i}.png")
    config = tiny_run(images=8, source=tmp_path / "bright")
    run(replace(config, model=with_evening(config.model)), tmp_path / "run")
    codes = str(tmp_path / "codes.parquet")
    cli.main(["encode", str(tmp_path / "run"), str(tmp_path / "bright"), "--out", codes, "--x-T-steps", "2"])


def other_with_evening(ae):
    """The same networks, which may be evened."""
    model = build(with_evening(ae.config)).eval()
    take_weights(model, ae)
    return model


def test_a_decoder_that_cannot_turn_codes_back_is_no_start_of_evened_ones(tiny, x):
    ae = trained(with_evening(tiny))
    assert take_weights(build(tiny), ae).taken, "they are not evened yet"
    even = evened(ae, ae.encode(x))
    with pytest.raises(ValueError, match=r"Its z_sem is evened.*leave --model.unet.no-evened away"):
        take_weights(build(tiny), even)
    for other in (with_evening(tiny, z_dim=4), replace(tiny, z_dim=4), replace(tiny, z_dim=None)):
        assert take_weights(build(other), even).taken, "which keeps no z_sem"


def test_a_start_takes_evened_codes_as_they_are(tiny, x):
    even = evened(ae := trained(with_evening(tiny)), ae.encode(x))
    model = build(with_evening(tiny)).eval()
    assert take_weights(model, even).fresh == []
    assert torch.equal(model.encode(x), even.encode(x))
    assert torch.equal(model.decode_mean(model.encode(x)), even.decode_mean(even.encode(x)))


def test_an_encoder_of_ones_own_is_not_evened(tiny, x):
    class Mine(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :6]

    ae = DiffusionAutoencoder(with_evening(tiny), encoder=Mine())
    with pytest.raises(ValueError, match=r"model\.unet\.evened sets the last layer of the configured encoder.*Mine: switch it off"):
        evened(ae, ae.encode(x))


def test_more_is_told_by_a_penalised_model_of_evened_codes():
    """What is asked for is in a direction of little variance; what varies most says nothing of it."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(1200, 60)) * np.logspace(0, -2, 60))
    mixing = torch.linalg.qr(torch.from_numpy(rng.normal(size=(60, 60))))[0]
    y = (z[:, 40:50] / z[:, 40:50].std(0)).sum(1).numpy() > 0
    plain = z @ mixing
    evening = Evening.of(plain)
    right = []
    for codes in (plain, (plain - evening.mean) @ evening.map):
        codes = (codes / codes.std(0)).numpy()
        model = LogisticRegression(C=0.01, max_iter=500).fit(codes[:600], y[:600])
        right.append(model.score(codes[600:], y[600:]))
    assert right[1] > right[0] + 0.1, right


def test_networks_of_ones_own_are_refused_before_training(tiny_run, make_images):
    config = tiny_run(source=make_images(12))
    config = replace(config, model=replace(config.model, unet=replace(config.model.unet, evened=True)))
    config = replace(config, training=replace(config.training, whitened_start=False))
    data = prepare(config.data, size=config.model.image_size, channels=3)

    class Own(torch.nn.Conv2d):
        pass

    subject = ImageSubject(config, data, make=lambda model: DiffusionAutoencoder(model, unet=Own(3, 3, 1)))
    with pytest.raises(ValueError, match=r"model\.unet\.evened .* and this is a Own: switch it off"):
        subject.build()
