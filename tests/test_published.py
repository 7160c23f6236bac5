"""Published models of the authors by name: where their code keeps them, or in a copy on the hub; missed with directions."""

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

import diffae
from diffae import cli
from diffae.config import RunConfig
from diffae.interop import official
from diffae.interop.official import published

FIXTURE = Path(__file__).parent / "fixtures" / "official" / "last.ckpt"


@pytest.fixture
def content():
    return torch.load(FIXTURE, weights_only=True)


@pytest.fixture
def place(tmp_path, monkeypatch, content):
    """An empty folder to work in, where the fixture is published as `tiny`, and a hub that has copies of it where `hub` says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFAE_CACHE", str(tmp_path / "cache"))
    copy = ("somebody/tiny", "weights.safetensors", "classifier.safetensors", "statistics.safetensors")
    monkeypatch.setitem(
        official.PUBLISHED, "tiny", published.PublishedModel("tiny_autoenc", "https://page.of/tiny", "https://of/cls", copy)
    )
    settings = official.load(FIXTURE).config
    monkeypatch.setattr("diffae.cli.models.preset", lambda name: RunConfig(model=replace(settings)))

    def snapshot_download(name, *, revision, allow_patterns):
        if not (tmp_path / "hub").is_dir():
            from huggingface_hub.errors import LocalEntryNotFoundError

            raise LocalEntryNotFoundError("no connection")
        return str(tmp_path / "hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return tmp_path


def copied(folder, content, z_dim):
    """What a copy on the hub holds: averaged weights without their prefix, and the classifier apart from its statistics."""
    folder.mkdir()
    alone = {k.removeprefix("ema_model."): t.contiguous() for k, t in content["state_dict"].items() if k.startswith("ema_model.")}
    alone = {k: t for k, t in alone.items() if not k.startswith("latent_net.")}
    safetensors.torch.save_file(alone, folder / "weights.safetensors")
    generator = torch.Generator().manual_seed(0)
    names = {f"{kind}.{part}": shape for kind in ("classifier", "ema_classifier") for part, shape in
             (("weight", (40, z_dim)), ("bias", (40,)))}  # fmt: skip
    classifier = {name: torch.randn(shape, generator=generator) for name, shape in names.items()}
    safetensors.torch.save_file(classifier, folder / "classifier.safetensors")
    statistics = {
        "conds_mean": torch.randn(1, z_dim, generator=generator),
        "conds_std": torch.rand(1, z_dim, generator=generator) + 0.5,
    }
    safetensors.torch.save_file(statistics, folder / "statistics.safetensors")
    return classifier, statistics


def test_a_checkpoint_where_their_code_keeps_it_is_imported_by_its_name(place, capsys):
    (place / "checkpoints" / "tiny_autoenc").mkdir(parents=True)
    (place / "checkpoints" / "tiny_autoenc" / "last.ckpt").write_bytes(FIXTURE.read_bytes())
    with pytest.raises(
        FileNotFoundError, match=r"tiny is a model that the authors published. Import it once: `diffae import tiny`"
    ):
        diffae.load("tiny")
    cli.main(["import", "tiny"])
    expected = official.load(FIXTURE)
    found = diffae.load("tiny")
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    assert found.prior is not None


def test_a_copy_on_the_hub_is_imported_with_its_classifier(place, content):
    expected = official.load(FIXTURE)
    classifier, statistics = copied(place / "hub", content, expected.z_dim)
    cli.main(["import", "tiny"])
    found = diffae.load("tiny")
    assert found.prior is None
    for part in ("unet", "encoder"):
        for name, tensor in getattr(expected, part).state_dict().items():
            assert torch.equal(getattr(found, part).state_dict()[name], tensor), name
    assert torch.equal(found.attributes.weight, classifier["ema_classifier.weight"])
    assert torch.equal(found.attributes.standardizer.mean, statistics["conds_mean"][0])
    x = torch.rand(1, *found.image_shape) * 2 - 1
    assert found.manipulate(x, "Smiling", steps=2).shape == x.shape


def test_a_model_that_is_nowhere_is_missed_with_directions(place, capsys):
    with pytest.raises(SystemExit):
        cli.main(["import", "tiny"])
    said = " ".join(capsys.readouterr().err.split())
    assert "There is no checkpoints/tiny_autoenc/last.ckpt" in said
    assert "its copy on the hub, somebody/tiny, cannot be had" in said
    assert "fetch last.ckpt from https://page.of/tiny to checkpoints/tiny_autoenc/last.ckpt" in said
    with pytest.raises(SystemExit):
        cli.main(["import", "horse128-latent"])
    assert "no copy of it is known on the hub" in " ".join(capsys.readouterr().err.split())


def test_weights_alone_ask_for_their_networks(place, content, capsys):
    copied(place / "hub", content, 16)
    with pytest.raises(ValueError, match="has weights alone, and does not say of which networks. Name them: --preset"):
        official.load(place / "hub" / "weights.safetensors")
    (place / "cut.safetensors").write_bytes((place / "hub" / "weights.safetensors").read_bytes()[:999])
    with pytest.raises(ValueError, match=r"cut\.safetensors is damaged or cut short"):
        official.load(place / "cut.safetensors")
    with pytest.raises(SystemExit):
        cli.main(["import", str(FIXTURE)])
    assert "Give --out" in capsys.readouterr().err


def test_every_published_model_has_a_preset_and_a_page():
    from diffae.config.presets import preset

    for name, model in official.PUBLISHED.items():
        assert preset(name.removesuffix("-latent")).model.z_dim == 512
        assert model.page.startswith("https://drive.google.com/drive/folders/")
        assert (model.classifier is None) == (not name.startswith("ffhq"))


def test_a_copy_says_that_it_is_one_and_has_no_raw_weights(place, content, capsys):
    copied(place / "hub", content, official.load(FIXTURE).z_dim)
    cli.main(["import", "tiny"])
    assert "From a copy on the hub, somebody/tiny: not the authors' own files" in " ".join(capsys.readouterr().err.split())
    assert diffae.load("tiny").about == {"source": "tiny, from a copy on the hub, somebody/tiny"}
    with pytest.raises(SystemExit):
        cli.main(["import", "tiny", "--raw"])
    assert "a copy of the averaged weights alone" in " ".join(capsys.readouterr().err.split())
