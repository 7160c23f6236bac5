"""Group normalisation with all that follows it up to the next convolution, as one operator and one for its gradient.

    y = Dropout(SiLU((GroupNorm(x) (1 + t_s) + t_b) (1 + z)))

with GroupNorm's own weight gamma and bias beta, t_s and t_b of the time and z of the semantics where they are given (Preechakul et
al. 2022, eq. 7, as the authors run it). Done one after the other, each step keeps an image for the gradient, and each gradient is
some passes over images. Together they keep x, and all gradients but that of x follow from two sums per channel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from diffae.runtime import philox

STEPS = 2**24
"""A share of dropout is a multiple of one over this."""


def forward(
    x: Tensor, gamma: Tensor, beta: Tensor, t: Tensor | None, z: Tensor | None, numbers: Tensor | None,
    groups: int, eps: float, silu: bool, dropout: float, key: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The result, and mean and inverse deviation of each image's groups.

    Args:
        x: (n, c, h, w), best with its channels last.
        gamma: (c,)
        beta: (c,)
        t: (n, 2 c), or None.
        z: (n, c), or None.
        numbers: (n,) int64: which sample each image is, where there is dropout.
        groups: of channels that are normalised together.
        eps: added to the variance.
        silu: whether SiLU follows.
        dropout: share of values that become zero, in 0..1.
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
        y = (x - _image(_wide(mean, c))).mul_(_image(_wide(inverse, c)))
    torch.addcmul(_image(shift), y, _image(scale), out=y)
    y = F.silu(y, inplace=True) if silu else y
    if dropout:
        assert numbers is not None
        y.mul_(kept(numbers, key, dropout, x.shape))
    return y.to(x.dtype, memory_format=torch.channels_last), mean, inverse


def backward(
    dy: Tensor, x: Tensor, mean: Tensor, inverse: Tensor, gamma: Tensor, beta: Tensor, t: Tensor | None, z: Tensor | None,
    numbers: Tensor | None, silu: bool, dropout: float, key: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, of gamma and beta (2, c), of t and of z; these are empty where there is none. Arguments as in `forward`."""
    n, c, h, w = x.shape
    groups = mean.shape[1]
    mean, inverse = _wide(mean, c), _wide(inverse, c)

    def over_group(values: Tensor) -> Tensor:
        """The mean over all that is normalised together, of sums per channel."""
        return _wide(values.view(n, groups, -1).sum(2), c) / (c // groups * h * w)

    # h = a x + b is what the SiLU saw; the normalised image is (x - mean) inverse.
    scale, shift = affine(gamma, beta, t, z, n)
    a = scale * inverse
    b = shift - mean * a
    x_float, dy_float = x.float(), dy.float()
    if dropout:
        assert numbers is not None
        dy_float = dy_float * kept(numbers, key, dropout, x.shape)
    dh = dy_float
    if silu:
        dh = torch.addcmul(_image(b), x_float, _image(a))
        dh = torch.ops.aten.silu_backward.grad_input(dy_float, dh, grad_input=dh)
    dshift = dh.sum((2, 3))
    # Every image that is not made anew is one that caches still hold.
    spare = torch.mul(dh, x_float) if dy_float is dy or dh is dy_float else torch.mul(dh, x_float, out=dy_float)
    dscale = inverse * (spare.sum((2, 3)) - mean * dshift)
    # dx = inverse (dn - mean(dn) - n mean(dn n)), dn = scale dh, sorted by what multiplies x and dh.
    of_x = -inverse.square() * over_group(scale * dscale)
    constant = -inverse * over_group(scale * dshift) - mean * of_x
    dx = torch.addcmul(_image(constant), x_float, _image(of_x), out=spare).addcmul_(dh, _image(a))
    return dx.to(dy.dtype), *_affine_backward(dscale, dshift, gamma, beta, t, z)


def kept(numbers: Tensor, key: int, dropout: float, shape: torch.Size) -> Tensor:
    """What dropout multiplies images by: 0, or 1 over the share that stays. Drawn for each image, its channels last."""
    n, c, h, w = shape
    u = philox.uniform(numbers, key, h * w * c).view(n, h, w, c).permute(0, 3, 1, 2)
    return (u >= threshold(dropout) / STEPS).float() / (1 - dropout)


def threshold(dropout: float) -> int:
    """Of a random word's upper 24 bits: below it, a value becomes zero."""
    return round(dropout * STEPS)


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


def _wide(values: Tensor, channels: int) -> Tensor:
    """Values of groups (n, groups), for each of their channels (n, c)."""
    return values.repeat_interleave(channels // values.shape[1], 1)


def _image(values: Tensor) -> Tensor:
    """Values of channels (n, c), to multiply images by."""
    return values[:, :, None, None]
