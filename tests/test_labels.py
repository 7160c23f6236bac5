"""Label tables: whatever writes them, they are read right or refused, and what they were taken for is said."""

import csv
import io
import json
import tarfile
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffae
from diffae import cli
from diffae.config import DataConfig
from diffae.data import prepare
from diffae.data.codes import read_codes, write_codes
from diffae.data.dataset import split as split_images
from diffae.data.labels.columns import describe_values, parse_kinds, read_kinds
from diffae.data.labels.labels import align, load_labels, write_labels
from diffae.data.sources.parquet import Table
from diffae.semantics.attributes import Attributes, Score
from diffae.semantics.fitting import fit_attributes, merge_attributes
from diffae.semantics.standardizer import Standardizer

NAN = float("nan")


def read(tmp_path, table, names=("a.png", "b.png", "c.png", "d.png"), kinds=(), name="labels.csv"):
    """The labels of a table, given as text or bytes."""
    content = table if isinstance(table, bytes) else table.encode()
    (tmp_path / name).write_bytes(content)
    return load_labels(tmp_path / name, list(names), kinds)


def same(values, expected):
    return np.array_equal(values, expected, equal_nan=True)


def column(*values, name="A"):
    """A table of one column of these values."""
    return "file," + name + "\n" + "".join(f"{i}.png,{v}\n" for i, v in enumerate(values))


def names(num):
    return [f"{i}.png" for i in range(num)]


# Joining -------------------------------------------------------------------------------------------------------------


def test_labels_join_by_path_and_unknown_stays_unknown(make_images):
    root = make_images(4)
    (root / "labels.csv").write_text("file,Smiling,Age\n000.png,1,31.5\n002.png,,4\n./001.png,0,7\ngone.png,1,1\n")
    data = prepare(DataConfig(source=str(root)), size=(16, 16), channels=3)
    assert same(data.labels["Smiling"], [1, 0, NAN, NAN])
    assert same(data.labels["Age"], [31.5, 7, 4, NAN])
    assert "1 of 4 images have no row (003.png)" in data.notes[-2]
    assert "1 of 4 rows name no image (gone.png)" in data.notes[-1]


def test_parquet_labels_are_the_same(tmp_path):
    pq.write_table(pa.table({"file": ["a", "b"], "Smiling": [1, None]}), tmp_path / "labels.parquet")
    labels = load_labels(tmp_path / "labels.parquet", ["a", "b"])
    assert same(labels.values["Smiling"], [1, NAN])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,A\na.png,1\na.png,0\n", r"more than one row for 'a.png' \(1 such in all\)"),
        ("file,A\na.png,1\n.\\a.png,0\n", r"more than one row for 'a.png'"),
        ("name,A\na.png,1\n", "has no column 'file' .its columns: 'name', 'A'."),
        ("file,A\na.png,1\nb.png,0\nc.png,yes\n", r"labels.csv, line 4: A is 'yes'; give a number, .* \(1 of 3 values are none"),
        ("file,A\nother.png,1\n", "names none of the 4 images: its first file is 'other.png'"),
        ("file,A\n/data/a.png,1\n", "'/data/a.png' ends in the image 'a.png': take away what stands before it"),
        ("file,A\n,1\n", "labels.csv, line 2: the column 'file' is empty"),
        ("", "has no column 'file'"),
        ("file,A\n", "labels.csv has no rows"),
        ("file,A,B,A\na.png,1,1,0\n", "labels.csv, line 1: the columns 2 and 4 are both called 'A'"),
        ("file,A, A\na.png,1,1\n", "the columns 2 and 3 are both called 'A'"),
        ("file,A\na.png,1\nb.png,3,5\n", "labels.csv, line 3: 3 cells, but the header has 2 columns; the first beyond them is '5'"),
        ("file,A,B\na.png,1\n", "labels.csv, line 2: 2 cells, but the header has 3 columns; 'B' is missing"),
        ('file,A\na.png,1\nb.png,"1\n', "labels.csv, line 3: this is no row of a table"),
        ("file,A\na.png,1\nb.png,inf\n", "labels.csv, line 3: A is 'inf', which is not finite"),
        ("file,A\na.png,1\nb.png,1e999\n", "line 3: A is '1e999', which is not finite"),
        ("file,A\na.png,1\nb.png,2\nc.png,1_0\n", "line 4: A is '1_0'"),
        ('file,A\na.png,1\nb.png,"3,5"\n', "labels.csv, line 3: A is '3,5', which may have a decimal comma"),
        ("file\tA\na.png\t1,234\n", "labels.csv, line 2: A is '1,234', which may have a decimal comma"),
        ("file;A;B\na.png;3,5;2.5\n", "line 2: A is '3,5', whose comma stands beside a point, '2.5' in line 2"),
        ("file;A\na.png;1,234\nb.png;2,345\n", "line 2: A is '1,234', whose comma could be one between thousands"),
        (
            "file,Größe\na.png,1\n".encode("latin-1"),
            "labels.csv, line 1: byte 0xf6 is not UTF-8, .* Save the table as CSV, in UTF-8",
        ),
        ("file,A\na.png,1\n".encode("utf-16-le"), "labels.csv, line 1: there is a zero byte, so this is UTF-16"),
        (b"PK\x03\x04....", "labels.csv is a spreadsheet or an archive"),
        (b'file,"age\n' + b"a.png,1\n" * 20_000, "labels.csv, line 1: this is no header of a table"),
        (b"\xff\xfef", "byte 0x66 is not UTF-16"),
    ],
)
def test_label_tables_that_cannot_be_right_are_refused(tmp_path, table, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, table)


