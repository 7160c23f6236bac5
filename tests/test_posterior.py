"""A posterior's intervals hold what they promise, follow how sure one can be, and what cannot be fitted is said."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from runs import run

from diffae.cli import main
from diffae.evaluation.posterior import predict_measurement, write_posterior
from diffae.semantics.posterior import Mixture, Posterior


def measured(n, seed, d=8):
    """Codes, what was measured of each, and how uncertain that is."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, d))
    std = np.exp(0.8 * z[:, 1])
    return torch.from_numpy(z).float(), 100 + 5 * (3 * z[:, 0] + std * rng.normal(size=n)), 5 * std


@pytest.fixture(scope="module")
def fitted():
    z, y, _ = measured(600, 0)
    return Posterior(z, y)


def test_intervals_hold_what_they_promise(fitted):
    z, y, std = measured(2000, 1)
    for share in (0.5, 0.9):
        low, high = fitted.interval(z, share).numpy().T
        assert abs(((low <= y) & (y <= high)).mean() - share) < 0.05
    assert np.corrcoef(np.log(high - low), np.log(std))[0, 1] > 0.7
    best = 1 - (std**2).mean() / y.var()
    assert 1 - np.square(fitted.mean(z).numpy() - y).mean() / y.var() > best - 0.05


def test_intervals_of_few_images_are_wide_enough():
    covered = []
    for seed in range(4):
        z, y, _ = measured(40, 10 + seed, d=3)
        others, truth, _ = measured(500, 50 + seed, d=3)
        low, high = Posterior(z, y).interval(others).numpy().T
        covered.append(((low <= truth) & (truth <= high)).mean())
    assert np.mean(covered) > 0.84, covered


def test_images_of_one_person_do_not_vouch_for_each_other():
    """Ten images a person, who is known at sight, and a number of each person that nothing tells."""
    rng = np.random.default_rng(3)

    def of_people(num):
        person = np.repeat(np.arange(num), 10)
        z = rng.normal(size=(num, 8))[person] + 0.1 * rng.normal(size=(10 * num, 8))
        return torch.from_numpy(z).float(), rng.normal(size=num)[person] + 0.1 * rng.normal(size=10 * num), person

    def covered(posterior):
        low, high = posterior.interval(z_new).numpy().T
        return ((low <= y_new) & (y_new <= high)).mean()

    z, y, person = of_people(40)
    z_new, y_new, _ = of_people(200)
    assert covered(Posterior(z, y)) < 0.7
    assert covered(Posterior(z, y, groups=person.astype(str))) > 0.83
    with pytest.raises(ValueError, match="from 5 groups at least; those that are measured are of 4"):
        Posterior(z, y, groups=(person % 4).astype(str))


def test_codes_of_any_kind_are_taken(fitted):
    z, y, _ = measured(20, 4)
    torch.testing.assert_close(fitted.mean(z.double()), fitted.mean(z))
    torch.testing.assert_close(fitted.mean(z.bfloat16()), fitted.mean(z.bfloat16().float()))
    with pytest.raises(ValueError, match="'mass' are infinite"):
        predict_measurement(fitted, "mass", z, np.full(20, np.inf))
    one = predict_measurement(fitted, "mass", z, np.where(np.arange(20) == 3, y, np.nan))
    assert one.covered[0.9] in (0, 1)


def test_two_numbers_that_are_as_likely_are_both_said():
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(400, 3))).float()
    y = rng.choice([-1.0, 1.0], size=400) + 0.05 * rng.normal(size=400)
    mixture = Posterior(z, y).mixture(z[:1])
    scale = y.std()
    between, around = mixture.cdf(torch.tensor([[-0.4, 0.4], [-1.3, -0.7]]).double().flatten()[None] / scale)[0].view(2, 2)
    assert float(between[1] - between[0]) < 0.1
    assert 0.4 < float(around[1] - around[0]) < 0.6


def test_quantiles_are_where_the_mixture_says(fitted):
    mixture = Mixture(*(torch.tensor([part], dtype=torch.float64) for part in ([0.3, 0.7], [-2.0, 1.0], [0.1, 2.0])))
    levels = torch.tensor([0.01, 0.3, 0.5, 0.99]).double()
    torch.testing.assert_close(mixture.cdf(mixture.quantile(levels))[0], levels, rtol=0, atol=1e-9)
    z, _, _ = measured(10, 2)
    ends = fitted.quantile(z, torch.tensor([0.1, 0.5, 0.9]))
    assert (ends.diff(dim=1) > 0).all()


