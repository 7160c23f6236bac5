"""Evening z_sem: coordinates in which its directions vary more alike, for whoever reads it; and the way back, for the decoder."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

POWER = 0.4
"""Of variances: 1 leaves them as they are, 0 makes all alike, those of noise too."""
LEAST = 1e-6
"""Of the largest variance: what varies less is taken to vary so much, lest rounding become a direction."""


FOLDS = 5
"""In which codes are left out in turn."""
UNKNOWN = 1e-10
"""Of the largest variance of the others, below which nothing is known of an axis."""


class Evening(NamedTuple):
    """`z -> map (z - mean)`, and its inverse, float64.

    Attributes:
        mean: (d,), of the codes.
        map: (d, d)
        inverse: (d, d), of the map.
    """

    mean: Tensor
    map: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, *views: Float[Tensor, "n d"]) -> "Evening":
        """The symmetric map after which the codes' principal variances are the `POWER`-th powers of what they were, and their mean
        is 1: part of the way to whitening (of the maps that do so, the one that changes codes least: Kessy et al. 2018). Codes
        that vary by rounding alone stay as they are.

        Args:
            views: codes of the same images, seen otherwise, such as mirrored.
        """
        z = torch.cat(views).double()
        mean = z.mean(0)
        variances, axes = torch.linalg.eigh(_covariance([view.double() for view in views]))
        if variances[-1] <= rounding(z, torch.float32):
            return cls(mean, torch.eye(len(mean)).to(z), torch.eye(len(mean)).to(z))
        variances = variances.clamp(min=LEAST * float(variances[-1]))
        scale = variances ** ((POWER - 1) / 2)
        scale = scale / (scale.square() * variances).mean().sqrt()
        return cls(mean, axes * scale @ axes.T, axes / scale @ axes.T)


def rounding(values: Float[Tensor, "n d"], dtype: torch.dtype) -> Tensor:
    """The variance that rounding to a type of numbers may give: what varies less does not vary."""
    return (torch.finfo(dtype).eps * values.norm() / len(values) ** 0.5).square()


def _covariance(views: Sequence[Float[Tensor, "n d"]]) -> Float[Tensor, "d d"]:
    """Their covariance, with variances as codes have them that were left out: those of each fold along the principal axes of the
    others (Lam 2016). Of few codes the variances along their own axes are too unlike, and zero beyond their number; evened by
    these, codes of other images would vary most where none of these does."""
    n, d = views[0].shape
    folds = min(FOLDS, n)
    found = views[0].new_zeros(d, d)
    for fold in range(folds if folds > 1 else 0):
        out = torch.arange(n, device=views[0].device) % folds == fold
        rest, left_out = (torch.cat([view[rows] for view in views]) for rows in (~out, out))
        mean = rest.mean(0)
        of_rest, axes = torch.linalg.eigh((rest - mean).T @ (rest - mean))
        variances = ((left_out - mean) @ axes).square().mean(0)
        # Where the others do not vary, any axes would do: what lies there is shared out evenly, so that they do not matter.
        unknown = of_rest <= UNKNOWN * of_rest[-1]
        variances = torch.where(unknown, (variances * unknown).sum() / unknown.sum().clamp(min=1), variances)
        found += axes * variances @ axes.T / folds
    return found


class Unevened(nn.Module):
    """z_sem in the coordinates that a network was trained in: the identity, until `follow` says what z_sem has become since.

    Args:
        z_dim: of z_sem.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        # Not `torch.eye`, for which PyTorch loads its compiler where a model is only sketched.
        self.register_buffer("weight", torch.zeros(z_dim, z_dim).fill_diagonal_(1))
        self.register_buffer("bias", torch.zeros(z_dim))

    def forward(self, z_sem: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return F.linear(z_sem, self.weight.to(z_sem), self.bias.to(z_sem))


@torch.no_grad()
def follow(linear: Unevened | nn.Linear, evening: Evening) -> None:
    """Has a linear map of z_sem say of evened z_sem what it said before."""
    weight = linear.weight.double()
    linear.bias.add_((weight @ evening.mean).to(linear.bias))
    linear.weight.copy_(weight @ evening.inverse)
