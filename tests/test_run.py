"""The parts of a run: budgets, clocks, logs, signals and what is kept on disk."""

import dataclasses
import json
import os
import signal

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from test_averages import follow

import diffae
from diffae.config import TrainingConfig
from diffae.runtime.seeding import Draws
from diffae.training import budget as budget_module
from diffae.training.budget import Budget, Due
from diffae.training.interruption import stop_requested
from diffae.training.log import Log, read_metrics
from diffae.training.loop import HOLD
from diffae.training.resumption import write_config
from diffae.training.run import resolve
from diffae.training.state import TrainingState, checkpoint_file, newest_checkpoint


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands where it is put."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

        def time(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(budget_module, "time", clock)
    return clock


@pytest.mark.parametrize("step", [1, 7, 10, 30])
def test_something_due_happens_once_for_every_multiple(step):
    due = Due(TrainingConfig(log_every=30), images=0)
    happened = [images for images in range(step, 301, step) if due("log", images)]
    assert len(happened) == 300 // step * step // 30
    assert all(images % 30 < step for images in happened)


def test_what_was_due_before_a_resume_is_not_due_again():
    due = Due(TrainingConfig(log_every=30), images=30)
    assert not due("log", 40)
    assert due("log", 60)
    assert due("validate", 20_000), "each kind has its own clock"
    assert TrainingConfig().average_every is None
    assert not any(due("average", images) for images in range(31, 20_000, 7)), "what is never wanted is never due"


def test_minutes_become_images_at_the_rate_of_the_first_minute(clock, accelerator):
    budget = Budget(TrainingConfig(minutes=10, batch_size=16), started_at=0)
    assert not budget.calibrate(16, accelerator), "the first step is not typical"
    clock.now += 59
    assert not budget.calibrate(16 + 59 * 40, accelerator)
    clock.now += 1
    assert budget.calibrate(16 + 60 * 40, accelerator)
    assert budget.total == 10 * 60 * 40
    clock.now += 100
    assert not budget.calibrate(16_000, accelerator), "once"


def test_a_budget_is_whole_batches_and_leaves_the_learning_rate_as_it_was(clock, accelerator):
    budget = Budget(TrainingConfig(minutes=2, batch_size=16), started_at=0)
    budget.calibrate(16, accelerator)
    clock.now += 60
    budget.calibrate(16 + 1001, accelerator)
    assert budget.total is not None
    assert budget.total % 16 == 0
    assert budget.total * HOLD >= 1001, "the cosine has not begun yet"


def test_a_budget_in_images_needs_no_clock(accelerator):
    budget = Budget(TrainingConfig(images=320, minutes=1), started_at=0)
    assert budget.total == 320
    assert not budget.calibrate(16, accelerator)


def test_metrics_beyond_the_checkpoint_are_dropped_and_a_cut_line_is_left_out(tmp_path):
    log = Log(tmp_path, images=0)
    for images in (8, 16, 24):
        log.write(images, {"loss": images / 100})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"images": 32, "lo')
    assert [line["images"] for line in read_metrics(tmp_path)] == [8, 16, 24]
    Log(tmp_path, images=16)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["images"], line["loss"]) for line in lines] == [(8, 0.08), (16, 0.16)]


