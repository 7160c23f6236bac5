"""The mean decoder: z_sem alone, in one call, as near as z_sem allows."""

from dataclasses import replace

import pytest
import torch
from runs import run
from test_nn import perturb

import diffae
from diffae import cli
from diffae.autoencoder import build
from diffae.config import AutoencoderConfig, EncoderConfig
from diffae.data import prepare
from diffae.diffusion.schedule import each_error
from diffae.interop.fingerprints import digest_model
from diffae.nn import MeanDecoder
from diffae.runtime.seeding import Draws
from diffae.training.muon import is_hidden_matrix
from diffae.training.subjects import ImageSubject

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.mark.parametrize(("sides", "patch"), [((8, 8), 1), ((16, 8), 2), ((4, 8, 8), 1), ((2, 16, 16), 1)])
def test_its_images_have_the_models_sides(sides, patch):
    config = EncoderConfig(base_channels=8, channel_mult=(1, 2, 2), patch=patch, pooled_size=1, attention_resolutions=(4,))
    x = MeanDecoder(config, image_size=sides, channels=2, z_dim=5)(torch.randn(3, 5))
    assert x.shape == (3, 2, *sides)


def test_the_mean_is_of_z_sem_alone_unless_a_timestep_is_named(tiny):
    torch.manual_seed(0)
    ae = perturb(build(replace(tiny, mean_decoder=True, prediction="v"))).eval()
    z = torch.randn(3, 6)
    expected = ae.clamp(ae.mean_decoder(z))
    torch.testing.assert_close(ae.decode_mean(z), expected)
    assert torch.equal(ae.decode_mean(z, seed=1), ae.decode_mean(z, seed=2))
    without = build(replace(tiny, prediction="v")).eval()
    without.load_state_dict(ae.state_dict(), strict=False)
    torch.testing.assert_close(ae.decode_mean(z, t=900), without.decode_mean(z, t=900))
    torch.testing.assert_close(ae.decode(z, steps=3), without.decode(z, steps=3))
    assert ae.decode_mean(z.bfloat16()).dtype == without.decode_mean(z.bfloat16()).dtype == torch.float32
    # One call more: noise laid over the mean, and what the decoder says of that.
    t, noise = torch.full((3,), 100), ae.draw_x_T(3, 5)
    alpha, sigma = ae.schedule.alpha_sigma(t, like=noise)
    noisy = alpha * expected + sigma * noise
    cleaned = (noisy - sigma * ae.eps_model(z)(noisy, t.float())) / alpha
    torch.testing.assert_close(ae.decode_mean(z, sharpen=100, seed=5), ae.clamp(cleaned))
    assert not torch.equal(ae.decode_mean(z, sharpen=100, seed=5), ae.decode_mean(z, sharpen=100, seed=6))
    with pytest.raises(ValueError, match=r"within 1\.\.999, got 1000"):
        ae.decode_mean(z, sharpen=1000)
    assert digest_model(ae) != digest_model(without)
    before = digest_model(ae)
    ae.mean_decoder.conv_out.bias.data += 1
    assert digest_model(ae) != before
    with pytest.raises(ValueError, match="a plain DDIM .* has none"):
        AutoencoderConfig(z_dim=None, mean_decoder=True)


def test_its_error_teaches_the_encoder_too(tiny_run):
    config = tiny_run(model={"mean_decoder": True})
    data = prepare(config.data, size=(8, 8), channels=3)
    subject = ImageSubject(config, data)
    torch.manual_seed(0)
    model, draws, batch = perturb(subject.build()), Draws.of(8, 0), subject.batch(range(8))
    x = subject.view(batch, draws)[0]
    z = model.encoder(x)
    expected = model.loss(x, draws, z_sem=z) + each_error(model.mean_decoder(z), x, None).mean()
    torch.testing.assert_close(subject.loss(model, batch, draws), expected)
    gradient = torch.autograd.grad(each_error(model.mean_decoder(model.encoder(x)), x, None).mean(), model.encoder.linear.weight)[0]
    assert gradient.abs().max() > 0
    matrices = {name for name, p in model.mean_decoder.named_parameters("mean_decoder") if p.dim() >= 2}
    adams = {name for name in matrices if not is_hidden_matrix(name, model.get_parameter(name))}
    assert adams == {"mean_decoder.conv_out.weight"}


def test_a_run_learns_it_and_what_is_saved_has_it(tiny_run, tmp_path):
    errors = []
    for images in (8, 1600):
        seldom = {"validate_every": 10_000, "sample_every": 10_000, "checkpoint_every": 10_000}
        config = tiny_run(images=images, model={"mean_decoder": True}, learning_rate=3e-3, **seldom)
        run(config, tmp_path / str(images))
        ae, data = diffae.load(tmp_path / str(images)), prepare(config.data, size=(8, 8), channels=3)
        x = data.images(data.train)
        errors.append(float((ae.decode_mean(ae.encode(x)) - x).square().mean()))
    assert errors[1] < 0.7 * errors[0]
    ae.save_pretrained(tmp_path / "saved")
    z = ae.encode(x[:2])
    assert torch.equal(diffae.load(tmp_path / "saved").decode_mean(z), ae.decode_mean(z))
    cli.main(["distill", str(tmp_path / "1600"), "--images", "8", "--out", str(tmp_path / "quick")])
    quick = diffae.load(tmp_path / "quick")
    assert torch.equal(quick.decode_mean(z), ae.decode_mean(z)), "it is the teacher's"


def test_onnx_and_diffusers_have_a_mean_too(tiny, tmp_path):
    torch.manual_seed(0)
    # Of one level: tracing takes time.
    one = {"channel_mult": (1,), "attention_resolutions": (8,)}
    parts = {"unet": replace(tiny.unet, **one), "encoder": replace(tiny.encoder, **one)}
    ae = perturb(build(replace(tiny, mean_decoder=True, prediction="v", **parts))).eval()
    z = torch.randn(3, 6)
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'diffae[interop]'")
    from diffae.interop.diffusers import DiffAEPipeline

    again = DiffAEPipeline.from_autoencoder(ae).autoencoder
    assert again.mean_decoder is None
    t = ae.calibration.mean_t
    torch.testing.assert_close(again.decode_mean(z), ae.decode_mean(z, t=t))
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'diffae[interop]'")
    from onnxruntime import InferenceSession

    from diffae.interop.onnx import export

    assert export(ae, tmp_path / "onnx") < 1e-3
    (x,) = InferenceSession(str(tmp_path / "onnx" / "mean.onnx")).run(None, {"z_sem": z.numpy()})
    torch.testing.assert_close(torch.from_numpy(x), ae.decode_mean(z), atol=1e-4, rtol=0)
