"""Models as ONNX files, which other programs run without torch.

A folder has one file for each of these, all with a batch of any size, and the decoder's weights, which all but the first share:

| file | takes | gives |
|---|---|---|
| `encode.onnx` | x, images in [-1, 1] (n, c, h, w) | z_sem (n, d) |
| `eps.onnx` | x_t (n, c, h, w), t (n,) in 0..T-1, z_sem | eps, the noise in x_t: one call of the network |
| `invert.onnx` | x, z_sem | x_T, the noise that z_sem leaves open |
| `decode.onnx` | x_T as `invert` gives it, z_sem | x |
| `sample.onnx` | x_T drawn from N(0, I), z_sem | x |
| `mean.onnx` | x_T drawn from N(0, I), z_sem | x, the mean of all images with this z_sem, by one call |

The loops are ONNX's `Loop`: the network once, and a table of coefficients for the steps of `dpmpp2m`.
"""

import copy
import importlib.util
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path as File
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from diffae.autoencoder import DiffusionAutoencoder
from diffae.diffusion.schedule import Path
from diffae.diffusion.solvers import dpmpp2m_step, solve, to_eps
from diffae.frozen.encoder import FeatureEncoder
from diffae.runtime.files import digest_arrays, replacing

OPSET = 18
ALIKE = 1e-3
"""How far what a file says may lie from what torch says of the same."""

Progress = Callable[[str, int, int], None]


class Loop(NamedTuple):
    """A solver's way, as a file of its own.

    Attributes:
        takes: name of the state that it begins with.
        gives: of the one that it ends with.
        path: the levels.
        clamp: whether images predicted on the way are clamped to [-1, 1].
    """

    takes: str
    gives: str
    path: Path
    clamp: bool


def loops(ae: DiffusionAutoencoder, steps: int | None = None) -> dict[str, Loop]:
    """The ways that `invert`, `decode` (of an inferred and of a drawn x_T) and `decode_mean` of a model go."""
    calibration, clamp = ae.calibration, ae.config.latents is None
    path = ae.path(calibration.steps if steps is None else steps)
    level = ae.schedule.levels(torch.tensor([calibration.mean_t]))
    mean = Path(level, torch.tensor([float(calibration.mean_t)], dtype=torch.float64)).to_the_image()
    return {
        "invert": Loop("x", "x_T", path.backwards(), False),
        "decode": Loop("x_T", "x", path, False),
        "sample": Loop("x_T", "x", ae.path(calibration.sample_steps).to_the_image(), clamp),
        "mean": Loop("x_T", "x", mean, clamp),
    }


def export(ae: DiffusionAutoencoder, folder: File, *, steps: int | None = None, progress: Progress | None = None) -> float:
    """Writes the files, each atomically, runs them by onnxruntime, and compares them with torch.

    Args:
        ae: a trained model.
        folder: where they go.
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
    ways, done = loops(ae, steps), 0

    def doing(what: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(what, done, 4)

    x = torch.zeros(2, *ae.image_shape)
    encoder = traced(ae.encoder, {"x": x}, "z_sem")
    doing("The encoder")
    call = traced(_Eps(ae), {"x_t": x, "t": torch.ones(2), "z_sem": torch.zeros(2, ae.z_dim)}, "eps")
    doing("The decoder")
    weights = _put_outside(call, folder)
    models = {"encode": encoder, "eps": call} | {name: _looped(call, way) for name, way in ways.items()}
    for name, model in models.items():
        about = {"images": "[-1, 1]" if ae.config.latents is None else f"latents of {ae.config.latents}"}
        about |= {"steps": str(len(ways[name].path))} if name in ways else {}
        for key, value in about.items():
            model.metadata_props.add(key=key, value=value)
        with replacing(folder / f"{name}.onnx") as part:
            part.write_bytes(model.SerializeToString())
    for earlier in set(folder.glob("decoder-*.weights")) - {weights}:
        earlier.unlink()
    doing("Files")
    difference = compare(ae, folder, ways)
    doing("Comparison with torch")
    return difference


@torch.no_grad()
def compare(ae: DiffusionAutoencoder, folder: File, ways: Mapping[str, Loop]) -> float:
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
    apart = {"encode": run("encode", x=x) - z_sem, "eps": run("eps", x_t=noise, t=t, z_sem=z_sem) - eps(noise, t)}
    ours: dict[str, Tensor] = {}
    for name, way in ways.items():
        start = x if name == "invert" else ours["invert"] if name == "decode" else noise
        ours[name] = solve(eps, start, way.path, solver="dpmpp2m", clamp=way.clamp)
        apart[name] = run(name, **{way.takes: start, "z_sem": z_sem}) - ours[name]
    worst = max(apart, key=lambda name: float(apart[name].abs().max()))
    difference = float(apart[worst].abs().max())
    if not difference <= ALIKE:
        raise ValueError(
            f"{folder / worst}.onnx says something else than torch, by up to {difference:.2g}: do not use these files. Another "
            "version of onnxruntime or torch may tell which is wrong."
        )
    return difference


class _Eps(nn.Module):
    """The noise in x_t, whatever the network predicts."""

    def __init__(self, ae: DiffusionAutoencoder) -> None:
        super().__init__()
        self.unet, self._schedule, self._prediction = ae.unet, ae.schedule, ae.config.prediction

    def forward(self, x_t: Tensor, t: Tensor, z_sem: Tensor) -> Tensor:
        output = self.unet(x_t, t, z_sem=z_sem)
        return to_eps(self._prediction, output, x_t, *self._schedule.alpha_sigma(t, like=x_t))


def traced(network: nn.Module, inputs: Mapping[str, Tensor], output: str) -> Any:
    """A network as a graph, for a batch of any size."""
    n, log = torch.export.Dim("n", min=1), logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings():
        # What the exporter says of its own parts, and of packages that are not installed.
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                network, tuple(inputs.values()), input_names=list(inputs), output_names=[output], dynamo=True, verbose=False,
                dynamic_shapes=[{0: n}] * len(inputs), opset_version=OPSET,
            )  # fmt: skip
        finally:
            log.setLevel(level)
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:  # Where in the source it comes from is half of the file.
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    model.graph.ClearField("value_info")
    return model


def _put_outside(model: Any, folder: File) -> File:
    """Moves a graph's weights to a file beside it, whose name says which they are; small numbers stay."""
    from onnx import TensorProto
    from onnx.external_data_helper import set_external_data
    from onnx.numpy_helper import to_array

    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= 1024]
    arrays = {tensor.name: to_array(tensor) for tensor in large}
    file = folder / f"decoder-{digest_arrays(arrays)[:12]}.weights"
    with replacing(file) as part, part.open("wb") as out:
        for tensor in large:
            content = tensor.raw_data
            set_external_data(tensor, location=file.name, offset=out.tell(), length=len(content))
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            out.write(content)
    return file


