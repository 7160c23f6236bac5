"""The commands, as a person types them."""

import json
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

import diffae
from diffae import cli
from diffae.presets import PRESETS

FIXTURES = Path(__file__).parent / "fixtures" / "official"

SMALL = """
--model.image-size 16 16 --model.z-dim 4 --model.unet.base-channels 8 --model.unet.channel-mult 1 2
--model.unet.embed-channels 8 --model.encoder.base-channels 8 --model.encoder.channel-mult 1 2
--training.batch-size 4 --training.precision float32
""".split()  # noqa: SIM905 - as a person types it


@pytest.fixture(autouse=True)
def fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def fails(capsys, *args):
    """The one line that a failing command prints."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(args))
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return " ".join(error.split())


def test_every_command_has_help_with_an_example(capsys):
    for command in ("quickstart", "train", "import"):
        with pytest.raises(SystemExit) as stopped:
            cli.main([command, "--help"])
        assert stopped.value.code == 0
        assert f"Example: diffae {command}" in " ".join(capsys.readouterr().out.split())


def test_training_a_folder_and_loading_it(make_images, tmp_path, capsys):
    folder, out = make_images(12), tmp_path / "run"
    (folder / "broken.png").write_text("no image")
    command = ["train", str(folder), "--preset", "avatars32", "--out", str(out), "--images", "16", *SMALL]
    cli.main(command)
    said = capsys.readouterr().err
    assert "1 of 13 images were skipped" in said
    assert "broken.png is not an image" in said
    assert "Done:" in said
    ae = diffae.load(out)
    assert ae.encode(torch.zeros(1, 3, 16, 16)).shape == (1, 4)
    config = json.loads((out / "config.json").read_text())
    assert config["preset"] == "avatars32"
    assert config["data"]["source"] == str(folder)
    assert config["model"]["prediction"] == "v", "what is not overridden is the preset's"


def test_presets_set_the_defaults_that_help_shows(capsys):
    for name in ("ffhq256", "avatars32"):
        with pytest.raises(SystemExit):
            cli.main(["train", "--preset", name, "--help"])
        h, w = PRESETS[name].model.image_size
        assert f"(default: {h} {w})" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "missing", "--out", "{out}"], "There is no missing. Give a folder of images"),
        (["train", "{images}", "--out", "{out}", "--preset", "avatar32"], "There is no preset 'avatar32'. There are: celeba64"),
        (["train", "{images}", "--out", "{images}"], "is not empty and holds no run"),
        (["train", "{images}", "--out", "{out}", "--model.image-size", "36", "36"], "need image sides divisible by"),
        (["import", "missing.ckpt", "--out", "{out}"], "There is no checkpoint file missing.ckpt"),
        (["import", "{images}/000.png", "--out", "{out}"], "cannot be read as a checkpoint"),
    ],
)
def test_bad_input_is_one_clear_line(args, message, make_images, tmp_path, capsys):
    places = {"images": make_images(4), "out": tmp_path / "out"}
    assert message in fails(capsys, *[a.format(**places) for a in args])


def test_an_unknown_setting_is_refused_by_its_flag(make_images, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", str(make_images(4)), "--out", str(tmp_path / "out"), "--model.unet.base-chanels", "3"])
    assert stopped.value.code == 2
    assert "--model.unet.base-chanels" in capsys.readouterr().err


def test_importing_the_authors_checkpoint(tmp_path, capsys):
    cli.main(["import", str(FIXTURES / "last.ckpt"), "--out", str(tmp_path / "model")])
    assert "3 channels, 32 x 32, z_sem of 48 dimensions, with latent prior" in capsys.readouterr().out
    ema = diffae.load(tmp_path / "model").unet.conv_in.weight
    cli.main(["import", str(FIXTURES / "last.ckpt"), "--out", str(tmp_path / "raw"), "--raw"])
    assert not torch.equal(diffae.load(tmp_path / "raw").unet.conv_in.weight, ema)


def test_the_quick_start_ends_with_a_page(tmp_path, capsys, monkeypatch):
    from dataclasses import replace

    small = PRESETS["avatars32"]
    small = replace(small, data=replace(small.data, avatars=24, validation=0.4))
    small = replace(small, training=replace(small.training, batch_size=4))
    networks = replace(small.model.unet, base_channels=8), replace(small.model.encoder, base_channels=8)
    small = replace(small, model=replace(small.model, unet=networks[0], encoder=networks[1]))
    monkeypatch.setitem(PRESETS, "avatars32", small)
    monkeypatch.setattr("diffae.evaluation.report.STEPS", 2)
    monkeypatch.setattr("diffae.evaluation.report.FIGURE_STEPS", 2)
    cli.main(["quickstart", "--images", "8", "--out", str(tmp_path / "quick")])
    out, err = capsys.readouterr()
    assert f"Open {tmp_path / 'quick' / 'report.html'}" in out
    assert "First picture:" in err
    assert (tmp_path / "quick" / "pictures" / "data.png").is_file()
    assert "Smiling" in (tmp_path / "quick" / "report.html").read_text()
    cli.main(["quickstart", "--images", "8", "--out", str(tmp_path / "quick")])
    assert "Open" in capsys.readouterr().out, "a second time makes the page anew"
