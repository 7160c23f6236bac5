"""Which values become -1 and 1, what is not known, and volumes of many files: read, measured, and written back."""

import dataclasses
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from test_formats import AFFINE, BRAIN, CT, RANDOM, dicom, half_a_step, levels, nibabel, nifti, read, sky, tif, tifffile

from diffae import cli
from diffae.cli import inputs
from diffae.config import DataConfig, Preparation, from_dict, to_dict
from diffae.data import measuring, prepare
from diffae.data.images import UnusableImage, in_range, load_images, meaning, too_dark, values_of
from diffae.data.images.frames import order_of_slices
from diffae.data.images.writing import write_back
from diffae.data.measuring import measured, resolved
from diffae.data.sources import Series, open_source

pytestmark = pytest.mark.filterwarnings("ignore")  # Of the libraries, about odd files; ours come through `warn`.


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


# Ranges ---------------------------------------------------------------------------------------------------------------


def test_each_channel_may_have_a_range_of_its_own():
    values = np.stack([RANDOM.uniform(-1, 1, (8, 8)), RANDOM.uniform(100, 900, (8, 8))]).astype(np.float32)
    array = read(npy(values), "a.npy", size=(8, 8), channels=2, range=(-1.0, 1.0, 0.0, 1000.0))
    assert half_a_step(array[0], values[0], -1, 1)
    assert half_a_step(array[1], values[1], 0, 1000)
    with pytest.raises(UnusableImage, match="has 2 channels, and the range is of 3"):
        read(npy(values), "a.npy", size=(8, 8), channels=2, range=(0.0, 1.0) * 3)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.uint16])
def test_whole_numbers_have_the_range_of_their_type(kind):
    info = np.iinfo(kind)
    values = RANDOM.integers(info.min, info.max + 1, (1, 8, 8)).astype(kind)
    assert half_a_step(read(npy(values), "a.npy", size=(8, 8)), values, info.min, info.max)
    if kind is np.uint16:
        assert np.array_equal(read(npy(values), "a.npy", size=(8, 8)), values)


def test_bytes_of_an_array_have_a_range_too_and_those_of_a_picture_have_not():
    labels = RANDOM.integers(0, 4, (1, 8, 8)).astype(np.uint8)
    assert half_a_step(read(npy(labels), "a.npy", size=(8, 8), range=(0.0, 3.0)), labels, 0, 3)
    buffer = io.BytesIO()
    Image.fromarray(labels[0]).save(buffer, "PNG")
    assert np.array_equal(read(buffer.getvalue(), "a.png", size=(8, 8), range=(0.0, 3.0)), labels)


@pytest.mark.parametrize(("beyond", "said"), [(1, "1"), (5, "2"), (100, "50"), (256, "100")])
def test_how_many_values_are_beyond_the_range_is_said(beyond, said):
    values, told = np.zeros(256), []
    values[:beyond] = 5
    read(npy(values.reshape(1, 16, 16)), "a.npy", size=(16, 16), range=(-1.0, 1.0), told=told)
    assert told == [f"clipped to the range: up to {said} % of the values are beyond"]


def test_a_model_carries_numbers_or_window_and_nothing_else():
    for range_, kept in (((0.0, 1.0, 2.0, 3.0), (0.0, 1.0, 2.0, 3.0)), ("window", "window"), ("dtype", None), (None, None)):
        config = DataConfig(range=range_, mask="gaps")
        assert config.preparation == Preparation(range=kept, mask="gaps")
        assert from_dict(DataConfig, to_dict(config)) == config
        assert from_dict(Preparation, to_dict(config.preparation)) == config.preparation
    with pytest.raises(ValueError, match="data.range minmax has not been measured"):
        _ = DataConfig(range="minmax").preparation
    for wrong in ((), (1.0,), (0.0, 1.0, 2.0), (0.0, 1.0, 3.0, 2.0)):
        with pytest.raises(ValueError, match="range must be two numbers, the smaller first, or two for each channel"):
            DataConfig(range=wrong)
    with pytest.raises(TypeError, match="range must be"):
        from_dict(DataConfig, {"range": "widest"})


