"""Training: a run is a function of images, whatever interrupts or divides it."""

import contextlib
import json
import math
import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from runs import checkpoint, run
from test_nn import perturb

import diffae
from diffae import cli
from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import PriorConfig, PriorRunConfig, RunConfig, read_json
from diffae.data import prepare
from diffae.nn.layers import Conditions, ResBlock, Stage
from diffae.runtime import seeding
from diffae.runtime.seeding import Draws
from diffae.semantics.prior import LatentPrior
from diffae.semantics.standardizer import Standardizer
from diffae.training.health import CodeHealth, PriorHealth, check_codes, check_prior
from diffae.training.log import read_metrics
from diffae.training.loop import HOLD, NonFiniteLoss, learning_rate
from diffae.training.priors import PriorSubject
from diffae.training.run import Finished, Logged, Stepped, Validated, resolve, train
from diffae.training.subjects import ImageSubject
from diffae.training.views import augmented, dropped, shifted

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


def test_the_host_looks_where_something_is_due_and_not_at_every_step(tiny_run, tmp_path, monkeypatch):
    from diffae.training.loop import TrainingStep

    looked, look = [], TrainingStep.loss_and_norm
    monkeypatch.setattr(TrainingStep, "loss_and_norm", lambda step: looked.append(step.images) or look(step))
    often = {"validate_every": 96, "sample_every": 96, "checkpoint_every": 48}
    run(tiny_run(images=96, log_every=32, **often), tmp_path / "run")
    # On a processor, where there is nothing to wait for, steps look themselves.
    assert [images for images in range(8, 97, 8) if looked.count(images) > 1] == [32, 48, 64, 96]


def test_a_run_that_is_told_to_stop_in_its_last_step_has_all_that_belongs_to_its_end(tiny_run, tmp_path, monkeypatch):
    config = tiny_run(images=64, average_every=48)
    run(config, tmp_path / "whole")
    config = resolve(config, tmp_path / "stopped")
    data, told = prepare(config.data, size=config.model.image_size, channels=3), []
    monkeypatch.setattr("diffae.training.run.stop_requested", lambda: contextlib.nullcontext(lambda: bool(told)))
    for event in train(ImageSubject(config, data), tmp_path / "stopped"):
        if isinstance(event, Stepped) and event.step.images == 56:
            told.append(True)
    assert event.interrupted, "and who called it does not go on"
    whole, stopped = (
        [{k: v for k, v in line.items() if k != "time"} for line in read_metrics(tmp_path / name)] for name in ("whole", "stopped")
    )
    assert stopped == whole
    assert any("validation/loss" in line for line in whole if line["images"] == 64)
    for part in ("pictures", "averages", "checkpoints"):
        names = [sorted(path.name for path in (tmp_path / name / part).iterdir()) for name in ("whole", "stopped")]
        assert names[0] == names[1] != []


def assert_same_gradients(a, b):
    """Equal to a relative error of 1e-5; of a bias that a normalisation cancels, only rounding errors of the others are left."""
    rounding = torch.finfo(torch.float32).eps * max(g.norm() for g in a.values())
    assert rounding > 0
    for name in a:
        assert (a[name] - b[name]).norm() <= 1e-5 * a[name].norm() + rounding, name


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_an_interrupted_run_ends_bitwise_where_an_undisturbed_one_does(tiny_run, tiny, tmp_path, dropout):
    config = tiny_run(
        images=96, model={"unet": replace(tiny.unet, dropout=dropout)}, learning_rate_schedule="cosine", warmup_images=24
    )
    run(config, tmp_path / "whole")
    # Left in the middle between two checkpoints, so some steps are taken twice.
    run(config, tmp_path / "parts", stop_after=40)
    assert max((tmp_path / "parts" / "checkpoints").iterdir()).stem == "images-000000000032"
    run(config, tmp_path / "parts")
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))

    def lines(out):
        return [{k: v for k, v in line.items() if k != "time"} for line in read_metrics(out)]

    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")


