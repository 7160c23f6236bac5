"""Sharded runs: what is divided over processes is the run of one process, and its checkpoints know no number of processes."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import safetensors.torch
import torch

import diffae
from diffae.config import TrainingConfig
from diffae.data import prepare
from diffae.runtime.seeding import Draws
from diffae.training.averages import average
from diffae.training.log import read_metrics
from diffae.training.run import Finished, resolve, train
from diffae.training.sharding import load_parts, names_of_parts, save_parts, whole_weights
from diffae.training.state import TrainingState, checkpoint_file, newest_checkpoint
from diffae.training.subjects import ImageSubject

SCRIPT = """
import os, sys
from pathlib import Path
import torch
from torch.distributed.tensor import DTensor
from diffae.config import RunConfig, read_json
from diffae.data import prepare
from diffae.training import run
from diffae.training.state import TrainingState
from diffae.training.subjects import ImageSubject

torch.set_num_threads(1)
states = []
start = TrainingState.start
TrainingState.start = lambda *args, **called: states.append(start(*args, **called)) or states[-1]
for asked, out in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    config = read_json(RunConfig, Path(asked))
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    for event in run.train(ImageSubject(config, data), Path(out)):
        pass
    state = states.pop()
    kept = [p for model in (state.model, state.ema, *state.averages) for p in model.parameters()]
    kept += [v for o in state.optimizers for moments in o.state.values() for v in moments.values() if v.dim()]
    of_all = sum(t.to_local().numel() if isinstance(t, DTensor) else t.numel() for t in kept) / sum(t.numel() for t in kept)
    assert of_all < 0.6, f"process {os.environ['RANK']} keeps {of_all:.2f} of all"
