"""Reading pickled checkpoints without importing or running anything that they name.

`torch.load(weights_only=True)` refuses the checkpoints that PyTorch Lightning writes, because they carry callback
classes. Here torch still reads the file, through an unpickler that knows the few functions that rebuild tensors, puts an
inert placeholder where a file names something that a checkpoint may well carry (a callback, a NumPy scalar), and refuses
everything else by name. Placeholders do nothing: whatever a pickle calls on them, no code of anybody's runs.
"""

import collections
import pickle
import types
from pathlib import Path
from typing import Any

import torch

from diffae.runtime.files import pointer_or

STORAGES = (
    "FloatStorage DoubleStorage HalfStorage BFloat16Storage LongStorage IntStorage ShortStorage CharStorage ByteStorage BoolStorage"
)
REBUILDERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
    **{("torch", name): getattr(torch, name) for name in STORAGES.split()},
}
"""All that is needed to rebuild tensors; nothing else of what a file names is ever looked up."""

INERT_MODULES = (
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "numpy",
    "torch",
    "collections",
    "pathlib",
    "argparse",
    "_codecs",
)
"""Packages whose objects checkpoints carry beside their weights, as training state: replaced by placeholders."""


class Placeholder:
    """Stands where a file names something that is neither needed nor run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


class RefusedGlobal(pickle.UnpicklingError):
    """A file names something that no checkpoint needs."""


class RefusedProgram(pickle.UnpicklingError):
    """A file holds TorchScript code."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in REBUILDERS:
            return REBUILDERS[module, name]
        if module.split(".")[0] in INERT_MODULES:
            return type(name, (Placeholder,), {})
        raise RefusedGlobal(f"{module}.{name}")


def _load(file: Any, **kwargs: Any) -> Any:
    return _Unpickler(file, **kwargs).load()


# torch.load takes the unpickler as a module that looks like `pickle`.
_inert_pickle: Any = types.ModuleType("inert_pickle")
_inert_pickle.Unpickler = _Unpickler
_inert_pickle.load = _load


def _refuse_programs(path: Path) -> None:
    """TorchScript archives, which `torch.load` would hand to `torch.jit.load`, which runs code of theirs."""
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    # Torch's own reader: another one might find other entries in a crafted archive.
    if is_zip and "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records():
        raise RefusedProgram


def load(path: str | Path) -> Any:
    """What a `torch.save` file holds, on the CPU: tensors and plain Python values, placeholders elsewhere.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a checkpoint, one cut short, or one that names something that could run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint file {path}.")
    try:
        _refuse_programs(path)
        return torch.load(path, map_location="cpu", pickle_module=_inert_pickle, weights_only=False)
    except RefusedProgram:
        raise ValueError(f"{path} is a TorchScript program, not a checkpoint. It was refused and nothing of it was run.") from None
    except RefusedGlobal as error:
        raise ValueError(
            f"{path} names {error}, which could run code and which no checkpoint needs. It was refused and nothing of it was "
            "run; get the file from a source that you trust."
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # Of damaged files, whatever the reader stumbles over.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = pointer_or(
            path,
            f"({path.stat().st_size:,} bytes) cannot be read as a checkpoint: {reason}. It may be cut short: compare its size with "
            "the original's and copy it again",
        )
        raise ValueError(f"{path} {what}.") from None
