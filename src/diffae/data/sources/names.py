"""Names of images in a source: which files count as images, and which are left alone."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from diffae.data.images import EXTENSIONS, ending, is_dicom
from diffae.runtime.files import printable


def is_image(name: str) -> bool:
    """Whether a file's name is an image's, by its ending."""
    return ending(name) in EXTENSIONS


def is_nameless(name: str, head: Callable[[str], bytes]) -> bool:
    """Whether a file without an ending, or with a number for one as UIDs have, is DICOM by its first bytes. The index of a disc,
    which is DICOM too, holds no image.

    Args:
        name: of the file.
        head: gives a file's first 132 bytes.
    """
    path = PurePosixPath(name)
    return bool(re.fullmatch(r"(\.\d+)?", path.suffix)) and path.name != "DICOMDIR" and is_dicom(head(name))


def is_hidden(name: str) -> bool:
    """Whether a part of a path hides it; `.` and `..` do not."""
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in PurePosixPath(name).parts)


def note_doubled(archive: Path, num: int, notes: list[str]) -> None:
    """Adds a note where `num` files of an archive are lost, because others have the same names."""
    if num:
        notes.append(f"{archive} holds {num} files under names that others have too: of each name the last was taken.")


def texts(names: Sequence[str], notes: list[str]) -> list[str]:
    """The names that are text; adds a note about the others."""
    odd = [name for name in names if not _is_text(name)]
    if odd:
        notes.append(f"{len(odd)} images were left alone: their names are no UTF-8 ({printable(odd[0])}, ...). Rename them.")
    return [name for name in names if _is_text(name)]


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
