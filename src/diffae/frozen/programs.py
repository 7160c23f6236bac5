"""Programs as frozen networks: functions, TorchScript, ONNX; and which of them a model may have run."""

import importlib
import os
import shlex
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffae.frozen.network import BATCH, FrozenNetwork, prepared
from diffae.runtime.files import digest_file, digest_lines, first_line

ALLOWED = "DIFFAE_PROGRAMS"
"""The variable of the environment that names functions and TorchScript files which models may have run: with blanks between, and
in quotes where a name holds blanks itself."""
PERMITTED: set[str] = set()
"""Those that this process may run."""
PROGRAMS = (".pt", ".pth", ".ts", ".torchscript")
"""Endings of TorchScript files."""


def permit(*names: str) -> None:
    """Lets models have these functions (`module:function`) and TorchScript files run.

    Both are programs, and a model only names them: what a downloaded file says must not decide what is run.
    """
    PERMITTED.update(_place(name) for name in names)


def permitted(name: str) -> bool:
    """Whether a model may have it run.

    Raises:
        ValueError: a quote in the environment's variable does not end.
    """
    return _place(name) in PERMITTED | {_place(known) for known in _named(os.environ.get(ALLOWED, ""))}


def _named(text: str) -> list[str]:
    """The names in a line, as shells divide it; a backslash is one, as in the paths of Windows."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""
    try:
        return list(lexer)
    except ValueError:
        raise ValueError(
            f"{ALLOWED} is {text}, in which a quote does not end: put a name that holds one into quotes of the other kind."
        ) from None


def _place(name: str) -> str:
    return name if is_function(name) else str(Path(name).resolve())


def is_program(name: str) -> bool:
    """Whether it is a function or a TorchScript file."""
    return is_function(name) or Path(name).suffix in PROGRAMS


def is_function(name: str) -> bool:
    """Whether it is `module:function`."""
    module, _, function = name.partition(":")
    return module not in ("timm", "transformers") and function.isidentifier() and all(p.isidentifier() for p in module.split("."))


def import_object(name: str) -> Any:
    """What `module:function` names; modules of the working directory too.

    Raises:
        ImportError: there is no such module, or nothing of that name in it.
    """
    module, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.append("")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ImportError(f"{name} cannot be imported ({error}).") from None


def function(name: str) -> FrozenNetwork:
    """A function, or a module of torch that somebody's module holds."""
    found = import_object(name)
    if not callable(found):
        raise ImportError(f"{name} is no function of images.")
    if isinstance(found, nn.Module):
        return replace(prepared(name, found, found), digest="", colour=False)
    return FrozenNetwork(name, found, colour=False)


def program(name: str) -> FrozenNetwork:
    """A TorchScript file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Of TorchScript itself, in which many networks still come.
            module = torch.jit.load(name, map_location="cpu")
    except RuntimeError as error:
        raise ValueError(f"{name} is no TorchScript program: {first_line(error)}.") from None
    return replace(prepared(name, module, module), digest=digest_file(Path(name)))


def onnx(name: str) -> FrozenNetwork:
    """An ONNX file."""
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(f"{name} is run by onnxruntime: pip install 'diffae[encoders]'.") from None
    try:
        session = onnxruntime.InferenceSession(name, providers=onnxruntime.get_available_providers())
    except Exception as error:  # Its errors are of many classes, all of them its own.
        reason = first_line(error)
        raise ValueError(f"{name} is no ONNX file that can be run: {reason}. It may be damaged: copy it again.") from None
    given, *others = session.get_inputs()
    if others or len(given.shape) != 4:
        raise ValueError(f"{name} should take one array of images (n, c, h, w); it takes {[i.name for i in session.get_inputs()]}.")
    batch, channels, *sides = given.shape
    most = batch if isinstance(batch, int) else BATCH

    def one(x: Tensor) -> Tensor:
        filled = F.pad(x, (0,) * 7 + (most - len(x),)) if isinstance(batch, int) else x
        try:
            return torch.from_numpy(session.run(None, {given.name: filled.detach().cpu().numpy()})[0])[: len(x)].to(x.device)
        except Exception as error:  # As above.
            raise ValueError(f"{name} does not take images {tuple(x.shape)}: {first_line(error)}.") from None

    size = tuple(sides) if all(isinstance(side, int) for side in sides) else None
    # Weights may lie in files beside it, which it names.
    content = Path(name).read_bytes()
    parts = sorted(
        f for f in Path(name).parent.iterdir() if f.is_file() and f.name != Path(name).name and f.name.encode() in content
    )
    digest = digest_lines([digest_file(file) for file in (Path(name), *parts)])
    return FrozenNetwork(
        name, lambda x: torch.cat([one(part) for part in x.split(most)]), size=size, digest=digest, colour=channels == 3
    )
