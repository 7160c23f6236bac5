"""What cards record: the pretended device records too, and replays only what a recording holds."""

import copy
import re
import warnings
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from pretended_device import DEVICE, Recorder, counting, pretended, small_memory
from runs import checkpoint, run
from test_nn import perturb

from diffae import cli
from diffae.autoencoder import DiffusionAutoencoder
from diffae.cli import codes, pictures
from diffae.config import RunConfig, read_json
from diffae.data import prepare
from diffae.runtime import graphs
from diffae.training.accumulation import TrainingOutOfMemory
from diffae.training.loop import NonFiniteLoss
from diffae.training.run import Logged, Noted, Stepped, resolve, train
from diffae.training.speed import TRAINING_STEP, measure
from diffae.training.state import TrainingState
from diffae.training.subjects import ImageSubject

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


class Failing(Recorder):
    def record(self, compute):
        raise RuntimeError("CUDA error: operation failed\nand more")


@pytest.fixture
def device(monkeypatch):
    """The pretended device, which records whatever is done a few times."""
    monkeypatch.setattr(Accelerator, "device", property(lambda self: DEVICE))
    monkeypatch.setitem(graphs.RECORDERS, DEVICE.type, Recorder)
    monkeypatch.setattr(graphs, "BOUND", 0.0)
    monkeypatch.setattr("diffae.data.feed._room", lambda device: 2**30)
    with pretended():
        yield DEVICE


@pytest.fixture
def config(tiny_run, tiny):
    """A run of everything that changes from step to step: rates, averages, optimizers, noise, views, dropout, parts of batches."""
    return tiny_run(
        images=64, learning_rate_schedule="cosine", warmup_images=20, muon_rate=2.0, average_every=32, accumulation=2,
        encoder_shift=0.2, z_sem_dropout=0.2, checkpoint_every=16, precision="bfloat16",
        model={"unet": replace(tiny.unet, dropout=0.2), "prediction": "v"},
    )  # fmt: skip


def test_a_recorded_run_is_the_run(config, device, tmp_path):
    recorded = run(config, tmp_path / "recorded")
    (note,) = (event.text for event in recorded if isinstance(event, Noted))
    assert note.startswith("The training step is recorded and replayed (CUDA graph): the host is busy for")
    plain = run(replace(config, training=replace(config.training, graphs=False)), tmp_path / "plain")
    assert not any(isinstance(event, Noted) for event in plain)
    losses = [[event.loss for event in events if isinstance(event, Logged)] for events in (recorded, plain)]
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 8
    a, b = checkpoint(tmp_path / "recorded"), checkpoint(tmp_path / "plain")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_recorded_run_goes_on_bit_for_bit(config, device, tmp_path):
    run(config, tmp_path / "whole")
    run(config, tmp_path / "parts", stop_after=40)
    run(config, tmp_path / "parts")
    a, b = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_replay_is_one_command_and_what_is_sent(config, device, tmp_path):
    counts = []
    events = iter(train(*subject_of(config, tmp_path / "run")))
    for _ in range(8):
        with counting() as counted:
            while not isinstance(next(events), Stepped):
                pass
        counts.append(counted)
    assert counts[0].operations > 500
    # The indices of two parts of the batch, five learning rates and shares, and what was seen.
    assert counts[-1].operations <= 12
    assert (counts[-1].copies, counts[-1].waits) == (2, 1), "this run logs at each step"


def subject_of(config, out):
    config = resolve(config, out)
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    return ImageSubject(config, data), out


@pytest.mark.parametrize("recorded", [True, False])
def test_a_step_that_is_not_finite_changes_nothing_nor_does_any_after_it(config, device, tmp_path, monkeypatch, recorded):
    """Nobody looks before the end; then the error is of the step that it was, and all is as it was before that."""
    never = dict.fromkeys((f"{what}_every" for what in ("log", "checkpoint", "average", "validate", "sample")), 10_000)
    config = replace(config, training=replace(config.training, graphs=recorded, **never))
    view, start = ImageSubject.view, TrainingState.start

    def spoilt(self, batch, draws):
        (x, *rest), these = view(self, batch, draws), (draws.numbers >= 48) & (draws.numbers < 50)
        return torch.where(these[:, None, None, None], float("inf"), x), *rest

    states, tensors, seen = [], [], []
    monkeypatch.setattr(ImageSubject, "view", spoilt)
    monkeypatch.setattr(TrainingState, "start", lambda *a, **k: states.append(start(*a, **k)) or states[-1])

    def follow():
        for event in train(*subject_of(config, tmp_path / "run")):
            if isinstance(event, Stepped):
                seen.append(event.step.images)
                tensors.append({name: t.cpu().clone() for name, t in states[0]._tensors().items()})

    with pytest.raises(NonFiniteLoss, match=r"The loss is nan at step 6; training stopped before that step.*\.png") as error:
        follow()
    assert error.value.positions == range(48, 56)
    assert seen[-1] == 64
    assert not list((tmp_path / "run").glob("checkpoints/*"))
    assert any(not torch.equal(tensors[4][name], tensors[5][name]) for name in tensors[5])
    for later in tensors[6:]:
        assert all(torch.equal(later[name], tensors[5][name]) for name in later)


