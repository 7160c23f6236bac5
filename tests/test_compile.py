"""Compiled networks compute what they did before, in whole graphs that are compiled once."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

import diffae
from diffae.autoencoder import build
from diffae.config import TrainingConfig, from_dict, presets
from diffae.training.loop import compile_networks

# In a process of its own: shapes are not enforced there, and what enforces them cannot be traced. Networks and their gradients are
# traced as compiling does, but what was traced is run operation by operation, which takes seconds.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from torch import nn
from diffae.autoencoder import build
from diffae.config import RunConfig, TrainingConfig, read_json
from diffae.data import prepare
from diffae.runtime.seeding import Draws
from diffae.training.loop import compile_networks
from diffae.training.log import read_metrics
from diffae.training.run import create_accelerator, resolve, train
from diffae.training.speed import measure
from diffae.training.subjects import ImageSubject
from dataclasses import replace

torch.set_num_threads(1)
modes = []

def traced(self, *, mode, dynamic):
    modes.append(mode)
    self._compiled_call_impl = torch.compile(self._call_impl, backend="aot_eager", dynamic=dynamic, fullgraph=True)

nn.Module.compile = traced
root = Path(sys.argv[1])
config = read_json(RunConfig, root / "asked.json")

torch.manual_seed(0)
ae = build(config.model)
for p in ae.parameters():
    p.data += 0.05 * torch.randn(p.shape)
x = torch.rand(3, 3, 8, 8) * 2 - 1

def step(first):
    ae.zero_grad()
    loss = ae.loss(x, Draws.of(3, 0, start=first))
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in ae.parameters()])

plain = step(1)
compile_networks(ae, TrainingConfig(compile="reduce-overhead"))
compiled = step(1)
graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
step(4)
found = {
    "losses": [plain[0], compiled[0]],
    "gradients": [float(plain[1].norm()), float((plain[1] - compiled[1]).norm())],
    "graphs": [graphs, torch._dynamo.utils.counters["stats"]["unique_graphs"]],
}
for name, mode in (("plain", None), ("compiled", "default")):
    own = resolve(replace(config, training=replace(config.training, compile=mode)), root / name)
    data = prepare(own.data, size=(8, 8), channels=3)
    for event in train(ImageSubject(own, data), root / name):
        pass
    found[name] = [line["loss"] for line in read_metrics(root / name) if "loss" in line]
    accelerator = create_accelerator()
    found[f"flop, {name}"] = {s.what: s.flop for s in measure(own, 2, accelerator=accelerator, seconds=0.01)}
print(json.dumps(found | {"modes": modes}))
"""


@pytest.mark.slow
def test_compiled_networks_are_the_same_networks(tiny_run, tiny, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    # Of one level: tracing takes time.
    one = {"channel_mult": (1,), "attention_resolutions": (8,)}
    config = tiny_run(images=24, model={"unet": replace(tiny.unet, **one), "encoder": replace(tiny.encoder, **one)})
    (tmp_path / "asked.json").write_text(json.dumps(diffae.config.to_dict(config)))
    command = [sys.executable, tmp_path / "script.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["modes"] == ["reduce-overhead"] * 2 + ["default"] * 4, "the UNet and the encoder, of each model"
    assert found["losses"][0] == pytest.approx(found["losses"][1], rel=1e-5)
    assert found["gradients"][1] < 1e-4 * found["gradients"][0]
    assert found["graphs"] == [2, 2], "one of each network, and none is compiled twice"
    assert found["plain"] == pytest.approx(found["compiled"], rel=1e-4)
    assert len(found["plain"]) == 3
    assert found["flop, plain"] == found["flop, compiled"]
    a, b = (diffae.load(str(tmp_path / name)).state_dict() for name in ("plain", "compiled"))
    assert a.keys() == b.keys()


def test_compiled_and_sharded_is_refused(tiny):
    with pytest.raises(ValueError, match=r"training\.compile and training\.sharded do not go together"):
        compile_networks(build(tiny), TrainingConfig(compile="default", sharded=True))


def test_a_mode_that_there_is_not_is_refused():
    with pytest.raises(TypeError, match="compile must be 'default' or 'reduce-overhead' or 'max-autotune' or null, got 'fast'"):
        from_dict(TrainingConfig, {"compile": "fast"})


def test_presets_compile_nothing():
    assert {presets.preset(name).training.compile for name in ("ffhq128", "avatars32", "avatars64")} == {None}
