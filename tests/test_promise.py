"""Files of every version since the promise (docs/promise.md) are read, and mean what they meant; what goes says so."""

import importlib
import json
import shutil
import subprocess
import sys

import pyarrow.parquet as parquet
import pytest
import safetensors.torch
import torch
from promised import PLACE, small

import diffae
from diffae import cli
from diffae._moved import METHODS, MOVED, OPTIONS, RENAMED, with_new_options
from diffae.config import RunConfig, from_dict, read_json, to_dict
from diffae.data.codes import read_codes
from diffae.edits import Edit
from diffae.interop import comparators
from diffae.interop.fingerprints import fingerprint

VERSIONS = sorted(p.name for p in PLACE.glob("*"))


def test_there_are_files_of_this_version():
    assert diffae.__version__ in VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_files_of_a_version_mean_what_they_meant(version):
    folder = PLACE / version
    expected = safetensors.torch.load_file(folder / "expected.safetensors")
    ae = diffae.load(folder / "run")
    z_sem = ae.encode(expected["x"])
    torch.testing.assert_close(z_sem, expected["z_sem"], rtol=1e-4, atol=1e-5)
    # Its codes differ by a millionth from image to image, which standardizing magnifies as much as rounding: so on with those kept.
    z_sem = expected["z_sem"]
    torch.testing.assert_close(ae.decode_mean(z_sem[:2], t=900, seed=0), expected["decoded"], rtol=1e-3, atol=1e-4)
    for i, name in enumerate(("bright", "level")):
        torch.testing.assert_close(ae.attributes.probabilities(z_sem)[:, i], expected[name], rtol=1e-3, atol=1e-4)
    assert ae.attributes.names == ["bright", "level"]
    for name in ("ddim", "gaussian", "kernel"):
        drawn = diffae.load(folder / "run", prior=name).prior.sample(3, seed=0)
        torch.testing.assert_close(drawn, expected[name], rtol=1e-3, atol=1e-4)
    z = ae.standardizer(z_sem)
    torch.testing.assert_close(ae.prior.net(z, torch.full((40,), 500.0)), expected["eps"], rtol=1e-3, atol=1e-4)
    codes = read_codes(folder / "codes.parquet")
    assert codes.names == [f"{i:02d}.png" for i in range(40)]
    assert codes.labels["bright"].tolist() == [i % 2 for i in range(40)]
    assert all(130 <= level < 220 if i % 2 else 30 <= level < 120 for i, level in enumerate(codes.labels["level"]))
    torch.testing.assert_close(codes.z_sem, expected["z_sem"], rtol=1e-4, atol=1e-5)
    x_T = torch.tensor(parquet.read_table(folder / "codes.parquet")["x_T"].to_pylist()).view(40, 1, 8, 8)
    torch.testing.assert_close(x_T, expected["x_T"], rtol=1e-3, atol=1e-4)
    edit = Edit.from_json((folder / "edit.json").read_text())
    torch.testing.assert_close(edit.render(ae, model=fingerprint(ae)), expected["edited"], rtol=1e-3, atol=1e-4)
    assert read_json(RunConfig, folder / "run" / "config.json").model == ae.config


