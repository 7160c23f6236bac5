"""What a source of images is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Source(Protocol):
    """Images by name. Any object with these members can be trained on: see `preparation.prepare`."""

    @property
    def names(self) -> Sequence[str]:
        """One for each image, in a fixed order, with forward slashes. The ending says the kind, such as `.npy` of an array."""

    @property
    def others(self) -> int:
        """Number of entries beside the images that are not images."""

    @property
    def holders(self) -> Sequence[Path]:
        """The files that hold the images. Their bytes identify the data; with no files, the images' own bytes do."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences for the user about what was left out."""

    def read(self, name: str) -> bytes:
        """The bytes of an image file, of any kind that `read_image` reads. Called from several threads at once.

        Raises:
            OSError: it cannot be read; the image is then skipped, and the message says why. One with a number is the system's: if
                the image could be read at first, nothing is skipped, and preparing ends.
        """


@runtime_checkable
class Labelled(Protocol):
    """A source that knows labels too."""

    def label_rows(self) -> Sequence[Mapping[str, Any]]:
        """A label table, as `labels.align` takes it: a row for each image, with its name under `file`. Empty where nothing is
        known of any. What is to be said about it may be added to `notes`."""
