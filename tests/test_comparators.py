"""Autoencoders of other families: what the tables need of them, and their training by the one run."""

import json
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState

from diffae import cli
from diffae.config import ComparatorConfig, ComparatorRunConfig, DataConfig, TrainingConfig
from diffae.config.presets import comparator
from diffae.data import prepare
from diffae.interop import comparators
from diffae.interop.comparators import Comparator
from diffae.runtime.seeding import Draws
from diffae.training.comparators import ComparatorSubject
from diffae.training.run import train

SMALL = ComparatorConfig(image_size=(16, 16), latent_channels=2, base_channels=8, codebook=16)


@pytest.fixture(params=["vae", "vq"])
def model(request):
    torch.manual_seed(0)
    return Comparator(replace(SMALL, kind=request.param)).eval()


def images(n=4):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_latents_are_flat_and_make_images(model):
    z = model.encode(images())
    assert z.shape == (4, 2 * 4 * 4) == (4, model.latent_size)
    assert model.decode(z).shape == (4, 3, 16, 16)
    assert model.title == f"{model.config.kind}, 32 values"
    torch.testing.assert_close(model.encode(images()), z)


def test_latents_of_a_codebook_are_its_entries():
    torch.manual_seed(0)
    model = Comparator(replace(SMALL, kind="vq"))
    vectors = model.encode(images()).unflatten(1, model.grid).permute(0, 2, 3, 1).reshape(-1, 2)
    book = model.net.quantize.embedding.weight
    assert torch.cdist(vectors, book).min(1).values.max() < 1e-5


def test_every_weight_learns_of_images(model):
    """A VAE's encoder from the error of its images too, not from what keeps its latents near to normal alone."""
    model.config = replace(model.config, kl_weight=0.0)
    model.train()
    model.loss(images(), Draws.of(4, 0)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_the_loss_depends_on_its_draws_alone():
    torch.manual_seed(0)
    model = Comparator(SMALL)
    x = images()
    torch.manual_seed(1)
    a = model.loss(x, Draws.of(4, 0))
    torch.manual_seed(2)
    assert torch.equal(model.loss(x, Draws.of(4, 0)), a)
    assert not torch.equal(model.loss(x, Draws.of(4, 0, start=4)), a)


def test_the_divergence_counts_as_much_as_it_is_told():
    torch.manual_seed(0)
    light, heavy = Comparator(SMALL), Comparator(replace(SMALL, kl_weight=1e-2))
    heavy.load_state_dict(light.state_dict())
    with torch.no_grad():
        kl = light.net.encode(images()).latent_dist.kl().mean()
        difference = heavy.loss(images(), Draws.of(4, 0)) - light.loss(images(), Draws.of(4, 0))
    assert float(difference) == pytest.approx(float(kl) * (1e-2 - 1e-6), rel=1e-3)


def test_a_saved_comparator_is_the_same(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    again = comparators.load(tmp_path / "saved")
    assert again.config == model.config
    torch.testing.assert_close(again.decode(again.encode(images())), model.decode(model.encode(images())))


@pytest.mark.parametrize("kind", ["vae", "vq"])
def test_it_trains_by_the_one_run_and_goes_on(kind, make_images, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    data = prepare(DataConfig(source=str(make_images()), validation=0.25), size=(16, 16), channels=3)
    training = TrainingConfig(images=64, batch_size=8, learning_rate=2e-3, log_every=8, validate_every=32, sample_every=64,
                              checkpoint_every=32, ema_decay=0.9, precision="float32")  # fmt: skip
    config = ComparatorRunConfig(model=replace(SMALL, kind=kind), data=data.config, training=training)
    events = list(train(ComparatorSubject(config, data), tmp_path / "run"))
    assert events[-1].images == 64
    losses = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    held = [m["validation/loss"] for m in losses if "validation/loss" in m]
    assert held[-1] < held[0]
    assert list((tmp_path / "run" / "pictures").iterdir())
    assert comparators.load(tmp_path / "run").config.kind == kind
    more = replace(config, training=replace(training, images=80))
    events = list(train(ComparatorSubject(more, data), tmp_path / "run"))
    assert (events[0].images, events[-1].images) == (64, 80)


def test_its_training_is_the_presets_but_for_what_is_the_autoencoders_own():
    config = comparator("avatars32", kind="vq", latent_channels=3)
    assert config.model.image_size == (32, 32)
    assert config.model.latent_channels == 3
    assert config.training.learning_rate_schedule == "constant"
    assert config.training.batch_size == 16
    assert not config.training.whitened_start


def test_a_size_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match=r"Images of 18 x 16 cannot be halved 2 times"):
        Comparator(replace(SMALL, image_size=(18, 16)))


def test_it_stands_beside_the_autoencoder_in_the_tables(make_images, tmp_path, capsys):
    AcceleratorState._reset_state(reset_partial_state=True)
    source = make_images(40)
    lines = [f"{i:03d}.png,{i % 2}" for i in range(40)]
    (source / "labels.csv").write_text("\n".join(["file,Odd", *lines]) + "\n")
    small = ["--model.image-size", "16", "16", "--model.z-dim", "4", "--model.unet.base-channels", "8", "--model.unet.channel-mult",
             "1", "2", "--model.encoder.base-channels", "8", "--model.encoder.channel-mult", "1", "2"]  # fmt: skip
    more = ["--training.precision", "float32", "--data.validation", "0.4"]
    cli.main(["train", str(source), "--preset", "avatars32", "--out", str(tmp_path / "ae"), "--images", "16", *small, *more])
    AcceleratorState._reset_state(reset_partial_state=True)
    other = ["--preset", "avatars32", "--kind", "vq", "--latent-channels", "1", "--halvings", "3", "--images", "16"]
    cli.main(["train-comparator", str(source), *other, "--validation", "0.4", "--out", str(tmp_path / "vq")])
    held = [(tmp_path / name / "data.txt").read_text().split(" (")[0] for name in ("ae", "vq")]
    assert held == ["26 images to train on and 14 held out"] * 2, "which a hash of their names chooses, whatever their size"
    command = ["evaluate", str(tmp_path / "ae"), "--num", "4", "--steps", "2", "--suite", "reconstruction", "attributes"]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main([*command, "--comparators", str(tmp_path / "vq"), "--out", str(tmp_path / "out")])
    assert "is of other images than the autoencoder" in " ".join(capsys.readouterr().err.split())
    config = tmp_path / "vq" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"data": {"source": str(source), "validation": 0.05}}))
    with pytest.raises(SystemExit):
        cli.main([*command, "--comparators", str(tmp_path / "vq"), "--out", str(tmp_path / "out")])
    error = " ".join(capsys.readouterr().err.split())
    assert "vq was trained with data.validation 0.05 and the images measured here are held out by 0.4" in error
    torch.manual_seed(0)
    Comparator(SMALL).save_pretrained(tmp_path / "vae")
    cli.main([*command, "--comparators", str(tmp_path / "vae"), "--out", str(tmp_path / "out")])
    text = (tmp_path / "out" / "tables.md").read_text()
    assert text.count("\n| vae, 32 values") == 1, "a row of distances"
    assert text.count("| vae, 32 values |\n") == 2, "a column of AUROC and one of average precision"
    assert "z_sem tells attributes better than vae, 32 values" in text
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main([*command, "--comparators", str(tmp_path / "vae"), str(tmp_path / "vae"), "--out", str(tmp_path / "out")])
    assert "a second one that a table would call 'vae, 32 values'" in " ".join(capsys.readouterr().err.split())
