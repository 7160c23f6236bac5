"""Every kind of image in docs/kinds.md: written by its own library, trained on, encoded, and got back with its values."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from PIL import Image

import diffae
from diffae.config import DataConfig
from diffae.data import prepare
from diffae.training.run import train
from diffae.training.subjects import ImageSubject

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")
tifffile = pytest.importorskip("tifffile")
fits = pytest.importorskip("astropy.io.fits")
h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")

pytestmark = pytest.mark.filterwarnings("ignore")  # Of the libraries.

NUM = 6
FLAT, THICK = (8, 8), (4, 8, 8)


def numbers(kind: str, channels: int, sides: tuple[int, ...]) -> np.ndarray:
    """Images of smooth random values, (num, c, *sides)."""
    random = np.random.default_rng(sum(map(ord, kind)) + channels)
    values = random.uniform(0.1, 0.9, (NUM, channels, *sides))
    if kind.startswith("f"):
        return (values * 20 - 10).astype(kind)
    limits = np.iinfo(kind)
    return (limits.min + values * (int(limits.max) - limits.min)).astype(kind)


@dataclass
class Kind:
    """How images are written into a folder, and what of them a model has to see."""

    write: Callable
    channels: int = 1
    sides: tuple[int, ...] = FLAT
    kind: str = "uint8"
    limits: tuple[float, float] | None = None
    settings: dict = field(default_factory=dict)
    gaps: bool = False


def each(suffix):
    """Writes files one by one."""

    def with_one(write):
        def all_of_them(folder, values):
            for i, image in enumerate(values):
                write(folder / f"{i:02d}{suffix}", image)
            return folder

        return all_of_them

    return with_one


@each(".png")
def png(file, image):
    Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, 2).copy()).save(file)


@each(".npy")
def npy(file, image):
    np.save(file, image)


@each(".dcm")
def dicom(file, image):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns = image.shape[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = (image[0].astype(np.uint16) >> 4).tobytes()
    dataset.save_as(file, enforce_file_format=True)


@each(".nii.gz")
def nifti(file, image):
    nibabel.save(nibabel.Nifti1Image(np.transpose(image[0], (2, 1, 0)).copy(), np.eye(4)), file)


@each(".tif")
def stack(file, image):
    tifffile.imwrite(file, image[0], metadata={"axes": "ZYX"}, photometric="minisblack")


@each(".ome.tif")
def ome(file, image):
    tifffile.imwrite(file, image, metadata={"axes": "CYX"}, photometric="minisblack", ome=True)


@each(".tif")
def bands(file, image):
    image = image.copy()
    image[:, :3, :3] = np.nan
    tifffile.imwrite(file, image, photometric="minisblack", planarconfig="separate", compression="zlib")


@each(".fits")
def sky(file, image):
    fits.writeto(file, image[0][::-1])


def npz(folder, values):
    np.savez(folder / "set.npz", train_images=np.moveaxis(values, 1, -1), train_labels=np.arange(NUM)[:, None] % 2)
    return folder / "set.npz"


def npz_volumes(folder, values):
    np.savez_compressed(folder / "set.npz", images=values[:, 0])
    return folder / "set.npz"


def hdf5(folder, values):
    with h5py.File(folder / "set.h5", "w") as file:
        file["images"] = values
    return folder / "set.h5"


def zarred(folder, values):
    array = zarr.open_group(folder / "set.zarr", mode="w").create_array("images", shape=values.shape, dtype=values.dtype)
    array[:] = values
    return folder / "set.zarr"


def masked(folder, values):
    for name in ("images", "masks"):
        (folder / name).mkdir()
    png(folder / "images", values)
    known = np.full((NUM, 1, 8, 8), 255, np.uint8)
    known[:, :, :3, :3] = 0
    png(folder / "masks", known)
    return folder / "images"


@pytest.fixture(autouse=True, scope="module")
def loop_of_zarr():
    """Zarr's own loop is begun by the first array, and lives as long as the process: no single test leaves it."""
    zarr.open_group(zarr.storage.MemoryStore(), mode="w")


