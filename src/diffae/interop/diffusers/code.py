"""The code in a pipeline's folder, and how `model_index.json` names it: no more than where diffae has it."""

import json
from pathlib import Path
from typing import Any

from diffae.runtime.files import write_text

HOME = "diffae.interop.diffusers"
"""Where the classes are."""
INDEX = "model_index.json"
PIPELINE = "DiffAEPipeline"
COMPONENTS = {"unet": "DiffAEUNet", "encoder": "DiffAEEncoder"}
"""Folder of a component -> its class. Each has the code's file in its folder, where diffusers looks for it."""
MODULES = {PIPELINE: "pipeline", "DiffAEUNet": "diffae_unet", "DiffAEEncoder": "diffae_encoder"}
"""Class -> file of its code in the folder, without the ending. diffusers copies these files of all models to one place; the
pipeline's is called as it is where a hub's name is given as `custom_pipeline`."""

CODE = '''"""A diffusion autoencoder (Preechakul et al., CVPR 2022) for the library diffusers; its code is in the package diffae."""

try:
    from {home} import {name}
except ImportError as error:
    raise ImportError("This model is one of diffae, which has to be installed: pip install 'diffae[interop]'.") from error

__all__ = ["{name}"]
'''


def write_code(folder: Path) -> None:
    """Writes what `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)` imports the classes from."""
    places = {PIPELINE: folder, **{name: folder / component for component, name in COMPONENTS.items()}}
    for name, place in places.items():
        write_text(place / f"{MODULES[name]}.py", CODE.format(home=HOME, name=name))


def named_in_folder(index: str) -> str:
    """A `model_index.json` that names the classes by the code in its folder, in place of their modules."""
    entries: dict[str, Any] = json.loads(index)
    entries.pop("_name_or_path", None)  # Of this machine.
    entries["_class_name"] = [MODULES[PIPELINE], PIPELINE]
    for component, name in COMPONENTS.items():
        entries[component] = [MODULES[name], name]
    return json.dumps(entries, indent=2, sort_keys=True) + "\n"


def named_in_package(entries: dict[str, Any]) -> dict[str, Any]:
    """The same that names them by their modules, so that the code in its folder is not needed.

    Raises:
        ValueError: it is of another pipeline.
    """
    for component, name in {"_class_name": PIPELINE, **COMPONENTS}.items():
        if (found := entries.get(component)) != [MODULES[name], name]:
            raise ValueError(f"This folder is of no {PIPELINE}: {INDEX} says {found!r} of {component}.")
    # diffusers tells what a class is by the base classes that its module knows: ModelMixin, which `networks` does.
    return entries | {"_class_name": PIPELINE} | {c: [f"{HOME}.networks", name] for c, name in COMPONENTS.items()}
