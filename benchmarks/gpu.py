"""What a card makes of diffae, beside the authors' code on the same card: every figure that was aimed at.

    python benchmarks/gpu.py --authors AUTHORS

AUTHORS is a checkout of the authors' code (see `benchmarks/authors.py`); without it only ours is measured. Theirs is as they train:
float16 by autocast and gradient scaling, Adam, clipping, and their average. A row that fails says why, and the next goes on; the
table is written after each. Ways to compute are measured beside each other, so that a card can decide which is to be the default:

    plain       PyTorch's own operators
    kernels     normalisation and random numbers by Triton
    recorded    and the whole of it a CUDA graph
    compiled    by torch.compile (with --compiled: minutes more)

Both keep their weights and images on the card, and the two largest trainings would not fit beside each other, so a row's ways come
one after the other, the first of ours again at the end. A processor takes the place of a card where there is none, for the tests.
"""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import safetensors.torch
import torch
import tyro
from beside import authors_of, like_theirs, measure_z_sem, our_step, random_images

from diffae.config import Precision, RunConfig, read_json
from diffae.data import prepare
from diffae.evaluation.pages.page import table_markdown
from diffae.evaluation.pages.report import commit
from diffae.runtime import kernels
from diffae.runtime.files import write_text
from diffae.training.log import read_metrics
from diffae.training.run import create_accelerator

HEADER = ["", "way", "figure", "goal"]
Row = list[str]


