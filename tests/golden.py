"""Ten runs whose every byte is looked at: weights, checkpoints, codes and pictures, before a change and after it.

    python tests/golden.py before.json                          as the code is
    python tests/golden.py after.json --against before.json     what differs, by name; 1 where something does

Through the command line alone, so that it runs on a checkout of any age (PYTHONPATH=OTHER/src). Bytes are those of one machine and
one torch: both files have to come from one.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image

AVATARS = ["--data.avatars", "240", "--images", "320", "--training.checkpoint-every", "160", "--training.sample-every", "160"]
SMALL = ["--preset", "avatars32", *AVATARS]
PAPER = [
    "--model.prediction",
    "eps",
    "--training.timesteps",
    "uniform",
    "--training.no-whitened-start",
    "--model.unet.dropout",
    "0.1",
]
ADAM = ["--training.muon-rate", "None", "--training.learning-rate-schedule", "constant", "--training.weight-decay", "0.01"]
NOISE = ["--model.schedule.zero-terminal-snr", "--training.min-snr", "5", "--training.z-sem-dropout", "0.1"]
SHIFTED = [
    "--training.encoder-shift",
    "0.1",
    "--training.recompute",
    "--training.accumulation",
    "2",
    "--training.average-every",
    "80",
]
PRIOR = ["--images", "2000", "--training.sample-every", "1000", "--training.checkpoint-every", "1000"]
BESIDE = ["--preset", "avatars32", "--images", "96", "--avatars", "240"]
INVERSIONS = ("anchored", "refine", "reversible")
RUNS: dict[str, list[list[str]]] = {
    "preset": [["train", "avatars", *SMALL, "--out", "preset"]],
    "adam": [["train", "avatars", *SMALL, *ADAM, "--training.precision", "float32", "--out", "adam"]],
    "ddim": [["train", "avatars", "--preset", "avatars32-ddim", *AVATARS, "--out", "ddim"]],
    "paper": [["train", "avatars", *SMALL, *PAPER, "--out", "paper"]],
    "noise": [["train", "avatars", *SMALL, *NOISE, "--out", "noise"]],
    "shifted": [["train", "avatars", *SMALL, *SHIFTED, "--out", "shifted"], ["average", "shifted", "--out", "shifted/averaged"]],
    "resumed": [
        ["train", "avatars", *SMALL, "--images", "160", "--out", "resumed"],
        ["train", "avatars", *SMALL, "--out", "resumed"],
        ["calibrate", "resumed", "--num", "8"],
    ],
    "vae": [["train-comparator", "avatars", *BESIDE, "--out", "vae"]],
    "grey": [
        ["train", "grey", *SMALL, "--model.channels", "1", "--data.range", "0", "4095", "--out", "greyrun"],
        ["encode", "greyrun", "grey", "--x-T-steps", "4", "--out", "greyrun/codes.parquet"],
        ["fit-attributes", "greyrun"],
    ],
    "whole": [
        ["train", "avatars", *SMALL, "--out", "whole"],
        ["train-prior", "whole", *PRIOR],
        ["train-prior", "whole", "--preset", "gaussian"],
        ["fit-attributes", "whole"],
        *[
            ["reconstruct", "whole", "A", "B", "--inversion", i, "--out", f"whole/{i}.png"]
            for i in ("anchored", "refine", "reversible")
        ],
        ["reconstruct", "whole", "A", "--inversion", "official", "--out", "whole/official.png"],
        ["vary", "whole", "A", "--num", "4", "--out", "whole/vary.png"],
        ["interpolate", "whole", "A", "B", "--frames", "4", "--out", "whole/interpolate.gif"],
        ["manipulate", "whole", "A", "B", "--attribute", "Smiling", "--keep", "Eyeglasses", "--out", "whole/edit.png"],
        ["manipulate", "whole", "A", "--attribute", "Smiling", "--target-probability", "0.9", "--out", "whole/reach.png"],
        ["manipulate", "whole", "A", "--attribute", "pc1", "--inversion", "fast", "--out", "whole/pc1.png"],
        ["sample", "whole", "--num", "8", "--attribute", "Smiling", "--out", "whole/samples.png"],
        ["neighbours", "whole", "A", "--num", "4", "--out", "whole/neighbours.png"],
        ["export", "whole", "whole/exported", "--dtype", "bfloat16"],
        ["evaluate", "whole", "--suite", "reconstruction", "attributes", "--num", "6", "--steps", "4", "--out", "whole/evaluation"],
    ],
}
TOLD = ("metrics.jsonl", "report.html", "results.json", "tables.md", ".lock")
"""Files that tell times, machines and commits."""


def main() -> int:
    asked = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    asked.add_argument("out", type=Path)
    asked.add_argument("--against", type=Path)
    asked.add_argument("--only", nargs="*", choices=list(RUNS), default=list(RUNS))
    options = asked.parse_args()
    found = {"machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__}", "runs": {}}
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
            found["runs"][name] = digests(name, Path(folder), cache)
        options.out.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{name}: {len(found['runs'][name])} files", flush=True)
    return 0 if options.against is None else compared(json.loads(options.against.read_text()), found)


def digests(name: str, folder: Path, cache: str) -> dict[str, str]:
    """What a run left, file by file. Its cache is its own: what another version has prepared would be compared with itself."""
    grey_images(folder / "grey")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DIFFAE_CACHE": cache, "COLUMNS": "200"}
    places = {"A": "grey/a.png", "B": "grey/b.png"}
    for command in RUNS[name]:
        words = [places.get(word, word) for word in command]
        done = subprocess.run([sys.executable, "-m", "diffae", *words], cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}:\n{done.stdout}\n{done.stderr}")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.is_relative_to(folder / "grey")]
    looked_at = [file for file in files if file.name not in TOLD and not {"tensorboard", "measured"} & set(file.parts)]
    return {str(file.relative_to(folder)): digest(file) for file in looked_at}


def digest(file: Path) -> str:
    """Of what a file holds; of weights, of the tensors by name, whatever their order in the file."""
    if file.suffix != ".safetensors":
        return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(safetensors.torch.load_file(file).items()):
        found.update(
            f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes()
        )
    return found.hexdigest()


def grey_images(folder: Path) -> None:
    """Sixty-four images of 12 bits in 16, two in colour, and labels."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["file,bright"]
    for i in range(64):
        bright = i % 2
        values = rng.integers(0, 2048, (32, 32)) + 2047 * bright
        Image.fromarray(values.astype(np.uint16)).save(folder / f"{i:02d}.png")
        rows.append(f"{i:02d}.png,{bright}")
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).resize((32, 32)).save(folder / f"{name}.png")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def compared(before: dict, after: dict) -> int:
    """Says which files differ, of how many; 1 where some do."""
    if before["machine"] != after["machine"]:
        print(f"Not comparable: {before['machine']} and {after['machine']}")
        return 1
    alike = 0
    for name, files in after["runs"].items():
        then = before["runs"].get(name, {})
        wrong = sorted(file for file in files.keys() | then.keys() if files.get(file) != then.get(file))
        alike += not wrong
        print(f"{name}: {len(files) - len(wrong)} of {len(files)} files the same{': ' if wrong else ''}{', '.join(wrong)}")
    print(f"{alike} of {len(after['runs'])} runs the same bytes")
    return int(alike < len(after["runs"]))


if __name__ == "__main__":
    raise SystemExit(main())
