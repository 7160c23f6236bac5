"""What had another name or place in version 0.1: the old names answer until 0.2, and say the new ones."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

MOVED: dict[str, tuple[str, ...]] = {
    "attributes": ("semantics.attributes",),
    "card": ("diffusion.card",),
    "checks": ("diffusion.border", "semantics.space", "runtime.weights"),
    "data.columns": ("data.labels.columns",),
    "data.shards": ("data.sources.shards",),
    "data.tables": ("data.sources.parquet",),
    "evaluation.attributes": ("evaluation.suites.attributes",),
    "evaluation.bench": ("evaluation.suites.bench", "evaluation.suites.section"),
    "evaluation.codes": ("metrics.codes",),
    "evaluation.denoising": ("evaluation.suites.denoising",),
    "evaluation.disentanglement": ("metrics.disentanglement",),
    "evaluation.figures": ("evaluation.pages.figures",),
    "evaluation.generation": ("evaluation.suites.generation",),
    "evaluation.identity": ("frozen.identity",),
    "evaluation.inception": ("frozen.inception",),
    "evaluation.interpolation": ("evaluation.suites.interpolation",),
    "evaluation.judge": ("metrics.judge",),
    "evaluation.manipulation": ("evaluation.suites.manipulation",),
    "evaluation.metrics": ("metrics.images",),
    "evaluation.networks": ("frozen.weights",),
    "evaluation.page": ("evaluation.pages.page",),
    "evaluation.perceptual": ("frozen.perceptual",),
    "evaluation.probe": ("metrics.probe",),
    "evaluation.reconstruction": ("evaluation.suites.reconstruction",),
    "evaluation.report": ("evaluation.pages.report",),
    "evaluation.statistics": ("metrics.statistics",),
    "evaluation.tables": ("evaluation.pages.tables",),
    "evaluation.throughput": ("training.throughput",),
    "evaluation.variation": ("evaluation.suites.variation",),
    "files": ("runtime.files",),
    "fitting": ("semantics.fitting",),
    "graphs": ("runtime.graphs",),
    "inversion": ("diffusion.inversion",),
    "kernels": ("runtime.kernels",),
    "latents": ("semantics.standardizer", "diffusion.interpolation"),
    "memory": ("runtime.memory",),
    "metrics.networks": ("frozen.weights",),
    "metrics.networks.identity": ("frozen.identity",),
    "metrics.networks.inception": ("frozen.inception",),
    "metrics.networks.perceptual": ("frozen.perceptual",),
    "metrics.networks.weights": ("frozen.weights",),
    "nn.vae": ("frozen.vae",),
    "placement": ("diffusion.border",),
    "predictor": ("diffusion.predictor",),
    "presets": ("config.presets", "config.protocols"),
    "prior": ("semantics.prior",),
    "processes": ("runtime.processes",),
    "processor": ("runtime.processor",),
    "schedule": ("diffusion.schedule",),
    "seeding": ("runtime.seeding",),
    "solvers": ("diffusion.solvers",),
    "strict": ("config.strict",),
}
"""Old name -> where its contents are now, both below `diffae`."""
RENAMED: dict[str, dict[str, str]] = {
    "config": {"Spacing": "TimestepDraw"},
    "diffusion.schedule": {"Path": "NoisePath"},
    "interop.official": {"home": "imported_folder"},
}
"""Module -> old name -> new name of what it holds."""
METHODS: dict[str, dict[str, str]] = {
    "diffusion.images.ImageModel": {"described": "to_config", "fitted": "fitted_config", "in_range": "clamp"},
}
"""Class -> old name -> new name of its methods."""
OPTIONS: dict[str, dict[str, str]] = {
    "align": {"--looks": "--scales", "--most": "--max-faces"},
    "evaluate": {
        "--against": "--comparators", "--elsewhere": "--transfer-data", "--elsewhere-labels": "--transfer-labels",
    },
    "train-comparator": {"--beside": "--preset"},
}  # fmt: skip
"""Command -> old name -> new name of its options."""


def _warn(old: str, new: str) -> None:
    """Says to the caller's caller what to write."""
    warnings.warn(f"{old} is {new} now; the old name goes in 0.2.", DeprecationWarning, stacklevel=3)


def answer(module: str) -> None:
    """Lets the old names of what an imported module holds answer; called by the module, or by the package around it."""
    renamed = RENAMED.get(module.removeprefix("diffae."), {})

    def found(name: str) -> object:
        if name not in renamed:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", f"{module}.{renamed[name]}")
        return getattr(sys.modules[module], renamed[name])

    sys.modules[module].__getattr__ = found  # type: ignore[method-assign]
    for path, methods in METHODS.items():
        home, _, kind = path.rpartition(".")
        if f"diffae.{home}" == module:
            for old, new in methods.items():
                setattr(getattr(sys.modules[module], kind), old, OldMethod(old, new))


def with_new_options(argv: Sequence[str]) -> list[str]:
    """A command line whose options have their new names."""
    renamed, found = OPTIONS.get(argv[0], {}) if argv else {}, list(argv)
    for i, word in enumerate(found):
        old, is_, value = word.partition("=")
        if new := renamed.get(old.replace("_", "-")):
            _warn(old, new)
            found[i] = f"{new}{is_}{value}"
    return found


class OldMethod:
    """The old name of a method."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def __get__(self, instance: object, kind: type) -> object:
        _warn(f"{kind.__name__}.{self.old}", f"{kind.__name__}.{self.new}")
        return getattr(kind if instance is None else instance, self.new)


class Forwarding(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the old names, after everybody else, and hands on what is asked of them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != "diffae" or name not in MOVED:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=any(other.startswith(f"{name}.") for other in MOVED))

    def exec_module(self, module: ModuleType) -> None:
        homes = [f"diffae.{name}" for name in MOVED[module.__name__.removeprefix("diffae.")]]
        _warn(module.__name__, " and ".join(homes))

        def found(name: str) -> object:
            for home in map(importlib.import_module, homes):
                if hasattr(home, name):
                    return getattr(home, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = found  # type: ignore[method-assign]


def forward() -> None:
    """Lets the old names answer."""
    if not any(isinstance(finder, Forwarding) for finder in sys.meta_path):
        sys.meta_path.append(Forwarding())
