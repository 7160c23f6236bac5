"""Normalisation as operators of torch, which compilers and recomputation see: on a card by Triton, elsewhere by PyTorch."""

from typing import Any

import torch
from torch import Tensor

from diffae.nn.kernels import normalisation
from diffae.runtime.kernels import kernel_or_plain

normalise = torch.library.custom_op("diffae::normalise", normalisation.forward, mutates_args=())
normalise_backward = torch.library.custom_op("diffae::normalise_backward", normalisation.backward, mutates_args=())


@normalise.register_fake
def _shapes(
    x: Tensor, gamma: Tensor, beta: Tensor, t: Tensor | None, z: Tensor | None, numbers: Tensor | None, groups: int, *settings: Any
) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.new_empty(len(x), groups, dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.channels_last), mean, torch.empty_like(mean)


@normalise_backward.register_fake
def _shapes_backward(
    dy: Tensor, x: Tensor, mean: Tensor, inverse: Tensor, gamma: Tensor, beta: Tensor, t: Tensor | None, z: Tensor | None,
    *settings: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    dt, dz = (x.new_empty(0) if v is None else v.new_empty(v.shape) for v in (t, z))
    return torch.empty_like(x, memory_format=torch.channels_last), gamma.new_empty(2, len(gamma)), dt, dz


@normalise.register_kernel("cuda")
def _on_card(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    def by_triton() -> tuple[Tensor, Tensor, Tensor]:
        from diffae.nn.kernels import triton_normalisation

        return triton_normalisation.forward(*arguments)

    return kernel_or_plain(by_triton, lambda: normalisation.forward(*arguments))


@normalise_backward.register_kernel("cuda")
def _backward_on_card(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def by_triton() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        from diffae.nn.kernels import triton_normalisation

        return triton_normalisation.backward(*arguments)

    return kernel_or_plain(by_triton, lambda: normalisation.backward(*arguments))
