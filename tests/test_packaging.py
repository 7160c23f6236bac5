"""What is handed to an index: the wheel holds the package and nothing else, and the sdist makes the same wheel."""

import email
import importlib.metadata
import inspect
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import alone
import numpy as np
import pytest

import diffae

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ["core", *sorted(set(PROJECT["optional-dependencies"]) - {"dev"})]
"""What may be installed alone; `dev` is all of them, and what the tests run by."""
pytest.importorskip("hatchling", reason="hatchling, which builds the package, is not installed")


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


def test_an_sdist_holds_source_and_tests_and_nothing_else(built):
    with tarfile.open(built[1]) as archive:
        held = {name.split("/")[1] for name in archive.getnames()}
    assert held == {"src", "tests", "README.md", "LICENSE", "CHANGELOG.md", "PKG-INFO", "pyproject.toml", ".gitignore"}


def test_the_metadata_say_what_an_index_shows(built):
    about = email.message_from_bytes(contents(built[0])[f"diffae-{diffae.__version__}.dist-info/METADATA"])
    assert about["Name"] == "diffae"
    assert about["Author"] == "the diffae developers"
    assert about["License-Expression"] == "MIT"
    assert about["Requires-Python"] == ">=3.11"
    assert "Paper, https://arxiv.org/abs/2111.15640" in about.get_all("Project-URL")
    assert "Typing :: Typed" in about.get_all("Classifier")
    assert about.get_payload().startswith("# ")
    assert set(about.get_all("Provides-Extra")) == PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("extra", EXTRAS)
def test_it_is_written_down_what_an_extra_is_for(extra):
    assert inspect.getdoc(getattr(alone, extra))


@pytest.fixture
def fresh(tmp_path):
    """An environment of its own, gone after the test: each takes a gigabyte."""
    folder = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    yield folder
    shutil.rmtree(folder)


def packages(folder):
    """The packages of an environment, and their megabytes."""
    (site,) = folder.glob("lib/python*/site-packages")
    size = sum(file.lstat().st_size for file in site.rglob("*") if file.is_file())
    return {found.name for found in importlib.metadata.distributions(path=[str(site)])}, size / 1e6


@pytest.mark.soak
@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_stands_alone_in_a_fresh_environment(extra, fresh, built, tiny, tmp_path):
    diffae.DiffusionAutoencoder(tiny).save_pretrained(tmp_path / "model")
    if extra == "slides":
        tifffile = pytest.importorskip("tifffile", reason="Nothing else here writes a slide.")
        tifffile.imwrite(tmp_path / "slide.tif", np.full((4352, 512, 3), (190, 90, 150), np.uint8), tile=(256, 256))
    # What is set for the tests' own Python must not be found in the fresh one.
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*command):
        subprocess.run(command, check=True, cwd=tmp_path, env=settings)

    before, spare = packages(fresh)
    python = str(fresh / "bin" / "python")
    wanted = f"diffae{'' if extra == 'core' else f'[{extra}]'} @ {built[0].as_uri()}"
    run(python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), wanted)
    after, size = packages(fresh)
    if extra == "encoders" and subprocess.run([python, "-I", "-c", "import torchvision"], capture_output=True).returncode:
        # A torch without CUDA beside a torchvision with it. Without that transformers works, and timm does not.
        run(python, "-m", "pip", "uninstall", "-q", "-y", "torchvision")
    run(python, "-I", alone.__file__, extra)
    run(str(fresh / "bin" / "diffae"), "--help")
    print(f"| {extra} | {len(after - before)} | {size - spare:.0f} | {getattr(alone, extra).__doc__} |")