def test_ranges_are_said_on_the_command_line(capsys):
    for words, wanted in ((["minmax"], "minmax"), (["0", "4095"], (0.0, 4095.0)), (["-1024", "3071"], (-1024.0, 3071.0))):
        assert tyro.cli(DataConfig, args=["--range", *words]).range == wanted
    with pytest.raises(SystemExit):
        cli.main(["train", "nowhere", "--data.range", "widest", "--out", "run"])
    assert "--data.range" in capsys.readouterr().err


def folder(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return open_source(root)


def ranged(source, measure, *, channels=1, size=(8, 8)):
    config = DataConfig(range=measure)
    return resolved(config, source, source.names, size=size, channels=channels, progress=lambda *_: None).range


def test_minmax_is_that_of_each_channel_over_all_files_and_gaps_are_none(tmp_path):
    many = RANDOM.normal(0, 5, (6, 2, 8, 8)).astype(np.float32)
    many[0, 0, 0, 0] = np.nan
    source = folder(tmp_path, {f"{i}.tif": tif(a, photometric="minisblack", planarconfig="separate") for i, a in enumerate(many)})
    (tmp_path / "0.tif").touch()
    expected = [end(many[:, c]) for c in range(2) for end in (np.nanmin, np.nanmax)]
    assert ranged(source, "minmax", channels=2) == pytest.approx(expected, rel=0, abs=0)
    assert resolved(DataConfig(range=(0.0, 1.0)), source, [], size=(8, 8), channels=2, progress=print).range == (0.0, 1.0)


def test_percentiles_are_exact_of_few_values_and_near_of_many(tmp_path, monkeypatch):
    many = RANDOM.gamma(2, 100, (10, 1, 40, 40))
    images = [values_of(npy(a), "a.npy", sides=2, channels=1) for a in many]
    assert measured(images, "percentiles") == pytest.approx(np.percentile(many, (0.5, 99.5)))
    monkeypatch.setattr(measuring, "MOST_KEPT", 4000)
    low, high = measured(images, "percentiles")
    ranks = [(many < x).mean() * 100 for x in (low, high)]
    assert ranks == pytest.approx((0.5, 99.5), abs=0.5)
    source = folder(tmp_path, {"a.npy": npy(np.full((1, 8, 8), 7.0)), "b.dcm": b"no DICOM"})
    with pytest.raises(ValueError, match=r"data.range minmax finds no range \(7..7\)"):
        ranged(source, "minmax")


def test_pictures_of_8_bits_alone_have_no_range_to_be_measured(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    with pytest.raises(ValueError, match=r"no image of more than 8 bits among them.*they are 0..255"):
        ranged(folder(tmp_path, {"a.png": buffer.getvalue()}), "percentiles")
    deep = np.array([[0, 300], [4000, 9]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "b.png")
    assert ranged(open_source(tmp_path), "minmax") == (0, 4000)


def test_what_is_read_is_said_in_one_line():
    say = lambda content, name, size, channels, **made: meaning(  # noqa: E731
        content, name, size=size, channels=channels, preparation=Preparation(**made)
    )
    content = dicom(CT, slope=1, intercept=-1024, bits=12, PixelSpacing=[0.5, 0.5])
    assert say(content, "a.dcm", (8, 8), 1) == "1 channel, 32 bit, range -1024..3071 -> [-1, 1], spacing 0.5 x 0.5"
    pages = tif(RANDOM.integers(0, 9, (5, 8, 8)).astype(np.uint16), photometric="minisblack")
    said = "3 channels, 16 bit, range 0..65535 -> [-1, 1], 5 pages, of which 4 are left out: the first was taken"
    assert say(pages, "a.tif", (8, 8), 3) == said
    ranges = (0.0, 1.0, 0.0, 2.0)
    floats = npy(np.zeros((2, 8, 8), np.float32))
    assert say(floats, "a.npy", (8, 8), 2, range=ranges) == "2 channels, 32 bit floating point, range 0..1 0..2 -> [-1, 1]"
    assert "orientation RAS" in say(nifti(BRAIN), "a.nii", (8, 8, 8), 1)


def test_values_that_fill_little_of_their_range_are_said(tmp_path):
    assert too_dark(None, Preparation()) == ""
    assert "no value above 4095 of 65535" in too_dark(4095, Preparation())
    assert too_dark(36000, Preparation(), least=10000) == ""
    assert "values that fill 6.1 % of their range" in too_dark(36000, Preparation(), least=32000)
    assert "--data.range minmax, or percentiles" in too_dark(1000, Preparation(range=(0.0, 1e6)))
    (tmp_path / "a.npy").write_bytes(npy(RANDOM.integers(-1000, 1000, (1, 8, 8)).astype(np.int16)))
    told = []
    load_images([tmp_path / "a.npy"], size=(8, 8), channels=1, preparation=Preparation(), warn=told.append)
    assert len(told) == 1
    assert "a.npy has values that fill 3" in told[0]


# Gaps -----------------------------------------------------------------------------------------------------------------


def test_gaps_are_refused_unless_they_are_asked_for_and_then_marked():
    values = RANDOM.uniform(-1, 1, (2, 16, 16)).astype(np.float32)
    values[0, 3, 4], values[1, 9, 9] = np.nan, np.inf
    with pytest.raises(UnusableImage, match=r"has 2 values that are not finite .*: leave them out with --data.mask gaps"):
        read(npy(values), "a.npy", size=(16, 16), channels=2)
    array = read(npy(values), "a.npy", size=(16, 16), channels=2, mask="gaps")
    assert array.shape == (3, 16, 16)
    gone = np.zeros((16, 16), bool)
    gone[3, 4] = gone[9, 9] = True
    assert np.array_equal(array[2], np.where(gone, 0, 65535))
    assert np.array_equal(array[0, 3, 4], 32768)
    known = np.nan_to_num(values, nan=0, posinf=0)
    assert half_a_step(array[:2], known, -1, 1)


@pytest.mark.parametrize("size", [(8, 8), (13, 16), (40, 40), (8, 16, 16)])
def test_a_pixel_is_known_only_if_all_that_it_is_made_of_is(size):
    shape = (16,) * len(size)
    for at in [(5,) * len(size), (0,) * len(size)]:
        base = RANDOM.uniform(-0.5, 0.5, shape)
        arrays = []
        for fill in (-1.0, 1.0):
            values = base.copy()
            values[at] = fill
            arrays.append(read(npy(values), "a.npy", size=size).astype(int))
        depends = (arrays[0] != arrays[1])[0]
        values[at] = np.nan
        made = read(npy(values), "a.npy", size=size, mask="gaps")
        assert (made[-1][depends] == 0).all(), "what changes with the gap is not known"
        assert (made[-1] == 0).mean() < 0.7
        assert depends.any()


def test_values_that_a_tiff_marks_as_no_data_are_gaps():
    values = RANDOM.integers(1, 200, (8, 8)).astype(np.uint8)
    values[2, 3] = 0
    content = tif(values, extratags=[(42113, "s", 0, "0", True)])
    with pytest.raises(UnusableImage, match="has 1 values that are marked as no data: leave them out with --data.mask gaps"):
        read(content, "a.tif", size=(8, 8))
    array = read(content, "a.tif", size=(8, 8), mask="gaps")
    assert array.dtype == np.uint8
    assert np.array_equal(array[1] == 0, values == 0)
    assert np.array_equal(array[0][values > 0], values[values > 0])
    beyond = tif(values, extratags=[(42113, "s", 0, "-9999", True)])
    assert np.array_equal(read(beyond, "a.tif", size=(8, 8))[0], values)
    with pytest.raises(UnusableImage, match=r"marks gaps by 'none' \(GDAL_NODATA\)"):
        read(tif(values, extratags=[(42113, "s", 0, "none", True)]), "a.tif", size=(8, 8))


def test_a_picture_has_the_channel_of_gaps_too_and_is_known_all_over():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    array = read(buffer.getvalue(), "a.png", size=(8, 8), channels=3, mask="gaps")
    assert array.shape == (4, 8, 8)
    assert (array[3] == 255).all()
    assert (read(npy(np.zeros((1, 8, 8), np.uint16)), "a.npy", size=(8, 8), mask="gaps")[1] == 65535).all()
    with pytest.raises(UnusableImage, match="has no values at all, only gaps"):
        read(npy(np.full((1, 8, 8), np.nan)), "a.npy", size=(8, 8), mask="gaps")


# Series ---------------------------------------------------------------------------------------------------------------

VOLUME = RANDOM.integers(0, 4096, (6, 8, 8)).astype(np.uint16)
PLANE = [1, 0, 0, 0, 1, 0]


def slices(root, *, places=range(6), uid="1.2.3", **more):
    """A series of slices under names and numbers that say nothing of their order."""
    root.mkdir(parents=True, exist_ok=True)
    for i, place in enumerate(places):
        said = {"ImagePositionPatient": [0, 0, 2.5 * place], "ImageOrientationPatient": PLANE, "InstanceNumber": 99 - i}
        said |= {"SeriesInstanceUID": uid, "PixelSpacing": [0.5, 0.75], **more}
        said = {key: value for key, value in said.items() if value is not None}
        content = dicom(VOLUME[i], slope=1, intercept=-1024, bits=12, **said)
        (root / f"{(i * 5) % 7}-{uid}.dcm").write_bytes(content)


def volumes(root):
    source = open_source(root, sides=3)
    assert isinstance(source, Series)
    return source


def test_slices_are_a_volume_in_the_order_of_their_places(tmp_path):
    slices(tmp_path / "a")
    source = volumes(tmp_path)
    assert source.names == ["a/1.2.3.series"]
    assert len(source.holders) == 6
    content = source.read("a/1.2.3.series")
    array = read(content, "a/1.2.3.series", size=(6, 8, 8))
    assert half_a_step(array, VOLUME[None], 0, 4095)
    decoded = values_of(content, "a/1.2.3.series", sides=3, channels=1)
    assert decoded.limits == (-1024, 3071)
    assert decoded.spacing == (2.5, 0.5, 0.75)
    assert open_source(tmp_path).names == sorted(f"a/{i}-1.2.3.dcm" for i in (0, 1, 3, 4, 5, 6))


def test_other_series_and_files_are_images_of_their_own(tmp_path):
    slices(tmp_path, uid="1.1")
    slices(tmp_path, uid="1.2", places=range(5, -1, -1))
    (tmp_path / "brain.nii").write_bytes(nifti(BRAIN))
    source = volumes(tmp_path)
    assert source.names == ["1.1.series", "1.2.series", "brain.nii"]
    turned = values_of(source.read("1.2.series"), "1.2.series", sides=3, channels=1)
    assert np.array_equal(turned.values[0], VOLUME[::-1].astype(int) - 1024)
    assert source.read("brain.nii") == nifti(BRAIN)


@pytest.mark.parametrize("own", [True, False])
def test_folders_of_series_are_classes_and_a_table_beside_them_is_read(tmp_path, own):
    for i, kind in enumerate(("ill", "ill", "well", "well", "well")):
        slices(tmp_path / "set" / kind / (f"P{i}" if own else ""), uid=f"1.{i}")
    config = DataConfig(source=str(tmp_path / "set"), validation=0.0)
    data = prepare(config, size=(6, 8, 8), channels=1)
    assert data.labels["class=ill"].tolist() == [1, 1, 0, 0, 0]
    assert any("2 folders were taken for classes: well (3 images), ill (2 images)" in note for note in data.notes)
    (tmp_path / "set" / "labels.csv").write_text("file,age\n" + "".join(f"{name},{i}\n" for i, name in enumerate(data.names)))
    data = prepare(config, size=(6, 8, 8), channels=1)
    assert data.labels["age"].tolist() == [0, 1, 2, 3, 4]
    assert not any("left alone" in note for note in data.notes)


def test_slices_without_places_lie_by_their_numbers_and_it_is_said(tmp_path):
    slices(tmp_path, ImagePositionPatient=None)
    source = volumes(tmp_path)
    decoded = values_of(source.read("1.2.3.series"), "1.2.3.series", sides=3, channels=1)
    assert np.array_equal(decoded.values[0], VOLUME[::-1].astype(int) - 1024)
    assert decoded.spacing is None
    assert source.notes == ["The slices of 1.2.3.series say no positions, and were put in the order of their numbers."]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"places": [0, 1, 2, 3, 5, 6]}, "has slices 2.5 to 5 mm apart, as where one is missing"),
        ({"places": [0, 1, 2, 2, 3, 4]}, "has 6 slices, several of them at one place: divide its phases or echoes"),
        ({"ImagePositionPatient": None, "InstanceNumber": 4}, "does not say in which order its slices lie"),
    ],
)
def test_slices_that_are_no_volume_are_refused_for_their_reason(tmp_path, settings, why):
    slices(tmp_path, **settings)
    with pytest.raises(OSError, match=why):
        volumes(tmp_path).read("1.2.3.series")


