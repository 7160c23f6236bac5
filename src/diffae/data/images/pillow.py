"""Images in the formats that Pillow reads."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from diffae.config import Preparation
from diffae.data import png
from diffae.data.images import tiffs
from diffae.data.images.crops import box_of
from diffae.data.images.decoded import Decoded, Grid
from diffae.data.images.files import BOMB_RATIO, UnusableImage, Warn
from diffae.data.images.preparing import prepared, with_known
from diffae.data.images.resizing import resized_picture

STACK = "of several pages or frames, of which the first was taken: save each page that counts as an image of its own"
KEYED = "with a transparent colour, which was left as it is: only pictures of 8 bits are put on the background"
PALETTES = ("RGB", "RGBX", "RGBA", "BGR", "BGRX", "RGB;L", "RGBA;L")
"""How Pillow names palettes with a byte for each value."""
HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""How such files say, after `ftyp`, what they are, whatever their name."""


def read_picture(
    content: bytes,
    *,
    size: tuple[int, int],
    channels: int,
    preparation: Preparation,
    warn: Warn,
    spacing: tuple[float, ...] | None,
) -> tuple[np.ndarray, Grid]:
    """Decodes, orients, crops and resizes an image file; arguments, result and errors are those of `read_placed`."""
    crop, background = preparation.crop, preparation.background
    with _refusing():
        image = _open(content)
        whole = (image.height, image.width)
        exif = _exif(image) if image.format == "TIFF" else 1  # Pillow turns these as it loads them.
        if image.format == "JPEG" and crop != "celeba" and image.mode in ("L", "RGB"):
            # JPEG can be decoded at a half, a quarter or an eighth of its size: ten times faster for large photographs.
            image.draft(None, (2 * max(size), 2 * max(size)))
        if is_stack(image):
            warn(STACK)
            image.seek(0)
        deep = any(map(_is_deep, getattr(image, "tile", ())))
        if image.mode in ("RGB", "RGBA", "LA") and deep:
            warn("of 16 bits a channel, of which 8 are read: TIFF and .npy keep them")
        if deep and image.info.pop("transparency", None) is not None:  # Else it is compared with the 8 bits that are read.
            warn(KEYED)
        _check_whole(image, content)
        exif = max(exif, _exif(image))
        image = ImageOps.exif_transpose(image)
        grid = Grid(sides=whole if exif < 5 else whole[::-1], spacing=spacing, exif=exif)
        if image.mode.startswith(("I", "F")):
            decoded = replace(_deep(image), spacing=spacing)
            return prepared(decoded, size=size, channels=channels, preparation=preparation, warn=warn), grid
        image = _with_channels(image, channels, background)
    box = box_of((image.height, image.width), size=size, crop=crop, spacing=spacing)
    array = np.asarray(resized_picture(image, size, box))
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return with_known(array, None) if preparation.mask == "gaps" else array, grid


def decode_deep(content: bytes) -> Decoded | None:
    """The numbers of a grey image of more than 8 bits; None for all others, whose 0..255 are what they are.

    Raises:
        UnusableImage: the file cannot be used.
    """
    with _refusing():
        image = _open(content)
        if not image.mode.startswith(("I", "F")):
            return None
        _check_whole(image, content)
        notes = (*[STACK] * is_stack(image), *[KEYED] * ("transparency" in image.info))
        return _deep(ImageOps.exif_transpose(image), notes=notes)


def needs_more(content: bytes, *, sides: int, channels: int) -> bool:
    """Whether a TIFF file holds more than Pillow gives of it: a volume, many channels, channels as pages, other numbers."""
    if sides == 3 or channels not in (1, 3, 4):
        return True
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(content[:16] if content[2] + content[3] == 43 else content[:8])
        file = io.BytesIO(content)
        first = tags.next
        file.seek(first)
        tags.load(file)
        bits, samples, white = max(tags.get(258, (1,))), int(tags.get(277, 1)), tags.get(262, 1)
        form, alpha = tags.get(339, (1,))[0], bool(set(tags.get(338, ())) & {1, 2})
    except Exception:  # A damaged header: Pillow says what is wrong with it.
        return False
    pages = tags.next not in (0, first) and channels > 1 and samples == 1 and white in (0, 1)
    bands = (
        samples > 4 or (samples > 1 and bits > 8) or (not alpha and white != 5 and (samples, channels) in ((2, 1), (2, 3), (4, 4)))
    )
    # Pillow takes signed bytes for unsigned ones, large unsigned numbers for negative ones, does not tell signed numbers of 16 and
    # 32 bits from others, and does not turn deep white over.
    known = (bits, form) not in ((8, 2), (16, 2), (32, 1), (32, 2)) and bits in (1, 2, 4, 8, 12, 16, 32, 64)
    numbers = not known or (bits > 8 and white == 0)
    return pages or bands or numbers or tiffs.NODATA in tags


