"""NIfTI and FreeSurfer's MGH: volumes of a brain, mostly."""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from diffae.data.images.decoded import Decoded, arranged, limits_of, native, ordered
from diffae.data.images.files import UnusableImage, ending, gunzipped

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage


def decode(content: bytes, name: str, *, sides: int, channels: int) -> Decoded:
    """A NIfTI or MGH file: its values scaled as it says, in the closest canonical orientation.

    That is RAS: with (d, h, w), d goes to superior, h to anterior and w to the right, so a slice of d is axial, seen from below
    with the front of the head at its lower edge. Of a fourth axis the first entry is taken, or all as channels if the model has as
    many. Limits are those of the stored type, scaled alike.
    """
    image = opened(content, name)
    proxy = image.dataobj
    slope, inter = (float(x) for x in (getattr(proxy, "slope", 1), getattr(proxy, "inter", 0)))
    image = canonical(image)
    try:
        values = np.asanyarray(image.dataobj)
    except MemoryError:
        raise
    except Exception as error:  # Readers raise anything on damaged files.
        raise UnusableImage(f"is damaged or cut short ({error})") from None
    stored = image.get_data_dtype()
    limits = limits_of(stored)
    if limits is not None and (slope, inter) != (1.0, 0.0):
        limits = ordered(limits, slope, inter)
    zooms: tuple[float, ...] = tuple(float(z) for z in image.header.get_zooms()[:3])
    while values.ndim > 4 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim > 4 or values.ndim < 2:
        raise UnusableImage(f"has {values.ndim} axes, {' x '.join(map(str, values.shape))}: two to four are read")
    values = values.reshape(values.shape + (1,) * (3 - values.ndim))
    shape: tuple[int, ...] = values.shape
    axes = "XYZV"[: values.ndim]
    spacing = tuple(reversed(zooms)) if len(zooms) == 3 else None
    if sides == 2:
        if shape[2] > 1:
            by = " x ".join(map(str, reversed(shape[:3])))
            raise UnusableImage(
                f"is a volume of {by}, and the model's images have two sides: train one of three "
                "(--model.image-size D H W), or save the slices that count as images of their own"
            )
        values, axes, spacing = values[:, :, 0], axes.replace("Z", ""), tuple(reversed(zooms[:2]))
    if "V" in axes and channels > 1 and shape[3] == channels:
        axes = axes.replace("V", "C")
    values, notes = arranged(native(values), axes, sides=sides, channels=channels)
    known = spacing if spacing and all(np.isfinite(s) and s > 0 for s in spacing) else None
    return Decoded(values=values, limits=limits, spacing=known, placed="in RAS", meant=("orientation RAS",), notes=notes)


def opened(content: bytes, name: str) -> "SpatialImage":
    """A NIfTI or MGH file as nibabel has it, with its own orientation. Values are read when they are asked for.

    Raises:
        UnusableImage: it is none, or damaged.
        ImportError: nibabel is not installed.
    """
    try:
        from nibabel import MGHImage, Nifti1Image, Nifti2Image
    except ImportError:
        raise ImportError("Reading NIfTI and MGH needs nibabel: pip install 'diffae[medical]'.") from None
    if content[:2] == b"\x1f\x8b":
        content = gunzipped(content)
    kinds = [MGHImage] if ending(name) in (".mgz", ".mgh") else [Nifti2Image if content[:4] in NIFTI2 else Nifti1Image]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = kinds[0].from_bytes(content)
        image.header.get_data_dtype()
        whole = int(np.prod([int(n) for n in image.shape], dtype=object)) * image.get_data_dtype().itemsize
    except MemoryError:
        raise
    except Exception as error:  # Readers raise anything on damaged files.
        raise UnusableImage(f"is no readable {kinds[0].__name__.removesuffix('Image')} file ({error})") from None
    if whole > len(content):
        shape = " x ".join(map(str, image.shape))
        raise UnusableImage(f"is cut short: {shape} of {image.get_data_dtype()} in {len(content):,} bytes")
    return image


NIFTI2 = (b"\x1c\x02\0\0", b"\0\0\x02\x1c")
"""How NIfTI-2 begins, in either order of bytes: its header is 540 bytes long."""


def canonical(image: "SpatialImage") -> "SpatialImage":
    """The same image with its axes in the order and direction closest to right, anterior, superior; nothing is resampled.

    Raises:
        UnusableImage: its affine says no orientation.
    """
    from nibabel import as_closest_canonical

    try:
        return as_closest_canonical(image)
    except Exception as error:
        raise UnusableImage(f"says no orientation that can be read ({error})") from None