def damaged(file, keyword, text):
    """Writes a DICOM file anew, with text in place of an element's numbers."""
    import pydicom

    dataset = pydicom.dcmread(file)
    tag = dataset.data_element(keyword).tag
    dataset[tag] = pydicom.dataelem.RawDataElement(tag, dataset[tag].VR, len(text), text.encode(), 0, False, True)
    dataset.save_as(file)


@pytest.mark.parametrize(
    ("keyword", "text"), [("ImagePositionPatient", "0\\0\\2,0"), ("ImageOrientationPatient", "x\\0\\0\\0\\1\\0")]
)
def test_a_series_of_which_a_slice_is_damaged_is_skipped_by_name_and_no_other(tmp_path, keyword, text):
    slices(tmp_path, uid="1.1")
    slices(tmp_path, uid="1.2")
    damaged(tmp_path / "5-1.2.dcm", keyword, text)
    data = prepare(DataConfig(source=str(tmp_path), validation=0.0), size=(6, 8, 8), channels=1)
    assert data.names == ["1.1.series"]
    assert any(f"1.2.series cannot be read (has a slice, 5-1.2.dcm, whose {keyword} is damaged" in note for note in data.notes)


def test_a_number_of_a_slice_matters_only_where_its_place_is_not_said(tmp_path):
    slices(tmp_path)
    damaged(tmp_path / "5-1.2.3.dcm", "InstanceNumber", "x ")
    assert volumes(tmp_path).read("1.2.3.series")
    for file in tmp_path.iterdir():
        damaged(file, "ImagePositionPatient", "")
    with pytest.raises(OSError, match=r"has a slice, 5-1\.2\.3\.dcm, whose InstanceNumber is damaged"):
        volumes(tmp_path).read("1.2.3.series")


