"""Images in: what is read, how it is joined, split and ordered, and what happens to files that are no good."""

import io
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pretended_device import pretended

from diffae.config import DataConfig, Preparation
from diffae.data import avatars, prepare
from diffae.data.dataset import ImageSet, Order, split
from diffae.data.feed import Rows
from diffae.data.images import UnusableImage, in_range, read_image, scaled
from diffae.runtime import seeding
from diffae.runtime.seeding import Draws
from diffae.training.views import training_view


def encoded(image, form="PNG", **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, form, **kwargs)
    return buffer.getvalue()


def read(content, name="a.png", *, size=(8, 8), channels=3, **preparation):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return read_image(content, name, size=size, channels=channels, preparation=Preparation(**preparation))


def images_in(root, **kwargs):
    return prepare(DataConfig(source=str(root), **kwargs), size=(8, 8), channels=3)


# One image -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_formats_that_pillow_reads_are_read(form):
    array = read(encoded(Image.new("RGB", (16, 12), (200, 40, 90)), form), f"a.{form.lower()}")
    assert array.shape == (3, 8, 8)
    assert array.dtype == np.uint8
    assert np.abs(array.mean((1, 2)) - [200, 40, 90]).max() < 8


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "CMYK", "1", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_becomes_the_models_channels(mode, channels):
    image = Image.new("RGB", (9, 9), (255, 255, 255)).convert(mode)
    form = {"CMYK": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG")
    array = read(encoded(image, form), channels=channels)
    assert array.shape == (channels, 8, 8)
    assert (array >= 254).all()


def test_exif_orientation_is_honoured():
    image = Image.new("RGB", (16, 16), "black")
    image.paste("white", (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was held so that the top of the picture is at the right of the file.
    array = read(encoded(image, exif=exif))
    assert array[:, :, -1].mean() > 250
    assert array[:, :, 0].mean() < 5


def test_a_bmp_of_8_bits_is_not_said_to_have_16_for_the_length_of_its_rows():
    content, told = encoded(Image.new("RGB", (55, 40)), "BMP"), []
    read_image(content, "a.bmp", size=(8, 8), channels=3, preparation=Preparation(), warn=told.append)
    assert not told


def test_a_psd_of_several_layers_is_what_they_make_together():
    long, short = (lambda n: n.to_bytes(4, "big")), (lambda n: n.to_bytes(2, "big"))
    layer = bytes(16) + short(0) + b"8BIMnorm" + bytes(4) + long(12) + bytes(12)  # An empty one, without channels.
    layers = short(2) + layer * 2
    pixels = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    psd = b"8BPS" + short(1) + bytes(6) + short(3) + long(8) + long(8) + short(8) + short(3) + long(0) * 2
    psd += long(4 + len(layers)) + long(len(layers)) + layers + short(0) + pixels.tobytes()
    assert Image.open(io.BytesIO(psd)).n_frames == 2
    told = []
    found = read_image(psd, "a.psd", size=(8, 8), channels=3, preparation=Preparation(), warn=told.append)
    assert np.array_equal(found, pixels)
    assert not told


def test_transparency_is_composited_on_the_background():
    content = encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)))
    assert (read(content) == 255).all()
    assert (read(content, background=(10, 20, 30))[:, 0, 0] == [10, 20, 30]).all()


def test_16_bit_grey_keeps_its_range():
    ramp = np.linspace(1000, 60000, 64).astype(np.uint16).reshape(8, 8)
    array = read(encoded(Image.fromarray(ramp)), channels=1)
    assert array.dtype == np.uint16
    assert np.abs(array[0].astype(int) - ramp).max() <= 1
    assert read(encoded(Image.fromarray(ramp)), channels=3).shape == (3, 8, 8)


def test_crops_are_what_they_say():
    wide = Image.new("RGB", (32, 16), "black")
    wide.paste("white", (8, 0, 24, 16))
    assert (read(encoded(wide), crop="center") > 230).all()
    assert 0.3 < (read(encoded(wide), crop="none") > 128).mean() < 0.7
    face = Image.new("RGB", (178, 218), "black")
    face.paste("white", (25, 57, 153, 185))
    assert (read(encoded(face), crop="celeba") > 200).all()
    with pytest.raises(UnusableImage, match="is for aligned CelebA images of 178 x 218"):
        read(encoded(wide), crop="celeba")


