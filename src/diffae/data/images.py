"""One image file -> one array at the training size."""

import io
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from diffae.config import Preparation
from diffae.data import png
from diffae.runtime.files import POINTER, is_pointer

Box = tuple[float, float, float, float]
"""Left, upper, right, lower, in pixels."""

EXTENSIONS = frozenset(Image.registered_extensions()) | {".npy"}
"""File names that are taken for images."""

STACK = "of several pages or frames, of which the first was taken: save each page that counts as an image of its own"
ASK_RANGE = "Name the values that stand for black and white: --data.range LOW HIGH"
BOMB_RATIO = 200
"""An image above Pillow's size limit (89 megapixels) whose file is this many times smaller is a bomb, not a picture."""
PALETTES = ("RGB", "RGBX", "RGBA", "BGR", "BGRX", "RGB;L", "RGBA;L")
"""How Pillow holds palettes of a byte for each value."""

Told = Callable[[str], object]
"""Called with what was left of an image, in words that follow its name."""


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
        raise UnusableImage(
            f"is {width} x {height}; the crop 'celeba' is for aligned CelebA images of 178 x 218: of others say --crop none"
        )
    return (25.0, 57.0, 153.0, 185.0)


CROPS = {"center": center, "none": none, "celeba": celeba}


def load_images(
    files: Sequence[Path],
    *,
    size: tuple[int, int],
    channels: int,
    preparation: Preparation,
    tell: Told = warnings.warn,
) -> Float[Tensor, "n c h w"]:
    """Image files as a model wants them, in [-1, 1].

    Args:
        files: their names.
        size: height and width of the result.
        channels: see `read_image`.
        preparation: that of the model (`ae.preparation`).
        tell: told in a sentence what was left of a file, or looks wrong in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that cannot be used; the message names it and says why.
    """
    if not files:
        raise ValueError("No image files were given.")
    images = []
    for file in files:
        if not file.is_file():
            advice = " Addresses are not opened: download what is there." if ":/" in file.as_posix() else ""
            raise FileNotFoundError(f"There is no image {file}.{advice}")
        told: list[str] = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Of Pillow, about what does not touch the pixels.
                content = file.read_bytes()
                pixels = read_image(content, file.name, size=size, channels=channels, preparation=preparation, tell=told.append)
        except UnusableImage as error:
            raise ValueError(f"{file} {error}.") from None
        if dark := too_dark(int(pixels.max()) if pixels.dtype == np.uint16 else None, preparation):
            tell(f"{file} has {dark}.")
        for what in told:
            tell(f"{file} is {what}.")
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


