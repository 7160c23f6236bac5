"""The page that edits faces in the browser, with all that it needs: a folder that any web server can serve.

    python docs/demo/build.py --model models/avatars64 --out build/demo
    python -m http.server --directory build/demo

Nothing is computed by the server. The page runs the networks by onnxruntime-web, which comes from the npm registry once, and is
kept in `build/npm`; it needs `npm`, and `pip install 'diffae[interop]'`.

| file | holds |
|---|---|
| `model.json` | sizes, attributes, and a table of coefficients for each way of the solver |
| `encode`, `network`, `prior`: `.graph.bin` and `.weights.bin` | one call of each network, as ONNX; weights in bfloat16 |
| `space.bin` | float32: mean and deviation of z_sem, directions, classifiers, and what the network says of noise |
| `examples/*.png` | faces that the model drew |
| `runtime/` | onnxruntime-web: three builds, of which a browser fetches the one that suits it |

Files named `.bin` are packed by gzip. Weights lie in two planes, all upper bytes and then all lower bytes, which packs better.
"""

import copy
import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn

import diffae
from diffae.autoencoder import DiffusionAutoencoder
from diffae.diffusion.schedule import NoisePath, spaced_path
from diffae.interop.graphs import table, traced
from diffae.interop.onnx import loops
from diffae.pictures import save_png, to_pil
from diffae.runtime.files import replacing, write_text
from diffae.runtime.seeding import mix
from diffae.semantics.prior import LatentPrior
from diffae.studio.visit import PREVIEW_JUMPS

HERE = Path(__file__).parent
PAGE = ("index.html", "style.css", "page.js", "worker.js", "numbers.js")
RUNTIME = "onnxruntime-web-1.30.0"
DIGEST = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
"""SHA-512 of its package."""
PATIENCE = 300
"""Seconds that npm may take."""
BUILDS = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded"),
    "jspi": ("ort.jspi.min.mjs", "ort-wasm-simd-threaded.jspi"),
    "asyncify": ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify"),
}
"""Of the runtime: for processors, and for WebGPU where WebAssembly can wait for promises and where it cannot."""
SEED = 0
"""Of all that the page draws: number i is what `ae.sample(seed=0)` gives as number i."""
PRIOR_STEPS = 20
MOST_PARTS = 8
MOST = 25e6
"""Bytes that a visitor may have to fetch."""


class _Call(nn.Module):
    """What the UNet predicts; the page makes x_0 of it."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x_t: Tensor, t: Tensor, z_sem: Tensor, to: Tensor | None = None) -> Tensor:
        return self.unet(x_t, t, z_sem=z_sem, **({} if to is None else {"to": to}))


class _Prior(nn.Module):
    """The noise that the latent DDIM sees in z_t; the page says alpha and sigma, which the schedule holds in float64."""

    def __init__(self, prior: LatentPrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, z_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        eps, gaussian = self.prior.net(z_t, t), self.prior.gaussian
        if gaussian is None:
            return eps
        along = (z_t - alpha * gaussian.mean) @ gaussian.axes
        return eps + sigma * (along / (alpha**2 * gaussian.variances + sigma**2)) @ gaussian.axes.T


def main(
    model: Path = Path("models/avatars64"), out: Path = Path("build/demo"), npm: Path = Path("build/npm"), examples: int = 8
) -> None:
    """Builds the page.

    Args:
        model: a folder or run, of colour pictures; with attributes, and with a latent DDIM where the page shall draw new faces.
        out: the page's folder.
        npm: where the runtime's package is kept.
        examples: faces to begin with, that the model draws.
    """
    ae = diffae.load(model)
    check(ae)
    package = fetched(npm)
    ae = copy.deepcopy(ae).float().cpu().eval().requires_grad_(False)
    for parameter in ae.parameters():  # As `diffae export --dtype bfloat16` rounds them.
        parameter.copy_(parameter.bfloat16())
    for name in PAGE:
        written(out / name, (HERE / name).read_bytes())
    sizes = {name: unpacked(package, name, out / "runtime") for name in BUILDS}
    written(out / "runtime" / "LICENSE", (HERE / "onnxruntime-web.txt").read_bytes())
    x, vector, one = torch.zeros(2, *ae.image_shape), torch.zeros(2, ae.z_dim), torch.ones(2)
    asked = {"x_t": x, "t": one, "z_sem": vector} | ({"to": one} if ae.jumps else {})
    files = {
        "encode": packed(traced(ae.encoder, {"x": x}, "z_sem"), out, "encode"),
        "network": packed(traced(_Call(ae.unet), asked, "output"), out, "network"),
    }
    if isinstance(ae.prior, LatentPrior):
        inputs = {"z_t": vector, "t": one, "alpha": one[:, None], "sigma": one[:, None]}
        files["prior"] = packed(traced(_Prior(ae.prior), inputs, "eps"), out, "prior")
    elif ae.prior is not None:
        print(f"The page draws no new faces: it knows latent DDIMs, and this prior is a {type(ae.prior).__name__}.")
    described = description(ae) | {"files": files | {"space": [space(ae, out / "space.bin")]}}
    described["examples"] = drawn(ae, out / "examples", examples)
    write_text(out / "model.json", json.dumps(described) + "\n")
    rest = sum((out / name).stat().st_size for name in (*PAGE, "model.json"))
    rest += sum((out / name).stat().st_size for name in described["examples"])
    model_size = sum(size for each in described["files"].values() for size in each)
    for name, size in sizes.items():
        total = (size + model_size + rest) / 1e6
        print(f"{name:>8}: {total:.1f} MB, of which the model {model_size / 1e6:.1f} and the runtime {size / 1e6:.1f}")
    if max(sizes.values()) + model_size + rest > MOST:
        raise SystemExit(f"That is more than {MOST / 1e6:.0f} MB: take a smaller model.")
    print(f"{out}: serve it by any web server, such as `python -m http.server --directory {out}`.")


def check(ae: DiffusionAutoencoder) -> None:
    """Refuses models that the page cannot show."""
    if (
        ae.config.latents is not None
        or ae.config.features.network is not None
        or len(ae.image_shape) != 3
        or ae.image_shape[0] != 3
    ):
        raise SystemExit("The page shows models of colour pictures whose networks are all their own, and this is another.")
    if ae.attributes is None or ae.standardizer is None:
        raise SystemExit("The page's sliders are attributes, and this model has none: fit them with `diffae fit-attributes`.")
    if ae.preparation.crop != "center":
        raise SystemExit(
            f"The page crops pictures at their centre, and this model was trained with the crop {ae.preparation.crop!r}."
        )


def fetched(folder: Path) -> Path:
    """The runtime's package, from the npm registry where it is not there yet."""
    file = folder / f"{RUNTIME}.tgz"
    if not file.is_file():
        if shutil.which("npm") is None:
            raise SystemExit(f"There is no npm, which brings the runtime. Put {RUNTIME}.tgz of the npm registry into {folder}.")
        folder.mkdir(parents=True, exist_ok=True)
        # Nothing stands in its place before it is whole: others may build at the same time.
        with tempfile.TemporaryDirectory(dir=folder) as place:
            brought(Path(place))
            digested(Path(place) / file.name).replace(file)
    return digested(file)


