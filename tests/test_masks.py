"""What the loss leaves out, ranges that are measured, and splits that were published: from files to a training step."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_nn import perturb

import diffae
from diffae.config import DataConfig
from diffae.data import prepare
from diffae.data.companions import _stem
from diffae.runtime.seeding import Draws
from diffae.training.run import train
from diffae.training.subjects import ImageSubject


def with_gaps(folder, num=12, channels=3):
    """Float images that reach from -3 to 5, of which the upper left quarter is not known."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(num):
        values = random.uniform(-3, 5, (channels, 8, 8)).astype(np.float32)
        values[:, :4, :4] = np.nan
        np.save(folder / f"{i:02d}.npy", values)
    return folder


def test_gaps_are_refused_until_they_are_named(tmp_path):
    folder = with_gaps(tmp_path / "images")
    config = DataConfig(source=str(folder), range=(-3.0, 5.0), validation=0.2)
    with pytest.raises(ValueError, match=r"None of the images (.|\n)* --data.mask gaps"):
        prepare(config, size=(8, 8), channels=3)
    data = prepare(replace(config, mask="gaps"), size=(8, 8), channels=3)
    assert data.pixels.shape == (12, 3, 8, 8)
    known = data.counted([0, 5])
    assert known.shape == (2, 1, 8, 8)
    assert (known[:, :, :4, :4] == 0).all()
    assert known.sum() == 2 * 48
    x = data.images([0])
    assert torch.allclose(x[:, :, :4, :4], torch.zeros(1, 3, 4, 4), atol=1e-4), "the middle of the range"
    values = np.load(folder / "00.npy")[:, 4:]
    assert np.abs(((x[0, :, 4:].numpy() + 1) * 4 - 3) - values).max() <= 8 / 65535 / 2 * 1.01


def test_images_of_another_shape_than_the_model_say_how_to_name_theirs(tmp_path):
    folder = with_gaps(tmp_path / "images", channels=2)
    with pytest.raises(ValueError, match=r"has shape \(2, 8, 8\)(.|\n)*--model.channels and --model.image-size"):
        prepare(DataConfig(source=str(folder), range=(-3.0, 5.0), mask="gaps"), size=(8, 8), channels=3)


def test_images_of_which_nothing_counts_are_skipped_and_said(tmp_path):
    folder = with_gaps(tmp_path / "images", num=6)
    scattered = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
    scattered[:, ::4, ::4] = np.nan
    np.save(folder / "scattered.npy", scattered)
    data = prepare(DataConfig(source=str(folder), range=(-3.0, 5.0), mask="gaps"), size=(8, 8), channels=3)
    assert "scattered.npy" not in data.names
    assert any("scattered.npy has gaps in what every pixel is made of, at 8 x 8 pixels" in note for note in data.notes)


def test_names_that_are_numbers_with_dots_have_no_ending(tmp_path):
    for name in ("1.2.840.1", "1.2.840.2", "a/x.nii.gz", "a/y.PNG", "z"):
        assert _stem(name) == {"a/x.nii.gz": "a/x", "a/y.PNG": "a/y"}.get(name, name)


def test_a_folder_of_masks_says_what_counts(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(6):
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
        mask = np.zeros((8, 8), np.uint8)
        mask[:, : i + 1] = 255
        if i != 4:
            Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.bmp")
    config = DataConfig(source=str(tmp_path / "images"), mask=str(tmp_path / "masks"), validation=0.0)
    data = prepare(config, size=(8, 8), channels=3)
    assert data.names == ["0.png", "1.png", "2.png", "3.png", "5.png"]
    assert any("4.png has nothing of its name in" in note for note in data.notes)
    assert data.counted(range(5)).flatten(1).sum(1).tolist() == [8, 16, 24, 32, 48]
    other = tmp_path / "masks" / "0.bmp"
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(other)
    again = prepare(config, size=(8, 8), channels=3)
    assert again.counted([0]).sum() == 64, "other masks, other data"
    assert again.identity != data.identity
    with pytest.raises(ValueError, match="latents have none"):
        replace(config, latents="somewhere")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.array([[0, 1]], np.uint8), r"largest value is 1, where 255 \(white\) is what counts: write 255 in place of 1"),
        (np.array([[0, 255]], np.uint16), r"largest value is 255, where 65535 \(white\) is what counts"),
        (np.array([[0, 0]], np.uint8), "which is 0 everywhere, so nothing of the image counts"),
    ],
)
def test_a_mask_by_which_nothing_counts_is_refused_for_its_reason(tmp_path, values, why):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.kron(values, np.ones((8, 4), values.dtype))).save(tmp_path / "masks" / "a.png")
    config = DataConfig(source=str(tmp_path / "images"), mask=str(tmp_path / "masks"), validation=0.0)
    with pytest.raises(ValueError, match=rf"a.png has a.png in .*masks, .*{why}"):
        prepare(config, size=(8, 8), channels=1)