def test_the_same_seed_gives_the_same_posterior_and_leaves_torch_alone():
    z, y, _ = measured(60, 0, d=3)
    first = Posterior(z, y)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = Posterior(z, y)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(again.interval(z[:5]), first.interval(z[:5]))
    assert not torch.equal(Posterior(z, y, seed=1).interval(z[:5]), first.interval(z[:5]))


def test_what_cannot_be_fitted_is_said(fitted):
    z, y, _ = measured(60, 0)
    unknown = y.copy()
    unknown[5:] = np.nan
    with pytest.raises(ValueError, match="at least 30 measured images, got 5"):
        Posterior(z, unknown)
    with pytest.raises(ValueError, match="All 60 measurements are 3"):
        Posterior(z, np.full(60, 3.0))
    with pytest.raises(ValueError, match="infinite"):
        Posterior(z, np.where(y > y.mean(), np.inf, y))
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        fitted.quantile(z, torch.tensor([1.0]))


def test_a_page_says_what_was_measured(fitted, tmp_path):
    z, y, _ = measured(100, 3)
    y[:40] = np.nan
    told = predict_measurement(fitted, "mass <kg>", z, y)
    assert told.r2 > 0.3
    nothing = predict_measurement(fitted, "unmeasured", z, np.full(100, np.nan))
    assert nothing.r2 is None
    assert nothing.covered == {}
    page = write_posterior([told, nothing], [f"{i}.png" for i in range(100)], tmp_path, about={"n": 100, "images": "made up"})
    assert "mass &lt;kg&gt;" in page.read_text()
    assert json.loads((tmp_path / "posterior.json").read_text())["measured"]["mass <kg>"]["n"] == 60
    rows = list(csv.DictReader((tmp_path / "images.csv").read_text().splitlines()))
    assert len(rows) == 100
    assert rows[0]["mass <kg>"] == ""
    assert float(rows[50]["mass <kg>"]) == pytest.approx(y[50], rel=1e-5)
    assert all(float(row["mass <kg> low"]) < float(row["mass <kg> expected"]) < float(row["mass <kg> high"]) for row in rows)
    assert (tmp_path / "1-mass--kg--said.png").is_file()


def test_the_command_tells_of_what_a_run_held_out(tmp_path, tiny_run, capsys):
    source = tmp_path / "images"
    source.mkdir()
    generator = np.random.default_rng(0)
    rows = ["file,level,bright"]
    for i in range(120):
        level = generator.uniform(5, 255)
        Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(source / f"{i:03d}.png")
        rows.append(f"{i:03d}.png,{level},{int(level > 128)}")
    (source / "labels.csv").write_text("\n".join(rows))
    seldom = {"validate_every": 10**6, "sample_every": 10**6, "checkpoint_every": 10**6}
    run(tiny_run(source=source, images=100, **seldom), tmp_path / "run")
    out = tmp_path / "posterior"
    main(["posterior", str(tmp_path / "run"), "--out", str(out)])
    assert "level: R²" in capsys.readouterr().err
    told = json.loads((out / "posterior.json").read_text())
    assert list(told["measured"]) == ["level"]
    main(["posterior", str(tmp_path / "run"), "--log", "level", "--out", str(out)])
    assert list(json.loads((out / "posterior.json").read_text())["measured"]) == ["log10 level"]
    new = tmp_path / "new"
    new.mkdir()
    Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).save(new / "a.png")
    kinds = ["--labels-kind", "level=continuous"]
    main(["posterior", str(tmp_path / "run"), "--data", str(new), "--column", "level", *kinds, "--out", str(out)])
    (row,) = csv.DictReader((out / "images.csv").read_text().splitlines())
    assert row["level"] == ""
    assert float(row["level low"]) < float(row["level expected"]) < float(row["level high"])
    for arguments, said in ((["--column", "mass"], "no column 'mass'"), (["--log", "bright"], "not above 0")):
        with pytest.raises(SystemExit):
            main(["posterior", str(tmp_path / "run"), *arguments, "--out", str(out)])
        assert said in capsys.readouterr().err