@pytest.mark.parametrize(
    "table",
    [
        "file,A,B\na.png,1,3.5\nb.png,0,\n",
        "file;A;B\r\na.png;1;3,5\r\nb.png;0;\r\n",
        "file\tA\tB\na.png\t1\t3.5\nb.png\t0\t\n",
        "file,A,B\na.png,TRUE,3.5\nb.png,false,NA\n\n,,\n",
        "﻿file,A,B\na.png,1.0,35e-1\nb.png, 0,nan\n",
        "file,A,B\na.png,1,3.5\nb.png,0,\n".encode("utf-16"),
        "file;A;B\na.png;1;3,5\nb.png;0;\n".encode("utf-16"),
        b"\xff\xfe\0\0" + "file,A,B\na.png,1,3.5\nb.png,0,\n".encode("utf-32-le"),
        'B,file,A\n3.5,"a.png",1\n,b.png,0\n',
        "file,A,B\n.\\a.png,1,3.5\n./b.png,0,null\n",
    ],
)
def test_tables_of_spreadsheets_and_pandas_read_the_same(tmp_path, table):
    labels = read(tmp_path, table)
    assert same(labels.values["A"], [1, 0, NAN, NAN])
    assert same(labels.values["B"], [3.5, NAN, NAN, NAN])


def test_decimal_commas_are_read_where_semicolons_separate_and_that_is_said(tmp_path):
    labels = read(tmp_path, "file;A\na.png;3,5\nb.png;4\nc.png;1,234\n")
    assert same(labels.values["A"], [3.5, 4, 1.234, NAN])
    assert "commas were read as decimal points in 2 cells (A in line 2 is 3.5)" in labels.notes[0]


def test_backslashes_are_slashes_where_no_image_has_them(tmp_path):
    labels = read(tmp_path, "file,A\nx\\a.png,1\ny\\b.png,0\n", ["x/a.png", "y\\b.png"])
    assert labels.values["A"].tolist() == [1, 0]


def test_a_number_with_a_comma_among_texts_is_a_text(tmp_path):
    labels = read(tmp_path, 'file,A,note\na.png,1,"1,000"\nb.png,0,words\nc.png,1,more of them\n', ["a.png", "b.png", "c.png"])
    assert list(labels.values) == ["A"]