def test_a_file_whose_number_of_frames_is_damaged_is_skipped_by_name_and_no_other(tmp_path):
    slices(tmp_path)
    (tmp_path / "more.dcm").write_bytes(dicom(VOLUME, bits=12, SeriesInstanceUID="1.2.3"))
    damaged(tmp_path / "more.dcm", "NumberOfFrames", "x ")
    data = prepare(DataConfig(source=str(tmp_path), validation=0.0), size=(6, 8, 8), channels=1)
    assert data.names == ["1.2.3.series"]
    assert any("  more.dcm has pixels that cannot be decoded" in note for note in data.notes)


def test_the_padding_of_slices_is_that_of_their_volume(tmp_path):
    slices(tmp_path, PixelPaddingValue=0, PixelPaddingRangeLimit=99)
    source = volumes(tmp_path)
    decoded = values_of(source.read("1.2.3.series"), "1.2.3.series", sides=3, channels=1)
    assert np.array_equal(decoded.padding[0], VOLUME < 100)
    assert np.array_equal(decoded.values[0], VOLUME.astype(int) - 1024)
    config = DataConfig(source=str(tmp_path), validation=0.0, crop="none", range="minmax")
    data = prepare(dataclasses.replace(config, mask="gaps"), size=(6, 8, 8), channels=1)
    assert np.array_equal(data.counted([0])[0, 0], VOLUME >= 100)
    assert data.config.range == (VOLUME[VOLUME >= 100].min() - 1024.0, VOLUME.max() - 1024.0)
    plain = prepare(config, size=(6, 8, 8), channels=1)
    assert plain.config.range == (VOLUME.min() - 1024.0, VOLUME.max() - 1024.0)
    assert sum("filled up by the scanner (PixelPaddingValue)" in note for note in plain.notes) == 1
    assert not any("filled up" in note for note in data.notes)


