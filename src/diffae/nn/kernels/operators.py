"""Normalisation as operators of torch: what compilers and recomputation see; on a card by kernels of ours, elsewhere by PyTorch."""

import torch
from torch import Tensor

from diffae.nn.kernels import normalisation
from diffae.runtime.kernels import either

normalise = torch.library.custom_op("diffae::normalise", normalisation.forward, mutates_args=())
normalise_backward = torch.library.custom_op("diffae::normalise_backward", normalisation.backward, mutates_args=())


@normalise.register_fake
def _shapes(x, gamma, beta, t, z, numbers, groups, *settings):
    mean = x.new_empty(len(x), groups, dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.channels_last), mean, torch.empty_like(mean)


@normalise_backward.register_fake
def _shapes_backward(dy, x, mean, inverse, gamma, beta, t, z, *settings):
    dt, dz = (x.new_empty(0) if v is None else v.new_empty(v.shape) for v in (t, z))
    return torch.empty_like(x, memory_format=torch.channels_last), gamma.new_empty(2, len(gamma)), dt, dz


@normalise.register_kernel("cuda")
def _by_kernel(*given):
    def own() -> tuple[Tensor, Tensor, Tensor]:
        from diffae.nn.kernels import triton_normalisation

        return triton_normalisation.forward(*given)

    return either(own, lambda: normalisation.forward(*given))


@normalise_backward.register_kernel("cuda")
def _backward_by_kernel(*given):
    def own() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        from diffae.nn.kernels import triton_normalisation

        return triton_normalisation.backward(*given)

    return either(own, lambda: normalisation.backward(*given))
