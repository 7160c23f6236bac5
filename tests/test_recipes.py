"""The recipes: they can be started, and what they do with files is right. What they reach stands in each."""

import gzip
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffae.config import DataConfig
from diffae.data import prepare

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.py"))


def recipe(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_does_and_what_it_reached(name):
    out = subprocess.run([sys.executable, str(FOLDER / f"{name}.py"), "--help"], capture_output=True, text=True, check=True)
    assert "--out" in out.stdout
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
    x = torch.rand(4, 1, 32, 32)
    assert orl.small_pixels(x).shape == (4, 256)
