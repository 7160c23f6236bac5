"""Crops: which box of an image is taken, and how it comes to the model's size."""

from PIL import Image

from diffae.data.images.files import UnusableImage

Box = tuple[float, float, float, float]
"""Left, upper, right, lower, in pixels."""


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


def box_of(width: int, height: int, *, size: tuple[int, ...], crop: str) -> Box:
    """The box of an image of this width and height that a crop takes, in the shape of the model's images.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        size: height and width of the model's images.
        crop: of `CROPS`.

    Raises:
        UnusableImage: the image is too small, or not of the shape that the crop is for.
    """
    if width * 4 < size[1] or height * 4 < size[0]:
        raise UnusableImage(f"is only {width} x {height} pixels, less than a quarter of the training size {size[1]} x {size[0]}")
    return CROPS[crop](width, height, size[1] / size[0])


def resized(image: Image.Image, size: tuple[int, ...], box: Box) -> Image.Image:
    """A box of an image, resized to a height and width."""
    if all(float(edge).is_integer() for edge in box):
        # Cut out first: the filter would look at pixels beyond the box's edge.
        left, top, right, bottom = map(int, box)
        image, box = image.crop((left, top, right, bottom)), (0, 0, right - left, bottom - top)
    return image.resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box)
