"""The script that measures a card runs, at a small size, where there is none; so it cannot rot until there is one."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("gpu", FOLDER / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in ("authors", "beside"):
        sys.modules.pop(name, None)


def table(file):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in file.read_text().splitlines() if line.startswith("|")]


def measured(gpu, out, *rows):
    small = (("avatars32", 2, "<= 1"),)
    gpu.main(None, out, rows, decoders=small, trainings=small, images=64, ablated="avatars32", seeds=1, seconds=0.0)
    rows = table(out)[2:]
    assert not [row for row in rows if "failed" in row[2]]
    return rows, {row[0]: row[2] for row in rows}


@pytest.mark.slow
def test_calls_and_steps_are_measured_at_a_small_size(gpu, tmp_path):
    rows, figures = measured(gpu, tmp_path / "gpu.md", "decoder", "training")
    assert re.fullmatch(r"\d+\.\d\d ms, \de[-+]\d\d from plain float32", figures["decoder call, avatars32, batch 2"])
    assert re.fullmatch(r"\d+ images/s, .*", figures["training step, avatars32, batch 2"])
    assert {row[1] for row in rows if row[0].startswith("decoder")} == {
        f"{way}, {kind}" for way in ("plain", "kernels", "recorded") for kind in ("float32", "bfloat16")
    }


@pytest.mark.soak
def test_commands_are_measured_at_a_small_size(gpu, tmp_path):
    _, figures = measured(gpu, tmp_path / "gpu.md", "command", "killed")
    assert re.fullmatch(r"\d+ images/s", figures["`diffae train --preset avatars32`, batch 16"])
    assert re.fullmatch(r"0 of \d+ tensors differ", figures["kill -9, then the same command"])


@pytest.mark.soak
def test_precisions_are_compared_at_a_small_size(gpu, tmp_path):
    rows, _ = measured(gpu, tmp_path / "gpu.md", "precisions")
    assert [row[1] for row in rows if row[0].endswith("1 seeds")] == ["float32", "bfloat16"]


def test_the_row_of_the_quick_start_reads_its_report(gpu, tmp_path, monkeypatch):
    out = tmp_path / "gpu.md"

    def made(*words):
        folder = Path(words[words.index("--out") + 1])
        folder.mkdir()
        (folder / "report.html").write_text("")
        errors = {"random x_T": {"mse": 0.01}, "both codes, floor": {"mse": 0.0}}
        report = {"reconstruction": errors, "auroc": {"z_sem": {"Hat": 0.9, "Beard": 0.8}}, "images_seen": 25904}
        (folder / "report.json").write_text(json.dumps(report))

    monkeypatch.setattr(gpu, "_diffae", made)
    gpu.main(None, out, rows=("quickstart",))
    [row] = table(out)[2:]
    assert re.fullmatch(r"\d+ s, 25,904 images; MSE: random x_T 1.0e-02, AUROC 0.850", row[2])


def test_a_row_that_fails_says_why_and_the_next_goes_on(gpu, tmp_path, monkeypatch):
    out = tmp_path / "gpu.md"
    monkeypatch.setattr(gpu, "_killed", lambda *_: (_ for _ in ()).throw(RuntimeError("no such card\nand more")))
    monkeypatch.setattr(gpu, "_command", lambda *_: iter([["a command", "", "9 images/s", ""]]))
    gpu.main(None, out, rows=("killed", "command"))
    assert table(out)[2:] == [["a command", "", "9 images/s", ""], ["killed", "", "failed: RuntimeError: no such card", ""]]
