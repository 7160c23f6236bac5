"""Reconstruction metrics, on images in [-1, 1] but reported on the [0, 1] scale, as in the paper."""

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_MS_SSIM = 161
"""The smallest image side that holds the window at the fifth scale."""


def each_mse(x_hat: Float[Tensor, "n c *sides"], x: Float[Tensor, "n c *sides"]) -> Float[Tensor, " n"]:
    """Mean squared error of each image, on the [0, 1] scale."""
    return ((x_hat - x) / 2).double().square().flatten(1).mean(1)


def each_ssim(x_hat: Float[Tensor, "n c *sides"], x: Float[Tensor, "n c *sides"]) -> Float[Tensor, " n"]:
    """Structural similarity of each image, Gaussian window 11 x 11 with sigma 1.5 (Wang et al. 2004), on the [0, 1] scale; of a
    volume the mean over its slices."""
    if x.dim() == 5:
        return each_ssim(*(v.transpose(1, 2).flatten(0, 1) for v in (x_hat, x))).view(len(x), -1).mean(1)
    from torchmetrics.functional.image import structural_similarity_index_measure

    # Variances are small differences of squares, which half precision does not have.
    x_hat, x = (v.to(torch.promote_types(v.dtype, torch.float32)) for v in (x_hat, x))
    value = structural_similarity_index_measure(
        (x_hat + 1) / 2, (x + 1) / 2, gaussian_kernel=True, sigma=1.5, kernel_size=11, data_range=1.0, reduction="none"
    )
    assert isinstance(value, Tensor)
    return value.reshape(len(x))


def each_psnr(x_hat: Float[Tensor, "n c *sides"], x: Float[Tensor, "n c *sides"]) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio of each image in dB; at most 120."""
    return -10 * each_mse(x_hat, x).clamp(min=1e-12).log10()


def each_ms_ssim(x_hat: Float[Tensor, "n c *sides"], x: Float[Tensor, "n c *sides"]) -> Float[Tensor, " n"]:
    """Multi-scale structural similarity of each image, five scales (Wang et al. 2003), on the [0, 1] scale.

    Raises:
        ValueError: images with a side below `LEAST_MS_SSIM`, whose smallest scale the window does not fit into.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    if min(x.shape[-2:]) < LEAST_MS_SSIM:
        raise ValueError(f"MS-SSIM needs images of at least {LEAST_MS_SSIM} pixels a side, got {x.shape[-2]} x {x.shape[-1]}.")
    x_hat, x = (v.to(torch.promote_types(v.dtype, torch.float32)) for v in (x_hat, x))
    unit = ((x_hat + 1) / 2, (x + 1) / 2)
    value = multiscale_structural_similarity_index_measure(*unit, data_range=1.0, normalize="relu", reduction="none")
    return value.reshape(len(x))


def mse(x_hat: Float[Tensor, "n c *sides"], x: Float[Tensor, "n c *sides"]) -> float:
    """Mean squared error on the [0, 1] scale."""
    return float(each_mse(x_hat, x).mean())


def psnr(x_hat: Float[Tensor, "n c *sides"], x: Float[Tensor, "n c *sides"]) -> float:
    """`each_psnr`, averaged."""
    return float(each_psnr(x_hat, x).mean())


def ssim(x_hat: Float[Tensor, "n c *sides"], x: Float[Tensor, "n c *sides"]) -> float:
    """`each_ssim`, averaged."""
    return float(each_ssim(x_hat, x).mean())
