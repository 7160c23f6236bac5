"""The pages of the site that are made from the source: names, commands, settings."""

import ast
import contextlib
import dataclasses
import functools
import importlib
import inspect
import io
import os
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import diffae
from diffae import cli, config
from diffae.config.presets import PRESETS, PRIOR_PRESETS

OWN_PARTS = (
    "diffae.nn.encoder.Encoder",
    "diffae.diffusion.predictor.NoisePredictor",
    "diffae.diffusion.solvers.Step",
    "diffae.data.sources.source.Source",
    "diffae.data.sources.source.Labelled",
    "diffae.training.subjects.Subject",
    "diffae.evaluation.suites.bench.Suite",
    "diffae.evaluation.suites.bench.Measure",
)
"""Protocols of what users may put in the place of ours."""
BESIDE = (
    "diffae.semantics.attributes.Attributes",
    "diffae.semantics.attributes.Score",
    "diffae.semantics.standardizer.Standardizer",
    "diffae.semantics.rejection.Accepted",
    "diffae.semantics.explanations.Counterfactuals",
    "diffae.semantics.fitting.fit_few",
    "diffae.diffusion.schedule.Calibration",
    "diffae.data.images.load_images",
    "diffae.data.sources.tile_map",
    "diffae.edits.Edit",
)
"""What public methods take and give, and what the pages call."""
METHOD = (
    "diffae.diffusion.schedule.Schedule",
    "diffae.diffusion.schedule.NoisePath",
    "diffae.diffusion.schedule.decoding_path",
    "diffae.diffusion.schedule.encoding_path",
    "diffae.diffusion.schedule.spaced_path",
    "diffae.diffusion.solvers.solve",
    "diffae.diffusion.solvers.trajectory",
    "diffae.diffusion.interpolation.lerp",
    "diffae.diffusion.interpolation.slerp",
    "diffae.diffusion.interpolation.geodesic",
    "diffae.semantics.prior.LatentPrior",
    "diffae.semantics.prior.GaussianPrior",
    "diffae.semantics.prior.KernelPrior",
)
"""The parts of the method that a script may want by themselves."""
SPOKEN = ("__call__", "__getitem__")
"""Methods with underscores that are for users."""
WIDE = 129
"""Columns of a terminal in which help texts are wide, and their boxes still one below the other."""


def pages() -> dict[str, str]:
    """All of them: path in the site -> Markdown."""
    return {
        "reference/python.md": python_page(),
        "reference/parts.md": parts_page(),
        "reference/commands.md": commands_page(),
        "reference/configuration.md": configuration_page(),
    }


# Python --------------------------------------------------------------------------------------------------------------


def python_page() -> str:
    """Every public name of `diffae`, and of `diffae.interop`."""
    text = "# Python\n\nThe public names of `diffae`. [What is promised of them](../promise.md).\n\n"
    for name in sorted(diffae.__all__, key=lambda name: (name != "load", name != "DiffusionAutoencoder", name)):
        if not inspect.ismodule(getattr(diffae, name)):
            text += _entry(f"diffae.{name}")
    text += "## interop\n\n`diffae.interop` reads weights and formats of others, and writes ours.\n\n"
    for module in diffae.interop.__all__:
        text += f"### {module}\n\n"
        found = importlib.import_module(f"diffae.interop.{module}")
        text += textwrap.dedent(found.__doc__ or "").strip() + "\n\n"
        # `load` and `load_diffusion` of `weights` are those above.
        public = getattr(found, "__all__", None) or ["load_config", "save_calibration"]
        for name in public:
            text += _entry(f"diffae.interop.{module}.{name}", level=4)
    return text


def parts_page() -> str:
    """What can be replaced, and what methods take and give."""
    text = "# Parts\n\n## Parts of your own\n\n"
    text += "Each is a protocol: any object with these members will do. "
    text += "`tests/test_plugs.py` and its like plug in a foreign one of each.\n\n"
    text += "".join(_entry(name, level=3) for name in OWN_PARTS)
    text += "## What methods take and give\n\n" + "".join(_entry(name, level=3) for name in BESIDE)
    text += "## The method by itself\n\n" + "".join(_entry(name, level=3) for name in METHOD)
    return text


