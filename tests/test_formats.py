"""Files of medicine and science: what their own libraries read of them is what a model sees, or a line says why not."""

import gzip
import io
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiff
from PIL import Image

from diffae.config import DataConfig, Preparation
from diffae.data import prepare
from diffae.data.images import UnusableImage, load_images, read_image, values_of
from diffae.data.images import files as image_files
from diffae.data.sources import open_source

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")
tifffile = pytest.importorskip("tifffile")
fits = pytest.importorskip("astropy.io.fits")

pytestmark = pytest.mark.filterwarnings("ignore")  # Of the libraries, about odd files; ours come through `warn`.

READERS = Path(__file__).parents[2] / "shared" / "data" / "readers.zip"
RANDOM = np.random.default_rng(0)


def levels(array):
    """What is stored for [-1, 1] -> 0..1."""
    return array.astype(float) / np.iinfo(array.dtype).max


def half_a_step(array, values, low, high):
    """Whether stored values are those of a file within half a step of 65535 levels of its range, and float32's own rounding."""
    return np.abs(levels(array) - (np.asarray(values, float) - low) / (high - low)).max() <= 0.505 / 65535


def read(content, name, *, size, channels=1, told=None, **preparation):
    warn = (lambda text: None) if told is None else told.append
    made = Preparation(**{"crop": "none", **preparation})
    return read_image(content, name, size=size, channels=channels, preparation=made, warn=warn)


# DICOM ----------------------------------------------------------------------------------------------------------------


def dicom(values, *, slope=None, intercept=None, bits=16, kind="MONOCHROME2", header=True, **more):
    """A DICOM file of stored values (h, w), (frames, h, w) or (h, w, 3)."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    values = np.asarray(values)
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    colour = kind in ("RGB", "YBR_FULL")
    frames = values.ndim - 2 - colour
    dataset.Rows, dataset.Columns = values.shape[frames : frames + 2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3 if colour else 1), kind
    dataset.BitsAllocated = values.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    if colour:
        dataset.PlanarConfiguration = 0
    if frames:
        dataset.NumberOfFrames = len(values)
    if slope is not None:
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    for name, value in more.items():
        setattr(dataset, name, value)
    dataset.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
    file = io.BytesIO()
    if header:
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    else:
        pydicom.dcmwrite(file, dataset, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return file.getvalue()


CT = RANDOM.integers(0, 4096, (8, 8)).astype(np.uint16)


def test_a_ct_of_12_bits_has_the_limits_of_its_bits_after_rescaling():
    content = dicom(CT, slope=1, intercept=-1024, bits=12)
    decoded = values_of(content, "a.dcm", sides=2, channels=1)
    assert decoded.limits == (-1024, 3071)
    assert np.array_equal(decoded.values[0], CT.astype(int) - 1024)
    assert half_a_step(read(content, "a.dcm", size=(8, 8)), CT[None], 0, 4095)


def test_signed_values_and_slopes_that_are_no_whole_numbers_are_kept():
    values = RANDOM.integers(-2000, 2000, (8, 8)).astype(np.int16)
    content = dicom(values, slope=0.5, intercept=3.25)
    decoded = values_of(content, "a.dcm", sides=2, channels=1)
    assert np.allclose(decoded.values[0], values * 0.5 + 3.25, rtol=0, atol=0)
    assert decoded.limits == (-32768 * 0.5 + 3.25, 32767 * 0.5 + 3.25)
    assert half_a_step(read(content, "a.dcm", size=(8, 8)), decoded.values, *decoded.limits)


def test_monochrome1_is_turned_over_so_that_more_is_brighter():
    plain, turned = (read(dicom(CT, bits=12, kind=k), "a.dcm", size=(8, 8)) for k in ("MONOCHROME2", "MONOCHROME1"))
    assert np.abs(plain.astype(int) + turned - 65535).max() <= 1
    decoded = values_of(dicom(CT, bits=12, kind="MONOCHROME1"), "a.dcm", sides=2, channels=1)
    assert np.array_equal(decoded.values[0], 4095 - CT)
    assert "MONOCHROME1 turned over" in decoded.meant


@pytest.mark.parametrize(
    ("kind", "value", "limit", "padded"),
    [
        (np.int16, -2000, None, [-2000]),
        (np.int16, 63536, None, [-2000]),
        (np.uint16, 63536, None, [63536]),
        (np.uint16, -2000, None, [63536]),
        (np.int16, -2000, -1000, [-2000, -1500, -1000]),
        (np.int16, -1000, -2000, [-2000, -1500, -1000]),
        (np.int16, 7, None, []),
    ],
)
@pytest.mark.parametrize("form", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_what_the_stored_values_are_by_the_type_of_the_pixels(kind, value, limit, padded, form):
    said = {"PixelPaddingValue": value} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
    values = np.array([[-2000, -1500, -1000, 0], [40, 80, 1000, 2000]]).astype(np.int64).astype(kind)
    content = with_words(dicom(values, slope=2, intercept=-1, kind=form), **said)
    decoded = values_of(content, "a.dcm", sides=2, channels=1)
    expected = np.isin(values, np.array(padded).astype(kind))
    assert (decoded.padding is None) if not padded else np.array_equal(decoded.padding[0], expected)
    plain = values_of(dicom(values, slope=2, intercept=-1, kind=form), "a.dcm", sides=2, channels=1)
    assert np.array_equal(decoded.values, plain.values)
    assert decoded.gaps is None


def with_words(content, **words):
    """A DICOM file with elements of 16 bits whose type is said to be the one that holds them."""
    dataset, file = pydicom.dcmread(io.BytesIO(content)), io.BytesIO()
    for keyword, value in words.items():
        dataset.add_new(keyword, "SS" if np.min(value) < 0 else "US", value)
    pydicom.dcmwrite(file, dataset)
    return file.getvalue()


def test_padding_is_read_as_before_and_said_unless_gaps_are_left_out():
    values = CT.copy()
    values[:2] = 0
    plain = dicom(values, slope=1, intercept=-1024, bits=12)
    content, told = dicom(values, slope=1, intercept=-1024, bits=12, PixelPaddingValue=0), []
    assert np.array_equal(read(content, "a.dcm", size=(8, 8), told=told), read(plain, "a.dcm", size=(8, 8)))
    assert told == [
        "filled up by the scanner (PixelPaddingValue), and that was read as values like others: leave it out with --data.mask gaps"
    ]
    told.clear()
    array = read(content, "a.dcm", size=(8, 8), mask="gaps", told=told)
    assert (array[1] == 65535 * (values > 0)).all()
    assert told == []
    with pytest.raises(UnusableImage, match="has no values at all, only gaps"):
        read(dicom(np.zeros((8, 8), np.uint16), PixelPaddingValue=0), "a.dcm", size=(8, 8), mask="gaps")


def test_colours_are_red_green_and_blue_and_stay_what_they_are():
    rgb = RANDOM.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    array = read(dicom(rgb, bits=8, kind="RGB"), "a.dcm", size=(8, 8), channels=3)
    assert array.dtype == np.uint8
    assert np.array_equal(array, rgb.transpose(2, 0, 1))
    grey = read(dicom(rgb, bits=8, kind="RGB"), "a.dcm", size=(8, 8), channels=1)
    assert np.abs(grey[0].astype(int) - np.asarray(Image.fromarray(rgb).convert("L"))).max() <= 1
    assert (read(dicom(rgb, bits=8, kind="RGB"), "a.dcm", size=(8, 8), channels=4)[3] == 255).all()
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    back = read(dicom(ycc, bits=8, kind="YBR_FULL"), "a.dcm", size=(8, 8), channels=3)
    assert np.abs(back.astype(int) - rgb.transpose(2, 0, 1)).max() <= 3


def test_frames_are_the_depth_of_a_volume_or_the_first_is_taken_and_said():
    frames = RANDOM.integers(0, 256, (6, 8, 8)).astype(np.uint8)
    content, told = dicom(frames, bits=8), []
    assert np.array_equal(read(content, "a.dcm", size=(6, 8, 8), told=told), frames[None])
    assert told == []
    assert np.array_equal(read(content, "a.dcm", size=(8, 8), told=told)[0], frames[0])
    assert told == ["of 6 frames, of which 5 are left out: the first was taken"]


def enhanced(frames, places, *, scales=(), windows=(), kind="MONOCHROME2", **shared):
    """An enhanced DICOM file: its frames lie at these places; each is scaled and shown by itself, or all as `shared` says."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def groups(**said):
        made = Dataset()
        for name, values in said.items():
            item = Dataset()
            for key, value in values.items():
                setattr(item, key, value)
            setattr(made, name, Sequence([item]))
        return made

    own = [groups(PlanePositionSequence={"ImagePositionPatient": [0, 0, 2.5 * place]}) for place in places]
    for made, (slope, intercept) in zip(own, scales, strict=False):
        made.update(groups(PixelValueTransformationSequence={"RescaleSlope": slope, "RescaleIntercept": intercept}))
    for made, (center, width) in zip(own, windows, strict=False):
        made.update(groups(FrameVOILUTSequence={"WindowCenter": center, "WindowWidth": width}))
    plane = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    of_all = groups(PlaneOrientationSequence=plane, PixelMeasuresSequence={"PixelSpacing": [0.5, 0.75]}, **shared)
    said = {"PerFrameFunctionalGroupsSequence": Sequence(own), "SharedFunctionalGroupsSequence": Sequence([of_all])}
    return dicom(frames, bits=12, kind=kind, **said)


