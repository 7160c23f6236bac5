"""Training that starts from trained weights: what fits is taken, what does not is named, and what is frozen stays."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import checkpoint, run
from test_nn import perturb

import diffae
from diffae import cli
from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import RunConfig, StartConfig, TrainingConfig
from diffae.data import prepare
from diffae.training.run import Noted, resolve, train
from diffae.training.starting import take_weights, trained_model
from diffae.training.subjects import ImageSubject

AUTHORS = Path(__file__).parent / "fixtures" / "official" / "last.ckpt"


@pytest.fixture
def trained(tiny, tmp_path):
    """A saved model, with weights of its own everywhere."""
    torch.manual_seed(7)
    model = perturb(DiffusionAutoencoder(tiny)).eval()
    model.save_pretrained(tmp_path / "trained")
    return model


def starting(config, model, **start):
    return replace(config, start=StartConfig(model=str(model), **start))


def test_every_weight_that_fits_is_taken(tiny, trained):
    fresh = DiffusionAutoencoder(tiny)
    found = take_weights(fresh, trained)
    assert not found.fresh
    assert not found.unused
    assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), trained.state_dict().values(), strict=True))


def test_what_does_not_fit_keeps_fresh_weights_and_is_named(tiny, trained):
    other = DiffusionAutoencoder(replace(tiny, image_size=(16, 16), channels=1, z_dim=9))
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    found = take_weights(other, trained)
    wanted = {
        "unet.conv_in.weight",
        "unet.conv_out.weight",
        "unet.conv_out.bias",
        "encoder.conv_in.weight",
        "encoder.linear.weight",
    }
    assert wanted <= set(found.fresh)
    assert all("conv_in.weight" in n or "conv_out" in n or "linear" in n or "semantics.weight" in n for n in found.fresh), (
        found.fresh
    )
    for name, tensor in other.state_dict().items():
        expected = before[name] if name in found.fresh else trained.state_dict()[name]
        assert torch.equal(tensor, expected), name
    total = len(found.taken) + len(found.fresh)
    assert str(found).startswith(
        f"{len(found.taken)} of {total} weights were taken; fresh are {len(found.fresh)}: unet.conv_in.weight"
    )
    plain = diffae.DDIM(replace(tiny, z_dim=None))
    unused = take_weights(plain, trained).unused
    assert "encoder.conv_in.weight" in unused
    assert all(name.startswith("encoder.") or "semantics" in name for name in unused)


def test_networks_of_other_widths_are_refused(tiny, trained):
    wide = replace(
        tiny, unet=replace(tiny.unet, base_channels=16, embed_channels=32), encoder=replace(tiny.encoder, base_channels=16)
    )
    with pytest.raises(ValueError, match="None of its weights fits: the networks have other widths"):
        take_weights(DiffusionAutoencoder(replace(wide, channels=1, z_dim=9)), trained)


def test_a_run_says_what_it_took_and_goes_on_bit_for_bit(tiny_run, trained, tmp_path):
    config = starting(tiny_run(images=32, model={"z_dim": 9}), tmp_path / "trained")
    whole = run(config, tmp_path / "whole")
    said = [event.text for event in whole if isinstance(event, Noted)]
    assert said[0].startswith(f"Starting from {tmp_path / 'trained'}: ")
    written = json.loads((tmp_path / "whole" / "config.json").read_text())["start"]
    assert "encoder.linear.weight" in written["fresh"]
    run(config, tmp_path / "parts", stop_after=24)
    again = run(config, tmp_path / "parts")
    assert not any(isinstance(event, Noted) and "Starting from" in event.text for event in again)
    expected, found = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(ValueError, match=r"start\.model is '.*trained' there and None now"):
        resolve(tiny_run(images=32, model={"z_dim": 9}), tmp_path / "whole")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("freeze", ["encoder", "decoder"])
def test_what_is_frozen_stays_and_the_rest_is_trained(tiny_run, trained, tmp_path, freeze, precision):
    config = starting(tiny_run(images=32, precision=precision, muon_rate=3.0), tmp_path / "trained", freeze=freeze)
    run(config, tmp_path / "run")
    model = diffae.load(tmp_path / "run")
    kept, moved = (model.encoder, model.unet) if freeze == "encoder" else (model.unet, model.encoder)
    before_kept, before_moved = (trained.encoder, trained.unet) if freeze == "encoder" else (trained.unet, trained.encoder)
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), before_kept.parameters(), strict=True))
    assert sum(not torch.equal(a, b) for a, b in zip(moved.parameters(), before_moved.parameters(), strict=True)) > 5
    names = [name for name in checkpoint(tmp_path / "run") if name.startswith(("exp_avg/", "momentum/"))]
    assert names
    assert not any(name.split("/")[1].startswith("encoder." if freeze == "encoder" else "unet.") for name in names)


def test_the_trained_half_moves_as_it_would_alone(tiny_run, trained, tmp_path):
    """Gradients of a frozen encoder's decoder are those of the decoder with its codes given."""
    config = starting(tiny_run(images=8, precision="float32"), tmp_path / "trained", freeze="encoder")
    data = prepare(config.data, size=(8, 8), channels=3)
    subject = ImageSubject(config, data)
    model = subject.build()
    subject.begin(model)
    draws = diffae.autoencoder.Draws.of(4, 0)
    batch = subject.batch(range(4))
    subject.loss(model, batch, draws).backward()
    found = [p.grad.clone() for p in model.unet.parameters()]
    assert all(p.grad is None for p in model.encoder.parameters())
    model.zero_grad()
    x, _, _ = subject.view(batch, draws)
    model.loss(x, draws, z_sem=trained.encoder(x).detach()).backward()
    for a, b in zip(found, model.unet.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad)


