"""Commands that share their work with other processes give what one process gives."""

import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet
import pytest
import safetensors.torch
import torch
from accelerate.state import AcceleratorState
from test_cli import SMALL

from diffae import cli
from diffae.runtime import processes

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from torch import nn
from diffae import cli
from diffae.runtime import processes
from diffae.data import codes
from diffae.evaluation.suites import bench

class Means(nn.Module):
    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)

codes.PART = 8
bench.load_network = lambda name, weights: (Means(), "means.pt")
for command in sys.argv[1].split(";"):
    cli.main(command.split())
print(f"number {processes.rank()} of {processes.count()}", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_colours):
    """A run of a few steps with a prior, and its images."""
    AcceleratorState._reset_state(reset_partial_state=True)
    root = tmp_path_factory.mktemp("shared")
    write_colours(root / "images", 160)
    command = ["train", str(root / "images"), "--preset", "avatars32", "--out", str(root / "run"), "--images", "16", *SMALL]
    cli.main([*command, "--data.validation", "0.5"])
    cli.main(["train-prior", str(root / "run"), "--preset", "gaussian"])
    return root


COMMANDS = (
    "encode RUN IMAGES --out OUT/codes.parquet",
    "sample RUN --num 70 --steps 2 --out OUT/samples",
    "sample RUN --num 3 --steps 2 --out OUT/sheet.png",
    "evaluate RUN --out OUT/e --suite reconstruction generation variation "
    "--num 60 --num-inception 60 --steps 2 --generation-steps 2",
)


def launched(run, out, count, commands=COMMANDS):
    out.mkdir()
    (out / "script.py").write_text(SCRIPT)
    commands = ";".join(commands).replace("RUN", f"{run / 'run'}").replace("IMAGES", f"{run / 'images'}").replace("OUT", str(out))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "400", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*launch, out / "script.py", commands], capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.mark.slow
def test_two_processes_find_what_one_finds(run, tmp_path):
    one, two = launched(run, tmp_path / "one", 1), launched(run, tmp_path / "two", 2)
    assert "number 0 of 1" in one.stderr
    assert all(f"number {i} of 2" in two.stderr for i in range(2))
    assert two.stdout.count("Open ") == two.stdout.count("Pictures: ") == two.stdout.count("160 codes") == 1, "one of them talks"
    tables = [pyarrow.parquet.read_table(tmp_path / name / "codes.parquet") for name in ("one", "two")]
    assert tables[0].equals(tables[1])
    assert tables[0].num_rows == 160
    for picture in ("sheet.png", *(f"samples/{i:05d}.png" for i in range(70))):
        assert (tmp_path / "one" / picture).read_bytes() == (tmp_path / "two" / picture).read_bytes()
    assert len(list((tmp_path / "two" / "samples").iterdir())) == 70
    results = [json.loads((tmp_path / name / "e" / "results.json").read_text())["results"] for name in ("one", "two")]
    assert len(results[0]) > 10
    for a, b in zip(*results, strict=True):
        assert {k: v for k, v in a.items() if k not in ("seconds", "command")} == {
            k: v for k, v in b.items() if k not in ("seconds", "command")
        }


@pytest.mark.slow
def test_two_processes_share_the_codes_of_a_prior_and_train_the_prior_of_one(run, tmp_path):
    small = "--images 32 --training.batch-size 4 --training.precision float32 --model.width 16 --model.layers 2"
    found = {}
    for name, count in (("one", 1), ("two", 2)):
        shutil.rmtree(run / "run" / "codes", ignore_errors=True)
        done = launched(run, tmp_path / name, count, (f"train-prior RUN --name {name} {small}",))
        assert done.stderr.count("Codes: ") == done.stdout.count("sample with") == 1
        (file,) = (run / "run" / "codes").iterdir()
        prior = safetensors.torch.load_file(run / "run" / "priors" / name / "model" / "model.safetensors")
        found[name] = (pyarrow.parquet.read_table(file), prior)
    assert found["one"][0].equals(found["two"][0])
    for key, tensor in found["one"][1].items():
        torch.testing.assert_close(found["two"][1][key], tensor, rtol=1e-3, atol=1e-4)


def test_one_process_needs_nobody():
    assert (processes.rank(), processes.count(), processes.is_first()) == (0, 1, True)
    assert processes.all_gather("own") == ["own"]
    assert processes.broadcast("own") == "own"
    assert processes.shard(range(3)) == range(3)
    with processes.first_before_others():
        processes.barrier()
    processes.join()
    assert processes.count() == 1
