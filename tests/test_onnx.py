"""Exported models say what torch says, of batches of any size, and need neither torch nor this package."""

import copy
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import diffae
from diffae.diffusion.solvers import solve

pytest.importorskip("onnxscript", reason="ONNX files are written by onnxscript, which is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX files are run by onnxruntime, which is not installed")

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "programs.md"
ALONE = """
import sys

for name in ("x_hat", "mean", "other"):
    np.save(name, globals()[name])
assert not {"torch", "diffae"} & set(sys.modules)
"""
"""The end of a program that has nothing but the files."""


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """A model whose every weight says something, and the folder that the command wrote of it."""
    from dataclasses import replace

    folder = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    ae = diffae.DiffusionAutoencoder(replace(tiny, prediction="v"))
    with torch.no_grad():
        for p in ae.parameters():
            p.copy_(0.3 * torch.randn_like(p) / max(1, p[0].numel()) ** 0.5 if p.dim() > 1 else p + 0.1 * torch.randn_like(p))
    ae.save_pretrained(folder / "model")
    # In a process of its own: what enforces shapes in tests would look into the shapes that are traced.
    command = [sys.executable, "-m", "diffae", "export", str(folder / "model"), str(folder / "onnx"), "--format", "onnx"]
    done = subprocess.run([*command, "--licence", "mit"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "within" in done.stdout
    return diffae.load(folder / "model"), folder / "onnx", done


NAMES = ("encode", "eps", "invert", "decode", "sample", "mean")


def images(num):
    return torch.rand(num, 3, 8, 8, generator=torch.Generator().manual_seed(num)) * 2 - 1


def says(folder, name, **inputs):
    session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"))
    return torch.from_numpy(session.run(None, {key: value.detach().numpy() for key, value in inputs.items()})[0])


@pytest.mark.filterwarnings("ignore:x_T has a standard deviation")
@pytest.mark.parametrize("num", [1, 3])
def test_each_file_says_what_torch_says(exported, num):
    ae, folder, _ = exported
    x, noise, t = images(num), ae.draw_x_T(num, 3), torch.tensor([0.0, 500.5, 999.0])[:num]
    z_sem = ae.encode(x)
    x_T = ae.invert(x, z_sem)
    expected = {
        "encode": (z_sem, {"x": x}),
        "eps": (ae.eps_model(z_sem)(noise, t), {"x_t": noise, "t": t, "z_sem": z_sem}),
        "invert": (x_T, {"x": x, "z_sem": z_sem}),
        "decode": (ae.decode(z_sem, x_T), {"x_T": x_T, "z_sem": z_sem}),
        "sample": (ae.decode(z_sem, seed=3), {"x_T": noise, "z_sem": z_sem}),
        "mean": (ae.decode_mean(z_sem, seed=3), {"x_T": noise, "z_sem": z_sem}),
    }
    assert set(NAMES) == expected.keys()
    for name, (ours, inputs) in expected.items():
        assert ours.std() > 0.01, f"{name} is not tested by this model"
        assert (says(folder, name, **inputs) - ours).abs().max() <= 1e-4, name


@pytest.mark.filterwarnings("ignore:x_T has a standard deviation")
def test_what_the_page_shows_needs_the_files_alone(exported, tmp_path):
    ae, folder, _ = exported
    x = images(2)
    np.save(tmp_path / "images.npy", x.numpy())
    shutil.copytree(folder, tmp_path / "models" / "onnx")
    page = PAGE.read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(import numpy as np\nimport onnxruntime\n.*?)```", page, flags=re.DOTALL)
    subprocess.run([sys.executable, "-c", script + ALONE], check=True, cwd=tmp_path)
    made = {name: torch.from_numpy(np.load(tmp_path / f"{name}.npy")) for name in ("x_hat", "mean", "other")}
    assert (made["x_hat"] - ae.reconstruct(x, inversion="fast")).abs().max() <= 1e-4
    assert made["mean"].shape == made["other"].shape == x.shape


def test_weights_are_there_once(exported):
    _, folder, _ = exported
    (weights,) = folder.glob("decoder-*.weights")
    assert {file.name for file in folder.iterdir()} == {f"{n}.onnx" for n in NAMES} | {weights.name, "README.md"}
    assert "- Licence: mit" in (folder / "README.md").read_text(encoding="utf-8")
    decoder = sum(p.numel() for p in exported[0].unet.parameters()) * 4
    assert 0.5 * decoder < weights.stat().st_size <= decoder


def test_files_that_say_something_else_are_refused(exported):
    from diffae.interop import onnx

    ae, folder, _ = exported
    other = copy.deepcopy(ae)
    with torch.no_grad():
        other.unet.conv_out.bias.add_(0.01)
    assert onnx.compare(ae, folder, onnx.loops(ae)) <= 1e-4
    with pytest.raises(ValueError, match="says something else than torch"):
        onnx.compare(other, folder, onnx.loops(other))


def test_a_table_of_coefficients_is_the_solver(tiny):
    """A denoiser that needs no network: steps by the table end where `solve` ends."""
    from diffae.interop import graphs, onnx

    ae = diffae.DiffusionAutoencoder(tiny)
    for way in onnx.loops(ae, 7).values():
        x = start = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        table, before = graphs.table(way.path), x
        for i in range(len(way.path)):
            row = {name: column[i] for name, column in table.items()}
            x_0 = row["of_x"] * x + row["of_eps"] * torch.sin(x + row["t"] / 1000)
            x, before = row["from_x"] * x + row["from_x_0"] * x_0 + row["from_before"] * before, x_0
        expected = solve(lambda x, t: torch.sin(x + t / 1000), start, way.path, solver="dpmpp2m")
        assert (x - expected).abs().max() < 1e-9 * (1 + expected.abs().max())


def test_a_distilled_model_has_a_file_of_one_call(tiny, tmp_path):
    from dataclasses import replace

    torch.manual_seed(0)
    # Of one level: tracing takes time.
    one = {"channel_mult": (1,), "attention_resolutions": (8,)}
    config = replace(tiny, prediction="v", unet=replace(tiny.unet, jumps=True, **one), encoder=replace(tiny.encoder, **one))
    ae = diffae.DiffusionAutoencoder(config)
    with torch.no_grad():
        for p in ae.parameters():
            p.add_(0.05 * torch.randn_like(p))
    ae.save_pretrained(tmp_path / "model")
    command = [sys.executable, "-m", "diffae", "export", str(tmp_path / "model"), str(tmp_path / "onnx"), "--format", "onnx"]
    done = subprocess.run([*command, "--licence", "mit"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ae, (z_sem, x_T) = diffae.load(tmp_path / "model"), (torch.randn(3, 6), torch.randn(3, 3, 8, 8))
    with torch.no_grad():
        jumped = ae.clamp(solve(ae.eps_model(z_sem), x_T, ae.path(1).ending_in_the_image(), solver="jump", clamp=True))
        slow = solve(ae.eps_model(z_sem), x_T, ae.path(10).to_the_image(), solver="dpmpp2m", clamp=True)
    torch.testing.assert_close(says(tmp_path / "onnx", "sample", x_T=x_T, z_sem=z_sem), jumped, rtol=0, atol=1e-4)
    assert (jumped - slow).abs().max() > 1e-2


def test_what_was_exported_before_stays_where_a_comparison_fails(tiny, tmp_path, monkeypatch):
    from diffae.interop import onnx

    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "eps.onnx").write_bytes(b"before")
    monkeypatch.setattr(onnx, "traced", lambda *_: None)
    monkeypatch.setattr(onnx, "_write", lambda ae, folder, *_: (folder / "eps.onnx").write_bytes(b"now"))

    def compare(ae, folder, ways):
        assert ae.precision == "float32"
        raise ValueError("eps.onnx says something else than torch")

    monkeypatch.setattr(onnx, "compare", compare)
    ae = diffae.DiffusionAutoencoder(tiny)
    ae.precision = "bfloat16"
    ae.train()
    with pytest.raises(ValueError, match="says something else"):
        onnx.export(ae, tmp_path / "onnx")
    assert all(module.training for module in ae.modules()), "the model stays as it was"
    assert [file.read_bytes() for file in tmp_path.rglob("*.onnx")] == [b"before"]
    assert [file.name for file in tmp_path.iterdir()] == ["onnx"]


def test_a_package_that_is_missing_is_named(tiny, tmp_path, monkeypatch):
    import importlib.util

    from diffae.interop import onnx

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'diffae\[interop\]'"):
        onnx.export(diffae.DiffusionAutoencoder(tiny), tmp_path / "onnx")


def test_a_network_of_others_is_not_exported(tiny, tmp_path):
    from diffae.frozen.encoder import FeatureEncoder
    from diffae.interop import onnx

    ae = diffae.DiffusionAutoencoder(tiny)
    ae.encoder = FeatureEncoder.__new__(FeatureEncoder)
    with pytest.raises(ValueError, match="network of others"):
        onnx.export(ae, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
