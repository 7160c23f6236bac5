"""Classes, steps and names: columns that are no measurements become what they are, and that is said."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffae.config import DataConfig
from diffae.data import prepare
from diffae.data.labels.classes import ClassName, class_columns
from diffae.data.labels.columns import is_unknown
from diffae.data.labels.labels import align, load_labels
from diffae.data.sources import open_source
from diffae.data.sources.parts import folder_classes

NAN = float("nan")
SETS = Path(__file__).parents[2] / "shared" / "data"
NAMES = [f"{i}.png" for i in range(6)]


def read(tmp_path, column, cells, kinds=(), names=NAMES):
    """The labels of a table of one column."""
    rows = "\n".join(f"{name},{cell}" for name, cell in zip(names, cells, strict=False))
    (tmp_path / "labels.csv").write_text(f"file,{column}\n{rows}\n")
    return load_labels(tmp_path / "labels.csv", list(names), kinds)


def rows_of(column, cells):
    return [{"file": name, column: cell} for name, cell in zip(NAMES, cells, strict=False)]


# Text and numbers that are classes --------------------------------------------------------------------------------------


def test_text_of_few_values_is_a_column_for_each(tmp_path):
    labels = read(tmp_path, "cell", ["RBC", "WBC", " RBC", "", "WBC", "RBC"])
    assert list(labels.values) == ["cell=RBC", "cell=WBC"]
    np.testing.assert_array_equal(labels.values["cell=RBC"], [1, 0, 1, NAN, 0, 1])
    np.testing.assert_array_equal(labels.values["cell=WBC"], [0, 1, 0, NAN, 1, 0])
    assert "cell is text and was taken for classes: RBC (3), WBC (2). Each is a column of 0 and 1." in labels.notes[0]


@pytest.mark.parametrize("cells", [["a", "a", "b", "b", "c"], ["a", "a", "a"], list("abcdef")])
def test_text_that_occurs_once_or_is_always_the_same_is_no_class_unless_it_is_asked_for(tmp_path, cells):
    labels = read(tmp_path, "kind", cells, names=NAMES[: len(cells)])
    assert labels.values == {}
    assert "columns that are no numbers were left out: kind ('a')" in labels.notes[0]
    assert "say --labels-kind NAME=classes" in labels.notes[0]
    if len(set(cells)) > 1:
        asked = read(tmp_path, "kind", cells, ["kind=classes"], names=NAMES[: len(cells)])
        assert list(asked.values) == [f"kind={c}" for c in sorted(set(cells))]
        assert asked.notes == []


def test_text_of_more_than_twenty_values_is_left_out(tmp_path):
    names = [f"{i}.png" for i in range(42)]
    assert list(read(tmp_path, "kind", [f"c{i % 20:02d}" for i in range(42)], names=names).values)[-1] == "kind=c19"
    assert read(tmp_path, "kind", [f"c{i % 21:02d}" for i in range(42)], names=names).values == {}


def test_whole_numbers_are_classes_where_that_is_asked_for(tmp_path):
    labels = read(tmp_path, "digit", [10, 2, "", 2.0, -1, 10], ["digit=classes"])
    assert list(labels.values) == ["digit=-1", "digit=2", "digit=10"]
    np.testing.assert_array_equal(labels.values["digit=2"], [0, 1, NAN, 1, 0, 0])
    assert labels.notes == []


def test_classes_alone_are_all_columns_of_few_whole_numbers_and_no_others(tmp_path):
    names = [f"{i}.png" for i in range(9)]
    lines = [f"{name},{i % 3},{i % 2},{i}.5" for i, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("file,stage,sick,size\n" + "\n".join(lines) + "\n")
    labels = load_labels(tmp_path / "labels.csv", names, ["classes"])
    assert list(labels.values) == ["stage=0", "stage=1", "stage=2", "sick", "size"]


def test_an_order_is_numbers_and_needs_no_word_about_it(tmp_path):
    names = [f"{i}.png" for i in range(9)]
    stages = [i % 3 for i in range(9)]
    unasked = read(tmp_path, "stage", stages, names=names)
    assert "taken for a scale" in unasked.notes[0]
    for kinds in (["stage=ordinal"], ["stage=continuous"], ["ordinal"]):
        labels = read(tmp_path, "stage", stages, kinds, names=names)
        np.testing.assert_array_equal(labels.values["stage"], stages)
        assert labels.notes == []


@pytest.mark.parametrize(
    ("cells", "kinds", "message"),
    [
        ([1, 2.5, 3, 1, 2, 3], ["x=classes"], "x cannot be taken for classes: 2.5 is no whole number"),
        ([7] * 6, ["x=classes"], "x cannot be taken for classes: it has 1 values, where 2 to 100 can be"),
        (["a"] * 6, ["x=classes"], "x cannot be taken for classes: it has 1 values"),
        ([1, -1] * 3, ["x=ordinal"], "x cannot be taken for ordinal: its only values are 1 and -1"),
        (["a", "b"] * 3, ["x=ordinal"], "There is no column 'x' of numbers to take for ordinal"),
        ([1] * 6, ["y=classes"], "There is no column 'y' of numbers to take for classes"),
    ],
)
def test_classes_that_are_none_are_refused(tmp_path, cells, kinds, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, "x", cells, kinds)


def test_more_classes_than_attributes_are_refused():
    assert len(class_columns("x", [str(i) for i in range(100)])) == 100
    with pytest.raises(ValueError, match="it has 101 values"):
        class_columns("x", [str(i) for i in range(101)])


def test_a_class_may_not_be_called_like_another_column(tmp_path):
    rows = [row | {"x=a": 1} for row in rows_of("x", ["a", "b"] * 3)]
    with pytest.raises(ValueError, match="are both called 'x=a'"):
        align(rows, NAMES, tmp_path / "set")


def test_a_name_of_a_class_is_one_whatever_it_looks_like(tmp_path):
    assert not is_unknown(ClassName("none"))
    labels = align(rows_of("x", [ClassName("none"), ClassName("01"), None]), NAMES[:3], tmp_path)
    np.testing.assert_array_equal(labels.values["x=none"], [1, 0, NAN])
    np.testing.assert_array_equal(labels.values["x=01"], [0, 1, NAN])
    numbered = rows_of("x", [ClassName(c) for c in "012"])
    assert list(align(numbered, NAMES[:3], tmp_path).values) == ["x=0", "x=1", "x=2"]
    np.testing.assert_array_equal(align(numbered, NAMES[:3], tmp_path, kinds=["x=ordinal"]).values["x"], [0, 1, 2])
    assert "x was left out: it has 1 classes" in align(rows_of("x", [ClassName("a")]), NAMES[:1], tmp_path).notes[0]


# Labels that lie with the images ----------------------------------------------------------------------------------------


def made(folder, names, extra=()):
    """A folder of images of those names, and a zip of the same files."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i * 7 % 256, 0, 0)).save(folder / name)
    for name, text in extra:
        (folder / name).write_text(text)
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder).as_posix())
    return folder, folder.with_suffix(".zip")


