"""A semantic encoder that stands on a frozen network: its features, and beside them what our CNN adds."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae.config import AutoencoderConfig
from diffae.frozen.feature_cache import cached_features
from diffae.frozen.features import FrozenNetwork, fixed_image, frozen_network
from diffae.nn.encoder import SemanticEncoder
from diffae.runtime.files import digest_lines

LEAST_VARIANCE = 1e-6
"""Of the largest: principal components that vary less than this are rounding errors, and stay at zero."""
BESIDE = 0.3
"""Standard deviation of the components where an encoder learns beside them: at 1 the decoder's error falls later
(docs/design/features.md)."""
UNLIKE = 0.05
"""Relative error of the answer to a fixed image above which a network is not the one that a model was made with."""


class FeatureEncoder(nn.Module):
    """z_sem of the features of a frozen network, and of the k values that a CNN learns beside them.

    The features are standardised over the training images and reduced to z_dim - k principal components, which all vary alike. The
    frozen network is no part of it: it is opened when images are encoded, and what it said of them is remembered.

    Args:
        config: with `features.network` and what `described_features` finds of it; `learned` is k.

    Attributes:
        learned: the CNN, or None.
        mean: of the features.
        projection: from centred features to components, (z_dim - k, f).
        answer: what the network said of a fixed image when the encoder was fitted.

    Raises:
        ValueError: fewer features than components.

    References:
        Zheng et al. 2025, *Diffusion Transformers with Representation Autoencoders*, for grids of tokens; here for one vector.
    """

    mean: Tensor
    projection: Tensor
    answer: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        assert config.z_dim is not None
        self.settings, self.image_shape = config.features, (config.channels, *config.image_size)
        width, components = config.features.width, config.z_dim - config.learned
        if components > width:
            raise ValueError(
                f"{config.features.network} has {width} features, too few for {components} components: set model.z_dim to "
                f"{width + config.learned} or less."
            )
        self.learned: SemanticEncoder | None = None
        if config.learned:
            self.learned = SemanticEncoder(
                config.encoder, image_size=config.image_size, channels=config.channels, z_dim=config.learned
            )
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("projection", torch.zeros(components, width))
        self.register_buffer("answer", torch.zeros(width))
        self._checked = False

    def forward(self, x: Float[Tensor, "n c h w"], features: Float[Tensor, "n f"] | None = None) -> Float[Tensor, "n d"]:
        """z_sem of images in [-1, 1]; `features`, where the frozen network's are known, spare its call."""
        known = self.features(x) if features is None else features
        with torch.autocast(x.device.type, enabled=False):
            components = (known.to(self.mean) - self.mean) @ self.projection.T
        return components if self.learned is None else torch.cat([components, self.learned(x)], dim=1)

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f"]:
        """What the frozen network says of images in [-1, 1].

        Raises:
            ImportError, FileNotFoundError: it cannot be opened; the message says which it is, and what works without it.
            ValueError: another network answers to its name.
        """
        if not len(x):
            return x.new_zeros(0, len(self.mean))
        network = self._network()
        if not self._checked:
            self._check(network)
        return frozen_features(network, x, x.device)

    @torch.no_grad()
    def fit(self, features: Float[Tensor, "n f"]) -> float:
        """Sets the mean and the components from the features of the training images; the share of their variance that is kept.

        Raises:
            ValueError: fewer than two images, or such as the network does not tell apart.
        """
        f = features.double()
        if len(f) < 2 or float((f - f[0]).abs().max()) <= 1e-6 * float(f.abs().max()):
            raise ValueError(
                f"The frozen network says the same of all {len(f)} images, so they have no components: give images that differ."
            )
        self.answer.copy_(self._answer(self._network()))
        mean, std = f.mean(0), f.std(0)
        std[std <= 1e-6 * std.max()] = torch.inf  # What never varies says nothing.
        standard = (f - mean) / std
        rising, axes = torch.linalg.eigh(standard.T @ standard / (len(f) - 1))
        variances, directions = rising.flip(0).clamp(min=0), axes.flip(1).T
        kept = variances[: len(self.projection)]
        std_of_components = 1.0 if self.learned is None else BESIDE
        scales = torch.where(kept > LEAST_VARIANCE * kept[0], std_of_components * kept.rsqrt(), 0)
        self.projection.zero_()
        self.projection[: len(kept)] = directions[: len(kept)] * scales[:, None] / std
        self.mean.copy_(mean)
        return float(kept.sum() / variances.sum())

    def _network(self) -> FrozenNetwork:
        try:
            return frozen_network(self.settings)
        except (ImportError, FileNotFoundError) as error:
            raise type(error)(
                f"{error} The z_sem of this model is made of its features; saved codes can be decoded and edited without it."
            ) from None

    def _answer(self, network: FrozenNetwork) -> Tensor:
        return network(fixed_image(self.image_shape).to(self.mean))[0]

    def _check(self, network: FrozenNetwork) -> None:
        error = float((self._answer(network) - self.answer).norm() / self.answer.norm().clamp(min=1e-12))
        if self.answer.any() and not error < UNLIKE:
            raise ValueError(
                f"{network.name} answers otherwise than the network that this model was made with (features of a fixed image are "
                f"{error:.2g} off): its z_sem would mean something else."
            )
        self._checked = True


def learned_part(encoder: nn.Module) -> Any:
    """What of an encoder is learned here, and gives the last values of z_sem: all of it, unless it stands on a frozen network. None
    where nothing is."""
    return encoder.learned if isinstance(encoder, FeatureEncoder) else encoder


def frozen_features(network: FrozenNetwork, x: Float[Tensor, "n c h w"], device: torch.device) -> Float[Tensor, "n f"]:
    """Features of images, computed on a device. Those of a network with weights are remembered; a function may say something else
    tomorrow."""
    if not network.digest:
        return network(x.to(device))
    seen = digest_lines(map(str, (network.digest, network.size, network.mean, network.std)))
    return cached_features(lambda x: network(x.to(device)), x, key=seen).to(device)
