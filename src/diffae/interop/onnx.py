"""Models as ONNX files, which other programs run without torch.

A folder has one file for each of these, all with a batch of any size, and the decoder's weights, which all but the first share:

| file | takes | gives |
|---|---|---|
| `encode.onnx` | x, images in [-1, 1] (n, c, h, w) | z_sem (n, d) |
| `eps.onnx` | x_t (n, c, h, w), t (n,) in 0..T-1, z_sem | eps, the noise in x_t: one call of the network |
| `invert.onnx` | x, z_sem | x_T, the noise that z_sem leaves open |
| `decode.onnx` | x_T as `invert` gives it, z_sem | x |
| `sample.onnx` | x_T drawn from N(0, I), z_sem | x; of distilled models by one call |
| `mean.onnx` | x_T drawn from N(0, I), z_sem | x, the mean of all images with this z_sem, by one call |

The `mean.onnx` of a model with a mean decoder takes z_sem alone. The `eps.onnx` of a distilled model also takes `to` (n,), the
timesteps to which a step is to lead. The loops are ONNX's `Loop`: the network once, and a table of coefficients for the steps of
`dpmpp2m`.
"""

import contextlib
import copy
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffae.autoencoder import DiffusionAutoencoder
from diffae.diffusion.card import model_card
from diffae.diffusion.schedule import one_step
from diffae.diffusion.solvers import solve, to_eps
from diffae.frozen.encoder import FeatureEncoder
from diffae.interop.graphs import Loop, looped, put_outside, traced
from diffae.runtime.files import filling, write_text

ALIKE = 1e-3
"""How far what a file says may lie from what torch says of the same."""

USE = """```python
import numpy as np
from onnxruntime import InferenceSession

def run(name, **inputs):
    return InferenceSession(f"{repo_id}/{{name}}.onnx").run(None, inputs)[0]

z_sem = run("encode", x=x)                # x: (n, c, h, w), float32, in [-1, 1]
x_T = run("invert", x=x, z_sem=z_sem)
x_hat = run("decode", x_T=x_T, z_sem=z_sem)
```"""

Progress = Callable[[str, int, int], None]


def loops(ae: DiffusionAutoencoder, steps: int | None = None) -> dict[str, Loop]:
    """The ways that `invert`, `decode` (of an inferred and of a drawn x_T) and `decode_mean` of a model go."""
    calibration, clamp = ae.calibration, ae.config.latents is None
    path = ae.path(calibration.steps if steps is None else steps, "dpmpp2m")
    return {
        "invert": Loop("x", "x_T", path.backwards(), False),
        "decode": Loop("x_T", "x", path, False),
        "sample": Loop("x_T", "x", ae.sample_path(), clamp),
        "mean": Loop("x_T", "x", one_step(ae.schedule, calibration.mean_t), clamp),
    }


def export(ae: DiffusionAutoencoder, folder: Path, *, steps: int | None = None, progress: Progress | None = None) -> float:
    """Writes the files and a model card beside their place, runs them by onnxruntime, compares them with torch, and moves them
    there.

    Args:
        ae: a trained model.
        folder: where they go; made if it is not there.
        steps: of `invert` and `decode`, by default the calibration's.
        progress: called with what is being done.

    Returns:
        The largest difference between what a file and what torch says of the same images.

    Raises:
        ValueError: a model whose encoder asks a network of others, or files that say something else than torch.
        ImportError: a package that writes or runs them is not installed.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"ONNX files are written and compared with {package}, which is not installed: pip install 'diffae[interop]'."
            )
    if isinstance(ae.encoder, FeatureEncoder):
        raise ValueError(
            f"z_sem of this model is made of features of {ae.config.features.network}, a network of others that is not exported: "
            "export a model whose encoder is all its own."
        )
    ae = copy.deepcopy(ae).float().cpu().eval().requires_grad_(False)
    ae.precision = "float32"
    ways, done = loops(ae, steps), 0

    def doing(what: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(what, done, 4)

    x = torch.zeros(2, *ae.image_shape)
    encoder = traced(ae.encoder, {"x": x}, "z_sem")
    doing("The encoder")
    asked = {"x_t": x, "t": torch.ones(2), "z_sem": torch.zeros(2, ae.z_dim)} | ({"to": torch.ones(2)} if ae.jumps else {})
    networks = {"encode": encoder, "eps": traced(_Eps(ae), asked, "eps")}
    if ae.mean_decoder is not None:
        networks["mean"] = traced(_Mean(ae), {"z_sem": torch.zeros(2, ae.z_dim)}, "x")
        del ways["mean"]
    doing("The decoder")
    # Weights are moved first, and have names that say which they are: files of before have theirs until they are replaced too.
    with filling(folder, order=lambda file: file.suffix != ".weights") as part:
        weights = _write(ae, part, networks, ways)
        write_text(part / "README.md", model_card(folder.as_posix(), ae.about, {"prior": None}, library="onnx", use=USE))
        doing("Files")
        difference = compare(ae, part, ways)
    for earlier in set(folder.glob("decoder-*.weights")) - {folder / weights.name}:
        with contextlib.suppress(PermissionError):  # Of another program that reads them.
            earlier.unlink()
    doing("Comparison with torch")
    return difference


def _write(ae: DiffusionAutoencoder, folder: Path, networks: Mapping[str, Any], ways: Mapping[str, Loop]) -> Path:
    """Writes all files of a model whose networks are traced; returns that of the decoder's weights."""
    weights = put_outside(networks["eps"], folder)
    about = {"images": "[-1, 1]" if ae.config.latents is None else f"latents of {ae.config.latents}"}
    about |= {key: str(ae.about[key]) for key in ("data", "licence") if ae.about.get(key)}
    models = {**networks, **{name: looped(networks["eps"], way) for name, way in ways.items()}}
    for name, model in models.items():
        steps = {"steps": str(len(ways[name].path))} if name in ways else {}
        for key, value in {**about, **steps}.items():
            model.metadata_props.add(key=key, value=value)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    return weights


