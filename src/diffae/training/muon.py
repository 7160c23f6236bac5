"""Muon: steps of matrices whose singular values are all about one, so that rare directions learn as soon as common ones.

References:
    Jordan et al. 2024, *Muon: an optimizer for hidden layers in neural networks*; the size of a step as in Liu et al. 2025, *Muon
    is scalable for LLM training*. `docs/design/muon.md` says what it gives here.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae.training.sharding import divided, whole

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Of Jordan et al.: x -> a x + b x^3 + c x^5 takes singular values quickly to between .7 and 1.2, and there leaves them."""
ITERATIONS = 3
"""Jordan et al. take five. Three leave the smallest singular values below one, cost three fifths, and train as well here."""
RMS = 0.2
"""Root mean square of a step at a learning rate of one, which is about Adam's."""


def orthogonalized(
    matrices: Float[Tensor, "n a b"], iterations: int = ITERATIONS, *, dtype: torch.dtype | None = None
) -> Float[Tensor, "n a b"]:
    """Each matrix with its singular values made about one, by Newton-Schulz iterations.

    They are done on the product of a matrix with its transpose, which is the smaller one's square, and then applied in one product.

    Args:
        matrices: alike in shape.
        iterations: each takes singular values through `QUINTIC`.
        dtype: of the products, by default the matrices' own. Jordan et al. take bfloat16, whose errors are small beside those of
            a gradient.
    """
    a, b, c = QUINTIC
    flat = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    flat = (flat / flat.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-12)).to(dtype or matrices.dtype)
    gram, whole = flat @ flat.mT, None
    for i in range(iterations):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        whole = factor if whole is None else factor @ whole
        if i + 1 < iterations:
            gram = factor @ gram @ factor
    result = (flat if whole is None else whole @ flat).to(matrices.dtype)
    return result if matrices.shape[-2] <= matrices.shape[-1] else result.mT


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is for Muon: the weight of a layer that does not touch the data itself. Others are Adam's."""
    return parameter.dim() >= 2 and not name.endswith(("conv_in.weight", "conv_out.weight"))


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; a convolution is the matrix of its outputs by all else.

    Args:
        parameters: groups of weights of two or more dimensions.
        lr: learning rate.
        momentum: decay rate of the average of gradients.
        weight_decay: decoupled, as in AdamW.
        dtype: of the products; see `orthogonalized`. Averages and weights keep their own.
    """

    def __init__(
        self, parameters: Iterable[dict[str, Any]], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients; weights without one stay."""
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            gradients: list[Tensor] = [p.grad for p in weights]
            averages = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in weights]
            torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            alike: dict[tuple[int, int], list[int]] = {}
            for i, p in enumerate(weights):
                alike.setdefault((p.shape[0], p[0].numel()), []).append(i)
            for (rows, columns), places in alike.items():
                stacked = torch.stack([whole(ahead[i]).reshape(rows, columns) for i in places])
                steps = orthogonalized(stacked, dtype=self.dtype)
                size = group["lr"] * RMS * max(rows, columns) ** 0.5
                for i, step in zip(places, steps, strict=True):
                    weights[i].sub_(divided(step.reshape(weights[i].shape), weights[i]), alpha=size)
