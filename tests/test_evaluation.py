"""Metrics, probes and the report: known values, floors, and a page that says what was measured."""

import dataclasses
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

import diffae
from diffae.config import DataConfig
from diffae.data import prepare
from diffae.evaluation.pages.report import _too_early, commit, machine, write_report
from diffae.metrics.images import each_ms_ssim, mse, psnr, ssim
from diffae.metrics.probe import linear_probe, principal_components, small_pixels
from diffae.pictures import save_png, scale_for, sheet, to_pil
from diffae.training.run import resolve, train
from diffae.training.subjects import ImageSubject


@pytest.fixture
def x():
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


# Metrics -------------------------------------------------------------------------------------------------------------


def test_an_image_is_its_own_perfect_reconstruction(x):
    assert mse(x, x) == 0
    assert psnr(x, x) == pytest.approx(120)
    assert ssim(x, x) == pytest.approx(1, abs=1e-6)


def test_metrics_are_on_the_scale_of_0_to_1(x):
    black, white = torch.full_like(x, -1), torch.full_like(x, 1)
    assert mse(black, white) == 1
    assert psnr(black, white) == pytest.approx(0, abs=1e-9)
    shifted = (x * 0.9) + 0.02
    assert mse(shifted, x) == pytest.approx(float((((shifted + 1) / 2 - (x + 1) / 2) ** 2).mean()), rel=1e-5)


def test_ssim_is_wang_et_al(x):
    """Written out: Gaussian window 11 x 11, sigma 1.5, K = (0.01, 0.03), mean over valid positions."""
    import torch.nn.functional as F

    y = (x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    a, b = (((v + 1) / 2).double() for v in (x, y))
    taps = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    window = (taps[:, None] * taps / taps.sum() ** 2)[None, None].expand(3, 1, 11, 11)

    def blur(v):
        return F.conv2d(v, window, groups=3)

    mu_a, mu_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mu_a**2, blur(b * b) - mu_b**2, blur(a * b) - mu_a * mu_b
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mu_a * mu_b + c1) * (2 * cov + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
    assert ssim(x, y) == pytest.approx(float(value.mean()), abs=2e-3)


def test_psnr_is_each_images_own_averaged(x):
    y = x.clone()
    y[0] += 0.2
    y[1:] += 0.02
    each = [psnr(y[i : i + 1], x[i : i + 1]) for i in range(4)]
    assert psnr(y, x) == pytest.approx(np.mean(each))


# Probes --------------------------------------------------------------------------------------------------------------


def test_ms_ssim_is_of_large_images_and_falls_with_noise():
    wave = torch.sin(torch.arange(176.0) / 9)
    x = (wave[:, None] * wave).expand(2, 3, -1, -1).contiguous() * 0.9
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    same, little, much = (each_ms_ssim((x + s * noise).clamp(-1, 1), x) for s in (0.0, 0.1, 0.5))
    assert same.tolist() == pytest.approx([1, 1], abs=1e-5)
    assert (same > little).all()
    assert (little > much).all()
    with pytest.raises(ValueError, match=r"at least 161 pixels a side, got 128 x 128"):
        each_ms_ssim(x[..., :128, :128], x[..., :128, :128])


def test_what_was_measured_says_by_which_code(monkeypatch, tmp_path):
    root = Path(diffae.__file__).parents[2]
    said = subprocess.run(["git", "-C", str(root), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if said.returncode == 0:
        assert commit().removesuffix("-dirty") == f"{diffae.__version__}, {said.stdout.strip()}"
    else:
        assert commit() == diffae.__version__
    monkeypatch.setattr(diffae, "__file__", str(tmp_path / "site-packages" / "diffae" / "__init__.py"))
    (tmp_path / ".git").mkdir()
    assert commit() == diffae.__version__, "a repository that a package is merely installed in says nothing of it"


def test_a_probe_finds_what_is_there_and_nothing_where_nothing_is():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 8))
    labels = {
        "there": (features[:, 3] + 0.1 * rng.normal(size=600) > 0).astype(float),
        "absent": (rng.random(600) > 0.5).astype(float),
        "constant": np.ones(600),
        "continuous": features[:, 0],
    }
    train, test = {k: v[:400] for k, v in labels.items()}, {k: v[400:] for k, v in labels.items()}
    found = linear_probe(features[:400], train, features[400:], test)
    assert set(found) == {"there", "absent"}
    assert found["there"] > 0.95
    assert 0.35 < found["absent"] < 0.65


def test_unknown_labels_are_left_out_of_a_probe():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 4))
    y = (features[:, 0] > 0).astype(float)
    wrong = 1 - y
    y[::3] = np.nan
    assert linear_probe(features, {"a": y}, features, {"a": y})["a"] > 0.95
    assert linear_probe(features, {"a": y}, features, {"a": wrong})["a"] < 0.05


