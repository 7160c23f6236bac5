"""Images in tables and shards: what Hugging Face `datasets`, Parquet and WebDataset files hold becomes the same cache."""

import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffae.config import DataConfig
from diffae.data import cache, prepare
from diffae.data.preparation import look_at
from diffae.data.sources import open_source

FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    "caption": {"dtype": "string", "_type": "Value"},
}
IMAGES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(i):
    """A flat picture of its number."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (10 * i, 0, 255)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(numbers):
    """Rows as `datasets` lays them out, its own notes in the schema."""
    schema = pa.schema(
        [("image", IMAGES), ("label", pa.int64()), ("caption", pa.string())],
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    labels = [i % 2 if i % 5 else -1 for i in numbers]
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in numbers]
    return pa.table([pa.array(images, IMAGES), pa.array(labels), pa.array([f"no {i}" for i in numbers])], schema=schema)


def parquet(folder, num=12):
    """Two files of several row groups, as on the hub."""
    (folder / "data").mkdir(parents=True)
    for i, numbers in enumerate((range(num // 2), range(num // 2, num))):
        pq.write_table(rows(numbers), folder / "data" / f"train-0000{i}-of-00002.parquet", row_group_size=4)
    return folder


def saved(folder, num=12):
    """What `save_to_disk` writes: Arrow streams of several batches, and a `state.json` that names them."""
    folder.mkdir(parents=True)
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, numbers in zip(names, (range(num // 2), range(num // 2, num)), strict=True):
        table = rows(numbers)
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    (folder / "cache-1234.arrow").write_bytes(b"what datasets keeps for itself")
    return folder


def shard(file, members):
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def webdataset(folder, num=12):
    for i in range(3):
        members = {}
        for k in range(i * num // 3, (i + 1) * num // 3):
            described = {"Smiling": k % 2 == 0, "age": 20 + k, "caption": "a face"}
            members |= {f"{k:05d}.png": png(k), f"{k:05d}.json": json.dumps(described).encode(), f"{k:05d}.cls": b"%d" % (k % 3)}
            members[f"{k:05d}.mask.png"] = png(0)
        shard(folder / f"train-{i:04d}.tar", members)
    return folder


def images_in(root, **kwargs):
    return prepare(DataConfig(source=str(root), **({"validation": 0.25} | kwargs)), size=(8, 8), channels=3)


@pytest.mark.parametrize("write", [parquet, saved, webdataset])
def test_every_kind_becomes_the_same_cache(tmp_path, write):
    data = images_in(write(tmp_path / "set"))
    assert len(data.names) == len(set(data.names)) == 12
    assert data.pixels.shape == (12, 3, 8, 8)
    assert (data.pixels[:, 0, 0, 0] == 10 * np.arange(12)).all(), "in the order of the rows"
    assert isinstance(data.pixels, np.memmap)


def test_rows_are_named_by_file_and_row_and_their_labels_come_along(tmp_path):
    data = images_in(parquet(tmp_path / "set"))
    assert data.names[7] == "data/train-00001-of-00002/00000001"
    assert list(data.labels) == ["label_cat", "label_dog"]
    expected = [np.nan if i % 5 == 0 else i % 2 for i in range(12)]
    assert np.array_equal(data.labels["label_dog"], expected, equal_nan=True)
    assert np.array_equal(
        data.labels["label_cat"] + data.labels["label_dog"], [np.nan if i % 5 == 0 else 1 for i in range(12)], True
    )
    assert "left out: caption ('no 0')." in data.notes[0]


def test_shards_bring_the_labels_that_stand_beside_images(tmp_path):
    data = images_in(webdataset(tmp_path / "set"))
    assert data.names[5] == "train-0001/00005.png"
    assert (data.labels["Smiling"] == [i % 2 == 0 for i in range(12)]).all()
    assert (data.labels["age"] == 20 + np.arange(12)).all()
    assert (data.labels["cls_2"] == [i % 3 == 2 for i in range(12)]).all()
    assert set(data.labels) == {"Smiling", "age", "cls_0", "cls_1", "cls_2"}
    assert "12 files" in data.notes[0], "the masks, and nothing else, were left alone"


@pytest.mark.parametrize("tars", [1, 2])
def test_folders_within_tars_are_classes_where_there_are_no_labels(tmp_path, tars):
    for i in range(tars):
        shard(tmp_path / "set" / f"part-{i}.tar", {f"{kind}/{k}.png": png(k + i) for kind in ("cats", "dogs") for k in range(4)})
    data = images_in(tmp_path / "set" if tars > 1 else tmp_path / "set" / "part-0.tar")
    assert data.labels["class=cats"].tolist() == ["cats" in name for name in data.names]
    assert set(data.labels) == {"class=cats", "class=dogs"}
    assert any("2 folders were taken for classes" in note for note in data.notes)


def test_one_tar_names_images_as_a_folder_of_the_same_files_does(make_images, tmp_path):
    root = make_images(4)
    members = {f"./{f.name}": f.read_bytes() for f in sorted(root.iterdir())} | {"deep/a.b.png": png(1), ".hidden.png": png(2)}
    (root / "deep").mkdir()
    (root / "deep" / "a.b.png").write_bytes(png(1))
    tar = images_in(shard(tmp_path / "images.tar", members))
    folder = images_in(root)
    assert sorted(tar.names) == folder.names
    order = [tar.names.index(name) for name in folder.names]
    assert np.array_equal(tar.pixels[order], folder.pixels)


def test_a_label_table_takes_the_place_of_the_labels_in_rows(tmp_path):
    root = parquet(tmp_path / "set")
    (tmp_path / "own.csv").write_text("file,Hat\ndata/train-00000-of-00002/00000002,1\n")
    data = images_in(root, labels=str(tmp_path / "own.csv"))
    assert list(data.labels) == ["Hat"]
    assert data.labels["Hat"][2] == 1


def test_groups_in_a_table_are_never_divided(tmp_path):
    people = [f"person {i // 4}" for i in range(24)]
    pq.write_table(pa.table({"image": [png(i) for i in range(24)], "group": people}), tmp_path / "people.parquet")
    data = images_in(tmp_path / "people.parquet")
    assert data.names[0] == "people/00000000"
    assert len(data.validation)
    assert not {people[i] for i in data.train} & {people[i] for i in data.validation}


def test_a_table_without_groups_leaves_images_together_as_they_say_themselves(tmp_path):
    people = [f"person {i // 4}" for i in range(24)]
    pq.write_table(pa.table({"image": [png(i) for i in range(24)], "group": people}), tmp_path / "people.parquet")
    table = "\n".join(["file,Hat", *(f"people/{i:08d},{i % 2}" for i in range(24))])
    (tmp_path / "own.csv").write_text(table)
    data = images_in(tmp_path / "people.parquet", labels=str(tmp_path / "own.csv"))
    assert not {people[i] for i in data.train} & {people[i] for i in data.validation}
    assert any("has no column 'group'" in note and "in 6 groups" in note for note in data.notes)
    (tmp_path / "own.csv").write_text("\n".join(f"{line},{'group' if i == 0 else i}" for i, line in enumerate(table.split())))
    assert len({*images_in(tmp_path / "people.parquet", labels=str(tmp_path / "own.csv")).groups}) == 24


@pytest.mark.parametrize(
    ("array", "place"),
    [
        (np.arange(768, dtype=np.uint8).reshape(16, 16, 3), (2, 0, 1)),
        (np.arange(768, dtype=np.uint16).reshape(3, 16, 16), (0, 1, 2)),
    ],
)
def test_decoded_arrays_are_read_with_their_channels_last_or_first(tmp_path, array, place):
    pq.write_table(pa.table({"img": [array.tolist()] * 2}, schema=_nested(array.dtype)), tmp_path / "a.parquet")
    data = prepare(DataConfig(source=str(tmp_path / "a.parquet"), validation=0.0), size=(16, 16), channels=3)
    assert data.pixels.dtype == array.dtype
    assert (data.pixels == array.transpose(place)).all()


def _nested(kind):
    return pa.schema([("img", pa.list_(pa.list_(pa.list_(pa.from_numpy_dtype(kind)))))])


def test_grey_arrays_have_one_channel_and_ragged_ones_are_skipped_by_name(tmp_path):
    square, ragged = np.full((8, 8), 7, np.uint8).tolist(), [[1, 2, 3], [4]]
    table = pa.table({"img": [square, ragged]}, schema=pa.schema([("img", pa.list_(pa.list_(pa.uint8())))]))
    pq.write_table(table, tmp_path / "grey.parquet")
    data = prepare(DataConfig(source=str(tmp_path / "grey.parquet"), validation=0.0), size=(8, 8), channels=1)
    assert (data.pixels == 7).all()
    assert data.pixels.shape == (1, 1, 8, 8)
    assert "grey/00000001.npy cannot be read (its rows are not of one length" in data.notes[0]


def test_rows_without_an_image_are_skipped_and_say_why(tmp_path):
    images = [{"bytes": png(1), "path": None}, {"bytes": None, "path": "far/away.png"}, None, {"bytes": b"no image", "path": None}]
    pq.write_table(pa.table({"image": pa.array(images, IMAGES)}), tmp_path / "a.parquet")
    data = images_in(tmp_path / "a.parquet")
    assert len(data.names) == 1
    for reason in ("only the path 'far/away.png'", "the row is empty", "is not an image"):
        assert reason in data.notes[0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, r"has no column of images \(its columns: text\)"),
        ({"left": [b"a"], "right": [b"b"]}, "several columns that could hold the images: left, right"),
    ],
)
def test_tables_whose_images_cannot_be_told_are_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message):
        images_in(tmp_path / "a.parquet")


def test_files_of_different_columns_are_no_one_data_set(tmp_path):
    pq.write_table(pa.table({"image": [png(1)]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"picture": [png(1)]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet has the columns picture, but .*a\.parquet has image"):
        images_in(tmp_path)


def test_labels_in_a_shard_that_are_no_json_are_an_error_that_names_them(tmp_path):
    shard(tmp_path / "a.tar", {"1.png": png(1), "1.json": b"{"})
    with pytest.raises(ValueError, match=r"a\.tar: 1\.json is no JSON"):
        images_in(tmp_path / "a.tar")


@pytest.mark.parametrize("write", [parquet, webdataset])
def test_an_interrupted_preparation_goes_on_where_it_was(tmp_path, monkeypatch, write):
    root = write(tmp_path / "set", num=60)
    monkeypatch.setattr(cache, "PART_BYTES", 1)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("DIFFAE_CACHE", str(tmp_path / "another cache"))
        whole, read, count = images_in(write(tmp_path / "same", num=60)), cache.read_placed, 0

    def counting(*args, **kwargs):
        nonlocal count
        count += 1
        return read(*args, **kwargs)

    def interrupt(what, done, total):
        if done > 40:
            raise KeyboardInterrupt

    monkeypatch.setattr(cache, "read_placed", counting)
    with pytest.raises(KeyboardInterrupt):
        prepare(DataConfig(source=str(root), validation=0.25), size=(8, 8), channels=3, progress=interrupt)
    before, count = count, 0
    data = images_in(root)
    assert before >= 41
    assert count == 60 - 32, "two parts of 16 were whole"
    assert np.array_equal(data.pixels, whole.pixels)
    assert data.names == whole.names


def test_a_changed_table_is_another_data_set_and_an_unchanged_one_is_not(tmp_path):
    root = parquet(tmp_path / "set")
    first = look_at(open_source(root)).fingerprint
    assert look_at(open_source(root)).fingerprint == first
    pq.write_table(rows(range(3)), root / "data" / "train-00000-of-00002.parquet")
    assert look_at(open_source(root)).fingerprint != first


def test_training_resumes_bitwise_on_a_table(tmp_path, tiny_run):
    import torch
    from accelerate import Accelerator

    from diffae.training.run import Finished, train
    from diffae.training.subjects import ImageSubject

    def run(out, images):
        config = tiny_run(images=images, source=parquet_once)
        subject = ImageSubject(config, prepare(config.data, size=(8, 8), channels=3))
        assert any(isinstance(event, Finished) for event in train(subject, out, accelerator=Accelerator(cpu=True)))
        return [p.read_bytes() for p in sorted((out / "model").glob("*.safetensors"))]

    torch.manual_seed(0)
    parquet_once = parquet(tmp_path / "set")
    whole = run(tmp_path / "whole", 48)
    run(tmp_path / "parts", 16)
    assert run(tmp_path / "parts", 48) == whole


# The hub -------------------------------------------------------------------------------------------------------------


def test_a_data_set_on_the_hub_is_read_from_what_its_client_keeps(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(name, *, repo_type, allow_patterns):
        asked.append((name, repo_type, allow_patterns))
        return str(tmp_path / "snapshot")

    parquet(tmp_path / "snapshot")
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    data = images_in("hf://datasets/someone/faces")
    assert len(data.names) == 12
    assert asked[0][:2] == ("someone/faces", "dataset")
    assert "*.parquet" in asked[0][2]
    assert images_in("hf://datasets/someone/faces/data").names[0] == "train-00000-of-00002/00000000"
    assert "data/*.parquet" in asked[1][2]


def test_a_hub_that_does_not_answer_and_an_address_that_is_none_are_said(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot_download(*args, **kwargs):
        raise LocalEntryNotFoundError("nothing in the cache, and no answer.")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(FileNotFoundError, match=r"gives no data set someone/faces \(nothing in the cache, and no answer\)"):
        images_in("hf://datasets/someone/faces")
    with pytest.raises(ValueError, match="names no data set on the hub. Give hf://datasets/USER/NAME"):
        images_in("hf://datasets/someone")


def test_more_classes_than_become_attributes_are_left_out_by_number(tmp_path):
    with tarfile.open(tmp_path / "many.tar", "w") as archive:
        for i in range(101):
            for kind, content in (("png", png(i % 20)), ("cls", b"%d" % i)):
                info = tarfile.TarInfo(f"{i:03d}.{kind}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    source = open_source(tmp_path / "many.tar")
    assert source.notes == [f"The 101 classes of {tmp_path / 'many.tar'} were left out: at most 100 become attributes."]
    assert {*source.label_rows()[0]} == {"file"}


def test_images_whose_names_are_no_text_have_no_rows(tmp_path):
    members = {f"{name}.{kind}": content for name in ("1", "2", "caf\udce9") for kind, content in (("png", png(1)), ("cls", b"1"))}
    source = open_source(shard(tmp_path / "a.tar", members))
    assert [row["file"] for row in source.label_rows()] == source.names == ["1.png", "2.png"]
    data = images_in(tmp_path / "a.tar")
    assert r"1 images were left alone: their names are no UTF-8 (caf\udce9.png, ...)" in data.notes[0]
    assert "\n".join(data.notes).encode()
    with pytest.raises(ValueError, match=r"caf\\udce9\.cls is not the number of a class"):
        open_source(shard(tmp_path / "b.tar", {"caf\udce9.png": png(1), "caf\udce9.cls": b"{}"}))


def test_more_tars_are_open_than_the_system_usually_lets(tmp_path):
    """In a process of its own, as its limit is lowered."""
    for i in range(80):
        with tarfile.open(tmp_path / f"train-{i:04d}.tar", "w") as archive:
            member = tarfile.TarInfo("0.png")
            member.size = len(png(i % 20))
            archive.addfile(member, io.BytesIO(png(i % 20)))
    code = """
import resource, sys
from pathlib import Path
soft, hard = int(sys.argv[2]), int(sys.argv[3])
from diffae.data.sources import open_source
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(len(open_source(Path(sys.argv[1])).names))
"""
    asked = [sys.executable, "-c", code, str(tmp_path), "64"]
    assert subprocess.run([*asked, "4096"], capture_output=True, text=True, check=True).stdout.strip() == "80"
    refused = subprocess.run([*asked, "64"], capture_output=True, text=True, check=False).stderr
    assert "has 80 tars, and the system lets a process open no more than" in refused