def test_signals_become_a_question_and_a_second_one_interrupts():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requested() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("has", "precision"),
    [
        ({"amx_bf16": True, "cpu_name": "Intel Xeon"}, "bfloat16"),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon"}, "float32"),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, "bfloat16"),
        ({"cpu_name": "AMD EPYC"}, "float32"),
        ({}, "float32"),
    ],
)
def test_precision_is_what_the_processor_computes_in(has, precision, monkeypatch, tiny_run, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert resolve(tiny_run(precision="auto"), tmp_path / "run").training.precision == precision
    assert resolve(tiny_run(precision="float32"), tmp_path / "run").training.precision == "float32"


def test_a_run_goes_on_in_the_precision_it_began_with(monkeypatch, tiny_run, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    began = resolve(tiny_run(precision="auto"), tmp_path / "run")
    write_config(tmp_path / "run", began)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert resolve(tiny_run(precision="auto"), tmp_path / "run") == began
    with pytest.raises(ValueError, match="training.precision is 'bfloat16' there and 'float32' now"):
        resolve(tiny_run(precision="float32"), tmp_path / "run")


def test_more_minutes_replace_the_budget_that_was_found(tiny_run, tmp_path):
    asked = tiny_run(images=None, minutes=1.0)
    found = dataclasses.replace(asked, training=dataclasses.replace(asked.training, images=480))
    write_config(tmp_path / "run", found)
    assert resolve(asked, tmp_path / "run") == found
    more = resolve(dataclasses.replace(asked, training=dataclasses.replace(asked.training, minutes=2.0)), tmp_path / "run")
    assert (more.training.minutes, more.training.images) == (2.0, 960), "as many a minute"
    few = resolve(dataclasses.replace(asked, training=dataclasses.replace(asked.training, minutes=0.3)), tmp_path / "run")
    assert few.training.images == 144


def test_minutes_say_nothing_of_a_run_that_was_asked_for_images(tiny_run, tmp_path):
    asked = tiny_run(images=480)
    write_config(tmp_path / "run", asked)
    minutes = dataclasses.replace(asked.training, images=None, minutes=8.0)
    with pytest.raises(ValueError, match="was asked for 480 images, and minutes say nothing .* give --images"):
        resolve(dataclasses.replace(asked, training=minutes), tmp_path / "run")
    more = resolve(dataclasses.replace(asked, training=dataclasses.replace(asked.training, images=960)), tmp_path / "run")
    assert more.training.images == 960


def test_what_networks_of_others_keep_beside_their_weights_is_averaged_too(tiny):
    """Running means of a batch normalisation are no parameters."""
    model = diffae.DiffusionAutoencoder(tiny)
    model.encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 8), torch.nn.BatchNorm2d(6), torch.nn.Flatten())
    state = TrainingState.start(model, TrainingConfig(average_every=8))
    for _ in range(3):
        model.encoder.train()(torch.rand(4, 3, 8, 8) + 1)
    state.take_buffers()
    for average in (state.ema, *state.averages):
        assert average.encoder[1].running_mean.abs().max() > 0
        assert torch.equal(average.encoder[1].running_mean, model.encoder[1].running_mean)
        assert int(average.encoder[1].num_batches_tracked) == 3


def test_the_average_follows_the_weights_and_forgets_where_it_began(tiny):
    state = TrainingState.start(diffae.DiffusionAutoencoder(tiny), TrainingConfig())
    weight, average = state.model.unet.conv_in.bias, state.ema.unet.conv_in.bias
    start = average.clone()
    with torch.no_grad():
        weight.add_(1)
    follow(state)
    torch.testing.assert_close(average, start + 0.9), "in the first step a tenth of the old is kept"
    state.step = 1000
    follow(state)
    torch.testing.assert_close(average, start + 0.9 + 0.1 * 0.1)


@pytest.mark.parametrize("muon_rate", [None, 2.0])
def test_a_state_survives_its_file_bitwise(tiny, tmp_path, muon_rate):
    torch.manual_seed(0)
    config = TrainingConfig(muon_rate=muon_rate)
    state = TrainingState.start(diffae.DiffusionAutoencoder(tiny), config)
    state.model.loss(torch.rand(2, 3, 8, 8), Draws.of(2, 0)).backward()
    for optimizer in state.optimizers:
        optimizer.step()
    state.step = 1
    state.save(tmp_path / "state.safetensors")
    again = TrainingState.start(diffae.DiffusionAutoencoder(tiny), config)
    again.load(tmp_path / "state.safetensors")
    assert again.step == 1
    for a, b in zip(state.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
        ours, others = ([o.state[p] for o in s.optimizers if p in o.state] for s, p in ((state, a), (again, b)))
        assert len(ours) == len(others) == 1
        assert ours[0].keys() == others[0].keys()
        for moment, value in ours[0].items():
            assert torch.equal(value.float(), others[0][moment].float()), moment


def test_the_newest_checkpoint_is_the_one_of_the_most_images_and_never_a_part(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    for images in (99, 1000, 20):
        checkpoint_file(tmp_path, images).touch()
    (tmp_path / ".images-000000009999.safetensors.abc.part").touch()
    assert newest_checkpoint(tmp_path) == checkpoint_file(tmp_path, 1000)


def test_tensorboard_shows_what_was_logged_and_a_run_that_goes_on_drops_what_lies_beyond(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = Log(tmp_path, images=0)
    for images in (8, 16, 24):
        log.write(images, {"loss": 1 / images, "learning_rate": 0.5})
    Log(tmp_path, images=16).write(24, {"loss": 0.25})
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert board.Tags()["scalars"] == ["loss", "learning_rate"]
    assert [(e.step, round(e.value, 4)) for e in board.Scalars("loss")] == [(8, 0.125), (16, 0.0625), (24, 0.25)]
    assert [line["images"] for line in read_metrics(tmp_path)] == [8, 16, 24]
