"""Types hold for who uses the package: a script of all that is public passes mypy --strict, and a wrong one does not."""

import subprocess
import sys

import pytest

pytest.importorskip("mypy", reason="mypy is not installed")

SCRIPT = """
from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor

import diffae
from diffae import Code, DiffAETransformer, DiffusionAutoencoder

ae = diffae.load(Path("runs/quickstart"), prior="kernel", precision="auto", revision=None)
assert_type(ae, DiffusionAutoencoder)
x = torch.rand(2, 3, 64, 64) * 2 - 1
z_sem = ae.encode(x)
assert_type(z_sem, Tensor)
assert_type(ae.invert(x, z_sem, steps=10, solver="ddim"), Tensor)
assert_type(ae.decode(z_sem, seed=1), Tensor)
assert_type(ae.decode_mean(z_sem), Tensor)
code = ae.infer(x, inversion="anchored", steps=10)
assert_type(code, Code)
assert_type(ae.render(code, z_sem=z_sem + 1, detail=0.5), Tensor)
assert_type(ae.reconstruct(x), Tensor)
assert_type(ae.interpolate(x[:1], x[1:], weights=[0, 0.5, 1]), Tensor)
assert_type(ae.manipulate(code, {"Smiling": 1.0, "Young": -0.5}, strength=0.3), Tensor)
assert_type(ae.manipulate(x, "Smiling", target_probability=0.9, keep=["Young"]), Tensor)
assert_type(ae.vary(x, num=2, seed=0), Tensor)
assert_type(ae.sample(4, seed=0), Tensor)
assert_type(ae.explain(x, lambda images: images.mean((1, 2, 3)), answers="value", value=0.5).images, Tensor)
assert_type(ae.model_card("user/faces"), str)
ae.save_pretrained("models/faces")
model = diffae.load_diffusion("models/faces")
if isinstance(model, diffae.DDIM):
    assert_type(model.sample(2), Tensor)
config = diffae.AutoencoderConfig(image_size=(32, 32), z_dim=64)
assert_type(diffae.DiffusionAutoencoder(config).z_dim, int)
assert_type(diffae.preset("avatars32").model.channels, int)
assert_type(diffae.interop.official.load("last.ckpt"), DiffusionAutoencoder)
assert_type(DiffAETransformer("avatars32", images=100).fit(x.numpy()), DiffAETransformer)
"""

WRONG = """
import diffae

ae = diffae.load(3)
ae.decode(ae.encode("face.png"), stepps=20)
ae.no_such_verb()
"""


@pytest.mark.slow
def test_a_script_of_all_that_is_public_passes_and_a_wrong_one_does_not(tmp_path):
    (tmp_path / "right.py").write_text(SCRIPT)
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", "cache", "right.py", "wrong.py"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout
    assert "checked 2 source files" in said
    assert {line.partition(": error")[0] for line in said.splitlines()[:-1] if ": error" in line} == {
        f"wrong.py:{line}" for line in (4, 5, 6)
    }, said
