"""Many weights moved by one command, by numbers that lie on their device."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


@torch.no_grad()
def fused_sgd(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    momenta: Sequence[Tensor] = (),
    *,
    lr: float | Tensor,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    dampening: float = 0.0,
    maximize: bool = False,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> None:
    """`w <- w - lr (m + weight_decay w)` with `m <- momentum m + (1 - dampening) gradient`, in place; torch's kernel of SGD.

    Args:
        weights: changed.
        gradients: one each; divided in place by `grad_scale` where it is given.
        momenta: one each, changed; or none, and m is the gradient.
        lr: a number, of the host or of the device.
        weight_decay: see above.
        momentum: see above.
        dampening: see above.
        maximize: whether the gradient counts with the other sign.
        grad_scale: of the device.
        found_inf: of the device; where it is 1 nothing changes.
    """
    local_weights, local_gradients, averages = ([local_part(t) for t in tensors] for tensors in (weights, gradients, momenta))
    # The kernel goes through memory, and does not look whether all lie alike.
    alike = [
        g if g.stride() == w.stride() else torch.empty_like(w).copy_(g) for w, g in zip(local_weights, local_gradients, strict=True)
    ]
    torch._fused_sgd_(
        local_weights,
        alike,
        averages,
        weight_decay=weight_decay,
        momentum=momentum,
        lr=lr,
        dampening=dampening,
        nesterov=False,
        maximize=maximize,
        is_first_step=False,
        grad_scale=grad_scale,
        found_inf=found_inf,
    )
    torch.autograd.graph.increment_version([*local_weights, *averages])  # The kernel does not.
    for gradient, scaled in zip(local_gradients, alike, strict=True):
        if scaled is not gradient:
            gradient.copy_(scaled)


def move_towards(averages: Sequence[Tensor], weights: Sequence[Tensor], rate: Tensor, *, found_inf: Tensor | None = None) -> None:
    """`average <- average + rate (weight - average)`: ascent along the weights, with decay."""
    fused_sgd(averages, weights, lr=rate, weight_decay=1.0, maximize=True, found_inf=found_inf)


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of it, where it is divided over processes."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
