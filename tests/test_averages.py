"""Averages that are chosen after training: what they are of, and that they are what training would have kept."""

import math

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

import diffae
from diffae import cli
from diffae.data import prepare
from diffae.training.averages import average, combination, save_averages
from diffae.training.run import Stepped, resolve, train
from diffae.training.state import AVERAGES, TrainingState, exponent, newest_checkpoint
from diffae.training.step import average_rates
from diffae.training.subjects import ImageSubject
from diffae.training.updates import move_towards

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def run(config, out, *, stop_after=None):
    config = resolve(config, out)
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    for event in train(ImageSubject(config, data), out):
        if stop_after and isinstance(event, Stepped) and event.step.images >= stop_after:
            break


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_a_profile_is_as_long_as_was_asked_for(length):
    g = exponent(length)
    time = np.linspace(0, 1, 200_001)
    profile = (g + 1) * time**g
    mean = np.trapezoid(profile * time, time)
    assert math.sqrt(np.trapezoid(profile * (time - mean) ** 2, time)) == pytest.approx(length, rel=1e-3)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.3])
def test_a_length_that_no_profile_has_is_refused(length):
    with pytest.raises(ValueError, match=rf"between 0 and 0.289.*got {length}"):
        exponent(length)


@pytest.mark.parametrize("length", [0.03, 0.05, 0.08, 0.1, 0.15])
def test_any_average_is_made_of_the_two_that_are_kept(length):
    # A way that moves on and trembles, as weights do. Kept directly, step by step, and made of 25 snapshots.
    draw = np.random.default_rng(0)
    steps, every = 1000, 40
    way = np.sqrt(np.arange(1, steps + 1)) + draw.normal(size=steps)
    kept = dict.fromkeys([*map(exponent, AVERAGES), exponent(length)], 0.0)
    snapshots, times = [], []
    for step, value in enumerate(way, start=1):
        for g in kept:
            share = 1 - (1 - 1 / step) ** (g + 1)
            kept[g] += share * (value - kept[g])
        if step % every == 0:
            snapshots.append([kept[exponent(a)] for a in AVERAGES])
            times.append(step)
    made = float((combination(times, length) * np.array(snapshots)).sum())
    direct = kept[exponent(length)]
    # Far nearer than the two are to each other, or either to it.
    assert abs(made - direct) < 0.02
    if length not in AVERAGES:
        assert min(abs(kept[exponent(a)] - direct) for a in AVERAGES) > 5 * abs(made - direct)


def test_what_is_kept_itself_is_given_back():
    for i, length in enumerate(AVERAGES):
        expected = np.zeros((6, len(AVERAGES)))
        expected[-1, i] = 1
        np.testing.assert_allclose(combination([10, 20, 30, 40, 50, 60], length), expected, atol=1e-6)


@pytest.mark.parametrize("snapshots", [1, 2, 3, 8])
@pytest.mark.parametrize("length", [0.02, 0.05, 0.2, 0.28])
def test_of_few_snapshots_too_it_is_an_average(snapshots, length):
    assert combination([100 * (i + 1) for i in range(snapshots)], length).sum() == pytest.approx(1, abs=1e-9)


def follow(state, decay=0.9):
    """The averages, as a step moves them."""
    for moved, rate in zip([state.ema, *state.averages], average_rates(state.step, decay), strict=False):
        move_towards(list(moved.parameters()), list(state.model.parameters()), torch.tensor(rate))


def test_the_averages_forget_the_weights_before_the_first_step(tiny_run):
    config = tiny_run(average_every=8)
    model = torch.nn.Linear(2, 2)
    state = TrainingState.start(model, config.training)
    with torch.no_grad():
        model.weight.fill_(3.0)
    follow(state)
    assert all(torch.allclose(kept.weight, model.weight) for kept in state.averages)
    assert not (state.ema.weight == 3.0).all()