FRAMES = RANDOM.integers(0, 4096, (4, 8, 8)).astype(np.uint16)


def test_frames_that_say_where_they_lie_are_a_volume_in_that_order():
    content = enhanced(FRAMES, [2, 0, 3, 1])
    decoded = values_of(content, "a.dcm", sides=3, channels=1)
    assert np.array_equal(decoded.values[0], FRAMES[[1, 3, 0, 2]])
    assert decoded.spacing == (2.5, 0.5, 0.75)
    assert np.array_equal(values_of(content, "a.dcm", sides=2, channels=1).values[0], FRAMES[0])


def test_padding_of_frames_lies_as_they_do():
    frames = RANDOM.integers(0, 8, (4, 8, 8)).astype(np.uint16)
    content = with_words(enhanced(frames, [2, 0, 3, 1]), PixelPaddingValue=3)
    decoded = values_of(content, "a.dcm", sides=3, channels=1)
    assert np.array_equal(decoded.padding[0], frames[[1, 3, 0, 2]] == 3)
    assert np.array_equal(values_of(content, "a.dcm", sides=2, channels=1).padding[0], frames[0] == 3)
    single = values_of(dicom(frames[0], bits=12, PixelPaddingValue=3), "a.dcm", sides=3, channels=1)
    assert np.array_equal(single.padding[0, 0], frames[0] == 3)


def test_padding_of_several_values_is_none_and_that_is_said():
    decoded = values_of(with_words(dicom(CT, bits=12), PixelPaddingValue=[1, 2]), "a.dcm", sides=2, channels=1)
    assert decoded.padding is None
    assert decoded.notes == ("with a PixelPaddingValue that is no number, so no padding is known",)


