"""What each extra is for, done where nothing but that extra is installed: `python -I alone.py EXTRA`, in a folder with `model`.

`model` is of colour images of 8 x 8. `test_packaging.py` runs this in fresh environments; every docstring is a claim.
"""

import contextlib
import importlib.util
import io
import json
import os
import signal
import sys
import threading
import urllib.request
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import diffae
from diffae import cli
from diffae.config import DataConfig
from diffae.data import prepare

SIDES = (8, 8)


def pictures(num=12):
    """A folder of pictures of one colour each."""
    Path("pictures").mkdir()
    for i in range(num):
        Image.new("RGB", SIDES, (20 * i, 90, 200 - 10 * i)).save(f"pictures/{i:02d}.png")
    return "pictures"


def png(value):
    out = io.BytesIO()
    Image.new("RGB", SIDES, (value,) * 3).save(out, "PNG")
    return out.getvalue()


def values(source, sides=SIDES, **settings):
    """All images of a source of one channel, as a model sees them, (n, 1, *sides) in [-1, 1]."""
    data = prepare(DataConfig(source=str(source), validation=0.0, **settings), size=sides, channels=1)
    return data.images(range(len(data.names))).numpy()


def ramp(kind, *sides):
    return np.arange(int(np.prod(sides)), dtype=kind).reshape(sides)


def near(x, low, high, expected):
    """Asserts that a model sees these values, of which `low` is -1 and `high` 1."""
    np.testing.assert_allclose((x + 1) / 2 * (high - low) + low, expected, atol=(high - low) / 65535)


def core():
    """encode, reconstruct exactly, interpolate, save"""
    ae = diffae.load("model")
    x = torch.rand(2, 3, *SIDES) * 2 - 1
    assert ae.encode(x).shape == (2, 6)
    assert (ae.reconstruct(x) - x).square().mean() < 1e-10
    folder = pictures()
    cli.main(["interpolate", "model", *[f"{folder}/{i}.png" for i in ("00", "07")], "--frames", "4", "--out", "morph.gif"])
    assert Image.open("morph.gif").n_frames >= 4
    ae.save_pretrained("saved")
    assert torch.equal(diffae.load("saved").encode(x), ae.encode(x))


def train():
    """diffae train, with its metrics for TensorBoard"""
    cli.main(["train", pictures(), "--from", "model", "--out", "run", "--images", "32", "--training.batch-size", "8"])
    assert diffae.load("run").encode(torch.zeros(1, 3, *SIDES)).isfinite().all()
    assert list(Path("run/tensorboard").iterdir())


def data():
    """images in Parquet and LMDB, codes as Parquet"""
    import lmdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [png(40 * i) for i in range(6)]}), "images.parquet")
    with lmdb.open("images.lmdb", map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for i in range(6):
            transaction.put(b"%d" % i, png(40 * i))
    for source in ("images.parquet", "images.lmdb"):
        near(values(source), 0, 255, np.broadcast_to(40 * np.arange(6)[:, None, None, None], (6, 1, *SIDES)))
    cli.main(["encode", "model", pictures(), "--out", "codes.parquet"])
    assert pq.read_table("codes.parquet").num_rows == 12


def eval():
    """z_sem in a pipeline of scikit-learn, SSIM, a plot"""
    import matplotlib.figure
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from diffae.metrics.images import ssim

    x = np.random.default_rng(0).uniform(0, 1, (20, *SIDES, 3)).astype(np.float32)
    y = np.arange(20) % 2
    made = make_pipeline(diffae.DiffAETransformer(model="model"), LogisticRegression()).fit(x, y)
    assert made.predict(x).shape == y.shape
    noise = torch.rand(2, 3, 16, 16)
    assert abs(ssim(noise, noise) - 1) < 1e-5
    matplotlib.figure.Figure().savefig("plot.png")


def demo():
    """a face is drawn"""
    from diffae.data.avatars import PARTS, draw, render

    parts, labels = draw(1, 0, PARTS)
    assert labels
    assert Image.open(io.BytesIO(render(parts, 64))).size == (64, 64)


def quickstart():
    """diffae quickstart, to the report"""
    cli.main(["quickstart", "--images", "256", "--out", "run"])
    assert b"What z_sem knows" in Path("run/report.html").read_bytes()


def studio():
    """the page is served"""
    from diffae.studio.app import reserve, serve
    from diffae.studio.workshop import Workshop

    seen = []

    def look(port):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=120) as page:
                seen.append(page.read().decode())
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with reserve("127.0.0.1", 0) as port, contextlib.suppress(SystemExit):
        begin = threading.Thread(target=look, args=port.getsockname()[1:]).start
        serve(Workshop(diffae.load("model"), None, None, name="a"), port, opened=begin)
    assert "gradio" in seen[0]


