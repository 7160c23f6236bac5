"""A network that others trained, as something that gives features of images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffae.runtime.weights import digest_module

BATCH = 32
"""Images at a time: these networks see them large."""


@dataclass(frozen=True, slots=True)
class FrozenNetwork:
    """A network that is never trained here. It is part of no model: its weights are not saved with those that use it.

    Attributes:
        name: what it was asked for as.
        call: of images (n, c, h, w), normalised as it wants them, to features (n, f), or with places, which are averaged over.
        module: where its weights are, so that they go where the images are; None if there is none.
        size: height and width of the images that it sees; None sees them as they are.
        mean: of each channel on the [0, 1] scale, which it sees as 0.
        std: likewise, the standard deviation that it is divided by.
        digest: identifies its weights; "" of a function, which has none.
        licence: of its weights, "" if it is not known.
        colour: whether it sees colour, so that grey images are shown to it as such.
    """

    name: str
    call: Callable[[Tensor], Tensor]
    module: nn.Module | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    digest: str = ""
    licence: str = ""
    colour: bool = True

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f"]:
        """Features of images in [-1, 1], float32.

        Raises:
            ValueError: it does not take such images, or gives no finite vector for each.
        """
        if self.module is not None:
            self.module.to(x.device)
        with torch.autocast(x.device.type, enabled=False):  # What it says is kept, for whoever asks next.
            return torch.cat([self._features(part) for part in x.float().split(BATCH)])

    def _features(self, x: Tensor) -> Tensor:
        if self.colour and x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if self.size is not None and x.shape[-2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (self.mean, self.std))
        if self.colour and x.shape[1] != 3:
            raise ValueError(f"{self.name} sees grey images or those of 3 channels, and these have {x.shape[1]}.")
        features = self.call(((x + 1) / 2 - mean) / std)
        if not isinstance(features, Tensor) or features.dim() < 2 or len(features) != len(x):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"{self.name} should give features (n, f) of {len(x)} images, and gave {got}.")
        if features.dim() == 4:
            features = features.mean((2, 3))  # (n, f, h, w)
        elif features.dim() == 3:
            features = features.mean(1)  # (n, tokens, f)
        if features.dim() != 2 or not features.isfinite().all():
            raise ValueError(f"The features that {self.name} gives are no finite vectors: {tuple(features.shape)}.")
        return features.to(x)


def prepared(name: str, module: nn.Module, call: Callable[[Tensor], Tensor], **known: Any) -> FrozenNetwork:
    """A network whose weights stay as they are, known by their digest; `known` is what else is to be said of it."""
    module.eval().float()  # Some are saved in half precision.
    for weight in module.parameters():
        weight.requires_grad_(False)
    known = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
    return FrozenNetwork(name, call, module, digest=digest_module(module), **known)
