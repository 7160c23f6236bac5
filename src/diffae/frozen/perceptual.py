"""LPIPS, the learned perceptual distance: AlexNet's or VGG16's features, compared channel by channel (Zhang et al. 2018, v0.1)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Backbone = Literal["alexnet", "vgg16"]

# Of each convolution: channels, kernel, stride, padding, whether pooling comes before it, whether its output is compared.
ALEXNET = [
    (64, 11, 4, 2, False, True),
    (192, 5, 1, 2, True, True),
    (384, 3, 1, 1, True, True),
    (256, 3, 1, 1, False, True),
    (256, 3, 1, 1, False, True),
]
VGG16 = [
    (channels, 3, 1, 1, level > 0 and i == 0, i == depth - 1)
    for level, (channels, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)])
    for i in range(depth)
]
LEAST = {"alexnet": 32, "vgg16": 16}
"""The smallest image side that leaves something to compare after the last pooling."""


class LPIPS(nn.Module):
    """Perceptual distance of pairs of images.

    Args:
        backbone: whose features. The paper of diffusion autoencoders uses AlexNet's.

    Attributes:
        convs: the backbone's convolutions.
        heads: weight of each channel, layer by layer.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone = "alexnet") -> None:
        super().__init__()
        self.backbone = backbone
        self.layers = ALEXNET if backbone == "alexnet" else VGG16
        self.pool = 3 if backbone == "alexnet" else 2
        widths = [3, *(layer[0] for layer in self.layers)]
        self.convs = nn.ModuleList(
            nn.Conv2d(num_in, num_out, kernel, stride, padding)
            for num_in, (num_out, kernel, stride, padding, _, _) in zip(widths, self.layers, strict=False)
        )
        self.heads = nn.ParameterList(torch.zeros(layer[0]) for layer in self.layers if layer[-1])
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1), persistent=False)

    def features(self, x: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        """The compared layers, each position a unit vector."""
        found = []
        x = (x - self.shift) / self.scale
        for conv, (*_, pooled, compared) in zip(self.convs, self.layers, strict=True):
            x = conv(F.max_pool2d(x, self.pool, stride=2) if pooled else x).relu()
            if compared:
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, x_hat: Float[Tensor, "n 3 h w"], x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Distance of each pair of images in [-1, 1].

        Raises:
            ValueError: images too small for the network.
        """
        if min(x.shape[-2:]) < LEAST[self.backbone]:
            raise ValueError(
                f"LPIPS with {self.backbone} needs images of at least {LEAST[self.backbone]} pixels a side, got "
                f"{x.shape[-2]} x {x.shape[-1]}."
            )
        pairs = zip(self.features(x_hat), self.features(x), self.heads, strict=True)
        return torch.stack([((a - b).square() * head.view(-1, 1, 1)).sum(1).mean((1, 2)) for a, b, head in pairs]).sum(0)