def _looped(call: Any, way: Loop) -> Any:
    """The solver as a `Loop` around a call: x_0 = (x - sigma eps) / alpha, and of it, the x_0 before and x the next state."""
    from onnx import TensorProto, helper
    from onnx.numpy_helper import from_array

    graph, steps = call.graph, len(way.path)
    image = next(value for value in graph.input if value.name == "x_t").type.tensor_type.shape
    shape = [dim.dim_param or dim.dim_value for dim in image.dim]
    tables = {f"loop.{name}": values.astype(np.float32) for name, values in table(way.path).items()}
    node, last = helper.make_node, "loop.clamped" if way.clamp else "loop.x_0"
    body = [
        *(node("Gather", [name, "loop.i"], [f"{name}_i"]) for name in tables),
        node("Shape", ["x_t"], ["loop.n"], start=0, end=1),
        node("Expand", ["loop.t_i", "loop.n"], ["t"]),
        *graph.node,
        node("Mul", ["x_t", "loop.of_x_i"], ["loop.1"]),
        node("Mul", ["eps", "loop.of_eps_i"], ["loop.2"]),
        node("Add", ["loop.1", "loop.2"], ["loop.x_0"]),
        *([node("Clip", ["loop.x_0", "loop.least", "loop.most"], [last])] if way.clamp else []),
        node("Mul", ["x_t", "loop.from_x_i"], ["loop.3"]),
        node("Mul", [last, "loop.from_x_0_i"], ["loop.4"]),
        node("Mul", ["loop.before", "loop.from_before_i"], ["loop.5"]),
        node("Sum", ["loop.3", "loop.4", "loop.5"], ["loop.next"]),
        node("Identity", ["loop.going"], ["loop.goes_on"]),
        node("Identity", [last], ["loop.this"]),
    ]
    value, real = helper.make_tensor_value_info, TensorProto.FLOAT
    inside = helper.make_graph(
        body, "step",
        [value("loop.i", TensorProto.INT64, []), value("loop.going", TensorProto.BOOL, []), value("x_t", real, shape),
         value("loop.before", real, shape)],
        [value("loop.goes_on", TensorProto.BOOL, []), value("loop.next", real, shape), value("loop.this", real, shape)],
    )  # fmt: skip
    numbers = {"loop.steps": np.array(steps), "loop.true": np.array(True)} | tables
    if way.clamp:
        numbers |= {"loop.least": np.array(-1, np.float32), "loop.most": np.array(1, np.float32)}
    outside = helper.make_graph(
        [node("Loop", ["loop.steps", "loop.true", way.takes, way.takes], [way.gives, "loop.last"], body=inside)],
        way.gives,
        [value(way.takes, real, shape), next(v for v in graph.input if v.name == "z_sem")],
        [value(way.gives, real, shape)],
        [*graph.initializer, *(from_array(number, name) for name, number in numbers.items())],
    )
    return helper.make_model(outside, opset_imports=list(call.opset_import), ir_version=call.ir_version, producer_name="diffae")


def table(path: Path) -> dict[str, np.ndarray]:
    """For each step the timestep, how x_0 comes of x and eps, and the next state of x, x_0 and the x_0 before. The solver itself
    says the latter three: it is linear in them."""
    alpha_bar = path.alpha_bar[:-1]
    rows = []
    for i in range(len(path)):
        each = []
        for ones in range(3):
            x, x_0, before = torch.eye(3, dtype=torch.float64)[ones][:, None]
            each.append(float(dpmpp2m_step(x, path, i, [before, x_0] if i else [x_0])))
        rows.append([float(path.t[i]), *each])
    t, from_x, from_x_0, from_before = np.array(rows).T
    return {
        "t": t, "of_x": (1 / alpha_bar.sqrt()).numpy(), "of_eps": -((1 - alpha_bar) / alpha_bar).sqrt().numpy(),
        "from_x": from_x, "from_x_0": from_x_0, "from_before": from_before,
    }  # fmt: skip
