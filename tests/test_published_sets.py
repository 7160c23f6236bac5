"""The data sets of the paper, in the formats that they come in: small files, written here as their makers write them."""

import io

import numpy as np
import pytest
from PIL import Image

from diffae.config import DataConfig
from diffae.data import prepare
from diffae.data.labels.labels import load_labels
from diffae.data.preparation import look_at
from diffae.data.sources import open_source

lmdb = pytest.importorskip("lmdb")


def encoded(value, size=16, kind="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (value, value, value)).save(buffer, kind)
    return buffer.getvalue()


def write_lmdb(path, items, *, subdir=True):
    with lmdb.open(str(path), map_size=2**24, subdir=subdir) as environment, environment.begin(write=True) as transaction:
        for key, value in items.items():
            transaction.put(key, value)
    return path


def authors(path, num=12, zfill=5, resolutions=(16,)):
    items = {f"{r}-{str(i).zfill(zfill)}".encode(): encoded(10 * i, r) for i in range(num) for r in resolutions}
    return write_lmdb(path, items | {b"length": str(num).encode()})


@pytest.mark.parametrize("zfill", [5, 7])
def test_the_authors_lmdbs_are_read_in_their_order(tmp_path, zfill):
    data = prepare(DataConfig(source=str(authors(tmp_path / "ffhq.lmdb", zfill=zfill)), validation=0.0), size=(16, 16), channels=3)
    assert data.names == [f"{i}.jpg" for i in range(12)], "by number, not by letter"
    assert np.abs(data.pixels.mean((1, 2, 3)) - 10 * np.arange(12)).max() < 2
    assert data.notes == []


def test_of_several_resolutions_the_largest_is_taken(tmp_path):
    source = open_source(authors(tmp_path / "several.lmdb", num=3, resolutions=(8, 32, 16)))
    assert source.names == ["0.jpg", "1.jpg", "2.jpg"]
    assert Image.open(io.BytesIO(source.read("2.jpg"))).size == (32, 32)


def test_lsuns_lmdbs_are_read_under_their_keys(tmp_path):
    keys = [b"0001a2b3", b"ffee9911", b"0a0b0c0d"]
    path = write_lmdb(tmp_path / "bedroom_train_lmdb", {key: encoded(40 * i, kind="WEBP") for i, key in enumerate(keys)})
    data = prepare(DataConfig(source=str(path), validation=0.0), size=(8, 8), channels=3)
    assert data.names == ["0001a2b3", "0a0b0c0d", "ffee9911"]
    assert np.abs(data.pixels.mean((1, 2, 3)) - [0, 80, 40]).max() < 3


def test_an_lmdb_may_be_one_file(tmp_path):
    path = write_lmdb(tmp_path / "one.lmdb", {b"a": encoded(9), b"b": encoded(99)}, subdir=False)
    assert open_source(path).names == ["a", "b"]


def test_a_changed_lmdb_is_read_anew(tmp_path):
    first = look_at(open_source(authors(tmp_path / "x.lmdb", num=2))).fingerprint
    assert look_at(open_source(tmp_path / "x.lmdb")).fingerprint == first
    authors(tmp_path / "x.lmdb", num=3)
    assert look_at(open_source(tmp_path / "x.lmdb")).fingerprint != first


def test_an_lmdb_that_is_none_is_refused(tmp_path):
    (tmp_path / "x.lmdb").mkdir()
    (tmp_path / "x.lmdb" / "data.mdb").write_bytes(b"something else" * 1000)
    with pytest.raises(ValueError, match="is no readable LMDB"):
        open_source(tmp_path / "x.lmdb")
    with pytest.raises(ValueError, match="There are no images in"):
        open_source(write_lmdb(tmp_path / "empty.lmdb", {}))


def annotations(path, names):
    lines = [
        str(len(names)),
        "Bald Smiling ",
        *(f"{name}  {'1' if i % 2 else '-1'} {'-1' if i % 3 else ' 1'}" for i, name in enumerate(names)),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_celebas_annotations_are_labels(tmp_path):
    names = [f"{i:06d}.jpg" for i in range(1, 7)]
    labels = load_labels(annotations(tmp_path / "list_attr_celeba.txt", names), names)
    assert labels.values["Bald"].tolist() == [0, 1, 0, 1, 0, 1]
    assert labels.values["Smiling"].tolist() == [1, 0, 0, 1, 0, 0]
    assert (labels.missing, labels.unused) == ([], [])


def test_celeba_hqs_annotations_name_the_authors_lmdb(tmp_path):
    table = annotations(tmp_path / "CelebAMask-HQ-attribute-anno.txt", [f"{i}.jpg" for i in range(12)])
    config = DataConfig(source=str(authors(tmp_path / "celebahq256.lmdb")), labels=str(table), validation=0.25)
    data = prepare(config, size=(16, 16), channels=3)
    assert data.labels["Bald"].tolist() == [0, 1] * 6
    assert data.notes == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,Bald\n0.jpg,1\n1.jpg,0\n", "its first line is not the number of images"),
        ("1\nBald Smiling\n0.jpg 1\n", "line 3: expected a file and 2 values of 1 or -1, got '0.jpg 1'"),
        ("1\nBald\n0.jpg 0\n", "line 3: expected a file and 1 values"),
    ],
)
def test_annotations_of_another_format_are_refused(tmp_path, text, message):
    (tmp_path / "anno.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_labels(tmp_path / "anno.txt", ["0.jpg"])


def test_celebas_crop_is_the_papers(tmp_path):
    """178 x 218, of which D2C and the paper take the 128 x 128 about (89, 121)."""
    image = np.zeros((218, 178, 3), np.uint8)
    image[57:185, 25:153] = 255
    (tmp_path / "celeba").mkdir()
    Image.fromarray(image).save(tmp_path / "celeba" / "000001.png")
    data = prepare(DataConfig(source=str(tmp_path / "celeba"), crop="celeba", validation=0.0), size=(64, 64), channels=3)
    assert data.pixels.min() == 255