def main(
    authors: Path | None = None,
    out: Path = Path("benchmarks/gpu.md"),
    rows: tuple[str, ...] = ("decoder", "training", "command", "killed", "precisions", "quickstart"),
    decoders: tuple[tuple[str, int, str], ...] = (("ffhq128", 1, "<= 4 ms"), ("ffhq128", 32, "<= 15 ms")),
    trainings: tuple[tuple[str, int, str], ...] = (
        ("ffhq128", 128, ">= 550 images/s, <= 44 GiB"),
        ("ffhq256", 32, ">= 150 images/s, <= 45 GiB"),
    ),
    command: str = "avatars32",
    images: int = 40_000,
    ablated: str = "avatars64",
    seeds: int = 3,
    seconds: float = 3.0,
    compiled: bool = False,
) -> None:
    """Measure.

    Args:
        authors: checkout of the authors' code.
        out: the table.
        rows: which of them.
        decoders: preset, images a call, goal.
        trainings: preset, images a step, goal.
        command: preset that `diffae train` trains, and that is killed.
        images: that the command sees.
        ablated: preset that is trained in both precisions.
        seeds: of these trainings.
        seconds: that each measurement takes at least.
        compiled: whether networks are compiled too.
    """
    device = create_accelerator().device
    table: list[Row] = []
    ways = ("recorded", "kernels", "plain", *(["compiled"] if compiled else []))
    jobs: list[tuple[str, Callable[[], Iterator[Row]]]] = []
    if "decoder" in rows:
        jobs += [
            (f"decoder {name}", partial(_decoder, name, batch, goal, ways, authors, device, seconds))
            for name, batch, goal in decoders
        ]
    if "training" in rows:
        jobs += [
            (f"training {name}", partial(_training, name, batch, goal, ways, authors, device, seconds))
            for name, batch, goal in trainings
        ]
    with tempfile.TemporaryDirectory() as folder:
        others = {
            "command": lambda: _command(command, images, Path(folder)),
            "killed": lambda: _killed(command, images, Path(folder)),
            "precisions": lambda: _precisions(ablated, images, seeds, Path(folder)),
            "quickstart": lambda: _quickstart(Path(folder), images if device.type == "cpu" else None),
        }
        for name, job in [*jobs, *((name, others[name]) for name in others if name in rows)]:
            began = time.perf_counter()
            try:
                table += job()
            except Exception as error:
                table.append([name, "", f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}", ""])
            print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
            _write(out, table, device)
    print(out.read_text())


def _write(out: Path, table: list[Row], device: torch.device) -> None:
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else f"no card, {os.cpu_count()} threads"
    text = f"# On a card\n\n`python benchmarks/gpu.py`: seed 0; {card}; torch {torch.__version__}; diffae {commit()}."
    write_text(out, f"{text}\n\n{table_markdown(HEADER, table)}\n")


@contextlib.contextmanager
def _way(way: str) -> Iterator[None]:
    """Within it, kernels of ours are taken or not."""
    before, kernels.enabled = kernels.enabled, way != "plain"
    try:
        yield
    finally:
        kernels.enabled = before


def _median(call: Callable[[], object], device: torch.device, least: float) -> float:
    """Median seconds of a call, after some that are not counted. All calls take `least` seconds together."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(8 if device.type == "cuda" else 1):
        call()
    wait()
    times: list[float] = []
    while sum(times) < least or len(times) < 3:
        began = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _peak(device: torch.device) -> str:
    return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB" if device.type == "cuda" else "memory not measured"


def _forget(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _decoder(
    name: str, batch: int, goal: str, ways: tuple[str, ...], authors: Path | None, device: torch.device, seconds: float
) -> Iterator[Row]:
    """Milliseconds of a call, and how far its output is from that in plain float32."""
    ae = like_theirs(name, device).eval()
    x, z = torch.randn(batch, *ae.image_shape, device=device), torch.randn(batch, ae.z_dim, device=device)
    t = torch.full((batch,), 500.0, device=device)
    what, expected = f"decoder call, {name}, batch {batch}", None
    jobs: list[tuple[str, Precision]] = [("plain", "float32")] if "plain" in ways else []
    jobs += [(way, kind) for kind in ("float32", "bfloat16") for way in ways if (way, kind) not in jobs]
    for way, kind in jobs:
        ae.precision, ae.records = kind, way == "recorded"
        if way == "compiled":
            ae.unet.compile(mode="default", dynamic=False)
        with _way(way), torch.no_grad():
            call = ae.eps_model(z)
            spent = _median(partial(call, x, t), device, seconds)
            output = call(x, t)
        expected = output if expected is None else expected
        error = float((output - expected).norm() / expected.norm())
        yield [what, f"{way}, {kind}", f"{1000 * spent:.2f} ms, {error:.0e} from plain float32", goal]
        if way == "compiled":
            ae.unet._compiled_call_impl = None
    if authors is not None:
        theirs = authors_of(authors, ae)
        low = device.type == "cuda"
        for half in (False, True) if low else (False,):
            with torch.no_grad(), torch.autocast(device.type, torch.float16) if half else contextlib.nullcontext():
                spent = _median(lambda: theirs.eps(x, t.long(), cond=z), device, seconds)
            yield [what, f"authors, {'float16' if half else 'float32'}", f"{1000 * spent:.2f} ms", ""]
    _forget(device)


def _training(
    name: str, batch: int, goal: str, ways: tuple[str, ...], authors: Path | None, device: torch.device, seconds: float
) -> Iterator[Row]:
    """Images a second and memory of whole training steps."""
    what = f"training step, {name}, batch {batch}"
    for way in (*ways, ways[0]):
        with _way(way):
            ae = like_theirs(name, device)
            compiling = "default" if way == "compiled" else None
            step = our_step(name, ae, random_images(ae, batch), precision="bfloat16", graphs=way == "recorded", compile=compiling)
            spent = _median(step, device, seconds)
        yield [what, f"{way}, bfloat16", f"{batch / spent:.0f} images/s, {_peak(device)}", goal]
        del ae, step
        _forget(device)
    if authors is not None:
        ae = like_theirs(name, device)
        step = authors_of(authors, ae).training(random_images(ae, batch), half=device.type == "cuda")
        spent = _median(step, device, seconds)
        kind = "float16" if device.type == "cuda" else "float32"
        yield [what, f"authors, {kind}", f"{batch / spent:.0f} images/s, {_peak(device)}", ""]
        del ae, step
        _forget(device)


def _diffae(*words: str, wait: bool = True) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "diffae", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if wait:
        said, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(" ".join(said.strip().splitlines()[-3:]))
    return process


def _train(name: str, out: Path, images: int, *words: str) -> list[str]:
    often = {"validate": images, "sample": images, "checkpoint": max(images // 4, 1)}
    every = [word for what, number in often.items() for word in (f"--training.{what}-every", str(number))]
    few = ["--data.avatars", str(min(6000, images))]
    return ["train", "avatars", "--preset", name, "--images", str(images), "--out", str(out), *every, *few, *words]


def _command(name: str, images: int, folder: Path) -> Iterator[Row]:
    """Images a second of `diffae train` between two lines of its log, the second half of the run."""
    for batch in (16, 64):
        out = folder / f"command {batch}"
        _diffae(*_train(name, out, images, "--training.batch-size", str(batch), "--training.log-every", str(images // 8)))
        lines = [line for line in read_metrics(out) if "loss" in line and images // 2 <= line["images"]]
        rate = (lines[-1]["images"] - lines[0]["images"]) / max(lines[-1]["time"] - lines[0]["time"], 0.1)
        yield [f"`diffae train --preset {name}`, batch {batch}", "", f"{rate:.0f} images/s", ">= 5,000 images/s"]


def _killed(name: str, images: int, folder: Path) -> Iterator[Row]:
    """Whether a run that was killed ends at the same weights."""
    weights = []
    for kind in ("whole", "killed"):
        words = _train(name, folder / kind, images)
        if kind == "killed":
            victim = _diffae(*words, wait=False)
            while len(list((folder / kind).glob("checkpoints/images-*"))) < 1 and victim.poll() is None:
                time.sleep(0.05)
            victim.send_signal(signal.SIGKILL)
            victim.communicate()
        _diffae(*words)
        weights.append(safetensors.torch.load_file(max((folder / kind / "checkpoints").iterdir())))
    different = sum(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    yield ["kill -9, then the same command", "", f"{different} of {len(weights[0])} tensors differ", "0"]


def _precisions(name: str, images: int, seeds: int, folder: Path) -> Iterator[Row]:
    """What either precision reaches in as many images."""
    for kind in ("float32", "bfloat16"):
        runs = []
        for seed in range(seeds):
            out = folder / f"{kind} {seed}"
            _diffae(*_train(name, out, images, "--training.precision", kind, "--training.seed", str(seed)))
            config = read_json(RunConfig, out / "config.json")
            data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
            runs.append(measure_z_sem(out, data, min(300, len(data.validation))))
        cells = []
        for key, label in (("mean", "mean-decode MSE"), ("auroc", "AUROC")):
            values = [run[key] for run in runs]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{label} {statistics.mean(values):.4f}{spread}")
        yield [f"{name}, {images:,} images, {seeds} seeds", kind, ", ".join(cells), "alike within the spread"]


def _quickstart(folder: Path, images: int | None) -> Iterator[Row]:
    """Seconds from the command to its page, and what the page says."""
    began = time.perf_counter()
    _diffae("quickstart", "--out", str(folder / "quickstart"), *(["--images", str(images)] if images else []))
    spent = time.perf_counter() - began
    report = json.loads((folder / "quickstart" / "report.json").read_text())
    assert (folder / "quickstart" / "report.html").is_file()
    figures = [f"{made} {values['mse']:.1e}" for made, values in report["reconstruction"].items() if "floor" not in made]
    auroc = report["auroc"].get("z_sem", {}).values()
    figures += [f"AUROC {statistics.mean(auroc):.3f}"] if auroc else []
    figure = f"{spent:.0f} s, {report['images_seen']:,} images; MSE: {', '.join(figures)}"
    yield ["`diffae quickstart`, installed", "", figure, "<= 90 s, figures of two cores or better"]


if __name__ == "__main__":
    tyro.cli(main)
