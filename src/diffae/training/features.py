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
    """What a frozen network says of images (n, f), and of the same images mirrored if training mirrors them: of those it is trained
    on, since nothing asks for others mirrored; their rows are NaN.

    What it said before is not computed again. Several processes divide what is left.

    Args:
        data: the images.
        settings: which network.
        progress: called with the number of images done.
    """
    network, n = frozen_network(settings), len(data.names)
    seen = [np.arange(n), np.sort(data.train)] if data.config.flip else [np.arange(n)]  # As they are, and mirrored.
    pieces = [(way, part) for way, rows in enumerate(seen) for part in np.split(rows, range(PIECE, len(rows), PIECE))]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    mine = processes.shard(range(len(pieces)))
    found: dict[int, np.ndarray] = {}
    for i, piece in enumerate(mine):
        mirrored, part = pieces[piece]
        x = data.images(part)
        found[piece] = frozen_features(network, x.flip(-1) if mirrored else x, device).cpu().numpy()
        if progress:
            progress(f"Features of {network.name}", i + 1, len(mine))
    if network.module is not None:
        network.module.to("cpu")  # A card has better things to keep while it trains.
    for others in processes.all_gather(found):
        found |= others
    features = [np.full((n, found[0].shape[1]), np.nan, dtype=found[0].dtype) for _ in seen]
    for piece, (way, part) in enumerate(pieces):
        features[way][part] = found[piece]
    return features


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
