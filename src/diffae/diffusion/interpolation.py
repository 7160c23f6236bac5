"""From one code to another: straight lines for z_sem, great circles for x_T."""

import torch
from jaxtyping import Float
from torch import Tensor

Weight = float | Float[Tensor, " n"]
"""How far along, 0..1; one for all, or one a sample."""


def lerp(a: Float[Tensor, "n *s"], b: Float[Tensor, "n *s"], weight: Weight) -> Float[Tensor, "n *s"]:
    """`(1 - weight) a + weight b`; for z_sem (Preechakul et al. 2022, section 5.2)."""
    return torch.lerp(a, b, _aligned(weight, a))


def slerp(a: Float[Tensor, "n *s"], b: Float[Tensor, "n *s"], weight: Weight) -> Float[Tensor, "n *s"]:
    """Spherical interpolation of each sample, for x_T: Gaussian noise stays on its sphere (Shoemake 1985).

    Directions go along the great circle, `(sin((1-w) theta) a/|a| + sin(w theta) b/|b|) / sin(theta)` with theta the angle
    between a and b, norms along a straight line. So equal norms are kept, and weights 0 and 1 return a and b themselves.
    Falls back to `lerp` where the two are parallel.

    Raises:
        ValueError: one of the two is the zero vector, which has no direction.
    """
    u, v = a.flatten(1).double(), b.flatten(1).double()
    norm_u, norm_v = u.norm(dim=1, keepdim=True), v.norm(dim=1, keepdim=True)
    if (norm_u == 0).any() or (norm_v == 0).any():
        raise ValueError("slerp got a zero vector, which has no direction: interpolate it with lerp, or give another x_T.")
    if not isinstance(weight, Tensor) and weight in (0, 1):
        return b if weight else a
    weight = _aligned(weight, u)
    theta = torch.acos((u / norm_u * v / norm_v).sum(1, keepdim=True).clamp(-1, 1))
    # Near 0 and pi the great circle is not determined; there a straight line is as good.
    sine = theta.sin()
    arc = (((1 - weight) * theta).sin() * u / norm_u + (weight * theta).sin() * v / norm_v) / sine
    norm = torch.lerp(norm_u, norm_v, weight)
    return torch.where(sine < 1e-6, torch.lerp(u, v, weight), norm * arc).reshape(a.shape).to(a)


def _aligned(weight: Weight, like: Tensor) -> float | Tensor:
    """Weights shaped to multiply samples."""
    return weight.to(like).reshape(-1, *[1] * (like.dim() - 1)) if isinstance(weight, Tensor) else weight
