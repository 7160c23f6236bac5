"""Which files count as images, and how one is refused."""

import contextlib
import io
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath

from PIL import Image

MEDICAL = frozenset({".dcm", ".dicom", ".nii", ".nii.gz", ".mgz", ".mgh"})
"""Endings of files that are read with the extra `medical`."""
EXTENSIONS = frozenset(Image.registered_extensions()) | MEDICAL | {".npy", ".heic", ".heif", ".fits", ".fit", ".fits.gz"}
"""Endings of files that count as images."""
BOMB_RATIO = 200
"""An image above Pillow's size limit (89 megapixels) whose file is this many times smaller is a bomb, not a picture."""
MOST_UNPACKED = 2**28
"""Bytes above which a high ratio of compression marks a file as a bomb."""
PIECE = 2**24
"""Bytes that are unpacked at once where they are only counted."""
DICOM_MARK = b"DICM"
"""What a DICOM file has at its bytes 128..132, whatever its name."""

Warn = Callable[[str], object]
"""Called with a sentence for the user, or with the part of one that follows a file's name."""


class UnusableImage(ValueError):
    """A file that is no image, or cannot be trained on. The message says why, in words that follow the file's name."""


def ending(name: str) -> str:
    """The ending by which a file's name tells its kind, in small letters: `.nii.gz`, `.png`; empty where there is none."""
    suffixes = PurePosixPath(name.lower()).suffixes
    double = "".join(suffixes[-2:])
    return double if double in EXTENSIONS else "".join(suffixes[-1:])


def stem(name: str) -> str:
    """A file's name without the ending of an image; DICOM files may have none, and names that are numbers with dots."""
    kind = ending(name)
    return name[: -len(kind)] if kind in EXTENSIONS else name


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with these 132 bytes says that it is DICOM."""
    return head[128:132] == DICOM_MARK


def check_unpacked(unpacked: int, packed: int) -> None:
    """Refuses a file that says it becomes far more than it is, before memory is taken for it.

    Raises:
        UnusableImage: `unpacked` bytes out of `packed` are what bombs are made of.
    """
    if unpacked > MOST_UNPACKED and unpacked > BOMB_RATIO * packed:
        raise UnusableImage(f"looks like a decompression bomb: {unpacked:,} bytes out of {packed:,}")


def gunzipped(content: bytes) -> bytes:
    """What a gzip file holds, all of its members.

    Raises:
        UnusableImage: it is damaged, cut short, or a bomb.
    """
    most = max(MOST_UNPACKED, BOMB_RATIO * len(content))
    out, rest = io.BytesIO(), content
    try:
        while rest.strip(b"\0"):
            member = zlib.decompressobj(wbits=31)
            out.write(member.decompress(rest, most + 1 - out.tell()))
            if out.tell() > most:
                check_unpacked(out.tell(), len(content))
            if not member.eof:
                raise UnusableImage("is damaged or cut short: what it compresses does not end")
            rest = member.unused_data
    except zlib.error as error:
        raise UnusableImage(f"is damaged or cut short ({error})") from None
    return out.getvalue()


def check_inflated(content: bytes) -> None:
    """Refuses what a bomb is, packed by deflate without a header as in DICOM; what it becomes is counted, and not kept. What cannot
    be unpacked is left to whoever reads it.

    Raises:
        UnusableImage: it is a bomb.
    """
    stream, num, rest = zlib.decompressobj(wbits=-zlib.MAX_WBITS), 0, content
    with contextlib.suppress(zlib.error):
        while rest and not stream.eof:
            num += len(stream.decompress(rest, PIECE))
            check_unpacked(num, len(content))
            rest = stream.unconsumed_tail
