"""The recipes: they can be started, and what they do with files is right. What they reach stands in each."""

import gzip
import importlib.util
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from diffae.config import DataConfig
from diffae.data import ImageSet, prepare

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.py"))


def recipe(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_does_and_what_it_reached(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert "--out" in capsys.readouterr().out
    text = recipe(name).__doc__
    assert f"python recipes/{name}.py" in text
    assert "seed" in text
    assert f"{name}.py" in (FOLDER / "README.md").read_text()


def test_fashion_images_are_read_in_their_order(tmp_path):
    pixels = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)
    for part, header, content in (("images-idx3", 16, pixels.tobytes()), ("labels-idx1", 8, bytes([7, 0, 9]))):
        with gzip.open(tmp_path / f"train-{part}-ubyte.gz", "wb") as file:
            file.write(bytes(header) + content)
    y = recipe("fashion_mnist").write_images(tmp_path, tmp_path / "images", "train", 2)
    assert y.tolist() == [7, 0]
    assert sorted(p.name for p in (tmp_path / "images" / "train").iterdir()) == ["00000.png", "00001.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "images" / "train" / "00001.png")), pixels[1])


def test_no_person_is_on_both_sides_of_a_fold(tmp_path):
    for subject in range(1, 11):
        (tmp_path / f"s{subject}").mkdir()
        for i in range(3):
            Image.fromarray(np.full((8, 8), 10 * subject + i, np.uint8)).save(tmp_path / f"s{subject}" / f"{i}.png")
    photos = prepare(DataConfig(source=str(tmp_path)), size=(8, 8), channels=1)
    folds = recipe("orl_faces").over_subjects(photos, seed=0)
    held = []
    for fold in folds:
        people = [{Path(photos.names[i]).parent.name for i in part} for part in (fold.train, fold.validation)]
        assert not people[0] & people[1]
        assert len(people[1]) == 2
        held += people[1]
    assert len(set(held)) == 10, "everybody is held out once"


def test_a_fold_measures_pixels_beside_z_sem(tmp_path, tiny):
    orl = recipe("orl_faces")
    assert orl.settings(tmp_path, 1.0, 3).training.seed == 3
    assert orl.settings(tmp_path, 1.0, 3).model.channels == 1
    assert orl.small_pixels(torch.rand(4, 1, 32, 32)).shape == (4, 256)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (40, 1, 32, 32)).astype(np.uint8)
    labels = {a: rng.permutation(np.arange(40.0) % 2) for a in orl.ATTRIBUTES}
    first = orl.ATTRIBUTES[0]
    pixels[labels[first] == 1] += 150
    data = ImageSet([f"s{i}/0.png" for i in range(40)], pixels, labels, np.arange(30), np.arange(30, 40), [], DataConfig(), "")
    encoded = []

    class Dark:
        """Of which z_sem says nothing of the attribute that pixels show."""

        def encode(self, x):
            encoded.append(len(x))
            return torch.randn(len(x), 3, generator=torch.Generator().manual_seed(len(x)))

    _, scores = orl.probe(Dark(), data)
    assert set(scores) == {f"{a}, {name}" for a in orl.ATTRIBUTES for name in ("z_sem", "16x16 pixels", "32x32 pixels")}
    assert encoded == [30, 10]
    assert scores[f"{first}, 16x16 pixels"] == scores[f"{first}, 32x32 pixels"] == 1
    assert scores[f"{first}, z_sem"] < 0.95
    # Of those that are held out: their labels turned around, what was told is told wrong.
    turned = labels | {first: np.where(np.arange(40) < 30, labels[first], 1 - labels[first])}
    assert orl.probe(Dark(), replace(data, labels=turned))[1][f"{first}, 32x32 pixels"] == 0


def orl_photos(folder):
    """Photographs of ten people as the set has them, and its table: glasses by person, smiles by photograph, some unsure."""
    rng = np.random.default_rng(0)
    lines = ["file,subject,glasses,smiling,facial_hair"]
    for subject in range(1, 11):
        (folder / f"s{subject}").mkdir(parents=True)
        for i in range(1, 5):
            name = f"s{subject}/{i}.pgm"
            Image.fromarray(rng.integers(0, 256, (12, 10), np.uint8)).save(folder / name)
            lines.append(f"{name},{subject},{subject % 2},{-1 if i == 4 else i % 2},{int(subject > 5)}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder, folder / "labels.csv"


def test_photographs_keep_their_pixels_their_people_and_what_is_unsure(tmp_path):
    faces, labels = orl_photos(tmp_path / "faces")
    recipe("orl_faces").write_photos(faces, labels, tmp_path / "photos")
    photos = prepare(DataConfig(source=str(tmp_path / "photos"), validation=0.3), size=(12, 10), channels=1)
    assert len(photos.names) == 40
    for i, name in enumerate(photos.names):
        subject, number = int(Path(name).parent.name[1:]), int(Path(name).stem)
        there = np.asarray(Image.open(faces / Path(name).with_suffix(".pgm")))
        assert np.array_equal(np.asarray(Image.open(tmp_path / "photos" / name)), there)
        assert photos.labels["glasses"][i] == subject % 2
        assert np.isnan(photos.labels["smiling"][i]) if number == 4 else photos.labels["smiling"][i] == number % 2
    held = {Path(photos.names[i]).parent.name for i in photos.validation}
    assert held
    assert not held & {Path(photos.names[i]).parent.name for i in photos.train}, "a person is on one side alone"


def test_errors_of_a_fold_are_of_the_photographs_that_were_chosen():
    pixels = np.repeat(np.array([0, 255, 255, 51, 204], np.uint8), 4).reshape(5, 1, 2, 2)
    data = ImageSet([f"s{i}/1.png" for i in range(5)], pixels, {}, np.arange(3), np.arange(3, 5), [], DataConfig(), "")
    asked = {}

    class Off:
        """Whose images are off by known amounts on the scale of [-1, 1]."""

        def encode(self, x):
            return x

        def reconstruct(self, x, **settings):
            asked.update(settings)
            return x + 0.2

        def decode_mean(self, z_sem):
            return z_sem - 0.6

    found = recipe("orl_faces").errors(Off(), data, [3, 4], 7)
    assert asked["steps"] == 7
    # The mean photograph is 2/3; the two are 1/5 and 4/5.
    mean = ((2 / 3 - 1 / 5) ** 2 + (4 / 5 - 2 / 3) ** 2) / 2
    assert found == pytest.approx({"MSE, z_sem and x_T": 0.01, "MSE, z_sem alone": 0.09, "MSE, mean photograph": mean}, rel=1e-5)


def test_a_row_of_edits_is_one_attribute_and_strength(monkeypatch):
    orl = recipe("orl_faces")
    x = torch.linspace(-1, 1, 3 * 8 * 8).reshape(3, 1, 8, 8)
    shown = {}
    monkeypatch.setattr(orl, "sheet", lambda rows, *, scale, names: shown.update(zip(names, rows, strict=True)))

    class Shifting:
        """Whose z_sem says what was asked for, and is drawn as it is."""

        def infer(self, x, *, steps):
            return SimpleNamespace(x_T=x, z_sem=torch.zeros(len(x)))

        def edit(self, z_sem, name, *, strength):
            return z_sem + strength + 10 * orl.ATTRIBUTES.index(name)

        def render(self, code, *, z_sem):
            return code.x_T + z_sem.view(-1, 1, 1, 1)

    orl.edits(Shifting(), x, 4)
    assert torch.equal(shown.pop("photograph"), x)
    assert len(shown) == 2 * len(orl.STRENGTHS)
    for i, name in enumerate(("glasses", "smiling")):
        for strength in orl.STRENGTHS:
            assert torch.allclose(shown[f"{name} {strength:+.1f}"] - x, torch.tensor(strength + 10.0 * i))


class Stub(torch.nn.Module):
    """Stands in for Inception, AlexNet and VGG16: features of one argument, distances of two."""

    def forward(self, x, y=None):
        if y is not None:
            return (x - y).square().flatten(1).mean(1)
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


@pytest.mark.filterwarnings("ignore:x_T has a standard deviation")  # Nobody has trained for long here.
def test_the_papers_protocol_runs_from_the_data_to_its_tables(tmp_path, tiny, monkeypatch, capsys):
    """All commands of the recipe, on images and networks that are too small for anything but this."""
    pytest.importorskip("lmdb")
    pytest.importorskip("diffusers")
    from test_published_sets import annotations, authors

    from diffae import cli
    from diffae.config import presets, protocols
    from diffae.evaluation.suites import bench

    small = replace(tiny, image_size=(16, 16))
    training = replace(presets.preset("ffhq128").training, images=16, batch_size=8, precision="float32")
    for name, model in (("ffhq128", small), ("ffhq128-ddim", replace(small, z_dim=None))):
        monkeypatch.setitem(presets.PRESETS, name, replace(presets.preset(name), model=model, training=training))
    prior = presets.prior_preset("latent10")
    monkeypatch.setitem(
        presets.PRIOR_PRESETS, "latent10", replace(prior, model=replace(prior.model, layers=2, width=16), training=training)
    )
    for name in ("celebahq128", "ffhq128"):
        few = replace(protocols.protocol(name), num=12, num_inception=24, steps=(2,), generation_steps=(2,))
        monkeypatch.setitem(protocols.PROTOCOLS, name, replace(few, attributes=("Bald",)))
    monkeypatch.setattr(bench, "load_network", lambda name, weights: (Stub(), f"{name}.pth"))
    ffhq, celebahq = authors(tmp_path / "ffhq256.lmdb", num=60), authors(tmp_path / "celebahq256.lmdb", num=24)
    table = annotations(tmp_path / "CelebAMask-HQ-attribute-anno.txt", [f"{i}.jpg" for i in range(24)])

    def command(arguments):
        AcceleratorState._reset_state(reset_partial_state=True)
        cli.main(arguments)

    celebahq128, out = recipe("celebahq128"), tmp_path / "out"
    celebahq128.main(ffhq, celebahq, table, out=out, images=16, plan=True, run=lambda arguments: pytest.fail("not a plan"))
    assert "In all about 20 hours of an A100" in capsys.readouterr().out
    celebahq128.main(ffhq, celebahq, table, out=out, images=16, run=command)
    results = json.loads((out / "celebahq128" / "results.json").read_text())["results"]
    rows = {(r["suite"], r["model"], r["metric"]): r for r in results}
    for model in ("diffae, inferred x_T", "ddim", "vae, 512 values"):
        assert ("reconstruction", model.replace("512", "8"), "mse") in rows, "16 x 16 images leave 1 x 1 x 8 values"
    assert rows["reconstruction", "ddim", "mse"]["n"] == 12 > len(celebahq_held_out(celebahq)), "the model saw none of them"
    assert ("attributes", "z_sem", "auroc") in rows
    assert ("manipulation", "sdedit, 0.5", "flipped") in rows
    generated = json.loads((out / "generation" / "results.json").read_text())["results"]
    assert {r["n"] for r in generated if r["model"].startswith("diffae, prior")} == {24}
    assert {r["suite"] for r in generated} == {"generation"}


def celebahq_held_out(source):
    return prepare(DataConfig(source=str(source), validation=0.3), size=(16, 16), channels=3).validation


def test_each_dimension_is_trained_alike_and_all_are_compared(tmp_path):
    commands = []
    recipe("dimensions").main("photos", out=tmp_path, dims=(8, 16), images=100, run=commands.append)
    assert [c[0] for c in commands] == ["train", "evaluate", "train", "evaluate", "compare"]
    first, second = commands[0], commands[2]
    differing = {(a, b) for a, b in zip(first, second, strict=True) if a != b}
    assert differing == {("8", "16"), (str(tmp_path / "d8"), str(tmp_path / "d16"))}
    assert commands[-1][1:3] == [str(tmp_path / f"evaluation d = {d}") for d in (8, 16)]
