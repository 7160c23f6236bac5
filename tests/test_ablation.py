"""The script that compares ways of training measures whole runs only."""

import importlib.util
import sys
from pathlib import Path

import pytest

from diffae.training.run import Finished

FILE = Path(__file__).parents[1] / "benchmarks/ablation.py"


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(str(FILE.parent))
    spec = importlib.util.spec_from_file_location("ablation", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "prepare", lambda *_, **__: None)
    monkeypatch.setattr(module, "ImageSubject", lambda *_: None)
    monkeypatch.setattr(module, "measure_z_sem", lambda *_: {"mean": 0.5, "random": 0.5, "auroc": 0.5, "n": 1})
    yield module
    for name in ("authors", "beside"):
        sys.modules.pop(name, None)


def test_a_run_that_was_stopped_is_not_measured_as_if_it_were_whole(ablation, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "train", lambda *_: iter([Finished(3328, interrupted=True)]))
    with pytest.raises(SystemExit, match=r"Stopped after 3,328 images, not measured"):
        ablation.main(tmp_path, variants=("preset",), seeds=(0,), images=10_000)
    assert not list(tmp_path.glob("*/measured.json"))


def test_a_whole_run_is_measured_once(ablation, tmp_path, monkeypatch, capsys):
    runs = []

    def train(subject, folder):
        runs.append(folder)
        folder.mkdir(parents=True)
        yield Finished(10_000, interrupted=False)

    monkeypatch.setattr(ablation, "train", train)
    for _ in range(2):
        ablation.main(tmp_path, variants=("preset",), seeds=(0, 1), images=10_000)
    assert len(runs) == 2
    assert "| preset | 10,000 | 2 |" in capsys.readouterr().out
