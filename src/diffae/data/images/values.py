"""Values of pixels: which of them become -1 and 1, the range of the networks."""

import numpy as np
import torch
from torch import Tensor

from diffae.config import Preparation
from diffae.data.images.decoded import Decoded, limits_of
from diffae.data.images.files import UnusableImage, Warn

ASK_RANGE = "Name the values that stand for black and white: --data.range LOW HIGH"
MEASURED = "or have them measured over all images: --data.range minmax, or percentiles"
SHARES = (0.001, 0.01, 0.1, 1, 2, 5, 10, 20, 50, 100)
"""Per cent of values beyond a range, as messages round them up: so that files of a kind share one line."""


class WithoutRange(UnusableImage):
    """Nobody says which of a file's values are black and white."""


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


def unknown(decoded: Decoded, *, padding: bool = False) -> np.ndarray | None:
    """Where a file has no data, (c, *sides): what is not finite, what it marks as that, and its padding, if that is asked for. None
    where it is whole."""
    found = ~np.isfinite(decoded.values) if np.issubdtype(decoded.values.dtype, np.floating) else None
    for marked in (decoded.gaps, decoded.padding if padding else None):
        if marked is not None:
            found = marked if found is None else found | marked
    return found if found is not None and found.any() else None


def limits_for(decoded: Decoded, preparation: Preparation) -> list[tuple[float, float]]:
    """The values that become -1 and 1, for each channel of a file.

    Raises:
        WithoutRange: neither the preparation nor the file says.
        UnusableImage: the preparation says it for another number of channels, or asks for a window that the file has not.
    """
    asked, channels = preparation.range, len(decoded.values)
    if asked == "window":
        if decoded.window is None:
            raise UnusableImage("says no window of its own, which --data.range window takes. " + ASK_RANGE)
        return [decoded.window] * channels
    if asked is None:
        if decoded.limits is None:
            raise WithoutRange(_without_range(decoded))
        return [decoded.limits] * channels
    pairs = [(float(low), float(high)) for low, high in zip(asked[::2], asked[1::2], strict=True)]
    if len(pairs) not in (1, channels):
        raise UnusableImage(f"has {channels} channels, and the range is of {len(pairs)}: give two numbers, or two for each channel")
    return pairs if len(pairs) == channels else pairs * channels


def mapped(decoded: Decoded, preparation: Preparation, gaps: np.ndarray | None, warn: Warn) -> tuple[np.ndarray, type]:
    """Values on the scale that they are stored on.

    Values of uint8 whose range is 0..255 stay as they are. For all others, the range is stretched to 0..65535, and what is beyond
    it is clipped, which is said; beyond the file's own limits nothing can be, and it is refused.

    Args:
        decoded: of a file.
        preparation: has the range.
        gaps: as `unknown` gives them; they become the middle of the scale.
        warn: called with the share of values that are clipped.

    Returns:
        (c, *sides), float32, and the type to round to, uint8 or uint16.

    Raises:
        UnusableImage: see `limits_for`; or values beyond the limits.
    """
    limits = limits_for(decoded, preparation)
    kind, most = (np.uint8, 255) if decoded.values.dtype == np.uint8 and set(limits) == {(0.0, 255.0)} else (np.uint16, 65535)
    if set(limits) != {limits_of(decoded.values.dtype)}:
        _check_limits(decoded, limits, preparation, gaps, warn)
    out = np.empty(decoded.values.shape, np.float32)
    for channel, (low, high) in enumerate(limits):
        values = decoded.values[channel]
        if (low, high) == (0, most):
            out[channel] = values.clip(0, most)
        else:
            out[channel] = ((values.astype(np.float64) - low) / (high - low)).clip(0, 1) * most
    if gaps is not None:
        out[gaps] = most / 2
    return out, kind


def _check_limits(
    decoded: Decoded, limits: list[tuple[float, float]], preparation: Preparation, gaps: np.ndarray | None, warn: Warn
) -> None:
    """Refuses values beyond a file's own limits, and says how many are beyond a range that was asked for."""
    shape = (-1,) + (1,) * len(decoded.sides)
    low, high = (np.reshape(np.array(x), shape) for x in zip(*limits, strict=True))
    with np.errstate(invalid="ignore"):
        beyond = (decoded.values < low) | (decoded.values > high)
    if gaps is not None:
        beyond &= ~gaps
    if not beyond.any():
        return
    if preparation.range is None:
        what = "floating-point arrays must be in [-1, 1]" if limits[0] == (-1, 1) else f"beyond {limits[0][0]:g}..{limits[0][1]:g}"
        join = ": " if limits[0] == (-1, 1) else ", "
        raise UnusableImage(f"has values {extent(decoded.values)}{join}{what}. {ASK_RANGE}, {MEASURED}")
    share = 100 * beyond.mean() if gaps is None else 100 * beyond.sum() / max(1, (~gaps).sum())
    rounded = next(s for s in SHARES if share <= s)
    warn(f"clipped to the range: up to {rounded:g} % of the values are beyond")


def _without_range(decoded: Decoded) -> str:
    kind = "floating-point pixels" if np.issubdtype(decoded.values.dtype, np.floating) else f"type {decoded.values.dtype}"
    return f"has {kind}, {extent(decoded.values)}. {ASK_RANGE}, {MEASURED}"


def extent(values: np.ndarray) -> str:
    """The smallest and the largest finite value, for messages."""
    known = values[np.isfinite(values)]
    return f"{known.min():g}..{known.max():g}" if known.size else "none of them a number"


def too_dark(most: int | None, preparation: Preparation, *, least: int = 0) -> str:
    """What to say of images of 16 bits that fill less than a quarter of 0..65535; empty where all is well.

    Args:
        most: the largest value that occurs, 0..65535; None for images of 8 bits.
        preparation: how they were read.
        least: the smallest.
    """
    if most is None or most - least > 65535 // 4:
        return ""
    if preparation.range is not None or most > 65535 // 4:
        share = 100 * (most - least) / 65535
        return f"values that fill {share:.2g} % of their range, nearly one grey to the model. {ASK_RANGE}, {MEASURED}"
    # Resizing overshoots by some percent.
    bits = max(8, int(0.9 * most).bit_length())
    return (
        f"no value above {most} of 65535, which is nearly black to the model. Where {2**bits - 1} stands for white, say so: "
        f"--data.range 0 {2**bits - 1}"
    )
