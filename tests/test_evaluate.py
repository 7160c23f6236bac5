"""The tables and figures of the paper, measured: what is in the rows, what is kept, and what is refused."""

import copy
import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from diffae import cli
from diffae.autoencoder import build
from diffae.config import DataConfig, Protocol, to_dict
from diffae.config.protocols import PROTOCOLS
from diffae.data import prepare
from diffae.diffusion.interpolation import lerp
from diffae.diffusion.schedule import uniform_timesteps
from diffae.evaluation.evaluate import SUITES, evaluate
from diffae.evaluation.pages import figures
from diffae.evaluation.pages.figures import Figure
from diffae.evaluation.pages.page import figure_html, html, table_html, table_markdown
from diffae.evaluation.pages.tables import by_metric, by_model, number
from diffae.evaluation.paper import PUBLISHED
from diffae.evaluation.results import Result, Store
from diffae.evaluation.suites import (
    SuiteName,
    attributes,
    denoising,
    generation,
    interpolation,
    manipulation,
    reconstruction,
    variation,
)
from diffae.evaluation.suites import bench as bench_module
from diffae.evaluation.suites.bench import Bench, in_colour
from diffae.evaluation.suites.section import NotMeasurable, Section
from diffae.metrics.images import each_mse, each_ssim, mse
from diffae.runtime.files import write_text
from diffae.semantics.fitting import fit_attributes
from diffae.semantics.prior import GaussianPrior
from diffae.semantics.standardizer import Standardizer

pytestmark = pytest.mark.filterwarnings("ignore:x_T has a standard deviation")  # These networks were never trained.


class Means(nn.Module):
    """Stands in for Inception: features that are quick to compute."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


@pytest.fixture(scope="module")
def made(tiny, write_images, tmp_path_factory):
    """Images, and an autoencoder and a plain DDIM of them. Tests take copies (`bench`)."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFAE_CACHE", str(folder / "cache"))
        source = str(write_images(folder / "images", 320))
        data = prepare(DataConfig(source=source, validation=0.1), size=(8, 8), channels=3)
    red = data.images(range(320))[:, 0].mean((1, 2)).numpy()
    data = replace(data, labels={"Red": (red > np.median(red)).astype(float)})
    torch.manual_seed(0)
    ae, ddim = build(tiny).eval(), build(replace(tiny, z_dim=None)).eval()
    for p in [*ae.parameters(), *ddim.parameters()]:
        p.data += 0.05 * torch.randn(p.shape)  # Fresh networks end in zeros, and predict nothing.
    z = ae.encode(data.images(range(320)))
    ae.standardizer = Standardizer.fit(z)
    ae.prior = GaussianPrior(ae.z_dim).fit(ae.standardizer(z))
    train, held = data.train, data.validation
    ae.attributes, _ = fit_attributes(
        z[train], {"Red": data.labels["Red"][train]}, held_z_sem=z[held], held_labels={"Red": data.labels["Red"][held]}
    )
    return ae, ddim, data


@pytest.fixture
def bench(made, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_module, "load_network", lambda name, weights: (Means(), "means.pt"))
    for module in (figures, manipulation, variation):
        monkeypatch.setattr(module, "STEPS", 4)
    ae, ddim, data = made
    ae, data = copy.deepcopy(ae), replace(data, labels=dict(data.labels))
    store = Store(tmp_path / "out" / "measured", {"model": "m"})
    bench = Bench(ae, data, store, lambda *a: None, ddim=copy.deepcopy(ddim), batch_size=8)
    bench.priors = {"gaussian": (ae.prior, ae.standardizer)}
    bench.protocol = Protocol(num=12, num_inception=16, num_real=32, steps=(2, 4), generation_steps=(2, 4))
    return bench


def test_every_suite_ends_in_one_page_and_is_measured_once(bench, tmp_path, monkeypatch):
    bench.store.made = {"command": "diffae evaluate <run>", "commit": "1.0", "config": "c"}
    page = evaluate(bench, ["all"], tmp_path / "out").read_text()
    for words in ("tables 1 and 2", "figure 6", "table 4", "table 3", "What z_sem knows", "figure 3", "figure 4", "figure 5"):
        assert words in page
    assert "Left out" not in page
    assert "diffae evaluate &lt;run&gt;" in page
    assert "paper: NVAE" in page
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = [Result(**row) for row in found["results"]]
    assert {r.suite for r in rows} == {*SUITES} - {"interpolation"}, "images of 8 x 8 are too small for a path length"
    assert {(r.command, r.commit, r.config) for r in rows} == {("diffae evaluate <run>", "1.0", "c")}
    assert {(r.model, r.steps) for r in rows if r.suite == "reconstruction"} == {
        *((m, s) for m in ("diffae, inferred x_T", "diffae, random x_T", "ddim") for s in (2, 4)),
        *(("diffae, fast inversion, DPM-Solver++", s) for s in (10, 20)),
        ("diffae, anchored inversion, DPM-Solver++", 20),
        ("diffae, z_sem alone (mean)", None),
    }
    assert all(r.n in (12, 16, 32) and np.isfinite(r.value) for r in rows if r.suite not in ("attributes", "manipulation"))
    assert (tmp_path / "out" / "tables.md").read_text().count("\n## ") == len(SUITES)
    assert {p.stem for p in (tmp_path / "out" / "pictures").iterdir()} >= {"denoising", "generation", "ddim-interpolations"}

    monkeypatch.setattr(generation, "frechet_distance", None)
    monkeypatch.setattr(bench_module, "each_mse", None)
    again = evaluate(bench, ("reconstruction", "generation"), tmp_path / "out")
    kept = [Result(**row) for row in json.loads((again.parent / "results.json").read_text())["results"]]
    assert kept == [r for r in rows if r.suite in ("reconstruction", "generation")], "nothing was measured again"


