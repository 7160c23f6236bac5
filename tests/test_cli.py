"""The commands, as a person types them."""

import contextlib
import dataclasses
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

import diffae
from diffae import cli
from diffae.cli import inputs, priors
from diffae.config.presets import PRESETS
from diffae.interop.parts import available_priors, priors_of_labels
from diffae.runtime import cores
from diffae.semantics.prior import GaussianPrior, KernelPrior, LatentPrior

FIXTURES = Path(__file__).parent / "fixtures" / "official"

SMALL = """
--model.image-size 16 16 --model.z-dim 4 --model.unet.base-channels 8 --model.unet.channel-mult 1 2
--model.unet.embed-channels 8 --model.encoder.base-channels 8 --model.encoder.channel-mult 1 2
--training.batch-size 4 --training.precision float32
""".split()


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def fails(capsys, *args):
    """The one line that a failing command prints."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(args))
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return " ".join(error.split())


def test_the_version_is_said(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out == f"diffae {diffae.__version__}\n"


def test_every_command_has_help_with_an_example(capsys):
    for command in cli.COMMANDS:
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
    small = PRESETS["avatars32"]
    small = replace(small, data=replace(small.data, avatars=24, validation=0.4))
    small = replace(small, training=replace(small.training, batch_size=4))
    networks = replace(small.model.unet, base_channels=8), replace(small.model.encoder, base_channels=8)
    small = replace(small, model=replace(small.model, unet=networks[0], encoder=networks[1]))
    monkeypatch.setitem(PRESETS, "avatars32", small)
    monkeypatch.setattr("diffae.evaluation.pages.report.STEPS", 2)
    monkeypatch.setattr("diffae.evaluation.pages.figures.STEPS", 2)
    cli.main(["quickstart", "--images", "8", "--out", str(tmp_path / "quick")])
    out, err = capsys.readouterr()
    assert f"Open {tmp_path / 'quick' / 'report.html'}" in out
    assert "First picture:" in err
    assert (tmp_path / "quick" / "pictures" / "data.png").is_file()
    page = (tmp_path / "quick" / "report.html").read_text()
    assert all(words in page for words in ("Smiling", "New images", "Attributes are directions"))
    assert diffae.load(tmp_path / "quick").prior is not None
    cli.main(["quickstart", "--images", "8", "--out", str(tmp_path / "quick")])
    assert "Open" in capsys.readouterr().out, "a second time makes the page anew"
    cli.main(["quickstart", "--images", "16", "--out", str(tmp_path / "quick")])
    assert "its prior is trained anew" in capsys.readouterr().err
    assert diffae.load(tmp_path / "quick", prior="ddim").prior is not None


def test_training_takes_the_cores_that_others_leave(make_images, tmp_path, capsys, monkeypatch):
    command = ["train", str(make_images(12)), "--preset", "avatars32", "--out", str(tmp_path / "run"), *SMALL]
    monkeypatch.setattr(cores, "usable_cores", lambda: {0, 1, 4, 5})
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    taken = []
    monkeypatch.setattr("torch.set_num_threads", taken.append)
    for images, (busy, told) in enumerate({0.3: None, 1.2: "OMP_NUM_THREADS=3", 4.0: "OMP_NUM_THREADS=1", None: None}.items()):
        monkeypatch.setattr(cores, "busy_cores", lambda busy=busy: busy)
        cli.main([*command, "--images", str(4 + 4 * images)])
        error = " ".join(capsys.readouterr().err.split())
        assert ("Other processes use" in error) == (told is not None)
        assert told is None or f"Other processes use {busy} of 4 cores" in error
        assert told is None or told in error
    assert not taken, "how many the user chose stays"
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(cores, "busy_cores", lambda: 1.2)
    cli.main([*command, "--images", "20"])
    assert "training takes 3 of 4 threads" in " ".join(capsys.readouterr().err.split())
    assert taken == [3]
    monkeypatch.setattr(cores, "busy_cores", lambda: 0.3)
    cli.main([*command, "--images", "24"])
    assert "threads" not in capsys.readouterr().err
    assert taken == [3]


def test_a_run_goes_on_with_its_own_budget_where_none_is_named(make_images, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("diffae.cli.training.train", lambda config, out: asked.append(config.training))
    command = ["train", str(make_images(12)), "--preset", "avatars32", "--out", str(tmp_path / "run")]
    cli.main(command)
    usual = PRESETS["avatars32"].training
    assert (asked[-1].images, asked[-1].minutes) == (usual.images, usual.minutes)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({"training": {"images": 30_000, "minutes": None}}))
    for words, found in (
        ([], (30_000, None)),
        (["--minutes", "3"], (None, 3.0)),
        (["--training.minutes", "9"], (usual.images, 9.0)),
    ):
        cli.main([*command, *words])
        assert (asked[-1].images, asked[-1].minutes) == found


def test_training_that_is_interrupted_ends_with_130_so_that_nothing_goes_on_with_half_a_model(
    trained, make_images, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("diffae.training.run.stop_requested", lambda: contextlib.nullcontext(lambda: True))
    shutil.copytree(trained / "run", tmp_path / "run")
    for command in (
        ["train", str(make_images(12)), "--preset", "avatars32", "--out", str(tmp_path / "new"), "--images", "800", *SMALL],
        ["train-prior", str(tmp_path / "run"), "--images", "800", "--model.width", "8", "--model.layers", "3"],
    ):
        AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(SystemExit) as stopped:
            cli.main(command)
        assert stopped.value.code == 130
        assert "everything is saved. The same command goes on from here." in " ".join(capsys.readouterr().err.split())


def test_busy_cores_are_those_that_this_process_may_use(tmp_path, monkeypatch):
    file, counted = tmp_path / "stat", "cpu  9 9 9 9 9 9 9 9 9 9\n{}\ncpu10 1 1 1 100 1 1 1 1 0 0\nintr 3 4\n"
    before, after = "cpu1 100 0 20 800 80 0 0 0 0 0", "cpu1 130 5 30 840 85 3 2 5 9 9"
    file.write_text(counted.format(before))
    monkeypatch.setattr(cores, "STATISTICS", file)
    monkeypatch.setattr("time.sleep", lambda _: file.write_text(counted.format(after)))
    monkeypatch.setattr(cores, "usable_cores", lambda: {1, 10})
    assert cores.busy_cores() == pytest.approx(55 / 100)
    file.write_text(counted.format(before))
    monkeypatch.setattr(cores, "usable_cores", lambda: {0, 2})
    assert cores.busy_cores() is None
    monkeypatch.setattr("time.sleep", lambda _: file.write_text(""))
    file.write_text("")
    assert cores.busy_cores() is None
    file.unlink()
    assert cores.busy_cores() is None


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_colours):
    """A run of a few steps on labelled images, and the folder of the images."""
    AcceleratorState._reset_state(reset_partial_state=True)
    root = tmp_path_factory.mktemp("trained")
    colours = write_colours(root / "images", 40)
    lines = ["file,Red,Size", *(f"{i:02d}.png,{int(red > 127)},{green}" for i, (red, green, _) in enumerate(colours))]
    (root / "images" / "labels.csv").write_text("\n".join(lines) + "\n")
    command = ["train", str(root / "images"), "--preset", "avatars32", "--out", str(root / "run"), "--images", "64", *SMALL]
    cli.main([*command, "--data.validation", "0.3"])
    return root


def test_a_prior_does_not_go_on_with_another_encoders_codes(trained, tmp_path, capsys):
    shutil.copytree(trained / "run", tmp_path / "run")
    run = str(tmp_path / "run")
    small = ["--model.width", "8", "--model.layers", "3", "--training.batch-size", "8", "--training.precision", "float32"]
    cli.main(["train-prior", run, "--images", "16", *small])
    before = (tmp_path / "run" / "priors" / "ddim" / "model" / "model.safetensors").read_bytes()
    ae = diffae.load(run)
    next(ae.encoder.parameters()).data += 0.1
    ae.prior = ae.standardizer = None
    ae.save_pretrained(tmp_path / "run" / "model")
    with pytest.raises(SystemExit):
        cli.main(["train-prior", run, "--images", "32", *small])
    assert "was trained on z_sem of another encoder" in capsys.readouterr().err
    assert (tmp_path / "run" / "priors" / "ddim" / "model" / "model.safetensors").read_bytes() == before
    cli.main(["train-prior", run, "--images", "16", "--name", "other", *small])


def test_from_a_run_to_attributes_priors_samples_and_edits(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, images = str(trained / "run"), trained / "images"
    pair = [str(images / "00.png"), str(images / "01.png")]
    cli.main(["fit-attributes", run])
    assert "attributes: Red, Size, and 4 components" in capsys.readouterr().out
    cli.main(["train-prior", run, "--preset", "gaussian"])
    small = ["--model.width", "8", "--model.layers", "3", "--training.batch-size", "8", "--training.precision", "float32"]
    cli.main(["train-prior", run, "--preset", "kernel"])
    assert "the prior holds 26 codes of training images" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(priors, "LEAST_TOLD", 7)
    cli.main(["train-prior", run, "--images", "32", "--name", "mine", *small])
    said = capsys.readouterr()
    assert "mine: sample with" in said.out
    assert re.search(
        r"Told from held-out codes .*: \d\.\d\d; of `--preset gaussian` \d\.\d\d, `kernel` \d\.\d\d", " ".join(said.err.split())
    )
    assert diffae.load(run).attributes.names == ["Red", "Size"]
    # Measured ones come first, the best of them at the head; those that were not, by name.
    assert available_priors(Path(run)) == ["mine", "gaussian", "kernel"]
    told = Path(run) / "priors/mine/measured.json"
    assert 0.5 <= json.loads(told.read_text())["told"] <= 1
    (Path(run) / "priors/kernel/measured.json").write_text('{"told": 0.5, "n": 7}')
    assert isinstance(diffae.load(run).prior, KernelPrior)
    told.write_text('{"told": 3, "n": 7}')
    with pytest.raises(ValueError, match=r"measured\.json: told must be"):
        diffae.load(run)
    # One that was fitted to codes of another encoder is not taken while there are others.
    told.write_text('{"told": 0.6, "n": 7}')
    stored = Path(run) / "priors/kernel/model/config.json"
    config = stored.read_text()
    stored.write_text(config.replace(json.loads(config)["encoder"], "0" * 64))
    assert isinstance(diffae.load(run).prior, LatentPrior)
    stored.write_text(config)
    told.unlink()
    (Path(run) / "priors/kernel/measured.json").unlink()
    assert isinstance(diffae.load(run).prior, GaussianPrior)

    # Of the images with a label: each by its own name, and none unless it is named.
    with pytest.raises(SystemExit):
        cli.main(["train-prior", run, "--preset", "kernel", "--given", "Red"])
    assert "too few for a prior of their own" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(priors, "LEAST_GIVEN", 5)
    everyone = diffae.load(run, prior="kernel")
    for given in ("Red", "not Red"):
        cli.main(["train-prior", run, "--preset", "kernel", "--given", given])
    assert '--prior "kernel not Red"' in capsys.readouterr().out
    red, other = (diffae.load(run, prior=f"kernel {name}") for name in ("Red", "not Red"))
    assert (red.prior.given, other.prior.given, everyone.prior.given) == ("Red", "not Red", None)
    assert "of images with the label `Red` alone" in red.model_card("red")
    assert len(red.prior.codes) + len(other.prior.codes) == len(everyone.prior.codes)
    labels = [line.split(",") for line in (images / "labels.csv").read_text().split()[1:]]
    codes = red.standardizer(red.encode(inputs.pictures(red, [images / name for name, *_ in labels], None)))
    nearest = torch.cdist(red.prior.codes, codes).min(1)
    assert float(nearest.values.max()) < 1e-3
    assert {labels[i][1] for i in nearest.indices} == {"1"}
    assert torch.equal(red.standardizer.mean, everyone.standardizer.mean)
    # One that is trained, whatever it is called: it is neither taken unasked nor made one of another label.
    cli.main(["train-prior", run, "--given", "Red", "--name", "reds", "--images", "16", *small])
    assert '--prior "reds"' in capsys.readouterr().out
    (Path(run) / "priors/reds/measured.json").write_text('{"told": 0.5, "n": 7}')
    assert diffae.load(run, prior="reds").prior.given == "Red"
    diffae.load(run, prior="reds").save_pretrained("reds")
    assert diffae.load("reds").prior.given == "Red"
    for more in (["--given", "not Red"], []):
        error = fails(capsys, "train-prior", run, "--name", "reds", "--images", "32", *more, *small)
        assert "is a prior of Red, not of" in error
    assert "which this would replace" in fails(capsys, "train-prior", run, "--preset", "kernel", "--name", "reds", "--given", "Red")
    assert "is a prior of Red" in fails(capsys, "train-prior", run, "--preset", "kernel", "--name", "kernel Red")
    assert "There is no label 'Rad'" in fails(capsys, "train-prior", run, "--preset", "kernel", "--given", "Rad")
    some = inputs.images(red, run, None).with_label("Red")
    others = dataclasses.replace(some, train=np.setdiff1d(np.arange(40), some.train)[: len(some.train)])
    assert len(some.train) == len(others.train)
    assert some.identity != others.identity, "a corrected table makes another set"
    # No prior of all images is left: what there is is named, and none of it taken.
    shutil.copytree(
        run, "alone", ignore=shutil.ignore_patterns("gaussian", "kernel", "kernel not Red", "mine", "ddim", "checkpoints")
    )
    assert "name one with --prior, kernel Red, reds" in fails(capsys, "sample", "alone")
    assert available_priors(Path(run)) == ["gaussian", "kernel", "mine"]
    assert priors_of_labels(Path(run)) == ["kernel Red", "kernel not Red", "reds"]
    assert isinstance(diffae.load(run).prior, GaussianPrior)

    quick = ["--steps", "2"]
    cli.main(["reconstruct", run, *pair, *quick])
    assert "00.png: MSE" in capsys.readouterr().out
    cli.main(["vary", run, *pair, "--num", "3", *quick])
    cli.main(["interpolate", run, *pair, "--frames", "3", *quick])
    cli.main(["interpolate", run, *pair, "--frames", "3", "--geodesic", "--out", "around.png", *quick])
    assert Path("around.png").is_file()
    cli.main(["interpolate", run, *pair, pair[0], "--frames", "3", "--out", "morph.gif", *quick])
    cli.main(["manipulate", run, *pair, "--attribute", "Red", "--keep", "Size", "--strengths", "-0.3", "0.3", *quick])
    assert "00.png: Red" in capsys.readouterr().out
    cli.main(["manipulate", run, *pair, "--attribute", "Red", "--target-probability", "0.9", "--out", "target.webp", *quick])
    assert "-> 0.9" in capsys.readouterr().out
    cli.main(["manipulate", run, *pair, "--attribute", "pc1", "--out", "pc.png", *quick])
    single = ["--attribute", "Red", "--out", "edited"]
    assert "is written once: give one of --strengths, or --target-prob" in fails(capsys, "manipulate", run, *pair, *single)
    twice = ["manipulate", run, *pair, pair[0], *single, "--strengths", "0.3"]
    assert "Two of the images would be one file, edited/00.png: edit them in two calls, to two folders" in fails(capsys, *twice)
    cli.main(["manipulate", run, *pair, *single, "--strengths", "0.3", *quick])
    assert "edited/00.png is there, and may be of another image" in fails(
        capsys, "manipulate", run, *pair, *single, "--strengths", "0.3"
    )
    for name in ("1.2.840.1.5", "1.2.840.1.6"):
        shutil.copy(pair[0], name)
    cli.main(["manipulate", run, "1.2.840.1.5", "1.2.840.1.6", *single, "--strengths", "0.3", *quick])
    for name in ("00.png", "01.png", "1.2.840.1.5.png", "1.2.840.1.6.png"):
        with Image.open(tmp_path / "edited" / name) as edited:
            assert edited.size == (16, 16)
    cli.main(["sample", run, "--num", "3", "--prior", "mine", "--prior-steps", "2", "--out", "folder", *quick])
    cli.main(
        ["sample", run, "--num", "3", "--prior", "mine", "--precision", "bfloat16", "--out", "low", "--prior-steps", "2", *quick]
    )
    cli.main(["sample", run, "--num", "3", "--prior", "gaussian", "--attribute", "Red", "--absent", *quick])
    assert "proposals were accepted" in capsys.readouterr().err
    cli.main(["neighbours", run, pair[0], "--num", "2"])
    assert "00.png: 00.png (0.00)" in capsys.readouterr().out
    cli.main(["encode", run, str(images)])
    written = {p.name for p in tmp_path.iterdir() if p.suffix or p.is_dir()}
    pictures = {f"{c}.png" for c in ("reconstruct", "vary", "interpolate", "manipulate", "pc", "samples", "neighbours")}
    assert written >= pictures | {"morph.gif", "target.webp", "folder", "codes.parquet"}
    with Image.open(tmp_path / "morph.gif") as moving:
        assert moving.n_frames == 2 * 7 - 2
    exact, low = (np.stack([np.asarray(Image.open(p)) for p in sorted((tmp_path / f).iterdir())]) for f in ("folder", "low"))
    assert len(exact) == 3
    assert 0 < np.abs(exact.astype(int) - low).max() <= 8, "the same samples, but for rounding"


def test_a_model_is_handed_on_in_a_folder_with_its_card(trained, tmp_path, capsys):
    run, out = str(trained / "run"), tmp_path / "models" / "mine"
    cli.main(["fit-attributes", run])
    for _ in range(2):  # A card of one's own is written anew.
        cli.main(["export", run, str(out), "--licence", "mit", "--data", "forty squares", "--dtype", "bfloat16"])
    assert f"Load it with diffae.load({out.as_posix()!r})" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    card = (out / "README.md").read_text()
    for said in ('license: "mit"', "Data: forty squares", f'diffae.load("{out.as_posix()}")', "| Red |"):
        assert said in card
    mine, theirs = diffae.load(out), diffae.load(run)
    assert mine.attributes.names == theirs.attributes.names
    x = torch.rand(4, *mine.image_shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z_sem = theirs.encode(x)
    assert 0 < float((mine.encode(x) - z_sem).norm() / z_sem.norm()) < 0.05


def test_a_few_labels_choose_samples_with_and_without_negatives(trained, tmp_path, capsys):
    run = str(trained / "run")
    cli.main(["train-prior", run, "--preset", "gaussian"])
    for name, negative in (("few.csv", "0"), ("pu.csv", "")):
        rows = [f"{i:02d}.png,{1 if i < 10 else negative}" for i in range(40)]
        (tmp_path / name).write_text("file,Mine\n" + "\n".join(rows) + "\n")
        sample = ["sample", run, "--num", "2", "--steps", "2", "--prior", "gaussian", "--attribute", "Mine"]
        cli.main([*sample, "--labels", str(tmp_path / name), "--out", str(tmp_path / "s.png")])
        assert f"10 positive and 30 {'negative' if negative else 'unlabelled'} images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["manipulate", "{run}", "{image}", "--attribute", "Smiling"], "There is no attribute 'Smiling'. Fitted are: Red, Size"),
        (
            ["manipulate", "{run}", "{image}", "--attribute", "Red", "--strengths", "nan"],
            "--strengths must be at least -100 and at most 100",
        ),
        (["manipulate", "{run}", "missing.png", "--attribute", "Red"], "There is no image missing.png"),
        (["reconstruct", "{run}", "{labels}"], "labels.csv is not an image in any format"),
        (["sample", "{run}", "--prior", "other"], "There is no prior 'other' beside"),
        (["sample", "{run}", "--num", "39", "--out", "{images}"], "images holds 39.png, which would lie among the 39 new images"),
        (
            ["sample", "{run}", "--prior", "gaussian", "--attribute", "Mine", "--labels", "{labels}"],
            "has no column 'Mine'. It has: Red, Size",
        ),
        (["fit-attributes", "{run}", "--labels", "{wrong}"], "names none of the 40 images"),
        (["fit-attributes", "{model}"], "is no training run, so it has no images of its own: name them with --data"),
        (["train-prior", "{run}", "--preset", "kernel", "--minutes", "5"], "--preset kernel needs no training: leave --minutes"),
        (["train-prior", "{run}", "--preset", "gaussian", "--model.width", "8"], "--preset gaussian needs no training"),
        (["sample", "{run}", "--labels", "few.csv"], "are about what images should show: name an --attribute"),
        (["sample", "{run}", "--max-proposals", "7"], "are about what images should show: name an --attribute"),
        (["sample", "{run}", "--attribute", "Red", "--data", "photos"], "--data photos names the images of the table of --labels"),
        (["manipulate", "{run}", "{image}", "--from", "edit.json"], "leave images away, and all options but"),
        (["manipulate", "{run}", "--from", "edit.json", "--steps", "3"], "leave images away, and all options but"),
        (["manipulate", "{run}", "--from", "edit.json", "--values", "a.npy"], "leave images away, and all options but"),
        (
            ["manipulate", "{run}", "{image}", "--attribute", "Red", "--strengths", "0.1", "--target-probability", "0.9"],
            "--strengths says how far to move, and so does a target",
        ),
        (
            ["manipulate", "{run}", "{image}", "--attribute", "Red", "--target-value", "3", "--target-probability", "0.9"],
            "A target probability and a target value say two things of one move",
        ),
        (["import", "last.ckpt", "--statistics", "s.safetensors", "--out", "{project}"], "are for a classifier: give it too"),
        (["import", str(FIXTURES / "last.ckpt"), "--preset", "ffhq128", "--out", "{project}"], "leave --preset away"),
        *(
            (["train-prior", "{run}", *name], "cannot be the name of a prior's folder: give another --name")
            for name in (["--given", "a/b"], ["--name", "faces/v2"], ["--name", ".."], ["--name", "."], ["--name", ""])
        ),
        (["train-prior", "{run}", "--preset", "latent11"], "There is no prior preset 'latent11'. There are: latent10"),
        (["interpolate", "{run}", "{image}"], "A path needs at least two images, got 1"),
        (
            ["interpolate", "{run}", "{image}", "{image}", "--data", "photos"],
            "--data photos names the images that --geodesic passes",
        ),
        (
            ["interpolate", "{run}", "{image}", "{image}", "--steps", "2", "--out", "a.avi"],
            "its ending may be '.png', '.gif', '.webp', '.mp4'",
        ),
        (["encode", "nowhere", "{images}"], "nowhere is no folder"),
        (["export", "{run}", "{run}"], "is a training run, whose config.json would be lost. Name another folder"),
        (["average", "{run}", "--out", "{run}"], "is a training run, whose config.json would be lost. Name another folder"),
        (["import", "last.ckpt", "--out", "{run}"], "is a training run, whose config.json would be lost. Name another folder"),
        (["export", "{run}", "{project}"], "README.md is no model card, and one would take its place. Name another folder"),
    ],
)
def test_bad_input_to_what_is_fitted_is_one_clear_line(args, message, trained, tmp_path, capsys):
    cli.main(["fit-attributes", str(trained / "run")])
    cli.main(["train-prior", str(trained / "run"), "--preset", "gaussian"])
    capsys.readouterr()
    (tmp_path / "wrong.csv").write_text("file,Red\nnot_there.png,1\n")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("# Mine\n")
    places = {"run": trained / "run", "model": trained / "run" / "model", "images": trained / "images"}
    places |= {"image": trained / "images" / "00.png", "labels": trained / "images" / "labels.csv", "wrong": tmp_path / "wrong.csv"}
    places["project"] = tmp_path / "project"
    assert message in fails(capsys, *[a.format(**places) for a in args])


def test_weights_that_are_there_are_only_checked(capsys, monkeypatch, tmp_path):
    fetched = []
    monkeypatch.setattr("diffae.frozen.weights.find_weights", lambda name: (Path(f"/there/{name}"), None))
    monkeypatch.setattr("diffae.frozen.weights.fetch_weights", fetched.append)
    cli.main(["weights", "--networks", "alexnet", "inception"])
    assert capsys.readouterr().out == "alexnet: /there/alexnet\ninception: /there/inception\n"
    assert not fetched


def test_evaluate_writes_a_page_of_tables(trained, tmp_path, capsys):
    run = str(trained / "run")
    suites = ["--suite", "reconstruction", "denoising", "attributes"]
    command = ["evaluate", run, "--out", str(tmp_path / "out"), "--num", "4", "--steps", "2", "4", *suites]
    cli.main(["fit-attributes", run])
    cli.main(command)
    assert f"Open {tmp_path / 'out' / 'report.html'}" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "diffae, random x_T, T = 4" in page
    measured = sorted((tmp_path / "out" / "measured").iterdir())
    cli.main(command)
    assert sorted((tmp_path / "out" / "measured").iterdir()) == measured
    turned = tmp_path / "turned.csv"
    rows = (trained / "images" / "labels.csv").read_text().splitlines()
    turned.write_text(
        "\n".join([rows[0], *(f"{f},{1 - int(red)},{size}" for f, red, size in (row.split(",") for row in rows[1:]))])
    )
    cli.main([*command, "--labels", str(turned)])
    assert len(list((tmp_path / "out" / "measured").iterdir())) > len(measured), "what was measured with other labels is not taken"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num", "400"], "400 test images were asked for and"),
        (["--ddim", "{run}"], "is an autoencoder; --ddim takes a plain DDIM"),
        (["--suite", "generation", "--num-inception", "4", "--weights", "{nowhere}"], "The weights of inception"),
    ],
)
def test_evaluate_says_what_is_missing(trained, tmp_path, capsys, arguments, message):
    places = {"run": trained / "run", "nowhere": tmp_path}
    arguments = [a.format(**places) for a in arguments]
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(trained / "run"), "--out", str(tmp_path / "out"), "--num", "4", "--steps", "2", *arguments])
    assert message in " ".join(capsys.readouterr().err.split())


def test_each_inversion_can_be_asked_for_and_anchored_is_exact(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, image = str(trained / "run"), str(trained / "images" / "00.png")
    errors = {}
    for inversion in ("anchored", "fast", "refine", "reversible", "bdia", "official"):
        cli.main(["reconstruct", run, image, "--steps", "4", "--inversion", inversion, "--out", f"{inversion}.png"])
        errors[inversion] = float(capsys.readouterr().out.split("MSE ")[1].split()[0])
        assert (tmp_path / f"{inversion}.png").is_file()
    assert errors["anchored"] < 1e-8
    assert max(errors["reversible"], errors["bdia"]) < 1e-6
    assert errors["fast"] > errors["anchored"]
    with pytest.raises(SystemExit):
        cli.main(["reconstruct", run, image, "--inversion", "magic"])


def test_an_error_of_the_program_itself_can_be_followed(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def broken(*args, **kwargs):
        raise TypeError("no such thing")

    monkeypatch.setattr("diffae.cli.inputs.autoencoder", broken)
    line = ["sample", "runs/x", "--out", "a.png"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(line)
    assert stopped.value.code == 1
    said = capsys.readouterr()
    assert "error: no such thing" in said.out + said.err
    assert "--traceback shows where it came from" in said.out + said.err
    with pytest.raises(TypeError, match="no such thing"):
        cli.main([*line, "--traceback"])
