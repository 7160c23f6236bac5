"""Where faces are in a photograph, and 68 points of each: two small networks of face-api.js (Mühler 2018; fork of V. Mandic).

The detector is an SSD (Liu et al. 2016) on MobileNet v1, trained on WIDER FACE; the landmarks, in the order of iBUG 300-W, come
from a densely connected network of depthwise separable convolutions, trained on about 35,000 faces. Both keep a byte for a
weight: 5.6 and 0.36 MB.
"""

from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffae.frozen.quantized import as_tensors, read_quantized

DETECTOR_SIDE, LANDMARKS_SIDE = 512, 112
"""Pixels a side of the squares that the two see."""
WIDTHS = (32, 64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)
"""Channels of MobileNet after its first convolution and each of its 13 pairs."""
HALVING = (2, 4, 6, 12)
"""Which pairs halve the image."""
TAPPED = 11
"""The pair whose output is looked at for small faces."""
EXTRA = ((1024, 256, 1), (256, 512, 3), (512, 128, 1), (128, 256, 3), (256, 128, 1), (128, 256, 3), (256, 64, 1), (64, 128, 3))
"""Further convolutions, for large faces: channels in and out, kernel; those of 3 x 3 halve the image."""
LEVELS = ((512, 3), (1024, 6), (512, 6), (256, 6), (256, 6), (128, 6))
"""Channels of what is looked at, and boxes at each place, from small faces to large ones."""
BOXES = 5118
"""Boxes that are looked at: (32 ** 2 * 3) + (16 ** 2 + 8 ** 2 + 4 ** 2 + 2 ** 2 + 1) * 6."""


class Same(nn.Conv2d):
    """A convolution padded as TensorFlow does: where one row is too many for both sides, it goes below and to the right."""

    def forward(self, x: Float[Tensor, "n c_in h w"]) -> Float[Tensor, "n c_out h2 w2"]:
        missing = [
            max((-(-side // step) - 1) * step + kernel - side, 0)
            for side, step, kernel in zip(x.shape[-2:], self.stride, self.kernel_size, strict=True)
        ]
        (top, left), (bottom, right) = [m // 2 for m in missing], [m - m // 2 for m in missing]
        return super().forward(F.pad(x, (left, right, top, bottom)))


class FaceDetector(nn.Module):
    """Squares of 512 pixels to boxes, and how likely each holds a face.

    Attributes:
        stem: MobileNet's first convolution.
        pairs: its others, a depthwise and a pointwise one each.
        extra: see `EXTRA`.
        boxes: from each level to four numbers for each box, which move and stretch an anchor.
        classes: from each level to three numbers for each box; the second is the face's.
        anchors: the boxes before they are moved: top, left, bottom, right as shares of the square.
    """

    anchors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = Same(3, WIDTHS[0], 3, stride=2)
        self.pairs = nn.ModuleList(
            nn.Sequential(Same(a, a, 3, stride=2 if i in HALVING else 1, groups=a), nn.ReLU6(), Same(a, b, 1), nn.ReLU6())
            for i, (a, b) in enumerate(pairwise(WIDTHS), start=1)
        )
        self.extra = nn.ModuleList(Same(a, b, kernel, stride=2 if kernel == 3 else 1) for a, b, kernel in EXTRA)
        self.boxes = nn.ModuleList(nn.Conv2d(width, 4 * num, 1) for width, num in LEVELS)
        self.classes = nn.ModuleList(nn.Conv2d(width, 3 * num, 1) for width, num in LEVELS)
        self.register_buffer("anchors", torch.zeros(BOXES, 4))

    def forward(self, x: Float[Tensor, "n 3 512 512"]) -> tuple[Float[Tensor, "n boxes 4"], Float[Tensor, "n boxes"]]:
        """Boxes (top, left, bottom, right as shares of the square) and scores from 0 to 1 of images in [-1, 1]."""
        levels = []
        x = F.relu6(self.stem(x))
        for i, pair in enumerate(self.pairs, start=1):
            x = pair(x)
            if i == TAPPED:
                levels.append(x)
        levels.append(x)
        for conv in self.extra:
            x = F.relu6(conv(x))
            if conv.kernel_size == (3, 3):
                levels.append(x)
        moved, classes = (
            torch.cat([head(level).permute(0, 2, 3, 1).flatten(1) for head, level in zip(heads, levels, strict=True)], 1)
            for heads in (self.boxes, self.classes)
        )
        moved = moved.view(len(x), -1, 4)
        low, high = self.anchors.split(2, -1)
        size = high - low
        center = low + size / 2 + moved[..., :2] / 10 * size
        half = (moved[..., 2:] / 5).exp() * size / 2
        return torch.cat([center - half, center + half], -1), classes.view(len(x), -1, 3)[..., 1].sigmoid()


class Dense(nn.Module):
    """Four convolutions, each of which sees the sum of all before it; the first halves the image."""

    def __init__(self, num_in: int, num_out: int, *, first: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList([Same(num_in, num_out, 3, stride=2) if first else _separable(num_in, num_out, stride=2)])
        self.convs.extend(_separable(num_out, num_out) for _ in range(3))

    def forward(self, x: Float[Tensor, "n c_in h w"]) -> Float[Tensor, "n c_out h2 w2"]:
        total = x = self.convs[0](x).relu()
        for conv in self.convs[1:]:
            total = total + conv(x)
            x = total.relu()
        return x


def _separable(num_in: int, num_out: int, *, stride: int = 1) -> nn.Module:
    return nn.Sequential(Same(num_in, num_in, 3, stride=stride, groups=num_in, bias=False), Same(num_in, num_out, 1))


class FaceLandmarks(nn.Module):
    """Squares of 112 pixels that show one face each to 68 points of it."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 256)
        self.blocks = nn.ModuleList(Dense(a, b, first=a == 3) for a, b in pairwise(widths))
        self.fc = nn.Linear(widths[-1], 2 * 68)
        self.register_buffer("mean", torch.tensor([122.782, 117.001, 104.298]).view(3, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "n 3 112 112"]) -> Float[Tensor, "n 68 2"]:
        """Points (x, y) as shares of the square, of images in [-1, 1]: jaw, brows, nose, eyes, mouth, from the viewer's left."""
        x = ((x + 1) * 127.5 - self.mean) / 255
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3))).view(-1, 68, 2)


def apart(boxes: Float[Tensor, "m 4"], scores: Float[Tensor, "m"], *, least: float, overlap: float = 0.5) -> list[int]:
    """Which boxes to keep, the likeliest first: those of two that overlap by more than a share of their union are one face.

    Args:
        boxes: top, left, bottom, right.
        scores: of each.
        least: score that a box must have.
        overlap: the share.
    """
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if scores[i] <= least:
            break
        low, high = torch.maximum(boxes[i, :2], boxes[kept, :2]), torch.minimum(boxes[i, 2:], boxes[kept, 2:])
        common = (high - low).clamp(min=0).prod(-1)
        area, areas = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes[i], boxes[kept]))
        if not (common > overlap * (area + areas - common)).any():
            kept.append(i)
    return kept