def test_large_jpegs_are_read_at_a_fraction_and_look_the_same():
    # A smooth picture, as photographs are: every value of two gradients.
    y, x = np.mgrid[0:512, 0:512]
    image = Image.fromarray(np.stack([x // 2, y // 2, (x + y) // 4], -1).astype(np.uint8))
    reduced = read(encoded(image, "JPEG", quality=95), "a.jpg")
    full = np.asarray(image.resize((8, 8), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
    assert np.abs(reduced.astype(int) - full).max() <= 4


def test_arrays_of_many_channels_are_read():
    array = np.random.default_rng(0).uniform(-1, 1, (7, 8, 8)).astype(np.float32)
    buffer = io.BytesIO()
    np.save(buffer, array)
    out = read(buffer.getvalue(), "a.npy", channels=7)
    assert out.shape == (7, 8, 8)
    assert np.abs(out / 32767.5 - 1 - array).max() < 1e-4


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full((3, 8, 8), np.nan, np.float32), "192 values that are not finite"),
        (np.full((3, 8, 8), 300.0), r"values 300..300: floating-point arrays must be in \[-1, 1\]"),
        (np.zeros((4, 8, 8)), r"has shape \(4, 8, 8\), the model wants \(3, h, w\)"),
        (np.zeros((3, 8, 8), np.int64), "has type int64"),
        (np.array([{"a": 1}]), "is no readable .npy array"),
    ],
)
def test_arrays_that_cannot_be_used_say_why(array, reason):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    with pytest.raises(UnusableImage, match=reason):
        read(buffer.getvalue(), "a.npy")


def bomb(side):
    """A PNG of side x side black pixels, written a row at a time: a hundred megapixels in a hundred kilobytes."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    compressor = zlib.compressobj(9)
    rows = b"".join(compressor.compress(bytes(side * 3 + 1)) for _ in range(side)) + compressor.flush()
    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_with_its_size():
    with pytest.raises(UnusableImage, match=r"decompression bomb: 10000 x 10000 pixels \(100 megapixels\) out of"):
        read(bomb(10_000))


def test_an_image_beyond_what_can_be_decoded_safely_is_refused_with_its_size():
    header_only = bomb(1).replace((1).to_bytes(4, "big") * 2, (40_000).to_bytes(4, "big") * 2)
    crc = zlib.crc32(header_only[12:29]).to_bytes(4, "big")
    with pytest.raises(UnusableImage, match="1600000000 pixels"):
        read(header_only[:29] + crc + header_only[33:])


@pytest.mark.slow
def test_a_real_picture_of_a_hundred_megapixels_is_read():
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000), np.uint8)
    content = encoded(Image.fromarray(np.tile(noise, (10, 10))), "JPEG", quality=80)
    assert read(content, "a.jpg").shape == (3, 8, 8)


def test_one_pixel_is_no_picture():
    with pytest.raises(UnusableImage, match=r"is only 1 x 1 pixels, less than a quarter of the training size 8 x 8"):
        read(encoded(Image.new("RGB", (1, 1))))


# Sources -------------------------------------------------------------------------------------------------------------


def test_a_nested_folder_and_its_zip_are_the_same_data(make_images, tmp_path):
    root = make_images(6)
    make_images(3, folder="images/deeper/still")
    (root / ".hidden.png").write_bytes(b"not looked at")
    (root / "notes.txt").write_text("left alone")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root))
    folder, zipped = images_in(root), images_in(tmp_path / "images.zip")
    assert folder.names == zipped.names
    assert len(folder.names) == 9
    assert "deeper/still/000.png" in folder.names
    assert np.array_equal(folder.pixels, zipped.pixels)
    assert any("1 file in" in note and "was left alone: its name is not that of an image" in note for note in folder.notes)


def test_a_table_of_labels_that_is_read_is_not_said_to_be_left_alone(make_images):
    root = make_images(6)
    (root / "labels.csv").write_text("file,Round\n" + "".join(f"{i:03d}.png,{i % 2}\n" for i in range(6)))
    data = images_in(root)
    assert set(data.labels) == {"Round"}
    assert not any("left alone" in note for note in data.notes)


def test_unusable_files_are_skipped_counted_and_named(make_images):
    root = make_images(5)
    whole = (root / "000.png").read_bytes()
    buffer = io.BytesIO()
    Image.open(root / "000.png").save(buffer, "JPEG")
    (root / "cut.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "text.png").write_text("this is no image")
    (root / "dot.png").write_bytes(encoded(Image.new("L", (1, 1))))
    np.save(root / "nan.npy", np.full((3, 8, 8), np.nan))
    data = images_in(root)
    assert len(data.names) == 5
    (note,) = data.notes
    assert note.startswith("5 of 10 images were skipped:")
    for name in ("cut.jpg", "cut.png", "text.png", "dot.png", "nan.npy"):
        assert name in note
    assert images_in(root).notes == data.notes, "the cache must not forget what was skipped"


def test_images_of_mixed_channels_and_depths_are_brought_together(tmp_path):
    root = tmp_path / "mixed"
    root.mkdir()
    Image.new("L", (8, 8), 255).save(root / "grey.png")
    Image.new("RGBA", (8, 8), (255, 255, 255, 255)).save(root / "alpha.png")
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(root / "deep.png")
    data = images_in(root, validation=0.0)
    assert data.pixels.shape == (3, 3, 8, 8)
    assert data.pixels.dtype == np.uint16
    assert torch.equal(data.images([0, 1, 2]), torch.ones(3, 3, 8, 8))


def test_an_empty_folder_says_what_it_holds(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="There are no images in .*: it holds no files at all"):
        images_in(tmp_path / "empty")
    (tmp_path / "empty" / "a.txt").write_text("")
    with pytest.raises(ValueError, match="it holds 1 other files"):
        images_in(tmp_path / "empty")


def test_a_folder_of_nothing_usable_says_why(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"(?s)None of the images in .* can be used.*a\.png is not an image"):
        images_in(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("missing", None, FileNotFoundError, "There is no .*missing"),
        ("a.zip", b"PK\x03\x04 cut short", ValueError, "is no readable zip archive"),
        ("a.rar", b"", ValueError, "is no source of images that is known. Give a folder of images, a zip"),
        ("a.tar", b"cut", ValueError, "is no readable tar"),
        ("a.parquet", b"PAR1 cut", ValueError, "is damaged or cut short"),
        ("a.arrow", b"cut", ValueError, "is damaged or cut short"),
    ],
)
def test_sources_that_are_none_are_refused(tmp_path, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        images_in(tmp_path / name)


def test_a_changed_folder_is_read_again_and_an_unchanged_one_is_not(make_images, monkeypatch):
    root = make_images(4)
    images_in(root)
    with monkeypatch.context() as patch:
        patch.setattr("diffae.data.cache.read_placed", lambda *a, **k: pytest.fail("read again"))
        assert len(images_in(root).names) == 4
    Image.new("RGB", (16, 16)).save(root / "new.png")
    assert len(images_in(root).names) == 5


def test_a_cache_that_was_interrupted_is_not_taken_for_whole(make_images, monkeypatch, cache):
    root = make_images(4)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("diffae.data.cache.write_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            images_in(root)
    assert len(images_in(root).names) == 4
    assert not list(cache.rglob("*.part*"))


# Split and order -----------------------------------------------------------------------------------------------------


def test_the_split_is_of_the_share_asked_for_and_stays_when_images_are_added():
    names = [f"{i}.png" for i in range(4000)]
    train, held = split(names, None, 0.05)
    assert 150 < len(held) < 250
    assert sorted([*train, *held]) == list(range(4000))
    assert set(split(names[:2000], None, 0.05)[1]) == {i for i in held if i < 2000}


def test_groups_are_never_divided():
    groups = [f"person {i // 10}" for i in range(1000)]
    train, held = split([str(i) for i in range(1000)], groups, 0.2)
    assert len(held)
    assert not {groups[i] for i in train} & {groups[i] for i in held}


def test_a_hash_is_asked_once_for_each_slide_of_many_tiles(monkeypatch):
    asked, mix = [], seeding.mix
    monkeypatch.setattr("diffae.data.dataset.seeding.mix", lambda *of: asked.append(of) or mix(*of))
    names = [f"{i}.png" for i in range(600)]
    for share in (1e-6, 1 - 1e-6):  # Which no slide, or every, falls under.
        asked.clear()
        train, held = split(names, [f"slide {i % 3}" for i in range(600)], share)
        assert (len(train), len(held)) == (400, 200)
        assert len(asked) == 3


def test_very_few_images_still_leave_one_to_validate():
    train, held = split(["a", "b", "c"], None, 0.05)
    assert (len(train), len(held)) == (2, 1)
    with pytest.raises(ValueError, match=r"must be within \[0, 1\), got 1.0"):
        split(["a"], None, 1.0)


@given(st.integers(1, 50), st.integers(0, 500), st.integers(0, 3))
def test_any_position_of_the_run_is_known_without_the_ones_before(num, position, seed):
    indices = np.arange(num) * 2
    once = Order(indices, seed=seed)
    before = [once[p] for p in range(position)]
    assert Order(indices, seed=seed)[position] == once[position]
    for epoch in range(position // num):
        assert sorted(before[epoch * num : (epoch + 1) * num]) == list(indices)


def seen_in_training(data, order, positions, *, seed):
    """What training sees at these positions, mirrored or not, and the indices."""
    indices = [order[p] for p in positions]
    rows = Rows(data.arrays, torch.device("cpu"))
    pixels, *mirrored = rows.unpack(rows.pack(indices))
    draws = Draws.of(len(positions), seed, start=positions.start)
    return training_view(pixels, draws, flip=True, mirrored=mirrored[0] if mirrored else None), indices


def test_a_flip_depends_on_the_position_alone(make_images):
    data = images_in(make_images(8))
    order = Order(data.train, seed=0)
    x, indices = seen_in_training(data, order, range(10, 30), seed=5)
    y, _ = seen_in_training(data, order, range(20, 40), seed=5)
    assert torch.equal(x[10:], y[:10])
    plain = data.images(indices)
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(x, plain, strict=True)]
    assert 0 < sum(flipped) < 20
    assert all(f or torch.equal(a, b) for f, a, b in zip(flipped, x, plain, strict=True))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float16])
@pytest.mark.parametrize("fits", [True, False])
def test_rows_are_the_same_whether_a_device_keeps_them_or_is_sent_them(kind, fits, monkeypatch):
    monkeypatch.setattr("diffae.data.feed.PIECE", 1000)
    generator = np.random.default_rng(0)
    arrays = [(generator.random((50, 3, 4, 4)) * np.iinfo(np.uint16).max * (kind != np.float16)).astype(kind) for _ in range(2)]
    arrays[0][7, 0, 0, :2] = 0, np.iinfo(kind).max if kind != np.float16 else 3
    with pretended() as device:
        rows = Rows(arrays, device, room=sum(a.nbytes for a in arrays) - (not fits))
        assert (rows.resident is not None) == fits
        sent = rows.pack([7, 3, 49, 7])
        assert sent.nbytes == 4 * (8 if fits else sum(a[0].nbytes for a in arrays))
        for array, found in zip(arrays, rows.unpack(sent.to(device)), strict=True):
            assert found.device == device
            assert torch.equal(scaled(found).cpu(), in_range(array[[7, 3, 49, 7]]))


@pytest.mark.parametrize("num", [0, 1, 3])
def test_rows_of_several_shapes_and_types_are_sent_together(num):
    generator = np.random.default_rng(0)
    arrays = [generator.integers(0, 255, (9, 3, 5, 5)).astype(np.uint8), generator.random((9, 7)).astype(np.float32)]
    rows = Rows(arrays, torch.device("cpu"))
    for array, found in zip(arrays, rows.unpack(rows.pack(range(num))), strict=True):
        assert torch.equal(found, torch.from_numpy(array[:num]))


# Avatars -------------------------------------------------------------------------------------------------------------


def test_avatars_are_a_folder_of_their_seed_with_known_attributes(cache):
    folder = avatars.avatars_folder(cache, num=6, size=32, progress=lambda *_: None)
    fewer = avatars.avatars_folder(cache, num=3, size=32, progress=lambda *_: None)
    assert (folder / "000002.png").read_bytes() == (fewer / "000002.png").read_bytes()
    with Image.open(folder / "000000.png") as image:
        assert image.size == (32, 32)
    data = prepare(DataConfig(source="avatars", avatars=6), size=(32, 32), channels=3)
    assert set(data.labels) == {*avatars.ATTRIBUTES, "Skin_Tone"}
    assert not list(folder.parent.glob(".part*"))


def test_attributes_say_what_is_drawn():
    for i in range(200):
        parts, labels = avatars.draw(0, i)
        assert labels["Smiling"] == (parts["mouth"] in avatars.SMILES)
        assert labels["Wearing_Hat"] == (parts["top"] in avatars.HATS)
        assert labels["Bald"] == (parts["top"] == "NONE")
        assert labels["Eyeglasses"] + labels["Sunglasses"] == (parts["accessory"] != "NONE")
        assert labels["Beard"] + labels["Mustache"] == (parts["facial_hair"] != "NONE")
        assert labels["Skin_Tone"] == avatars.SKINS.index(parts["skin_color"])
        visible = parts["top"] not in (*avatars.HATS, "NONE")
        for name in ("Blond_Hair", "Gray_Hair", "Black_Hair"):
            assert labels[name] == (visible and parts["hair_color"] in avatars.HAIR[name])


def test_unseen_avatars_have_the_same_attributes_of_other_parts(cache):
    seen = {part for kind, parts in avatars.PARTS.items() if kind in avatars.UNSEEN for part in parts}
    drawn = [avatars.draw(1, i, avatars.SETS["avatars-unseen"][1]) for i in range(200)]
    for parts, labels in drawn:
        for kind in ("eyebrows", "mouth", "clothing"):
            assert parts[kind] not in seen
        assert parts["top"] == "NONE" or parts["top"] not in seen
        assert labels["Smiling"] == (parts["mouth"] in avatars.UNSEEN["smile"])
        assert labels["Wearing_Hat"] == (parts["top"] in avatars.UNSEEN["hat"])
        assert labels["Long_Hair"] == (parts["top"] in avatars.UNSEEN["long"])
    rendered = avatars.render(next(parts for parts, labels in drawn if labels["Wearing_Hat"]), 32)
    assert rendered.startswith(b"\x89PNG")
    data = prepare(DataConfig(source="avatars-unseen", avatars=4), size=(32, 32), channels=3)
    assert set(data.labels) == {*avatars.ATTRIBUTES, "Skin_Tone"}
    assert not (
        data.images(range(4)) == prepare(DataConfig(source="avatars", avatars=4), size=(32, 32), channels=3).images(range(4))
    ).all()


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    from diffae.runtime.files import cache_folder

    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("DIFFAE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "diffae"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "diffae"


def test_some_of_many_images_are_of_all_kinds_and_the_same_when_others_come():
    names = [f"{kind}/{i:03d}.png" for kind in "ab" for i in range(200)]
    every = np.arange(400)

    def of(names):
        return ImageSet(
            names, np.zeros((len(names), 1, 2, 2), np.uint8), {}, np.arange(len(names)), every[:0], [], DataConfig(), ""
        )

    some = of(names).some(every, 100)
    assert len(some) == len(set(some)) == 100
    assert (np.diff(some) > 0).all(), "in their order"
    assert 30 < (some < 200).sum() < 70, "not the first by name"
    assert set(of(names).some(every, 50)) < set(some)
    assert np.array_equal(of(names).some(every[:7], 7), every[:7])
    more = of([*names, *(f"c/{i}.png" for i in range(10))]).some(np.arange(410), 100)
    assert len(set(more) & set(some)) > 90