def labelled(source, **settings):
    return prepare(DataConfig(source=str(source), validation=settings.pop("validation", 0.0), **settings), size=(8, 8), channels=3)


ANIMALS = [f"{kind}/{i}.png" for kind in ("cats", "dogs", "none") for i in range(2)]


@pytest.mark.parametrize("prefixes", [[""], ["all/"], ["train/", "test/"], ["set/train/", "set/val/"]])
def test_folders_are_classes_in_a_folder_and_in_a_zip(tmp_path, prefixes):
    for source in made(tmp_path / "animals", [f"{prefix}{name}" for prefix in prefixes for name in ANIMALS]):
        data = labelled(source)
        assert list(data.labels) == ["class=cats", "class=dogs", "class=none"]
        np.testing.assert_array_equal(data.labels["class=none"], ["none/" in name for name in data.names])
        assert any(note.startswith("3 folders were taken for classes: cats (") for note in data.notes)


@pytest.mark.parametrize(
    "names",
    [
        [f"{i}.png" for i in range(4)],
        [*ANIMALS, "1.png"],
        [f"cats/{i}.png" for i in range(4)],
        [f"{part}/{i}.png" for part in ("train", "test") for i in range(4)],
        [f"{i:05d}/{j}.png" for i in (0, 1000, 2000) for j in range(3)],
        [f"patient{i}/1.png" for i in range(4)],
        [f"{kind}/{side}/{i}.png" for kind in ("a", "b") for side in ("left", "right") for i in range(2)],
        [f"c{i}/{j}.png" for i in range(101) for j in range(2)],
    ],
)
def test_folders_that_are_no_classes_give_none(names):
    assert folder_classes(names) == []


