"""Reconstruction metrics, on images in [-1, 1] but reported on the [0, 1] scale, as in the paper."""

from jaxtyping import Float
from torch import Tensor


def each_mse(x_hat: Float[Tensor, "n c h w"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Mean squared error of each image, on the [0, 1] scale."""
    return ((x_hat - x) / 2).double().square().flatten(1).mean(1)


def each_ssim(x_hat: Float[Tensor, "n c h w"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Structural similarity of each image, Gaussian window 11 x 11 with sigma 1.5 (Wang et al. 2004), on the [0, 1] scale."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(
        (x_hat + 1) / 2, (x + 1) / 2, gaussian_kernel=True, sigma=1.5, kernel_size=11, data_range=1.0, reduction="none"
    )
    assert isinstance(value, Tensor)
    return value.reshape(len(x))


def mse(x_hat: Float[Tensor, "n c h w"], x: Float[Tensor, "n c h w"]) -> float:
    """Mean squared error on the [0, 1] scale."""
    return float(each_mse(x_hat, x).mean())


def psnr(x_hat: Float[Tensor, "n c h w"], x: Float[Tensor, "n c h w"]) -> float:
    """Peak signal-to-noise ratio in dB, each image's own, averaged."""
    return float((-10 * each_mse(x_hat, x).clamp(min=1e-12).log10()).mean())


def ssim(x_hat: Float[Tensor, "n c h w"], x: Float[Tensor, "n c h w"]) -> float:
    """`each_ssim`, averaged."""
    return float(each_ssim(x_hat, x).mean())
