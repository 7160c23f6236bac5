"""Files of arrays as sources: .npz, HDF5 and Zarr. What is in them comes out, and what was taken for what is said."""

import contextlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffae.config import DataConfig
from diffae.data import prepare
from diffae.data.labels import align
from diffae.data.sources import divided, open_source
from diffae.data.sources.layout import axes_of

DATA = Path(__file__).parents[2] / "shared" / "data"
PUBLISHED = {
    "adrenalmnist3d": (1584, (1, 28, 28, 28), ["label"]),
    "breastmnist": (780, (1, 28, 28), ["label"]),
    "coil20_32": (1440, (1, 32, 32), ["pose", *[f"label={i}" for i in range(20)]]),
    "flycells3ch_48": (1678, (3, 48, 48), ["nucleus_area", "nucleus_intensity", *[f"label={i}" for i in range(3)]]),
    "hubble_32": (1071, (3, 32, 32), ["area", "flux", "ellipticity", "redness"]),
    "olivetti_64": (400, (1, 64, 64), [f"label={i}" for i in range(40)]),
    "pneumoniamnist": (5856, (1, 28, 28), ["label"]),
    "redcells3d_64": (
        135,
        (1, 64, 64, 64),
        ["label=cell_clusters", "label=keratocytes", "label=knizocytes", "label=multilobate_cells"],
    ),
    "translocation2ch_64": (819, (2, 64, 64), ["label", "nucleus_area", "nucleus_to_cytoplasm"]),
}
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)


def array(source, name):
    return np.load(io.BytesIO(source.read(name)), allow_pickle=False)


def labels(source, kinds=()):
    return align(source.label_rows(), source.names, Path("x"), kinds=kinds)


def said(source):
    return " ".join(source.notes)