def brought(folder: Path) -> None:
    """Lets npm fetch the package into a folder."""
    name, _, version = RUNTIME.rpartition("-")
    command = ["npm", "pack", "--silent", "--fetch-retries=1", f"{name}@{version}"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"npm cannot bring {name}@{version}: it has not answered for {PATIENCE} s. Is there a network?") from None
    if done.returncode:
        raise SystemExit(f"npm cannot bring {name}@{version}: {' '.join(done.stderr.split())[-300:]}")


def digested(file: Path) -> Path:
    """The file, if it holds what it should."""
    if hashlib.sha512(file.read_bytes()).hexdigest() != DIGEST:
        raise SystemExit(f"{file} is damaged, or is not what it says: remove it, and build again.")
    return file


def unpacked(package: Path, build: str, folder: Path) -> int:
    """Writes a build of the runtime, and returns how many bytes a browser fetches of it."""
    module, stem = BUILDS[build]
    size = 0
    with tarfile.open(package) as tar:
        for source in (module, f"{stem}.mjs", f"{stem}.wasm"):
            file = tar.extractfile(f"package/dist/{source}")
            assert file is not None
            if source.endswith(".wasm"):
                size += written(folder / f"{stem}.bin", gzip.compress(file.read(), 9, mtime=0))
            else:
                size += written(folder / source, file.read())
    return size


def packed(model: Any, out: Path, name: str) -> list[int]:
    """Writes a network's graph, and beside it the weights that bfloat16 holds exactly; returns their sizes."""
    from onnx import TensorProto
    from onnx.external_data_helper import set_external_data
    from onnx.numpy_helper import to_array

    narrow(model)
    halves: list[np.ndarray] = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.raw_data) < 1024:
            continue
        bits = np.ascontiguousarray(to_array(tensor)).view(np.uint32).ravel()
        if (bits & 0xFFFF).any():
            continue
        set_external_data(tensor, location=f"{name}.weights", offset=4 * sum(len(half) for half in halves), length=4 * len(bits))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        halves.append(bits >> 16)
    weights = np.concatenate(halves)
    planes = (weights >> 8).astype(np.uint8).tobytes() + (weights & 0xFF).astype(np.uint8).tobytes()
    parts = {"graph": model.SerializeToString(), "weights": planes}
    return [written(out / f"{name}.{part}.bin", gzip.compress(content, 9, mtime=0)) for part, content in parts.items()]


