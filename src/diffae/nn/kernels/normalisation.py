"""Group normalisation with all that follows it up to the next convolution, as one function and one for its gradient.

    y = Dropout(SiLU((GroupNorm(x) (1 + t_s) + t_b) (1 + z)))

gamma and beta are GroupNorm's weight and bias. t_s and t_b come from the time and z from the semantics, where there are any
(Preechakul et al. 2022, eq. 7, as the authors run it). Done one after the other, each step keeps an image for the gradient, and
each gradient takes several passes over images. Together they keep x alone, and all gradients but that of x follow from two sums
per channel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from diffae.runtime import philox

DROPOUT_LEVELS = 2**24
"""Dropout's rate is rounded to a multiple of one over this."""


def forward(
    x: Tensor, gamma: Tensor, beta: Tensor, t: Tensor | None, z: Tensor | None, numbers: Tensor | None,
    groups: int, eps: float, silu: bool, dropout: float, key: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The result, and mean and inverse deviation of each image's groups.

    Args:
        x: (n, c, h, w), best with its channels last.
        gamma: (c,)
        beta: (c,)
        t: (n, 2 c), the scale first, or None.
        z: (n, c), or None.
        numbers: (n,) int64, the sample number of each image, where there is dropout.
        groups: of channels that are normalised together.
        eps: added to the variance.
        silu: whether SiLU follows.
        dropout: the rate, in 0..1: the fraction of values that become zero.
        key: of dropout's random numbers.

    Returns:
        y like x, computed in float32; mean (n, groups) and inverse (n, groups), float32.
    """
    n, c, h, w = x.shape
    scale, shift = affine(gamma, beta, t, z, n)
    if x.is_cpu or not x.numel():
        y, mean, inverse = torch.native_group_norm(x.float(), None, None, n, c, h * w, groups, eps)
    else:  # CUDA's wants the channels in front.
        variance, mean = torch.var_mean(x.float().unflatten(1, (groups, -1)), (2, 3, 4), correction=0)
        inverse = torch.rsqrt(variance + eps)
        y = (x - over_pixels(_per_channel(mean, c))).mul_(over_pixels(_per_channel(inverse, c)))
    torch.addcmul(over_pixels(shift), y, over_pixels(scale), out=y)
    y = F.silu(y, inplace=True) if silu else y
    if dropout:
        assert numbers is not None
        y.mul_(dropout_mask(numbers, key, dropout, x.shape))
    return y.to(x.dtype, memory_format=torch.channels_last), mean, inverse


def backward(
    dy: Tensor, x: Tensor, mean: Tensor, inverse: Tensor, gamma: Tensor, beta: Tensor, t: Tensor | None, z: Tensor | None,
    numbers: Tensor | None, silu: bool, dropout: float, key: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, of gamma and beta (2, c), of t and of z. The last two are empty where there is no t or z.

    Arguments as in `forward`.
    """
    n, c, h, w = x.shape
    groups = mean.shape[1]
    mean, inverse = _per_channel(mean, c), _per_channel(inverse, c)

    def group_mean(values: Tensor) -> Tensor:
        """The mean over a group's values, of sums per channel."""
        return _per_channel(values.view(n, groups, -1).sum(2), c) / (c // groups * h * w)

    # h = a x + b is the input of SiLU; the normalised image is (x - mean) inverse.
    scale, shift = affine(gamma, beta, t, z, n)
    a = scale * inverse
    b = shift - mean * a
    x_float, dy_float = x.float(), dy.float()
    if dropout:
        assert numbers is not None
        dy_float = dy_float * dropout_mask(numbers, key, dropout, x.shape)
    dh = dy_float
    if silu:
        dh = torch.addcmul(over_pixels(b), x_float, over_pixels(a))
        dh = torch.ops.aten.silu_backward.grad_input(dy_float, dh, grad_input=dh)
    dshift = dh.sum((2, 3))
    # An image that is written over, and not allocated, is still in the processor's caches.
    buffer = torch.mul(dh, x_float) if dy_float is dy or dh is dy_float else torch.mul(dh, x_float, out=dy_float)
    dscale = inverse * (buffer.sum((2, 3)) - mean * dshift)
    # dx = inverse (dn - mean(dn) - n mean(dn n)), dn = scale dh, sorted by what multiplies x and dh.
    x_factor = -inverse.square() * group_mean(scale * dscale)
    constant = -inverse * group_mean(scale * dshift) - mean * x_factor
    dx = torch.addcmul(over_pixels(constant), x_float, over_pixels(x_factor), out=buffer).addcmul_(dh, over_pixels(a))
    return dx.to(dy.dtype), *_affine_backward(dscale, dshift, gamma, beta, t, z)


def dropout_mask(numbers: Tensor, key: int, dropout: float, shape: torch.Size) -> Tensor:
    """What dropout multiplies images by, (n, c, h, w): 0, or 1 / (1 - dropout). Each image has its own draws, channels last."""
    n, c, h, w = shape
    u = philox.uniform(numbers, key, h * w * c).view(n, h, w, c).permute(0, 3, 1, 2)
    return (u >= drop_threshold(dropout) / DROPOUT_LEVELS).float() / (1 - dropout)


def drop_threshold(dropout: float) -> int:
    """A value becomes zero where the upper 24 bits of its random word are below this."""
    return round(dropout * DROPOUT_LEVELS)


def affine(gamma: Tensor, beta: Tensor, t: Tensor | None, z: Tensor | None, n: int) -> tuple[Tensor, Tensor]:
    """Scale and shift (n, c) of the normalised image, float32."""
    scale, shift = gamma.float().expand(n, -1), beta.float().expand(n, -1)
    if t is not None:
        t_s, t_b = t.float().chunk(2, dim=1)
        scale, shift = scale * (1 + t_s), torch.addcmul(t_b, shift, 1 + t_s)
    if z is not None:
        z_s = 1 + z.float()
        scale, shift = scale * z_s, shift * z_s
    return scale, shift


def over_pixels(values: Tensor) -> Tensor:
    """Values of channels (n, c), as (n, c, 1, 1), which broadcasts over pixels."""
    return values[:, :, None, None]


def _affine_backward(
    dscale: Tensor, dshift: Tensor, gamma: Tensor, beta: Tensor, t: Tensor | None, z: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of gamma and beta (2, c), of t and of z."""
    dt, dz = dscale.new_empty(0), dscale.new_empty(0)
    if z is not None:
        scale, shift = affine(gamma, beta, t, None, len(dscale))
        dz = (dscale * scale + dshift * shift).to(z.dtype)
        z_s = 1 + z.float()
        dscale, dshift = dscale * z_s, dshift * z_s
    if t is not None:
        dt = torch.cat([dscale * gamma + dshift * beta, dshift], dim=1).to(t.dtype)
        t_s = 1 + t[:, : len(gamma)].float()
        dscale, dshift = dscale * t_s, dshift * t_s
    return torch.stack([dscale.sum(0), dshift.sum(0)]).to(gamma.dtype), dt, dz


def _per_channel(values: Tensor, channels: int) -> Tensor:
    """Values of groups (n, groups), repeated for each of their channels (n, c)."""
    return values.repeat_interleave(channels // values.shape[1], 1)