def npz(path, **arrays):
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def stored(path, **arrays):
    np.savez(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def hdf5(path, **arrays):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for key, value in arrays.items():
            value = np.asarray(value)
            kept = {"chunks": (min(5, len(value)), *value.shape[1:]), "compression": "gzip"} if value.ndim > 2 else {}
            text = h5py.string_dtype() if value.dtype.kind == "U" else None
            file.create_dataset(key, data=value.astype(object) if text else value, dtype=text, **kept)
    return path.with_suffix(".h5")


def zarr_of(version, path, store=None, **arrays):
    zarr = pytest.importorskip("zarr")
    target = path.with_suffix(".zarr")
    group = zarr.open_group(store or target, mode="w", zarr_format=version)
    for key, value in arrays.items():
        value = np.asarray(value)
        kept = {"chunks": (min(5, len(value)), *value.shape[1:])} if value.ndim > 2 else {}
        kind = str if value.dtype.kind == "U" else value.dtype
        group.create_array(key, shape=value.shape, dtype=kind, **kept)[:] = value
    return target


def zarr2(path, **arrays):
    return zarr_of(2, path, **arrays)


def zarr3(path, **arrays):
    return zarr_of(3, path, **arrays)


def zipped(path, **arrays):
    storage = pytest.importorskip("zarr.storage")
    target = path.with_name(f"{path.name}.zarr.zip")
    with storage.ZipStore(target, mode="w") as store:
        zarr_of(3, path, store, **arrays)
    return target


FORMATS = [npz, stored, hdf5, zarr2, zarr3, zipped]


@pytest.fixture(autouse=True, scope="module")
def loop_of_zarr():
    """Zarr's own loop is begun by the first array, and lives as long as the process: no single test leaves it."""
    with contextlib.suppress(ImportError):
        import zarr

        zarr.open_group(zarr.storage.MemoryStore(), mode="w")


each_format = pytest.mark.parametrize("write", FORMATS, ids=[f.__name__ for f in FORMATS])


# What is published ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the labelled sets, which are not part of the project")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_open_with_their_labels(name):
    source = open_source(DATA / f"{name}.npz")
    num, shape, columns = PUBLISHED[name]
    found = labels(source)
    assert len(source.names) == num
    assert list(found.values) == columns
    with np.load(DATA / f"{name}.npz") as file:
        key = next(key for key in ("train_images", "volumes", "images") if key in file)
        images, own = file[key], file["train_labels" if key == "train_images" else "labels" if "labels" in file else "area"]
    row = len(images) - 1
    there = array(source, source.names[row])
    assert there.shape == shape
    expected = images[row]
    np.testing.assert_array_equal(there.squeeze(), expected.transpose(2, 0, 1) if expected.shape[-1] == 3 else expected.squeeze())
    if "label" in found.values:
        np.testing.assert_array_equal(found.values["label"][: len(own)], own.reshape(-1))
    assert divided(source.names) == (["test", "train", "val"] if key == "train_images" else [])


# Layouts ----------------------------------------------------------------------------------------------------------------


@each_format
def test_images_labels_groups_and_text_come_out(tmp_path, write):
    sick, groups = np.arange(12) % 2, np.array([f"p{i // 3}" for i in range(12)])
    file = write(
        tmp_path / "set", images=PIXELS, sick=sick, age=np.linspace(20, 80, 12), group=groups, sex=np.array(["f", "m"] * 6)
    )
    source = open_source(file)
    assert source.names[:2] == ["00000.npy", "00001.npy"]
    for i in (11, 0, 7):
        np.testing.assert_array_equal(array(source, source.names[i]), PIXELS[i].transpose(2, 0, 1))
    found = labels(source)
    np.testing.assert_array_equal(found.values["sick"], sick)
    np.testing.assert_array_equal(found.values["sex=m"], sick)
    np.testing.assert_allclose(found.values["age"], np.linspace(20, 80, 12))
    assert found.groups == groups.tolist()
    assert "images (12, 8, 8, 3) was taken for 12 images of 3 channels, 8 x 8." in said(source)


@each_format
def test_a_patients_images_never_straddle_the_split(tmp_path, write):
    groups = np.arange(12) // 3
    data = prepare(DataConfig(source=str(write(tmp_path / "set", x=PIXELS, group=groups)), validation=0.4), size=(8, 8), channels=3)
    assert len(data.names) == 12
    assert len(data.validation)
    assert not {groups[i] for i in data.train} & {groups[i] for i in data.validation}
    np.testing.assert_array_equal(data.pixels[4], PIXELS[4].transpose(2, 0, 1))


@each_format
@pytest.mark.parametrize("keys", [("train_images", "test_images"), ("x_train", "x_test"), ("train", "test")])
def test_parts_of_a_published_split_are_folders(tmp_path, write, keys):
    own = {key.replace("images", "labels").replace("x_", "y_"): np.arange(6) % 2 for key in keys} if keys[0] != "train" else {}
    source = open_source(write(tmp_path / "set", **{keys[0]: PIXELS[:6], keys[1]: PIXELS[6:]}, **own))
    assert sorted(source.names)[::6] == ["test/00000.npy", "train/00000.npy"]
    assert sorted(divided(source.names)) == ["test", "train"]
    np.testing.assert_array_equal(array(source, "test/00002.npy"), PIXELS[8].transpose(2, 0, 1))
    if own:
        (values,) = labels(source).values.values()
        np.testing.assert_array_equal(values, [0, 1] * 6)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((28, 28), "plane"),
        ((28, 28, 3), "last"),
        ((8, 8, 1), "last"),
        ((32, 64, 4), "last"),
        ((3, 48, 48), "first"),
        ((1, 28, 28), "first"),
        ((13, 64, 64), "first"),
        ((28, 28, 28), "volume"),
        ((20, 64, 64), "volume"),
        ((2, 32, 32, 32), "first"),
        ((32, 32, 32, 3), "last"),
        ((1, 9, 32, 32), "first"),
    ],
)
def test_axes(shape, axes):
    assert axes_of(shape, "x", Path("x")) == axes


@pytest.mark.parametrize("shape", [(5,), (9, 9, 9, 9), (1, 2, 8, 8, 8)])
def test_shapes_that_are_no_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"set: x has rows of shape \(.*\), which are no images"):
        axes_of(shape, "x", Path("set"))


