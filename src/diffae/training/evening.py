"""A trained model whose z_sem is evened: the same images of the same noise, and codes that are read more easily."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.diffusion.networks import configured
from diffae.frozen.encoder import learned_part
from diffae.nn.encoder import SemanticEncoder
from diffae.nn.evening import Evening, follow


def learned_encoder(model: DiffusionAutoencoder, why: str) -> SemanticEncoder | None:
    """What of the encoder is learned here; None where all of z_sem is of a frozen network.

    Args:
        model: whose.
        why: it is asked for, for the error.

    Raises:
        ValueError: the encoder is none of ours.
    """
    ours = learned_part(model.encoder)
    if ours is None or isinstance(ours, SemanticEncoder):
        return ours
    raise ValueError(f"{why} sets the last layer of the configured encoder, and this is a {type(ours).__name__}: switch it off.")


def check_evens(model: DiffusionAutoencoder) -> None:
    """Refuses a model whose z_sem cannot be evened: before it is trained, not when it is saved.

    Raises:
        ValueError: the encoder or the decoder is none of ours.
    """
    learned_encoder(model, "model.unet.evened")
    if not configured(model.unet):
        raise ValueError(
            f"model.unet.evened has the configured UNet go back to the coordinates that it was trained in, and this is a "
            f"{type(model.unet).__name__}: switch it off."
        )


@torch.no_grad()
def evened(model: DiffusionAutoencoder, *views: Float[Tensor, "n d"]) -> DiffusionAutoencoder:
    """A copy of the model whose z_sem is evened where it is learned: the encoder's last map and the decoders' first ones change
    together, so that each image is decoded as before, up to rounding.

    Args:
        model: with `model.unet.evened`.
        views: codes of some hundred training images; and of the same images seen otherwise.

    Raises:
        ValueError: the encoder is none of ours.
    """
    model = copy.deepcopy(model)
    ours = learned_encoder(model, "model.unet.evened")
    if ours is None:
        return model
    linear, d = ours.linear, views[0].shape[1]
    part = Evening.of(*(z_sem[:, d - linear.out_features :] for z_sem in views))
    weight, bias = linear.weight.double(), linear.bias.double()
    linear.weight.copy_(part.map.to(weight) @ weight)
    linear.bias.copy_(part.map.to(weight) @ (bias - part.mean.to(bias)))
    # What a frozen network says comes first and stays.
    given = torch.eye(d - linear.out_features, dtype=torch.float64)
    whole = Evening(
        torch.cat([part.mean.new_zeros(len(given)), part.mean]),
        *(torch.block_diag(given.to(m), m) for m in (part.map, part.inverse)),
    )
    follow(model.unet.unevened, whole)
    if model.mean_decoder is not None:
        follow(model.mean_decoder.linear, whole)
    return model