def test_frames_are_scaled_as_the_file_says_of_all_or_of_each():
    of_all = {"PixelValueTransformationSequence": {"RescaleSlope": 1, "RescaleIntercept": -1024}}
    decoded = values_of(enhanced(FRAMES, range(4), **of_all), "a.dcm", sides=3, channels=1)
    assert np.array_equal(decoded.values[0], FRAMES.astype(int) - 1024)
    assert decoded.limits == (-1024, 3071)
    scales = [(1, 0), (2, 0), (0.5, 10), (1, -1024)]
    wanted = np.stack([frame * float(slope) + intercept for frame, (slope, intercept) in zip(FRAMES, scales, strict=True)])
    content = enhanced(FRAMES, [3, 2, 1, 0], scales=scales, **of_all)
    decoded = values_of(content, "a.dcm", sides=3, channels=1)
    assert np.array_equal(decoded.values[0], wanted[::-1])
    assert decoded.limits == (-1024, 8190)
    assert np.array_equal(values_of(content, "a.dcm", sides=2, channels=1).values[0], wanted[0])
    with pytest.raises(UnusableImage, match="is MONOCHROME1 .* with frames that are scaled each in its own way"):
        values_of(enhanced(FRAMES, range(4), scales=scales, kind="MONOCHROME1"), "a.dcm", sides=3, channels=1)


@pytest.mark.parametrize(
    ("places", "why"),
    [
        ([0, 1, 1, 2], "has 4 slices, several of them at one place"),
        ([0, 1, 2, 4], "has slices 2.5 to 5 mm apart, as where one is missing"),
        ([0, 1, 2], "describes 3 frames, and has 4"),
    ],
)
def test_frames_that_are_no_volume_are_refused_for_their_reason(places, why):
    with pytest.raises(UnusableImage, match=why):
        values_of(enhanced(FRAMES, places), "a.dcm", sides=3, channels=1)


def test_a_window_is_the_files_own_as_the_standard_has_it():
    content = dicom(CT, slope=1, intercept=-1024, bits=12, WindowCenter=40, WindowWidth=400)
    told = []
    array = read(content, "a.dcm", size=(8, 8), range="window", told=told)
    expected = ((CT.astype(float) - 1024 - (40 - 0.5)) / (400 - 1) + 0.5).clip(0, 1)
    assert np.abs(levels(array[0]) - expected).max() <= 0.505 / 65535
    assert told[0].startswith("clipped to the range: up to ")
    with pytest.raises(UnusableImage, match="says no window of its own"):
        read(dicom(CT), "a.dcm", size=(8, 8), range="window")


def test_a_window_may_stand_where_frames_are_described():
    window = {"FrameVOILUTSequence": {"WindowCenter": 40, "WindowWidth": 400}}
    decoded = values_of(enhanced(FRAMES, range(4), **window), "a.dcm", sides=3, channels=1)
    assert decoded.window == (39.5 - 199.5, 39.5 + 199.5)
    assert decoded.meant == ()
    content = enhanced(FRAMES, range(4), windows=[(40, 400), (40, 400), (80, 100), (40, 400)])
    decoded = values_of(content, "a.dcm", sides=3, channels=1)
    assert decoded.window == (39.5 - 199.5, 39.5 + 199.5)
    assert decoded.meant == ("window of the first frame, and others have others",)
    assert values_of(content, "a.dcm", sides=2, channels=1).meant == ()


def test_a_file_without_a_header_or_without_an_ending_is_read(tmp_path):
    assert half_a_step(read(dicom(CT, bits=12, header=False), "a.dcm", size=(8, 8)), CT[None], 0, 4095)
    assert half_a_step(read(dicom(CT, bits=12), "IM0001", size=(8, 8)), CT[None], 0, 4095)
    (tmp_path / "set").mkdir()
    for name in ("IM0001", "1.2.840.17", "DICOMDIR"):
        (tmp_path / "set" / name).write_bytes(dicom(CT, bits=12))
    (tmp_path / "set" / "README").write_text("no image")
    source = open_source(tmp_path / "set")
    assert source.names == ["1.2.840.17", "IM0001"]
    assert source.others == 2
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in (tmp_path / "set").iterdir():
            archive.write(file, file.name)
    assert open_source(tmp_path / "a.zip").names == source.names
    with pytest.raises(UnusableImage, match="is no readable DICOM file"):
        read(b"", "a.dcm", size=(8, 8))


def test_what_is_cut_short_or_holds_no_pixels_is_refused():
    content = dicom(CT)
    with pytest.raises(UnusableImage, match="has pixels that cannot be decoded"):
        read(content[:-20], "a.dcm", size=(8, 8))
    dataset = pydicom.dcmread(io.BytesIO(content))
    del dataset.PixelData
    file = io.BytesIO()
    dataset.save_as(file)
    with pytest.raises(UnusableImage, match=r"holds no pixels \(its modality is not said\)"):
        read(file.getvalue(), "a.dcm", size=(8, 8))


def expected_of_dicom(content):
    """What pydicom reads: values of the modality, (h, w), (f, h, w) or with colours last."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    values = pydicom.pixels.pixel_array(dataset)
    kind = dataset.PhotometricInterpretation
    values = apply_color_lut(values, dataset) if kind == "PALETTE COLOR" else apply_modality_lut(values, dataset)
    return values, int(dataset.get("NumberOfFrames") or 1), kind


def dicom_files():
    root = Path(pydicom.__file__).parent / "data" / "test_files"
    yield from ((f.name, f.read_bytes()) for f in sorted(root.glob("*.dcm")))
    root = Path(nibabel.__file__).parent / "tests" / "data"
    yield from ((f.name, f.read_bytes()) for f in sorted(root.glob("*.dcm")))
    yield from shared("dicom/")


def shared(prefix):
    if READERS.is_file():
        with zipfile.ZipFile(READERS) as archive:
            yield from ((name, archive.read(name)) for name in archive.namelist() if name.startswith(prefix))


REFUSED = {
    "holds no pixels": {
        "ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "UN_sequence.dcm", "empty_charset_LEI.dcm", "no_meta.dcm",
        "no_meta_group_length.dcm", "priv_SQ.dcm", "reportsi.dcm", "reportsi_with_empty_number_tags.dcm", "rtplan.dcm",
        "rtplan_truncated.dcm", "rtstruct.dcm", "test-SR.dcm", "waveform_ecg.dcm",
    },
    "pixels that cannot be decoded": {
        "JPEG-lossy.dcm", "JPEG2000-embedded-sequence-delimiter.dcm", "MR_truncated.dcm", "badVR.dcm",
    },
    "has the colours of no name": {"meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm"},
}  # fmt: skip
"""Reason -> files of pydicom's own tests that are no images, or that it cannot decode either."""