def read_image(
    content: bytes,
    name: str,
    *,
    size: tuple[int, int],
    channels: int,
    preparation: Preparation,
    tell: Told = lambda what: None,
) -> np.ndarray:
    """Decodes, orients, crops and resizes one image.

    Args:
        content: the file's bytes.
        name: its name; `.npy` files hold an array (c, h, w), all others are what Pillow reads.
        size: height and width of the result.
        channels: 1, 3 or 4; any number for `.npy`.
        preparation: crop, background and range of values; that of the model (`ae.preparation`).
        tell: told what is left of the file, where that is not all.

    Returns:
        (channels, h, w), uint8, or uint16 for what has more than 8 bits. The full range stands for [-1, 1].

    Raises:
        UnusableImage: the file cannot be used; the message says why, without its name.
    """
    crop, background = preparation.crop, preparation.background
    if is_pointer(content):
        raise UnusableImage(POINTER)
    if name.lower().endswith(".npy"):
        return _read_array(content, size=size, channels=channels, preparation=preparation)
    if channels not in (1, 3, 4):
        raise UnusableImage(
            f"is an image file, but the model has {channels} channels: give .npy arrays of shape ({channels}, h, w)"
        )
    try:
        image = _open(content)
        if image.format == "JPEG" and crop != "celeba" and image.mode in ("L", "RGB"):
            # JPEG can be decoded at a half, a quarter, an eighth: ten times faster for large photographs.
            image.draft(None, (2 * max(size), 2 * max(size)))
        # A telephone's second view (MPO) is no page.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            tell(STACK)
            image.seek(0)
        _check_whole(image, content)
        image = ImageOps.exif_transpose(image)
        deep = image.mode.startswith(("I", "F"))
        image = _windowed(image, preparation) if deep else _with_channels(image, channels, background)
    except (UnusableImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnusableImage("is not an image in any format that Pillow reads") from None
    except Exception as error:  # Of damaged files, whatever a reader stumbles over.
        raise UnusableImage(f"is damaged or cut short ({str(error).strip() or type(error).__name__})") from None
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


def _check_whole(image: Image.Image, content: bytes) -> None:
    """Decodes, and refuses what Pillow leaves black without a word: rows that are not there, colours of no palette.

    Raises:
        UnusableImage: there is such.
    """
    colours = _colours(image)  # Before it is decoded: Pillow makes 256 of them then.
    image.load()
    if colours is not None and (most := int(np.asarray(image).max())) >= colours:
        raise UnusableImage(f"is damaged: it has pixels of colour {most}, and a palette of {colours}")
    if image.format == "PNG" and (missing := png.missing(image, content)):
        raise UnusableImage(f"is damaged or cut short: {missing:,} bytes of its pixels are not there")


def _colours(image: Image.Image) -> int | None:
    """How many there are in the palette; None where there is none, or of a kind that is not known."""
    if image.mode != "P":
        return None
    kind, palette = image.palette.getdata() if image.palette else ("RGB", b"")
    return len(palette) // len(kind.partition(";")[0]) if kind in PALETTES else None


def _with_channels(image: Image.Image, channels: int, background: tuple[int, int, int]) -> Image.Image:
    """The image with the bands asked for: L, RGB or RGBA."""
    if channels == 4:
        return image.convert("RGBA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    return image.convert("L" if channels == 1 else "RGB")


def _windowed(image: Image.Image, preparation: Preparation) -> Image.Image:
    """A grey image of more than 8 bits as F, 0..65535, so that resizing keeps its range."""
    if image.mode == "F" and preparation.range is None:
        raise UnusableImage(f"has floating-point pixels, {_extent(np.asarray(image))}. {ASK_RANGE}")
    values = np.asarray(image.convert("I") if image.mode.startswith("I;") else image)
    return Image.fromarray(_in_window(values, preparation))


def _in_window(values: np.ndarray, preparation: Preparation) -> np.ndarray:
    """Values as float32, 0..65535: those of the range, with what is beyond it clipped; without a range they have to fit.

    Raises:
        UnusableImage: they do not, or are no numbers.
    """
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        raise UnusableImage(f"has {int((~np.isfinite(values)).sum())} values that are not finite (NaN or infinite)")
    if preparation.range is not None:
        low, high = preparation.range
        return (np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 65535).astype(np.float32)
    if values.min() < 0 or values.max() > 65535:
        raise UnusableImage(f"has values {_extent(values)}, beyond 0..65535. {ASK_RANGE}")
    return values.astype(np.float32)


def _extent(values: np.ndarray) -> str:
    return f"{values.min():g}..{values.max():g}"


def too_dark(most: int | None, preparation: Preparation) -> str:
    """What to say of images of 16 bits that use but the lowest part of these; nothing where all is well.

    Args:
        most: the largest of 0..65535 that occurs; None where images have 8 bits.
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


def _read_array(content: bytes, *, size: tuple[int, int], channels: int, preparation: Preparation) -> np.ndarray:
    crop = preparation.crop
    try:
        _check_length(content)
        array = np.load(io.BytesIO(content), allow_pickle=False)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    except MemoryError:
        raise
    except Exception as error:  # Of damaged files, whatever the reader stumbles over.
        raise UnusableImage(f"is no readable .npy array ({error})") from None
    if array.ndim != 3 or len(array) != channels:
        raise UnusableImage(f"has shape {array.shape}, the model wants ({channels}, h, w)")
    kind = np.uint8 if array.dtype == np.uint8 else np.uint16
    number = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if array.dtype == np.uint8:
        scaled = array.astype(np.float32)
    elif array.dtype == np.uint16 or (number and preparation.range is not None):
        scaled = _in_window(array, preparation)
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise UnusableImage(f"has {bad} values that are not finite (NaN or infinite)")
        if array.min() < -1 or array.max() > 1:
            raise UnusableImage(f"has values {_extent(array)}: floating-point arrays must be in [-1, 1]. {ASK_RANGE}")
        scaled = (array.astype(np.float32) + 1) * 32767.5
    else:
        raise UnusableImage(f"has type {array.dtype}: give uint8, uint16 or floating-point values in [-1, 1]. {ASK_RANGE}")
    _check_size(array.shape[2], array.shape[1], size)
    box = CROPS[crop](array.shape[2], array.shape[1], size[1] / size[0])
    resize = [_resized(Image.fromarray(band), size, box) for band in scaled]
    return np.clip(np.rint(np.stack([np.asarray(band) for band in resize])), 0, np.iinfo(kind).max).astype(kind)


def _check_length(content: bytes) -> None:
    """Refuses an array that says it is longer than its file, before room is made for it."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    if math.prod(shape) * kind.itemsize > len(content) - file.tell() and not kind.hasobject:
        raise ValueError(f"shape {shape} of {kind} in {len(content):,} bytes: it is cut short")


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
