"""Values of pixels: windows of more than 8 bits, and the range [-1, 1] of the networks."""

import numpy as np
import torch
from torch import Tensor

from diffae.config import Preparation
from diffae.data.images.files import UnusableImage

ASK_RANGE = "Name the values that stand for black and white: --data.range LOW HIGH"


def in_range(pixels: np.ndarray) -> Tensor:
    """Pixels as float32. The full range of uint8 or uint16 becomes [-1, 1]; floating-point values (latents) stay as they are."""
    values = torch.from_numpy(pixels.astype(np.float32))
    return values if np.issubdtype(pixels.dtype, np.floating) else values.mul_(2 / np.iinfo(pixels.dtype).max).sub_(1)


def scaled(rows: Tensor) -> Tensor:
    """The same for rows on a device (see `feed`), where int16 has the bits of uint16."""
    if rows.is_floating_point():
        return rows.float()
    values, most = (rows.int() & 0xFFFF, 65535) if rows.dtype == torch.int16 else (rows, 255)
    return values.float().mul_(2 / most).sub_(1)


def in_window(values: np.ndarray, preparation: Preparation) -> np.ndarray:
    """Values as float32, 0..65535: `preparation.range` is stretched to that, and what is beyond is clipped. Without a range, values
    stay as they are.

    Raises:
        UnusableImage: values are not finite, or there is no range and they are beyond 0..65535.
    """
    check_finite(values)
    if preparation.range is not None:
        low, high = preparation.range
        return (np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 65535).astype(np.float32)
    if values.min() < 0 or values.max() > 65535:
        raise UnusableImage(f"has values {extent(values)}, beyond 0..65535. {ASK_RANGE}")
    return values.astype(np.float32)


def check_finite(values: np.ndarray) -> None:
    """Refuses floating-point values that are NaN or infinite.

    Raises:
        UnusableImage: there are such.
    """
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        raise UnusableImage(f"has {int((~np.isfinite(values)).sum())} values that are not finite (NaN or infinite)")


def extent(values: np.ndarray) -> str:
    """The smallest and the largest value, for messages."""
    return f"{values.min():g}..{values.max():g}"


def too_dark(most: int | None, preparation: Preparation) -> str:
    """What to say of images of 16 bits that use only the lowest quarter of 0..65535; empty where all is well.

    Args:
        most: the largest value that occurs, 0..65535; None for images of 8 bits.
        preparation: how they were read.
    """
    if most is None or preparation.range is not None or most > 65535 // 4:
        return ""
    # Resizing overshoots by some percent.
    bits = max(8, int(0.9 * most).bit_length())
    return (
        f"no value above {most} of 65535, which is nearly black to the model. Where {2**bits - 1} stands for white, say so: "
        f"--data.range 0 {2**bits - 1}"
    )