FLOATS = dict(range="minmax")
KINDS = {
    "grey, 8 bit": Kind(png),
    "colour, 8 bit": Kind(png, 3),
    "grey, 16 bit": Kind(png, kind="uint16"),
    "two channels, 8 bit": Kind(npy, 2),
    "five channels, 16 bit": Kind(npy, 5, kind="uint16"),
    "thirteen channels, float": Kind(npy, 13, kind="float32", settings=FLOATS),
    "signed, 16 bit": Kind(npy, kind="int16"),
    "volume, 8 bit": Kind(npy, sides=THICK),
    "volume, signed": Kind(npy, sides=THICK, kind="int16"),
    "volume, float of two channels": Kind(npy, 2, THICK, "float32", settings=FLOATS),
    "not square": Kind(npy, 3, (4, 12)),
    "DICOM of 12 bits": Kind(dicom, kind="uint16", limits=(-1024, 3071)),
    "NIfTI": Kind(nifti, sides=THICK, kind="int16"),
    "TIFF stack": Kind(stack, sides=THICK, kind="uint16"),
    "OME-TIFF of channels": Kind(ome, 5, kind="uint16"),
    "GeoTIFF of thirteen bands with gaps": Kind(bands, 13, kind="float32", settings=FLOATS | dict(mask="gaps"), gaps=True),
    "FITS": Kind(sky, kind="float32", settings=FLOATS),
    "npz": Kind(npz, 3),
    "npz of volumes": Kind(npz_volumes, sides=THICK),
    "HDF5": Kind(hdf5, 2, kind="uint16"),
    "Zarr": Kind(zarred, 2, kind="uint16"),
    "masks in a folder": Kind(masked, 3, settings=dict(mask="masks"), gaps=True),
}


def as_seen(made: Kind, values: np.ndarray, limits: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The values that a model has to see, -1..1, and half a step of what they are stored in."""
    if made.limits is not None:
        values = (values >> 4).astype(float) - 1024
    low, high = (np.array(ends, float).reshape(-1, *[1] * len(made.sides)) for ends in zip(*limits, strict=True))
    return 2 * (values.astype(float) - low) / (high - low) - 1, np.full(len(limits), 1.0 / (255 if made.kind == "uint8" else 65535))


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_trains_and_comes_back_with_its_values(name, tmp_path, tiny, tiny_run):
    made = KINDS[name]
    values = numbers(made.kind, made.channels, made.sides)
    (tmp_path / "set").mkdir()
    source = made.write(tmp_path / "set", values)
    settings = made.settings | ({"mask": str(tmp_path / "set" / "masks")} if made.settings.get("mask") == "masks" else {})
    config = DataConfig(source=str(source), validation=0.3, flip=False, **settings)
    networks = dict(image_size=made.sides, channels=made.channels)
    run = replace(tiny_run(images=16, source=source, model=networks), data=config)
    data = prepare(config, size=made.sides, channels=made.channels)
    assert len(data.names) == NUM
    list(train(ImageSubject(run, data), tmp_path / "run"))

    limits = made.limits or ((np.iinfo(made.kind).min, np.iinfo(made.kind).max) if not made.kind.startswith("f") else None)
    if limits is None:
        assert isinstance(data.config.range, tuple)
        found = list(zip(data.config.range[::2], data.config.range[1::2], strict=True))
    else:
        found = [limits]
    wanted, step = as_seen(made, values, found * (made.channels // len(found)))
    x = data.images(range(NUM))
    gap = np.abs(x.numpy() - wanted)
    if made.gaps:
        assert (data.counted([0])[0, 0, :3, :3] == 0).all()
        assert data.counted([0]).sum() == 8 * 8 - 9
        gap[:, :, :3, :3] = 0
    assert gap.max() <= 1.02 * step[0], "half a step of what is stored"

    ae = diffae.load(tmp_path / "run")
    z_sem = ae.encode(x)
    assert z_sem.shape == (NUM, tiny.z_dim)
    again = ae.reconstruct(x)
    assert (again - x).square().mean() / 4 < 1e-10
    assert torch.equal(ae.encode(x), z_sem)


def test_a_tile_of_a_slide_trains_and_comes_back(tmp_path, tiny_run, monkeypatch):
    pytest.importorskip("openslide")
    from diffae.data.sources import slides

    monkeypatch.setattr(slides, "LEAST_SIDE", 64)
    random = np.random.default_rng(0)
    pixels = np.stack([random.integers(low, low + 50, (96, 128)) for low in (150, 40, 120)], 2).astype(np.uint8)
    pixels[:, 96:] = 240
    tifffile.imwrite(tmp_path / "slide.tif", pixels, tile=(32, 32), photometric="rgb", compression="zlib")
    config = DataConfig(source=str(tmp_path / "slide.tif"), tile=32, validation=0.2, flip=False)
    data = prepare(config, size=(32, 32), channels=3)
    assert len(data.names) == 9, "glass is left out"
    run = replace(tiny_run(images=8, source=tmp_path / "slide.tif", model=dict(image_size=(32, 32))), data=config)
    list(train(ImageSubject(run, data), tmp_path / "run"))
    ae, x = diffae.load(tmp_path / "run"), data.images(range(9))
    for i, name in enumerate(data.names):
        left, top = (int(slides.TILE.fullmatch(name)[axis]) for axis in "xy")
        mine = pixels[top : top + 32, left : left + 32].transpose(2, 0, 1)
        np.testing.assert_array_equal(np.rint((x[i].numpy() + 1) * 127.5), mine)
    assert (ae.reconstruct(x) - x).square().mean() / 4 < 1e-10