def narrow(model: Any) -> None:
    """Cuts by slices what a `Split` cuts into many parts: a shader of WebGPU sees ten buffers at most."""
    from onnx import helper
    from onnx.numpy_helper import from_array, to_array

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[Any] = []
    for node in model.graph.node:
        if node.op_type != "Split" or len(node.output) <= MOST_PARTS:
            nodes.append(node)
            continue
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        edges = [0, *np.cumsum(to_array(constants[node.input[1]])).tolist()]
        for i, part in enumerate(node.output):
            numbers = {"from": edges[i], "to": edges[i + 1], "axis": axis}
            model.graph.initializer.extend(from_array(np.array([n], np.int64), f"{part}.{name}") for name, n in numbers.items())
            nodes.append(helper.make_node("Slice", [node.input[0], *(f"{part}.{name}" for name in numbers)], [part]))
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    for field, values in (("node", nodes), ("initializer", kept)):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(values)


def space(ae: DiffusionAutoencoder, file: Path) -> int:
    """Writes, as float32: mean (d) and deviation (d) of z_sem; what a strength of 1 adds to it, of each direction (d); weights (d)
    of each attribute's logit, which is linear in z_sem, and the biases; what the network says of noise. Returns the size."""
    attributes, standardizer = ae.attributes, ae.standardizer
    assert attributes is not None
    assert standardizer is not None
    z = torch.zeros(1, ae.z_dim)
    shifts = [attributes.move(z.double(), {name: 1.0}) - z for name in names(ae)]
    # A logit is linear in z_sem: its value at 0, and how it grows along each axis.
    weights = attributes.weight / attributes.standardizer.std
    bias = attributes.bias - (weights * attributes.standardizer.mean).sum(1)
    scale, shift = attributes.calibration.unbind(1)
    binary = torch.tensor([score.kind == "binary" for score in attributes.scores.values()])
    weights = torch.where(binary[:, None], scale[:, None] * weights, weights)
    bias = torch.where(binary, scale * bias + shift, bias)
    t = torch.tensor([float(ae.calibration.mean_t)])
    says = ae.unet(ae.draw_x_T(1, SEED), t, z_sem=standardizer.mean[None])
    parts = [standardizer.mean, standardizer.std, *shifts, weights, bias, says]
    content = torch.cat([part.float().flatten() for part in parts]).numpy().astype("<f4").tobytes()
    return written(file, gzip.compress(content, 9, mtime=0))


def names(ae: DiffusionAutoencoder) -> list[str]:
    """All directions: attributes, then principal directions."""
    assert ae.attributes is not None
    return [*ae.attributes.names, *(f"pc{i + 1}" for i in range(len(ae.attributes.components)))]


def description(ae: DiffusionAutoencoder) -> dict[str, Any]:
    """`model.json`, but for its files."""
    assert ae.attributes is not None
    ways = {name: rows(way.path, ae.config.prediction) | {"clamp": way.clamp} for name, way in loops(ae).items()}
    if ae.jumps:
        few = ae.path_of("anchored", PREVIEW_JUMPS)
        for name, path in (("few_back", few.backwards()), ("few", few)):
            ways[name] = rows(path, ae.config.prediction) | {"clamp": False}
    if isinstance(ae.prior, LatentPrior):
        path = spaced_path(ae.prior.schedule, PRIOR_STEPS - 1).to_the_image()
        ways["prior"] = rows(path, "eps") | {"clamp": False}
    scores = ae.attributes.scores
    return {
        "shape": ae.image_shape, "z_dim": ae.z_dim, "background": ae.preparation.background, "ways": ways,
        "attributes": [{"name": name, "kind": scores[name].kind if name in scores else "component"} for name in names(ae)],
        "ceilings": ae.attributes.ceiling.tolist(),
        "keys": {name: str(mix(SEED, name)) for name in ("x_T", "z_T")},
        "about": {key: ae.about[key] for key in ("data", "licence") if key in ae.about},
    }  # fmt: skip


def rows(path: NoisePath, prediction: str) -> dict[str, Any]:
    """The solver's table (`interop.graphs.table`), with x_0 made of what the network predicts: of v it is `alpha x - sigma v`."""
    columns = table(path)
    alpha = path.alpha_bar[:-1].sqrt().numpy()
    sigma = (1 - path.alpha_bar[:-1]).sqrt().numpy()
    if prediction == "v":
        columns |= {"of_x": alpha, "of_eps": -sigma}
    columns["of_output"] = columns.pop("of_eps")
    return {name: column.tolist() for name, column in (columns | {"alpha": alpha, "sigma": sigma}).items()}


def drawn(ae: DiffusionAutoencoder, folder: Path, num: int) -> list[str]:
    """Faces that the model draws, as files; without a prior, of codes that vary as the training images' do, each axis by itself."""
    if isinstance(ae.prior, LatentPrior):
        images = ae.sample(num, seed=SEED, prior_steps=PRIOR_STEPS)
    else:
        assert ae.standardizer is not None
        noise = torch.randn(num, ae.z_dim, generator=torch.Generator().manual_seed(SEED))
        images = ae.decode(ae.standardizer.inverse(noise), seed=SEED)
    return [str(save_png(to_pil(x), folder / f"{i}.png").relative_to(folder.parent)) for i, x in enumerate(images)]


def written(file: Path, content: bytes) -> int:
    """Writes a file, and returns its size."""
    with replacing(file) as part:
        part.write_bytes(content)
    return len(content)


if __name__ == "__main__":
    tyro.cli(main)