@torch.no_grad()
def compare(ae: DiffusionAutoencoder, folder: Path, ways: Mapping[str, Loop]) -> float:
    """The largest difference between a file and torch, of images that the model makes of noise.

    Raises:
        ValueError: it is larger than `ALIKE`.
    """
    from onnxruntime import InferenceSession

    def run(name: str, **inputs: Tensor) -> Tensor:
        session = InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {key: value.numpy() for key, value in inputs.items()})[0])

    noise = ae.draw_x_T(3, 0)
    x = ae.decode_mean(ae.encode(noise.clamp(-1, 1)))
    z_sem, t = ae.encode(x), torch.linspace(0, ae.schedule.T - 1, 3)
    eps = ae.eps_model(z_sem)
    to = {"to": t.flip(0)} if ae.jumps else {}
    apart = {"encode": run("encode", x=x) - z_sem, "eps": run("eps", x_t=noise, t=t, z_sem=z_sem, **to) - eps(noise, t, **to)}
    if ae.mean_decoder is not None:
        apart["mean"] = run("mean", z_sem=z_sem) - ae.decode_mean(z_sem)
    ours: dict[str, Tensor] = {}
    for name, way in ways.items():
        start = x if name == "invert" else ours["invert"] if name == "decode" else noise
        ours[name] = solve(eps, start, way.path, solver="dpmpp2m", clamp=way.clamp)
        apart[name] = run(name, **{way.start: start, "z_sem": z_sem}) - ours[name]
    far = {name: float(difference.abs().max()) for name, difference in apart.items()}
    worst = max(far, key=lambda name: far[name])
    if not far[worst] <= ALIKE:
        raise ValueError(
            f"{worst}.onnx says something else than torch, by up to {far[worst]:.2g}: nothing was written. Another version of "
            "onnxruntime or torch may tell which is wrong."
        )
    return far[worst]


class _Mean(nn.Module):
    """The mean image of z_sem alone."""

    def __init__(self, ae: DiffusionAutoencoder) -> None:
        super().__init__()
        self.mean_decoder, self._clamps = ae.mean_decoder, ae.config.latents is None

    def forward(self, z_sem: Tensor) -> Tensor:
        assert self.mean_decoder is not None
        x = self.mean_decoder(z_sem)
        return x.clamp(-1, 1) if self._clamps else x


class _Eps(nn.Module):
    """The noise in x_t, whatever the network predicts."""

    def __init__(self, ae: DiffusionAutoencoder) -> None:
        super().__init__()
        self.unet, self._schedule, self._prediction = ae.unet, ae.schedule, ae.config.prediction

    def forward(self, x_t: Tensor, t: Tensor, z_sem: Tensor, to: Tensor | None = None) -> Tensor:
        output = self.unet(x_t, t, z_sem=z_sem, **({} if to is None else {"to": to}))
        return to_eps(self._prediction, output, x_t, *self._schedule.alpha_sigma(t, like=x_t))