def test_text_columns_are_left_out_with_a_note_from_every_kind_of_table(tmp_path):
    from PIL import Image

    text = "file,sex,Hat,,Unnamed: 0\na.png,F,True,0,0\nb.png,M,False,1,1\n"
    found = read(tmp_path, text)
    rows = [{"file": "a.png", "sex": "F", "Hat": True, "__index_level_0__": 0}, {"file": "b.png", "sex": "M", "Hat": False}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "labels.parquet")
    parquet = load_labels(tmp_path / "labels.parquet", ["a.png", "b.png", "c.png", "d.png"])
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for row in rows:
            key = str(row["file"])[0]
            described = {k: v for k, v in row.items() if k in ("sex", "Hat")}
            for name, content in ((f"{key}.png", buffer.getvalue()), (f"{key}.json", json.dumps(described).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    shards = prepare(DataConfig(source=str(tmp_path / "shard.tar")), size=(8, 8), channels=3)
    for values, notes in ((found.values, found.notes), (parquet.values, parquet.notes), (shards.labels, shards.notes)):
        assert list(values) == ["Hat"]
        assert values["Hat"][:2].tolist() == [1, 0]
        assert any("columns that are no numbers were left out: sex ('F')" in note for note in notes)
    assert "the column '' has no name and was left out" in found.notes[0]
    assert "the column 'Unnamed: 0' has no name and was left out" in found.notes[1]
    assert "the column '__index_level_0__' has no name" in parquet.notes[0]


def test_numbers_of_parquet_and_json_are_read_whatever_their_type_and_infinite_ones_are_refused(tmp_path):
    cells = [Decimal("2.5"), True, None, 10**5]
    rows = [{"file": n, "A": c} for n, c in zip("abcd", cells, strict=True)]
    assert same(align(rows, list("abcd"), tmp_path).values["A"], [2.5, 1, NAN, 1e5])
    for wrong in (float("inf"), 10**400):
        rows[2]["A"] = wrong
        with pytest.raises(ValueError, match=r", c: A is '(inf|1000+)', which is not finite"):
            align(rows, list("abcd"), tmp_path)


def test_parquet_columns_of_one_name_are_refused(tmp_path):
    from PIL import Image

    twice = pa.table([pa.array(["a", "b"]), pa.array([1, 0]), pa.array([0, 1])], names=["file", "A", "A"])
    pq.write_table(twice, tmp_path / "labels.parquet")
    with pytest.raises(ValueError, match=r"labels.parquet: the columns 2 and 3 are both called 'A'"):
        load_labels(tmp_path / "labels.parquet", ["a", "b"])
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    images = pa.table([pa.array([buffer.getvalue()] * 2), pa.array([1, 0]), pa.array([0, 1])], names=["image", "A", "A"])
    pq.write_table(images, tmp_path / "images.parquet")
    with pytest.raises(ValueError, match=r"images.parquet: the columns 2 and 3 are both called 'A'"):
        Table([tmp_path / "images.parquet"], tmp_path / "images.parquet")
    (tmp_path / "labels.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"labels.parquet is damaged, or no Parquet file"):
        load_labels(tmp_path / "labels.parquet", ["a", "b"])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_groups_in_rows_of_images_are_groups_whatever_their_type(tmp_path, kind):
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    images = pa.table({"image": [buffer.getvalue()] * 4, "group": pa.array(["p", "q", "p", None]).cast(kind)})
    pq.write_table(images, tmp_path / "set.parquet")
    table = Table([tmp_path / "set.parquet"], tmp_path / "set.parquet")
    labels = align(table.label_rows(), table.names, tmp_path / "set.parquet")
    assert labels.groups == ["p", "q", "p", table.names[3]]


def test_class_labels_that_are_not_among_the_classes_or_too_many_are_no_measurements(tmp_path):
    from PIL import Image

    def make(classes, values):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "PNG")
        features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
        schema = pa.schema(
            [("image", pa.binary()), ("label", pa.int64())],
            metadata={"huggingface": json.dumps({"info": {"features": features}})},
        )
        pq.write_table(
            pa.table([pa.array([buffer.getvalue()] * len(values)), pa.array(values)], schema=schema), tmp_path / "t.parquet"
        )
        return Table([tmp_path / "t.parquet"], tmp_path / "t.parquet")

    with pytest.raises(ValueError, match=r"the class label label has 2 classes, but one is number 7"):
        make(["a", "b"], [0, 7]).label_rows()
    with pytest.raises(ValueError, match=r"both called 'label_a'"):
        make(["a", "a"], [0, 1])
    assert "were left out: label." in make([str(i) for i in range(101)], [0, 1]).notes[0]


# Groups --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", ["", " ", "nan", "None"])
def test_images_without_a_group_are_groups_of_their_own(tmp_path, nothing):
    rows = [f"{i}.png,{'p' if i < 10 else nothing}" for i in range(60)]
    labels = read(tmp_path, "file,group\n" + "\n".join(rows) + "\n", names(61))
    assert labels.groups is not None
    assert labels.groups[:10] == ["p"] * 10
    assert labels.groups[10:] == names(61)[10:]
    assert "51 of 61 images have no group, and each is one of its own" in labels.notes[0]
    train, held = split_images(names(61), labels.groups, 0.3)
    assert min(len(set(part) & set(range(10, 61))) for part in (train, held)) > 0, "they are divided"


def test_groups_of_the_table_beside_images_hold_where_another_labels_them(make_images, tmp_path):
    root = make_images(12)
    (root / "labels.csv").write_text("file,group\n" + "".join(f"{i:03d}.png,p{i % 4}\n" for i in range(12)))
    other = tmp_path / "severity.csv"
    other.write_text("file,severity\n" + "".join(f"{i:03d}.png,{i}\n" for i in range(12)))
    config = DataConfig(source=str(root), labels=str(other), validation=0.4)
    assert prepare(config, size=(8, 8), channels=3).groups.tolist() == [f"p{i % 4}" for i in range(12)]
    (root / "labels.csv").write_text("file,group\n000.png,a\n000.png,b\n")
    data = prepare(config, size=(8, 8), channels=3)
    assert data.groups is None
    assert any("Nor can groups be taken from what lies with the images" in note for note in data.notes)


def test_groups_are_one_whatever_blanks_stand_about_their_names(tmp_path):
    assert read(tmp_path, "file,group\na.png,p \nb.png, p\nc.png,q\nd.png,q\n").groups == ["p", "p", "q", "q"]


def test_json_groups_of_nothing_are_none(tmp_path):
    rows = [{"file": "a", "group": None}, {"file": "b", "group": 3}, {"file": "c", "group": NAN}, {"file": "d", "group": 3}]
    assert align(rows, list("abcd"), tmp_path).groups == ["a", "3", "c", "3"]


def test_names_match_whether_accents_are_characters_of_their_own_or_not(tmp_path):
    composed, apart = "Gr\u00f6\u00dfe.png", "Gro\u0308\u00dfe.png"
    for name, file in ((composed, apart), (apart, composed)):
        assert read(tmp_path, f"file,A\n{file},1\n", [name]).values["A"].tolist() == [1]


# What columns are taken for -------------------------------------------------------------------------------------------


def test_minus_one_and_one_are_no_and_yes_and_that_is_said(tmp_path):
    labels = read(tmp_path, column(1, -1, "", 1), names(4))
    assert same(labels.values["A"], [1, 0, NAN, 1])
    assert labels.notes == [f"{tmp_path / 'labels.csv'}: 1 and -1 were taken for yes and no in A."]
    assert describe_values(labels.values["A"]) == "0/1, 1 unknown"


CHEXPERT = "file,Edema,Fracture,Age\n0.png,1,1,60\n1.png,0,-1,71\n2.png,-1,,55\n3.png,,1,64\n"


def test_minus_one_beside_zero_is_left_out_until_it_is_said_which(tmp_path):
    labels = read(tmp_path, CHEXPERT, names(4))
    assert list(labels.values) == ["Age"], "Fracture has no 0, but the table writes them"
    assert "Left out: Edema, Fracture. -1 may be unknown there, or no." in labels.notes[0]
    assert "--labels-kind binary (1 yes, 0 no, -1 unknown) or signed (1 yes, -1 no, 0 unknown)" in labels.notes[0]

    labels = read(tmp_path, CHEXPERT, names(4), ["binary"])
    assert same(labels.values["Edema"], [1, 0, NAN, NAN])
    assert same(labels.values["Fracture"], [1, NAN, NAN, 1])
    assert labels.values["Age"].tolist() == [60, 71, 55, 64]
    assert "-1 was taken for unknown in Edema (1 times), Fracture (1 times)." in labels.notes[0]

    labels = read(tmp_path, CHEXPERT, names(4), ["Edema=signed", "Fracture=binary"])
    assert same(labels.values["Edema"], [1, NAN, 0, NAN])
    assert same(labels.values["Fracture"], [1, NAN, NAN, 1])

    labels = read(tmp_path, CHEXPERT, names(4), ["Edema=continuous"])
    assert same(labels.values["Edema"], [1, 0, -1, NAN])


def test_how_a_column_is_read_depends_on_the_whole_table_and_not_on_the_images_that_are_there(tmp_path):
    labels = read(tmp_path, CHEXPERT, ["0.png", "2.png"])
    assert "Edema" not in labels.values


@pytest.mark.parametrize(
    ("cells", "note"),
    [
        ([0, 1] * 20 + [2], "All but 1 of its 41 values are yes or no, and 2 is neither: correct it, or say --labels-kind A=cont"),
        ([0, 1] * 20 + [0.5], "0.5 is neither"),
        ([-1, 1] * 20 + [11], "11 is neither"),
        ([3, 41, 78, -1, 55, -1], "-1 is its only value below zero (2 times) and may stand for unknown"),
        ([3.5, 41, 78, -9, 55, 62], "-9 is its only value below zero (1 times)"),
        ([1, 2] * 5, "Its only values are 1 and 2: write 0 for no and 1 for yes"),
        ([-1, 0, 0, 0], "-1 may be unknown there, or no"),
    ],
)
def test_what_could_be_read_in_two_ways_is_left_out_by_name_and_can_be_said_to_be_numbers(tmp_path, cells, note):
    labels = read(tmp_path, column(*cells), names(len(cells)))
    assert labels.values == {}
    assert "Left out: A. " in labels.notes[0]
    assert note in labels.notes[0]
    asked = read(tmp_path, column(*cells), names(len(cells)), ["A=continuous"])
    assert asked.values["A"].tolist() == cells
    assert asked.notes == []


def test_few_whole_numbers_are_a_scale_and_that_is_said(tmp_path):
    grades = [0, 1, 2, 3] * 5
    labels = read(tmp_path, column(*grades), names(20))
    assert labels.values["A"].tolist() == grades
    assert "A: the few whole numbers were taken for a scale. If they are classes, --labels-kind NAME=classes" in labels.notes[0]
    assert read(tmp_path, column(*grades), names(20), ["A=continuous"]).notes == []
    assert describe_values(labels.values["A"]) == "numbers 0..3"


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (
            ["A=yes"],
            "A kind of labels is NAME=KIND, or KIND alone, where KIND is binary, signed, continuous, ordinal, classes; got 'A=yes'",
        ),
        (["A"], "got 'A'"),
        (["A=binary", "A=signed"], "Labels A were given two kinds, binary and signed"),
        (["B=binary"], "There is no column 'B' of numbers to take for binary. There are: A"),
        (["A=binary"], "A cannot be taken for binary: that is 1 for yes, 0 for no, -1 or nothing for unknown, and it has 5 too"),
    ],
)
def test_kinds_that_do_not_fit_are_refused(tmp_path, kinds, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, column(0, 1, 5, 7), names(4), kinds)


