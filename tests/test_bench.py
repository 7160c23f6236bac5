"""What `diffae bench` measures: that it is of what it says, not how fast this machine is."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator

from diffae import cli
from diffae.autoencoder import build
from diffae.data import prepare
from diffae.data.codes import write_codes
from diffae.data.sources import open_source
from diffae.training import throughput
from diffae.training.throughput import input_rates, network_rates

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(throughput, "READ_SECONDS", 0.05)
    monkeypatch.setattr(throughput, "NETWORK_SECONDS", 0.05)


def test_decoding_that_takes_long_is_what_is_measured(tiny_run, monkeypatch):
    config = tiny_run()
    source = open_source(Path(config.data.source))
    monkeypatch.setattr(type(source), "read", lambda self, name: (time.sleep(0.01), (self.root / name).read_bytes())[1])
    one, four, reading = input_rates(source, config, num=60, threads=(1, 4), batch_size=8)
    assert (one.use, four.use, reading.use) == ("decoding", "decoding", "reading")
    assert one.images < 100, "ten milliseconds an image"
    assert four.images > 1.5 * one.images, "threads wait at the same time"
    assert reading.images > four.images, "what is read was decoded before"
    assert not any(r.network for r in (one, four, reading))


def test_the_network_is_measured_in_both_its_uses_and_a_plain_ddim_in_its_one(tiny_run):
    cpu = Accelerator(cpu=True)
    assert [r.use for r in network_rates(tiny_run(), accelerator=cpu, batch_size=4)] == ["encoding", "training"]
    assert [r.use for r in network_rates(tiny_run(model={"z_dim": None}), accelerator=cpu, batch_size=4)] == ["training"]


def test_bench_data_prints_shares_and_writes_its_figures(tmp_path, capsys):
    out = tmp_path / "bench.json"
    cli.main(["bench", "data", "avatars", "--num", "6", "--preset", "avatars32", "--threads", "1", "--out", str(out)])
    said = capsys.readouterr().out
    assert "encoding: the network takes" in said
    assert "training: the network takes" in said
    written = json.loads(out.read_text())
    assert [r["use"] for r in written] == ["decoding", "reading", "encoding", "training"]
    assert all(r["images"] > 0 for r in written)


def test_nothing_usable_is_nothing_to_measure(tmp_path, tiny_run):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match="None of the first 1 images can be used"):
        list(input_rates(open_source(tmp_path), tiny_run(), num=5, threads=(1,)))


def test_encoding_says_where_its_time_went(tiny_run, tmp_path, monkeypatch):
    config = tiny_run()
    data, ae = prepare(config.data, size=(8, 8), channels=3), build(config.model)
    encode = type(ae).encode
    monkeypatch.setattr(type(ae), "encode", lambda self, x: (time.sleep(0.02), encode(self, x))[1])
    spent = write_codes(ae, data, tmp_path / "codes.parquet", identity="me", batch_size=6)
    assert spent.network > 4 * 0.02
    assert 0 < spent.images < spent.network
    assert np.isfinite(spent.images)
