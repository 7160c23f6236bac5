"""Evaluations side by side."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from diffae import cli
from diffae.evaluation.compare import compare, difference, interval, side_by_side
from diffae.evaluation.results import Result


def rows(shift=0.0, n=50, seed=0):
    each = np.random.default_rng(seed).random(n) * 0.1
    moved = (each + shift).tolist()
    return [
        Result("reconstruction", "diffae, inferred x_T", "mse", float(np.mean(moved)), n, 10, each=moved),
        Result("generation", "ddim", "fid", 20.0 + shift, 200, 10),
        Result("attributes", "z_sem", "auroc", 0.9, 99, subject="Smiling"),
    ]


def write(folder, results, images="key", labels="labels"):
    folder.mkdir()
    about = {"depends": {"images": images, "labels": labels}, "results": [asdict(r) for r in results]}
    (folder / "results.json").write_text(json.dumps(about))
    return folder


def test_two_evaluations_stand_side_by_side(tmp_path, capsys):
    a, b = write(tmp_path / "a", rows()), write(tmp_path / "b", rows(0.01)[:2])
    cli.main(["compare", str(a), str(b), "--out", str(tmp_path / "out")])
    assert f"Open {tmp_path / 'out' / 'compare.html'}" in capsys.readouterr().out
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "| a | b | difference |" in text
    assert "| reconstruction diffae, inferred x_T T = 10 mse (n = 50) |" in text
    assert "+0.0100 [+0.01, +0.01]" in text, "each image is worse by as much"
    assert "Smiling" not in text, "only what all have"
    assert "<table>" in (tmp_path / "out" / "compare.html").read_text()


def test_three_have_two_differences_from_the_first():
    header, lines = side_by_side({"a": rows(), "b": rows(0.01), "c": rows(-0.01)})
    assert header == ["", "a", "b", "difference", "c", "difference"]
    assert lines[1][1:] == ["20.00", "20.01", "+0.0100", "19.99", "-0.0100"]
    assert len(lines) == 3


def test_an_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = [low <= 1 <= high for low, high in (interval(rng.normal(1, 2, 40), seed=i) for i in range(60))]
    assert 0.85 <= np.mean(held) <= 1
    values = rng.normal(1, 2, 40)
    low, high = interval(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 40**0.5, rel=0.15)
    low, high = interval(np.full(9, 0.5))
    assert (low, high) == (0.5, 0.5)


@pytest.mark.parametrize("n", [8, 12, 30])
def test_an_interval_of_few_images_holds_the_mean_as_often_too(n, monkeypatch):
    monkeypatch.setattr("diffae.evaluation.compare.RESAMPLES", 2000)
    rng = np.random.default_rng(1)
    held = [low <= 0 <= high for low, high in (interval(rng.normal(size=n), seed=i) for i in range(300))]
    assert np.mean(held) > 0.91


def test_images_of_one_person_count_as_one(monkeypatch):
    monkeypatch.setattr("diffae.evaluation.compare.RESAMPLES", 2000)
    rng, groups = np.random.default_rng(2), np.repeat(np.arange(20), 10)
    drawn = [rng.normal(size=20)[groups] + rng.normal(size=200) for _ in range(100)]
    held = {}
    for known in (groups, None):
        held[known is None] = [low <= 0 <= high for low, high in (interval(v, known) for v in drawn)]
    assert np.mean(held[False]) > 0.88
    assert np.mean(held[True]) < 0.75
    a = Result("s", "m", "mse", 0.1, 8, each=[0.1] * 8, groups=[0] * 4 + [1] * 4)
    assert "[" not in difference(a, a), "two persons"


def test_a_paired_difference_is_sharper_than_the_images_spread():
    a, b = rows()[0], rows(0.001)[0]
    shown = difference(a, b)
    low, high = (float(part) for part in shown.split("[")[1].rstrip("]").split(","))
    assert low <= 0.001 <= high
    assert high - low < 1e-6
    assert "[" not in difference(a, Result("s", "m", "mse", 0.1, 50))
    one = Result("s", "m", "mse", 0.1, 1, each=[0.1])
    assert "[" not in difference(one, one)


def test_what_cannot_be_compared_is_said(tmp_path):
    a = write(tmp_path / "a", rows())
    with pytest.raises(ValueError, match="at least two"):
        compare({"a": a}, tmp_path)
    with pytest.raises(ValueError, match="of different images.*a of key, b of other"):
        compare({"a": a, "b": write(tmp_path / "b", rows(), images="other")}, tmp_path)
    with pytest.raises(ValueError, match="of different labels.*a of labels, b of other.*one --labels"):
        compare({"a": a, "b": write(tmp_path / "d", rows(), labels="other")}, tmp_path)
    with pytest.raises(FileNotFoundError, match="Make it with `diffae evaluate RUN"):
        compare({"a": a, "c": tmp_path / "c"}, tmp_path)
    with pytest.raises(ValueError, match="no row in common"):
        side_by_side({"a": rows()[:1], "b": rows()[1:]})


def test_evaluations_of_one_name_keep_apart(tmp_path):
    for part in ("x", "y"):
        (tmp_path / part).mkdir()
        write(tmp_path / part / "evaluation", rows())
    folders = [str(tmp_path / part / "evaluation") for part in ("x", "y")]
    cli.main(["compare", *folders, "--out", str(tmp_path / "out")])
    assert f"| {folders[0]} | {folders[1]} |" in (tmp_path / "out" / "compare.md").read_text()