def test_classes_have_their_names_and_several_labels_a_column_each(tmp_path):
    marks = np.array([[0, 1], [1, 1], [0, 0]] * 4)
    names = np.array(["cat", "dog", "none"])
    kinds, features = np.arange(12) % 3, RNG.normal(size=(12, 5))
    source = open_source(npz(tmp_path / "set", images=PIXELS, labels=kinds, class_names=names, marks=marks, features=features))
    found = labels(source)
    assert set(found.values) == {"marks_0", "marks_1", "label=cat", "label=dog", "label=none"}
    np.testing.assert_array_equal(found.values["label=none"], np.arange(12) % 3 == 2)
    np.testing.assert_array_equal(found.values["marks_0"], marks[:, 0])
    assert "features (12, 5) were left out" in said(source)


def test_whole_numbers_of_labels_are_classes_or_an_order(tmp_path):
    file = npz(tmp_path / "set", images=PIXELS, labels=np.arange(12) % 4)
    source = open_source(file)
    assert list(labels(source).values) == [f"label={i}" for i in range(4)]
    assert "the 4 whole numbers of label were taken for classes; if they have an order, say --labels-kind label=ordinal" in said(
        source
    )
    np.testing.assert_array_equal(labels(source, ["label=ordinal"]).values["label"], np.arange(12) % 4)
    file = npz(tmp_path / "two", images=PIXELS, labels=np.arange(12) % 4, names=np.array(["a", "b"]))
    source = open_source(file)
    assert list(labels(source).values) == [f"label={i}" for i in range(4)]
    assert "label is 0 to 3, which 2 names of classes do not fit" in said(source)


@each_format
def test_parts_that_name_their_classes_differently_are_named_each_by_its_own(tmp_path, write):
    numbers = {f"{part}/label": np.array([0, 1] * 6) for part in ("train", "test")}
    images = {"train/images": PIXELS, "test/images": PIXELS[:, ::-1]}
    names = {"train/names": np.array(["cat", "dog"]), "test/names": np.array(["dog", "cat"])}
    source = open_source(write(tmp_path / "set", **images, **numbers, **names))
    dogs = dict(zip(source.names, labels(source).values["label=dog"].tolist(), strict=True))
    assert [dogs[f"train/{i:05d}.npy"] for i in range(12)] == [0, 1] * 6
    assert [dogs[f"test/{i:05d}.npy"] for i in range(12)] == [1, 0] * 6


def test_a_part_without_names_is_refused_where_others_name_their_classes_differently(tmp_path):
    parts = {f"{part}_images": PIXELS for part in ("train", "val", "test")}
    numbers = {f"{part}_label": np.array([0, 1] * 6) for part in ("train", "val", "test")}
    names = {"train_names": np.array(["cat", "dog"]), "val_names": np.array(["dog", "cat"])}
    source = open_source(npz(tmp_path / "set", **parts, **numbers, **names))
    with pytest.raises(ValueError, match=r"label beside test_images is 0 to 1, which its names of classes \(none\) do not fit"):
        source.label_rows()
    source = open_source(npz(tmp_path / "set", **parts, **numbers, **names, test_names=np.array(["cat"])))
    with pytest.raises(ValueError, match=r"which its names of classes \(1\) do not fit, and other parts have others"):
        source.label_rows()
    del numbers["test_label"]
    found = labels(open_source(npz(tmp_path / "set", **parts, **numbers, **names))).values["label=dog"]
    assert np.isnan(found[24:]).all()
    assert found[:24].tolist() == [0, 1] * 6 + [1, 0] * 6


def test_yes_and_no_are_white_and_black(tmp_path):
    masks = np.arange(12 * 64).reshape(12, 8, 8) % 3 == 0
    source = open_source(npz(tmp_path / "set", masks=masks))
    np.testing.assert_array_equal(array(source, "00003.npy")[0], masks[3] * 255)
    assert "Yes and no are 255 and 0." in said(source)