def interop():
    """export to ONNX, which is run, and to diffusers, which is opened"""
    import onnxruntime
    from diffusers import DiffusionPipeline

    cli.main(["export", "model", "onnx", "--format", "onnx"])
    ran = onnxruntime.InferenceSession("onnx/encode.onnx")
    x = torch.rand(2, 3, *SIDES) * 2 - 1
    (z_sem,) = ran.run(None, {ran.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(z_sem), diffae.load("model").encode(x), atol=1e-4, rtol=1e-4)
    cli.main(["export", "model", "pipeline", "--format", "diffusers"])
    assert DiffusionPipeline.from_pretrained("pipeline", trust_remote_code=True)


def photos():
    """HEIC"""
    import pillow_heif

    Path("photos").mkdir()
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), (10, 90, 200))).save("photos/a.heic", quality=95)
    cli.main(["reconstruct", "model", "photos/a.heic", "--out", "again.png"])
    assert abs(values("photos") * 127.5 + 127.5 - Image.new("RGB", (1, 1), (10, 90, 200)).convert("L").getpixel((0, 0))).max() < 4


def medical():
    """DICOM plain, in JPEG 2000 and RLE, and NIfTI, by their values"""
    import nibabel
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid

    pixels = ramp(np.uint16, 64, 64)
    Path("scans").mkdir()
    for i, syntax in enumerate((None, JPEG2000Lossless, RLELossless)):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.PixelData = pixels.tobytes()
        if syntax:
            dataset.compress(syntax)
        dataset.save_as(f"scans/{i}.dcm", enforce_file_format=True)
    near(values("scans", pixels.shape), -1024, 3071, np.broadcast_to(pixels.astype(float) - 1024, (3, 1, *pixels.shape)))
    Path("brains").mkdir()
    volume = ramp(np.int16, 8, 8, 8)
    nibabel.save(nibabel.Nifti1Image(np.transpose(volume, (2, 1, 0)).copy(), np.eye(4)), "brains/a.nii.gz")
    near(values("brains", (8, 8, 8)), -32768, 32767, volume[None, None])


def science():
    """TIFF (LZW, floats), FITS, HDF5, Zarr, by their values"""
    import h5py
    import tifffile
    import zarr
    from astropy.io import fits

    image = ramp(np.float32, *SIDES) / 7 - 3
    limits = float(image.min()), float(image.max())
    for folder in ("tiff", "fits"):
        Path(folder).mkdir()
    tifffile.imwrite("tiff/a.tif", image, compression="lzw")
    fits.writeto("fits/a.fits", image[::-1].copy())
    with h5py.File("a.h5", "w") as file:
        file["images"] = image[None, None]
    zarr.open_group("a.zarr", mode="w").create_array("images", shape=(1, 1, *SIDES), dtype=image.dtype)[:] = image[None, None]
    for source in ("tiff", "fits", "a.h5", "a.zarr"):
        near(values(source, range=limits), *limits, image[None, None])


def slides():
    """a slide becomes tiles of tissue"""
    # `slide.tif` lies in the folder: nothing that is installed here writes one.
    from diffae.data.sources import Slides, open_source

    source = open_source(Path("slide.tif"), tile=256)
    assert isinstance(source, Slides)
    assert Image.open(io.BytesIO(source.read(source.names[0]))).size == (256, 256)


def encoders():
    """features of DINOv2 by transformers, and of a ResNet by timm where torch and torchvision are of one build"""
    import onnxruntime
    from safetensors.torch import save_file
    from transformers import Dinov2Config, Dinov2Model

    from diffae.config import FeaturesConfig
    from diffae.frozen.features import frozen_network

    x = torch.rand(2, 3, 64, 64) * 2 - 1
    dino = Dinov2Model(Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=14, patch_size=7))
    dino.save_pretrained("dino")
    shown = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "crop_size": {"height": 14, "width": 14}}
    Path("dino/preprocessor_config.json").write_text(json.dumps(shown | {"image_processor_type": "BitImageProcessor"}))
    assert frozen_network(FeaturesConfig(network="transformers:dino"))(x).shape == (2, 16)

    assert onnxruntime.get_available_providers()
    if importlib.util.find_spec("torchvision") is None:
        print("timm: not shown, there is no torchvision of torch's build")
        return
    import timm

    resnet = timm.create_model("resnet10t", num_classes=0, pretrained=False).eval()
    Path("resnet").mkdir()
    save_file(resnet.state_dict(), "resnet/model.safetensors")
    seen = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 0}
    Path("resnet/config.json").write_text(json.dumps({"architecture": "resnet10t", "num_features": 512, "pretrained_cfg": seen}))
    with torch.no_grad():
        torch.testing.assert_close(frozen_network(FeaturesConfig(network="timm:local-dir:resnet"))(x), resnet(x))


def docs():
    """what builds the site is there, and its handler of Python"""
    import mkdocstrings_handlers.python
    import yaml
    import zensical

    assert yaml.safe_load("a: 1") == {"a": 1}
    assert mkdocstrings_handlers.python.PythonHandler
    assert zensical


if __name__ == "__main__":
    globals()[sys.argv[1]]()
