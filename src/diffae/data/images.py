"""One image file -> one array at the training size."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from diffae.config import Crop, Preparation

Box = tuple[float, float, float, float]
"""Left, upper, right, lower, in pixels."""

EXTENSIONS = frozenset(Image.registered_extensions()) | {".npy"}
"""File names that are taken for images."""

BOMB_RATIO = 200
"""An image above Pillow's size limit (89 megapixels) whose file is this many times smaller is a bomb, not a picture."""


class UnusableImage(ValueError):
    """A file that is no image, or none that can be trained on; the message says why."""


def center(width: int, height: int, aspect: float) -> Box:
    """The largest centred box with the target's aspect (width / height)."""
    w, h = min(width, height * aspect), min(height, width / aspect)
    return ((width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2)


def none(width: int, height: int, aspect: float) -> Box:
    """The whole image, squeezed to the target's shape."""
    return (0.0, 0.0, float(width), float(height))


def celeba(width: int, height: int, aspect: float) -> Box:
    """The 128 x 128 box around the face of aligned CelebA (178 x 218), as in D2C and the paper."""
    if (width, height) != (178, 218):
        raise UnusableImage(f"is {width} x {height}; the crop 'celeba' is for aligned CelebA images of 178 x 218")
    return (25.0, 57.0, 153.0, 185.0)


CROPS = {"center": center, "none": none, "celeba": celeba}


def load_images(
    files: Sequence[Path],
    *,
    size: tuple[int, int],
    channels: int,
    preparation: Preparation,
) -> Float[Tensor, "n c h w"]:
    """Image files as a model wants them, in [-1, 1]. Arguments as in `read_image`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that cannot be used; the message names it and says why.
    """
    if not files:
        raise ValueError("No image files were given.")
    images = []
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"There is no image {file}.")
        try:
            pixels = read_image(file.read_bytes(), file.name, size=size, channels=channels, preparation=preparation)
        except UnusableImage as error:
            raise ValueError(f"{file} {error}.") from None
        images.append(in_range(pixels))
    return torch.stack(images)


def in_range(pixels: np.ndarray) -> Tensor:
    """uint8 or uint16, whose full range stands for [-1, 1], as that; floating-point values (latents) as they are."""
    values = torch.from_numpy(pixels.astype(np.float32))
    return values if np.issubdtype(pixels.dtype, np.floating) else values.mul_(2 / np.iinfo(pixels.dtype).max).sub_(1)


def scaled(rows: Tensor) -> Tensor:
    """The same of rows as they are fed to a device (`feed`): there int16 has the bits of uint16."""
    if rows.is_floating_point():
        return rows.float()
    values, most = (rows.int() & 0xFFFF, 65535) if rows.dtype == torch.int16 else (rows, 255)
    return values.float().mul_(2 / most).sub_(1)


