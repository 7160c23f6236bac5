"""Starting from trained weights: what of another model fits is taken, and what does not is named."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import AutoencoderConfig, RunConfig, read_json
from diffae.diffusion.ddim import DDIM
from diffae.interop import official
from diffae.interop.weights import load_config, load_diffusion

NETWORKS = ("unet.", "encoder.", "mean_decoder.")
"""How the names of weights begin that can be taken; what was fitted to z_sem is of the other model's z_sem alone."""


class TakenWeights(NamedTuple):
    """What a start found.

    Attributes:
        taken: names of the weights that were taken.
        fresh: those that keep their fresh values: the other model has none of that name, or one of another shape.
        unused: weights of the other model that have no place.
    """

    taken: list[str]
    fresh: list[str]
    unused: list[str]

    def __str__(self) -> str:
        """In a sentence for people."""
        said = f"{len(self.taken)} of {len(self.taken) + len(self.fresh)} weights were taken"
        for what, names in (("fresh are", self.fresh), ("of no use are", self.unused)):
            if names:
                said += f"; {what} {len(names)}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        return said + "."


def trained_model(source: str) -> DiffusionAutoencoder | DDIM:
    """The model to start from: a run, a saved folder, the hub's name of one, or a checkpoint of the authors' (`.ckpt`)."""
    return official.load(source) if Path(source).suffix == ".ckpt" else load_diffusion(source)


def trained_config(source: str) -> AutoencoderConfig:
    """The networks of the model to start from; of a saved one its `config.json` alone is read."""
    return official.load(source).config if Path(source).suffix == ".ckpt" else load_config(source)


def began_with(source: str, out: Path) -> RunConfig | None:
    """The run at `out`, if it began with that model: it goes on without it, which may be gone by then."""
    if not (out / "config.json").is_file():
        return None
    stored = read_json(RunConfig, out / "config.json")
    return stored if stored.start.model in (source, str(Path(source).resolve())) else None


def start_name(source: str, out: Path) -> str:
    """The model to start from, by a name that holds wherever the run at `out` goes on."""
    stored = began_with(source, out)
    if stored is not None and stored.start.model is not None:
        return stored.start.model
    return str(Path(source).resolve()) if Path(source).exists() else source


@torch.no_grad()
def take_weights(model: nn.Module, trained: nn.Module) -> TakenWeights:
    """Copies all weights of the networks that have the same name and shape.

    Args:
        model: with fresh weights; changed in place.
        trained: an autoencoder or a plain DDIM.

    Raises:
        ValueError: nothing fits.
    """
    theirs, ours = _weights(trained), _weights(model)
    taken = [name for name, tensor in ours.items() if name in theirs and theirs[name].shape == tensor.shape]
    turned = theirs.get("unet.unevened.weight")
    kept = turned is not None and "unet.unevened.weight" not in ours and getattr(model, "z_dim", None) == len(turned)
    if turned is not None and kept and not torch.equal(turned, torch.eye(len(turned)).to(turned)):
        raise ValueError(
            "Its z_sem is evened, which its decoder undoes, and the decoder asked for would not: leave --model.unet.no-evened away."
        )
    for name in taken:
        ours[name].copy_(theirs[name])
    if not taken:
        raise ValueError(
            "None of its weights fits: the networks have other widths or depths. Leave --model.unet and .encoder alone."
        )
    return TakenWeights(taken, [name for name in ours if name not in taken], [name for name in theirs if name not in taken])


def _weights(model: nn.Module) -> Mapping[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith(NETWORKS)}
