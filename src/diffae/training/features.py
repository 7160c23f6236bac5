"""Features of a run's images: computed once, before the first step, so that a step costs the decoder alone."""

from collections.abc import Sequence

import numpy as np
import torch

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import FeaturesConfig
from diffae.data.contents import Progress
from diffae.data.dataset import ImageSet
from diffae.diffusion.ddim import DDIM
from diffae.frozen.encoder import FeatureEncoder, frozen_features
from diffae.frozen.features import frozen_network
from diffae.runtime import processes

PIECE = 64
"""Images between two moves of the progress bar."""


def features_of(data: ImageSet, settings: FeaturesConfig, *, progress: Progress | None = None) -> list[np.ndarray]:
    """What a frozen network says of images (n, f), and of the same images mirrored if training mirrors them.

    What it said before is not computed again. Several processes divide what is left.

    Args:
        data: the images.
        settings: which network.
        progress: called with the number of images done.
    """
    network, flips = frozen_network(settings), (False, True) if data.config.flip else (False,)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    mine = processes.shard(range(0, len(data.names), PIECE))
    found: dict[tuple[int, bool], np.ndarray] = {}
    for i, start in enumerate(mine):
        x = data.images(range(start, min(start + PIECE, len(data.names))))
        for flip in flips:
            found[start, flip] = frozen_features(network, x.flip(-1) if flip else x, device).cpu().numpy()
        if progress:
            progress(f"Features of {network.name}", i + 1, len(mine))
    if network.module is not None:
        network.module.to("cpu")  # A card has better things to keep while it trains.
    for others in processes.all_gather(found):
        found |= others
    return [np.concatenate([found[start, flip] for start in range(0, len(data.names), PIECE)]) for flip in flips]


def fit_features(model: DiffusionAutoencoder | DDIM, data: ImageSet, features: Sequence[np.ndarray]) -> str:
    """Fits what z_sem takes of a frozen network's features to those of the training images, and says what it is."""
    encoder, settings = getattr(model, "encoder", None), model.config
    assert isinstance(encoder, FeatureEncoder)
    rows = torch.from_numpy(np.concatenate([array[data.train] for array in features]))
    kept = encoder.fit(rows.to(encoder.mean.device))
    # The signs of components are anybody's: all processes take the first one's.
    encoder.projection.copy_(processes.broadcast(encoder.projection.cpu()))
    found = (
        f"z_sem: {len(encoder.projection)} components of the {settings.features.width:,} features of {settings.features.network}, "
        f"{kept:.1%} of their variance"
    )
    return found + (f", and {settings.learned} values of the encoder." if settings.learned else ".")
