"""What is handed to an index: the wheel holds the package and nothing else, and the sdist makes the same wheel."""

import email
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import diffae

ROOT = Path(__file__).parent.parent
pytest.importorskip("hatchling", reason="hatchling, which builds the package, is not installed")

ALONE = {
    "": "x = torch.rand(2, 3, 8, 8) * 2 - 1; assert ae.reconstruct(x).shape == x.shape; assert ae.encode(x).shape == (2, 6)",
    "train": "from diffae.training.run import train",
    "data": "import diffae.data.sources.parquet, lmdb",
    "eval": "from diffae.evaluation.evaluate import *; diffae.DiffAETransformer()",
    "studio": "from diffae.studio.app import *",
    "interop": "from diffae.interop import onnx; import onnxscript, diffusers",
}
"""What each extra is for, done by somebody who has installed that alone."""


def build(source, out):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(out)],
        cwd=source, check=True, capture_output=True,
    )  # fmt: skip
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_wheel_holds_the_package_and_nothing_else(built):
    held = contents(built[0])
    files = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src" / "diffae").rglob("*") if p.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    info = f"diffae-{diffae.__version__}.dist-info"
    extra = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert held.keys() == files | extra
    assert "diffae/py.typed" in held


def test_the_sdist_makes_the_same_wheel(built, tmp_path):
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    again, _ = build(folder, tmp_path / "dist")
    assert contents(again) == contents(built[0])


def test_the_metadata_say_what_an_index_shows(built):
    about = email.message_from_bytes(contents(built[0])[f"diffae-{diffae.__version__}.dist-info/METADATA"])
    assert about["Name"] == "diffae"
    assert about["Author"] == "the diffae developers"
    assert about["License-Expression"] == "MIT"
    assert about["Requires-Python"] == ">=3.11"
    assert "Paper, https://arxiv.org/abs/2111.15640" in about.get_all("Project-URL")
    assert "Typing :: Typed" in about.get_all("Classifier")
    assert about.get_payload().startswith("# ")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(about.get_all("Provides-Extra")) == extras.keys()


@pytest.mark.soak
@pytest.mark.parametrize("extra", ALONE)
def test_an_extra_stands_alone_in_a_fresh_environment(extra, built, tiny, tmp_path):
    model = diffae.DiffusionAutoencoder(tiny)
    model.save_pretrained(tmp_path / "model")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = str(tmp_path / "env" / "bin" / "python")
    wanted = f"diffae[{extra}] @ {built[0].as_uri()}" if extra else f"diffae @ {built[0].as_uri()}"
    command = [python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), wanted]
    subprocess.run(command, check=True, cwd=tmp_path)
    script = f"import torch, diffae; ae = diffae.load({str(tmp_path / 'model')!r}); {ALONE[extra]}"
    subprocess.run([python, "-c", script], check=True, cwd=tmp_path)
    subprocess.run([str(tmp_path / "env" / "bin" / "diffae"), "--help"], check=True, cwd=tmp_path, capture_output=True)
