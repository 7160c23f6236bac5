"""Images that are unlike a model's own: told by where z_sem lies, and by what z_sem cannot draw."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from ideal import codes, ideal
from runs import run

from diffae import cli
from diffae.config import DataConfig
from diffae.data import prepare
from diffae.explanation.anomalies import _flat, write_anomalies
from diffae.explanation.anomaly import AnomalyScorer
from diffae.pictures import save_png, to_pil

NOTHING = lambda *_: None  # noqa: E731


@pytest.fixture
def made(tmp_path):
    """The ideal autoencoder, its images, and others: usual ones, far ones, and such as z_sem cannot draw."""
    ae, pattern = ideal()
    (tmp_path / "own").mkdir()
    (tmp_path / "new").mkdir()
    for i, image in enumerate((codes(300) @ pattern).view(-1, 1, 8, 8)):
        save_png(to_pil(image), tmp_path / "own" / f"{i:03d}.png")
    usual = codes(40, 3)
    far = 5 * codes(20, 4)
    strange = codes(20, 5)
    dot = torch.zeros(1, 8, 8)
    dot[0, 3:5, 3:5] = 0.9
    images = torch.cat([torch.cat([usual, far]) @ pattern, strange @ pattern + dot.flatten()]).view(-1, 1, 8, 8).clamp(-1, 1)
    rows = ["file,odd"]
    for i, image in enumerate(images):
        save_png(to_pil(image), tmp_path / "new" / f"{i:03d}.png")
        rows.append(f"{i:03d}.png,{int(i >= 40)}")
    (tmp_path / "new" / "labels.csv").write_text("\n".join(rows))
    own, new = (
        prepare(DataConfig(source=str(tmp_path / name), validation=0.3), size=(8, 8), channels=1) for name in ("own", "new")
    )
    return ae, own, new


def test_the_far_and_the_strange_are_told(made):
    ae, own, new = made
    found = AnomalyScorer(ae, own, NOTHING).score(new, np.arange(80), NOTHING)
    order = [int(name.split(".")[0]) for name in new.names]
    assert order == list(range(80))
    assert np.median(found.distance[40:60]) > 2 * np.median(found.distance[:40])
    assert np.median(found.error[60:]) > 10 * np.median(found.error[:40])
    assert found.score[40:].min() > np.quantile(found.score[:40], 0.9)
    assert abs(found.score[:40].mean()) < 0.5  # Usual images are as those that were held out.


def test_an_error_is_of_the_pixels_that_count(made):
    ae, own, new = made
    scorer = AnomalyScorer(ae, own, NOTHING)
    known = np.full((80, 1, 8, 8), 255, np.uint8)
    known[60:, :, 3:5, 3:5] = 0  # Where the strange ones have their dot.
    masked = dataclasses.replace(new, known=known)
    found, before = (scorer.score(data, np.arange(80), NOTHING) for data in (masked, new))
    assert np.array_equal(found.distance, before.distance)
    assert np.array_equal(found.error[:60], before.error[:60])
    x = new.images(np.arange(60, 80))
    squared = ((scorer.maps(x, ae.encode(x), None)[0] - x) / 2).square()
    squared[:, :, 3:5, 3:5] = 0
    np.testing.assert_allclose(found.error[60:], squared.sum((1, 2, 3)) / 60, rtol=1e-4)
    assert np.median(found.error[60:]) < np.median(before.error[60:]) / 3
    weights = _flat(masked, np.arange(59, 61))[1].reshape(2, 8, 8)
    assert weights.sum((1, 2)).tolist() == [64, 60], "the floor is of the same pixels"
    assert not weights[1, 3:5, 3:5].any()


def test_the_score_of_an_image_does_not_depend_on_the_others(made):
    ae, own, new = made
    scorer = AnomalyScorer(ae, own, NOTHING)
    assert np.allclose(
        scorer.score(new, np.arange(80), NOTHING).score[70:], scorer.score(new, np.arange(70, 80), NOTHING).score, atol=1e-4
    )


def test_a_score_does_not_depend_on_the_place_among_others_whose_network_errs(made):
    ae, own, new = made
    seen = []

    class Noisy(torch.nn.Module):
        """A network whose mean decode is its noise."""

        def decode_mean(self, z_sem, **settings):
            seen.append(settings["start"])
            return ae.draw_x_T(len(z_sem), 0, **settings).clamp(-1, 1)

        def encode(self, x):
            return ae.encode(x)

    scorer = AnomalyScorer(ae, own, NOTHING)
    scorer.ae = Noisy()
    every, one = (scorer.score(new, np.array(places), NOTHING).error for places in (range(80), [70]))
    assert every[70] == pytest.approx(one[0], rel=1e-5)
    assert len(seen) == 3


def test_what_is_found_is_written(made, tmp_path):
    ae, own, new = made
    page, told = write_anomalies(AnomalyScorer(ae, own, NOTHING), own, new, np.arange(80), tmp_path / "out", column="odd", num=10)
    assert told["auroc"]["score"] > 0.95
    assert set(told["auroc"]) == {"score", "distance", "error", "pixels"}
    assert json.loads((page.parent / "anomaly.json").read_text())["auroc"] == told["auroc"]
    rows = list(csv.DictReader((page.parent / "images.csv").read_text().splitlines()))
    scores = [float(row["score"]) for row in rows]
    assert len(rows) == 80
    assert scores == sorted(scores, reverse=True)
    assert "The least usual" in page.read_text()
    assert (page.parent / "least-usual.png").is_file()
    assert "above those of images that were held out" in page.read_text()
    none = dataclasses.replace(own, train=np.arange(300), validation=np.arange(0))
    page, _ = write_anomalies(AnomalyScorer(ae, none, NOTHING), none, new, np.arange(9), tmp_path / "none", num=1)
    assert "above those of the images that it was trained on, for none was held out" in page.read_text()
    for column, said in (("colour", "no column"), ("odd", "should be 1 for anomalies")):
        with pytest.raises(ValueError, match=said):
            write_anomalies(AnomalyScorer(ae, own, NOTHING), own, new, np.arange(30), tmp_path / "out", column=column)


def test_the_command_looks_at_what_a_run_held_out(tmp_path, tiny_run, capsys):
    config = tiny_run(images=64)
    run(config, tmp_path / "run")
    cli.main(["anomaly", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--num", "1"])
    assert "Open" in capsys.readouterr().out
    data = prepare(config.data, size=(8, 8), channels=3)
    told = json.loads((tmp_path / "out" / "anomaly.json").read_text())
    assert {image["file"] for image in told["images"]} == {data.names[i] for i in data.validation}
    assert told["n"] == len(data.validation) > 0
