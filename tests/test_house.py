"""The house: who may import whom, how long a file may be, how quickly it opens."""

import ast
import importlib
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from shapes import TELLING, WHOLE

import diffae
from diffae.config import ScheduleConfig
from diffae.diffusion.schedule import Schedule

ROOT = Path(diffae.__file__).parent
FLOORS = {
    "_moved": -1,
    "config": 0, "runtime": 0,
    "nn": 1, "frozen": 1, "pictures": 1,
    "diffusion": 2, "semantics": 2,
    "autoencoder": 3,
    "edits": 4, "interop": 4, "data": 4,
    "training": 5, "metrics": 5,
    "evaluation": 6, "explanation": 6,
    "studio": 7, "cli": 7, "__main__": 8,
}  # fmt: skip
WITHIN = {
    ("runtime", "config"),
    ("frozen", "nn"),
    ("semantics", "diffusion"),
    ("explanation", "evaluation"),
    ("interop", "data"),
    ("cli", "studio"),
}
"""Imports inside a floor: (who, whom)."""
MOST_ROOMS = 20
EXTRAS = {
    "accelerate",
    "tensorboard",
    "torchmetrics",
    "sklearn",
    "matplotlib",
    "python_avatars",
    "resvg_py",
    "pyarrow",
    "lmdb",
    "diffusers",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "gradio",
    "pillow_heif",
    "pydicom",
    "nibabel",
    "tifffile",
    "imagecodecs",
    "astropy",
    "h5py",
    "zarr",
    "openslide",
    "scipy",
    "pandas",
    "transformers",
    "timm",
    "imageio_ffmpeg",
}


def modules():
    return sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
    """Every diffae module, or name in one, that a file imports, wherever in the file: dotted names below diffae, as lists."""
    for node in ast.walk(ast.parse(path.read_text())):
        assert not getattr(node, "level", 0), f"{path} imports {node.module} by dots"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "diffae":
            yield from [[*node.module.split(".")[1:], a.name] for a in node.names]
        elif isinstance(node, ast.Import):
            yield from [a.name.split(".")[1:] for a in node.names if a.name.startswith("diffae.")]


def file_of(dotted):
    """The file of a module, or of the one that has the name; None where there is none."""
    for depth in range(len(dotted), 0, -1):
        place = ROOT.joinpath(*dotted[:depth])
        found = next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)
        if found:
            return found
    return None


def arrows():
    """Every file -> the files that it imports, wherever in it."""
    found = {path: {file_of(below) for below in imports(path)} - {None, path} for path in modules()}
    return {path: below - {ROOT / "__init__.py"} for path, below in found.items()}


