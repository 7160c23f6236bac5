"""Commands that share their work with other processes give what one process gives."""

import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet
import pytest
import safetensors.torch
import shared_commands
import torch
from accelerate.state import AcceleratorState
from test_cli import SMALL

from diffae import cli
from diffae.runtime import processes


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


def lines(run, out, commands):
    out.mkdir()
    return ";".join(commands).replace("RUN", f"{run / 'run'}").replace("IMAGES", f"{run / 'images'}").replace("OUT", str(out))


def by_two(run, out, commands=COMMANDS):
    """What two processes say."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "400", "ACCELERATE_USE_CPU": "true"}
    command = [*launch, shared_commands.__file__, lines(run, out, commands)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout, done.stderr


@pytest.fixture
def by_one(capfd, monkeypatch):
    """What this process says."""
    monkeypatch.setenv("COLUMNS", "400")

    def found(run, out, commands=COMMANDS):
        capfd.readouterr()
        shared_commands.run(lines(run, out, commands))
        return capfd.readouterr()

    return found


@pytest.mark.slow
def test_two_processes_find_what_one_finds(run, by_one, tmp_path):
    (_, one), (said, two) = by_one(run, tmp_path / "one"), by_two(run, tmp_path / "two")
    assert "number 0 of 1" in one
    assert all(f"number {i} of 2" in two for i in range(2))
    assert said.count("Open ") == said.count("Pictures: ") == said.count("160 codes") == 1, "one of them talks"
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
def test_two_processes_share_the_codes_of_a_prior_and_train_the_prior_of_one(run, by_one, tmp_path):
    small = "--images 32 --training.batch-size 4 --training.precision float32 --model.width 16 --model.layers 2"
    found = {}
    for name, by in (("one", by_one), ("two", by_two)):
        shutil.rmtree(run / "run" / "codes", ignore_errors=True)
        said, noted = by(run, tmp_path / name, (f"train-prior RUN --name {name} {small}",))
        assert noted.count("Codes: ") == said.count("sample with") == 1
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
