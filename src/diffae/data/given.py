"""Images that users name one by one: files, and folders that are one volume each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from diffae.data.images import UnusableImage, Warn, load_images, read_file
from diffae.data.sources.series import Series


def load_given(files: Sequence[Path], *, size: tuple[int, ...], warn: Warn, **settings: Any) -> Float[Tensor, "n c *sides"]:
    """As `load_images`; where the model's images are volumes, a folder may be the slices of one.

    Args:
        files: their paths.
        size: height and width of the result, or depth, height and width.
        warn: see `load_images`; also of what keeps a folder's slices from being sorted as usual.
        settings: see `load_images`.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file cannot be used, or a folder holds anything but one series of DICOM slices.
        ImportError: the library that reads such files is not installed.
    """

    def read(file: Path) -> tuple[bytes, str]:
        if len(size) < 3 or not file.is_dir():
            return read_file(file)
        series = Series(file)
        if len(series.slices) != 1 or len(series.names) != 1:
            others = len(series.names) - len(series.slices)
            found = f"{len(series.slices)} series of DICOM slices and {others} other image{'s' * (others != 1)}"
            raise ValueError(
                f"{file} is a folder with {found}, and a volume is one series: name its files, or a folder of one series."
            )
        for note in series.notes:
            warn(f"{file}: {note}")
        try:
            return series.read(series.names[0]), series.names[0]
        except OSError as error:
            if error.errno is not None:
                raise  # The disk's.
            raise UnusableImage(str(error)) from None

    return load_images(files, size=size, warn=warn, read=read, **settings)
