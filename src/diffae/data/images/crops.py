"""Crops: which box of an image is taken, in the shape of the model's images."""

from collections.abc import Sequence

from diffae.data.images.files import UnusableImage

Box = tuple[tuple[float, float], ...]
"""Where it begins and ends along each side, (h, w) or (d, h, w), in pixels."""


def center(sides: Sequence[int], size: Sequence[int], spacing: Sequence[float]) -> Box:
    """The largest centred box with the target's shape: in millimetres, where the file says how far apart its pixels are."""
    least = min(n * s / t for n, s, t in zip(sides, spacing, size, strict=True))
    lengths = [min(float(n), least * t / s) for n, s, t in zip(sides, spacing, size, strict=True)]
    # What is whole but for rounding is whole, so that nothing is resized by a millionth of a pixel.
    lengths = [float(round(x)) if abs(x - round(x)) < 1e-4 else x for x in lengths]
    return tuple(((n - x) / 2, (n + x) / 2) for n, x in zip(sides, lengths, strict=True))


def none(sides: Sequence[int], size: Sequence[int], spacing: Sequence[float]) -> Box:
    """The whole image, squeezed to the target's shape."""
    return tuple((0.0, float(n)) for n in sides)


def celeba(sides: Sequence[int], size: Sequence[int], spacing: Sequence[float]) -> Box:
    """The 128 x 128 box around the face of aligned CelebA (178 x 218), as in D2C and the paper."""
    if tuple(sides) != (218, 178):
        raise UnusableImage(
            f"is {sides_text(sides)}; the crop 'celeba' is for aligned CelebA images of 178 x 218: of others say --crop none"
        )
    return ((57.0, 185.0), (25.0, 153.0))


CROPS = {"center": center, "none": none, "celeba": celeba}


def sides_text(sides: Sequence[int]) -> str:
    """Sides for messages: pictures as width x height, volumes as depth x height x width."""
    return " x ".join(str(n) for n in (sides if len(sides) == 3 else reversed(sides)))


def box_of(sides: Sequence[int], *, size: Sequence[int], crop: str, spacing: Sequence[float] | None = None) -> Box:
    """The box of an image of these sides that a crop takes, in the shape of the model's images.

    Args:
        sides: of the image, (h, w) or (d, h, w), in pixels.
        size: of the model's images, as many sides.
        crop: of `CROPS`.
        spacing: distance of neighbours along each side, in any one unit; None takes all for the same.

    Raises:
        UnusableImage: the image is too small, or not of the shape that the crop is for.
    """
    if any(n * 4 < t for n, t in zip(sides, size, strict=True)):
        raise UnusableImage(f"is only {sides_text(sides)} pixels, less than a quarter of the training size {sides_text(size)}")
    return CROPS[crop](sides, size, spacing or [1.0] * len(sides))