def test_the_encoder_learns_at_its_own_rate(tiny_run, tmp_path):
    weights = {}
    for rate in (0.0, 0.1, 1.0):
        run(tiny_run(images=32, encoder_rate=rate), tmp_path / str(rate))
        weights[rate] = checkpoint(tmp_path / str(rate))

    def moved(rate):
        names = [name for name in weights[0.0] if name.startswith("model/encoder.")]
        return max(float((weights[rate][name] - weights[0.0][name]).abs().max()) for name in names)

    # Adam's steps are as long as the rate, whatever the gradients.
    assert 0 < moved(0.1) < 0.2 * moved(1.0)
    torch.manual_seed(seeding.mix(0, "weights"))
    start = DiffusionAutoencoder(tiny_run().model).encoder.state_dict()
    assert_same(start, {name: weights[0.0][f"model/encoder.{name}"] for name in start})


@pytest.mark.slow
def test_a_killed_process_goes_on_bitwise(tiny_run, tmp_path, capsys):
    config = tiny_run()
    args = ["train", config.data.source, "--preset", "avatars32", "--images", "1200"]
    args += ["--model.image-size", "8", "8", "--model.z-dim", "6", "--data.validation", "0.25"]
    args += ["--model.unet.base-channels", "8", "--model.unet.channel-mult", "1", "2", "--model.unet.embed-channels", "16"]
    args += ["--model.encoder.base-channels", "8", "--model.encoder.channel-mult", "1", "2"]
    args += ["--training.checkpoint-every", "200", "--training.sample-every", "100000", "--training.precision", "float32"]
    cli.main([*args, "--out", str(tmp_path / "whole")])
    command, environment = [sys.executable, "-m", "diffae", *args], os.environ | {"OMP_NUM_THREADS": "1"}
    victim = subprocess.Popen([*command, "--out", tmp_path / "parts"], env=environment, stderr=subprocess.DEVNULL)
    checkpoints = tmp_path / "parts" / "checkpoints"
    deadline = time.monotonic() + 120
    while len(list(checkpoints.glob("images-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(victim.pid, signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    capsys.readouterr()
    cli.main([*args, "--out", str(tmp_path / "parts")])
    assert "Going on after" in capsys.readouterr().err
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tiny_run, tmp_path):
    config = tiny_run()
    command = [sys.executable, "-m", "diffae", "train", config.data.source, "--preset", "avatars32", "--images", "1000000"]
    command += ["--model.image-size", "8", "8", "--model.unet.channel-mult", "1", "--model.encoder.channel-mult", "1"]
    command += ["--training.checkpoint-every", "1000000", "--data.validation", "0", "--out", tmp_path / "run"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "everything is saved. The same command goes on from here." in errors
    assert process.returncode == 130, "what was to follow a whole training does not"
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1
    assert diffae.load(tmp_path / "run").config.image_size == (8, 8)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_two_accumulated_halves_are_one_batch(tiny_run, tiny, tmp_path, dropout):
    model = {"unet": replace(tiny.unet, dropout=dropout)}
    run(tiny_run(images=32, batch_size=16, model=model), tmp_path / "whole")
    run(tiny_run(images=32, batch_size=16, accumulation=2, model=model), tmp_path / "halves")
    whole, halves = ({k: v for k, v in checkpoint(tmp_path / n).items() if k.startswith("exp_avg/")} for n in ("whole", "halves"))
    assert_same_gradients(whole, halves)


def test_recomputed_activations_give_the_same_run_bit_for_bit(tiny_run, tmp_path):
    config = tiny_run(images=24, batch_size=8)
    dropout = replace(config.model, unet=replace(config.model.unet, dropout=0.2))
    config = replace(config, model=dropout)
    run(config, tmp_path / "kept")
    run(replace(config, training=replace(config.training, recompute=True)), tmp_path / "again")
    assert_same(checkpoint(tmp_path / "kept"), checkpoint(tmp_path / "again"))


def test_a_run_with_every_option_goes_on_bit_for_bit(tiny_run, tmp_path):
    config = tiny_run(images=24, batch_size=8, min_snr=5.0, z_sem_dropout=0.3, encoder_shift=0.2, contrast=0.1)
    zero = replace(config.model, prediction="v", schedule=replace(config.model.schedule, zero_terminal_snr=True))
    config = replace(config, model=zero)
    run(config, tmp_path / "whole")
    run(config, tmp_path / "parts", stop_after=16)
    run(config, tmp_path / "parts")
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))
    plain = replace(config, training=replace(config.training, min_snr=None, z_sem_dropout=0.0, encoder_shift=0.0, contrast=0))
    run(plain, tmp_path / "plain")
    whole, plain_run = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "plain")
    assert any(not torch.equal(tensor, plain_run[name]) for name, tensor in whole.items())