def test_principal_components_are_of_the_first_set_and_ordered():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(200, 6)) * [10, 5, 1, 1, 1, 1]
    other = rng.normal(size=(50, 6)) * [1, 1, 1, 1, 5, 10]
    train, test = principal_components(a, other, num=3)
    assert train.shape == (200, 3)
    axes = np.linalg.svd(a - a.mean(0), full_matrices=False)[2][:3]
    for found, of in ((train, a), (test, other)):
        assert np.allclose(np.abs(found), np.abs((of - a.mean(0)) @ axes.T), atol=1e-4 * np.abs(of).max())
    assert train.std(0)[0] > train.std(0)[1] > train.std(0)[2]


def test_small_pixels_are_16_by_16(x):
    assert small_pixels(x).shape == (4, 3 * 16 * 16)


# Pictures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "RGB"), (3, "RGB"), (7, "RGB")])
def test_any_number_of_channels_can_be_looked_at(channels, mode):
    picture = to_pil(torch.ones(channels, 4, 6))
    assert picture.mode == mode
    assert picture.size == (6, 4)
    assert np.asarray(picture).min() == 255


def test_a_sheet_places_each_image_where_it_belongs(tmp_path):
    dark, light = -torch.ones(3, 4, 4), torch.ones(3, 4, 4) * 0.5
    picture = sheet([[dark, light], [light, dark]], scale=2, gap=2)
    assert picture.size == (18, 18)
    assert picture.getpixel((3, 3)) == picture.getpixel((13, 13)) == (0, 0, 0)
    assert picture.getpixel((13, 3)) == picture.getpixel((3, 13)) == (191, 191, 191)
    assert picture.getpixel((8, 8)) == (255, 255, 255)
    with Image.open(save_png(picture, tmp_path / "deep" / "a.png")) as again:
        assert np.array_equal(np.asarray(again), np.asarray(picture))


def test_small_images_are_enlarged_and_large_ones_are_not():
    assert scale_for(torch.zeros(1, 3, 32, 32)) == 3
    assert scale_for(torch.zeros(1, 3, 256, 256)) == 1


# Report --------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, text):
        super().__init__()
        self.images, self.headings, self.rows, self.open = [], [], 0, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open = tag
        if tag == "img":
            self.images.append(dict(attrs))
        self.rows += tag == "tr"

    def handle_data(self, data):
        if self.open in ("h1", "h2"):
            self.headings.append(data)
            self.open = None


@pytest.fixture
def finished(tiny_run, make_images, tmp_path, monkeypatch):
    """A small finished run with labels, and its images."""
    monkeypatch.setattr("diffae.evaluation.pages.report.STEPS", 10)
    monkeypatch.setattr("diffae.evaluation.pages.figures.STEPS", 2)
    AcceleratorState._reset_state(reset_partial_state=True)
    root = make_images(60, size=(16, 16))
    (root / "labels.csv").write_text("file,Bright\n" + "".join(f"{i:03d}.png,{i % 2}\n" for i in range(60)))
    sizes = {"image_size": (16, 16)}
    config = resolve(tiny_run(images=32, source=root, model=sizes), tmp_path / "run")
    data = prepare(config.data, size=(16, 16), channels=3)
    list(train(ImageSubject(config, data), tmp_path / "run"))
    return tmp_path / "run", data