def test_slices_of_other_sizes_or_directions_are_no_volume(tmp_path):
    slices(tmp_path / "a")
    said = {"ImagePositionPatient": [0, 0, 15], "SeriesInstanceUID": "1.2.3", "ImageOrientationPatient": PLANE}
    (tmp_path / "a" / "more.dcm").write_bytes(dicom(np.zeros((8, 9), np.uint16), **said))
    with pytest.raises(OSError, match="has slices of 1 x 8 x 8 and of 1 x 8 x 9"):
        volumes(tmp_path).read("a/1.2.3.series")
    said["ImageOrientationPatient"] = [0, 1, 0, 0, 0, 1]
    (tmp_path / "a" / "more.dcm").write_bytes(dicom(np.zeros((8, 8), np.uint16), **said))
    with pytest.raises(OSError, match="has slices of several orientations"):
        volumes(tmp_path).read("a/1.2.3.series")


def given(*files, size=(6, 8, 8)):
    """Images as commands open those that are named one by one."""
    ae = SimpleNamespace(pixels_shape=lambda: (1, *size), preparation=Preparation())
    return inputs.pixels(ae, files, None)


def test_a_folder_of_one_series_is_given_as_a_volume(tmp_path, capsys):
    slices(tmp_path / "p1" / "ct", ImagePositionPatient=None)
    (tmp_path / "brain.npy").write_bytes(npy(VOLUME))
    x = given(tmp_path / "p1", tmp_path / "brain.npy")
    source = volumes(tmp_path / "p1")
    assert torch.equal(x[0], in_range(read(source.read(source.names[0]), source.names[0], size=(6, 8, 8))))
    assert "The slices of ct/1.2.3.series say no positions" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ValueError, match="out.npy is written as the file that an image came from, and .*p1 is a folder of slices"):
        write_back(x[0], tmp_path / "out.npy", like=tmp_path / "p1", preparation=Preparation())