def read_image(content: bytes, name: str, *, size: tuple[int, int], channels: int, preparation: Preparation) -> np.ndarray:
    """Decodes, orients, crops and resizes one image.

    Args:
        content: the file's bytes.
        name: its name; `.npy` files hold an array (c, h, w), all others are what Pillow reads.
        size: height and width of the result.
        channels: 1, 3 or 4; any number for `.npy`.
        preparation: crop, background and range of values; that of the model (`ae.preparation`).

    Returns:
        (channels, h, w), uint8, or uint16 for what has more than 8 bits. The full range stands for [-1, 1].

    Raises:
        UnusableImage: the file cannot be used; the message says why, without its name.
    """
    crop, background = preparation.crop, preparation.background
    if name.lower().endswith(".npy"):
        return _read_array(content, size=size, channels=channels, crop=crop)
    if channels not in (1, 3, 4):
        raise UnusableImage(
            f"is an image file, but the model has {channels} channels: give .npy arrays of shape ({channels}, h, w)"
        )
    try:
        image = _open(content)
        if image.format == "JPEG" and crop != "celeba" and image.mode in ("L", "RGB"):
            # JPEG can be decoded at a half, a quarter, an eighth: ten times faster for large photographs.
            image.draft(None, (2 * max(size), 2 * max(size)))
        image = ImageOps.exif_transpose(image)
        deep = image.mode.startswith("I")
        image = _with_channels(image, channels, background)
    except UnusableImage:
        raise
    except UnidentifiedImageError:
        raise UnusableImage("is not an image in any format that Pillow reads") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise UnusableImage(f"is damaged or cut short ({error})") from None
    _check_size(image.width, image.height, size)
    box = CROPS[crop](image.width, image.height, size[1] / size[0])
    image = _resized(image, size, box)
    array = np.asarray(image)
    if deep:
        array = np.clip(np.rint(array), 0, 65535).astype(np.uint16)
        array = np.broadcast_to(array, (3 if channels >= 3 else 1, *array.shape))
        if channels == 4:
            array = np.concatenate([array, np.full_like(array[:1], 65535)])
        return array
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _open(content: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(content))
        except Image.DecompressionBombError as error:
            raise UnusableImage(f"is too large to be decoded safely ({error})") from None
    pixels = image.width * image.height
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > limit and pixels * len(image.getbands()) > BOMB_RATIO * len(content):
        raise UnusableImage(
            f"looks like a decompression bomb: {image.width} x {image.height} pixels ({pixels / 1e6:.0f} megapixels) "
            f"out of {len(content):,} bytes"
        )
    return image


def _with_channels(image: Image.Image, channels: int, background: tuple[int, int, int]) -> Image.Image:
    """The image with the bands asked for: L, RGB or RGBA; 16-bit greys as F, so that resizing keeps their range."""
    if image.mode.startswith("I"):
        return image.convert("F")
    if image.mode == "F":
        raise UnusableImage("has floating-point pixels of unknown range: convert it to 16-bit, or to .npy in [-1, 1]")
    if channels == 4:
        return image.convert("RGBA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    return image.convert("L" if channels == 1 else "RGB")


def _read_array(content: bytes, *, size: tuple[int, int], channels: int, crop: Crop) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UnusableImage(f"is no readable .npy array ({error})") from None
    if array.ndim != 3 or len(array) != channels:
        raise UnusableImage(f"has shape {array.shape}, the model wants ({channels}, h, w)")
    kind = np.uint8 if array.dtype == np.uint8 else np.uint16
    if array.dtype in (np.uint8, np.uint16):
        scaled = array.astype(np.float32)
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise UnusableImage(f"has {bad} values that are not finite (NaN or infinite)")
        if array.min() < -1 or array.max() > 1:
            raise UnusableImage(f"has values {array.min():g}..{array.max():g}: floating-point arrays must be in [-1, 1]")
        scaled = (array.astype(np.float32) + 1) * 32767.5
    else:
        raise UnusableImage(f"has type {array.dtype}: give uint8, uint16 or floating-point values in [-1, 1]")
    _check_size(array.shape[2], array.shape[1], size)
    box = CROPS[crop](array.shape[2], array.shape[1], size[1] / size[0])
    resize = [_resized(Image.fromarray(band), size, box) for band in scaled]
    return np.clip(np.rint(np.stack([np.asarray(band) for band in resize])), 0, np.iinfo(kind).max).astype(kind)


def _check_size(width: int, height: int, size: tuple[int, int]) -> None:
    if width * 4 < size[1] or height * 4 < size[0]:
        raise UnusableImage(f"is only {width} x {height} pixels, less than a quarter of the training size {size[1]} x {size[0]}")


def _resized(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    """A box of an image at this height and width."""
    if all(float(edge).is_integer() for edge in box):
        # Cut out first: resizing a box looks at pixels beyond its edge.
        left, top, right, bottom = map(int, box)
        image, box = image.crop((left, top, right, bottom)), (0, 0, right - left, bottom - top)
    return image.resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box)
