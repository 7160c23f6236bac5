"""A model knows how its images were prepared, and every way into it prepares them alike."""

import json
import shutil

import pytest
import torch
from PIL import Image
from runs import run

import diffae
from diffae import cli
from diffae.config import Preparation
from diffae.data.codes import read_codes
from diffae.data.images import load_images
from diffae.interop import official
from diffae.studio.workshop import Workshop

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def wide(tiny_run, make_images, tmp_path):
    """A run on wide, half transparent images, which are squeezed and lie on blue; and the folder of the images."""
    root = make_images(12, size=(40, 16))
    for file in root.iterdir():
        picture = Image.open(file).convert("RGBA")
        picture.putalpha(128)
        picture.save(file)
    run(tiny_run(images=16, source=root, data={"crop": "none", "background": (0, 0, 255)}), tmp_path / "run")
    return tmp_path / "run", root


def codes_of(run, data, out):
    cli.main(["encode", str(run), str(data), "--out", str(out)])
    return read_codes(out).z_sem


def test_a_model_carries_how_its_images_were_prepared(wide, tmp_path):
    ae = diffae.load(wide[0])
    assert ae.preparation == Preparation(crop="none", background=(0, 0, 255))
    ae.save_pretrained(tmp_path / "saved")
    assert diffae.load(tmp_path / "saved").preparation == ae.preparation


def test_an_exported_models_codes_are_those_of_the_run(wide, tmp_path, capsys):
    source, root = wide
    cli.main(["export", str(source), str(tmp_path / "handed-on")])
    own, handed_on = (codes_of(m, root, tmp_path / f"{i}.parquet") for i, m in enumerate((source, tmp_path / "handed-on")))
    assert torch.equal(own, handed_on)


def test_single_files_are_prepared_as_the_runs_images(wide, tmp_path, capsys):
    source, root = wide
    file = root / "000.png"
    cli.main(["neighbours", str(source), str(file), "--num", "1", "--out", str(tmp_path / "n.png")])
    assert f"{file}: 000.png (0.00)" in capsys.readouterr().out
    ae, z_sem = diffae.load(source), read_codes(next((source / "codes").iterdir())).z_sem
    uploaded = ae.encode(Workshop(ae, None, None, name="wide").open_files([file]))
    assert torch.allclose(uploaded, z_sem[:1], atol=1e-6)
    x = load_images([file], size=(8, 8), channels=3, preparation=ae.preparation)
    assert torch.allclose(ae.encode(x), z_sem[:1], atol=1e-6)


def test_a_crop_can_be_said_for_images_that_are_cropped_already(wide, tmp_path, capsys):
    source, root = wide
    file = root / "000.png"
    for out, more in (("as-trained", []), ("center", ["--crop", "center"])):
        cli.main(["reconstruct", str(source), str(file), "--steps", "2", "--out", str(tmp_path / f"{out}.png"), *more])
    assert (tmp_path / "as-trained.png").read_bytes() != (tmp_path / "center.png").read_bytes()


def test_a_model_that_was_saved_before_it_knew_takes_what_its_run_says(wide, tmp_path):
    file = wide[0] / "model" / "config.json"
    saved = json.loads(file.read_text())
    del saved["preparation"]
    file.write_text(json.dumps(saved))
    assert diffae.load(wide[0]).preparation == Preparation(crop="none", background=(0, 0, 255))
    shutil.copytree(wide[0] / "model", tmp_path / "alone")
    assert diffae.load(tmp_path / "alone").preparation == Preparation()


def test_the_range_of_deep_images_travels_too(tiny_run, tmp_path):
    root = tmp_path / "deep"
    root.mkdir()
    for i in range(8):
        Image.frombytes("I;16", (16, 16), (b"%c\x0f" % i) * 256).save(root / f"{i}.tif")
    run(tiny_run(images=8, source=root, data={"range": (0.0, 4095.0)}), tmp_path / "run")
    ae = diffae.load(tmp_path / "run")
    assert ae.preparation.range == (0, 4095)


def test_the_authors_celeba_models_want_their_crop():
    hyper = {"data_name": "celebalmdb"}
    assert official.preparation(hyper).crop == "celeba"
    assert official.preparation({"data_name": "ffhqlmdb256"}) == Preparation()


@pytest.mark.parametrize("limits", [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_range_is_two_numbers_the_smaller_first(limits):
    with pytest.raises(ValueError, match="range must be two numbers, the smaller first"):
        Preparation(range=limits)
