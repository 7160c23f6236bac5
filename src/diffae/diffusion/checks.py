"""What users give, looked at where it comes in: its shape, type and range. One look at the numbers, so one wait for a device."""

import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

NO_PRIOR = (
    "This autoencoder has no latent prior, so it can reconstruct and edit but not sample. Fit one with `diffae train-prior RUN`."
)
NO_ATTRIBUTES = "This autoencoder has no attributes yet. Fit them with `diffae fit-attributes RUN --labels TABLE`."
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
    # A bright picture may have no value below 0; hardly one that has nearly black and nearly white, and hardly several.
    if of_pixels and 0 <= low < high <= 1.001 and (len(x) >= 4 or (low < 0.1 and high > 0.9)):
        warnings.warn(
            f"None of these images has a value below 0 ({low:g}..{high:g}): are they in [0, 1]? Images are expected in [-1, 1]. If "
            "so, multiply them by 2 and subtract 1.",
            stacklevel=4,
        )
    return x


def check_counts(**counts: int | None) -> None:
    """Refuses numbers of things that are less than one.

    Raises:
        ValueError: such a number; the message calls it by its argument's name.
    """
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")


def check_timestep(t: int, T: int) -> None:
    """Refuses what is no timestep of 0..T-1."""
    if not 0 <= t < T:
        raise ValueError(f"t must be within 0..{T - 1}, got {t}.")


def check_weights(weights: Sequence[float]) -> None:
    """Refuses weights of an interpolation that are no numbers, and none at all."""
    if not len(weights) or not all(math.isfinite(w) for w in weights):
        raise ValueError(f"Expected weights that are numbers, from 0 for the first image to 1 for the second, got {list(weights)}.")


def check_z_sem(z_sem: Tensor, z_dim: int, num: int | None) -> None:
    """Refuses what has not the shape of semantic codes.

    Args:
        z_sem: what should be codes (num, d).
        z_dim: d.
        num: how many there have to be, or None.

    Raises:
        ValueError: another shape.
    """
    if z_sem.dim() != 2 or z_sem.shape[1] != z_dim or num not in (None, len(z_sem)):
        raise ValueError(f"Expected z_sem of shape ({'n' if num is None else num}, {z_dim}), got {tuple(z_sem.shape)}.")


def check_encoded(z_sem: Tensor) -> Tensor:
    """What an encoder gave, if it is numbers.

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
    # Networks compute in float32, in which a large number of float64 is none.
    counts = {name: int((~t.float().isfinite()).sum()) for name, t in tensors.items() if t.is_floating_point()}
    bad = {name: num for name, num in counts.items() if num}
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