OPTIONS = {
    "z_sem_dropout": (0.3, lambda model, x, draws: model.loss(x, draws, z_sem=dropped(model.encoder(x), draws, 0.3))),
    "encoder_shift": (0.2, lambda model, x, draws: model.loss(x, draws, z_sem=model.encoder(shifted(x, draws, 0.2)))),
    "min_snr": (5.0, lambda model, x, draws: model.loss(x, draws, min_snr=5.0)),
    "timesteps": ("noisy", lambda model, x, draws: model.loss(x, draws, noisy=True)),
    "augment": (1.0, lambda model, x, draws: model.loss(augmented(x, draws, 1.0), draws)),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_training_is_in_the_loss(tiny_run, option):
    value, expected = OPTIONS[option]
    config = tiny_run(**{option: value})
    data = prepare(replace(config.data, flip=False), size=(8, 8), channels=3)
    subject = ImageSubject(replace(config, data=replace(config.data, flip=False)), data)
    torch.manual_seed(0)
    model, draws, batch = perturb(subject.build()), Draws.of(16, 0), subject.batch(range(16))
    x = subject.view(batch, draws)[0] if option != "augment" else data.images([subject.order[p] for p in range(16)])
    loss = subject.loss(model, batch, draws)
    torch.testing.assert_close(loss, expected(model, x, draws))
    assert loss.item() != model.loss(x, draws).item()


def test_recomputing_is_asked_of_every_stage(tiny_run):
    config = tiny_run(recompute=True)
    data = prepare(config.data, size=(8, 8), channels=3)
    stages = [m for m in ImageSubject(config, data).build().modules() if isinstance(m, Stage)]
    assert stages
    assert all(stage.recompute for stage in stages)


def test_recomputing_keeps_less():
    stage, x = Stage(ResBlock(8, 8, t_channels=4)), torch.randn(2, 8, 16, 16, requires_grad=True)
    kept = []
    for stage.recompute in (False, True):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            stage(x, Conditions(torch.randn(2, 4), None, None))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


TWO_PROCESSES = """
import sys, torch
torch.set_num_threads(1)
from accelerate import Accelerator
from pathlib import Path
import safetensors.torch
from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import PriorConfig, PriorRunConfig, RunConfig, read_json
from diffae.data import prepare
from diffae.data.dataset import Order
from diffae.training.views import training_view
from diffae.data.feed import Rows
from diffae.runtime.seeding import Draws
from diffae.training.loop import LossModule, training_steps
from diffae.training.state import TrainingState

config = read_json(RunConfig, Path(sys.argv[1]))
data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
accelerator = Accelerator(cpu=True)
torch.manual_seed(accelerator.process_index)  # The wrapper, not the seed, must make the processes' weights equal.
model = DiffusionAutoencoder(config.model)
if accelerator.is_main_process:
    torch.manual_seed(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
state = TrainingState.start(model, config.training)
order = Order(data.train, seed=0)
rows = Rows(data.arrays, torch.device("cpu"))

def batch(positions):
    pixels, = rows.unpack(rows.pack([order[p] for p in positions]))
    return training_view(pixels, Draws.of(len(positions), 0, start=positions.start), flip=True)

steps = training_steps(state, LossModule(model, model.loss), batch, config.training, accelerator=accelerator, total=lambda: None)
step = next(steps)
if accelerator.is_main_process:
    gradients = {n: p.grad.contiguous() for n, p in model.named_parameters()}
    safetensors.torch.save_file(gradients, sys.argv[2], metadata={"processes": str(accelerator.num_processes)})
steps.close()
accelerator.wait_for_everyone()  # Who leaves while the other works on can be torn down amid their talk.
"""


@pytest.mark.slow
def test_two_processes_reach_the_gradients_of_one(tiny_run, tiny, tmp_path, monkeypatch):
    config = tiny_run(batch_size=8, gradient_clip=1e9, model={"unet": replace(tiny.unet, dropout=0.1)})
    (tmp_path / "config.json").write_text(json.dumps(diffae.config.to_dict(config)))
    (tmp_path / "script.py").write_text(TWO_PROCESSES)
    prepare(config.data, size=(8, 8), channels=3)
    script, of_one, of_two = (str(tmp_path / name) for name in ("script.py", "1.safetensors", "2.safetensors"))
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "config.json"), of_one])
    runpy.run_path(script)
    # `--multi_gpu` is what makes accelerate start several processes; the environment keeps them on the CPU, with gloo.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    ended = subprocess.run(
        [*launch, script, tmp_path / "config.json", of_two],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
    )
    assert ended.returncode == 0, ended.stderr
    for processes, out in enumerate((of_one, of_two), 1):
        with safetensors.safe_open(out, "pt") as file:
            assert file.metadata()["processes"] == str(processes)
    assert_same_gradients(*(safetensors.torch.load_file(out) for out in (of_one, of_two)))