@each_format
def test_a_file_without_images_says_what_it_holds(tmp_path, write):
    with pytest.raises(ValueError, match=r"has no array of images: .* It holds weights \(4, 5\) of float64\."):
        open_source(write(tmp_path / "set", weights=np.ones((4, 5))))


@each_format
def test_several_arrays_that_could_be_the_images_are_named(tmp_path, write):
    with pytest.raises(ValueError, match=r"several arrays that could be the images: a \(12, 8, 8, 3\) of uint8, b"):
        open_source(write(tmp_path / "set", a=PIXELS, b=PIXELS))
    source = open_source(write(tmp_path / "other", b=PIXELS, a=PIXELS[:4]))
    assert len(source.names) == 12


# Damage, pickles, memory ------------------------------------------------------------------------------------------------


def test_images_beside_those_of_a_split_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS, test_images=PIXELS[:4])
    with pytest.raises(ValueError, match=r"holds images beside test_images, .*: call it `train_images`, or save it alone"):
        open_source(tmp_path / "a.npz")


def test_labels_that_are_called_like_a_part_of_a_split_are_labels(tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS, age=np.arange(12.0), test_result=np.arange(12) % 2)
    source = open_source(tmp_path / "a.npz")
    assert labels(source).values["test_result"].tolist() == [0, 1] * 6
    assert "age" in labels(source).values


@pytest.mark.parametrize("write", [npz, stored, hdf5, zipped])
def test_files_that_are_cut_short_are_refused(tmp_path, write):
    file = write(tmp_path / "set", images=PIXELS)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"is no readable .* It may be (cut short|incomplete): copy it again"):
        open_source(file)


def test_a_damaged_piece_is_an_image_that_cannot_be_read(tmp_path):
    file = npz(tmp_path / "set", images=RNG.integers(0, 256, (400, 16, 16), dtype=np.uint8))
    content = bytearray(file.read_bytes())
    content[70_000:70_100] = bytes(100)
    file.write_bytes(content)
    with pytest.raises(OSError, match="is damaged in images"):
        open_source(file).read("00000.npy")


def test_a_disk_that_fails_is_no_damaged_array(tmp_path, failing_disk):
    source = open_source(npz(tmp_path / "set", images=PIXELS, age=np.arange(len(PIXELS))))
    failing_disk(lambda: source.read("00000.npy"), source.label_rows)


def test_an_array_that_promises_more_than_it_holds_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 64, 64)})
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", buffer.getvalue() + bytes(100))
    with pytest.raises(ValueError, match=r"images says \(1000000000, 64, 64\) of uint8, in 100 bytes"):
        open_source(tmp_path / "set.npz")


def test_a_bomb_is_no_array_of_images_and_no_labels(tmp_path, monkeypatch):
    monkeypatch.setattr("diffae.data.images.files.MOST_UNPACKED", 2**16)
    black, names = np.zeros((12, 256, 256), np.uint8), np.array(["a"] * 12)
    source = open_source(npz(tmp_path / "set", images=black, age=np.zeros(12), names=names))
    with pytest.raises(OSError, match=r"lies in images, which looks like a decompression bomb: 786,\d+ bytes out of"):
        source.read("00000.npy")
    assert source.label_rows()[0] == {"file": "00000.npy", "age": 0, "names": "a"}
    assert open_source(stored(tmp_path / "two", images=black)).read("00000.npy")
    source = open_source(npz(tmp_path / "set", images=PIXELS, text=np.array(["a" * 10**5] * 12)))
    with pytest.raises(ValueError, match=r"set\.npz: text looks like a decompression bomb: .* Save it uncompressed"):
        source.label_rows()


class Loud:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "set.npz", images=PIXELS, others=np.array([Loud()] * 12, dtype=object))
    source = open_source(tmp_path / "set.npz")
    assert "others were left out: only arrays of numbers and text are read, no pickles" in said(source)
    assert list(source.label_rows()[0]) == ["file"]
    np.savez(tmp_path / "all.npz", images=np.array([Loud()] * 12, dtype=object))
    with pytest.raises(ValueError, match="has no array of images"):
        open_source(tmp_path / "all.npz")