def test_a_run_remembers_what_its_labels_are_taken_for(make_images):
    root = make_images(3)
    config = DataConfig(source=str(root), labels_kind=("A=binary",))
    with pytest.raises(ValueError, match=r"A kind of labels was given \(A=binary\), but .*images has none: name their table"):
        prepare(config, size=(8, 8), channels=3)
    write_labels(root / "labels.csv", [{"file": f"{i:03d}.png", "A": i - 1} for i in range(3)])
    assert same(prepare(config, size=(8, 8), channels=3).labels["A"], [NAN, 0, 1])
    assert prepare(DataConfig(source=str(root)), size=(8, 8), channels=3).labels == {}


def test_a_name_may_hold_the_sign_that_separates_it_from_its_kind():
    assert parse_kinds(["a=b=signed", "binary"]) == {"a=b": "signed", "": "binary"}


def test_annotations_of_celeba_that_are_cut_short_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"says in line 1 that it has 3 images, but it has 2"):
        read(tmp_path, "3\nBald\na.png 1\nb.png -1\n", name="anno.txt")
    with pytest.raises(ValueError, match=r"anno.txt, line 2: the columns 2 and 3 are both called 'Bald'"):
        read(tmp_path, "1\nBald Bald\na.png 1 1\n", name="anno.txt")