def is_stack(image: Image.Image) -> bool:
    """Whether it has several pages or frames. The further views that telephones store are no pages, nor are layers of PSD, of which
    what they make together is taken."""
    return image.format not in ("MPO", "HEIF", "PSD") and getattr(image, "n_frames", 1) > 1


def read_photo(content: bytes) -> Image.Image:
    """Decodes a photograph at its full size: upright, RGB, white where it is transparent.

    Raises:
        UnusableImage: the file cannot be used; the message says why, in words that follow its name.
    """
    with _refusing():
        image = _open(content)
        _check_whole(image, content)
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            plain = Preparation(crop="none")
            levels = prepared(_deep(image), size=(image.height, image.width), channels=1, preparation=plain, warn=lambda text: None)
            image = Image.fromarray(np.rint(levels[0] / 257).astype(np.uint8))
        photo = _with_channels(image, 3, (255, 255, 255))
    # What else the file says is left behind; what its colours mean holds for colours alone.
    photo.info = {k: v for k, v in image.info.items() if k == "icc_profile" and image.mode in ("RGB", "RGBA")}
    return photo


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Within it, whatever goes wrong with a file is an UnusableImage."""
    try:
        yield
    except (UnusableImage, MemoryError, ImportError):
        raise
    except UnidentifiedImageError:
        raise UnusableImage("is not an image in any format that Pillow reads") from None
    except Exception as error:  # Readers raise anything on damaged files.
        raise UnusableImage(f"is damaged or cut short ({str(error).strip() or type(error).__name__})") from None


def _open(content: bytes) -> Image.Image:
    """Opens an image, and decodes nothing yet.

    Raises:
        UnusableImage: it is far larger than its file, as bombs are.
    """
    try:
        try:
            image = Image.open(io.BytesIO(content))
        except UnidentifiedImageError:
            if content[4:8] != b"ftyp" or content[8:12] not in HEIF:
                raise
            _learn_heif()
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


def _is_deep(tile: tuple[Any, ...]) -> bool:
    """Whether a part of a file stores more than 8 bits of each number: Pillow's name of what its decoder reads says so, or the
    largest number of PPM, which follows that."""
    kind, *_, args = tile
    args = args if isinstance(args, tuple) else (args,)
    return "16" in str(args[:1]) or (kind.startswith("ppm") and args[1] > 255)


def _exif(image: Image.Image) -> int:
    """How a picture says that it lies, 1..8; what from 5 on lies on its side."""
    said = image.getexif().get(ExifTags.Base.Orientation)
    return said if isinstance(said, int) and 1 <= said <= 8 else 1


def _learn_heif() -> None:
    """Has Pillow read what telephones keep photographs in.

    Raises:
        ImportError: the package that reads it is not installed.
    """
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise ImportError("HEIC files are read by pillow-heif: pip install 'diffae[photos]'.") from None
    register_heif_opener()


def _check_whole(image: Image.Image, content: bytes) -> None:
    """Decodes an image, and refuses what Pillow leaves black in silence: missing rows, and colours beyond the palette.

    Raises:
        UnusableImage: there are some.
    """
    colours = _colours(image)  # Counted before decoding, which makes 256 of them.
    image.load()
    if colours is not None and (most := int(np.asarray(image).max())) >= colours:
        raise UnusableImage(f"is damaged: it has pixels of colour {most}, and a palette of {colours}")
    if image.format == "PNG" and (missing := png.missing(image, content)):
        raise UnusableImage(f"is damaged or cut short: {missing:,} bytes of its pixels are not there")


def _colours(image: Image.Image) -> int | None:
    """The number of colours in the palette; None without a palette, or for one of another kind than `PALETTES`."""
    if image.mode != "P":
        return None
    kind, palette = image.palette.getdata() if image.palette else ("RGB", b"")
    return len(palette) // len(kind.partition(";")[0]) if kind in PALETTES else None


def _with_channels(image: Image.Image, channels: int, background: tuple[int, int, int]) -> Image.Image:
    """The image as L, RGB or RGBA, on the background where it is transparent and has no fourth channel."""
    if channels == 4:
        return image.convert("RGBA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    return image.convert("L" if channels == 1 else "RGB")


def _deep(image: Image.Image, notes: tuple[str, ...] = ()) -> Decoded:
    """The numbers of a grey image of more than 8 bits. Pillow does not say of which type whole ones are: they are 0..65535."""
    values = np.asarray(image.convert("I") if image.mode.startswith("I;") else image)
    return Decoded(values=values[None], limits=None if image.mode == "F" else (0.0, 65535.0), notes=notes)
