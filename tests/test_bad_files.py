"""Files that are damaged, hostile, or find no room: one clear error, and nothing half-written is taken for whole."""

import json
import os
import pickle
import resource
import subprocess
import sys
import warnings
import zipfile

import pytest
import torch

import diffae
from diffae.autoencoder import DiffusionAutoencoder
from diffae.interop import official, unpickling
from diffae.runtime.files import replacing, write_text


@pytest.fixture
def saved(tiny, tmp_path):
    DiffusionAutoencoder(tiny).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


class Attack:
    """What a hostile pickle does when it is loaded by an ordinary unpickler."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_is_refused_by_name_and_runs_nothing(tmp_path, legacy):
    file, marker = tmp_path / "last.ckpt", tmp_path / "was_run"
    torch.save({"state_dict": {}, "hyper_parameters": Attack(marker)}, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"last.ckpt names (posix|nt).system, which could run code"):
        official.load(file)
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists(), "the attack must be one"


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "torch.load", "numpy.load", "subprocess.Popen"])
def test_no_function_that_a_pickle_names_is_ever_called(tmp_path, name):
    module, _, function = name.rpartition(".")
    marker = tmp_path / "was_run"
    # GLOBAL name, an argument, REDUCE: the call itself, as an attacker would write it.
    program = f"c{module}\n{function}\n(V{marker}\ntR.".encode()
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    try:
        result = unpickling.load(tmp_path / "a.ckpt")
    except ValueError as error:
        assert "could run code" in str(error)  # noqa: PT017 - either way is safe
    else:
        assert isinstance(result, unpickling.Placeholder)
    assert not marker.exists()


def test_a_torchscript_program_is_refused_and_runs_nothing(tmp_path):
    class Program(torch.nn.Module):
        ran: int

        def __init__(self):
            super().__init__()
            self.ran = 0

        @torch.jit.export
        def __getstate__(self) -> int:
            return self.ran

        @torch.jit.export
        def __setstate__(self, state: int) -> None:
            print("was run")

        def forward(self, x: int) -> int:
            return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Program()), tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last.ckpt is a TorchScript program, not a checkpoint"):
        official.load(tmp_path / "last.ckpt")


def test_a_checkpoint_cut_in_half_says_so(tmp_path):
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1000)}, "hyper_parameters": {}}, file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"last.ckpt \(.* bytes\) cannot be read as a checkpoint: .*It may be cut short"):
        official.load(file)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"a": 1})])
def test_other_files_are_no_checkpoints(tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be read as a checkpoint|is no checkpoint of the authors' code"):
        official.load(tmp_path / "last.ckpt")


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="is no checkpoint of the authors' code: it lacks `state_dict`"):
        official.load(tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match="There is no checkpoint file"):
        official.load(tmp_path / "missing.ckpt")


def test_saved_weights_cut_in_half_are_refused(saved):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ValueError, match="model.safetensors is damaged or cut short"):
        diffae.load(saved)


def test_weights_that_do_not_fit_their_config_are_refused(saved):
    config = json.loads((saved / "config.json").read_text())
    config["model"]["z_dim"] = 7
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"model.safetensors does not fit config.json: .* tensors differ"):
        diffae.load(saved)


def test_an_unknown_key_in_a_saved_config_is_named(saved):
    config = json.loads((saved / "config.json").read_text())
    config["model"]["unet"]["base_chanels"] = 32
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="Unknown setting 'model.unet.base_chanels'"):
        diffae.load(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{cut", "config.json is damaged"), ("{}", "its format is not 'diffae-1'"), ("[]", "its format is not")],
)
def test_a_config_of_something_else_is_refused(saved, content, message):
    (saved / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        diffae.load(saved)


def test_a_folder_without_a_model_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        diffae.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        diffae.load(tmp_path / "missing")


def test_a_failed_write_leaves_what_was_there(tmp_path):
    file = tmp_path / "a.txt"
    write_text(file, "before")

    def fail():
        with replacing(file) as part:
            part.write_text("half of it")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert file.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


FULL_DISK = """
import resource, signal, sys
import diffae, torch
ae = diffae.load(sys.argv[1])
torch.nn.init.ones_(ae.unet.conv_in.weight)
# The system refuses to let a file grow, in the middle of writing it, as a full disk does.
sys.dont_write_bytecode = True  # Or what Python keeps of a module that is imported now would be cut, for everybody after.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    ae.save_pretrained(sys.argv[1])
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
def test_no_room_to_save_is_one_clear_error_and_the_old_model_is_intact(saved):
    before = diffae.load(saved).state_dict()
    script = subprocess.run([sys.executable, "-c", FULL_DISK, saved], capture_output=True, text=True, timeout=120)
    assert "No room to write" in script.stdout, script.stderr
    assert "model.safetensors" in script.stdout
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors"]
    after = diffae.load(saved).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