def test_a_run_keeps_what_the_formulas_say(tiny_run, tmp_path, monkeypatch):
    """Every average beside float64 sums over the weights that training came through."""
    config, start, states, passed = tiny_run(images=64, batch_size=8, average_every=8, ema_decay=0.5), TrainingState.start, [], []
    monkeypatch.setattr(TrainingState, "start", lambda *a, **k: states.append(start(*a, **k)) or states[-1])
    initial = None
    data = prepare(config.data, size=config.model.image_size, channels=3)
    named = lambda model: {name: p.detach().double().clone() for name, p in model.named_parameters()}  # noqa: E731
    for event in train(ImageSubject(resolve(config, tmp_path / "run"), data), tmp_path / "run"):
        if initial is None and states:
            assert states[0].step == 0, "before the first step"
            initial = named(states[0].ema)
        if isinstance(event, Stepped):
            passed.append(named(states[0].model))
    assert len(passed) == 8
    assert initial is not None
    ema, powers = initial, [dict.fromkeys(passed[0], 0.0) for _ in AVERAGES]
    for n, weights in enumerate(passed):
        rate = 1 - min(0.5, (1 + n) / (10 + n))
        ema = {name: v + rate * (weights[name] - v) for name, v in ema.items()}
        for i, length in enumerate(AVERAGES):
            share = 1 - (1 - 1 / (n + 1)) ** (exponent(length) + 1)
            powers[i] = {name: v + share * (weights[name] - v) for name, v in powers[i].items()}
        (file,) = (tmp_path / "run" / "averages").glob(f"images-{8 * (n + 1):012d}.safetensors")
        with safetensors.safe_open(file, "pt") as opened:
            assert opened.metadata()["step"] == str(n + 1)
            for i, kept in enumerate(powers):
                for name, value in kept.items():
                    torch.testing.assert_close(opened.get_tensor(f"{i}/{name}").double(), value, rtol=1e-4, atol=1e-6)
    for name, value in named(states[0].ema).items():
        torch.testing.assert_close(value, ema[name], rtol=1e-4, atol=1e-6)


def test_a_run_without_them_keeps_none(tiny_run, tmp_path):
    run(tiny_run(images=16), tmp_path / "run")
    assert not (tmp_path / "run" / "averages").exists()
    with pytest.raises(FileNotFoundError, match="training.average_every"):
        next(average(tmp_path / "run" / "averages", [0.1]))


def test_an_interrupted_run_keeps_the_same_averages(tiny_run, tmp_path):
    config = tiny_run(images=64, average_every=16)
    run(config, tmp_path / "whole")
    run(config, tmp_path / "parts", stop_after=40)
    run(config, tmp_path / "parts")
    files = [sorted((tmp_path / name / "averages").iterdir()) for name in ("whole", "parts")]
    assert [f.name for f in files[0]] == [f"images-{n:012d}.safetensors" for n in (16, 32, 48, 64)] == [f.name for f in files[1]]
    for whole, parts in zip(*files, strict=True):
        a, b = safetensors.torch.load_file(whole), safetensors.torch.load_file(parts)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_snapshots_beyond_the_checkpoint_that_a_run_goes_on_from_are_deleted(tiny_run, tmp_path):
    config, averages = tiny_run(images=64, average_every=16), tmp_path / "run" / "averages"
    run(config, tmp_path / "run", stop_after=40)
    (averages / f"images-{200:012d}.safetensors").write_bytes(b"of a run that died there")
    run(config, tmp_path / "run")
    assert sorted(int(file.stem.removeprefix("images-")) for file in averages.iterdir()) == [16, 32, 48, 64]


def test_the_command_writes_the_average_with_the_least_loss(tiny_run, tmp_path, capsys):
    out, chosen = tmp_path / "run", tmp_path / "chosen"
    run(tiny_run(images=64, average_every=8), out)
    cli.main(["average", str(out), "--out", str(chosen), "--lengths", "0.05", "0.2"])
    said = capsys.readouterr().out
    losses = {line.split(":")[0]: float(line.split("loss ")[1].split(",")[0]) for line in said.splitlines() if "loss" in line}
    best = next(line.split(":")[0] for line in said.splitlines() if line.endswith("the best"))
    assert losses[best] == min(losses.values())
    made = diffae.load(str(chosen))
    expected = dict(average(out / "averages", [float(best)]))[float(best)]
    for name, value in made.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    x = torch.zeros(1, *made.image_shape)
    assert not torch.equal(made.encode(x), diffae.load(str(out)).encode(x))


def test_a_damaged_snapshot_is_named(tiny_run, tmp_path):
    out = tmp_path / "run"
    run(tiny_run(images=32, average_every=16), out)
    file = min((out / "averages").iterdir())
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{file.name} are damaged or cut short"):
        next(average(out / "averages", [0.1]))
    file.write_bytes((newest_checkpoint(out / "checkpoints")).read_bytes())
    with pytest.raises(ValueError, match="does not hold averages"):
        next(average(out / "averages", [0.1]))


def test_a_snapshot_knows_its_step(tiny_run, tmp_path):
    state = TrainingState.start(torch.nn.Linear(2, 2), tiny_run(average_every=8).training)
    for images in (8, 16):
        follow(state)
        state.step += 1
        save_averages(state, tmp_path, images)
    (_, weights), *_ = average(tmp_path, [AVERAGES[0]])
    torch.testing.assert_close(weights["weight"], state.averages[0].weight.detach())
