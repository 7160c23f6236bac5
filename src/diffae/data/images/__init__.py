"""One image file -> one array at the training size."""

from diffae.data.images.crops import CROPS
from diffae.data.images.decoded import Decoded, Grid
from diffae.data.images.files import BOMB_RATIO, EXTENSIONS, MOST_UNPACKED, UnusableImage, Warn, ending, is_dicom, stem
from diffae.data.images.pillow import read_photo
from diffae.data.images.preparing import with_known
from diffae.data.images.reading import load_images, meaning, read_file, read_image, read_placed, values_of
from diffae.data.images.values import in_range, scaled, too_dark, unknown
from diffae.data.images.writing import write_back

__all__ = [
    "BOMB_RATIO",
    "CROPS",
    "EXTENSIONS",
    "MOST_UNPACKED",
    "Decoded",
    "Grid",
    "UnusableImage",
    "Warn",
    "ending",
    "in_range",
    "is_dicom",
    "load_images",
    "meaning",
    "read_file",
    "read_image",
    "read_photo",
    "read_placed",
    "scaled",
    "stem",
    "too_dark",
    "unknown",
    "values_of",
    "with_known",
    "write_back",
]
