"""What users give, looked at where it comes in: its shape, type and range. One look at the numbers, so one wait for a device."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

Shape = tuple[int, int, int]
"""Channels, height and width."""


def check_images(x: Tensor, shape: Shape, *, of_pixels: bool = True) -> Tensor:
    """The images, if they are some.

    Args:
        x: what should be images (n, c, h, w).
        shape: of one.
        of_pixels: which lie within [-1, 1]; latents have no range.

    Raises:
        ValueError: another shape, or values out of range or not a number.
        TypeError: values that are not floating-point.
    """
    c, h, w = shape
    if x.dim() != 4 or tuple(x.shape[1:]) != shape:
        how = "crop and resize them" if of_pixels else "make latents of them with `from_pixels`"
        raise ValueError(f"Expected images of shape (n, {c}, {h}, {w}), got {tuple(x.shape)}: {how} first.")
    if not x.is_floating_point():
        raise TypeError(f"Expected floating-point images in [-1, 1], got {x.dtype}: convert, divide by 127.5 and subtract 1.")
    low, high = torch.stack(x.detach().aminmax()).tolist() if x.numel() else (0.0, 0.0)
    if low != low:
        raise ValueError("Expected images in [-1, 1], got values that are not a number (NaN).")
    if of_pixels and not (low >= -1.001 and high <= 1.001):
        advice = "divide by 127.5 and subtract 1" if low >= 0 and high <= 255 else "rescale them"
        raise ValueError(f"Expected images in [-1, 1], got {low:g}..{high:g}: {advice}.")
    return x


def check_codes(z_sem: Tensor) -> Tensor:
    """The codes, if they are numbers.

    Raises:
        ValueError: a NaN or an infinity; the message counts the codes that have one.
    """
    wrong = int((~z_sem.isfinite().all(1)).sum())
    if wrong:
        raise ValueError(
            f"The encoder gives z_sem that is not finite (NaN or infinite) for {wrong} of {len(z_sem)} images: its weights are no "
            "numbers, or too large for its arithmetic. Load an earlier state."
        )
    return z_sem


def check_finite(tensors: Mapping[str, Tensor], source: object) -> None:
    """Refuses weights of which some are no numbers: all that they would make were none either.

    Args:
        tensors: by their names.
        source: where they come from, for the message.

    Raises:
        ValueError: a NaN or an infinity; the message counts them and names the first tensor.
    """
    bad = {name: int((~t.isfinite()).sum()) for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()}
    if bad:
        raise ValueError(
            f"{source} holds {sum(bad.values()):,} values that are not finite (NaN or infinite), in {next(iter(bad))!r} first. "
            "They were lost before it was saved: take an earlier state, or train again."
        )


def check_x_T(x_T: Tensor, shape: Shape, num: int | None) -> Tensor:
    """The stochastic codes, if they are some; warns where they have not the spread of normal noise.

    Args:
        x_T: what should be noise (num, c, h, w).
        shape: of one.
        num: how many there have to be.

    Raises:
        ValueError: another shape, or uniform noise.
    """
    c, h, w = shape
    if x_T.dim() != 4 or tuple(x_T.shape[1:]) != shape or num not in (None, len(x_T)):
        raise ValueError(f"Expected x_T of shape ({num or 'n'}, {c}, {h}, {w}), got {tuple(x_T.shape)}.")
    if x_T.numel() < 2:
        return x_T
    low, high, std = torch.stack([*x_T.aminmax(), x_T.std()]).tolist()
    # Inferred noise of a flat image may have one sign, but is not spread evenly over 0..1.
    if low >= 0 and high <= 1 and 0.2 < std < 0.4:
        raise ValueError("Expected x_T to be normal noise, but it lies within 0..1: draw it with torch.randn, not torch.rand.")
    if x_T.numel() >= 64 and not 0.4 < std < 2.5:
        warnings.warn(
            f"x_T has a standard deviation of {std:.2g}, where that of normal noise is 1: is it scaled, drawn by something "
            "else than torch.randn, or inferred by a network that is hardly trained?",
            stacklevel=3,
        )
    return x_T
