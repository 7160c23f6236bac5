"""Moving pictures are what was put into them, and image files arrive as a model wants them."""

import io
import os
import re
import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from diffae.config import Preparation
from diffae.data.images import load_images
from diffae.pictures import save_animation

KINDS = ("gif", "webp", "mp4")
COLOURS = [(230, 30, 30), (30, 200, 30), (30, 30, 230), (220, 220, 40)]


def frames_of(colours=COLOURS, size=(32, 24)):
    """One frame a colour, with a black corner, so that orientation shows."""
    frames = [Image.new("RGB", size, colour) for colour in colours]
    for frame in frames:
        frame.paste((0, 0, 0), (0, 0, size[0] // 2, size[1] // 2))
    return frames


def read_back(file):
    """The frames of a file as (n, h, w, 3), and how long each stands, in seconds."""
    if file.suffix.lower() != ".mp4":
        with Image.open(file) as moving:
            frames = [(np.asarray(f.convert("RGB")), f.info["duration"] / 1000) for f in ImageSequence.Iterator(moving)]
        return np.stack([pixels for pixels, _ in frames]), frames[0][1]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-threads", "1", "-i", str(file), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    width, height, rate = re.search(rb"Video: h264.* (\d+)x(\d+)[ ,].* ([\d.]+) fps", done.stderr).groups()
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, int(height), int(width), 3), 1 / float(rate)


def differences(a, b):
    """Mean difference of every frame of `a` from every one of `b`, in 0..255."""
    return np.abs(a[:, None].astype(float) - b[None].astype(float)).mean((2, 3, 4))


def broken_frame():
    """A frame whose file turns out to be cut short when its pixels are wanted."""
    content = io.BytesIO()
    Image.effect_noise((32, 24), 90).convert("RGB").save(content, "PNG")
    return Image.open(io.BytesIO(content.getvalue()[: len(content.getvalue()) // 2]))


# Moving pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_frames_go_there_and_back_and_look_as_they_did(tmp_path, kind):
    frames = frames_of()
    file = save_animation(frames, tmp_path / "deep" / f"a.{kind}", seconds=0.1)
    assert file == tmp_path / "deep" / f"a.{kind}"
    again, seconds = read_back(file)
    expected = np.stack([np.asarray(frames[i]) for i in (0, 1, 2, 3, 2, 1)])
    assert again.shape == expected.shape
    assert differences(again, expected).diagonal().max() < 8
    assert seconds == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num", [1, 2])
def test_one_or_two_frames_are_enough_and_are_not_doubled(tmp_path, kind, num):
    frames = frames_of(COLOURS[:num])
    file = save_animation(frames, tmp_path / f"a.{kind}")
    if num == 1 and kind != "mp4":
        with Image.open(file) as still:
            assert getattr(still, "n_frames", 1) == 1
            assert np.abs(np.asarray(still.convert("RGB")).astype(float) - np.asarray(frames[0])).mean() < 8
    else:
        assert len(read_back(file)[0]) == num


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_gif_or_webp_never_stops(tmp_path, kind):
    with Image.open(save_animation(frames_of(), tmp_path / f"a.{kind}")) as moving:
        assert moving.info["loop"] == 0


def test_a_suffix_in_capitals_is_the_same_kind(tmp_path):
    with Image.open(save_animation(frames_of(), tmp_path / "A.GIF")) as moving:
        assert (moving.format, moving.n_frames) == ("GIF", 6)


@pytest.mark.parametrize("size", [(31, 24), (32, 23), (17, 9)])
def test_odd_sides_of_an_mp4_become_even_by_a_white_border(tmp_path, size):
    again, _ = read_back(save_animation(frames_of(size=size), tmp_path / "a.mp4"))
    width, height = size
    assert again.shape[1:3] == (height + height % 2, width + width % 2)
    # Colours are stored for 2 x 2 pixels at once: the last of the picture's own is left out, the border is judged by brightness.
    expected = np.stack([np.asarray(frame) for frame in frames_of(size=size)])
    inner = (slice(None), slice(0, height - height % 2), slice(0, width - width % 2))
    assert differences(again[:4][inner], expected[inner]).diagonal().max() < 10
    border = again[:4, :, width:] if width % 2 else again[:4, height:]
    luma = border.astype(float) @ [0.299, 0.587, 0.114]
    assert luma.mean() > 200


def test_grey_frames_make_an_mp4_too(tmp_path):
    again, _ = read_back(save_animation([Image.new("L", (16, 16), grey) for grey in (20, 120, 220)], tmp_path / "a.mp4"))
    assert again.mean((1, 2, 3)) == pytest.approx([20, 120, 220, 120], abs=4)


@pytest.mark.parametrize("name", ["a.png", "a.avi", "a"])
def test_another_kind_of_file_is_refused_before_anything_is_written(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"a[.\w]* is no kind of file for moving pictures: name it .gif, .webp or .mp4"):
        save_animation(frames_of(), file)
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [name]


def interrupt(file):
    """A write that meets a damaged frame half way."""
    with pytest.raises(OSError, match="truncated"):
        save_animation([*frames_of()[:2], broken_frame(), *frames_of()[2:]], file)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_write_leaves_the_old_file(tmp_path, kind):
    file = save_animation(frames_of(), tmp_path / f"a.{kind}")
    before = file.read_bytes()
    interrupt(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", ["gif", "webp", "mp4"])
def test_an_interrupted_write_leaves_nothing_behind(tmp_path, kind):
    interrupt(tmp_path / f"a.{kind}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_write_replaces_the_old_file(tmp_path, kind):
    file = tmp_path / f"a.{kind}"
    file.write_bytes(b"old")
    save_animation(frames_of(), file)
    assert len(read_back(file)[0]) == 6
    assert os.listdir(tmp_path) == [file.name]


def test_without_imageio_ffmpeg_an_mp4_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"Writing .mp4 needs imageio-ffmpeg: pip install 'diffae\[studio\]'"):
        save_animation(frames_of(), tmp_path / "a.mp4")
    assert os.listdir(tmp_path) == []
    assert save_animation(frames_of(), tmp_path / "a.gif").is_file()


# Image files ---------------------------------------------------------------------------------------------------------


def saved(tmp_path, image, name="a.png"):
    image.save(tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_black_is_minus_one_and_white_is_one_in_any_number_of_channels(tmp_path, channels):
    files = [saved(tmp_path, Image.new("RGB", (8, 8), colour), f"{colour}.png") for colour in ("black", "white")]
    x = load_images(files, size=(8, 8), channels=channels, preparation=Preparation())
    assert x.shape == (2, channels, 8, 8)
    assert x.dtype == torch.float32
    assert (x[0, :3] == -1).all()
    assert (x[1, :3] == 1).all()
    assert (x[:, 3:] == 1).all(), "a picture without transparency is opaque"


def test_every_level_of_eight_bits_arrives_where_the_paper_has_it(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    x = load_images([saved(tmp_path, Image.fromarray(levels))], size=(16, 16), channels=1, preparation=Preparation())
    expected = torch.from_numpy(levels.astype(np.float32)) / 127.5 - 1
    assert torch.allclose(x[0, 0], expected, atol=1e-6)


def test_grey_becomes_three_equal_channels_and_colour_its_brightness(tmp_path):
    grey = saved(tmp_path, Image.new("L", (8, 8), 51), "grey.png")
    red = saved(tmp_path, Image.new("RGB", (8, 8), (255, 0, 0)), "red.png")
    assert torch.allclose(
        load_images([grey], size=(8, 8), channels=3, preparation=Preparation()), torch.full((1, 3, 8, 8), 51 / 127.5 - 1)
    )
    assert load_images([red], size=(8, 8), channels=1, preparation=Preparation()).mean().item() == pytest.approx(
        2 * 0.299 - 1, abs=0.01
    )


def test_what_shows_through_is_the_background_unless_the_model_has_alpha(tmp_path):
    file = saved(tmp_path, Image.new("RGBA", (8, 8), (255, 0, 0, 0)))
    white, blue = (
        load_images([file], size=(8, 8), channels=3, preparation=Preparation(background=b)) for b in ((255, 255, 255), (0, 0, 255))
    )
    assert (white == 1).all()
    assert blue[0, :, 0, 0].tolist() == [-1, -1, 1]
    assert load_images([file], size=(8, 8), channels=4, preparation=Preparation())[0, 3].eq(-1).all()
    half = load_images(
        [saved(tmp_path, Image.new("RGBA", (8, 8), (255, 0, 0, 128)))], size=(8, 8), channels=3, preparation=Preparation()
    )
    assert half[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0], abs=0.01)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_told_apart_where_eight_would_not(tmp_path, channels):
    levels = np.full((8, 8), 32768, np.uint16)
    levels[:, 4:] = 32800
    levels[0, 0], levels[7, 7] = 0, 65535
    x = load_images([saved(tmp_path, Image.fromarray(levels))], size=(8, 8), channels=channels, preparation=Preparation())
    expected = torch.from_numpy(levels.astype(np.float32)) / 32767.5 - 1
    assert torch.allclose(x[0, 0], expected, atol=1e-6)
    assert x[0, 0, 2, 6] > x[0, 0, 2, 2]
    assert len(x[0]) == channels
    assert (x[0, 3:] == 1).all()


def test_files_of_all_sizes_keep_their_order_and_get_the_models_size(tmp_path):
    sizes = [(8, 8), (40, 10), (13, 31), (100, 80)]
    files = [saved(tmp_path, Image.new("RGB", size, (60 * i, 0, 0)), f"{9 - i}.png") for i, size in enumerate(sizes)]
    x = load_images(files, size=(8, 16), channels=3, preparation=Preparation())
    assert x.shape == (4, 3, 8, 16)
    assert x[:, 0].mean((1, 2)).tolist() == pytest.approx([60 * i / 127.5 - 1 for i in range(4)], abs=1e-3)


def test_a_missing_file_is_named_and_a_folder_is_no_file(tmp_path):
    good = saved(tmp_path, Image.new("RGB", (8, 8)))
    with pytest.raises(FileNotFoundError, match=r"There is no image .*missing.png\."):
        load_images([good, tmp_path / "missing.png"], size=(8, 8), channels=3, preparation=Preparation())
    with pytest.raises(ValueError, match=r"test_a_missing_file.* is a folder: name its files\."):
        load_images([tmp_path], size=(8, 8), channels=3, preparation=Preparation())


def test_what_cannot_be_used_is_named_with_the_reason_in_one_sentence(tmp_path):
    whole = saved(tmp_path, Image.effect_noise((64, 64), 90)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    saved(tmp_path, Image.new("RGB", (1, 1)), "dot.png")
    np.save(tmp_path / "two.npy", np.zeros((2, 8, 8), np.uint8))
    for name, channels, reason in (
        ("cut.png", 3, "is damaged or cut short"),
        ("text.jpg", 3, "is not an image in any format that Pillow reads."),
        ("empty.png", 3, "is not an image in any format that Pillow reads."),
        ("dot.png", 3, "is only 1 x 1 pixels, less than a quarter of the training size 8 x 8."),
        ("a.png", 5, "is an image file, but the model has 5 channels: give .npy arrays of shape (5, h, w)."),
        ("two.npy", 3, "has shape (2, 8, 8), the model wants (3, h, w)."),
    ):
        with pytest.raises(ValueError, match=r"^[^\n]+\.$") as raised:
            load_images([tmp_path / name], size=(8, 8), channels=channels, preparation=Preparation())
        assert str(raised.value).startswith(f"{tmp_path / name} {reason}")