def test_every_dicom_file_of_pydicoms_tests_is_read_as_pydicom_does_or_refused_for_its_reason():
    num = 0
    for name, content in dicom_files():
        reason = next((r for r, names in REFUSED.items() if Path(name).name in names), None)
        if reason is not None:
            with pytest.raises(UnusableImage, match=reason):
                values_of(content, name, sides=2, channels=1)
            continue
        values, frames, kind = expected_of_dicom(content)
        assert kind != "MONOCHROME1"
        last = kind not in ("MONOCHROME1", "MONOCHROME2")
        volume = values_of(content, name, sides=3, channels=1)
        wanted = values if frames > 1 else values[None]
        wanted = np.moveaxis(wanted, -1, 0) if last else wanted[None]
        assert volume.values.shape == wanted.shape, name
        assert np.array_equal(volume.values, wanted), name
        flat = values_of(content, name, sides=2, channels=1)
        assert np.array_equal(flat.values, wanted[:, 0]), name
        assert (frames > 1) == any("frames" in note for note in flat.notes), name
        if flat.limits is not None:
            assert flat.limits[0] <= flat.values.min() <= flat.values.max() <= flat.limits[1], name
        num += 1
    assert num >= 60


# NIfTI and MGH --------------------------------------------------------------------------------------------------------

AFFINE = np.array([[0, 0, 3.0, -5], [-2, 0, 0, 7], [0, 1.5, 0, 2], [0, 0, 0, 1]])
"""x is -2 along y, and so on: axes in another order, one of them turned about, voxels of three lengths."""
BRAIN = RANDOM.integers(-3000, 3000, (6, 7, 8)).astype(np.int16)


def nifti(values, *, affine=AFFINE, kind=nibabel.Nifti1Image, zipped=False):
    content = kind(values, affine).to_bytes()
    return gzip.compress(content) if zipped else content


def test_a_volume_comes_in_ras_as_depth_height_width():
    decoded = values_of(nifti(BRAIN), "a.nii", sides=3, channels=1)
    i, j, k = 2, 3, 4
    x, y, z = AFFINE[:3, :3] @ (i, j, k) + AFFINE[:3, 3]
    # Where the smallest coordinates are, along each axis of the world.
    corners = np.array(np.meshgrid([0, 5], [0, 6], [0, 7])).reshape(3, -1)
    least = (AFFINE[:3, :3] @ corners + AFFINE[:3, 3:]).min(1)
    w, h, d = ((np.array([x, y, z]) - least) / (3, 2, 1.5)).round().astype(int)
    assert decoded.values[0, d, h, w] == BRAIN[i, j, k]
    assert decoded.spacing == (1.5, 2, 3)
    assert "orientation RAS" in decoded.meant


@pytest.mark.parametrize(
    ("name", "kind", "zipped"),
    [
        ("a.nii", nibabel.Nifti1Image, False),
        ("a.nii.gz", nibabel.Nifti1Image, True),
        ("a.nii.gz", nibabel.Nifti2Image, True),
        ("a.mgh", nibabel.MGHImage, False),
        ("a.mgz", nibabel.MGHImage, True),
    ],
)
def test_volumes_are_read_within_half_a_step(name, kind, zipped):
    content = nifti(BRAIN, affine=np.eye(4), kind=kind, zipped=zipped)
    array = read(content, name, size=(8, 7, 6))
    assert array.dtype == np.uint16
    assert half_a_step(array, BRAIN.transpose(2, 1, 0)[None], -32768, 32767)


def test_scaled_values_have_scaled_limits_whatever_the_orientation():
    image = nibabel.Nifti1Image(np.linspace(-100, 900, 64).reshape(4, 4, 4), AFFINE)
    image.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.25, 400)
    decoded = values_of(image.to_bytes(), "a.nii", sides=3, channels=1)
    stored = nibabel.Nifti1Image.from_bytes(image.to_bytes())
    slope, inter = stored.dataobj.slope, stored.dataobj.inter
    assert slope not in (0, 1)
    assert decoded.limits == pytest.approx(sorted((-32768 * slope + inter, 32767 * slope + inter)))


def test_the_fourth_axis_is_said_to_be_left_out_or_is_the_channels():
    values = RANDOM.integers(0, 256, (8, 8, 8, 2)).astype(np.uint8)
    told = []
    one = read(nifti(values, affine=np.eye(4)), "a.nii", size=(8, 8, 8), told=told)
    assert np.array_equal(one, values[..., 0].T[None])
    assert told == ["of 2 volumes, of which 1 are left out: the first was taken"]
    two = read(nifti(values, affine=np.eye(4)), "a.nii", size=(8, 8, 8), channels=2, told=told)
    assert np.array_equal(two, values.transpose(3, 2, 1, 0))
    assert len(told) == 1


def test_a_volume_is_no_flat_image_but_a_single_slice_is():
    with pytest.raises(UnusableImage, match="is a volume of 8 x 7 x 6, and the model's images have two sides"):
        read(nifti(BRAIN, affine=np.eye(4)), "a.nii", size=(8, 8))
    assert read(nifti(BRAIN[:, :, :1], affine=np.eye(4)), "a.nii", size=(7, 6)).shape == (1, 7, 6)


def test_the_centre_of_a_volume_is_cut_in_millimetres():
    # Slices five times as far apart as pixels: 8 slices of 40 x 40 are a cube.
    values = np.zeros((40, 40, 8), np.uint8)
    values[..., 0], values[..., -1] = 10, 200
    array = read(nifti(values, affine=np.diag([1, 1, 5, 1.0])), "a.nii", size=(8, 8, 8), crop="center")
    assert array[0, 0].max() == 10
    assert array[0, -1].min() == 200
    flat = np.zeros((40, 40, 16), np.uint8)
    flat[..., 4:12] = 100
    array = read(nifti(flat, affine=np.diag([1, 1, 5, 1.0])), "a.nii", size=(8, 8, 8), crop="center")
    assert (array == 100).all(), "the outer slices are beyond the cube"


