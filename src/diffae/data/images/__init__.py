"""One image file -> one array at the training size."""

from diffae.data.images.crops import CROPS
from diffae.data.images.files import BOMB_RATIO, EXTENSIONS, UnusableImage, Warn
from diffae.data.images.pillow import read_photo
from diffae.data.images.reading import load_images, read_image
from diffae.data.images.values import in_range, scaled, too_dark

__all__ = [
    "BOMB_RATIO",
    "CROPS",
    "EXTENSIONS",
    "UnusableImage",
    "Warn",
    "in_range",
    "load_images",
    "read_image",
    "read_photo",
    "scaled",
    "too_dark",
]