def test_folders_that_are_no_volume_are_refused_for_what_they_hold(tmp_path):
    slices(tmp_path / "two", uid="1.1")
    slices(tmp_path / "two", uid="1.2")
    (tmp_path / "two" / "brain.nii").write_bytes(nifti(BRAIN))
    with pytest.raises(ValueError, match="two is a folder with 2 series of DICOM slices and 1 other image, and a volume is one"):
        given(tmp_path / "two")
    slices(tmp_path / "torn", places=[0, 1, 2, 3, 5, 6])
    with pytest.raises(ValueError, match="torn has slices 2.5 to 5 mm apart"):
        given(tmp_path / "torn")
    with pytest.raises(ValueError, match="torn is a folder: name its files"):
        given(tmp_path / "torn", size=(8, 8))


# Written back ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.MGHImage])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_brain_goes_in_and_out_with_its_affine(tmp_path, kind, dtype):
    end = ".mgz" if kind is nibabel.MGHImage else ".nii.gz"
    like, target = tmp_path / f"like{end}", tmp_path / f"out{end}"
    image = kind(BRAIN.astype(dtype), AFFINE)
    nibabel.save(image, like)
    made = Preparation(crop="none", range=(-3000.0, 3000.0) if dtype is np.float32 else None)
    size = nibabel.as_closest_canonical(image).shape[::-1]
    (x,) = load_images([like], size=size, channels=1, preparation=made)
    write_back(x, target, like=like, preparation=made)
    back = nibabel.load(target)
    assert np.array_equal(back.affine, image.affine)
    assert back.shape == BRAIN.shape
    assert back.get_data_dtype().newbyteorder("=") == dtype
    if dtype is np.int16:
        assert np.array_equal(np.asarray(back.dataobj), BRAIN)
    else:
        assert np.abs(back.get_fdata() - BRAIN).max() <= 0.51 * 6000 / 65535