def test_a_mask_of_a_type_without_white_says_how_to_write_it(tmp_path):
    image = np.full((16, 16), 90, np.uint8)
    for kind in (np.float32, np.int32):
        config = beside(tmp_path, volume(image), volume(np.ones((16, 16), kind)), kind=np.dtype(kind).name)
        with pytest.raises(ValueError, match="no black and white of its own: write it in 8 bits, 0 to 255, or in 16") as error:
            prepare(config, size=(8, 8), channels=1)
        assert "--data.range" not in str(error.value)


def beside(tmp_path, image, mask, *, kind=""):
    """A configuration of one image and its mask, both written by functions that take a path without its ending."""
    for name, write in (("images", image), ("masks", mask)):
        (tmp_path / f"{name}{kind}").mkdir()
        write(tmp_path / f"{name}{kind}" / "a")
    return DataConfig(source=str(tmp_path / f"images{kind}"), mask=str(tmp_path / f"masks{kind}"), validation=0.0, crop="center")


def volume(values, **said):
    import tifffile

    return lambda path: tifffile.imwrite(path.with_suffix(".tif"), values, photometric="minisblack", **said)


def test_a_mask_is_cropped_as_its_image_whatever_it_says_itself_of_distances(tmp_path):
    image = np.zeros((16, 64, 64), np.uint8)
    image[:, 20:40, 8:30] = 255
    spaced = dict(ome=True, metadata=dict(axes="ZYX", PhysicalSizeZ=4.0, PhysicalSizeY=1.0, PhysicalSizeX=1.0))
    for i, (first, second) in enumerate([(spaced, {}), ({}, spaced)]):
        config = beside(tmp_path, volume(image, **first), volume(image, **second), kind=str(i))
        data = prepare(config, size=(16, 16, 16), channels=1)
        counts = data.counted([0])[0, 0].numpy() == 1
        assert counts.any()
        assert np.array_equal(counts, data.pixels[0, 0] >= 0.99 * 255)


def test_a_mask_of_other_sides_than_its_image_is_refused(tmp_path):
    save = lambda *shape: lambda path: Image.fromarray(np.full(shape, 255, np.uint8)).save(path.with_suffix(".png"))  # noqa: E731
    config = beside(tmp_path, save(8, 16), save(8, 8))
    with pytest.raises(ValueError, match=r"a.png has a.png in .*masks, which is 8 x 8 pixels, and the image 16 x 8"):
        prepare(config, size=(8, 8), channels=1)
    with pytest.raises(ValueError, match=r"which is 8 x 8 pixels, and the image 16 x 8"):
        prepare(replace(config, mask=None, also=(config.mask,)), size=(8, 8), channels=2)


def test_a_picture_that_is_turned_upright_has_its_mask_upright(tmp_path):
    def photo(side, exif):
        said = Image.Exif()
        said[274] = exif
        return lambda path: Image.new("L", side, 90).save(path.with_suffix(".jpg"), exif=said)

    mask = lambda side: lambda path: Image.new("L", side, 255).save(path.with_suffix(".png"))  # noqa: E731
    with pytest.raises(ValueError, match=r"which is 320 x 160 pixels, and the image 160 x 320"):
        prepare(beside(tmp_path, photo((320, 160), 6), mask((320, 160)), kind="raw"), size=(8, 8), channels=1)
    turned = prepare(beside(tmp_path, photo((320, 160), 6), mask((160, 320)), kind="upright"), size=(8, 8), channels=1)
    assert "1 files are turned upright by their EXIF, otherwise than what" in turned.notes[0]
    assert not prepare(beside(tmp_path, photo((320, 160), 1), mask((320, 160)), kind="plain"), size=(8, 8), channels=1).notes


@pytest.mark.parametrize("kind", ["fits", "nii"])
def test_kinds_that_are_turned_about_in_reading_have_masks_of_their_kind(tmp_path, kind):
    nibabel, fits = pytest.importorskip("nibabel"), pytest.importorskip("astropy.io.fits")
    shape = (8, 8) if kind == "fits" else (8, 8, 8)
    values = np.zeros(shape, np.uint8)
    values[:2] = 255

    def write(path):
        if kind == "fits":
            fits.PrimaryHDU(values).writeto(path.with_suffix(".fits"))
        else:
            nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.0, 1, 1, 1])), path.with_suffix(".nii"))

    plain = beside(tmp_path, write, lambda path: np.save(path, values), kind="plain")
    with pytest.raises(
        ValueError, match=r"which is read as it is stored, and the image (rows upwards|in RAS): save both as files of"
    ):
        prepare(plain, size=shape, channels=1)
    data = prepare(beside(tmp_path, write, write, kind="own"), size=shape, channels=1)
    assert np.array_equal(data.counted([0])[0, 0].numpy() == 1, data.pixels[0, 0] == 255)