def test_folders_called_by_small_numbers_are_classes():
    assert folder_classes([f"{i}/{j}.png" for i in range(2) for j in range(2)]) == ["0", "0", "1", "1"]


def test_a_table_comes_before_folders(tmp_path):
    table = "file,cute\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(ANIMALS))
    for source in made(tmp_path / "animals", ANIMALS, [("labels.csv", table)]):
        data = labelled(source)
        np.testing.assert_array_equal(data.labels["cute"], [0, 1] * 3)
        assert list(data.labels) == ["cute"]
        assert not any("taken for classes" in note for note in data.notes)


@pytest.mark.parametrize("files", ["{}.png", "top/{}.png", "./{}.png"])
def test_a_table_in_the_one_top_folder_of_a_zip_may_leave_that_out(tmp_path, files):
    table = "file,a\n" + "".join(f"{files.format(i)},{i % 2}\n" for i in range(4)) + "gone.png,1\n"
    _, source = made(tmp_path / "set", [f"top/{i}.png" for i in range(4)], [("top/labels.csv", table)])
    data = labelled(source)
    np.testing.assert_array_equal(data.labels["a"], [0, 1, 0, 1])
    assert any("1 of 5 rows name no image (gone.png)" in note for note in data.notes)
    assert not any("left alone" in note for note in data.notes)


def test_a_damaged_table_in_a_zip_is_named(tmp_path):
    _, source = made(tmp_path / "set", ["0.png"], [("labels.csv", "name,a\n0.png,1\n")])
    with pytest.raises(ValueError, match=r"set\.zip/labels\.csv has no column 'file'"):
        labelled(source)


def test_only_rows_of_images_that_can_be_used_are_looked_for(tmp_path):
    folder, _ = made(tmp_path / "animals", ANIMALS)
    (folder / "cats" / "2.png").write_bytes(b"no picture")
    data = labelled(folder)
    assert len(data.names) == 6
    assert list(data.labels) == ["class=cats", "class=dogs", "class=none"]


# COCO -------------------------------------------------------------------------------------------------------------------


def coco(num=4, categories=("cat", "dog"), marks=((1, 1), (1, 1), (1, 2), (3, 2)), **changes):
    """Annotations: images 1..num, categories by number from 1, and marks of (image, category)."""
    found = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 8, "height": 8} for i in range(1, num + 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(categories, start=1)],
        "annotations": [{"id": k, "image_id": i, "category_id": c, "bbox": [0, 0, 2, 2]} for k, (i, c) in enumerate(marks)],
    }
    return json.dumps(found | changes)


IMAGES = [f"{i}.png" for i in range(1, 5)]


def test_categories_of_coco_are_columns(tmp_path):
    for source in made(tmp_path / "set", IMAGES, [("instances.json", coco()), ("other.json", "[1]")]):
        data = labelled(source)
        np.testing.assert_array_equal(data.labels["cat"], [1, 0, 0, 0])
        np.testing.assert_array_equal(data.labels["dog"], [1, 0, 1, 0])
        assert any("instances.json are columns of 0 and 1" in note for note in data.notes)
    (tmp_path / "elsewhere.json").write_text(coco(marks=[(2, 1)]))
    data = labelled(tmp_path / "set", labels=str(tmp_path / "elsewhere.json"))
    np.testing.assert_array_equal(data.labels["cat"], [0, 1, 0, 0])