@pytest.mark.parametrize(("source", "wanted"), [("like.mgz", "out.nii.gz"), ("like.nii", "out.mgz"), ("like.nii.gz", "out.mgh")])
def test_a_brain_is_written_as_the_kind_that_the_ending_says(tmp_path, source, wanted):
    kind = nibabel.MGHImage if "mg" in source else nibabel.Nifti1Image
    nibabel.save(kind(BRAIN, AFFINE), tmp_path / source)
    made = Preparation(crop="none")
    size = nibabel.as_closest_canonical(kind(BRAIN, AFFINE)).shape[::-1]
    (x,) = load_images([tmp_path / source], size=size, channels=1, preparation=made)
    write_back(x, tmp_path / wanted, like=tmp_path / source, preparation=made)
    back = nibabel.load(tmp_path / wanted)
    assert type(back) is (nibabel.MGHImage if "mg" in wanted else nibabel.Nifti1Image)
    assert np.allclose(back.affine, AFFINE, atol=1e-5)
    assert np.array_equal(np.asarray(back.dataobj), BRAIN)


def test_values_that_the_wanted_kind_cannot_hold_are_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(BRAIN.astype(np.int8), AFFINE), tmp_path / "like.nii")
    made = Preparation(crop="none")
    (x,) = load_images([tmp_path / "like.nii"], size=(6, 8, 7), channels=1, preparation=made)
    with pytest.raises(ValueError, match=r"out.mgz cannot hold int8, which the file's values are: write .nii.gz or .npy"):
        write_back(x, tmp_path / "out.mgz", like=tmp_path / "like.nii", preparation=made)


@pytest.mark.parametrize("crop", ["none", "center"])
def test_at_another_size_every_point_of_the_brain_stays_where_it_is(tmp_path, crop):
    # Values are linear in the world's coordinates, so a value says where its voxel has to be.
    shape = (24, 20, 28)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = grid @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    values = (world @ [3.0, 2.0, 1.0]).astype(np.float32)
    like = tmp_path / "like.nii"
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), like)
    made = Preparation(crop=crop, range=(-300.0, 500.0))
    (x,) = load_images([like], size=(12, 10, 9), channels=1, preparation=made)
    write_back(x, tmp_path / "out.nii", like=like, preparation=made)
    back = nibabel.load(tmp_path / "out.nii")
    grid = np.stack(np.meshgrid(*map(np.arange, back.shape), indexing="ij"), -1)
    world = grid @ back.affine[:3, :3].T + back.affine[:3, 3]
    inner = (slice(2, -2),) * 3
    # Half a voxel of the file, along the axis where values change least, is 0.75.
    assert np.abs(back.get_fdata() - world @ [3.0, 2.0, 1.0])[inner].max() < 0.4
    assert nibabel.aff2axcodes(back.affine) == nibabel.aff2axcodes(AFFINE)


