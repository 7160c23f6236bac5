"""3x3 convolutions by Winograd's minimal filtering, with fewer than a third of the multiplications (Lavin & Gray 2016).

An output tile of 4 x 4 pixels needs an input tile of 6 x 6. Small constant matrices transform tiles and filters to a space where
the convolution is a product at each of 36 points: `Y = A^T [(G g G^T) * (B^T d B)] A`, with matrix products over channels in place
of `*`. That takes 36 multiplications where the definition takes 144. Processors that are not quicker in bfloat16 gain by it what
others gain by bfloat16. The rounding error is about ten times that of float32, and a thousandth of bfloat16's.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae.runtime.processor import quick_products

TILE = 4
"""Side of an output tile; an input tile is two larger."""
LEAST_CHANNELS = 128
"""With fewer channels, the transforms cost what the products save."""
LEAST_TILES = 16

# The matrices of F(4 x 4, 3 x 3): interpolation at the points 0, 1, -1, 2, -2 and infinity.
_B = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_G = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_A = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64)
# Of both axes at once.
_INPUT, _FILTER, _OUTPUT = torch.kron(_B, _B).float(), torch.kron(_G, _G), torch.kron(_A, _A).float()


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution of zero-padded images, as `nn.Conv2d(c_in, c_out, 3, padding=1)`, in less time where there is no gradient.

    On a processor in float32, with enough channels and pixels and quick matrix products, it is computed by Winograd's method. It
    then keeps the transformed filter, which is four times as large. Everywhere else it is the plain convolution.
    """

    _transformed: tuple[tuple[int, int], Tensor, Tensor] | None = None

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c_in h w"]) -> Float[Tensor, "n c_out h w"]:
        if not self._uses_winograd(x):
            return super().forward(x)
        assert self.bias is not None
        return convolve(x, self._transformed_weight(), self.bias)

    def _uses_winograd(self, x: Tensor) -> bool:
        return (
            not torch.is_grad_enabled()
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and min(self.in_channels, self.out_channels) >= LEAST_CHANNELS
            and len(x) * (x.shape[2] // TILE) * (x.shape[3] // TILE) >= LEAST_TILES
            and not self.weight.is_inference()
            and quick_products()
        )

    def _transformed_weight(self) -> Tensor:
        """The filter at the 36 points, computed again when the weight has changed: by torch's count of changes, and, as fused
        optimizers leave that as it is, by some of its values."""
        version = (self.weight.data_ptr(), self.weight._version)
        some = self.weight.detach()[:, :, 1, 1].diagonal()
        before = self._transformed
        if before is None or before[0] != version or not torch.equal(before[1], some):
            self._transformed = before = (version, some.clone(), transform_filter(self.weight))
        return before[2]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_transformed": None}


@torch.no_grad()
def transform_filter(weight: Float[Tensor, "c_out c_in 3 3"]) -> Float[Tensor, "36 c_in c_out"]:
    """`G g G^T` of every filter, computed in float64."""
    c_out, c_in = weight.shape[:2]
    return (_FILTER @ weight.double().permute(2, 3, 1, 0).reshape(9, -1)).to(weight.dtype).reshape(-1, c_in, c_out)


def convolve(
    x: Float[Tensor, "n c_in h w"], filters: Float[Tensor, "36 c_in c_out"], bias: Float[Tensor, " c_out"]
) -> Float[Tensor, "n c_out h w"]:
    """The convolution, channels last in memory.

    Args:
        x: images of any size, float32 on a processor.
        filters: from `transform_filter`.
        bias: added to each pixel.
    """
    n, c_in, h, w = x.shape
    c_out = filters.shape[2]
    rows, columns = -(-h // TILE), -(-w // TILE)
    # As many tiles at a time as a processor's cache holds: those of several images, or some rows of tiles of one.
    most = max(64, 16_384 // max(c_in, c_out))
    images, band = max(1, most // (rows * columns)), max(1, min(rows, most // columns))
    padded = x.new_zeros(min(n, images), rows * TILE + 2, columns * TILE + 2, c_in)
    image, row, pixel, channel = padded.stride()
    tiles = padded.as_strided(
        (TILE + 2, TILE + 2, len(padded), rows, columns, c_in), (row, pixel, image, TILE * row, TILE * pixel, channel)
    )
    y = x.new_empty(n, rows * TILE, columns * TILE, c_out)
    y_tiles = y.view(n, rows, TILE, columns, TILE, c_out).permute(2, 4, 0, 1, 3, 5)
    points = len(filters)
    for first in range(0, n, images):
        batch = x[first : first + images].permute(0, 2, 3, 1)
        padded[: len(batch), 1 : h + 1, 1 : w + 1] = batch
        for top in range(0, rows, band):
            part = tiles[:, :, : len(batch), top : top + band].reshape(points, -1)
            products = torch.bmm((_INPUT @ part).view(points, -1, c_in), filters)
            out = y_tiles[:, :, first : first + images, top : top + band]
            torch.add((_OUTPUT @ products.view(points, -1)).view(out.shape), bias, out=out)
    return y[:, :h, :w].permute(0, 3, 1, 2)