def test_where_nothing_can_be_recorded_one_warning_says_why_and_it_goes_on(config, device, tmp_path, monkeypatch):
    monkeypatch.setitem(graphs.RECORDERS, DEVICE.type, Failing)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run(config, tmp_path / "run", stop_after=40)
    said = [str(warning.message) for warning in said if "recorded" in str(warning.message)]
    assert said[0].startswith("The training step cannot be recorded on this device (CUDA error: operation failed); it goes on")
    assert len(said) == len(set(said))


def test_a_step_that_the_host_does_not_bound_is_not_recorded(config, device, tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "BOUND", 1.1)
    events = run(config, tmp_path / "run", stop_after=40)
    (note,) = (event.text for event in events if isinstance(event, Noted))
    assert note.startswith("The training step is not recorded: the host is busy for")


@pytest.fixture
def ae(tiny):
    torch.manual_seed(0)
    return perturb(DiffusionAutoencoder(replace(tiny, prediction="v"))).eval()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recorded_calls_are_the_calls(ae, device, precision):
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    ae = copy.deepcopy(ae).to(device)
    ae.precision = precision
    plain = copy.deepcopy(ae)
    plain.records = False
    for num in (3, 2, 3, 1):
        expected, found = (model.reconstruct(x[:num], inversion="fast", steps=6) for model in (plain, ae))
        assert torch.equal(found, expected)
    with counting() as recorded:
        ae.decode(ae.encode(x), steps=6)
    with counting() as asked:
        plain.decode(plain.encode(x), steps=6)
    assert recorded.operations < asked.operations / 3
    # Other weights at the same addresses, as after more training.
    with torch.no_grad():
        for model in (plain, ae):
            for p in model.parameters():
                p.mul_(1.1)
    assert torch.equal(*(model.reconstruct(x, inversion="fast", steps=6) for model in (plain, ae)))


def test_a_call_in_inference_mode_leaves_nothing_that_cannot_be_written_again(ae, monkeypatch):
    """Of a processor that computes again what it should have recorded, as the pretended device knows no inference mode."""

    class Again(Recorder):
        def record(self, compute):
            compute()
            return compute

    monkeypatch.setitem(graphs.RECORDERS, "cpu", Again)
    monkeypatch.setattr(graphs, "BOUND", 0.0)
    z_sem, t = torch.ones(2, ae.z_dim), torch.full((2,), 500.0)
    for precision in ("float32", "bfloat16"):
        ae.precision = precision
        with torch.inference_mode():
            first = ae.decode(z_sem, steps=6)
            eps = ae.eps_model(z_sem)(first, t)
        again = ae.decode(z_sem, steps=6), ae.eps_model(z_sem)(first, t)
        torch.testing.assert_close(again, (first, eps), atol=1e-5, rtol=1e-5)


def test_the_arithmetic_of_a_step_is_counted_though_it_is_recorded(config, device):
    counted = []
    for graphs_too in (True, False):
        asked = replace(config, training=replace(config.training, graphs=graphs_too, precision="float32"))
        (speed,) = measure(asked, 4, accelerator=Accelerator(), seconds=0.05, what=(TRAINING_STEP,))
        counted.append(speed.flop)
    assert counted[0] == counted[1] > 0


def test_a_recording_is_of_one_precision(ae, device):
    ae = copy.deepcopy(ae).to(device)
    plain = copy.deepcopy(ae)
    plain.records = False
    x, t, z = torch.randn(2, 3, 8, 8).to(device), torch.full((2,), 300.0, device=device), torch.randn(2, 6).to(device)
    found = []
    with torch.no_grad():
        for precision in ("float32", "bfloat16", "float32"):
            ae.precision = plain.precision = precision
            for _ in range(graphs.WARM_UP + 2):
                found.append(ae.eps_model(z)(x, t))
                assert torch.equal(found[-1], plain.eps_model(z)(x, t))
    assert not torch.equal(found[0], found[graphs.WARM_UP + 2])