def test_other_kinds_are_written_in_their_own_values(tmp_path):
    values = CT.astype(int) - 1024
    for i, name in enumerate(("a.dcm", "turned.dcm")):
        kind = f"MONOCHROME{2 - i}"
        (tmp_path / name).write_bytes(dicom(CT, slope=1, intercept=-1024, bits=12, kind=kind))
        (x,) = load_images([tmp_path / name], size=(8, 8), channels=1, preparation=Preparation())
        write_back(x, tmp_path / "out.npy", like=tmp_path / name, preparation=Preparation())
        assert np.array_equal(np.load(tmp_path / "out.npy")[0], values)
        write_back(x, tmp_path / "out.tif", like=tmp_path / name, preparation=Preparation())
        back = tifffile.imread(tmp_path / "out.tif")
        assert back.dtype == np.float32
        assert np.array_equal(back, values)
    with pytest.raises(ValueError, match=r"out.nii needs an affine, and .*a.dcm is no volume that has one"):
        write_back(x, tmp_path / "out.nii", like=tmp_path / "a.dcm", preparation=Preparation())
    with pytest.raises(ValueError, match=r"out.png is no name for what is written"):
        write_back(x, tmp_path / "out.png", like=tmp_path / "a.dcm", preparation=Preparation())
    bands = RANDOM.normal(0, 1, (5, 8, 8)).astype(np.float32)
    (tmp_path / "bands.fits").write_bytes(sky(bands))
    made = Preparation(range=(-9.0, 9.0))
    (x,) = load_images([tmp_path / "bands.fits"], size=(8, 8), channels=5, preparation=made)
    write_back(x, tmp_path / "out.tif", like=tmp_path / "bands.fits", preparation=made)
    assert np.abs(tifffile.imread(tmp_path / "out.tif") - bands[:, ::-1]).max() <= 0.51 * 18 / 65535


@pytest.mark.parametrize("limits", [(0.0, 4095.0), "window"])
def test_a_picture_of_8_bits_is_written_as_it_was_read_whatever_the_range(tmp_path, limits):
    pixels = RANDOM.integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    made = Preparation(crop="none", range=limits)
    (x,) = load_images([tmp_path / "a.png"], size=(8, 8), channels=1, preparation=made)
    write_back(x, tmp_path / "out.npy", like=tmp_path / "a.png", preparation=made)
    back = np.load(tmp_path / "out.npy")
    assert back.dtype == np.uint8
    assert np.array_equal(back[0], pixels)


def test_values_survive_the_way_into_the_networks_range():
    values = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    array = read(npy(values), "a.npy", size=(256, 256))
    assert np.array_equal(array, values)
    assert np.array_equal(np.rint((in_range(array).double().numpy() + 1) * 32767.5), values)
    assert torch.equal(in_range(array), in_range(values))
    assert levels(array).max() == 1
    assert dataclasses.replace(Preparation(), range=(0.0, 1.0)).range == (0.0, 1.0)


@pytest.mark.parametrize("place", ["nan", "inf"])
def test_slices_whose_place_is_no_number_are_no_volume(place):
    positions = [(0, 0, 0), (0, 0, float(place)), (0, 0, 2)]
    with pytest.raises(UnusableImage, match="has slices whose positions are no finite numbers"):
        order_of_slices(positions, [(1, 0, 0, 0, 1, 0)] * 3)
    order, between = order_of_slices([(0, 0, 4), (0, 0, 0), (0, 0, 2)], [(1, 0, 0, 0, 1, 0)] * 3)
    assert (order.tolist(), between) == ([1, 2, 0], 2.0)