def test_annotations_of_other_images_and_two_that_fit_are_not_taken(tmp_path):
    folder, _ = made(
        tmp_path / "set", IMAGES, [("a.json", coco(images=[{"id": 1, "file_name": "x.png"}, {"id": 3, "file_name": "y"}]))]
    )
    data = labelled(folder)
    assert data.labels == {}
    assert any("No file in COCO's format names any of these images (a.json)" in note for note in data.notes)
    for name in ("a.json", "b.json"):
        (folder / name).write_text(coco())
    data = labelled(folder)
    assert data.labels == {}
    assert any("2 files in COCO's format name these images (a.json, b.json), so none was taken" in note for note in data.notes)


def test_of_too_many_categories_the_most_frequent_are_kept(tmp_path):
    (tmp_path / "a.json").write_text(coco(categories=[f"c{i}" for i in range(102)], marks=[(1, 102), (9, 1), (2, 102), (2, 50)]))
    labels = load_labels(tmp_path / "a.json", IMAGES)
    assert len(labels.values) == 100
    np.testing.assert_array_equal(labels.values["c101"], [1, 1, 0, 0])
    assert "c99" not in labels.values
    assert any("of 102 categories the 100 that most images show became attributes" in note for note in labels.notes)
    assert any("1 annotations are of images that it does not list" in note for note in labels.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON in COCO's format"),
        ('{"images": [], "annotations": []}', "is no JSON in COCO's format"),
        (coco(marks=[(1, 7)]), "annotation 1: there is no category with the id 7"),
        (coco(marks=[(1, 7.5)]), "annotation 1: it has no 'category_id' as COCO's format wants it, int"),
        (coco(images=[{"id": 1}]), "image 1: it has no 'file_name'"),
        (
            coco(images=[{"id": 1, "file_name": "0.png"}, {"id": 1, "file_name": "1.png"}]),
            "image 1 and image 2 have the same id, 1",
        ),
        (
            coco(categories=[], marks=[]).replace(
                '"categories": []', '"categories": [{"id": 5, "name": "cat"}, {"id": 5, "name": "dog"}]'
            ),
            "category 1 and category 2 have the same id, 5. Give each its own",
        ),
        (coco(categories=("cat", "cat")), "are both called 'cat'"),
        (coco(categories=("cat", "group")), "are both called 'group'"),
        (coco(images=[]), "has no rows"),
    ],
)
def test_annotations_that_cannot_be_right_are_refused(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_labels(tmp_path / "a.json", IMAGES)


# Groups -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["table", "zip"])
def test_a_patients_images_never_straddle_the_split(tmp_path, kind):
    names = [f"{i}.png" for i in range(40)]
    patients = ["" if i < 4 else f"p{i // 4}" for i in range(40)]
    table = "file,sick,group\n" + "".join(f"{n},{i % 2},{p}\n" for i, (n, p) in enumerate(zip(names, patients, strict=True)))
    source = made(tmp_path / "set", names, [("labels.csv", table)])[kind == "zip"]
    data = labelled(source, validation=0.3)
    own = dict(zip(names, (p or n for p, n in zip(patients, names, strict=True)), strict=True))
    train, held = ({own[data.names[i]] for i in side} for side in (data.train, data.validation))
    assert train
    assert held
    assert not train & held
    assert {"0.png", "1.png", "2.png", "3.png"} <= train | held
    assert any("4 of 40 images have no group" in note for note in data.notes)


@pytest.mark.skipif(not SETS.is_dir(), reason="needs the labelled sets, which are not part of the project")
def test_published_zips_come_with_their_labels():
    cells, signs = (open_source(SETS / f"{name}64.zip") for name in ("bloodcells", "signs"))
    found = align(cells.label_rows(), cells.names, SETS)
    assert {name: int(y.sum()) for name, y in found.values.items() if name.startswith("cell=")} == {
        "cell=Platelets": 361,
        "cell=RBC": 1709,
        "cell=WBC": 372,
    }
    found = align(signs.label_rows(), signs.names, SETS, kinds=["digit=classes"])
    digits = [f"digit={i}" for i in range(10)]
    assert digits == [name for name in found.values if name.startswith("digit=")]
    for name, digit in zip(signs.names[::97], np.argmax([found.values[d] for d in digits], axis=0)[::97], strict=True):
        assert name.startswith(f"{digit}/")
