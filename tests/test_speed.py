"""What a machine gives: the arithmetic is counted right, and the command says it."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from diffae import cli
from diffae.config import RunConfig, presets
from diffae.nn import UNet
from diffae.training.speed import WHAT, measure

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def test_arithmetic_is_counted_per_image_and_a_training_step_takes_about_three_times_its_calls(tiny):
    few, many = (
        {s.what: s for s in measure(RunConfig(model=tiny), batch, accelerator=Accelerator(cpu=True), seconds=0.0)}
        for batch in (1, 4)
    )
    assert tuple(few) == WHAT
    for what in WHAT:
        assert many[what].flop == pytest.approx(4 * few[what].flop, rel=1e-6), what
        assert many[what].images == pytest.approx(4 / many[what].seconds)
    calls = few["encoding"].flop + few["decoder call"].flop
    assert 2.5 * calls < few["training step"].flop < 3.2 * calls
    # Three 3x3 convolutions of 8 channels at 8 x 8 are the least that is in there: 2 x 9 x 8 x 8 x 64 each.
    assert few["decoder call"].flop > 3 * 2 * 9 * 8 * 8 * 64


def test_the_benchmark_beside_the_authors_takes_our_steps(tiny, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    speed = importlib.import_module("speed")
    monkeypatch.setitem(presets.PRESETS, "avatars64", replace(presets.preset("avatars64"), model=tiny))
    ae = speed.like_theirs("avatars64")
    step = speed.our_step("avatars64", ae, speed.random_images(ae, 4), precision="float32")
    losses = [step().loss for _ in range(20)]
    assert losses[-1] < losses[0]


def test_a_network_without_encoder_is_refused(tiny):
    with pytest.raises(ValueError, match="has no encoder to measure. Name a preset without -ddim"):
        next(measure(RunConfig(model=replace(tiny, z_dim=None)), 1, accelerator=Accelerator(cpu=True)))


def test_bench_prints_what_was_asked_for(tiny, monkeypatch, capsys):
    monkeypatch.setitem(presets.PRESETS, "avatars64", replace(presets.preset("avatars64"), model=tiny))
    computed = []
    forward = UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda *a, **k: computed.append(torch.is_autocast_enabled("cpu")) or forward(*a, **k))
    asked = []  # Large products of bfloat16 take minutes where a processor has to emulate them.
    monkeypatch.setattr("diffae.training.speed.most_rate", lambda precision, *_: asked.append(precision) or 1e9)
    cli.main(["bench", "network", "--batches", "2", "--what", "decoder call", "--seconds", "0", "--precision", "bfloat16"])
    said = capsys.readouterr().err
    assert "decoder call" in said
    assert "encoding" not in said
    assert "bfloat16; large products and convolutions reach" in said
    assert any(computed), "in that precision"
    assert asked == ["bfloat16"]