def _entry(name: str, *, level: int = 2) -> str:
    """A heading, and what mkdocstrings makes of the name; of a class its own members first, then those that it has of others."""
    text = f"::: {name}\n    options:\n      heading_level: {level}\n"
    found = members(_named(name))
    return text + (f"      members: [{', '.join(found)}]\n\n" if found else "\n")


def _named(name: str) -> Any:
    """What a dotted name means."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def members(kind: Any) -> list[str]:
    """The members of a class that are for users: methods and properties without a leading underscore, calls and items."""
    if not inspect.isclass(kind):
        return []
    bases = [base for base in kind.__mro__ if base.__module__.startswith("diffae.")]
    names = dict.fromkeys(name for base in bases for name in vars(base) if not name.startswith("_") or name in SPOKEN)
    return [name for name in names if not isinstance(found := inspect.getattr_static(kind, name), type) and _is_told(found)]


def _is_told(member: Any) -> bool:
    return isinstance(member, property | classmethod | staticmethod | functools.cached_property) or inspect.isfunction(member)


# Commands ------------------------------------------------------------------------------------------------------------


@dataclass
class Group:
    """A box of a help text.

    Attributes:
        title: such as `options`.
        about: a sentence.
        entries: (how an argument is written, what it says).
    """

    title: str
    about: str = ""
    entries: list[tuple[str, str]] = field(default_factory=list)


def help_text(*command: str) -> str:
    """What `diffae COMMAND --help` prints."""
    text, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDE)
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            cli.main([*command, "--help"])
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    return text.getvalue()


def parsed(text: str) -> tuple[str, list[Group]]:
    """A help text: what stands before its boxes, and the boxes."""
    before, groups = list[str](), list[Group]()
    lines = [line.rstrip() for line in text.splitlines()]
    for i, line in enumerate(lines):
        if i + 1 < len(lines) and re.fullmatch(r" -{20,}", lines[i + 1]):
            groups.append(Group(line.strip()))
        elif not groups:
            before.append(line)
        elif re.fullmatch(r"  -{20,}", line):
            group = groups[-1]
            group.about, group.entries = " ".join(" ".join(entry).strip() for entry in group.entries).strip(), []
        elif re.match(r"  \S", line):
            name, _, told = line.strip().partition("  ")
            groups[-1].entries.append((name, told.strip()))
        elif line.strip() and not re.fullmatch(r" -{20,}", line) and groups[-1].entries:
            name, told = groups[-1].entries.pop()
            groups[-1].entries.append((name, f"{told} {line.strip()}".strip()))
    return "\n".join(before[1:]).strip(), groups


def commands_page() -> str:
    """Every command, from its own help text."""
    text = "# Command line\n\nWhat `diffae COMMAND --help` prints, for every command.\n\n"
    text += "| command | |\n|---|---|\n"
    helps = {name: parsed(help_text(name)) for name in cli.COMMANDS}
    for name, (before, _) in helps.items():
        text += f"| [`{name}`](#{name}) | {before.splitlines()[0]} |\n"
    text += "\n`--traceback`, anywhere on a command line, shows where an error came from; `diffae --version` says the version.\n\n"
    for name, (before, groups) in helps.items():
        text += f"## `diffae {name}` {{: #{name} }}\n\n" + command(before, groups)
        for below in subcommands(groups):
            text += f"### `diffae {name} {below}` {{: #{name}-{below} }}\n\n" + command(*parsed(help_text(name, below)))
    return text


def subcommands(groups: list[Group]) -> list[str]:
    """The names of a command's own commands."""
    told = " ".join(" ".join(entry) for group in groups if group.title == "subcommands" for entry in group.entries)
    return re.findall(r"• (\w+)", told)


def command(before: str, groups: list[Group]) -> str:
    """A command in Markdown."""
    text = re.sub(r"^Example: (.*)$", r"```sh\n\1\n```", before, flags=re.MULTILINE) + "\n\n"
    for group in groups:
        entries = [entry for entry in group.entries if not entry[0].startswith("-h, ")]
        if group.title == "subcommands" or not entries:
            continue
        if group.title not in ("options", "positional arguments"):
            text += f"**{group.title.removesuffix(' options')}**: {group.about}\n\n"
        text += "".join(_defined(f"`{name}`", told) for name, told in entries)
    return text