def test_every_nifti_file_of_nibabels_tests_is_read_as_nibabel_does():
    root = Path(nibabel.__file__).parent / "tests" / "data"
    files = [(f.name, f.read_bytes()) for f in sorted(root.iterdir()) if f.name.endswith((".nii", ".nii.gz", ".mgz", ".mgh"))]
    num = 0
    for name, content in [*files, *shared("nifti/")]:
        if "dconn" in name:
            with pytest.raises(UnusableImage, match="has 6 axes"):
                values_of(content, name, sides=3, channels=1)
            continue
        plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        longer = 540 in (int.from_bytes(plain[:4], "little"), int.from_bytes(plain[:4], "big"))
        kind = nibabel.MGHImage if ".mg" in name else nibabel.Nifti2Image if longer else nibabel.Nifti1Image
        image = nibabel.as_closest_canonical(kind.from_bytes(plain))
        expected = image.get_fdata()
        expected = expected if expected.ndim == 3 else expected[..., 0]
        decoded = values_of(content, name, sides=3, channels=1)
        assert np.array_equal(decoded.values[0], expected.transpose(2, 1, 0), equal_nan=True), name
        assert np.allclose(decoded.spacing, image.header.get_zooms()[2::-1]), name
        if decoded.limits is not None:
            assert decoded.limits[0] <= decoded.values.min() <= decoded.values.max() <= decoded.limits[1], name
        num += 1
    assert num >= 7


# TIFF -----------------------------------------------------------------------------------------------------------------


def tif(values, **kwargs):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **kwargs)
    return file.getvalue()


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
def test_bands_of_any_number_and_layout_are_channels(planar, tile, compression):
    bands = RANDOM.integers(0, 65536, (5, 20, 24)).astype(np.uint16)
    values = bands.transpose(1, 2, 0) if planar == "contig" else bands
    content = tif(values, photometric="minisblack", planarconfig=planar, tile=tile, compression=compression)
    assert np.array_equal(read(content, "a.tif", size=(20, 24), channels=5), bands)


def test_floats_need_a_range_and_are_exact_in_it():
    values = RANDOM.normal(0, 5, (7, 8, 8)).astype(np.float32)
    content = tif(values, photometric="minisblack", planarconfig="separate")
    with pytest.raises(UnusableImage, match=r"has floating-point pixels, .*--data.range LOW HIGH, or have them measured"):
        read(content, "a.tif", size=(8, 8), channels=7)
    assert half_a_step(read(content, "a.tif", size=(8, 8), channels=7, range=(-30.0, 30.0)), values, -30, 30)


def test_colours_of_16_bits_keep_them():
    rgb = RANDOM.integers(0, 65536, (8, 8, 3)).astype(np.uint16)
    array = read(tif(rgb, photometric="rgb"), "a.tif", size=(8, 8), channels=3)
    assert np.array_equal(array, rgb.transpose(2, 0, 1))


def test_pages_are_channels_slices_or_left_out():
    pages = RANDOM.integers(0, 256, (5, 8, 8)).astype(np.uint8)
    content, told = tif(pages, photometric="minisblack"), []
    assert np.array_equal(read(content, "a.tif", size=(8, 8), channels=5, told=told), pages)
    assert np.array_equal(read(content, "a.tif", size=(5, 8, 8), told=told)[0], pages)
    assert told == []
    assert np.array_equal(read(content, "a.tif", size=(8, 8), channels=3, told=told), np.stack([pages[0]] * 3))
    assert told == ["of 5 pages, of which 4 are left out: the first was taken"]


def test_an_ome_tiff_names_its_axes():
    values = RANDOM.integers(0, 4096, (4, 3, 8, 8)).astype(np.uint16)
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    content = tif(values, ome=True, photometric="minisblack", metadata={"axes": "ZCYX", **sizes})
    told = []
    assert np.array_equal(read(content, "a.ome.tif", size=(8, 8), channels=3, told=told), values[0])
    assert told == ["of 4 slices, of which 3 are left out: the first was taken"]
    assert np.array_equal(read(content, "a.ome.tif", size=(4, 8, 8), channels=3), values.transpose(1, 0, 2, 3))
    assert values_of(content, "a.ome.tif", sides=3, channels=3).spacing == (2.0, 0.5, 0.5)


def test_white_that_is_0_is_turned_over():
    values = RANDOM.integers(0, 65536, (2, 8, 8)).astype(np.uint16)
    decoded = values_of(tif(values, photometric="miniswhite"), "a.tif", sides=3, channels=1)
    assert np.array_equal(decoded.values[0], 65535 - values)
    assert np.array_equal(read(tif(values[0], photometric="miniswhite"), "a.tif", size=(8, 8))[0], 65535 - values[0])


