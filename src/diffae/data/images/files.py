"""Which files count as images, and how one is refused."""

from collections.abc import Callable

from PIL import Image

EXTENSIONS = frozenset(Image.registered_extensions()) | {".npy", ".heic", ".heif"}
"""Endings of files that count as images."""
BOMB_RATIO = 200
"""An image above Pillow's size limit (89 megapixels) whose file is this many times smaller is a bomb, not a picture."""

Warn = Callable[[str], object]
"""Called with a sentence for the user, or with the part of one that follows a file's name."""


class UnusableImage(ValueError):
    """A file that is no image, or cannot be trained on. The message says why, in words that follow the file's name."""
