"""Masks that lie in a folder of their own, beside the images that they belong to."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from diffae.config import Crop, Preparation
from diffae.data.images import UnusableImage, ending, read_image
from diffae.data.sources import Source, open_source

KNOWN = 0.99
"""Share of white from which a pixel of a resized mask counts: one that an unknown pixel is mixed into is unknown."""


class Masks:
    """Masks by the names of their images: `a/b.png` has `a/b.png` or `a/b.ANY`. White is what counts, black what is left out.

    Args:
        path: a folder, or any other source of images.
        sides: of the images, 2 or 3.

    Raises:
        FileNotFoundError: there is nothing at that path.
        ValueError: two masks for one image.
    """

    def __init__(self, path: Path, *, sides: int) -> None:
        self.path = path
        self.source: Source = open_source(path, sides=sides)
        self.names: dict[str, str] = {}
        for name in self.source.names:
            if (other := self.names.setdefault(_stem(name), name)) != name:
                raise ValueError(f"{path} has two masks for one image, {other} and {name}: keep one.")

    def known(self, name: str, *, size: tuple[int, ...], crop: Crop) -> np.ndarray:
        """Which pixels of an image count, (*size), after the crop and the resizing that the image has had.

        Raises:
            UnusableImage: there is no mask for it, or it cannot be read.
            OSError: likewise.
        """
        mask = self.names.get(_stem(name))
        if mask is None:
            raise UnusableImage(f"has no mask in {self.path}")
        try:
            found = read_image(self.source.read(mask), mask, size=size, channels=1, preparation=Preparation(crop=crop))
        except UnusableImage as error:
            raise UnusableImage(f"has a mask, {mask}, that {error}") from None
        return found[0] >= KNOWN * np.iinfo(found.dtype).max

    @property
    def holders(self) -> Sequence[Path]:
        """The files whose bytes identify the masks."""
        return self.source.holders


def _stem(name: str) -> str:
    return str(PurePosixPath(name).parent / PurePosixPath(name).name.removesuffix(ending(name)))
