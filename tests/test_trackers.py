"""Trackers are sent what a run logs, and a run does not depend on them."""

import json
import sys
from dataclasses import replace
from typing import ClassVar

import accelerate.tracking
import pytest
from runs import run

from diffae.training.events import Noted
from diffae.training.run import resolve, train
from diffae.training.subjects import ImageSubject
from diffae.training.trackers import Trackers, tracker_kinds


class Kept:
    """A tracker that keeps what it is told."""

    requires_logging_directory = False
    told: ClassVar = []

    def __init__(self, project, **options):
        self.told.append(("project", project, options))

    def start(self):
        self.told.append(("start",))

    def store_init_configuration(self, values):
        self.told.append(("settings", values))

    def log(self, values, step=None):
        self.told.append(("log", step, values))

    def finish(self):
        self.told.append(("finish",))


class Pictured(Kept):
    """One that takes pictures too, and wants a folder."""

    requires_logging_directory = True

    def log_images(self, values, step=None):
        (image,) = values["images"]
        self.told.append(("images", step, image.shape))


class Failing(Kept):
    def log(self, values, step=None):
        raise ConnectionError("nobody answers")


@pytest.fixture
def trackers(monkeypatch):
    kinds = {"kept": Kept, "swanlab": Pictured, "failing": Failing}
    for name, kind in kinds.items():
        monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, name, kind)
        monkeypatch.setattr(kind, "told", [])
    return kinds


def notes(config, out):
    from diffae.data import prepare

    config = resolve(config, out)
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    return [event.text for event in train(ImageSubject(config, data), out) if isinstance(event, Noted)]


def test_a_tracker_is_told_what_the_run_writes_down(trackers, tiny_run, tmp_path):
    out = tmp_path / "run"
    told = notes(tiny_run(tracker=("kept", "swanlab"), sample_every=32), out)
    assert told[-1:] == [f"kept is sent no pictures: they are in {out / 'pictures'}"]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for kind in (Kept, Pictured):
        logged = [(step, values) for what, step, values in (t for t in kind.told if t[0] == "log")]
        assert [step for step, _ in logged] == [line["images"] for line in lines]
        for (_, values), line in zip(logged, lines, strict=True):
            assert values.keys() == line.keys() - {"images", "time"}
            assert {key: float(f"{value:.6g}") for key, value in values.items()} == {key: line[key] for key in values}
        assert ("start",) in kind.told
        assert kind.told[-1] == ("finish",)
        (settings,) = [t[1] for t in kind.told if t[0] == "settings"]
        assert settings["training.batch_size"] == 8
        assert settings["model.image_size"] == "[8, 8]"
    assert Kept.told[0] == ("project", "diffae", {})
    assert Pictured.told[0][2] == {"logging_dir": str(out / "swanlab")}
    shown = [t for t in Pictured.told if t[0] == "images"]
    assert [step for _, step, _ in shown] == [32, 64]
    assert all(len(shape) == 3 and shape[2] == 3 for *_, shape in shown)


def test_one_that_fails_is_left_out_and_the_run_is_the_same(trackers, tiny_run, tmp_path):
    told = notes(tiny_run(tracker=("failing", "swanlab")), tmp_path / "a")
    (said,) = [text for text in told if "nobody" in text]
    assert "failing failed (ConnectionError: nobody answers) and is left out" in said
    assert [t for t in Pictured.told if t[0] == "log"]
    assert notes(tiny_run(), tmp_path / "b") == []
    a, b = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "ab")
    assert a == b


def test_a_run_goes_on_with_other_trackers(trackers, tiny_run, tmp_path):
    config = tiny_run()
    run(replace(config, training=replace(config.training, images=32)), tmp_path / "run")
    notes(replace(config, training=replace(config.training, tracker=("kept",))), tmp_path / "run")
    steps = [step for what, step, _ in (t for t in Kept.told if t[0] == "log")]
    assert min(steps) > 32
    assert max(steps) == 64


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("wandbb", ValueError, "there is no 'wandbb'; accelerate knows .*wandb"),
        ("tensorboard", ValueError, "TensorBoard is written anyway"),
        ("aim", ImportError, "pip install aim"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_written(name, kind, words, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aim", None)
    with pytest.raises(kind, match=words):
        notes(tiny_run(tracker=(name,)), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_picture_that_is_not_taken_ends_pictures_alone(trackers, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(Pictured, "log_images", lambda *_, **__: 1 / 0)
    told = notes(tiny_run(tracker=("swanlab",)), tmp_path / "run")
    assert [text for text in told if "swanlab" in text] == [
        f"swanlab takes no pictures (ZeroDivisionError: division by zero): they are in {tmp_path / 'run' / 'pictures'}"
    ]
    assert max(step for what, step, _ in (t for t in Pictured.told if t[0] == "log")) == 64


def test_an_end_that_fails_is_told(trackers, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(Kept, "finish", lambda _: 1 / 0)
    assert "kept failed (ZeroDivisionError" in notes(tiny_run(tracker=("kept",)), tmp_path / "run")[-1]


def test_settings_have_names_with_dots(trackers, tmp_path):
    Trackers(tracker_kinds(["kept"]), tmp_path, {"a": {"b": {"c": 1.5}}, "d": None, "e": (1, 2)})
    assert Kept.told[2] == ("settings", {"a.b.c": 1.5, "d": None, "e": "(1, 2)"})