# Weights -------------------------------------------------------------------------------------------------------------


def read_face_detector(path: Path, manifest: Path) -> dict[str, Tensor]:
    """The detector's weights; the means and variances of its depthwise convolutions are folded into these. See `read_quantized`."""
    read = read_quantized(path, manifest)
    tensors = {"anchors": read["Output/extra_dim"][0]} | _pointwise("stem", read, "MobilenetV1", 0)
    for i in range(1, len(WIDTHS)):
        theirs, ours = f"MobilenetV1/Conv2d_{i}_depthwise", f"pairs.{i - 1}"
        gamma, beta, mean, variance = (
            read[f"{theirs}/BatchNorm/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + 0.001)
        tensors[f"{ours}.0.weight"] = read[f"{theirs}/depthwise_weights"].transpose(2, 3, 0, 1) * scale[:, None, None, None]
        tensors[f"{ours}.0.bias"] = beta - mean * scale
        tensors |= _pointwise(f"{ours}.2", read, "MobilenetV1", i)
    for i in range(len(EXTRA)):
        tensors |= _pointwise(f"extra.{i}", read, "Prediction", i)
    for i, (ours, theirs) in chain.from_iterable(
        ((i, heads) for heads in (("boxes", "BoxEncodingPredictor"), ("classes", "ClassPredictor"))) for i in range(len(LEVELS))
    ):
        tensors[f"{ours}.{i}.weight"] = read[f"Prediction/BoxPredictor_{i}/{theirs}/weights"].transpose(3, 2, 0, 1)
        tensors[f"{ours}.{i}.bias"] = read[f"Prediction/BoxPredictor_{i}/{theirs}/biases"]
    return as_tensors(tensors)


def _pointwise(ours: str, read: dict[str, np.ndarray], part: str, i: int) -> dict[str, np.ndarray]:
    theirs = f"{part}/Conv2d_{i}_pointwise"
    return {
        f"{ours}.weight": read[f"{theirs}/weights"].transpose(3, 2, 0, 1),
        f"{ours}.bias": read[f"{theirs}/convolution_bn_offset"],
    }


def read_face_landmarks(path: Path, manifest: Path) -> dict[str, Tensor]:
    """The weights of the landmarks' network. See `read_quantized`."""
    read = read_quantized(path, manifest)
    tensors = {"fc.weight": read["fc/weights"].T, "fc.bias": read["fc/bias"]}
    for block, conv in ((block, conv) for block in range(4) for conv in range(4)):
        theirs, ours = f"dense{block}/conv{conv}", f"blocks.{block}.convs.{conv}"
        if f"{theirs}/filters" in read:
            tensors[f"{ours}.weight"] = read[f"{theirs}/filters"].transpose(3, 2, 0, 1)
            tensors[f"{ours}.bias"] = read[f"{theirs}/bias"]
        else:
            tensors[f"{ours}.0.weight"] = read[f"{theirs}/depthwise_filter"].transpose(2, 3, 0, 1)
            tensors[f"{ours}.1.weight"] = read[f"{theirs}/pointwise_filter"].transpose(3, 2, 0, 1)
            tensors[f"{ours}.1.bias"] = read[f"{theirs}/bias"]
    return as_tensors(tensors)