KILLED = """
import os, signal, sys
from pathlib import Path
from diffae.config import RunConfig, read_json
from diffae.data import prepare
from diffae.training.run import Stepped, train
from diffae.training.subjects import ImageSubject

config = read_json(RunConfig, Path(sys.argv[1]))
data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
begun = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
for name in ("undisturbed", "killed") if begun else ("killed",):
    victim = begun and name == "killed" and os.environ["RANK"] == "1"
    for event in train(ImageSubject(config, data), Path(sys.argv[2]) / name):
        if victim and isinstance(event, Stepped) and event.step.images == 40:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_when_one_of_two_processes_is_killed_both_go_on_from_the_checkpoint_to_the_same_weights(tiny_run, tmp_path):
    config = resolve(tiny_run(images=64, batch_size=8, checkpoint_every=16), tmp_path / "none")
    (tmp_path / "config.json").write_text(json.dumps(diffae.config.to_dict(config)))
    (tmp_path / "script.py").write_text(KILLED)
    prepare(config.data, size=(8, 8), channels=3)
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "3"]
    command = [*launch, tmp_path / "script.py", tmp_path / "config.json", tmp_path]
    subprocess.run(command, check=True, capture_output=True, timeout=300, env=environment)
    assert_same(checkpoint(tmp_path / "undisturbed"), checkpoint(tmp_path / "killed"))
    images = [line["images"] for line in read_metrics(tmp_path / "killed") if "loss" in line]
    assert images == sorted(set(images)), "lines beyond the checkpoint are written once"


def test_bfloat16_trains_with_float32_weights(tiny_run, tmp_path):
    run(tiny_run(images=16, precision="bfloat16", whitened_start=True), tmp_path / "run")
    assert {t.dtype for t in checkpoint(tmp_path / "run").values()} == {torch.float32}
    assert all(math.isfinite(line["loss"]) for line in read_metrics(tmp_path / "run") if "loss" in line)


def test_trainings_of_two_precisions_share_a_process(tiny_run, tmp_path):
    losses = {}
    for precision in ("float32", "bfloat16", "float32"):
        events = run(tiny_run(images=16, precision=precision), tmp_path / f"{precision} {len(losses)}")
        losses[f"{precision} {len(losses)}"] = [event.loss for event in events if isinstance(event, Logged)]
    first, low, again = losses.values()
    assert first == again
    assert first != low
    assert first == pytest.approx(low, rel=0.05)


def test_a_whitened_start_is_the_same_start_each_time(tiny_run, tmp_path):
    config = tiny_run(images=24, whitened_start=True)
    run(config, tmp_path / "whole")
    run(config, tmp_path / "parts", stop_after=16)
    run(config, tmp_path / "parts")
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))


def test_a_batch_that_processes_do_not_divide_is_refused(tiny_run, tmp_path):
    with pytest.raises(ValueError, match="batch size 8 is global and cannot be divided into 1 processes x 3 accumulation steps"):
        run(tiny_run(accumulation=3), tmp_path / "run")


def test_a_run_directory_holds_what_it_says(tiny_run, tmp_path):
    out = tmp_path / "run"
    events = run(tiny_run(sample_every=32), out)
    assert isinstance(events[-1], Finished)
    files, folders = {".lock", "config.json", "data.txt", "metrics.jsonl"}, {"checkpoints", "pictures", "model", "tensorboard"}
    assert {p.name for p in out.iterdir()} == files | folders
    assert [p.name for p in sorted((out / "pictures").iterdir())] == ["images-000000000032.png", "images-000000000064.png"]
    ae, weights = diffae.load(out), checkpoint(out)
    assert not ae.training
    assert torch.equal(ae.state_dict()["unet.conv_in.weight"], weights["ema/unet.conv_in.weight"])
    assert not torch.equal(weights["model/unet.conv_in.weight"], weights["ema/unet.conv_in.weight"])
    assert read_json(RunConfig, out / "config.json").training.images == 64
    assert any("validation/shuffled_loss" in line for line in read_metrics(out))


def test_a_finished_run_does_nothing_and_a_larger_budget_goes_on(tiny_run, tmp_path):
    config = tiny_run(images=32)
    run(config, tmp_path / "run")
    assert not any(isinstance(e, Stepped) for e in run(config, tmp_path / "run"))
    more = replace(config, training=replace(config.training, images=64))
    assert [e.step.images for e in run(more, tmp_path / "run") if isinstance(e, Stepped)] == [40, 48, 56, 64]


def test_another_configuration_in_the_same_place_is_refused(tiny_run, tmp_path):
    run(tiny_run(images=16), tmp_path / "run")
    with pytest.raises(ValueError, match="training.learning_rate is 0.001 there and 0.5 now"):
        run(tiny_run(images=16, learning_rate=0.5), tmp_path / "run")


def test_a_folder_that_is_no_run_is_not_written_into(tiny_run, make_images):
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        resolve(tiny_run(), make_images())


def test_minutes_become_images_once(tiny_run, tmp_path):
    config = tiny_run(images=None, minutes=0.05)
    events = run(config, tmp_path / "run")
    stored = read_json(RunConfig, tmp_path / "run" / "config.json")
    assert stored.training.minutes == 0.05
    assert stored.training.images == events[-1].images
    assert stored.training.images % 8 == 0
    assert not any(isinstance(e, Stepped) for e in run(config, tmp_path / "run")), "the same minutes are the same budget"


def test_a_run_without_a_budget_is_refused(tiny_run, tmp_path):
    with pytest.raises(ValueError, match="needs a budget"):
        resolve(tiny_run(images=None), tmp_path / "run")


def test_the_learning_rate_is_a_function_of_images(tiny_run):
    config = tiny_run(learning_rate=1.0, learning_rate_schedule="cosine", warmup_images=80).training
    assert learning_rate(config, 0, 1000) == 0.1
    # While the budget is not known yet, it is what it will turn out to have been.
    assert all(learning_rate(config, i, None) == learning_rate(config, i, 1000) for i in range(0, int(1000 * HOLD), 8))
    assert math.isclose(learning_rate(config, 575, 1000), 0.5)
    assert learning_rate(config, 1000, 1000) < 1e-9
    assert learning_rate(replace(config, learning_rate_schedule="constant"), 900, 1000) == 1.0


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_batch(tiny_run, tmp_path, monkeypatch):
    config = tiny_run(images=64)
    original = diffae.DiffusionAutoencoder.loss

    def loss(self, x, draws, **kwargs):
        value = original(self, x, draws, **kwargs)
        loss.calls += 1
        return value * float("nan") if self.training and loss.calls > 3 else value

    loss.calls = 0
    monkeypatch.setattr(diffae.DiffusionAutoencoder, "loss", loss)
    with pytest.raises(NonFiniteLoss, match=r"The loss is nan at step 3; training stopped before that step.*Its batch: .*\.png"):
        run(config, tmp_path / "run")
    weights = checkpoint(tmp_path / "run")
    assert all(torch.isfinite(w).all() for w in weights.values())


def test_a_damaged_checkpoint_is_named_and_never_taken_for_whole(tiny_run, tmp_path):
    config = tiny_run(images=32)
    run(config, tmp_path / "run")
    file = max((tmp_path / "run" / "checkpoints").iterdir())
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"images-000000000032.safetensors is damaged or cut short .*Delete it to go on"):
        run(config, tmp_path / "run")
    file.unlink()
    assert [e.step.images for e in run(config, tmp_path / "run") if isinstance(e, Stepped)] == [24, 32]


def test_health_sees_that_z_sem_is_not_used(tiny):
    model = diffae.DiffusionAutoencoder(tiny).eval()
    x = torch.rand(8, 3, 8, 8) * 2 - 1
    health = check_codes(model, x, batch_size=3, noisy=False, seed=0)
    # The output convolution starts at zero, so nothing can be used yet.
    assert health.loss == pytest.approx(health.shuffled_loss)
    assert health.loss == pytest.approx(1, abs=0.2)
    assert "z_sem is hardly used" in health.warnings()[0]


def test_health_sees_a_collapsed_z_sem(tiny):
    model = diffae.DiffusionAutoencoder(tiny).eval()
    torch.nn.init.zeros_(model.encoder.linear.weight)
    health = check_codes(model, torch.rand(8, 3, 8, 8) * 2 - 1, batch_size=8, noisy=False, seed=0)
    assert health.z_dimensions == 0
    assert "z_sem has collapsed" in health.warnings()[0]
    assert CodeHealth(0.5, 0.7, 1.0, 5.0).warnings() == []


def test_a_plain_ddim_is_trained_by_the_same_loop_and_resumes_bitwise(tiny_run, tmp_path):
    config = tiny_run(images=48, model={"z_dim": None})
    events = run(config, tmp_path / "whole")
    assert next(e.health for e in events if isinstance(e, Validated)).loss == pytest.approx(1, abs=0.3)
    run(config, tmp_path / "parts", stop_after=24)
    run(config, tmp_path / "parts")
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))
    assert isinstance(diffae.load_diffusion(tmp_path / "whole"), diffae.DDIM)


@pytest.mark.parametrize("gaussian_start", [False, True])
def test_a_prior_is_trained_by_the_same_loop_and_resumes_bitwise(tiny_run, tiny, tmp_path, gaussian_start):
    base = tiny_run(data={"validation": 0.5}, sample_every=32)
    data = prepare(base.data, size=(8, 8), channels=3)
    torch.manual_seed(0)
    ae = DiffusionAutoencoder(tiny).eval()
    z_sem = ae.encode(data.images(range(len(data.names))))
    ae.standardizer = Standardizer.fit(z_sem[data.train])
    model = PriorConfig(z_dim=6, width=16, layers=3, gaussian_start=gaussian_start)
    config = PriorRunConfig(model=model, data=data.config, training=base.training)

    told = []

    def run_prior(out, stop_after=None):
        for event in train(PriorSubject(resolve(config, out), ae, z_sem, data), out):
            if isinstance(event, Validated):
                told.append(set(event.health.metrics()))
            if stop_after and isinstance(event, Stepped) and event.step.images >= stop_after:
                break

    run_prior(tmp_path / "whole")
    assert told == [{f"validation/{k}" for k in ("loss", "train_loss", "gaussian_loss")}] * 2
    run_prior(tmp_path / "parts", stop_after=40)
    run_prior(tmp_path / "parts")
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))
    assert len(list((tmp_path / "whole" / "pictures").iterdir())) == 2


def test_health_sees_a_prior_that_learned_by_heart():
    healthy, by_heart = PriorHealth(0.13, 0.128, 0.14), PriorHealth(0.2, 0.1, 0.14)
    assert healthy.warnings() == []
    assert "learns its training codes by heart" in by_heart.warnings()[0]


def test_the_gaussian_denoiser_is_the_best_for_gaussian_codes():
    z = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[2.0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0.1]]
    )
    prior = LatentPrior(PriorConfig(z_dim=4, width=8, layers=3, gaussian_start=True))
    prior.start(z)
    health = check_prior(prior, z[:2000], z[2000:], seed=0)
    assert health.loss == pytest.approx(health.gaussian_loss, rel=0.03), "an untrained network adds nothing"
    made = prior.sample(2000, steps=100)
    assert torch.allclose(torch.cov(made.T), torch.cov(z.T), atol=0.4)
    assert torch.allclose(torch.cov(prior.gaussian.sample(4000).T), torch.cov(z.T), atol=0.3)


def test_training_lowers_the_loss_and_uses_z_sem(tiny_run, tmp_path):
    from PIL import Image

    # One colour an image: all that there is to know of it fits into z_sem.
    generator = torch.Generator().manual_seed(0)
    for i in range(64):
        color = torch.randint(0, 256, (3,), generator=generator).tolist()
        (tmp_path / "colors").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), tuple(color)).save(tmp_path / "colors" / f"{i}.png")
    config = tiny_run(
        images=1600, batch_size=16, learning_rate=3e-3, model={"prediction": "v"}, timesteps="noisy", whitened_start=True,
        source=tmp_path / "colors", validate_every=400, sample_every=10**6, checkpoint_every=10**6, log_every=400,
    )  # fmt: skip
    health = [e.health for e in run(config, tmp_path / "run") if isinstance(e, Validated)]
    assert health[-1].loss < health[0].loss
    assert health[-1].shuffled_loss > health[-1].loss
