"""The commands. No tensor maths here, and nothing heavy is imported before a command is known."""

import functools
import itertools
import operator
import sys
import warnings
from typing import Annotated, Any

import tyro
from rich.markup import escape

import diffae
from diffae import _moved
from diffae.cli import arguments
from diffae.cli.anomaly import Anomaly
from diffae.cli.bars import console
from diffae.cli.bench import Bench
from diffae.cli.codes import Encode, FitAttributes, Neighbours
from diffae.cli.distillation import Distill
from diffae.cli.evaluation import Compare, Evaluate
from diffae.cli.explanation import Audit, Explain
from diffae.cli.faces import Align, Paste
from diffae.cli.manipulation import Manipulate
from diffae.cli.models import Average, Calibrate, Import, Weights
from diffae.cli.pictures import Interpolate, Reconstruct, Vary
from diffae.cli.posterior import Posterior
from diffae.cli.priors import TrainPrior
from diffae.cli.publishing import Export, Push
from diffae.cli.sampling import Sample
from diffae.cli.studio import Studio
from diffae.cli.training import Quickstart, Train, TrainComparator, defaults
from diffae.runtime import memory

COMMANDS = {
    "quickstart": Quickstart,
    "train": Train,
    "train-prior": TrainPrior,
    "train-comparator": TrainComparator,
    "distill": Distill,
    "fit-attributes": FitAttributes,
    "posterior": Posterior,
    "encode": Encode,
    "neighbours": Neighbours,
    "reconstruct": Reconstruct,
    "vary": Vary,
    "interpolate": Interpolate,
    "manipulate": Manipulate,
    "align": Align,
    "paste": Paste,
    "sample": Sample,
    "explain": Explain,
    "audit": Audit,
    "anomaly": Anomaly,
    "studio": Studio,
    "average": Average,
    "calibrate": Calibrate,
    "evaluate": Evaluate,
    "compare": Compare,
    "bench": Bench,
    "weights": Weights,
    "import": Import,
    "export": Export,
    "push": Push,
}


TRACEBACK = "--traceback"
"""Anywhere on a command line: an error is shown with the way to it, for reports."""


NETWORK = "--model.features.network"
"""The option by which a command line names a frozen network, which may be a program."""


def _command(argv: list[str]) -> Any:
    """All commands as one type. The training command asked for gets the defaults of the preset that the command line names; a
    program that the line itself names is permitted."""
    given = itertools.chain.from_iterable(a.split("=", 1) if a.startswith("--") else [a] for a in argv)
    pairs = list(itertools.pairwise(given))[::-1]  # Of what is given twice the last counts, as everywhere.
    options = ("--preset", "--from", "--out", NETWORK)
    name, start, out, network = (next((b for a, b in pairs if a == option), None) for option in options)
    if network is not None:  # Whoever names it here has it run; a model that is started from does not.
        from diffae.frozen.programs import permit

        permit(network)
    kinds = []
    for command, kind in COMMANDS.items():
        # Other commands know no preset of that name.
        default = defaults(kind, name, start, out) if command == next(iter(argv), None) else None
        kinds.append(Annotated[kind, tyro.conf.subcommand(command, **({} if default is None else {"default": default}))])
    return functools.reduce(operator.or_, kinds)


def _what_helps(command: Any, error: BaseException) -> memory.OutOfMemory:
    """The error to show when the process or a card runs out of memory."""
    size = getattr(command, "batch_size", None)
    ways = ["fewer images at a time"] if size is None else [f"a smaller --batch-size than {size}"]
    if hasattr(command, "training"):
        ways = [
            "--training.accumulation auto",
            "--training.recompute",
            "a smaller --training.batch-size (which is another training)",
        ]
    elif getattr(command, "precision", None) == "float32":
        ways.append("--precision bfloat16")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return memory.OutOfMemory(f"There is not enough memory ({reason}). What helps: {'; '.join(ways)}.")


def main(argv: list[str] | None = None) -> None:
    """The entry point of `diffae`."""
    argv = sys.argv[1:] if argv is None else argv
    argv, whole = [a for a in argv if a != TRACEBACK], TRACEBACK in argv
    if argv == ["--version"]:
        print(f"diffae {diffae.__version__}")
        return
    with warnings.catch_warnings():
        # Here the reader is a user, from whom Python would hide it.
        warnings.filterwarnings("default", r".*the old name goes in", DeprecationWarning)
        argv = _moved.with_new_options(argv)
    memory.keep_freed()
    command = None
    try:
        command = tyro.cli(
            _command(argv),
            prog="diffae",
            description="Diffusion autoencoders: an image becomes a meaningful vector and a noise map, and both become it again. "
            f"With {TRACEBACK} an error shows where it came from.",
            args=argv,
        )
        arguments.check(command)
        command.run()
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError) as error:
        if whole:
            raise
        if memory.is_out_of_memory(error):
            error = _what_helps(command, error)
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        if isinstance(error, TypeError | RuntimeError) and not isinstance(error, memory.OutOfMemory):
            console.print(f"If that tells you nothing, {TRACEBACK} shows where it came from.")
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("Interrupted.")
        sys.exit(130)