def test_tables_do_not_depend_on_how_many_images_are_measured_at_a_time(bench, tmp_path):
    suites = ("reconstruction", "generation", "variation", "denoising", "manipulation", "attributes")
    tables = []
    for size in (8, 5):
        bench.batch_size, bench.store = size, Store(tmp_path / str(size), {"model": "m"})
        evaluate(bench, suites, tmp_path / f"page-{size}")
        tables.append([Result(**row) for row in json.loads((tmp_path / f"page-{size}/results.json").read_text())["results"]])
    assert {r.suite for r in tables[0]} == {*suites}
    for a, b in zip(*tables, strict=True):
        alike = {"spread": None, "seconds": 0.0, "each": None}
        assert replace(a, **alike) == replace(b, value=a.value, **alike)
        assert a.value == pytest.approx(b.value, rel=1e-3, abs=1e-4, nan_ok=True), a


def test_an_interrupted_evaluation_goes_on(bench, tmp_path, monkeypatch):
    inverted = []
    reconstruct = bench.ae.reconstruct

    def counted(x, *, inversion, steps):
        if inversion == "official":
            inverted.append(steps)
        if steps == 4 and len(inverted) < 5:
            raise KeyboardInterrupt
        return reconstruct(x, inversion=inversion, steps=steps)

    monkeypatch.setattr(bench.ae, "reconstruct", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(bench, ("reconstruction",), tmp_path / "out")
    assert inverted == [2, 2, 4]
    inverted.append(0)
    evaluate(bench, ("reconstruction",), tmp_path / "out")
    assert inverted == [2, 2, 4, 0, 4, 4], "what was measured with 2 steps was kept"


def test_a_row_is_the_mean_of_its_images(bench, tmp_path):
    evaluate(bench, ("reconstruction",), tmp_path / "out")
    x = bench.test(12)
    row = bench.distances(
        "reconstruction", "diffae, inferred x_T", x, lambda part: pytest.fail("made again"), on=["model"], steps=4
    )[0]
    assert row.metric == "mse"
    assert row.value == pytest.approx(np.mean(row.each), rel=1e-5)
    made = torch.cat([bench.ae.reconstruct(p, inversion="official", steps=4) for p in x.split(8)])
    assert row.value == pytest.approx(mse(made, x), rel=1e-4)
    torch.testing.assert_close(torch.tensor(row.each), each_mse(made, x).float(), rtol=1e-3, atol=1e-6)


def test_real_images_are_nearer_to_real_ones_than_noise_is(bench):
    real = bench.features(bench.data.images(bench.data.train[:16]))
    held = generation.compared(bench, "t", "held", lambda: real, lambda p: bench.test(16)[p.start : p.stop], num=16, on=[])
    white = generation.compared(bench, "t", "white", lambda: real, lambda p: torch.ones(len(p), 3, 8, 8), num=16, on=[])
    value = {(r.model, r.metric): r.value for r in [*held, *white]}
    assert value["held", "fid"] < value["white", "fid"]
    assert value["held", "kid"] < value["white", "kid"]
    assert value["white", "precision"] == 0


def test_draws_become_a_mean_and_a_spread():
    rows = [Result("fewshot", "binary", "fid", v, 16, 2, subject="Red", seconds=1.0, detail="i") for v in (1.0, 3.0)]
    (one,) = generation.over_draws(rows)
    assert (one.value, one.spread, one.seconds, one.detail) == (2, pytest.approx(2**0.5), 2, "2 draws; i")


def test_the_store_knows_what_results_depend_on(tmp_path):
    store, other = Store(tmp_path, {"model": "a"}), Store(tmp_path, {"model": "b"})
    rows = store.get({"n": 1}, lambda: [Result("s", "m", "mse", 1 / 3, 2, each=[0.1, 0.2])])
    assert rows[0].value == 0.333333
    assert store.get({"n": 1}, lambda: pytest.fail("measured again")) == rows
    assert other.get({"n": 1}, lambda: pytest.fail("measured again")) == rows, "these rows are of no model"
    of_a = store.get({"n": 1}, lambda: [Result("s", "m", "mse", 3.0, 2)], on=["model"])
    assert other.get({"n": 1}, lambda: [Result("s", "m", "mse", 2.0, 2)], on=["model"])[0].value == 2
    assert store.get({"n": 1}, lambda: pytest.fail("measured again"), on=["model"]) == of_a


def test_tables_put_the_papers_rows_below(bench, tmp_path):
    (table,) = generation.fewshot(bench).tables
    header, rows = table.header, table.rows
    assert header == ["", "images", "FID", "KID", "precision", "recall"]
    assert rows[0][0] == "binary, 50 + 50, Red, T = 2"
    assert "±" in rows[0][2]
    assert rows[-1][0].startswith("paper: D2C")


def test_what_cannot_be_evaluated_is_said(bench, tmp_path):
    with pytest.raises(ValueError, match=r"no suite table9. There are: all, reconstruction"):
        evaluate(bench, ("table9",), tmp_path)
    with pytest.raises(ValueError, match="1000 test images were asked for and 32 are held out"):
        bench.test(1000)
    with pytest.raises(ValueError, match="have 4 channels"):
        in_colour(torch.zeros(1, 4, 8, 8))
    bench.protocol = replace(bench.protocol, num_inception=300)
    with pytest.raises(ValueError, match="300 real images to compare with were asked for, and there are 288"):
        evaluate(bench, ("generation",), tmp_path)
    with pytest.raises(ValueError, match="No attribute is fitted that enough"):
        evaluate(bench, ("fewshot",), tmp_path)
    bench.data = replace(bench.data, labels={})
    with pytest.raises(ValueError, match="have no labels"):
        evaluate(bench, ("attributes",), tmp_path)
    bench.ae.attributes = None
    with pytest.raises(ValueError, match=r"nothing to edit. Fit some with `diffae fit-attributes RUN`"):
        evaluate(bench, ("manipulation",), tmp_path)
    bench.ae.prior = None
    with pytest.raises(ValueError, match=r"no latent prior to sample from. Fit one with `diffae train-prior RUN`"):
        evaluate(bench, ("fewshot",), tmp_path)


def test_of_all_suites_those_that_cannot_be_measured_are_left_out_with_the_reason(bench, tmp_path):
    few = {name: SUITES[name] for name in ("variation", "attributes", "manipulation")}
    bench.data = replace(bench.data, labels={})
    bench.ae.attributes = None
    page = evaluate(bench, ["all"], tmp_path / "out", suites=few).read_text()
    assert "Left out: These images have no labels" in page
    assert "Left out: No attribute is fitted" in page
    assert "same z_sem, other x_T" in page
    assert "did not count" not in page
    bench.data = replace(bench.data, known=np.full_like(bench.data.pixels[:, :1], 255))
    page = evaluate(bench, ["variation"], tmp_path / "masked").read_text()
    assert "some pixels of these images did not count (data.mask)" in page


def test_images_that_the_model_never_saw_are_all_tested(bench):
    assert len(bench.tested) == 32
    bench.protocol = replace(bench.protocol, unseen=True)
    assert sorted(bench.tested) == list(range(320))
    assert bench.tested[:32].tolist() == bench.data.validation.tolist(), "those that no classifier was fitted on come first"
    assert set(bench.some_tested(12)) < set(bench.data.validation), "nor are others tested before them"
    assert set(bench.some_tested(40)) > set(bench.data.validation)
    assert len(set(bench.some_tested(40))) == 40
    torch.testing.assert_close(bench.test(12), bench.data.images(bench.some_tested(12)))


def test_a_class_may_be_those_that_lack_an_attribute(bench):
    red = bench.data.labels["Red"][bench.data.train]
    assert bench.members("not Red").tolist() == (1 - red).tolist()
    bench.protocol = replace(bench.protocol, attributes=("Red", "not Red"))
    rows = [r for r in generation.fewshot(bench, draws=1).results if r.metric == "kid"]
    assert {r.subject for r in rows} == {"Red", "not Red"}
    naive = {r.subject: r.value for r in rows if r.model.startswith("naive")}
    assert naive["Red"] != naive["not Red"], "each is compared with its own images"
    with pytest.raises(ValueError, match=r"There is no label 'Blue'. There are: Red."):
        bench.members("not Blue")


def test_fewer_held_out_than_sampled_are_named(bench):
    bench.protocol = replace(bench.protocol, num_inception=40, generation_steps=(2,))
    section = generation.generation(bench)
    n = {r.model: r.n for r in section.results}
    assert (n["real, held out"], n["diffae, + autoencoding"], n["diffae, prior gaussian"], n["ddim"]) == (32, 32, 40, 40)
    assert "Only 32 images are held out" in section.text


def test_a_protocol_says_what_the_options_do_not(tiny_run, make_images, tmp_path, monkeypatch, capsys):
    source = make_images(40)
    config = tiny_run(images=16, source=source)
    build(config.model).save_pretrained(tmp_path / "run" / "model")
    write_text(tmp_path / "run" / "config.json", json.dumps(to_dict(config)))
    given = []
    monkeypatch.setattr("diffae.evaluation.evaluate.evaluate", lambda bench, suites, out: given.append((bench, suites)) or out)
    command = ["evaluate", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    cli.main([*command, "--num", "7"])
    others = ["--data", str(make_images(40, folder="others"))]
    cli.main([*command, "--protocol", "celebahq128", "--num", "9", "--suite", "denoising", *others])
    (small, all_suites), (paper, one) = given
    assert (small.protocol, all_suites) == (Protocol(num=7), ("all",))
    assert (paper.protocol.num, paper.protocol.unseen, one) == (9, True, ("denoising",))
    assert len(paper.data.validation) > len(small.data.validation) > 0, "three tenths are held out there"
    cli.main([*command, "--num", "7", "--unseen", "True", *others])
    assert len({bench.store.depends["images"] for bench, _ in given}) == 3, "other images are tested, so they are measured anew"
    with pytest.raises(SystemExit):
        cli.main([*command, "--protocol", "celeba65"])
    for words in (["--unseen", "True", "--data", str(source)], ["--protocol", "celebahq128"]):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            cli.main([*command, *words])
        assert f"was trained on these images, and {'--unseen True' if len(words) > 2 else 'protocol celebahq128'} says" in " ".join(
            capsys.readouterr().err.split()
        )
    assert len(given) == 3


def test_suites_are_those_that_the_command_line_names():
    assert get_args(SuiteName) == ("all", *SUITES)


def test_a_measure_of_ones_own_stands_beside_the_others(bench, tmp_path):
    def mae(made, real):
        return (made - real).abs().flatten(1).mean(1)

    def distances():
        return bench.distances("t", "half", x, lambda part: x[part.start : part.stop] / 2, on=[])

    x = bench.test(12)
    before = distances()
    bench.measures = {"mae": mae}
    rows = {r.metric: r for r in distances()}
    assert [*rows] == ["mse", "psnr", "ssim", "mae"]
    assert rows["mae"].each == pytest.approx((x / 2).abs().flatten(1).mean(1).tolist(), rel=1e-4)
    assert rows["mse"] == replace(before[0], seconds=rows["mse"].seconds), "what others measured stays as it was"
    evaluate(bench, ["reconstruction"], tmp_path / "out")
    assert "| mae |" in (tmp_path / "out" / "tables.md").read_text()
    bench.measures = {"ssim": mae}
    with pytest.raises(ValueError, match="There is a measure ssim already: give yours another name"):
        distances()


def test_a_suite_of_ones_own_stands_beside_the_others(bench, tmp_path):
    def brightness(bench):
        def measure():
            bright = bench.test(12).flatten(1).mean(1)
            return [Result("brightness", "images", "mean", float(bright.mean()), 12, each=bright.tolist())]

        rows = bench.store.get({"suite": "brightness"}, measure)
        return Section("brightness", "How bright images are", "Means of pixels.", rows, [by_metric(rows)])

    suites = {**SUITES, "brightness": brightness}
    page = evaluate(bench, ["brightness", "denoising"], tmp_path / "out", suites=suites).read_text()
    assert page.index("How bright images are") < page.index("figure 6")
    (row,) = [r for r in json.loads((tmp_path / "out" / "results.json").read_text())["results"] if r["suite"] == "brightness"]
    assert row["value"] == pytest.approx(float(bench.test(12).mean()), rel=1e-4)
    with pytest.raises(ValueError, match=r"There is no suite dark. There are: all, reconstruction, .*, brightness\."):
        evaluate(bench, ["dark"], tmp_path / "out", suites=suites)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_name_suites_that_there_are(name):
    protocol = PROTOCOLS[name]
    assert set(protocol.suite) <= {"all", *SUITES}
    assert all(uniform_timesteps(1000, steps) for steps in (*protocol.steps, *protocol.generation_steps))


def test_models_stand_in_columns_with_the_paper_below():
    rows = [
        Result("attributes", m, "auroc", v, 9, subject=s) for m, v in (("z_sem", 0.9), ("vae", 0.8)) for s in ("Big_Nose", "mean")
    ]
    table = by_model([*rows, Result("attributes", "vae", "ap", 0.1, 9, subject="mean")], "auroc", "AUROC")
    assert table.header == ["", "z_sem", "vae"]
    assert table.rows[0] == ["Big Nose", "0.9000", "0.8000"]
    assert table.rows[2][0].startswith("paper: z_sem (CelebA-HQ")
    assert table.rows[2][1] == "0.9250"
    assert len(table.rows[2]) == 3


def test_classifiers_are_taken_elsewhere_as_they_are(bench, make_images, tmp_path):
    other = prepare(DataConfig(source=str(make_images(40, folder="others")), validation=0.1), size=(8, 8), channels=3)
    red = other.images(range(40))[:, 0].mean((1, 2)).numpy()
    bench.transfer_data = replace(other, labels={"Red": (red > np.median(red)).astype(float), "More": red}, key="others")
    section = attributes.attributes(bench)
    value = {(r.model, r.suite, r.subject): r for r in section.results if r.metric == "auroc"}
    pixels = value["16x16 pixels", "attributes elsewhere", "Red"]
    assert pixels.value > 0.9
    assert pixels.n == 40, "all of them: nothing was fitted there"
    assert ("16x16 pixels", "attributes elsewhere", "More") not in value
    assert [t.title.split(" on ")[0] for t in section.tables] == ["AUROC", "Average precision", "AUROC"]
    bench.transfer_data = replace(bench.transfer_data, labels={"Blue": red})
    with pytest.raises(ValueError, match=r"no label of the same name: Blue there, and here Red"):
        attributes.attributes(bench)


def test_each_image_keeps_its_noise_while_z_sem_changes(bench, monkeypatch):
    monkeypatch.setattr(variation, "STEPS", 20)  # Rounding of other batches grows in few, long steps.
    z = bench.ae.encode(bench.test(4))
    one, two = (variation.decoded(bench.ae, z, 0, 0, part) for part in (range(4), range(2, 4)))
    torch.testing.assert_close(one[2:], two)
    assert not torch.equal(one, variation.decoded(bench.ae, z, 0, 1, range(4)))
    rows = {(r.model, r.metric): r.value for r in variation.variation(bench).results}
    assert rows["both others", "mse"] > 0


def test_what_is_drawn_anew_is_what_the_rows_say(bench, monkeypatch):
    def of_noise_alone(ae, z_sem, seed, draw, part):
        return torch.full((len(part), *ae.image_shape), 0.1 * draw)

    monkeypatch.setattr(variation, "decoded", of_noise_alone)
    rows = {(r.model, r.metric): r.value for r in variation.variation(bench).results}
    assert rows["other z_sem, same x_T", "mse"] == 0
    assert min(rows["same z_sem, other x_T", "mse"], rows["both others", "mse"]) > 0


def test_an_even_way_has_the_length_of_its_speed():
    a, b = torch.zeros(3, 3, 4, 4), torch.ones(3, 3, 4, 4)
    weight = torch.tensor([0.1, 0.5, 0.9])

    def squared(x, y):
        return (x - y).square().flatten(1).mean(1)

    straight = interpolation.path_length(lambda w: lerp(a, b, w), weight, squared)
    torch.testing.assert_close(straight, torch.ones(3), rtol=1e-3, atol=0)
    curved = interpolation.path_length(lambda w: lerp(a, b, w**2), weight, squared)
    torch.testing.assert_close(curved, (2 * weight + interpolation.EPSILON) ** 2, rtol=1e-3, atol=0)


def test_pairs_that_share_a_person_at_either_end_are_not_strangers():
    assert interpolation.tied(None, 2) is None
    # Pairs of 0-1, 2-3, 3-4 and 5-5: the second and the third share person 3.
    first, second, third, fourth = interpolation.tied([0, 2, 3, 5, 1, 3, 4, 5], 4)
    assert second == third
    assert len({first, second, fourth}) == 3


def test_a_way_needs_two_images(bench):
    bench.protocol = replace(bench.protocol, num=1)
    with pytest.raises(NotMeasurable, match="fewer than two were asked for"):
        interpolation.interpolation(bench)


def test_what_is_told_by_chance_alone_is_not_edited(bench):
    bench.ae.attributes.calibration[0] = torch.tensor([1e-3, 0.0])
    section = manipulation.manipulation(bench)
    assert {r.model for r in section.results} == {"pixels", "another image", *(f"sdedit, {f}" for f in (0.3, 0.5, 0.7))}
    assert "z_sem tells no more than chance does of Red, so no move of it reaches 0.9: left out." in section.text
    assert "sdedit" not in {figure.name for figure in section.figures}


def test_partly_labelled_images_teach_the_judge(bench):
    """No image has both labels."""
    y = bench.data.labels["Red"]
    first = np.arange(len(y)) % 2 == 0
    labels = {"A": np.where(first, y, np.nan), "B": np.where(first, np.nan, y)}
    bench.data = replace(bench.data, labels=labels)
    judge = manipulation._judge(bench)
    assert judge.names == ["A", "B"]
    assert all(p.isfinite().all() for p in judge.parameters())


def test_ways_begin_and_end_at_what_interpolate_makes(bench):
    x_a, x_b = bench.test(4).split(2)
    for model in (bench.ae, bench.ddim):
        frame = interpolation.frames_between(model, x_a, x_b, steps=4)
        how = {"solver": "ddim"} if model is bench.ddim else {"inversion": "official"}
        made = model.interpolate(x_a, x_b, [0.0, 0.25, 1.0], steps=4, **how)
        for i, w in enumerate((0.0, 0.25, 1.0)):
            torch.testing.assert_close(frame(torch.full((2,), w)), made[:, i], rtol=1e-3, atol=1e-3)


def test_edits_are_judged_on_images_that_lack_the_attribute(bench):
    told = []
    bench.progress = lambda what, done, total: told.append(what)
    section = manipulation.manipulation(bench)
    rows = {(r.model, r.metric): r for r in section.results}
    ways = {"diffae", "pixels", "sdedit, 0.3", "sdedit, 0.5", "sdedit, 0.7", "another image"}
    assert {model for model, _ in rows} == ways
    assert {metric for _, metric in rows} == {"flipped"}, "the person is asked of faces only"
    held = bench.data.labels["Red"][bench.data.validation]
    assert {r.n for r in rows.values()} == {min(int((held == 0).sum()), bench.protocol.num)}
    assert all(0 <= r.value <= 1 for r in rows.values())
    assert "Training the judge" in told
    told.clear()
    manipulation.manipulation(bench)
    assert "Training the judge" not in told, "a judge is trained only where something is to be judged"
    for attributes_named, said in ((("not Red",), "only absences are named"), (("Blue",), "There is no label 'Blue'")):
        bench.protocol = replace(bench.protocol, attributes=attributes_named)
        with pytest.raises(ValueError, match=said):
            manipulation.manipulation(bench)


def test_a_face_network_says_how_much_of_a_person_is_kept(bench):
    bench.protocol = replace(bench.protocol, faces=True)
    section = manipulation.manipulation(bench)
    rows = {r.model: r for r in section.results if r.metric == "identity"}
    assert rows["diffae"].detail == "face: means.pt"
    held = bench.data.validation
    lacking = held[bench.data.labels["Red"][held] == 0][: rows["another image"].n]
    described = Means()(bench.data.images(lacking))
    expected = torch.nn.functional.cosine_similarity(described.roll(1, 0), described).mean()
    assert rows["another image"].value == pytest.approx(float(expected), abs=1e-5)
    assert "face descriptors" in section.text


def test_a_few_positives_are_too_few_to_compare_with(bench):
    rare = np.zeros(320)
    rare[bench.data.train[:5]] = 1
    bench.data = replace(bench.data, labels={"Rare": rare})
    bench.protocol = replace(bench.protocol, attributes=("Rare",))
    with pytest.raises(ValueError, match="Only 5 training images show Rare"):
        generation.fewshot(bench)


def test_each_images_ssim_averages_to_that_of_all():
    x, y = torch.rand(3, 3, 16, 16) * 2 - 1, torch.rand(3, 3, 16, 16) * 2 - 1
    each = each_ssim(x, y)
    assert each.shape == (3,)
    assert each_ssim(x, x).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert each[1] == pytest.approx(float(each_ssim(x[1:2], y[1:2])), abs=1e-6)


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0"), (6.07e-5, "6.07e-05"), (0.0123456, "0.0123"), (12.346, "12.35"), (float("inf"), "inf")]
)
def test_numbers_are_short(value, shown):
    assert number(value) == shown


def test_tables_are_the_same_in_markdown_and_html():
    header, rows = ["", "MSE"], [["a < b", "0.5"]]
    assert table_markdown(header, rows) == "|  | MSE |\n| --- | --: |\n| a < b | 0.5 |\n"
    assert "<td>a &lt; b</td><td>0.5</td>" in table_html(header, rows)


def test_a_page_needs_nothing_but_itself():
    figure = Figure("one", "A <title>", "Words.", Image.new("RGB", (4, 4)))
    page = html("t & t", [figure_html(figure)])
    assert "<title>t &amp; t</title>" in page
    assert "A &lt;title&gt;" in page
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page
    assert "<script" not in page


def test_the_papers_numbers_are_the_papers():
    value = {(p.suite, p.model, p.metric, p.steps): p.value for p in PUBLISHED}
    assert value["reconstruction", "diffae, inferred x_T", "mse", 100] == 6.07e-5
    assert value["reconstruction", "ddim", "lpips", 10] == 0.227
    assert value["generation", "diffae, prior ddim", "fid", 100] == 10.55
    assert value["fewshot", "naive: all real images (Non-Blond)", "fid", None] == 1.12
    assert len(value) == len(PUBLISHED), "no row twice"


def test_predicted_images_get_worse_with_noise(bench):
    section = denoising.denoising(bench)
    mses = [r.value for r in section.results if r.metric == "mse" and r.model.startswith("ddim")]
    assert len(mses) == len(denoising.FRACTIONS)
    assert mses[-1] > mses[0]
    assert [f.name for f in section.figures] == ["denoising", "denoising-plot"]


def test_attribute_scores_are_of_held_out_images(bench):
    section = attributes.attributes(bench)
    value = {(r.model, r.metric, r.subject): r.value for r in section.results}
    assert 0 <= value["z_sem", "auroc", "Red"] <= 1
    assert value["16x16 pixels", "auroc", "Red"] > 0.9, "pixels know how red an image is"
    assert value["z_sem", "ap", "mean"] == value["z_sem", "ap", "Red"] == value["z_sem", "ap", "weighted by positives"]
    assert {r.n for r in section.results} == {32}


def test_means_over_attributes_are_weighted_by_positives(bench):
    red, rng = bench.data.labels["Red"], np.random.default_rng(0)
    bench.data = replace(bench.data, labels={"Red": red, "Rare": (rng.random(len(red)) < 0.2).astype(float)})
    value = {(r.model, r.metric, r.subject): r.value for r in attributes.attributes(bench).results}
    held = {name: values[bench.data.validation] for name, values in bench.data.labels.items()}
    assert held["Rare"].sum() not in (0, held["Red"].sum(), len(held["Red"]) / 2)
    for metric in ("auroc", "ap"):
        both = [value["z_sem", metric, name] for name in ("Red", "Rare")]
        assert value["z_sem", metric, "mean"] == pytest.approx(np.mean(both))
        weights = [held["Red"].sum(), held["Rare"].sum()]
        assert value["z_sem", metric, "weighted by positives"] == pytest.approx(np.average(both, weights=weights))


@pytest.mark.parametrize("damage", ["", "{", '{"results": [{"other": 1}]}', "[]"])
def test_a_damaged_result_is_measured_anew(tmp_path, damage):
    store = Store(tmp_path, {})
    store.get({"n": 1}, lambda: [Result("s", "m", "mse", 1.0, 2)])
    (file,) = tmp_path.iterdir()
    file.write_text(damage)
    assert store.get({"n": 1}, lambda: [Result("s", "m", "mse", 3.0, 2)])[0].value == 3
    assert store.get({"n": 1}, lambda: pytest.fail("measured again"))[0].value == 3


def test_grey_images_are_measured_as_three_equal_channels(tiny, make_images, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_module, "load_network", lambda name, weights: (Means(), "means.pt"))
    data = prepare(DataConfig(source=str(make_images(8)), validation=0.5), size=(8, 8), channels=1)
    bench = Bench(build(replace(tiny, channels=1)), data, Store(tmp_path / "m", {}), lambda *a: None)
    features = bench.features(data.images(range(4)))
    assert features.shape == (4, 12)
    torch.testing.assert_close(features[:, :4], features[:, 4:8])
    assert in_colour(torch.zeros(1, 1, 8, 8)).shape == (1, 3, 8, 8)


def test_features_are_those_of_images_as_files_hold_them(bench):
    x = bench.test(2)
    torch.testing.assert_close(bench.features(x + 0.3 / 127.5), bench.features(x))
    torch.testing.assert_close(bench.features(x * 5), bench.features((x * 5).clamp(-1, 1)))


def test_lpips_is_measured_where_images_are_large_enough(tiny, make_images, tmp_path, monkeypatch):
    class Distance(nn.Module):
        def forward(self, x_hat, x):
            return (x_hat - x).abs().flatten(1).mean(1)

    monkeypatch.setattr(bench_module, "load_network", lambda name, weights: (Distance(), f"{name}.pth"))
    data = prepare(DataConfig(source=str(make_images(24, size=(32, 32))), validation=0.5), size=(32, 32), channels=3)
    torch.manual_seed(0)
    ae = build(replace(tiny, image_size=(32, 32))).eval()
    bench = Bench(ae, data, Store(tmp_path / "m", {}), lambda *a: None, batch_size=2)
    x = bench.test(3)
    rows = {r.metric: r for r in bench.distances("t", "grey", x, lambda part: torch.zeros(len(part), 3, 32, 32), on=[])}
    assert set(rows) == {"mse", "psnr", "ssim", "lpips"}
    assert rows["lpips"].detail == "alexnet: alexnet.pth"
    assert rows["lpips"].value == pytest.approx(float(x.abs().mean()), rel=1e-4)
    assert rows["mse"].value == pytest.approx(float(x.square().mean() / 4), rel=1e-4)


def test_progress_names_what_is_measured(bench):
    told = []
    bench.progress = lambda what, done, total: told.append((what, done, total))
    bench.distances(
        "reconstruction", "half", bench.test(12), lambda part: bench.test(12)[part.start : part.stop] / 2, on=[], steps=7
    )
    assert told == [("reconstruction: half, T = 7", 0, 12), ("reconstruction: half, T = 7", 8, 12)]


def test_samples_do_not_depend_on_the_other_suites(bench, tmp_path):
    evaluate(bench, ("generation",), tmp_path / "a")
    first = json.loads((tmp_path / "a" / "results.json").read_text())["results"]
    bench.store = Store(tmp_path / "fresh", {})
    evaluate(bench, ("reconstruction", "generation"), tmp_path / "b")
    second = [r for r in json.loads((tmp_path / "b" / "results.json").read_text())["results"] if r["suite"] == "generation"]
    assert [(r["model"], r["value"]) for r in first] == [(r["model"], r["value"]) for r in second]


class Halves:
    """The simplest autoencoder that can stand in a table: it keeps every other row."""

    title = "halves, 96 values"

    def encode(self, x):
        return x[:, :, ::2].flatten(1)

    def decode(self, z):
        return z.unflatten(1, (3, 4, 8)).repeat_interleave(2, dim=2)


def test_anything_that_encodes_and_decodes_can_stand_beside(bench, tmp_path):
    bench.comparators = [Halves()]
    evaluate(bench, ("reconstruction", "attributes"), tmp_path / "out")
    rows = [Result(**row) for row in json.loads((tmp_path / "out" / "results.json").read_text())["results"]]
    value = {(r.model, r.metric, r.subject): r.value for r in rows}
    x = bench.test(12)
    assert value["halves, 96 values", "mse", None] == pytest.approx(mse(x[:, :, ::2].repeat_interleave(2, dim=2), x), rel=1e-4)
    assert 0 <= value["halves, 96 values", "auroc", "Red"] <= 1
    bench.comparators = []
    evaluate(bench, ("attributes",), tmp_path / "alone")
    assert "halves" not in (tmp_path / "alone" / "tables.md").read_text(), "what is kept knows who stood beside"


def test_the_best_known_frequent_attributes_are_sampled(bench, monkeypatch):
    labels = bench.data.labels["Red"]
    bench.data = replace(bench.data, labels={"Red": labels, "Other": labels})
    assert bench.classes() == ["Red"], "only what is fitted"
    scores = bench.ae.attributes.scores
    for best, other in (("Red", "Other"), ("Other", "Red")):
        known = {"Red": replace(scores["Red"], auroc=0.7 + 0.2 * (best == "Red")), "Other": replace(scores["Red"], auroc=0.8)}
        monkeypatch.setattr(bench.ae.attributes, "scores", known)
        assert bench.classes() == [best, other]
    monkeypatch.setattr(bench.ae.attributes, "scores", scores)
    bench.protocol = replace(bench.protocol, num_inception=200)
    with pytest.raises(ValueError, match="No attribute is fitted that enough training images show"):
        bench.classes()


def test_pictures_are_written_as_files_too(bench, tmp_path):
    page = evaluate(bench, ("interpolation", "variation", "manipulation"), tmp_path / "out").read_text()
    names = {"variations", "one-noise", "swap", "interpolations", "ddim-interpolations", "edits", "sdedit"}
    assert {p.stem for p in (tmp_path / "out" / "pictures").iterdir()} == names
    assert page.count("<img") == len(names)
    for name in names:
        with Image.open(tmp_path / "out" / "pictures" / f"{name}.png") as picture:
            assert min(picture.size) > 16
    bench.ddim = None
    evaluate(bench, ("interpolation", "variation", "manipulation"), tmp_path / "alone")
    assert {p.stem for p in (tmp_path / "alone" / "pictures").iterdir()} == names - {"ddim-interpolations"}


def test_inferred_noise_comes_nearer_than_fresh_noise(bench, tmp_path):
    """Also with networks that were never trained: what is inferred is of the image."""
    section = reconstruction.reconstruction(bench)
    value = {(r.model, r.steps): r.value for r in section.results if r.metric == "mse"}
    assert value["diffae, inferred x_T", 4] < value["diffae, random x_T", 4]
    assert value["ddim", 4] < value["diffae, random x_T", 4]


def test_samples_of_a_prior_are_in_the_space_that_it_was_fitted_in(bench):
    mean, scale = torch.full((bench.ae.z_dim,), 100.0), torch.ones(bench.ae.z_dim)
    other = Standardizer.fit(mean + torch.randn(64, bench.ae.z_dim))
    bench.priors["elsewhere"] = (GaussianPrior(bench.ae.z_dim).fit(torch.randn(64, bench.ae.z_dim)), other)
    decoded = []
    bench.ae.decode = lambda z_sem, **_: decoded.append(z_sem) or torch.zeros(len(z_sem), 3, 8, 8)
    generation._sampled(bench, "elsewhere", 2, None, range(8))
    assert float((decoded[0] - mean).abs().mean()) < 3 * float(scale.mean())


def test_attributes_are_told_where_those_elsewhere_cannot_be(bench, tmp_path):
    alike = {"Red": np.ones(len(bench.data.names))}
    bench.transfer_data = replace(bench.data, labels=alike)
    page = evaluate(bench, ("attributes",), tmp_path / "out").read_text()
    rows = [Result(**row) for row in json.loads((tmp_path / "out/results.json").read_text())["results"]]
    assert {r.suite for r in rows} >= {"attributes"}
    assert "No attribute has both values among the training images and in" in page


def test_one_image_has_no_spread_and_groups_go_with_the_values(bench, tmp_path):
    bench.data = replace(bench.data, groups=np.array([f"p{i // 4}" for i in range(len(bench.data.names))]))
    bench.protocol = replace(bench.protocol, num=1, steps=(2,))
    evaluate(bench, ("reconstruction",), tmp_path / "out")
    text = (tmp_path / "out/results.json").read_text()
    assert "NaN" not in text
    rows = json.loads(text)["results"]
    assert {(row["spread"], tuple(row["groups"])) for row in rows} == {(None, (0,))}