def circles(graph):
    """Sets of files that import one another, by Tarjan's strongly connected components."""
    numbers, low, stack, found = {}, {}, [], []

    def visit(node):
        numbers[node] = low[node] = len(numbers)
        stack.append(node)
        for below in graph.get(node, ()):
            if below not in numbers:
                visit(below)
            if below in stack:
                low[node] = min(low[node], low[below])
        if low[node] == numbers[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            found.append(part)

    for node in graph:
        if node not in numbers:
            visit(node)
    return [part for part in found if len(part) > 1]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    here = room(path)
    for below in imports(path):
        there = below[0]
        allowed = here == there or FLOORS[there] < FLOORS[here] or (here, there) in WITHIN
        assert allowed, f"{here} (floor {FLOORS[here]}) imports {there} (floor {FLOORS[there]})"


def test_no_file_imports_itself_by_way_of_others():
    graph = arrows()
    rooms = {room(path) for path in graph}
    between = {(room(a), room(b)) for a, below in graph.items() for b in below if room(a) != room(b)}
    print(f"{len(rooms)} rooms, {len(between)} arrows between them, {sum(map(len, graph.values()))} between files")
    assert [[str(p.relative_to(ROOT)) for p in part] for part in circles(graph)] == []
    assert circles({1: {2}, 2: {3}, 3: {1}, 4: {1}}) == [[1, 2, 3]]
    assert len(rooms) <= MOST_ROOMS


def most_lines(path):
    """How long a file may be: the paper's own are read whole, a command is an argument list."""
    if path == ROOT / "diffusion" / "model.py":
        return 190
    return 250 if room(path) == "cli" else 300


@pytest.mark.parametrize("path", [ROOT / "__init__.py", *modules()], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_too_long_to_be_read(path):
    assert len(path.read_text().splitlines()) <= most_lines(path)


def test_half_of_the_files_are_read_in_five_minutes():
    lengths = [len(path.read_text().splitlines()) for path in modules()]
    print(f"{len(lengths)} files, median {statistics.median(lengths)} lines, longest {max(lengths)}")
    assert statistics.median(lengths) <= 110


METHOD = ["diffusion/schedule.py", "diffusion/solvers.py", "diffusion/inversion.py", "autoencoder.py"]


def test_the_method_is_four_files_that_need_nothing_of_this_machine():
    for name in METHOD:
        assert {below[0] for below in imports(ROOT / name)} <= {"config", "diffusion", "nn", "semantics"}, name
    for name in METHOD[:3]:
        assert {below[0] for below in imports(ROOT / name)} <= {"config", "diffusion"}, name


def test_what_the_reading_quotes_stands_in_the_files():
    text = (Path(__file__).parents[1] / "docs" / "reading.md").read_text()
    quotes = re.findall(r"```python\n# (\S+)\n(.*?)```", text, flags=re.DOTALL)
    assert {Path(file).name for file, _ in quotes} == {Path(name).name for name in METHOD}
    for file, quote in quotes:
        assert quote in (Path(__file__).parents[1] / file).read_text(), f"{file}: {quote}"


def test_old_names_of_modules_answer_and_say_the_new_ones():
    from diffae._moved import MOVED

    for name, homes in MOVED.items():
        for home in homes:
            assert file_of(home.split(".")) not in (None, ROOT / "__init__.py"), home
        assert (file_of(name.split(".")) or ROOT).stem != name.split(".")[-1], f"{name} is there"
    code = "import warnings; warnings.simplefilter('error'); import diffae.latents"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "diffae.latents is diffae.semantics.standardizer and diffae.diffusion.interpolation now; the old name" in out.stderr
    code = "from diffae.latents import Standardizer, slerp; from diffae import seeding; print(slerp.__module__, seeding.mix(1) > 0)"
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "diffae.diffusion.interpolation True"
    code = "from diffae.metrics.networks import weights; from diffae.metrics.networks.identity import FaceDescriptor"
    code += "; import diffae.nn.vae; print(weights.load_network.__module__, FaceDescriptor.__module__)"
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "diffae.frozen.weights diffae.frozen.identity"


def test_tests_are_at_least_six_tenths_of_the_source():
    source = sum(len(p.read_text().splitlines()) for p in ROOT.rglob("*.py"))
    tests = sum(len(p.read_text().splitlines()) for p in Path(__file__).parent.glob("*.py"))
    assert tests >= 0.6 * source


def test_nothing_but_the_core_is_imported_to_read_a_model_and_to_sample():
    # Torch's compiler, and what it computes with, take longer to import than torch and all of this package.
    unwanted = EXTRAS | {"torch._dynamo", "sympy"}
    code = (
        "import sys, torch, diffae; from diffae.config.presets import PRESETS, preset; from diffae.autoencoder import build\n"
        # What reading begins with.
        "with torch.device('meta'): [build(preset(name).model) for name in PRESETS]\n"
        "ae = diffae.load('models/avatars64')\n"
        "ae.decode(ae.encode(torch.zeros(1, 3, 64, 64)), steps=1); ae.sample(1, steps=1, prior_steps=2)\n"
        f"diffae.interop; print({unwanted!r} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parents[1])
    assert out.stdout.strip() == "set()"


def test_help_does_not_wait_for_torch():
    code = (
        "import sys\nfrom diffae import cli\ntry:\n    cli.main(['train', '--help'])\nfinally:\n    print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.splitlines()[-1] == "False"
    assert "--training.batch-size" in out.stdout


def test_shapes_are_enforced_wherever_they_are_said():
    """Files move, and a list of those that tests check would go on naming the old ones."""
    for path in sorted(ROOT.rglob("*.py")):
        if "from jaxtyping" in path.read_text():
            name = ".".join(("diffae", *path.relative_to(ROOT).with_suffix("").parts))
            assert type(importlib.import_module(name).__loader__).__module__ == "jaxtyping._import_hook", name
    for name in (*TELLING, *WHOLE):
        place = ROOT.joinpath(*name.split(".")[1:])
        assert place.is_dir() or place.with_suffix(".py").is_file(), name
    x, t = torch.zeros(2, 3, 4, 4), torch.tensor([1, 2])
    schedule = Schedule(ScheduleConfig())
    schedule.add_noise(x, x, t)
    with pytest.raises(TypeCheckError, match="add_noise"):
        schedule.add_noise(x, x[:, :1], t)


def test_public_names_are_there():
    for name in diffae.__all__:
        assert getattr(diffae, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = diffae.nothing


def test_the_project_speaks_of_itself_only():
    for path in ROOT.rglob("*.py"):
        assert "shared/" not in path.read_text(), path