def test_the_report_shows_everything_it_promises(finished):
    run, data = finished
    page_file = write_report(run, data, num=8)
    text = page_file.read_text()
    page = Page(text)
    assert len(page.images) == 6
    assert all(image["src"].startswith("data:image/png;base64,") and len(image["alt"]) > 40 for image in page.images)
    for heading in ("Two codes, one image", "With another image's z_sem", "One z_sem, many x_T", "From image to image"):
        assert heading in page.headings
    assert "Nearest neighbours in z_sem" in page.headings
    assert not re.search(r'(src|href)="(?!data:)', text), "the page must need nothing but itself"
    result = json.loads((run / "report.json").read_text())
    assert result["n"] == 8
    assert set(result["auroc"]) == {"z_sem", "16x16 pixels", "128 principal components of them"}
    assert all(0 <= p["Bright"] <= 1 for p in result["auroc"].values())
    mean_image = result["reconstruction"]["floor: mean training image"]
    assert mean_image["mse"] == pytest.approx(1 / 12, rel=0.5), "random pixels have the variance of a uniform number"
    names = {p.name for p in (run / "report").iterdir()}
    assert names == {f"{n}.png" for n in ("loss", "reconstructions", "swap", "variations", "interpolations", "neighbours")}
    assert machine() in text


def test_a_page_of_noise_says_that_training_was_too_short(finished):
    run, data = finished
    page = write_report(run, data, num=8)
    result = json.loads((run / "report.json").read_text())
    made = result["reconstruction"]
    random = next(name for name in made if name.startswith("z_sem and random x_T"))
    assert made[random]["mse"] > made["floor: mean training image"]["mse"], "32 images are too few"
    assert "trained too little to make images of noise:</b> after 32 images" in page.read_text()
    made[random]["mse"] = made["floor: mean training image"]["mse"] / 2
    assert _too_early(made, 32) == []


def test_the_floors_are_the_mean_and_the_nearest_training_image(finished):
    from diffae.evaluation.pages.report import _pixel_floors

    _, data = finished
    x = data.images(data.train[:5])
    average, nearest = _pixel_floors(data, x)
    assert torch.equal(nearest, x), "a training image is its own nearest"
    assert torch.allclose(average, data.images(data.train).mean(0), atol=1e-5)


def test_a_report_of_unlabelled_images_has_no_probe(finished, make_images):
    run, _ = finished
    bare = make_images(30, folder="bare")
    data = prepare(DataConfig(source=str(bare), validation=0.5), size=(16, 16), channels=3)
    write_report(run, data, num=8)
    assert json.loads((run / "report.json").read_text())["auroc"] == {}
    assert "What z_sem knows" not in (run / "report.html").read_text()


# What a prior and attributes add -------------------------------------------------------------------------------------


def test_a_report_with_prior_and_attributes_shows_samples_classes_and_edits(finished):
    from diffae.evaluation.pages import figures
    from diffae.semantics.fitting import fit_attributes
    from diffae.semantics.prior import GaussianPrior
    from diffae.semantics.standardizer import Standardizer

    run, data = finished
    ae = diffae.load(run)
    z = ae.encode(data.images(range(len(data.names))))
    labels = {"Bright": np.arange(len(z)) % 2.0, "Number": np.arange(len(z)) * 1.0}
    ae.standardizer = Standardizer.fit(z)
    ae.prior = GaussianPrior(ae.z_dim).fit(ae.standardizer(z))
    ae.attributes, _ = fit_attributes(z, labels, held_z_sem=z, held_labels=labels)
    found = figures.edit_figures(ae, data.images(range(3)))
    assert [f.name for f in found] == ["edits"]
    plain = sheet([data.images(range(6))] * 2, scale=scale_for(data.images([0]), 72))
    assert found[0].picture.height == plain.height, "a row for each attribute"
    assert found[0].picture.width > plain.width, "their names stand at the left"
    # Too few labels for a class: samples only. With enough, the classes too.
    train = figures.Encoded.of(ae, data, data.train, lambda *a: None)
    assert [f.name for f in figures.sample_figures(ae, data, train)] == ["samples"]
    many = dataclasses.replace(data, labels=labels, train=np.resize(data.train, 400))
    train = figures.Encoded.of(ae, many, many.train, lambda *a: None)
    assert [f.name for f in figures.sample_figures(ae, many, train)] == ["samples", "few-shot"]


def test_the_names_of_rows_stand_beside_them_and_move_nothing_else():
    rows = [[torch.ones(3, 8, 8)], [-torch.ones(3, 8, 8)]]
    plain, named = sheet(rows, scale=4), sheet(rows, scale=4, names=["one", "two"])
    margin = named.width - plain.width
    assert margin > 20
    assert np.array_equal(np.asarray(named)[:, margin:], np.asarray(plain))
    assert (np.asarray(named)[:, :margin] < 128).any(), "something is written there"
