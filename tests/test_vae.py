"""Training on the latents of a frozen autoencoder: what is cached, what is trained, and that pictures are pixels again."""

import dataclasses
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from test_data import seen_in_training

import diffae
from diffae import cli
from diffae.config import DataConfig
from diffae.data import prepare
from diffae.data.dataset import Order
from diffae.frozen.vae import frozen_autoencoder
from diffae.training.run import Finished, train
from diffae.training.subjects import ImageSubject

SIDE, GRID = 16, 8


def pictures():
    """Smooth pictures that differ in colour, and from left to right."""
    ramp = torch.linspace(-1, 1, SIDE)
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.rand(24, 3, 1, 1, generator=generator) * 2 - 1 for _ in range(3))
    return (0.6 * a + 0.3 * b * ramp[None, None, None] + 0.1 * c * ramp[None, None, :, None]).clamp(-1, 1)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """An AutoencoderKL that was trained for a moment, and its scaling factor measured, as its makers do."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    sizes = dict(block_out_channels=(8, 16), norm_num_groups=4, latent_channels=4, sample_size=SIDE)
    kinds = dict(down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    net, x = AutoencoderKL(**sizes, **kinds, layers_per_block=1), pictures()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        ((net.decode(net.encode(x).latent_dist.mode()).sample - x) ** 2).mean().backward()
        optimizer.step()
    net.register_to_config(scaling_factor=1 / net.encode(x).latent_dist.mode().std().item())
    folder = tmp_path_factory.mktemp("vae")
    net.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def folder(tmp_path):
    for i, x in enumerate(pictures()):
        pixels = ((x + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i:03d}.png")
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def fresh():
    AcceleratorState._reset_state(reset_partial_state=True)
    frozen_autoencoder.cache_clear()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def latents_in(folder, vae, **kwargs):
    settings = {"source": str(folder), "latents": vae, "validation": 0.25} | kwargs
    return prepare(DataConfig(**settings), size=(GRID, GRID), channels=4)


def test_the_cache_holds_scaled_latents_that_decode_to_the_images(folder, vae):
    data, frozen = latents_in(folder, vae), frozen_autoencoder(vae)
    assert data.pixels.shape == (24, 4, GRID, GRID)
    assert data.pixels.dtype == np.float16
    assert isinstance(data.pixels, np.memmap)
    assert 0.8 < data.images(range(24)).std() < 1.2
    mse = (frozen.decode(data.images(range(24))) - pictures()).square().mean()
    assert mse < 0.1 * pictures().var(), "that is, the small VAE learned something, and its scale was undone"
    assert not data.notes


def test_flipped_latents_are_those_of_the_flipped_image(folder, vae):
    data, frozen = latents_in(folder, vae, validation=0.0), frozen_autoencoder(vae)
    order = Order(data.train, seed=0)
    x, indices = seen_in_training(data, order, range(16), seed=5)
    plain = data.images(indices)
    images = prepare(DataConfig(source=str(folder)), size=(SIDE, SIDE), channels=3).images(indices)
    mirrored = frozen.encode(images.flip(3))
    changed = [not torch.equal(a, b) for a, b in zip(x, plain, strict=True)]
    assert 0 < sum(changed) < 16
    for i, flipped in enumerate(changed):
        torch.testing.assert_close(x[i], mirrored[i] if flipped else plain[i], atol=5e-3, rtol=5e-3)
    assert not torch.allclose(plain.flip(3), mirrored, atol=5e-3), "so flipping the latents would not have done"
    assert latents_in(folder, vae, flip=False).mirrored is None


def test_latents_are_made_once(folder, vae, monkeypatch):
    first = latents_in(folder, vae)
    monkeypatch.setattr("diffae.frozen.vae.FrozenAutoencoder.encode", lambda *_: pytest.fail("encoded again"))
    assert np.array_equal(latents_in(folder, vae).pixels, first.pixels)


def test_another_autoencoder_has_a_cache_of_its_own_and_its_scale_is_checked(folder, vae, tmp_path):
    first = latents_in(folder, vae)
    other = tmp_path / "other"
    shutil.copytree(vae, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"scaling_factor": 10 * config["scaling_factor"]}))
    second = latents_in(folder, str(other))
    assert second.key != first.key
    assert "have a standard deviation of 1" in second.notes[0]
    assert "set scaling_factor" in second.notes[0]


def config_of(tiny_run, folder, vae, **training):
    model = {"latents": vae, "channels": 4}
    return tiny_run(source=folder, model=model, data={"latents": vae}, **training)


def test_a_run_on_latents_ends_with_a_model_that_names_the_autoencoder_and_draws_pixels(folder, vae, tiny_run, tmp_path):
    config = config_of(tiny_run, folder, vae)
    data = prepare(config.data, size=config.model.image_size, channels=4)
    events = list(train(ImageSubject(config, data), tmp_path / "run", accelerator=Accelerator(cpu=True)))
    assert isinstance(events[-1], Finished)
    ae = diffae.load(tmp_path / "run")
    assert ae.config.latents == vae
    assert not [name for name in ae.state_dict() if "vae" in name], "the autoencoder is named, not saved"
    with Image.open(next((tmp_path / "run" / "pictures").glob("*.png"))) as picture:
        assert picture.height > 4 * SIDE
    x = ae.from_pixels(pictures()[:3])
    assert x.shape == (3, 4, GRID, GRID)
    again = ae.reconstruct(x)
    torch.testing.assert_close(again, x, atol=1e-3, rtol=1e-3)
    assert ae.to_pixels(again).shape == (3, 3, SIDE, SIDE)
    assert ae.to_pixels(again).abs().max() <= 1
    assert ae.decode_mean(ae.encode(x)).shape == x.shape


def test_latents_beyond_one_are_neither_refused_nor_clamped(folder, vae, tiny_run):
    torch.manual_seed(0)
    ae = diffae.DiffusionAutoencoder(config_of(tiny_run, folder, vae).model).eval()
    x = 3 * torch.randn(2, 4, GRID, GRID)
    assert torch.equal(ae.clamp(x), x)
    plain = diffae.DiffusionAutoencoder(dataclasses.replace(ae.config, latents=None)).eval()
    plain.load_state_dict(ae.state_dict())
    assert torch.equal(ae.encode(x / 10), plain.encode(x / 10))
    with pytest.raises(ValueError, match=r"Expected images in \[-1, 1\]"):
        plain.encode(x)
    z_sem = ae.encode(x)
    assert not torch.equal(ae.decode(z_sem), plain.decode(z_sem)), "x_0 of pixels is clamped on the way"
    assert torch.equal(ae.decode(z_sem, clamp=True), plain.decode(z_sem))
    with pytest.raises(ValueError, match="not a number"):
        ae.encode(x * torch.nan)
    with pytest.raises(ValueError, match="make latents of them with `from_pixels`"):
        ae.encode(torch.zeros(1, 3, SIDE, SIDE))


SMALL = """
--model.image-size 8 8 --model.channels 4 --model.z-dim 4 --model.unet.base-channels 8 --model.unet.channel-mult 1 2
--model.unet.embed-channels 8 --model.encoder.base-channels 8 --model.encoder.channel-mult 1 2
--training.batch-size 4 --training.precision float32 --images 16
""".split()


def test_commands_take_image_files_and_show_pixels(folder, vae, tmp_path, capsys, monkeypatch):
    run, picture = str(tmp_path / "run"), tmp_path / "again.png"
    cli.main(["train", str(folder), "--preset", "avatars32", "--out", run, "--data.latents", vae, *SMALL])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["latents"] == config["data"]["latents"] == vae
    cli.main(["reconstruct", run, str(folder / "000.png"), str(folder / "001.png"), "--out", str(picture)])
    errors = [float(line.split("MSE ")[1].split()[0]) for line in capsys.readouterr().out.splitlines() if "MSE" in line]
    assert len(errors) == 2
    assert min(errors) > 1e-6, "what the frozen autoencoder loses of the files is part of the error"
    with Image.open(picture) as image:
        assert image.width > 2 * SIDE
        colours = np.asarray(image)[: image.height // 3].reshape(-1, 3)
    assert colours.std(0).min() > 1, "the first row is the images"
    cli.main(["encode", run, str(folder), "--out", str(tmp_path / "codes.parquet")])
    assert "24 codes of 4 dimensions" in capsys.readouterr().out
    for args, message in (
        (["evaluate", run, "--out", str(tmp_path / "e")], "is a model of latents"),
        (["bench", "data", str(folder), "--run", run], "name a preset"),
    ):
        with pytest.raises(SystemExit):
            cli.main(args)
        assert message in " ".join(capsys.readouterr().err.split())


def test_a_dc_autoencoder_is_taken_too(tmp_path, folder):
    from diffusers import AutoencoderDC

    torch.manual_seed(0)
    sizes = dict(in_channels=3, latent_channels=4, attention_head_dim=4, scaling_factor=2.0)
    blocks = dict(encoder_block_types="ResBlock", decoder_block_types="ResBlock", downsample_block_type="conv")
    widths = dict(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8))
    depths = dict(encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1), upsample_block_type="interpolate")
    multiscale = dict(encoder_qkv_multiscales=((), ()), decoder_qkv_multiscales=((), ()))
    net = AutoencoderDC(**sizes, **blocks, **widths, **depths, **multiscale).eval()
    net.save_pretrained(tmp_path / "dc")
    frozen = frozen_autoencoder(str(tmp_path / "dc"))
    z = frozen.encode(pictures()[:2])
    with torch.no_grad():
        torch.testing.assert_close(z, 2 * net.encode(pictures()[:2]).latent)
        torch.testing.assert_close(frozen.decode(z), net.decode(z / 2).sample.clamp(-1, 1))
    assert z.shape == (2, 4, SIDE // frozen.factor, SIDE // frozen.factor)
    assert frozen.decode(z).shape == (2, 3, SIDE, SIDE)
    frozen_autoencoder.cache_clear()
    assert torch.equal(frozen_autoencoder(str(tmp_path / "dc")).encode(pictures()[:2]), z)


def test_a_pipelines_folder_has_its_autoencoder_in_it(vae, tmp_path):
    shutil.copytree(vae, tmp_path / "pipeline" / "vae")
    assert frozen_autoencoder(str(tmp_path / "pipeline")).digest == frozen_autoencoder(vae).digest


# What cannot be ------------------------------------------------------------------------------------------------------


def test_an_autoencoder_that_is_missing_or_pickled_is_refused(vae, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot be read .there is no such folder.. Give"):
        frozen_autoencoder(str(tmp_path / "nowhere"))
    pickled = tmp_path / "pickled"
    shutil.copytree(vae, pickled)
    net = frozen_autoencoder(vae).net
    (pickled / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(net.state_dict(), pickled / "diffusion_pytorch_model.bin")
    with warnings.catch_warnings(), pytest.raises(FileNotFoundError, match="cannot be read"):
        frozen_autoencoder(str(pickled))


def test_a_network_of_another_kind_is_refused(vae, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(vae, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"_class_name": "VQModel"}))
    with pytest.raises(ValueError, match="is VQModel, and latents are taken of AutoencoderKL or AutoencoderDC"):
        frozen_autoencoder(str(other))


def test_latents_of_another_shape_than_the_models_are_refused(folder, vae):
    with pytest.raises(ValueError, match=r"have 4 channels and the model's images 3: set model\.channels to 4"):
        prepare(DataConfig(source=str(folder), latents=vae), size=(GRID, GRID), channels=3)
    frozen = frozen_autoencoder(vae)
    with pytest.raises(ValueError, match="sides are multiples of 2, got"):
        frozen.encode(torch.zeros(1, 3, 15, 16))
    with pytest.raises(ValueError, match="have 4 channels, got"):
        frozen.decode(torch.zeros(1, 3, 8, 8))


def test_a_model_of_pixels_and_data_of_latents_are_not_mixed(folder, vae, tiny_run):
    config = config_of(tiny_run, folder, vae)
    data = prepare(config.data, size=config.model.image_size, channels=4)
    mixed = dataclasses.replace(config, model=dataclasses.replace(config.model, latents=None))
    with pytest.raises(ValueError, match=r"The model is one of pixels \(model.latents\) and its data of .*: a model knows"):
        ImageSubject(mixed, data)
