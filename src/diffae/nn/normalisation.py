"""Group normalisation, adaptive or not, and the SiLU that follows it: one function, which keeps nothing but its input.

Done one after the other, normalisation, scale and shift, and SiLU each keep an image for the gradient, and each gradient is some
passes over images. Together they keep one, and all gradients but the image's follow from two sums per channel.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GroupNorm(nn.GroupNorm):
    """Group normalisation with min(32, channels) groups, computed in float32 whatever the input's precision.

    Where that many groups do not divide the channels (no network of the paper), the largest power of two that does.
    """

    def __init__(self, channels: int) -> None:
        groups = min(32, channels)
        super().__init__(math.gcd(32, channels) if channels % groups else groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)


class NormSiLU(GroupNorm):
    """`SiLU(GroupNorm(x))`."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        n = len(x)
        return norm_silu(x, self.weight.expand(n, -1), self.bias.expand(n, -1), self.num_groups, self.eps)


class AdaGNSiLU(nn.Module):
    """Adaptive group normalisation on time and semantics (Preechakul et al. 2022, eq. 7), and SiLU.

    The paper writes `z_s (t_s GroupNorm(h) + t_b)`. As the authors run it, scales are offsets from 1 and z_sem only
    scales: `(GroupNorm(h) (1 + t_s) + t_b) (1 + z_s)`, each affine map preceded by a SiLU (applied once, in the UNet).
    """

    def __init__(self, channels: int, t_channels: int, z_dim: int | None) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.time = nn.Linear(t_channels, 2 * channels)
        self.semantics = nn.Linear(z_dim, channels) if z_dim else None

    def forward(
        self, h: Float[Tensor, "n c h w"], t: Float[Tensor, "n k"], z_sem: Float[Tensor, "n d"] | None
    ) -> Float[Tensor, "n c h w"]:
        t_s, t_b = self.time(t).float().chunk(2, dim=1)
        scale, shift = self.norm.weight * (1 + t_s), self.norm.bias * (1 + t_s) + t_b
        if self.semantics is not None:
            z_s = 1 + self.semantics(z_sem).float()
            scale, shift = scale * z_s, shift * z_s
        return norm_silu(h, scale, shift, self.norm.num_groups, self.norm.eps)


def norm_silu(
    x: Float[Tensor, "n c h w"], scale: Float[Tensor, "n c"], shift: Float[Tensor, "n c"], groups: int, eps: float
) -> Float[Tensor, "n c h w"]:
    """`SiLU(scale Normalised(x) + shift)`, computed in float32; the result has the precision of `x`.

    Args:
        x: images of features.
        scale: of each image and channel, after normalisation.
        shift: likewise.
        groups: of channels that are normalised together.
        eps: added to the variance.
    """
    scale, shift = scale.float(), shift.float()
    if torch.compiler.is_compiling():
        # Compilers fuse by themselves what is done by hand below, and do not see through it.
        normalised = F.group_norm(x.float(), groups, eps=eps)
        return F.silu(torch.addcmul(_image(shift), normalised, _image(scale))).to(x.dtype)
    if not torch.is_grad_enabled():
        return _forward(x, scale, shift, groups, eps)[0]
    return _NormSiLU.apply(x, scale, shift, groups, eps)


def _forward(x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and mean and inverse deviation of each image's groups."""
    n, c, h, w = x.shape
    y = x.float()
    if not y.is_cpu:
        y = y.contiguous()  # CUDA's takes no other layout.
    y, mean, inverse = torch.native_group_norm(y, None, None, n, c, h * w, groups, eps)
    torch.addcmul(_image(shift), y, _image(scale), out=y)
    return F.silu(y, inplace=True).to(x.dtype), mean, inverse


class _NormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float) -> Tensor:
        y, mean, inverse = _forward(x, scale, shift, groups, eps)
        ctx.save_for_backward(x, scale, shift, mean, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, mean, inverse = ctx.saved_tensors
        n, c, h, w = x.shape
        width = c // mean.shape[1]
        mean, inverse = (v.repeat_interleave(width, 1) for v in (mean, inverse))

        def over_group(values: Tensor) -> Tensor:
            """The mean over all that is normalised together, of sums per channel."""
            return values.view(n, -1, width).sum(2).repeat_interleave(width, 1) / (width * h * w)

        # h = a x + b is what the SiLU saw; n = (x - mean) inverse, the normalised image.
        a = scale * inverse
        b = shift - mean * a
        x, dy_float = x.float(), dy.float()
        dh = torch.addcmul(_image(b), x, _image(a))
        dh = torch.ops.aten.silu_backward.grad_input(dy_float, dh, grad_input=dh)
        dshift = dh.sum((2, 3))
        # Every image that is not made anew is one that caches still hold.
        spare = torch.mul(dh, x) if dy_float is dy else torch.mul(dh, x, out=dy_float)
        dscale = inverse * (spare.sum((2, 3)) - mean * dshift)
        # dx = inverse (dn - mean(dn) - n mean(dn n)), dn = scale dh, sorted by what multiplies x and dh.
        of_x = -inverse.square() * over_group(scale * dscale)
        constant = -inverse * over_group(scale * dshift) - mean * of_x
        dx = torch.addcmul(_image(constant), x, _image(of_x), out=spare).addcmul_(dh, _image(a))
        return dx.to(dy.dtype), dscale, dshift, None, None


def _image(values: Float[Tensor, "n c"]) -> Float[Tensor, "n c 1 1"]:
    return values[:, :, None, None]
