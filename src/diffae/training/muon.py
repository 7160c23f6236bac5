"""Muon: steps of matrices whose singular values are all about one, so that rare directions learn as soon as common ones.

References:
    Jordan et al. 2024, *Muon: an optimizer for hidden layers in neural networks*; the size of a step as in Liu et al. 2025, *Muon
    is scalable for LLM training*. `docs/design/muon.md` says what it gives here.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae.training.sharding import divided, whole
from diffae.training.updates import fused_sgd

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Of Jordan et al.: x -> a x + b x^3 + c x^5 takes singular values quickly to between .7 and 1.2, and there leaves them."""
ITERATIONS = 3
"""Jordan et al. take five. Three leave the smallest singular values below one, cost three fifths, and train as well here."""
RMS = 0.2
"""Root mean square of a step at a learning rate of one, which is about Adam's."""
ENDS = re.compile(r"(.*\.)?(unet|encoder|decoder|mean_decoder|learned)\.conv_(in|out)\.weight")
"""Convolutions of the data itself: those right below a network."""


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
    gram, whole = torch.bmm(flat, flat.mT), None
    for i in range(iterations):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        whole = factor if whole is None else torch.bmm(factor, whole)
        if i + 1 < iterations:
            gram = torch.bmm(torch.bmm(factor, gram), factor)
    result = (flat if whole is None else torch.bmm(whole, flat)).to(matrices.dtype)
    return result if matrices.shape[-2] <= matrices.shape[-1] else result.mT


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is for Muon: the weight of a layer that does not touch the data itself. Others are Adam's.

    Args:
        name: in the model, whose networks begin and end with convolutions of the data; those of a block inside, of whatever
            name, are hidden.
        parameter: its weights.
    """
    return parameter.dim() >= 2 and ENDS.fullmatch(name) is None


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; a convolution is the matrix of its outputs by all else.

    As with torch's fused optimizers, `grad_scale` and `found_inf`, if set, are numbers on the device: by the first gradients are
    divided, and where the second is 1 nothing changes.

    Args:
        parameters: groups of weights of two or more dimensions.
        lr: learning rate, a number or a tensor of one.
        momentum: decay rate of the average of gradients.
        weight_decay: decoupled, as in AdamW.
        dtype: of the products; see `orthogonalized`. Averages and weights keep their own.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(
        self, parameters: Iterable[dict[str, Any]], *, lr: float | Tensor, momentum: float = 0.95, weight_decay: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients; weights without one stay."""
        groups = [(group, [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        groups = [(group, weights) for group, weights in groups if weights]
        ahead = [step for group, weights in groups for step in self._ahead(weights, group["momentum"])]
        everything = [p for _, weights in groups for p in weights]
        steps = self._steps(everything, ahead)
        for group, weights in groups:
            of_group, steps = steps[: len(weights)], steps[len(weights) :]
            fused_sgd(weights, of_group, lr=group["lr"], weight_decay=group["weight_decay"], found_inf=self.found_inf)

    def _ahead(self, weights: list[Tensor], momentum: float) -> Sequence[Tensor]:
        """Brings the averages of gradients up to date, and returns Nesterov's look ahead."""
        gradients: list[Tensor] = [p.grad for p in weights]  # type: ignore[misc]
        for p in weights:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        averages = [self.state[p]["momentum"] for p in weights]
        # An average is momentum whose gradient is damped; no weight is moved by it yet.
        fused_sgd(
            weights, gradients, averages, lr=0.0, momentum=momentum, dampening=momentum, grad_scale=self.grad_scale,
            found_inf=self.found_inf,
        )  # fmt: skip
        return torch._foreach_lerp(gradients, averages, momentum)

    def _steps(self, weights: list[Tensor], ahead: Sequence[Tensor]) -> list[Tensor]:
        """What is subtracted from each weight at a learning rate of one, in the weight's memory layout."""
        alike: dict[tuple[int, int], list[int]] = {}
        for i, p in enumerate(weights):
            alike.setdefault((p.shape[0], p[0].numel()), []).append(i)
        found: list[Tensor] = list(weights)
        for (rows, columns), places in alike.items():
            stacked = torch.stack([_as_matrix(whole(ahead[i]), weights[i]) for i in places])
            steps = orthogonalized(stacked, dtype=self.dtype).contiguous().mul_(RMS * max(rows, columns) ** 0.5)
            for i, step in zip(places, steps.unbind(), strict=True):
                found[i] = divided(_as_weight(step, weights[i]), weights[i])
        return found


def _as_matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """Outputs by all else, in the order of `like`'s memory: which column is which does not matter to singular vectors of rows."""
    return tensor.permute(_order(like)).reshape(len(tensor), -1)


def _as_weight(matrix: Tensor, like: Tensor) -> Tensor:
    """The same as a tensor of the shape and layout of `like`."""
    order = _order(like)
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return matrix.view([like.shape[i] for i in order]).permute(inverse)


def _order(tensor: Tensor) -> list[int]:
    """A tensor's dimensions as they lie in memory, outputs first."""
    return [0, *sorted(range(1, tensor.dim()), key=lambda i: (-tensor.stride()[i], i))]
