"""What the encoder is shown, and what the decoder is told, while training: drawn by the image's seed, like its noise."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffae import seeding


def shifted(x: Float[Tensor, "n c h w"], seeds: Sequence[int], share: float) -> Float[Tensor, "n c h w"]:
    """Each image moved by whole pixels, up to a share of its sides in either direction; edges are repeated.

    For the encoder alone: z_sem then holds less of where things are, and what stays the same under small moves counts more, as in
    contrastive learning (Chen et al. 2020); the decoder still denoises the image itself.

    Args:
        x: images.
        seeds: one for each.
        share: of height and width, 0..1.
    """
    h, w = x.shape[-2:]
    most = int(share * h), int(share * w)
    padded = F.pad(x, (most[1], most[1], most[0], most[0]), mode="replicate")
    u, v = (seeding.uniform([seeding.mix(s, axis) for s in seeds]) for axis in ("shift y", "shift x"))
    top, left = ((a * (2 * m + 1)).long().tolist() for a, m in ((u, most[0]), (v, most[1])))
    return torch.stack([image[:, t : t + h, j : j + w] for image, t, j in zip(padded, top, left, strict=True)])


def dropped(z_sem: Float[Tensor, "n d"], seeds: Sequence[int], share: float) -> Float[Tensor, "n d"]:
    """z_sem with a share of the rows zero, as where conditions are left out for guidance (Ho & Salimans 2022)."""
    kept = seeding.uniform([seeding.mix(s, "z_sem dropout") for s in seeds]) >= share
    return z_sem * kept.to(z_sem)[:, None]
