"""Whether two pictures show the same person: the face descriptor of dlib (King 2017), compared by the angle between two.

The network is a ResNet of 29 layers, trained on photographs of about three million faces; 99.38 % on Labeled Faces in the Wild.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffae.frozen.quantized import as_tensors, read_quantized

SIDE = 150
"""Pixels a side of what the network was trained on."""
STAGES = [(32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True)]
"""Channels, blocks, and whether the first of them halves the image."""


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is pooled where the first convolution halves the image."""

    def __init__(self, num_in: int, num_out: int, *, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride=2 if halves else 1, padding=0 if halves else 1)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c_in h w"]) -> Float[Tensor, "n c_out h2 w2"]:
        out = self.conv2(self.conv1(x).relu())
        if self.halves:
            x = F.avg_pool2d(x, 2)
            # A convolution without padding may leave one row and column less than pooling; new channels begin as zeros.
            out = F.pad(out, (0, x.shape[-1] - out.shape[-1], 0, x.shape[-2] - out.shape[-2]))
            x = F.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))
        return (out + x).relu()


class FaceDescriptor(nn.Module):
    """Faces to vectors of 128 numbers, near to each other where the person is the same.

    Attributes:
        stem: the first convolution.
        blocks: the residual ones.
        fc: from the mean over all places to the descriptor, (256, 128).
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STAGES[0][0], 7, stride=2)
        blocks, width = [], STAGES[0][0]
        for num_out, depth, halved in STAGES:
            blocks += [Block(width if i == 0 else num_out, num_out, halves=halved and i == 0) for i in range(depth)]
            width = num_out
        self.blocks = nn.ModuleList(blocks)
        self.fc = nn.Parameter(torch.zeros(width, 128))
        self.register_buffer("mean", torch.tensor([122.782, 117.001, 104.298]).view(3, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 128"]:
        """Descriptors of images in [-1, 1] that each show one face, whole and upright; they are padded to squares and resized."""
        h, w = x.shape[-2:]
        side = max(h, w)
        left, top = (side - w) // 2, (side - h) // 2
        x = F.pad(x, (left, side - w - left, top, side - h - top), value=-1.0)
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
        x = self.stem(((x + 1) * 127.5 - self.mean) / 255).relu()
        x = F.max_pool2d(x, 3, stride=2)
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3)) @ self.fc


def read_face_descriptor(path: Path, manifest: Path) -> dict[str, Tensor]:
    """The descriptor's weights from one file of bytes and the list of what they are.

    Each convolution is followed by a scale and a shift of its channels, which are folded into it here. Arguments and errors are
    those of `read_quantized`.
    """
    read = read_quantized(path, manifest)
    tensors = {"fc": read.pop("fc")}
    for i, layer in enumerate(dict.fromkeys(name.split("/")[0] for name in read)):
        ours = {layer: "stem"} if i == 0 else {f"{layer}/{conv}": f"blocks.{i - 1}.{conv}" for conv in ("conv1", "conv2")}
        for theirs, our in ours.items():
            scale = read[f"{theirs}/scale/weights"]
            tensors[f"{our}.weight"] = (read[f"{theirs}/conv/filters"] * scale).transpose(3, 2, 0, 1)
            tensors[f"{our}.bias"] = read[f"{theirs}/conv/bias"] * scale + read[f"{theirs}/scale/biases"]
    return as_tensors(tensors)
