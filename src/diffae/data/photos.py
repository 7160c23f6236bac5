"""Photographs at their full size: one file, or any source of images."""

import io
import warnings
from pathlib import Path

from PIL import Image

from diffae.data.images import UnusableImage, read_photo
from diffae.data.sources import Source, open_source
from diffae.data.sources.names import is_image
from diffae.runtime.files import POINTER, is_pointer


class OneFile:
    """A single image file; the attributes are those of `Folder`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = [path.name]
        self.others = 0
        self.holders = [path]
        self.notes: list[str] = []

    def read(self, name: str) -> bytes:
        """The file's bytes."""
        return self.path.read_bytes()


def open_photos(path: Path) -> Source:
    """The photographs at a path: an image file, or whatever `open_source` takes, whose errors are raised."""
    return OneFile(path) if path.is_file() and is_image(path.name) else open_source(path)


def photo(source: Source, name: str) -> Image.Image:
    """One photograph of a source: upright, RGB.

    Raises:
        UnusableImage: it cannot be read; the message says why, in words that follow its name.
    """
    try:
        content = source.read(name)
    except OSError as error:
        raise UnusableImage(f"cannot be read ({error})") from None
    if is_pointer(content):
        raise UnusableImage(POINTER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's are about what does not touch the pixels.
        return read_photo(content)


def mode_of(content: bytes) -> str:
    """What Pillow calls the kind of an image's pixels, such as RGB or RGBA, of a file that it can read."""
    with Image.open(io.BytesIO(content)) as image:
        return image.mode