def test_calls_with_gradients_or_of_many_shapes_are_right_too(ae, device):
    ae = copy.deepcopy(ae).to(device)
    z = torch.randn(2, 6).to(device).requires_grad_()
    x, t = torch.randn(2, 3, 8, 8).to(device), torch.full((2,), 300.0, device=device)
    for _ in range(6):
        (gradient,) = torch.autograd.grad(ae.eps_model(z)(x, t).square().sum(), z)
    assert float(gradient.abs().sum()) > 0
    plain = copy.deepcopy(ae)
    plain.records = False
    with torch.no_grad():
        for n in (1, 2, 3, 4, 5, 6) * 5:
            x, t, z = torch.randn(n, 3, 8, 8).to(device), torch.full((n,), 300.0, device=device), torch.randn(n, 6).to(device)
            assert torch.equal(ae.eps_model(z)(x, t), plain.eps_model(z)(x, t))
    assert len(ae._recordings.calls._found) <= graphs.SHAPES


def test_where_calls_cannot_be_recorded_they_go_on_without(ae, device, monkeypatch):
    monkeypatch.setitem(graphs.RECORDERS, DEVICE.type, Failing)
    ae = copy.deepcopy(ae).to(device)
    z = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    with pytest.warns(UserWarning, match="The decoder's call cannot be recorded on this device"):
        found = ae.decode(z, steps=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(ae.decode(z, steps=6), found)


def test_processors_record_nothing(ae):
    assert graphs.recorder_of(torch.device("cpu")) is None
    ae.decode(torch.randn(1, 6), steps=8)
    assert not ae._recordings.calls._found


# Room ----------------------------------------------------------------------------------------------------------------


def test_the_fewest_parts_that_there_is_room_for_are_found_before_the_first_step(tiny_run, device, tmp_path):
    config = tiny_run(images=32, batch_size=8, accumulation="auto", learning_rate=0.0, log_every=8)
    # The largest features have 24 channels at full size; of weights, those of all blocks' times have 5,376 numbers.
    of_one = 24 * 8 * 8 * 4
    with small_memory(8 * of_one):
        whole = run(config, tmp_path / "whole")
    with small_memory(8 * of_one - 1):
        parts = run(config, tmp_path / "parts")
    assert not any(isinstance(event, Noted) and "parts" in event.text for event in whole)
    assert "A batch of 8 is taken in 2 parts, for which there is room" in [e.text for e in parts if isinstance(e, Noted)]
    found = [read_json(RunConfig, tmp_path / name / "config.json").training.accumulation for name in ("whole", "parts")]
    assert found == [1, 2]
    losses = [[event.loss for event in events if isinstance(event, Logged)] for events in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_trial_leaves_no_trace(tiny_run, device, tmp_path):
    config = tiny_run(images=32, muon_rate=2.0)
    run(config, tmp_path / "plain")
    run(replace(config, training=replace(config.training, accumulation="auto")), tmp_path / "tried")
    a, b = checkpoint(tmp_path / "plain"), checkpoint(tmp_path / "tried")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_there_is_no_room_for_says_what_helps(tiny_run, device, tmp_path):
    config = tiny_run(images=32)
    with small_memory(22_000), pytest.raises(TrainingOutOfMemory) as error:
        run(config, tmp_path / "run")
    assert re.fullmatch(
        r"There is no room for 8 images at a time \(CUDA out of memory. Tried to allocate \d+ bytes.\). What helps: "
        r"--training.accumulation 2 \(or auto\) takes the same batch in smaller parts; --training.recompute keeps less and takes a "
        r"third more time; a smaller --training.batch-size is another training.",
        str(error.value),
    )
    alone = TrainingOutOfMemory(replace(config.training, accumulation=8, recompute=True), 1, RuntimeError("so it is"))
    assert str(alone).endswith("1 images at a time (so it is). What helps: a smaller --training.batch-size is another training.")
    # What it says can be done in the same place.
    said = []
    config = replace(config, training=replace(config.training, accumulation=2, recompute=True))
    resolved = resolve(config, tmp_path / "run", say=said.append)
    assert (resolved.training.accumulation, resolved.training.recompute) == (2, True)
    assert said[0] == "training.accumulation is 2 from here on, and was 1: the same training, but for rounding."


def test_commands_say_what_helps(capsys, monkeypatch):
    def out(self):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nMore words.")

    for kind, words, way in (
        (codes.Encode, ["encode", "run", "images", "--out", "a.parquet"], "a smaller --batch-size than 64."),
        (pictures.Vary, ["vary", "run", "a.png"], "fewer images at a time; --precision bfloat16."),
    ):
        monkeypatch.setattr(kind, "run", out)
        with pytest.raises(SystemExit):
            cli.main(words)
        assert (
            f"There is not enough memory (CUDA out of memory. Tried to allocate 9 GiB.). What helps: {way}"
            in capsys.readouterr().err
        )