@pytest.mark.parametrize("lies", range(1, 9))
def test_a_tiff_is_upright_whichever_library_reads_it(lies):
    values, tags = RANDOM.integers(0, 256, (6, 8), dtype=np.uint8), [(274, "H", 1, lies, True)]
    by_pillow = read(tif(values, extratags=tags), "a.tif", size=(6, 8) if lies < 5 else (8, 6))[0]
    pages = tif(np.stack([values, values // 2]), photometric="minisblack", extratags=tags)
    decoded = values_of(pages, "a.tif", sides=3, channels=1)
    assert np.array_equal(decoded.values[0], np.stack([by_pillow, by_pillow // 2]))
    said = tif(values[None], extratags=[*tags, (42113, "s", 0, str(values[0, 1]), True)])
    gaps = values_of(said, "a.tif", sides=2, channels=1).gaps
    assert np.array_equal(gaps[0], by_pillow == values[0, 1])


def test_a_volume_that_lies_on_its_side_has_its_distances_turned_too():
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 1.0, "PhysicalSizeZ": 2.0}
    content = tif(np.zeros((4, 6, 8), np.uint8), ome=True, metadata={"axes": "ZYX", **sizes}, extratags=[(274, "H", 1, 6, True)])
    decoded = values_of(content, "a.tif", sides=3, channels=1)
    assert decoded.sides == (4, 8, 6)
    assert decoded.spacing == (2.0, 0.5, 1.0)


def test_signed_numbers_of_a_tiff_have_the_limits_of_their_type_or_need_a_range():
    values = RANDOM.integers(0, 50000, (8, 8)).astype(np.int32)
    with pytest.raises(UnusableImage, match=r"has type int32, .*--data.range LOW HIGH"):
        read(tif(values), "a.tif", size=(8, 8))
    assert half_a_step(read(tif(values), "a.tif", size=(8, 8), range=(0.0, 50000.0)), values[None], 0, 50000)
    signed = RANDOM.integers(-32768, 32767, (8, 8)).astype(np.int16)
    assert np.array_equal(read(tif(signed), "a.tif", size=(8, 8))[0], (signed.astype(int) + 32768))


@pytest.mark.parametrize("kind", [np.int8, np.uint32])
def test_numbers_that_pillow_takes_for_others_are_what_they_are(kind):
    values = RANDOM.integers(np.iinfo(kind).min, np.iinfo(kind).max, (8, 8)).astype(kind)
    assert np.array_equal(values_of(tif(values), "a.tif", sides=2, channels=1).values[0], values)
    assert half_a_step(read(tif(values), "a.tif", size=(8, 8), range=(-128.0, 2.0**32)), values[None], -128, 2**32)


def test_a_tiff_of_which_a_piece_is_not_there_is_refused():
    content = tif(np.ones((5, 64, 64), np.uint16), photometric="minisblack", planarconfig="separate")
    with pytest.raises(UnusableImage, match="a piece of a page is not there"):
        read(content[:-2000], "a.tif", size=(8, 8), channels=5)
    with pytest.raises(UnusableImage, match="damaged"):
        read(content[:100], "a.tif", size=(8, 8), channels=5)


def test_every_geotiff_is_read_as_tifffile_does():
    if not READERS.is_file():
        pytest.skip(f"{READERS} is not there")
    for name, content in shared("geotiff/"):
        decoded = values_of(content, name, sides=2, channels=15)
        expected = tifffile.imread(io.BytesIO(content)).transpose(2, 0, 1)
        assert np.array_equal(decoded.values, expected, equal_nan=True), name
        with pytest.raises(UnusableImage, match=r"945 values that are not finite .* leave them out with --data.mask gaps"):
            read(content, name, size=(32, 39), channels=15, range=(0.0, 1.0))
        array = read(content, name, size=(32, 39), channels=15, range=(0.0, 1.0), mask="gaps")
        assert np.array_equal(array[15] == 0, np.isnan(expected).any(0)), name


# FITS and arrays ------------------------------------------------------------------------------------------------------


def sky(values, zipped=False, **header):
    file = io.BytesIO()
    part = fits.ImageHDU(values)
    part.header.update(header)
    fits.HDUList([fits.PrimaryHDU(), part]).writeto(file)
    return gzip.compress(file.getvalue()) if zipped else file.getvalue()


@pytest.mark.parametrize(("name", "zipped"), [("a.fits", False), ("a.fit", False), ("a.fits.gz", True)])
def test_the_first_image_of_a_fits_file_is_read_upright(name, zipped):
    values = RANDOM.integers(-32768, 32768, (8, 8)).astype(np.int16)
    array = read(sky(values, zipped), name, size=(8, 8))
    assert half_a_step(array, values[None, ::-1], -32768, 32767)


def test_unsigned_and_scaled_fits_have_their_limits():
    values = RANDOM.integers(0, 65536, (8, 8)).astype(np.uint16)
    assert np.array_equal(read(sky(values), "a.fits", size=(8, 8))[0], values[::-1])
    part = fits.PrimaryHDU(np.arange(64.0).reshape(8, 8) / 4)
    part.scale("int16", bscale=0.25, bzero=2)
    file = io.BytesIO()
    part.writeto(file)
    decoded = values_of(file.getvalue(), "a.fits", sides=2, channels=1)
    assert np.allclose(decoded.values[0, ::-1], np.arange(64).reshape(8, 8) / 4)
    assert decoded.limits == (-32768 * 0.25 + 2, 32767 * 0.25 + 2)


def test_planes_of_a_fits_cube_and_its_gaps():
    cube = RANDOM.normal(0, 1, (3, 8, 8)).astype(np.float32)
    cube[1, 0, 0] = np.nan
    made = read(sky(cube), "a.fits", size=(8, 8), channels=3, range=(-9.0, 9.0), mask="gaps")
    assert (made[3] == 0).sum() == 1
    assert made[3, 7, 0] == 0
    told = []
    read(sky(cube), "a.fits", size=(8, 8), range=(-9.0, 9.0), told=told)
    assert told == ["of 3 pages, of which 2 are left out: the first was taken"]
    blank = sky(np.array([[1, 2], [3, -1]] * 2, np.int16).repeat(4, 1), BLANK=-1)
    assert np.isnan(values_of(blank, "a.fits", sides=2, channels=1).values).sum() in (0, 8)
    assert (read(blank, "a.fits", size=(4, 8), mask="gaps")[1] == 0).sum() == 8


def test_a_fits_file_cut_short_or_without_an_image_is_refused():
    whole = sky(np.ones((64, 64), np.float32))
    with pytest.raises(UnusableImage, match="damaged, cut short or no FITS file"):
        read(whole[:10000], "a.fits", size=(8, 8))
    file = io.BytesIO()
    fits.PrimaryHDU().writeto(file)
    with pytest.raises(UnusableImage, match="holds no image"):
        read(file.getvalue(), "a.fits", size=(8, 8))


def test_every_image_of_astropys_tests_is_read_as_astropy_does_or_refused():
    root = Path(fits.__file__).parent
    files = [f for f in sorted(root.rglob("*.fits*")) if f.name.endswith((".fits", ".fits.gz")) and f.stat().st_size < 2**20]
    num, refused = 0, []
    for file in files:
        content = file.read_bytes()
        try:
            decoded = values_of(content, file.name, sides=2, channels=1)
        except UnusableImage as error:
            refused.append(f"{file.name} {error}")
            if "holds no image" in str(error):
                with fits.open(file) as parts:
                    kinds = fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU
                    images = [p for p in parts if isinstance(p, kinds) and not isinstance(p, fits.GroupsHDU)]
                    assert all(sum(n > 1 for n in p.shape) < 2 for p in images), file.name
            continue
        with fits.open(file) as parts:
            images = [p for p in parts if isinstance(p, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU)]
            part = next(p for p in images if sum(n > 1 for n in p.shape) >= 2 and not isinstance(p, fits.GroupsHDU))
            expected = np.asarray(part.data)
        expected = expected.reshape(-1, *expected.shape[-2:])[0, ::-1]
        assert np.array_equal(decoded.values[0], expected, equal_nan=expected.dtype.kind == "f"), file.name
        if decoded.limits is not None:
            known = decoded.values[np.isfinite(decoded.values)]
            assert decoded.limits[0] <= known.min() <= known.max() <= decoded.limits[1], file.name
        num += 1
    assert num >= 5, refused
    assert all("holds no image" in line or "damaged" in line or "axes" in line for line in refused), refused


def test_arrays_of_volumes_and_of_one_channel():
    buffer = io.BytesIO()
    np.save(buffer, BRAIN)
    assert half_a_step(read(buffer.getvalue(), "a.npy", size=(6, 7, 8)), BRAIN[None], -32768, 32767)
    with pytest.raises(UnusableImage, match=r"has shape \(6, 7, 8\), the model wants \(2, d, h, w\)"):
        read(buffer.getvalue(), "a.npy", size=(6, 7, 8), channels=2)
    buffer = io.BytesIO()
    np.save(buffer, BRAIN[0])
    assert read(buffer.getvalue(), "a.npy", size=(7, 8)).shape == (1, 7, 8)


# All kinds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name", "extra", "content"),
    [
        ("pydicom", "a.dcm", "medical", b""),
        ("nibabel", "a.nii", "medical", b""),
        ("astropy.io", "a.fits", "science", b""),
        ("tifffile", "a.tif", "science", tiff.encode(CT)),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch, module, name, extra, content):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'diffae\[{extra}\]'"):
        read(content, name, size=(8, 8), channels=5)


def test_a_decoder_that_is_missing_is_named_with_its_extra(monkeypatch):
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEG2000Lossless

    content = (Path(pydicom.__file__).parent / "data" / "test_files" / "MR_small_jp2klossless.dcm").read_bytes()
    with monkeypatch.context() as patch:
        decoder = get_decoder(JPEG2000Lossless)
        patch.setattr(decoder, "_available", {})
        patch.setattr(decoder, "_unavailable", {"pylibjpeg": ("pylibjpeg>=2.0", "pylibjpeg-openjpeg>=2.0")})
        with pytest.raises(ImportError, match=r"JPEG 2000 .* needs pylibjpeg: pip install 'diffae\[medical\]'"):
            values_of(content, "a.dcm", sides=2, channels=1)
    assert values_of(content, "a.dcm", sides=2, channels=1).sides == (64, 64)

    def lacking(*args, **kwargs):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lacking)
    with pytest.raises(UnusableImage, match="packed in a way that is not known"):
        values_of(tif(FRAMES), "a.tif", sides=3, channels=1)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ImportError, match=r"needs imagecodecs \(.*LZW.*\): pip install 'diffae\[science\]'"):
        values_of(tif(FRAMES), "a.tif", sides=3, channels=1)


def test_a_picture_is_no_volume():
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    with pytest.raises(UnusableImage, match="is a picture, and the model's images are volumes"):
        read(buffer.getvalue(), "a.png", size=(8, 8, 8))
    with pytest.raises(UnusableImage, match="is flat, and the model's images are volumes"):
        read(tif(CT), "a.tif", size=(8, 8, 8))


def png_of_16_bits(values, transparent=None):
    """A PNG of grey (h, w) or colours (h, w, 3), with the number of its transparent colour, if any."""
    import struct
    import zlib

    piece = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))  # noqa: E731
    height, width, *colours = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2 if colours else 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head)
    if transparent is not None:
        png += piece(b"tRNS", struct.pack(">H", transparent) * (3 if colours else 1))
    return png + piece(b"IDAT", zlib.compress(rows)) + piece(b"IEND", b"")