def test_zarr_that_would_be_unpickled_is_refused(tmp_path):
    file = zarr2(tmp_path / "set", images=PIXELS)
    place = file / "images" / ".zarray"
    header = json.loads(place.read_text())
    for changed in (
        {"compressor": {"id": "pickle"}},
        {"filters": [{"id": "pickle"}]},
        {"filters": [{"id": "pickle"}], "dtype": "|O"},
    ):
        place.write_text(json.dumps(header | changed))
        with pytest.raises(ValueError, match="pickle"):
            open_source(file)


def test_a_piece_that_does_not_fit_in_memory_says_what_to_do(tmp_path, monkeypatch):
    def full(*args, **settings):
        raise MemoryError

    source = open_source(npz(tmp_path / "set", images=PIXELS))
    monkeypatch.setattr("numpy.lib.format.read_array", full)
    with pytest.raises(MemoryError, match=r"images is stored in pieces of \(12, 8, 8, 3\) of uint8.* Save it uncompressed"):
        source.read("00000.npy")


def test_attributes_with_a_value_for_each_image_are_labels(tmp_path):
    h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    with h5py.File(tmp_path / "set.hdf5", "w") as file:
        file.create_dataset("cells/images", data=PIXELS).attrs["sick"] = np.arange(12) % 2
        file["cells"].attrs["who"] = "somebody"
    group = zarr.open_group(tmp_path / "set.zarr", mode="w")
    group.create_array("images", data=PIXELS).attrs["sick"] = [i % 2 for i in range(12)]
    for file in ("set.hdf5", "set.zarr"):
        source = open_source(tmp_path / file)
        found = labels(source)
        assert list(found.values) == ["sick"]
        np.testing.assert_array_equal(found.values["sick"], np.arange(12) % 2)


def test_a_zarr_array_by_itself_is_the_images(tmp_path):
    zarr = pytest.importorskip("zarr")
    zarr.save_array(tmp_path / "set.zarr", PIXELS)
    source = open_source(tmp_path / "set.zarr")
    np.testing.assert_array_equal(array(source, "00005.npy"), PIXELS[5].transpose(2, 0, 1))
    assert source.holders


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_one_picture_in_several_sizes_is_no_set_of_images(tmp_path, version):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "one.zarr", mode="w")
    group.create_array("0", data=np.zeros((3, 64, 64), np.uint8))
    scales = [{"version": version, "datasets": [{"path": "0"}]}]
    group.attrs.update({"multiscales": scales} if version == "0.4" else {"ome": {"multiscales": scales}})
    with pytest.raises(
        ValueError, match=r"is one picture in several sizes \(OME-Zarr\).* It holds 0 \(3, 64, 64\) of uint8|holds 0"
    ):
        open_source(tmp_path / "one.zarr")


@pytest.mark.parametrize(("package", "file"), [("h5py", "set.h5"), ("zarr", "set.zarr.zip")])
def test_what_is_missing_is_named(tmp_path, monkeypatch, package, file):
    (tmp_path / file).write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"needs .*pip install 'diffae\[science\]'"):
        open_source(tmp_path / file)


def test_rows_are_read_piece_by_piece(tmp_path):
    """A file of 100 MB, whose images are read in less memory than that."""
    pytest.importorskip("h5py")
    code = f"""
import re, h5py, numpy as np
from pathlib import Path
from diffae.data.sources import arrays, open_source
arrays.OPEN = 2**23
with h5py.File({str(tmp_path / "set.h5")!r}, "w") as file:
    file.create_dataset("images", shape=(100, 1000, 1000), dtype="u1", chunks=(1, 1000, 1000), compression="lzf")
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
source = open_source(Path({str(tmp_path / "set.h5")!r}))
num = sum(len(source.read(name)) for name in source.names)
print(num, peak() - before)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    num, kilobytes = map(int, out.stdout.split())
    assert num > 100e6
    assert kilobytes < 50_000
