"""Pixels that a PNG file lacks. Pillow leaves them black in silence."""

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

WHOLE = ((0, 0, 1, 1),)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The passes of an interlaced image: first column, first row, step of columns, step of rows (PNG specification, 8.2)."""
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Type of colour -> samples in a pixel."""
PIECE = 2**20
"""Bytes that are unpacked at once."""


def missing(image: Image.Image, content: bytes) -> int:
    """Counts the bytes of pixels that are not in the file.

    Args:
        image: as Pillow decoded it. If its last row is not all zero, nothing is missing, and the file is not read.
        content: the file's bytes.
    """
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    last = image.crop((0, image.height - 1, image.width, image.height))
    if not interlaced and any(last.tobytes()):
        return 0
    expected = 0
    for left, upper, across, down in ADAM7 if interlaced else WHOLE:
        columns, rows = -((left - width) // across), -((upper - height) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * depth * SAMPLES[colour] + 7) // 8)
    return max(0, expected - _length(content))


def _length(content: bytes) -> int:
    """Bytes of pixels in the file, unpacked a piece at a time."""
    unpack, found = zlib.decompressobj(), 0
    for packed in _data(content):
        while packed and not unpack.eof:
            found += len(unpack.decompress(packed, PIECE))
            packed = unpack.unconsumed_tail
    return found + len(unpack.flush())


def _data(content: bytes) -> Iterator[bytes]:
    """The packed pixels, chunk by chunk."""
    at = 8
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        if kind == b"IDAT":
            yield content[at + 8 : at + 8 + length]
        at += 12 + length
