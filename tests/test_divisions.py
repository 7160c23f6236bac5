"""Which images a run holds out: the same ones whatever its images are labelled with, and wherever they lie."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from diffae import cli
from diffae.autoencoder import build
from diffae.cli import inputs
from diffae.cli.divisions import measured_unseen
from diffae.cli.evaluation import _check_division
from diffae.config import RunConfig
from diffae.data import prepare
from diffae.data.codes import read_codes, write_codes
from diffae.training.resumption import write_config
from diffae.training.subjects import ImageSubject

NUM = 24


def write(file, **columns):
    """A label table of the images; a column gives a value for each number."""
    rows = [",".join([f"{i:03d}.png", *(str(make(i)) for make in columns.values())]) for i in range(NUM)]
    file.write_text("\n".join([",".join(["file", *columns]), *rows]) + "\n")
    return file


def person(i):
    return f"p{i % 6}"


def trained(config, out):
    """What a run leaves that is as good as untrained: its model, and how its images were divided as it began."""
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    ae = build(config.model).eval()
    ae.preparation = data.config.preparation
    ae.save_pretrained(out / "model")
    write_config(out, config)
    (out / "data.txt").write_text(data.identity + "\n")
    return ae, data


def held(data):
    return {data.names[i] for i in data.validation}


@pytest.fixture
def grouped(tiny_run, make_images, tmp_path):
    """A model of images of six persons, its run, and how the run divides them. The table lies elsewhere."""
    people = write(tmp_path / "people.csv", group=person, ill=lambda i: i % 2)
    config = tiny_run(images=8, source=make_images(NUM), data={"labels": str(people), "validation": 0.4})
    ae, own = trained(config, tmp_path / "run")
    assert len({person(int(name[:3])) for name in held(own)}) * NUM / 6 == len(held(own)) > 0
    return ae, str(tmp_path / "run"), own


@pytest.fixture
def plain(tiny_run, make_images, tmp_path):
    """The same of images of which nothing is known, held out one by one."""
    ae, own = trained(tiny_run(images=8, source=make_images(NUM)), tmp_path / "run")
    return ae, str(tmp_path / "run"), own


def test_another_table_labels_the_runs_images_and_leaves_them_on_their_sides(grouped, tmp_path):
    ae, source, own = grouped
    found = inputs.images(ae, source, None, write(tmp_path / "severity.csv", severity=lambda i: i))
    assert held(found) == held(own)
    assert found.labels["severity"].tolist() == list(range(NUM))
    assert "ill" not in found.labels
    assert found.grouped(np.array([1, 7])).tolist() == ["p1", "p1"]
    other = write(tmp_path / "scans.csv", group=lambda i: f"s{i // 2}", severity=lambda i: i)
    found = inputs.images(ae, source, None, other)
    assert held(found) == held(own)
    assert found.grouped(np.array([1, 7])).tolist() == ["s0", "s3"], "what belongs together by the table is fitted together"


def test_groups_of_a_new_table_hold_out_no_image_that_was_trained_on(plain, tmp_path):
    ae, source, own = plain
    table = write(tmp_path / "people.csv", group=person, ill=lambda i: i % 2)
    assert held(inputs.images(ae, source, None, table)) == held(own)
    shutil.copy(table, Path(own.config.source) / "labels.csv")
    found = inputs.images(ae, source, None)
    assert held(found) == held(own), "nor those of a table that was laid beside them since"
    assert "ill" in found.labels


def test_a_runs_images_are_known_where_they_are_named_and_where_they_were_moved(grouped, tmp_path):
    ae, source, own = grouped
    root = own.config.source
    assert held(inputs.images(ae, source, root)) == held(own)
    assert held(inputs.images(ae, source, f"{root}/../images")) == held(own)
    shutil.move(root, tmp_path / "elsewhere")
    assert held(inputs.images(ae, source, str(tmp_path / "elsewhere"))) == held(own)
    shutil.move(tmp_path / "people.csv", tmp_path / "moved.csv")
    assert held(inputs.images(ae, source, str(tmp_path / "elsewhere"), tmp_path / "moved.csv")) == held(own)
    with pytest.raises(FileNotFoundError, match=r"was trained on what was there: name where it is now with --data"):
        inputs.images(ae, source, None, tmp_path / "moved.csv")


def test_a_table_that_was_moved_is_asked_for_and_compared(grouped, tmp_path):
    ae, source, own = grouped
    shutil.move(tmp_path / "people.csv", tmp_path / "moved.csv")
    with pytest.raises(FileNotFoundError, match=r"people.csv. Of .*run its groups .*: name where it is now with --labels"):
        inputs.images(ae, source, None)
    assert held(inputs.images(ae, source, None, tmp_path / "moved.csv")) == held(own)
    with pytest.raises(ValueError, match=r"are not those that .*run began with, or would be divided otherwise"):
        inputs.images(ae, source, None, write(tmp_path / "other.csv", group=lambda i: i % 5, ill=lambda i: 1))


def test_a_runs_images_that_changed_are_refused_until_told_otherwise(plain):
    ae, source, own = plain
    root = Path(own.config.source)
    shutil.copy(root / "000.png", root / "more.png")
    for data in (None, str(root)):
        with pytest.raises(ValueError, match=r"There it was .* now it is .* To take these all the same, delete"):
            inputs.images(ae, source, data)
    (Path(source) / "data.txt").unlink()
    assert "more.png" in inputs.images(ae, source, None).names


def test_images_under_another_crop_are_divided_as_the_runs(grouped):
    ae, source, own = grouped
    found = inputs.images(ae, source, None, crop="none")
    assert held(found) == held(own)


def test_a_comparison_wants_the_same_division(grouped, tiny_run, tmp_path):
    own = grouped[2]
    alike, other = (tiny_run(images=8, source=own.config.source, data=d | {"validation": 0.4})
                    for d in ({"labels": str(tmp_path / "people.csv")}, {}))  # fmt: skip
    trained(alike, tmp_path / "alike")
    trained(other, tmp_path / "other")
    _check_division(own, {None: RunConfig, tmp_path / "alike": RunConfig})
    with pytest.raises(ValueError, match=r"other began with .*: it may have seen some of those that are held out"):
        _check_division(own, {tmp_path / "other": RunConfig})


def test_codes_say_of_a_runs_own_images_alone_whether_it_saw_them(plain, make_images, tmp_path):
    ae, source, own = plain
    for data in (None, str(make_images(3, size=(12, 12), folder="others"))):
        found = inputs.images(ae, source, data)
        write_codes(ae, found, tmp_path / "codes.parquet", identity="x")
        split = parquet.read_table(tmp_path / "codes.parquet")["split"].to_pylist()
        if data is None:
            assert {name for name, s in zip(found.names, split, strict=True) if s == "validation"} == held(own)
            assert set(split) == {"train", "validation"}
        else:
            assert split == ["other"] * 3
            assert not read_codes(tmp_path / "codes.parquet").held_out.any()


@pytest.mark.parametrize("table", [None, "group"])
def test_one_image_or_group_that_is_named_is_used_and_fitted_to(plain, make_images, tmp_path, table):
    ae, source, _ = plain
    folder = make_images(1 if table is None else 3, size=(12, 12), folder="others")
    if table:
        (folder / "labels.csv").write_text("file,group\n" + "".join(f"{i:03d}.png,a\n" for i in range(3)))
    found = inputs.images(ae, source, str(folder))
    assert len(found.train) == len(found.validation) == 0
    fitted = inputs.divided_images(ae, source, str(folder))
    assert len(fitted.train) == len(found.names)
    assert len(fitted.validation) == 0


@pytest.fixture
def published(tiny_run, make_images, tmp_path):
    """The same of images that lie as they were divided: the first 16 to train on."""
    root = make_images(NUM)
    for part, numbers in (("train", range(16)), ("test", range(16, NUM))):
        (root / part).mkdir()
        for i in numbers:
            (root / f"{i:03d}.png").rename(root / part / f"{i:03d}.png")
    ae, own = trained(tiny_run(images=8, source=root, data={"validation": "published"}), tmp_path / "run")
    assert len(held(own)) == NUM - 16
    return ae, str(tmp_path / "run"), own


def test_groups_on_both_sides_of_a_published_split_are_told_and_results_know_them(published, tmp_path, monkeypatch, capsys):
    _, source, own = published
    table = tmp_path / "people.csv"
    table.write_text("\n".join(["file,group", *(f"{name},{person(int(name[-7:-4]))}" for name in own.names)]) + "\n")
    benches = []
    monkeypatch.setattr("diffae.evaluation.evaluate.evaluate", lambda bench, suites, out: benches.append(bench) or out)
    for words in ([], ["--labels", str(table)]):
        assert "on both sides" not in " ".join(capsys.readouterr().err.split())
        cli.main(["evaluate", source, "--out", str(tmp_path / "out"), *words])
    assert "6 of 6 groups have images on both sides of the split" in " ".join(capsys.readouterr().err.split())
    assert benches[0].data.groups is None
    assert [held(bench.data) for bench in benches] == [held(own)] * 2
    assert len({bench.store.depends["images"] for bench in benches}) == 2, "intervals of before are of strangers"


def test_a_run_of_a_published_split_reads_images_that_have_none(published, make_images, capsys):
    ae, source, _ = published
    others = str(make_images(40, size=(12, 12), folder="others"))
    assert len(inputs.images(ae, source, others).names) == 40
    capsys.readouterr()
    fitted = inputs.divided_images(ae, source, others)
    assert 0 < len(fitted.validation) < 10
    assert "is held out, 0.05, since it is no published split" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", ["average", "distill"])
def test_other_commands_hold_out_what_the_run_did(plain, tmp_path, capsys, command):
    """Groups laid beside the images would divide them otherwise."""
    _, source, own = plain
    write(Path(own.config.source) / "labels.csv", group=person)
    asked = {"average": ["--lengths", "0.1"], "distill": ["--images", "8"]}[command]
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageSubject, "__init__", lambda self, config, data, **_: said.append(held(data)) or sys.exit(3))
        patch.setattr("diffae.training.distillation.DistilledSubject.__init__", ImageSubject.__init__)
        with pytest.raises(SystemExit):
            cli.main([command, source, "--out", str(tmp_path / "out"), *asked])
    assert said == [held(own)], capsys.readouterr()


@pytest.mark.parametrize("lies", ["where it lay", "elsewhere"])
def test_a_run_is_not_measured_on_what_it_was_trained_on(plain, tmp_path, capsys, lies):
    ae, source, own = plain
    table = write(Path(own.config.source) / "labels.csv", ill=lambda i: i % 2)
    named = own.config.source
    if lies == "elsewhere":
        named = str(shutil.move(named, tmp_path / "moved"))
        table = Path(named) / "labels.csv"
    data = inputs.images(ae, source, named, table)
    unseen = measured_unseen(source, data, named)
    assert {name for name, y in zip(unseen.names, unseen.labels["ill"], strict=True) if not np.isnan(y)} == held(own)
    assert "nothing is measured on them" in capsys.readouterr().err
    assert measured_unseen(source, data, None) is data
    with pytest.raises(SystemExit):
        cli.main(["evaluate", source, "--data", named, "--unseen", "True", "--out", str(tmp_path / "out")])
    assert "was trained on these images, and --unseen True says that it has seen none" in " ".join(capsys.readouterr().err.split())