def test_colours_of_16_bits_that_pillow_halves_are_said():
    told = []
    colours = RANDOM.integers(0, 65536, (8, 8, 3))
    assert read(png_of_16_bits(colours), "a.png", size=(8, 8), channels=3, told=told).dtype == np.uint8
    assert told == ["of 16 bits a channel, of which 8 are read: TIFF and .npy keep them"]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_16_bits_is_said_to_be_left_as_it_is(channels):
    values = np.full((8, 8, channels) if channels == 3 else (8, 8), 40000)
    values[0], values[1] = 200, 200 * 256
    told = []
    array = read(png_of_16_bits(values, 200), "a.png", size=(8, 8), channels=channels, told=told)
    assert np.abs(levels(array[0]) - (values if channels == 1 else values[..., 0]) / 65535).max() < 0.01
    line = "with a transparent colour, which was left as it is: only pictures of 8 bits are put on the background"
    assert told[-1] == line
    assert channels == 3 or values_of(png_of_16_bits(values, 200), "a.png", sides=2, channels=1).notes == (line,)


@pytest.mark.parametrize("kind", ["P6", "P3"])
@pytest.mark.parametrize("most", [255, 1023, 65535])
def test_colours_of_a_ppm_of_more_than_8_bits_are_said(kind, most):
    values = np.linspace(0, most, 192).astype(int)
    pixels = values.astype(">u2" if most > 255 else "u1").tobytes() if kind == "P6" else " ".join(map(str, values)).encode()
    told = []
    read(f"{kind}\n8 8\n{most}\n".encode() + pixels, "a.ppm", size=(8, 8), channels=3, told=told)
    assert told == ["of 16 bits a channel, of which 8 are read: TIFF and .npy keep them"] * (most > 255)


