"""The README's code runs as it stands."""

import re
from pathlib import Path

import pytest
import torch

from diffae.autoencoder import DiffusionAutoencoder

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.filterwarnings("ignore:x_T has a standard deviation")  # Of a network that was never trained.
def test_the_ten_lines_run(tiny, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    ae = DiffusionAutoencoder(tiny)
    for p in ae.parameters():
        torch.nn.init.normal_(p, std=0.1)
    ae.save_pretrained("runs/quickstart/model")
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    names = {"images": images}
    exec(code, names)
    assert names["again"].shape == names["x"].shape == names["mean"].shape == images.shape
    assert names["others"].shape == (2, 4, 3, 8, 8)
    assert names["frames"].shape == (1, 5, 3, 8, 8)


def test_every_file_that_the_readme_names_is_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target


def test_the_two_commands_are_the_makefiles():
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README.read_text(), flags=re.MULTILINE):
        assert f"\n{target}:" in makefile