# Any table ------------------------------------------------------------------------------------------------------------

VALUES = st.one_of(st.none(), st.sampled_from([0, 1]), st.floats(2, 1e9), st.booleans())
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).map(str.strip).filter(bool)


@settings(max_examples=40)
@given(
    files=st.lists(NAMES.map("{}.png".format), min_size=1, max_size=8, unique=True),
    titles=st.lists(NAMES.map("c{}".format), max_size=3, unique=True),
    data=st.data(),
)
def test_any_table_that_is_written_is_read_back_in_any_order(files, titles, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "labels.csv"
    cells = {t: [data.draw(VALUES) for _ in files] for t in titles}
    rows = [{"file": f} | {t: cells[t][i] for t in titles} for i, f in enumerate(files)]
    order = data.draw(st.permutations(range(len(rows))))
    columns = data.draw(st.permutations(["file", *titles]))
    write_labels(path, rows)
    kinds = ["binary"] if data.draw(st.booleans()) else []
    found = load_labels(path, files, kinds)
    write_labels(path, [{c: rows[i][c] for c in columns} for i in order])
    again = load_labels(path, files, kinds)
    assert found.values.keys() == again.values.keys()
    assert found.missing == found.unused == []
    for title, values in found.values.items():
        assert same(values, again.values[title])
        assert same(values, [NAN if v is None else float(v) for v in cells[title]])
    told = " ".join(found.notes)
    assert all(title in found.values or title in told for title in titles)


@given(values=st.lists(st.sampled_from([-1.0, 0.0, 1.0, NAN]), min_size=1), kind=st.sampled_from(["binary", "signed"]))
def test_unknown_stays_unknown_however_yes_and_no_are_written(values, kind):
    y = np.array(values)
    found, _ = read_kinds({"A": y}, {"A": kind})
    unknown = np.isnan(y) | (y == (-1 if kind == "binary" else 0))
    assert np.array_equal(np.isnan(found["A"]), unknown)
    assert (found["A"][~unknown] == (y[~unknown] == 1)).all()


@given(st.one_of(st.binary(), st.text().map(str.encode), st.text(st.sampled_from(list('file,;\t\n"1.-0aN\\')), max_size=60).map(
    lambda t: ("file,A\na.png,1\n" + t).encode()
)))  # fmt: skip
def test_a_malformed_table_is_a_value_error_and_nothing_else(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("malformed") / "labels.csv"
    path.write_bytes(content)
    try:
        labels, said = load_labels(path, ["a.png", "b.png"]), str(path)
    except ValueError as error:
        labels, said = None, str(error)
    assert str(path) in said
    assert labels is None or all(np.isfinite(y[~np.isnan(y)]).all() for y in labels.values.values())


# Fitting --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tiny, tmp_path):
    torch.manual_seed(0)
    diffae.DiffusionAutoencoder(tiny).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def table(path, **columns):
    """A label table of the images that `make_images` writes."""
    write_labels(path, [{"file": f"{i:03d}.png"} | {k: v[i] for k, v in columns.items()} for i in range(24)])
    return str(path)


def fitted(capsys, *args):
    """What fitting says, on one line."""
    cli.main(["fit-attributes", *map(str, args)])
    return " ".join(capsys.readouterr().err.split())


def refused(capsys, *args):
    with pytest.raises(SystemExit):
        cli.main([*map(str, args)])
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.split())


def test_fitting_says_what_labels_were_taken_for_and_takes_them_otherwise(model, make_images, tmp_path, capsys):
    images = make_images()
    signed = [1 if i % 2 else -1 for i in range(24)]
    unsure = [(1, 0, -1)[i % 3] for i in range(24)]
    labels = table(tmp_path / "l.csv", Hat=[*signed[:20], *[None] * 4], Age=[3 + 3 * i for i in range(24)])
    said = fitted(capsys, model, "--data", images, "--labels", labels)
    assert "1 and -1 were taken for yes and no in Hat." in said
    assert "Hat: 0/1, 4 unknown" in said
    assert "Age: numbers 3..72" in said
    assert {n: s.kind for n, s in diffae.load(model).attributes.scores.items()} == {"Hat": "binary", "Age": "continuous"}

    labels = table(tmp_path / "l.csv", Edema=unsure)
    error = refused(capsys, "fit-attributes", model, "--data", images, "--labels", labels)
    assert "Left out: Edema. -1 may be unknown there, or no." in error
    assert f"error: No column of {labels} can be used as labels; what was left out is named above." in error
    said = fitted(capsys, model, "--data", images, "--labels", labels, "--labels-kind", "Edema=binary")
    assert "Edema: 0/1, 8 unknown" in said
    edema = diffae.load(model).attributes.scores["Edema"]
    assert (edema.kind, edema.n + edema.n_held) == ("binary", 16)


def test_attributes_of_other_names_that_were_fitted_before_stay(model, make_images, tmp_path, capsys):
    images = make_images()
    y = [i % 2 for i in range(24)]
    fitted(capsys, model, "--data", images, "--labels", table(tmp_path / "a.csv", A=y, B=y[::-1], C=[i // 12 for i in range(24)]))
    before = diffae.load(model).attributes
    # A group moves the split, and with it what codes are standardised by.
    second = table(tmp_path / "b.csv", B=y, D=y, group=[f"p{i // 3}" for i in range(24)])
    said = fitted(capsys, model, "--data", images, "--labels", second)
    assert "2 attributes that were fitted before are kept (--replace drops them): A, C" in said
    ae = diffae.load(model)
    assert ae.attributes.names == ["A", "C", "B", "D"]
    assert not torch.equal(ae.attributes.standardizer.std, before.standardizer.std)
    z = ae.encode(torch.rand(5, *ae.image_shape) * 2 - 1)
    assert torch.allclose(ae.attributes.logits(z)[:, :2], before.logits(z)[:, [0, 2]], rtol=1e-3, atol=1e-3)
    said = fitted(capsys, model, "--data", images, "--labels", second, "--replace")
    assert "are kept" not in said
    assert diffae.load(model).attributes.names == ["B", "D"]


def test_attributes_of_another_encoder_are_replaced_with_a_note(model, make_images, tmp_path, capsys):
    images, y = make_images(), [i % 2 for i in range(24)]
    fitted(capsys, model, "--data", images, "--labels", table(tmp_path / "a.csv", A=y))
    ae = diffae.load(model)
    ae.attributes = None
    next(ae.encoder.parameters()).data += 0.1
    ae.save_pretrained(model)
    said = fitted(capsys, model, "--data", images, "--labels", table(tmp_path / "b.csv", B=y))
    assert "was fitted to z_sem of another encoder (an earlier state of this one, perhaps). It is replaced." in said
    assert diffae.load(model).attributes.names == ["B"]


def test_joined_attributes_see_and_move_codes_as_before():
    z = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3, 0.1, 10]) + 5
    y = {"A": (z[:, 0] > 5).double().numpy(), "B": z[:, 1].double().numpy()}
    earlier, _ = fit_attributes(
        z[:100], {k: v[:100] for k, v in y.items()}, held_z_sem=z[100:], held_labels={k: v[100:] for k, v in y.items()}
    )
    new, _ = fit_attributes(z[50:], {"B": y["B"][50:]}, held_z_sem=z[:50], held_labels={"B": y["B"][:50]})
    both = merge_attributes(earlier, new)
    assert both.names == ["A", "B"]
    assert torch.allclose(both.logits(z)[:, 0], earlier.logits(z)[:, 0], atol=1e-4)
    assert torch.allclose(both.logits(z)[:, 1], new.logits(z)[:, 0], atol=1e-4)
    assert torch.allclose(both.probabilities(z)[:, 0], earlier.probabilities(z)[:, 0], atol=1e-4)
    moved = [a.move(z, {"A": 0.1}) - z for a in (both, earlier)]
    assert torch.allclose(torch.cosine_similarity(*moved), torch.ones(200), atol=1e-4)
    nothing = Attributes({}, 4)
    assert merge_attributes(nothing, new).names == ["B"]


def test_a_sample_of_a_class_reads_its_labels_as_fitting_does(model, make_images, tmp_path, capsys):
    images = make_images()
    cli.main(["train-prior", model, "--data", str(images), "--preset", "gaussian"])
    signed, unsure = [1 if i % 2 else -1 for i in range(24)], [(1, 0, -1)[i % 3] for i in range(24)]
    labels = table(tmp_path / "l.csv", Hat=signed, Age=list(range(3, 75, 3)), Sure=unsure)
    sample = ["sample", model, "--data", str(images), "--labels", labels, "--num", "1", "--steps", "2"]
    sample += ["--prior", "gaussian", "--out", str(tmp_path / "s.png"), "--attribute"]
    assert "'Age' is continuous and has no probability" in refused(capsys, *sample, "Age")
    assert "has no column 'Sure'. It has: Age; what was left out is named above" in refused(capsys, *sample, "Sure")
    cli.main([*sample, "Sure", "--labels-kind", "binary"])
    assert "8 positive and 8 negative images" in capsys.readouterr().err
    cli.main([*sample, "Sure", "--labels-kind", "Sure=binary", "Hat=signed"])
    assert "8 positive and 8 negative images" in capsys.readouterr().err
    without = ["sample", model, "--attribute", "Sure", "--labels-kind", "binary"]
    assert "--labels-kind is about the table of --labels, and none was given" in refused(capsys, *without)
    cli.main([*sample, "Hat", "--labels-kind", "Hat=signed"])
    assert "12 positive and 12 negative images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("num", "message"),
    [(1, "needs at least two codes, got 1"), (2, "needs at least two codes, got 1"), (31, "images do not vary, so they cannot be")],
)
def test_one_image_and_copies_of_one_cannot_be_fitted_and_that_is_said(model, make_images, tmp_path, capsys, num, message):
    image = next(make_images(1).iterdir())
    (tmp_path / "copies").mkdir()
    for i in range(num):
        (tmp_path / "copies" / f"{i:03d}.png").write_bytes(image.read_bytes())
    write_labels(tmp_path / "copies" / "labels.csv", [{"file": f"{i:03d}.png", "A": i % 2} for i in range(num)])
    assert message in refused(capsys, "fit-attributes", model, "--data", tmp_path / "copies")


def test_codes_that_do_not_vary_are_not_standardised():
    z = torch.randn(10, 4)
    z[:, 2] = 3.0
    standard = Standardizer.fit(z)(z)
    assert standard[:, 2].tolist() == [0.0] * 10, "a dimension that stands still stays"
    torch.testing.assert_close(standard[:, [0, 1, 3]].std(0), torch.ones(3))
    with pytest.raises(ValueError, match="The codes of 5 images do not vary"):
        Standardizer.fit(z[:1].repeat(5, 1) + 1e-8 * torch.randn(5, 4))


def test_two_codes_have_one_component():
    found, _ = fit_attributes(torch.randn(2, 4), {}, held_z_sem=torch.zeros(0, 4), held_labels={})
    assert len(found.components) == 1


def test_minus_one_and_one_and_infinity_are_not_fitted_as_numbers():
    z = torch.randn(40, 4)
    y = np.where(np.arange(40) % 2, 1.0, -1.0)
    with pytest.raises(ValueError, match="A was left out: its only values are -1 and 1, and yes and no are 1 and 0 here"):
        fit_attributes(z, {"A": y}, held_z_sem=z, held_labels={"A": y})
    y[0] = np.inf
    with pytest.raises(ValueError, match="A was left out: some of its values are infinite"):
        fit_attributes(z, {"A": y}, held_z_sem=z, held_labels={"A": y})


def test_a_scale_stays_one_where_those_to_fit_on_are_zero_and_one():
    z, y = torch.randn(40, 4), np.arange(40) % 2.0
    found, _ = fit_attributes(z, {"A": y}, held_z_sem=z, held_labels={"A": 2 * y})
    assert found.scores["A"].kind == "continuous"
    assert found.scores["A"] != Score("binary", 40, 0.5)


# Codes ----------------------------------------------------------------------------------------------------------------


def test_codes_that_were_begun_with_other_labels_do_not_keep_them(tiny, make_images, tmp_path, monkeypatch):
    monkeypatch.setattr("diffae.data.codes.PART", 5)
    torch.manual_seed(0)
    ae, root, file = diffae.DiffusionAutoencoder(tiny).eval(), make_images(12), tmp_path / "codes.parquet"

    def data(turned):
        write_labels(root / "labels.csv", [{"file": f"{i:03d}.png", "A": (i + turned) % 2} for i in range(12)])
        return prepare(DataConfig(source=str(root)), size=(8, 8), channels=3)

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("diffae.data.codes._join", stop)
        with pytest.raises(KeyboardInterrupt):
            write_codes(ae, data(0), file, identity="me")
    turned = data(1)
    write_codes(ae, turned, file, identity="me")
    assert same(read_codes(file).labels["A"], turned.labels["A"])


def test_csv_is_what_other_programs_read(tmp_path):
    write_labels(tmp_path / "l.csv", [{"file": "a;b,c.png", "A": None, "B": True}])
    with (tmp_path / "l.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["file", "A", "B"], ["a;b,c.png", "", "True"]]
    with pytest.raises(ValueError, match="There are no labels to write"):
        write_labels(tmp_path / "l.csv", [])