def test_a_gzip_bomb_is_no_volume_and_no_memory(monkeypatch):
    monkeypatch.setattr(image_files, "MOST_UNPACKED", 2**16)
    with pytest.raises(UnusableImage, match="looks like a decompression bomb"):
        read(gzip.compress(bytes(2**21)), "a.nii.gz", size=(8, 8, 8))
    with pytest.raises(UnusableImage, match="is damaged or cut short"):
        read(nifti(BRAIN, zipped=True)[:-50], "a.nii.gz", size=(8, 8, 8))


@pytest.mark.parametrize("preamble", [True, False])
def test_a_deflated_dicom_is_read_unless_it_is_a_bomb_and_that_takes_no_memory(tmp_path, monkeypatch, preamble):
    import zlib

    from diffae.data.images.dicom import opened

    dataset, file = pydicom.dcmread(io.BytesIO(dicom(np.zeros((1024, 1024), np.uint16), bits=12))), io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(file, dataset)
    content = file.getvalue()[0 if preamble else 132 :]
    (tmp_path / "a.dcm").write_bytes(content)
    assert values_of(content, "a.dcm", sides=2, channels=1).sides == (1024, 1024)
    assert opened(tmp_path / "a.dcm", "a.dcm", pixels=False).Rows == 1024
    monkeypatch.setattr(image_files, "MOST_UNPACKED", 2**16)
    monkeypatch.setattr(zlib, "decompress", lambda *given, **settings: pytest.fail("inflated as a whole"))
    for given in (content, tmp_path / "a.dcm"):
        with pytest.raises(UnusableImage, match="^looks like a decompression bomb"):
            opened(given, "a.dcm")


def test_volumes_shrink_without_aliasing_and_keep_what_is_linear():
    ramp = np.broadcast_to(np.linspace(0, 65535, 64), (16, 16, 64))
    noise = RANDOM.integers(0, 65536, (64, 16, 16))
    for values, size in ((ramp, (16, 16, 8)), (noise, (8, 16, 16))):
        buffer = io.BytesIO()
        np.save(buffer, values.astype(np.uint16))
        array = read(buffer.getvalue(), "a.npy", size=size)[0].astype(float)
        if values is ramp:
            inner = np.linspace(0, 65535, 64).reshape(8, 8).mean(1)[1:-1]
            assert np.abs(array[0, 0, 1:-1] - inner).max() < 1
        else:
            assert array.std() < noise.std() / 2, "neighbours are averaged"
    grown = read(buffer.getvalue(), "a.npy", size=(128, 16, 16))
    assert grown.shape == (1, 128, 16, 16)


@pytest.mark.parametrize("name", ["a.dcm", "a.nii", "a.mgh", "a.fits", "a.tif"])
def test_damage_of_any_kind_is_an_unusable_image_or_an_image(name):
    wholes = {
        "a.dcm": dicom(CT, slope=1, intercept=-1024, bits=12),
        "a.nii": nifti(BRAIN),
        "a.mgh": nifti(BRAIN, kind=nibabel.MGHImage),
        "a.fits": sky(CT.astype(np.int16)),
        "a.tif": tif(RANDOM.integers(0, 255, (5, 16, 16)).astype(np.uint8), compression="zlib", photometric="minisblack"),
    }
    whole, chance = wholes[name], np.random.default_rng(1)
    sides, channels = ((8, 7, 6), 1) if name in ("a.nii", "a.mgh") else ((8, 8), 5 if name == "a.tif" else 1)
    refused = 0
    for _ in range(60):
        hurt = bytearray(whole)
        for at in chance.integers(0, min(len(hurt), 700), chance.integers(1, 5)):
            hurt[at] = chance.integers(256)
        hurt = hurt[: chance.choice([len(hurt), chance.integers(1, len(hurt))])]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read(bytes(hurt), name, size=sides, channels=channels).shape == (channels, *sides)
            except UnusableImage:
                refused += 1
    assert 10 < refused < 60


def test_files_of_all_kinds_are_a_data_set(tmp_path):
    (tmp_path / "set").mkdir()
    rgb = np.zeros((8, 8, 3), np.uint8)
    rgb[..., 0] = 200
    (tmp_path / "set" / "a.dcm").write_bytes(dicom(rgb, bits=8, kind="RGB"))
    (tmp_path / "set" / "b.tif").write_bytes(tif(rgb.transpose(2, 0, 1), photometric="minisblack"))
    (tmp_path / "set" / "c.fits").write_bytes(sky(rgb.transpose(2, 0, 1)))
    (tmp_path / "set" / "d.nii.gz").write_bytes(nifti(np.zeros((8, 8, 8, 3), np.uint8), zipped=True))
    Image.fromarray(rgb).save(tmp_path / "set" / "e.png")
    data = prepare(DataConfig(source=str(tmp_path / "set"), validation=0.0), size=(8, 8), channels=3)
    assert data.names == ["a.dcm", "b.tif", "c.fits", "e.png"]
    assert (data.pixels == data.pixels[-1:]).all()
    assert "d.nii.gz is a volume of 8 x 8 x 8" in " ".join(data.notes)
    x = load_images([tmp_path / "set" / "a.dcm"], size=(8, 8), channels=3, preparation=Preparation(), warn=pytest.fail)
    assert x[0, 0, 0, 0].item() == pytest.approx(200 / 127.5 - 1)
