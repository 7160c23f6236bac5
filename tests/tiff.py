"""TIFF files of types that Pillow cannot write: signed 16 bits, either order of bytes."""

import struct

import numpy as np


def encode(values):
    """A grey TIFF of an array (h, w) of integers or floats."""
    order = ">" if values.dtype.byteorder == ">" else "<"
    h, w = values.shape
    size = values.dtype.itemsize
    form = {"i": 2, "u": 1, "f": 3}[values.dtype.kind]
    # Width, height, bits, compression, photometric, offset of the only strip, samples, rows and bytes of the strip, sample format.
    tags = [(256, 3, w), (257, 3, h), (258, 3, 8 * size), (259, 3, 1), (262, 3, 1), (273, 4, 0), (277, 3, 1), (278, 3, h)]
    tags += [(279, 4, values.nbytes), (339, 3, form)]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, kind, value in tags:
        value = start if tag == 273 else value
        packed = struct.pack(f"{order}H", value) + b"\0\0" if kind == 3 else struct.pack(f"{order}I", value)
        entries += struct.pack(f"{order}HHI", tag, kind, 1) + packed
    head = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8)
    return head + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + np.ascontiguousarray(values).tobytes()