def test_settings_that_contradict_one_another_are_refused(tiny, tiny_run, tmp_path):
    with pytest.raises(ValueError, match=r"training\.whitened_start sets the encoder's last layer anew, and start\.model"):
        RunConfig(start=StartConfig(model="m"), training=TrainingConfig(whitened_start=True))
    with pytest.raises(ValueError, match=r"start\.freeze keeps the encoder as it begins, which is at random\. Give start\.model"):
        RunConfig(start=StartConfig(freeze="encoder"))
    config = starting(tiny_run(), "somewhere", freeze="encoder")
    with pytest.raises(ValueError, match="A plain DDIM has no encoder to freeze"):
        ImageSubject(replace(config, model=replace(tiny, z_dim=None)), prepare(config.data, size=(8, 8), channels=3)).build()
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        trained_model("nowhere")


def test_the_command_has_the_networks_of_what_it_starts_from(trained, tmp_path, write_colours, capsys):
    write_colours(tmp_path / "images", 12)
    small = ["--images", "8", "--training.batch-size", "4", "--training.precision", "float32"]
    own = ["train", str(tmp_path / "images"), "--from", str(tmp_path / "trained"), "--freeze", "encoder", *small]
    cli.main([*own, "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert "Starting from" in error
    total = len([name for name in trained.state_dict() if name.startswith(("unet.", "encoder."))])
    assert f"{total} of {total} weights were taken." in error.replace("\n", " ")
    again = diffae.load(tmp_path / "run")
    assert again.config == trained.config
    assert torch.equal(again.encoder.linear.weight, trained.encoder.linear.weight)


def test_the_authors_checkpoint_is_a_start(tiny_run, tmp_path):
    theirs = trained_model(str(AUTHORS))
    config = starting(replace(tiny_run(images=8), model=theirs.config), AUTHORS)
    config = resolve(config, tmp_path / "run")
    data = prepare(config.data, size=theirs.config.image_size, channels=3)
    events = list(train(ImageSubject(config, data), tmp_path / "run"))
    assert any(isinstance(event, Noted) and "weights were taken." in event.text for event in events)


def test_a_run_goes_on_when_the_model_that_it_started_from_is_gone(trained, tmp_path, write_colours, monkeypatch):
    write_colours(tmp_path / "images", 12)
    monkeypatch.chdir(tmp_path)
    common = (
        "--out run --preset avatars32 --training.batch-size 8 --training.precision float32 --training.checkpoint-every 8".split()
    )
    cli.main(["train", "images", "--from", "trained", *common, "--images", "16"])
    (tmp_path / "trained").rename(tmp_path / "elsewhere")
    cli.main(["train", "images", "--from", "trained", *common, "--images", "32"])
    assert max(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == "images-000000000032.safetensors"
    cli.main(["train", "images", "--from=trained", "--out=run", *common[2:], "--images", "40"])
    with pytest.raises(SystemExit):
        cli.main(["train", "images", "--from", "trained", *common[2:], "--out", "another", "--images", "16"])


def test_what_is_frozen_is_no_other_in_an_average_of_the_past(tiny_run, trained, tmp_path):
    from diffae.training.averages import average

    run(starting(tiny_run(images=40, average_every=8), tmp_path / "trained", freeze="decoder"), tmp_path / "run")
    (_, weights), *_ = average(tmp_path / "run" / "averages", [0.01])
    for name, tensor in trained.unet.state_dict().items():
        assert torch.equal(weights[f"unet.{name}"], tensor), name
    moved = [not torch.equal(weights[f"encoder.{name}"], tensor) for name, tensor in trained.encoder.state_dict().items()]
    assert all(moved)
