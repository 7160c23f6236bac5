"""Tables at their limits: which column holds images, which axis the channels, which rows are kept decoded; and those of labels."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffae.data.labels.classes import MOST_CLASSES
from diffae.data.labels.labels import align, load_labels
from diffae.data.sources.parquet import Table, table_files
from diffae.data.sources.rows import OPEN_BLOCKS


def written(file, columns, **kwargs):
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), file, **kwargs)
    return Table([file], file)


@pytest.mark.parametrize("name", ["image", "img", "images", "Image", "IMG"])
def test_of_several_columns_that_could_hold_the_images_the_one_of_that_name_does(tmp_path, name):
    table = written(tmp_path / "a.parquet", {"mask": [b"m"], name: [b"i"], "depth": [b"d"]})
    assert table.column == name
    assert table.read("a/00000000") == b"i"
    assert table.notes == [f"Columns of {tmp_path / 'a.parquet'} that are no numbers were left out: mask, depth."]
    with pytest.raises(ValueError, match="several columns that could hold the images: image, img"):
        written(tmp_path / "b.parquet", {"image": [b"i"], "img": [b"j"]})


@pytest.mark.parametrize("more", [[], ["width"]])
def test_bytes_with_their_path_are_an_image_whatever_else_is_noted_beside_them(tmp_path, more):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string()), *((name, pa.int64()) for name in more)])
    row = {"bytes": b"i", "path": None} | dict.fromkeys(more, 8)
    assert written(tmp_path / "a.parquet", pa.table({"scan": pa.array([row], kind)})).read("a/00000000") == b"i"
    with pytest.raises(ValueError, match="no column of images"):
        written(tmp_path / "b.parquet", {"scan": pa.array([{"path": "far.png"}], pa.struct([("path", pa.string())]))})


def test_a_doubled_column_of_a_table_of_images_is_refused_by_name(tmp_path):
    columns = pa.table([[b"i"], [1], [2]], names=["image", "A", "A"])
    with pytest.raises(ValueError, match=r"a\.parquet: the columns 2 and 3 are both called 'A'"):
        written(tmp_path / "a.parquet", columns)


def test_the_only_column_that_could_hold_the_images_does_whatever_its_name(tmp_path):
    table = written(tmp_path / "a.parquet", {"x": [1.0], "scan": [b"i"]})
    assert table.column == "scan"


def test_what_datasets_notes_as_an_image_goes_before_what_looks_like_one(tmp_path):
    features = {"scan": {"_type": "Image"}, "raw": {"dtype": "binary", "_type": "Value"}}
    schema = pa.schema(
        [("raw", pa.binary()), ("scan", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = pa.table([pa.array([b"r"]), pa.array([{"bytes": b"i", "path": None}], schema.field("scan").type)], schema=schema)
    table = written(tmp_path / "a.parquet", rows)
    assert (table.column, table.read("a/00000000")) == ("scan", b"i")


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ((5, 6), None),
        ((5, 6, 1), (2, 0, 1)),
        ((5, 6, 3), (2, 0, 1)),
        ((5, 6, 4), (2, 0, 1)),
        ((1, 6, 3), (0, 1, 2)),
        ((3, 6, 4), (0, 1, 2)),
        ((4, 6, 1), (0, 1, 2)),
        ((3, 4, 5), (0, 1, 2)),
        ((2, 5, 6), (0, 1, 2)),
        ((5, 3, 6), (0, 1, 2)),
    ],
)
def test_channels_are_the_last_axis_only_where_the_first_could_not_be(tmp_path, shape, place):
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    kind = pa.from_numpy_dtype(array.dtype)
    for _ in shape:
        kind = pa.list_(kind)
    table = written(tmp_path / "a.parquet", pa.table({"image": pa.array([array.tolist()], kind)}))
    read = np.load(io.BytesIO(table.read("a/00000000.npy")))
    assert np.array_equal(read, array[None] if place is None else array.transpose(place))
    assert read.dtype == array.dtype


def test_lists_that_are_no_picture_are_no_images(tmp_path):
    one, four = pa.list_(pa.uint8()), pa.list_(pa.list_(pa.list_(pa.list_(pa.uint8()))))
    words = pa.list_(pa.list_(pa.string()))
    columns = {"a": pa.array([[1]], one), "b": pa.array([[[[[1]]]]], four), "c": pa.array([[["x"]]], words)}
    with pytest.raises(ValueError, match=r"has no column of images \(its columns: a, b, c\)"):
        written(tmp_path / "a.parquet", columns)


def test_row_groups_are_decoded_once_while_no_more_than_four_are_read_in_turn(tmp_path, monkeypatch):
    table = written(tmp_path / "a.parquet", {"image": [b"%d" % i for i in range(12)]}, row_group_size=2)
    (file,) = table.files.values()
    decoded, read = [], type(file.file).read_row_group

    def counting(self, group, **kwargs):
        decoded.append(group)
        return read(self, group, **kwargs)

    monkeypatch.setattr(type(file.file), "read_row_group", counting)

    def content(*rows):
        return [table.read(f"a/{row:08d}") for row in rows]

    assert OPEN_BLOCKS == 4
    assert content(0, 2, 4, 6, 1, 3, 5, 7) == [b"0", b"2", b"4", b"6", b"1", b"3", b"5", b"7"]
    assert decoded == [0, 1, 2, 3]
    content(0, 8, 1)
    assert decoded == [0, 1, 2, 3, 4], "the one that was not asked for longest has gone"
    content(2)
    assert decoded == [0, 1, 2, 3, 4, 1]


def test_rows_of_every_group_and_file_are_their_own(tmp_path):
    """Groups of 3, 3 and 1, in two files."""
    for part in (0, 1):
        pq.write_table(
            pa.table({"image": [b"%d" % (10 * part + i) for i in range(7)]}), tmp_path / f"{part}.parquet", row_group_size=3
        )
    table = Table(table_files(tmp_path), tmp_path)
    assert [int(table.read(name)) for name in table.names] == [*range(7), *range(10, 17)]
    assert (table.names[0], table.names[-1]) == ("0/00000000", "1/00000006")


def labelled(tmp_path, classes, values, name="kind", file="a"):
    features = {name: {"names": classes, "_type": "ClassLabel"}} if classes else {}
    schema = pa.schema(
        [("image", pa.binary()), (name, pa.int64())], metadata={"huggingface": json.dumps({"info": {"features": features}})}
    )
    return written(tmp_path / f"{file}.parquet", pa.table([[b"i"] * len(values), values], schema=schema))


def test_a_class_label_is_an_attribute_a_class_and_unknown_where_it_is_below_zero_or_empty(tmp_path):
    rows = labelled(tmp_path, ["cat", "dog"], [0, 1, -1, None]).label_rows()
    assert [row["file"] for row in rows] == [f"a/{i:08d}" for i in range(4)]
    assert [row["kind_cat"] for row in rows] == [True, False, None, None]
    assert [row["kind_dog"] for row in rows] == [False, True, None, None]
    assert set(rows[0]) == {"file", "kind_cat", "kind_dog"}


def test_a_class_label_of_a_hundred_classes_is_still_taken_apart(tmp_path):
    classes = [f"c{i}" for i in range(MOST_CLASSES)]
    assert MOST_CLASSES == 100
    assert len(labelled(tmp_path, classes, [0, 99]).label_rows()[0]) == 101
    assert not any("c0" in column for column in labelled(tmp_path, [*classes, "one more"], [0, 99]).label_rows()[0])


def test_numbers_of_classes_are_those_of_their_own_file(tmp_path):
    labelled(tmp_path, ["cat", "dog"], [0, 1, -1], file="a")
    labelled(tmp_path, ["dog", "cat", "bird"], [0, 1, 2, None], file="b")
    rows = Table(table_files(tmp_path), tmp_path).label_rows()
    assert list(rows[0]) == ["file", "kind_cat", "kind_dog", "kind_bird"]
    assert [row["kind_cat"] for row in rows] == [True, False, None, False, True, False, None]
    assert [row["kind_dog"] for row in rows] == [False, True, None, True, False, False, None]
    assert [row["kind_bird"] for row in rows] == [False, False, None, False, False, True, None]
    labelled(tmp_path, ["dog", "cat"], [2], file="b")
    with pytest.raises(ValueError, match=r"b\.parquet: the class label kind has 2 classes, but one is number 2"):
        Table(table_files(tmp_path), tmp_path).label_rows()


@pytest.mark.parametrize("named", ["a", "b"])
def test_classes_that_some_files_alone_name_are_refused_and_both_are_said(tmp_path, named):
    for file in ("a", "b"):
        labelled(tmp_path, ["cat", "dog"] if file == named else [], [0, 1], file=file)
    plain = "b" if named == "a" else "a"
    message = rf"{named}\.parquet names the classes of kind, and .*{plain}\.parquet has plain numbers there"
    with pytest.raises(ValueError, match=message):
        Table(table_files(tmp_path), tmp_path)


def test_classes_of_one_name_are_refused_whichever_file_has_them(tmp_path):
    labelled(tmp_path, ["cat", "dog"], [0, 1], file="a")
    for table in (lambda: labelled(tmp_path, ["cat", "cat"], [0, 1], file="b"), lambda: Table(table_files(tmp_path), tmp_path)):
        with pytest.raises(ValueError, match=r"b\.parquet, an attribute a class: the columns 1 and 2 are both called 'kind_cat'"):
            table()


def test_a_class_label_of_groups_is_the_groups_however_many_there_are(tmp_path):
    patients = [f"p{i}" for i in range(MOST_CLASSES)] + ["none"]
    table = labelled(tmp_path, patients, [0, 0, 100, 1, -1, None], name="group")
    rows = table.label_rows()
    assert table.notes == []
    assert set(rows[0]) == {"file", "group"}
    found = align(rows, table.names, tmp_path)
    assert found.groups == ["p0", "p0", "none", "p1", "a/00000004", "a/00000005"]
    assert found.values == {}
    labelled(tmp_path, ["none", "p0"], [1, 0], name="group", file="b")
    again = Table(table_files(tmp_path), tmp_path)
    assert [row["group"] for row in again.label_rows()] == ["p0", "p0", "none", "p1", None, None, "p0", "none"]


@pytest.mark.parametrize("suffix", ["parquet", "PARQUET", "arrow"])
def test_a_table_is_one_file_or_all_of_one_kind_in_order(tmp_path, suffix):
    for name in ("b", "a", ".hidden", "cache-1", "tmp2"):
        (tmp_path / f"{name}.{suffix}").write_bytes(b"")
    assert table_files(tmp_path / f"a.{suffix}") == [tmp_path / f"a.{suffix}"]
    if suffix != "PARQUET":
        assert table_files(tmp_path) == [tmp_path / f"{name}.{suffix}" for name in ("a", "b")]
    (tmp_path / "a.txt").write_bytes(b"")
    assert table_files(tmp_path / "a.txt") == []


# Of labels -----------------------------------------------------------------------------------------------------------


def test_semicolons_without_a_comma_among_the_numbers_are_nothing_to_speak_of(tmp_path):
    (tmp_path / "labels.csv").write_text("file;A;B\na.png;1;0.5\nb.png;0;1.5\n")
    found = load_labels(tmp_path / "labels.csv", ["a.png", "b.png"])
    assert (found.values["A"].tolist(), found.values["B"].tolist(), found.notes) == ([1, 0], [0.5, 1.5], [])


@pytest.mark.parametrize("name", ["nan", "NA", "None"])
def test_an_image_may_have_the_name_that_means_unknown_elsewhere(tmp_path, name):
    found = align([{"file": name, "A": "1"}, {"file": "b", "A": "0"}], [name, "b"], tmp_path / "labels.csv")
    assert found.values["A"].tolist() == [1, 0]
    for empty in ("", " ", None, float("nan")):
        with pytest.raises(ValueError, match="row 1: the column 'file' is empty. Name the image"):
            align([{"file": empty, "A": "1"}, {"file": "b", "A": "0"}], [name, "b"], tmp_path / "labels.csv")


def test_notes_name_what_is_no_text_by_what_can_be_printed(tmp_path):
    rows = [{"file": name, "age": 3} for name in ("a.png", "caf\udce9.png")]
    notes = align(rows, ["a.png", "b\n.png"], tmp_path / "labels.json").notes
    assert [note.partition("labels.json: ")[2] for note in notes] == [
        r"1 of 2 images have no row (b\n.png).",
        r"1 of 2 rows name no image (caf\udce9.png).",
    ]
    rows[1]["age"] = "old"
    with pytest.raises(ValueError, match=r"labels\.json, caf\\udce9\.png: age is 'old'"):
        align([{"file": "c.png", "age": 4}, *rows], ["a.png"], tmp_path / "labels.json")


@pytest.mark.parametrize(("num", "said"), [(1, "(i0)"), (3, "(i0, i1, i2)"), (4, "(i0, i1, i2, ...)")])
def test_up_to_three_images_without_a_row_are_named(tmp_path, num, said):
    names = ["a", *(f"i{i}" for i in range(num))]
    found = align([{"file": "a", "A": 1}], names, tmp_path / "labels.csv")
    assert any(f"{num} of {num + 1} images have no row {said}." in note for note in found.notes)
