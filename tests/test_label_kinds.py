"""Classes, steps and names: columns that are no measurements become what they are, and that is said."""

import numpy as np
import pytest

from diffae.data.labels.classes import ClassName, class_columns
from diffae.data.labels.columns import is_unknown
from diffae.data.labels.labels import align, load_labels

NAN = float("nan")
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