"""


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def alone(config, out):
    config = resolve(config, out)
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    *_, last = train(ImageSubject(config, data), out)
    assert isinstance(last, Finished)


def two_processes(folder, **configs):
    """Trains each into a run of its name, by the same two processes: they take longer to start than to train."""
    (folder / "script.py").write_text(SCRIPT)
    asked = []
    for name, config in configs.items():
        config = resolve(config, folder / name)
        (folder / f"{name}.json").write_text(json.dumps(diffae.config.to_dict(config)))
        prepare(config.data, size=(8, 8), channels=3)
        asked += [folder / f"{name}.json", folder / name]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, folder / "script.py", *asked],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-6000:]


@pytest.fixture
def sharded(tiny_run):
    """A configuration in which everything that has to work together does."""

    def make(**training):
        everything = dict(sharded=True, images=64, accumulation=2, recompute=True, whitened_start=True, average_every=32)
        return tiny_run(**everything | {"muon_rate": 2.0} | training)

    return make


def assert_close(a, b):
    """Weights that differ by rounding; Adam moves biases whose gradient is nothing but rounding by whole steps."""
    assert a.keys() == b.keys()
    matrices = [name for name, tensor in b.items() if tensor.dim() > 1]
    assert matrices
    for name in matrices:
        assert (a[name] - b[name]).norm() <= 1e-2 * b[name].norm(), name


def logged(out, what):
    return [line[what] for line in read_metrics(out) if what in line]


@pytest.mark.slow
def test_a_run_goes_from_two_processes_to_one_and_is_the_same_run(sharded, tmp_path):
    config = sharded()
    half = replace(config, training=replace(config.training, images=32))
    alone(replace(config, training=replace(config.training, sharded=False)), tmp_path / "plain")
    alone(half, tmp_path / "rising")
    two_processes(tmp_path, falling=half, rising=config)
    alone(config, tmp_path / "falling")
    plain = diffae.load(str(tmp_path / "plain")).state_dict()
    assert len(logged(tmp_path / "plain", "loss")) == 8
    for name in ("falling", "rising"):
        out = tmp_path / name
        files = [len(list(folder.glob("*.safetensors"))) for folder in sorted((out / "checkpoints").iterdir())]
        assert files == {"falling": [1, 1], "rising": [2, 2]}[name], "each process writes its parts"
        assert_close(diffae.load(str(out)).state_dict(), plain)
        assert logged(out, "loss") == pytest.approx(logged(tmp_path / "plain", "loss"), rel=1e-4)
        assert logged(out, "gradient_norm") == pytest.approx(logged(tmp_path / "plain", "gradient_norm"), rel=1e-4)
        assert (out / "pictures" / "images-000000000064.png").is_file()
        (_, ours), (_, theirs) = next(average(out / "averages", [0.1])), next(average(tmp_path / "plain" / "averages", [0.1]))
        assert_close(ours, theirs)


def stepped(tiny, config):
    torch.manual_seed(0)
    state = TrainingState.start(diffae.DiffusionAutoencoder(tiny), config)
    state.model.loss(torch.rand(2, 3, 8, 8), Draws.of(2, 0)).backward()
    for optimizer in state.optimizers:
        optimizer.step()
    state.step = 7
    return state


def test_a_folder_of_parts_restores_the_state_bitwise(tiny, tmp_path):
    config = TrainingConfig(muon_rate=2.0, sharded=True)
    state = stepped(tiny, config)
    state.save(tmp_path / "images-7")
    again = TrainingState.start(diffae.DiffusionAutoencoder(tiny), config)
    again.load(tmp_path / "images-7")
    assert again.step == 7
    ours, theirs = state._tensors(), again._tensors()
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("momentum/") for name in ours)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    for optimizer in again.optimizers[:1]:
        assert {float(kept["step"]) for kept in optimizer.state.values()} == {7.0}


def test_a_damaged_part_is_named_and_nothing_of_it_is_unpickled(tiny, tmp_path):
    state = stepped(tiny, TrainingConfig(sharded=True))
    state.save(tmp_path / "images-7")
    files = list((tmp_path / "images-7").iterdir())
    assert [file.suffix for file in files] == [".safetensors"]
    files[0].write_bytes(files[0].read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"images-7 is damaged or cut short .* Delete it to go on from the one before it"):
        state.load(tmp_path / "images-7")


def test_parts_of_another_network_are_refused(tmp_path):
    save_parts({"weight": torch.zeros(3, 2)}, tmp_path / "parts")
    assert names_of_parts(tmp_path / "parts") == {"weight"}
    for wanted in ({"weight": torch.zeros(4, 2)}, {"bias": torch.zeros(3)}):
        with pytest.raises(ValueError, match="parts is damaged or cut short"):
            load_parts(wanted, tmp_path / "parts")


def test_what_an_interrupted_write_left_is_replaced(tmp_path):
    for value in (1.0, 2.0):
        (tmp_path / ".parts.part").mkdir()
        (tmp_path / ".parts.part" / "rest.safetensors").write_bytes(b"rest")
        save_parts({"weight": torch.full((2,), value)}, tmp_path / "parts")
        found = {"weight": torch.zeros(2)}
        load_parts(found, tmp_path / "parts")
        assert found["weight"].tolist() == [value, value]
        assert [p.name for p in tmp_path.iterdir()] == ["parts"]


def test_the_newest_checkpoint_may_be_a_folder(tmp_path):
    for images in (8, 16):
        checkpoint_file(tmp_path, images, sharded=True).mkdir()
    (tmp_path / ".images-000000000024.part").mkdir()
    assert newest_checkpoint(tmp_path) == tmp_path / "images-000000000016"


def test_an_undivided_model_is_whole(tiny):
    model = diffae.DiffusionAutoencoder(tiny)
    assert whole_weights(model).keys() == model.state_dict().keys()


def test_a_checkpoint_of_another_network_says_what_it_lacks(tiny, tmp_path):
    state = TrainingState.start(diffae.DiffusionAutoencoder(tiny), TrainingConfig())
    state.save(tmp_path / "state.safetensors")
    tensors = safetensors.torch.load_file(tmp_path / "state.safetensors")
    name = next(iter(tensors))
    metadata = {"format": "diffae-checkpoint-1", "step": "0"}
    safetensors.torch.save_file({k: v for k, v in tensors.items() if k != name}, tmp_path / "other.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match=f"other.safetensors is of another network: it has no {name}"):
        state.load(tmp_path / "other.safetensors")
