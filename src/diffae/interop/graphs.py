"""Graphs of ONNX: of a network, and of a solver's loop around it."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from diffae.diffusion.schedule import NoisePath
from diffae.diffusion.solvers import IMAGE, dpmpp2m_step
from diffae.runtime.files import digest_arrays

OPSET = 18


class Loop(NamedTuple):
    """A solver's way, as a file of its own.

    Attributes:
        start: name of the state that it begins with.
        end: of the one that it ends with.
        path: the levels.
        clamp: whether images predicted on the way are clamped to [-1, 1].
    """

    start: str
    end: str
    path: NoisePath
    clamp: bool


def traced(network: nn.Module, inputs: Mapping[str, Tensor], output: str) -> Any:
    """A network as a graph, for a batch of any size."""
    n, log = torch.export.Dim("n", min=1), logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings():
        # What the exporter says of its own parts, and of packages that are not installed.
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            # Each a tensor of its own: of one that is given twice, the exporter makes one input.
            program = torch.onnx.export(
                network, tuple(value.clone() for value in inputs.values()), input_names=list(inputs), output_names=[output],
                dynamo=True, verbose=False, dynamic_shapes=[{0: n}] * len(inputs), opset_version=OPSET,
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


def put_outside(model: Any, folder: Path) -> Path:
    """Moves a graph's weights to a file beside it, whose name says which they are; small numbers stay."""
    from onnx import TensorProto
    from onnx.external_data_helper import set_external_data
    from onnx.numpy_helper import to_array

    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= 1024]
    arrays = {tensor.name: to_array(tensor) for tensor in large}
    file = folder / f"decoder-{digest_arrays(arrays)[:12]}.weights"
    with file.open("wb") as out:
        for tensor in large:
            content = tensor.raw_data
            set_external_data(tensor, location=file.name, offset=out.tell(), length=len(content))
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            out.write(content)
    return file


def looped(call: Any, way: Loop) -> Any:
    """The solver as a `Loop` around a call: x_0 = (x - sigma eps) / alpha, and of it, the x_0 before and x the next state."""
    from onnx import TensorProto, helper
    from onnx.numpy_helper import from_array

    graph, steps = call.graph, len(way.path)
    image = next(value for value in graph.input if value.name == "x_t").type.tensor_type.shape
    shape = [dim.dim_param or dim.dim_value for dim in image.dim]
    tables = {f"loop.{name}": values.astype(np.float32) for name, values in table(way.path).items()}
    if all(value.name != "to" for value in graph.input):
        del tables["loop.to"]  # The network does not jump.
    node, last = helper.make_node, "loop.clamped" if way.clamp else "loop.x_0"
    body = [
        *(node("Gather", [name, "loop.i"], [f"{name}_i"]) for name in tables),
        node("Shape", ["x_t"], ["loop.n"], start=0, end=1),
        *(node("Expand", [f"loop.{time}_i", "loop.n"], [time]) for time in ("t", "to") if f"loop.{time}" in tables),
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
        [node("Loop", ["loop.steps", "loop.true", way.start, way.start], [way.end, "loop.last"], body=inside)],
        way.end,
        [value(way.start, real, shape), next(v for v in graph.input if v.name == "z_sem")],
        [value(way.end, real, shape)],
        [*graph.initializer, *(from_array(number, name) for name, number in numbers.items())],
    )
    return helper.make_model(outside, opset_imports=list(call.opset_import), ir_version=call.ir_version, producer_name="diffae")


def table(path: NoisePath) -> dict[str, np.ndarray]:
    """For each step the timestep, that to which a jump leads, how x_0 comes of x and eps, and the next state of x, x_0 and the x_0
    before. The solver itself says the latter three: it is linear in them."""
    alpha_bar = path.alpha_bar[:-1]
    to = (path.t[1:].nan_to_num(IMAGE) if path.jumps else path.t[:-1]).numpy()
    rows = []
    for i in range(len(path)):
        each = []
        for ones in range(3):
            x, x_0, before = torch.eye(3, dtype=torch.float64)[ones][:, None]
            each.append(float(dpmpp2m_step(x, path, i, [before, x_0] if i else [x_0])))
        rows.append([float(path.t[i]), *each])
    t, from_x, from_x_0, from_before = np.array(rows).T
    return {
        "t": t, "to": to, "of_x": (1 / alpha_bar.sqrt()).numpy(), "of_eps": -((1 - alpha_bar) / alpha_bar).sqrt().numpy(),
        "from_x": from_x, "from_x_0": from_x_0, "from_before": from_before,
    }  # fmt: skip