def _defined(term: str, told: str) -> str:
    """An entry of a list of definitions."""
    return f"{term}\n:   {_plain_text(told)}\n\n"


def _plain_text(text: str) -> str:
    """Text on one line, of which outside of code no sign is one of Markdown's or HTML's."""
    parts = re.split(r"(`[^`]*`)", re.sub(r"\s+", " ", text).strip())
    return "".join(part if part.startswith("`") else re.sub(r"([<*_])", r"\\\1", part) for part in parts)


# Settings ------------------------------------------------------------------------------------------------------------


def configuration_page() -> str:
    """Every field of every configuration, and the presets."""
    text = "# Configuration\n\nA run's settings are in `RUN/config.json`, a model's in `model/config.json`; an unknown key or "
    text += "a value of another type is an error that names its path. On the command line a field is an option: "
    text += "`--training.batch-size 64`.\n\n"
    text += "`Count` is a whole number from 1 on, `Share` a number of 0 to 1, `Amount` one from 0 on.\n\n"
    for name, kind in configurations().items():
        text += f"## {name}\n\n{(kind.__doc__ or '').strip()}\n\n"
        bases = [base.__name__ for base in kind.__mro__[1:] if dataclasses.is_dataclass(base)]
        if bases:
            text += "Fields that are not here are those of " + ", ".join(f"[{base}](#{base.lower()})" for base in bases) + ".\n\n"
        for field_name, annotation, default, told in fields_of(kind):
            written = f"{field_name}: {annotation}" + (f" = {default}" if default else "")
            text += _defined(f'<span id="{name}.{field_name}"></span>`{written}`', told)
    return text + _presets()


def configurations() -> dict[str, type]:
    """The configuration classes, those of whole runs first."""
    found = {name: getattr(config, name) for name in config.__all__ if dataclasses.is_dataclass(getattr(config, name))}
    return dict(sorted(found.items(), key=lambda item: ("Run" not in item[0], item[0])))


def fields_of(kind: type) -> Iterator[tuple[str, str, str, str]]:
    """Of each field that a class adds: name, type, default and what the source says of it."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(node, ast.ClassDef)
    for statement, following in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            told = following.value.value if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant) else ""
            default = "" if statement.value is None else ast.unparse(statement.value)
            default = re.sub(r"^field\(default_factory=(\w+)\)$", r"\1()", default)
            yield statement.target.id, _type(statement.annotation), default, str(told)


def _type(annotation: ast.expr) -> str:
    """A type as it is written; of one with a range, the type alone."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        assert isinstance(annotation.slice, ast.Tuple)
        return ast.unparse(annotation.slice.elts[0])
    return ast.unparse(annotation)


def _presets() -> str:
    text = "## Presets\n\nWhere `--preset NAME` starts from; `NAME-ddim` is the plain DDIM beside it.\n\n"
    text += "| preset | image | z_dim | predicts | batch | budget | contrast |\n|---|---|--:|---|--:|--:|--:|\n"
    for name, run in PRESETS.items():
        model, training = run.model, run.training
        if not name.endswith("-ddim"):
            cells: list[Any] = [f"`{name}`", config.spelled(model.image_size), model.z_dim, model.prediction, training.batch_size]
            text += "| " + " | ".join(map(str, [*cells, _budget(training, "images"), training.contrast or ""])) + " |\n"
    text += "\nOf priors (`diffae train-prior RUN --preset NAME`); `gaussian` and `kernel` need no training:\n\n"
    text += "| preset | width | layers | batch | budget |\n|---|--:|--:|--:|--:|\n"
    for name, prior in PRIOR_PRESETS.items():
        budget = _budget(prior.training, "codes")
        text += f"| `{name}` | {prior.model.width} | {prior.model.layers} | {prior.training.batch_size} | {budget} |\n"
    return text


def _budget(training: config.TrainingConfig, counted: str) -> str:
    return f"{training.images:,} {counted}" if training.images else f"{training.minutes:g} minutes"
