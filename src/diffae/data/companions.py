"""Files that lie in a folder of their own, beside the images that they belong to: masks, and further channels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffae.config import Crop, Preparation
from diffae.data.images import Grid, UnusableImage, Warn, read_photo, read_placed, values_of
from diffae.data.images.arrays import PACKED
from diffae.data.images.crops import sides_text
from diffae.data.images.files import stem
from diffae.data.images.values import WithoutRange
from diffae.data.sources import Source, open_source

KNOWN = 0.99
"""Share of white from which a pixel of a resized mask counts: one that an unknown pixel is mixed into is unknown."""


class CompanionFiles:
    """Files by the names of their images: `a/b.png` has `a/b.png` or `a/b.ANY`. Each is read as one channel.

    Args:
        path: a folder, or any other source of images.
        sides: of the images, 2 or 3.

    Raises:
        FileNotFoundError: there is nothing at that path.
        ValueError: two files for one image.
    """

    def __init__(self, path: Path, *, sides: int) -> None:
        self.path = path
        self.source: Source = open_source(path, sides=sides)
        self.names: dict[str, str] = {}
        for name in self.source.names:
            if (other := self.names.setdefault(_stem(name), name)) != name:
                raise ValueError(f"{path} has two files for one image, {other} and {name}: keep one.")

    def of(self, name: str) -> str | None:
        """The file of an image, if there is one."""
        return self.names.get(_stem(name))

    def read(self, name: str, *, size: tuple[int, ...], crop: Crop, image: Grid, warn: Warn) -> np.ndarray:
        """What belongs to an image, (1, *size), uint8 or uint16, after the crop and the resizing that the image has had; what its
        type can say is the whole range. It lies on the image pixel by pixel, so distances are the image's.

        Args:
            name: of the image.
            size: of the model's images.
            crop: of them.
            image: where the image's pixels lie.
            warn: see `read_image`.

        Raises:
            UnusableImage: there is nothing for it, or it cannot be read, or it does not lie on the image.
            OSError: likewise.
        """
        own = self.of(name)
        if own is None:
            raise UnusableImage(f"has nothing of its name in {self.path}")
        try:
            made = Preparation(crop=crop)
            found, grid = read_placed(self.source.read(own), own, size=size, channels=1, preparation=made, on=image)
            _check_placed(grid, image)
        except WithoutRange:  # --data.range is of the images.
            raise UnusableImage(
                f"has {own} in {self.path}, whose type has no black and white of its own: write it in 8 bits, 0 to 255, or in 16, "
                "0 to 65535"
            ) from None
        except UnusableImage as error:
            raise UnusableImage(f"has {own} in {self.path}, which {error}") from None
        if grid.exif != image.exif:
            warn(f"turned upright by their EXIF, otherwise than what {self.path} holds for them: see whether both lie alike")
        return found

    def known(self, name: str, *, size: tuple[int, ...], crop: Crop, image: Grid, warn: Warn) -> np.ndarray:
        """Of a mask, which pixels of an image count, (*size): what is white. Arguments are those of `read`.

        Raises:
            UnusableImage: as of `read`; or nothing of the image counts.
            OSError: as of `read`.
        """
        found = self.read(name, size=size, crop=crop, image=image, warn=warn)
        counts = found[0] >= KNOWN * np.iinfo(found.dtype).max
        if not counts.any():
            own = self.names[_stem(name)]
            raise UnusableImage(f"has {own} in {self.path}, {self._why_none(own, size)}, so nothing of the image counts")
        return counts

    def _why_none(self, own: str, size: tuple[int, ...]) -> str:
        """Why no pixel of a mask counts, by the values of its file."""
        content = self.source.read(own)
        decoded = values_of(content, own, sides=len(size), channels=1)
        values = np.asarray(read_photo(content)) if decoded is None else decoded.values
        white = 255.0 if decoded is None or decoded.limits is None else decoded.limits[1]
        if not values.any():
            return "which is 0 everywhere"
        if (most := values.max()) < KNOWN * white:
            return f"whose largest value is {most:g}, where {white:g} (white) is what counts: write {white:g} in place of {most:g}"
        return f"of which no white is left in the crop, at {sides_text(size)} pixels"


def _check_placed(own: Grid, image: Grid) -> None:
    """Refuses what does not lie on an image, pixel by pixel.

    Raises:
        UnusableImage: it has other sides, or is of a kind whose axes are turned about otherwise.
    """
    if own.placed != image.placed:
        raise UnusableImage(f"is read {own.placed}, and the image {image.placed}: save both as files of one kind")
    if own.sides != image.sides:
        raise UnusableImage(f"is {sides_text(own.sides)} pixels, and the image {sides_text(image.sides)}: they have to be the same")


def _stem(name: str) -> str:
    """A name without its ending, a series' too."""
    return stem(name.removesuffix(PACKED))


def append_channels(pixels: np.ndarray, more: Sequence[np.ndarray]) -> np.ndarray:
    """Channels of an image (c, *sides) and further ones; uint16 if one of them is."""
    kinds = {part.dtype for part in (pixels, *more)}
    if len(kinds) == 1:
        return np.concatenate([pixels, *more])
    return np.concatenate([part.astype(np.uint16) * 257 if part.dtype == np.uint8 else part for part in (pixels, *more)])
