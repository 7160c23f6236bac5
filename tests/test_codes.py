"""Codes as data: a file that other tools read, that survives interruptions, and that says whose codes it holds."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import diffae
from diffae.config import DataConfig
from diffae.data import codes as module
from diffae.data import prepare
from diffae.data.codes import identity_of, nearest_codes, read_codes, write_codes
from diffae.metrics.codes import compare_codes, prior_table
from diffae.metrics.statistics import Moments, frechet_distance


@pytest.fixture
def encoded(tiny, make_images, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART", 5)
    root = make_images(12)
    (root / "labels.csv").write_text("file,Round\n" + "".join(f"{i:03d}.png,{i % 2}\n" for i in range(11)))
    torch.manual_seed(0)
    ae = diffae.DiffusionAutoencoder(tiny).eval()
    data = prepare(DataConfig(source=str(root), validation=0.3), size=(8, 8), channels=3)
    return ae, data, tmp_path / "codes.parquet"


def test_codes_come_back_with_names_split_and_labels(encoded):
    ae, data, file = encoded
    write_codes(ae, data, file, identity="me", x_T_steps=2)
    found = read_codes(file)
    assert found.names == data.names
    assert torch.equal(found.z_sem, torch.cat([ae.encode(data.images(r)) for r in (range(5), range(5, 10), range(10, 12))]))
    assert np.array_equal(np.flatnonzero(found.held_out), data.validation)
    assert np.array_equal(found.labels["Round"], data.labels["Round"], equal_nan=True)
    table = pq.read_table(file)
    assert table.column_names == ["file", "split", "z_sem", "x_T", "Round"]
    assert table["x_T"].type.list_size == 3 * 8 * 8
    assert table["Round"].null_count == 1
    assert identity_of(file) == "me"
    assert not list(file.parent.glob(".codes*"))


def test_an_interrupted_file_goes_on_where_it_was(encoded, monkeypatch):
    ae, data, file = encoded
    seen = []
    original = diffae.DiffusionAutoencoder.encode

    def encode(self, x):
        seen.append(len(x))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return original(self, x)

    monkeypatch.setattr(diffae.DiffusionAutoencoder, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        write_codes(ae, data, file, identity="me")
    assert not file.exists()
    write_codes(ae, data, file, identity="me")
    assert seen == [5, 5, 2, 2], "two parts were whole"


def test_parts_of_another_encoder_are_not_taken_over(encoded, monkeypatch):
    ae, data, file = encoded
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", lambda *a, **k: None)
        write_codes(ae, data, file, identity="another")
    write_codes(ae, data, file, identity="me")
    assert identity_of(file) == "me"


def test_the_nearest_are_found_part_by_part(encoded):
    ae, data, file = encoded
    write_codes(ae, data, file, identity="me")
    z = read_codes(file).z_sem
    names, distances = nearest_codes(file, z[[4, 11]], num=3)
    assert [row[0] for row in names] == [data.names[4], data.names[11]]
    standard = ((z - z.mean(0)) / (z.std(0, correction=0) + 1e-8)).double()
    exact = torch.cdist(standard[[4, 11]], standard).topk(3, largest=False)
    assert torch.allclose(distances, exact.values, atol=1e-3)
    assert names == [[data.names[i] for i in row] for row in exact.indices.tolist()]


def test_other_files_are_refused(tmp_path):
    import pyarrow as pa

    with pytest.raises(FileNotFoundError, match="There is no file of codes .* Make one with `diffae encode"):
        read_codes(tmp_path / "missing.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ValueError, match="is damaged, or no Parquet file"):
        read_codes(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="holds no codes: it has no columns 'file' and 'z_sem'"):
        read_codes(tmp_path / "other.parquet")
    assert identity_of(tmp_path / "other.parquet") is None


def test_a_label_column_may_not_take_a_codes_name(encoded):
    ae, data, file = encoded
    data.labels["split"] = data.labels.pop("Round")
    with pytest.raises(ValueError, match="has a column 'split', which a file of codes needs for itself"):
        write_codes(ae, data, file, identity="me")


# Priors, compared in z_sem -------------------------------------------------------------------------------------------


def test_the_frechet_distance_of_gaussians_is_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4000, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    assert frechet_distance(Moments.of(a), Moments.of(a)) == pytest.approx(0, abs=1e-8)
    # Of N(0, I) and N(m, 4 I): |m|^2 + d (2 - 1)^2.
    assert frechet_distance(Moments.of(a), Moments.of(2 * b + 3)) == pytest.approx(27 + 3, rel=0.05)


def test_samples_of_the_right_distribution_win_every_comparison():
    generator = torch.Generator().manual_seed(0)

    def moons(n):
        side = torch.randint(0, 2, (n, 1), generator=generator) * 2 - 1
        return torch.cat([side * 1.0, side * 1.0, torch.zeros(n, 2)], 1) + 0.2 * torch.randn(n, 4, generator=generator)

    real, right = moons(400), moons(400)
    gaussian = real.mean(0) + torch.randn(400, 4, generator=generator) @ torch.linalg.cholesky(torch.cov(real.T)).T
    table = prior_table({"right": right, "gaussian": gaussian}, real)
    good, bad, floor = table["right"], table["gaussian"], table["real, another half"]
    assert good["precision"] > bad["precision"]
    assert abs(good["auroc"] - 0.5) < abs(bad["auroc"] - 0.5)
    assert abs(good["mmd"]) < abs(bad["mmd"])
    assert abs(good["auroc"] - floor["auroc"]) < 0.15
    assert abs(good["mmd"] - floor["mmd"]) < 0.02


def test_comparing_needs_enough_codes():
    with pytest.raises(ValueError, match="at least as many made ones, got 10 and 4"):
        compare_codes(torch.zeros(4, 2), torch.zeros(10, 2))
