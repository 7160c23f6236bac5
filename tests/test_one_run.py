"""A run is of the images that it began with, by one process, of however few images."""

import os

import pytest
from PIL import Image
from runs import run

from diffae.data import prepare
from diffae.runtime.files import InUse
from diffae.training.run import Logged, resolve, train
from diffae.training.subjects import ImageSubject

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def test_a_run_goes_on_with_the_images_that_it_began_with_and_no_others(tiny_run, make_images, tmp_path):
    root = make_images()
    first, second = (root / f"{i:03d}.png" for i in range(2))
    content = first.read_bytes()
    run(tiny_run(images=16, source=root), tmp_path / "run")
    Image.new("RGB", (16, 16), "red").save(root / "another.png")
    with pytest.raises(ValueError, match=r"not those that .*run began with\. There it was 17 images to train on and 7 held out"):
        run(tiny_run(images=32, source=root), tmp_path / "run")
    (root / "another.png").unlink()
    first.write_bytes(second.read_bytes())
    with pytest.raises(ValueError, match="not those that"):
        run(tiny_run(images=32, source=root), tmp_path / "run")
    first.write_bytes(content)
    run(tiny_run(images=32, source=root), tmp_path / "run")


def test_a_run_does_not_go_on_with_others_held_out(tiny_run, make_images, tmp_path):
    root = make_images()
    run(tiny_run(images=16, source=root), tmp_path / "run")
    (root / "labels.csv").write_text("file,group\n" + "".join(f"{i:03d}.png,{i // 8}\n" for i in range(24)))
    with pytest.raises(ValueError, match="not those that"):
        run(tiny_run(images=32, source=root), tmp_path / "run")
    (tmp_path / "run" / "data.txt").unlink()
    run(tiny_run(images=32, source=root), tmp_path / "run")


def test_a_run_is_trained_by_one_process_at_a_time(tiny_run, tmp_path):
    config = resolve(tiny_run(images=32), tmp_path / "run")
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    first = train(ImageSubject(config, data), tmp_path / "run")
    next(first)
    with pytest.raises(InUse, match=rf"run is in use: process {os.getpid()} on \S+ is training there\. Wait for it, or end it"):
        next(train(ImageSubject(config, data), tmp_path / "run"))
    first.close()
    assert [type(e).__name__ for e in train(ImageSubject(config, data), tmp_path / "run")][-1] == "Finished"


@pytest.mark.parametrize("num", [1, 2, 31])
def test_one_image_or_copies_of_one_can_be_trained_on(tiny_run, tmp_path, num):
    (tmp_path / "few").mkdir()
    for i in range(num):
        Image.new("RGB", (16, 16), "red").save(tmp_path / "few" / f"{i}.png")
    events = run(tiny_run(images=16, source=tmp_path / "few", data={"validation": 0.0}, whitened_start=True), tmp_path / "run")
    assert all(e.loss < float("inf") for e in events if isinstance(e, Logged))