@pytest.mark.parametrize("kind", ["vae", "vq"])
@pytest.mark.parametrize("version", VERSIONS)
def test_comparators_of_a_version_mean_what_they_meant(version, kind):
    pytest.importorskip("diffusers", reason="Comparators are networks of diffusers: pip install 'diffae[interop]'.")
    expected = safetensors.torch.load_file(PLACE / version / "expected.safetensors")
    comparator = comparators.load(PLACE / version / kind)
    torch.testing.assert_close(comparator.decode(comparator.encode(expected["x"][:2])), expected[kind], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("version", VERSIONS)
def test_commands_read_files_of_a_version(version, tmp_path, monkeypatch):
    shutil.copytree(PLACE / version, tmp_path / "old")
    monkeypatch.chdir(tmp_path)
    cli.main(["manipulate", "old/run", "--from", "old/edit.json", "--out", "again.png"])
    cli.main(["sample", "old/run", "--num", "2", "--steps", "2", "--out", "samples.png"])
    assert (tmp_path / "again.png").is_file()
    assert (tmp_path / "samples.png").is_file()


def test_a_setting_that_a_file_lacks_takes_its_default_and_an_unknown_one_is_an_error():
    values = to_dict(RunConfig(model=small().config))
    del values["training"]["contrast"], values["model"]["unet"]["patch"], values["start"]
    assert from_dict(RunConfig, values) == RunConfig(model=small().config)
    with pytest.raises(ValueError, match=r"Unknown setting 'model\.unet\.later'"):
        from_dict(RunConfig, values | {"model": {"unet": {"later": 1}}})


def test_a_file_of_a_later_format_is_refused_by_name(tmp_path):
    shutil.copytree(PLACE / diffae.__version__ / "run" / "model", tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": "diffae-2"}))
    with pytest.raises(ValueError, match=r"its format is not 'diffae-1'"):
        diffae.load(tmp_path)


def test_a_module_that_moved_answers_and_says_where_it_is():
    sys.modules.pop("diffae.schedule", None)
    with pytest.warns(DeprecationWarning, match=r"diffae\.schedule is diffae\.diffusion\.schedule now; the old name goes in 0\.2"):
        import diffae.schedule
    assert diffae.schedule.Schedule is __import__("diffae.diffusion.schedule", fromlist=["Schedule"]).Schedule


def test_no_old_name_is_forgotten_before_its_time():
    """The tests below go through the tables, and would not miss what is no longer in them."""
    names = json.loads((PLACE / "0.1.0" / "names.json").read_text())
    assert diffae.__version__ < "0.2", "which is when these go"
    for table, kept in ((MOVED, "modules"), (RENAMED, "names"), (METHODS, "methods"), (OPTIONS, "options")):
        for key, news in names[kept].items():
            assert dict(table[key]).items() >= news.items() if isinstance(news, dict) else table[key] == tuple(news), key


@pytest.mark.parametrize(("module", "old"), [(module, old) for module, names in RENAMED.items() for old in names])
def test_a_name_that_changed_answers_and_says_the_new_one(module, old):
    home, new = importlib.import_module(f"diffae.{module}"), RENAMED[module][old]
    said = rf"diffae\.{module}\.{old} is diffae\.{module}\.{new} now; the old name goes in 0\.2"
    with pytest.warns(DeprecationWarning, match=said) as caught:
        assert getattr(home, old) is getattr(home, new)
    assert caught[0].filename == __file__, "it names the line that is to be changed"
    assert old not in vars(home), "nothing else keeps the old name"
    with pytest.raises(AttributeError, match=r"no attribute 'Nothing'"):
        _ = home.Nothing


@pytest.mark.parametrize(("path", "old"), [(path, old) for path, names in METHODS.items() for old in names])
def test_a_method_whose_name_changed_answers_and_says_the_new_one(path, old):
    module, _, kind = path.rpartition(".")
    new, ae = METHODS[path][old], small()
    assert isinstance(ae, getattr(importlib.import_module(f"diffae.{module}"), kind))
    said = rf"DiffusionAutoencoder\.{old} is DiffusionAutoencoder\.{new} now; the old name goes in 0\.2"
    with pytest.warns(DeprecationWarning, match=said) as caught:
        assert getattr(ae, old) == getattr(ae, new)
    assert caught[0].filename == __file__


def test_an_option_whose_name_changed_answers_and_says_the_new_one(tmp_path, capsys):
    for command, options in OPTIONS.items():
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        told = capsys.readouterr().out
        for old, new in options.items():
            assert f"{new} " in told, f"diffae {command} has no {new}"
            assert f"{old} " not in told, f"diffae {command} has {old} yet"
            with pytest.warns(DeprecationWarning, match=f"^{old} is {new} now; the old name goes in 0.2"):
                assert with_new_options([command, old, "2", f"{old}=2", "--out", old[2:]])[1:4] == [new, "2", f"{new}=2"]
    assert with_new_options(["compare", "--against"]) == ["compare", "--against"], "another command's"
    line = [sys.executable, "-m", "diffae", "align", str(tmp_path / "none"), "--out", str(tmp_path / "faces"), "--most", "1"]
    said = subprocess.run(line, capture_output=True, text=True).stderr
    assert "--most is --max-faces now; the old name goes in 0.2." in said, "the terminal shows it"
    assert "unrecognized" not in said.lower()
