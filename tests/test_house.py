"""The house: who may import whom, how long a file may be, how quickly it opens."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import diffae

ROOT = Path(diffae.__file__).parent
FLOORS = {
    "strict": 0, "config": 0, "files": 0, "memory": 0, "processes": 0, "processor": 0, "seeding": 0,
    "kernels": 0, "placement": 0, "checks": 0, "graphs": 0,
    "schedule": 1, "solvers": 1, "latents": 1, "nn": 1,
    "card": 1, "inversion": 1, "predictor": 1, "attributes": 2, "fitting": 2, "prior": 2, "diffusion": 2, "autoencoder": 2,
    "presets": 3, "interop": 3, "data": 3, "pictures": 3, "edits": 3,
    "training": 4, "evaluation": 4,
    "studio": 5, "cli": 5, "__main__": 6,
}  # fmt: skip
WITHIN = {
    ("config", "strict"), ("seeding", "kernels"), ("processor", "config"), ("cli", "studio"),
    ("solvers", "schedule"), ("fitting", "attributes"), ("autoencoder", "attributes"), ("autoencoder", "prior"),
    ("autoencoder", "diffusion"), ("predictor", "schedule"), ("predictor", "solvers"), ("predictor", "nn"),
    ("inversion", "schedule"), ("inversion", "solvers"), ("inversion", "latents"),
}  # fmt: skip
"""Imports inside a floor: (who, whom)."""
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
    "gradio",
}


def modules():
    return sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
    """Every diffae module that a file imports, wherever in the file, as dotted names below diffae."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "diffae":
            below = node.module.split(".")[1:]
            yield from [[*below, a.name] for a in node.names] if not below else [below]
        elif isinstance(node, ast.Import):
            yield from [a.name.split(".")[1:] for a in node.names if a.name.startswith("diffae.")]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    here = room(path)
    for below in imports(path):
        there = below[0]
        allowed = here == there or FLOORS[there] < FLOORS[here] or (here, there) in WITHIN
        assert allowed, f"{here} (floor {FLOORS[here]}) imports {there} (floor {FLOORS[there]})"


@pytest.mark.parametrize("path", [ROOT / "__init__.py", *modules()], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_too_long_to_be_read(path):
    assert len(path.read_text().splitlines()) <= 400


def test_tests_are_at_least_six_tenths_of_the_source():
    source = sum(len(p.read_text().splitlines()) for p in ROOT.rglob("*.py"))
    tests = sum(len(p.read_text().splitlines()) for p in Path(__file__).parent.glob("*.py"))
    assert tests >= 0.6 * source


def test_importing_brings_in_no_extra():
    code = f"import sys, diffae; diffae.load, diffae.DiffusionAutoencoder, diffae.interop; print({EXTRAS!r} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_help_does_not_wait_for_torch():
    code = (
        "import sys\nfrom diffae import cli\ntry:\n    cli.main(['train', '--help'])\nfinally:\n    print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.splitlines()[-1] == "False"
    assert "--training.batch-size" in out.stdout


def test_public_names_are_there():
    for name in diffae.__all__:
        assert getattr(diffae, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = diffae.nothing


def test_the_project_speaks_of_itself_only():
    for path in ROOT.rglob("*.py"):
        assert "shared/" not in path.read_text(), path
