"""The Inception network of the Fréchet inception distance: TensorFlow's Inception-v3 of 2015-12-05, up to its last pooling.

Layers have the names of its graph (`mixed_3/tower/conv_1`), which is not torchvision's Inception: average pooling leaves the
padding out, the last block pools by maximum, and batch normalisation has no scale (Heusel et al. 2017; Szegedy et al. 2016).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class _Conv(nn.Module):
    """Convolution, batch normalisation without scale, ReLU."""

    def __init__(self, num_in: int, num_out: int, kernel: int | tuple[int, int], *, stride: int = 1, pad: bool = True) -> None:
        super().__init__()
        h, w = (kernel, kernel) if isinstance(kernel, int) else kernel
        self.stride, self.padding = stride, (h // 2, w // 2) if pad else 0
        self.weight = nn.Parameter(torch.empty(num_out, num_in, h, w))
        for name in ("beta", "mean", "var"):
            self.register_buffer(name, torch.empty(num_out))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, stride=self.stride, padding=self.padding)
        return F.batch_norm(x, self.mean, self.var, bias=self.beta, eps=1e-3).relu()  # type: ignore[arg-type]


class _Pool(nn.Module):
    """Pooling over 3 x 3, the size staying as it is."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "max":
            return F.max_pool2d(x, 3, stride=1, padding=1)
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _tower(num_in: int, convs: Sequence[tuple], *, pool: str | None = None) -> nn.Sequential:
    """Convolutions one after the other, each (channels, kernel) or (channels, kernel, stride); with a stride, without padding."""
    tower = nn.Sequential()
    if pool:
        tower.add_module("pool", _Pool(pool))
    for i, (num_out, kernel, *stride) in enumerate(convs):
        conv = _Conv(num_in, num_out, kernel, stride=stride[0] if stride else 1, pad=not stride)
        tower.add_module("conv" if i == 0 else f"conv_{i}", conv)
        num_in = num_out
    return tower


class _Mixed(nn.Module):
    """Branches side by side, their channels concatenated; the first may be a single convolution."""

    def __init__(
        self, num_in: int, conv: tuple | None, *towers: Sequence[tuple], pooled: int | None = None, halves: bool = False
    ) -> None:
        super().__init__()
        branches: list[nn.Module] = []
        if conv:
            self.conv = _tower(num_in, [conv])[0]
            branches.append(self.conv)
        named = [_tower(num_in, convs) for convs in towers]
        if pooled:
            named.append(_tower(num_in, [(pooled, 1)], pool="average"))
        for i, tower in enumerate(named):
            self.add_module("tower" if i == 0 else f"tower_{i}", tower)
        self.branches = [*branches, *named]
        self.halves = halves

    def forward(self, x: Tensor) -> Tensor:
        parts = [branch(x) for branch in self.branches]
        return torch.cat([*parts, F.max_pool2d(x, 3, stride=2)] if self.halves else parts, 1)


class _Wide(nn.Module):
    """The last blocks, whose two towers each end in a 1 x 3 beside a 3 x 1 convolution."""

    def __init__(self, num_in: int, pool: str) -> None:
        super().__init__()
        self.conv = _Conv(num_in, 320, 1)
        self.tower_conv = _Conv(num_in, 384, 1)
        self.tower_mixed_conv, self.tower_mixed_conv_1 = _Conv(384, 384, (1, 3)), _Conv(384, 384, (3, 1))
        self.tower_1_conv, self.tower_1_conv_1 = _Conv(num_in, 448, 1), _Conv(448, 384, 3)
        self.tower_1_mixed_conv, self.tower_1_mixed_conv_1 = _Conv(384, 384, (1, 3)), _Conv(384, 384, (3, 1))
        self.pool, self.tower_2_conv = _Pool(pool), _Conv(num_in, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.tower_conv(x), self.tower_1_conv_1(self.tower_1_conv(x))
        ends = [self.tower_mixed_conv(a), self.tower_mixed_conv_1(a), self.tower_1_mixed_conv(b), self.tower_1_mixed_conv_1(b)]
        return torch.cat([self.conv(x), *ends, self.tower_2_conv(self.pool(x))], 1)


def _sevens(num_in: int, c: int) -> _Mixed:
    """The blocks of the middle, with 1 x 7 and 7 x 1 convolutions of c channels."""
    first = [(c, 1), (c, (1, 7)), (192, (7, 1))]
    second = [(c, 1), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7))]
    return _Mixed(num_in, (192, 1), first, second, pooled=192)


def _fives(num_in: int, pooled: int) -> _Mixed:
    """The blocks of the beginning."""
    return _Mixed(num_in, (64, 1), [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)], pooled=pooled)


class Inception(nn.Module):
    """Images to the 2048 features of FID.

    The input is scaled to 299 x 299 bilinearly without antialiasing, as TensorFlow does, wherever it has another size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = _Conv(3, 32, 3, stride=2, pad=False)
        self.conv_1 = _Conv(32, 32, 3, pad=False)
        self.conv_2 = _Conv(32, 64, 3)
        self.conv_3 = _Conv(64, 80, 1)
        self.conv_4 = _Conv(80, 192, 3, pad=False)
        self.mixed, self.mixed_1, self.mixed_2 = _fives(192, 32), _fives(256, 64), _fives(288, 64)
        self.mixed_3 = _Mixed(288, (384, 3, 2), [(64, 1), (96, 3), (96, 3, 2)], halves=True)
        self.mixed_4, self.mixed_5, self.mixed_6, self.mixed_7 = (_sevens(768, c) for c in (128, 160, 160, 192))
        ends = [(192, 1), (320, 3, 2)], [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)]
        self.mixed_8 = _Mixed(768, None, *ends, halves=True)
        self.mixed_9, self.mixed_10 = _Wide(1280, "average"), _Wide(2048, "max")

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2048"]:
        """Features of images in [-1, 1]."""
        if x.shape[-2:] != (299, 299):
            x = F.interpolate(x, (299, 299), mode="bilinear", align_corners=False)
        x = F.max_pool2d(self.conv_2(self.conv_1(self.conv(x))), 3, stride=2)
        x = F.max_pool2d(self.conv_4(self.conv_3(x)), 3, stride=2)
        for block in (self.mixed, self.mixed_1, self.mixed_2, self.mixed_3, self.mixed_4, self.mixed_5, self.mixed_6, self.mixed_7):
            x = block(x)
        return self.mixed_10(self.mixed_9(self.mixed_8(x))).mean((2, 3))