def test_white_that_lies_outside_of_the_crop_counts_nothing(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.full((8, 24), 90, np.uint8)).save(tmp_path / "images" / "a.png")
    mask = np.zeros((8, 24), np.uint8)
    mask[:, :4] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    config = DataConfig(source=str(tmp_path / "images"), mask=str(tmp_path / "masks"), validation=0.0)
    with pytest.raises(ValueError, match="of which no white is left in the crop, at 8 x 8 pixels, so nothing of the image counts"):
        prepare(config, size=(8, 8), channels=1)
    whole = prepare(replace(config, crop="none"), size=(8, 24), channels=1)
    assert whole.counted([0]).sum() == 32


def test_a_further_channel_that_is_nearly_one_grey_is_said(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        values = np.full((8, 8), 90, np.uint8)
        values[:4] = 0
        Image.fromarray(values if name == "images" else values // 90).save(tmp_path / name / "a.png")
    config = DataConfig(source=str(tmp_path / "images"), also=(str(tmp_path / "masks"),), validation=0.0)
    (note,) = prepare(config, size=(8, 8), channels=2).notes
    assert "masks has values that fill 0.39 % of what their type can say" in note
    assert not prepare(replace(config, also=config.source.split("\n")), size=(8, 8), channels=2).notes


def test_training_goes_on_past_gaps_and_is_not_moved_by_what_lies_in_them(tmp_path, tiny_run):
    folder = with_gaps(tmp_path / "images", num=24)
    config = DataConfig(source=str(folder), range=(-3.0, 5.0), mask="gaps", validation=0.2, flip=True)
    run = replace(tiny_run(images=32, source=folder), data=config)
    data = prepare(config, size=(8, 8), channels=3)
    subject = ImageSubject(run, data)
    x, known, _ = subject.view(subject.batch(range(8)), Draws.of(8, 0))
    assert x.shape == (8, 3, 8, 8)
    left, right = known[:, 0, 0, 0] == 0, known[:, 0, 0, -1] == 0
    assert (left ^ right).all(), "a mask is mirrored with its image"
    assert left.any()
    assert right.any()
    torch.manual_seed(0)
    model, draws = perturb(subject.build()), Draws.of(8, 0)
    loss = subject.loss(model, subject.batch(range(8)), draws)
    torch.testing.assert_close(loss, model.loss(x, draws, known=known))
    assert loss.item() != model.loss(x, draws).item(), "what counts is not all"
    gaps = torch.ones(8, 1, 8, 8)
    gaps[..., :4, :4] = 0
    assert torch.equal(known, torch.where(left[:, None, None, None], gaps, gaps.flip(-1)))
    events = list(train(subject, tmp_path / "run"))
    assert events
    ae = diffae.load(tmp_path / "run")
    assert ae.preparation.mask == "gaps"
    assert ae.preparation.range == (-3, 5)


def test_a_measured_range_is_the_models_in_numbers(tmp_path, tiny_run):
    folder = tmp_path / "images"
    folder.mkdir()
    values = np.random.default_rng(1).uniform(-1000, 3000, (20, 2, 8, 8)).astype(np.int16)
    for i, image in enumerate(values):
        np.save(folder / f"{i:02d}.npy", image)
    config = DataConfig(source=str(folder), range="minmax", validation=0.2)
    data = prepare(config, size=(8, 8), channels=2)
    ends = [float(end(values[:, c])) for c in range(2) for end in (np.min, np.max)]
    assert list(data.config.range) == ends
    assert "range " + " ".join(f"{low:g}..{high:g}" for low, high in (ends[:2], ends[2:])) in data.meaning
    run = replace(tiny_run(images=16, source=folder, model=dict(channels=2)), data=config)
    list(train(ImageSubject(run, data), tmp_path / "run"))
    ae = diffae.load(tmp_path / "run")
    assert list(ae.preparation.range) == ends
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["range"] == "minmax"
    named = prepare(replace(config, range=tuple(ends)), size=(8, 8), channels=2)
    assert named.key == data.key, "and numbers that were named mean the same"


def test_a_published_split_is_kept_where_it_is_asked_for(tmp_path):
    for part, num in (("train", 5), ("val", 2), ("test", 3)):
        (tmp_path / "images" / part).mkdir(parents=True)
        for i in range(num):
            Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(tmp_path / "images" / part / f"{i}.png")
    config = DataConfig(source=str(tmp_path / "images"))
    data = prepare(replace(config, validation="published"), size=(8, 8), channels=1)
    assert {data.names[i].split("/")[0] for i in data.train} == {"train"}
    assert len(data.train) == len(data.validation) == 5
    assert not [note for note in data.notes if "split anew" in note]
    anew = prepare(config, size=(8, 8), channels=1)
    assert any("--data.validation published" in note for note in anew.notes)
    with pytest.raises(ValueError, match="wants folders such as train and test; there are none"):
        prepare(replace(config, source=str(tmp_path / "images" / "train"), validation="published"), size=(8, 8), channels=1)
    with pytest.raises(ValueError, match="data.validation must be at least 0 and at most 1"):
        diffae.config.from_dict(DataConfig, {"validation": 2.0}, path="data")


def test_files_beside_the_images_are_channels_of_them(tmp_path):
    for name, kind in (("images", np.uint8), ("masks", np.uint8), ("stain", np.uint16)):
        (tmp_path / name).mkdir()
        for i in range(3):
            values = np.full((8, 8), (40 if kind == np.uint8 else 9000) * (i + 1), kind)
            Image.fromarray(values).save(tmp_path / name / f"{i}.{'png' if name != 'masks' else 'bmp'}")
    config = DataConfig(source=str(tmp_path / "images"), also=(str(tmp_path / "masks"), str(tmp_path / "stain")), validation=0.0)
    data = prepare(config, size=(8, 8), channels=3)
    wanted = [[40 * (i + 1) / 255, 40 * (i + 1) / 255, 9000 * (i + 1) / 65535] for i in range(3)]
    np.testing.assert_allclose((data.images(range(3))[:, :, 0, 0].numpy() + 1) / 2, wanted, atol=1e-5)
    assert data.meaning.endswith("stain")
    one = prepare(replace(config, also=config.also[:1]), size=(8, 8), channels=2)
    assert one.pixels.dtype == np.uint8
    with pytest.raises(ValueError, match=r"data.also gives 2 channels, and the model's images have 2"):
        prepare(config, size=(8, 8), channels=2)
    (tmp_path / "stain" / "1.png").unlink()
    left = prepare(config, size=(8, 8), channels=3)
    assert left.names == ["0.png", "2.png"]
    assert any("1.png has nothing of its name in" in note for note in left.notes)


def test_gaps_stay_known_for_what_they_are_beside_a_channel_of_more_bits(tmp_path):
    """The mark of what is known has the type of the channels, whichever of them is the widest."""
    import tifffile

    for name in ("images", "stain"):
        (tmp_path / name).mkdir()
        values = np.full((2, 8, 8) if name == "images" else (8, 8), 7, np.uint8 if name == "images" else np.uint16)
        values[..., :2, :2] = 0
        tags = [(42113, "s", 0, "0", True)] if name == "images" else []
        tifffile.imwrite(tmp_path / name / "a.tif", values, photometric="minisblack", planarconfig="separate", extratags=tags)
    config = DataConfig(source=str(tmp_path / "images"), also=(str(tmp_path / "stain"),), mask="gaps", validation=0.0)
    data = prepare(config, size=(8, 8), channels=3)
    assert data.pixels.dtype == np.uint16
    assert data.counted([0]).sum() == 60
    assert (data.counted([0])[0, 0, :2, :2] == 0).all()


def test_masks_that_change_their_names_change_what_counts(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(2):
        Image.fromarray(np.full((8, 8), 50 * i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "masks" / f"{i}.png")
    config = DataConfig(source=str(tmp_path / "images"), mask=str(tmp_path / "masks"), validation=0.0)
    assert prepare(config, size=(8, 8), channels=1).names == ["0.png", "1.png"]
    (tmp_path / "masks" / "1.png").rename(tmp_path / "masks" / "2.png")
    assert prepare(config, size=(8, 8), channels=1).names == ["0.png"]


def test_a_published_split_may_lie_deeper_and_has_to_hold_every_image(tmp_path):
    for part in ("train", "test"):
        (tmp_path / "all" / "images" / part).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "all" / "images" / part / "a.png")
    config = DataConfig(source=str(tmp_path / "all"), validation="published")
    data = prepare(config, size=(8, 8), channels=1)
    assert [data.names[i] for i in data.train] == ["images/train/a.png"]
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "all" / "more.png")
    with pytest.raises(ValueError, match=r"more.png is in none of test, train \(1 such in all\)"):
        prepare(config, size=(8, 8), channels=1)


def test_the_speed_of_input_is_measured_as_it_is_prepared(tmp_path, tiny_run):
    """With a range that is to be measured, and with gaps."""
    from diffae.data.sources import open_source
    from diffae.training.throughput import input_rates

    folder = with_gaps(tmp_path / "images", num=6)
    config = tiny_run(source=folder)
    config = replace(config, data=replace(config.data, range="minmax", mask="gaps"))
    rates = list(input_rates(open_source(folder), config, num=6, threads=(1,), batch_size=2))
    assert [rate.use for rate in rates] == ["decoding", "reading"]
