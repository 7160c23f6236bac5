"""FITS: pictures of the sky."""

import io
import warnings

import numpy as np

from diffae.data.images.decoded import Decoded, arranged, limits_of, native, ordered
from diffae.data.images.files import UnusableImage, check_unpacked, gunzipped


def decode(content: bytes, name: str, *, sides: int, channels: int) -> Decoded:
    """A FITS file: the first of its parts that is an image, scaled by BSCALE and BZERO, with BLANK and NaN as gaps.

    The first row of a FITS image is the lowest, so rows are turned about: a picture is as viewers show it, north up where the file
    has it so. Planes of a cube are channels where the model has so many of them, and slices where its images have three sides; else
    the first is taken.
    """
    try:
        from astropy.io import fits
    except ImportError:
        raise ImportError("Reading FITS needs astropy: pip install 'diffae[science]'.") from None
    if content[:2] == b"\x1f\x8b":
        content = gunzipped(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About headers; what is cut short is looked at below.
            with fits.open(io.BytesIO(content), memmap=False, lazy_load_hdus=True) as parts:
                for part in parts:
                    kinds = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)
                    shape = part.shape if isinstance(part, kinds) and not isinstance(part, fits.GroupsHDU) else ()
                    if len([n for n in shape if n > 1]) >= 2:
                        check_unpacked(int(np.prod(shape, dtype=object)) * 8, len(content))
                        values, limits, gaps = _values(part)
                        break
                else:
                    raise UnusableImage("holds no image: no part of it has two axes")
    except (UnusableImage, MemoryError):
        raise
    except Exception as error:  # Readers raise anything on damaged files.
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise UnusableImage(f"is damaged, cut short or no FITS file ({reason})") from None
    while values.ndim > 2 and values.shape[0] == 1:
        values, gaps = values[0], None if gaps is None else gaps[0]
    if values.ndim > 3:
        raise UnusableImage(f"has {values.ndim} axes, {' x '.join(map(str, values.shape))}: two or three are read")
    axes = "PYX"[-values.ndim :]
    values, notes = arranged(native(values[..., ::-1, :]), axes, sides=sides, channels=channels)
    if gaps is not None:
        gaps, _ = arranged(gaps[..., ::-1, :], axes, sides=sides, channels=channels)
    return Decoded(values=values, limits=limits, gaps=gaps, placed="rows upwards", meant=("rows upwards",), notes=notes)


def _values(part: "object") -> tuple[np.ndarray, tuple[float, float] | None, np.ndarray | None]:
    """The values of one part, what its stored type can say, and where it marks no data."""
    from astropy.io import fits

    assert isinstance(part, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU)
    header = part.header
    bits = int(header["BITPIX"])
    scale, zero = float(header.get("BSCALE", 1)), float(header.get("BZERO", 0))
    blank = header.get("BLANK") if bits > 0 else None
    values = np.asarray(part.data)
    gaps = np.isnan(values) if blank is not None and values.dtype.kind == "f" else None
    if blank is not None and values.dtype.kind != "f":
        gaps = values == blank * scale + zero
    stored = limits_of(np.dtype({8: np.uint8, 16: np.int16}.get(bits, np.float32)))
    return values, stored and ordered(stored, scale, zero), gaps
