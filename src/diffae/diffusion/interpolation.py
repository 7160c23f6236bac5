"""From one code to another: straight lines for z_sem, or the shortest way past known codes; great circles for x_T."""

from collections.abc import Sequence

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


def geodesic(
    a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], codes: Float[Tensor, "m d"], weights: Sequence[float]
) -> Float[Tensor, "n frames d"]:
    """From z_sem to z_sem by steps between known codes, as short ones as there are: on a way around where no codes are.

    Of all ways from a over some of the codes to b it is the one with the least sum of squared steps. Of many codes that is the
    geodesic of a metric in which it is far where codes are rare (Hwang et al. 2016, *Shortest path through random points*).

    Args:
        a: where it begins.
        b: where it ends.
        codes: of other images, such as those that the model was trained on; up to m^2 distances are taken for each a.
        weights: how far along, 0..1 of the way's length; 0 is a, 1 is b.

    Raises:
        ValueError: codes of another dimension, or not finite, or weights that are not within 0..1.
    """
    if codes.dim() != 2 or codes.shape[1] != a.shape[1]:
        raise ValueError(f"Expected codes of shape (m, {a.shape[1]}) to go past, got {tuple(codes.shape)}.")
    if not codes.isfinite().all():
        raise ValueError("Codes to go past are not finite: leave those out.")
    if not all(0 <= w <= 1 for w in weights):
        raise ValueError(f"How far along must be within 0..1, got {list(weights)}.")
    return torch.stack([_along(_way(torch.cat([x[None], codes.to(x), y[None]])), weights) for x, y in zip(a, b, strict=True)])


def _way(points: Float[Tensor, "m d"]) -> Float[Tensor, "k d"]:
    """The points on the way of least squared steps from the first to the last (Dijkstra 1959, all points being neighbours)."""
    last = len(points) - 1
    far = points.new_full((len(points),), torch.inf)
    far[0] = 0
    before, left = torch.zeros_like(far, dtype=torch.long), torch.ones_like(far, dtype=torch.bool)
    while left[last]:
        i = int(torch.where(left, far, torch.inf).argmin())
        left[i] = False
        reached = far[i] + (points - points[i]).square().sum(1)
        before = torch.where(reached < far, i, before)
        far = torch.minimum(far, reached)
    way = [last]
    while way[-1] != 0:
        way.append(int(before[way[-1]]))
    return points[way[::-1]]


def _along(points: Float[Tensor, "k d"], weights: Sequence[float]) -> Float[Tensor, "frames d"]:
    """Where one is after shares of the length of the way through points."""
    lengths = (points[1:] - points[:-1]).norm(dim=1)
    reached = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    places = []
    for w in weights:
        step = min(int((reached <= w * reached[-1]).sum()), len(lengths)) - 1
        share = (w * reached[-1] - reached[step]) / lengths[step] if lengths[step] > 0 else lengths[step]
        places.append(points[-1] if w == 1 else torch.lerp(points[step], points[step + 1], share))
    return torch.stack(places)


def _aligned(weight: Weight, like: Tensor) -> float | Tensor:
    """Weights shaped to multiply samples."""
    return weight.to(like).reshape(-1, *[1] * (like.dim() - 1)) if isinstance(weight, Tensor) else weight
