"""Images of a model, written in the values and the space of the files that they came from."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.config import Preparation
from diffae.data.images import nifti
from diffae.data.images.crops import Box, box_of
from diffae.data.images.decoded import Decoded
from diffae.data.images.files import UnusableImage, ending
from diffae.data.images.reading import values_of
from diffae.data.images.values import limits_for
from diffae.runtime.files import check_target, replacing

MGH = (".mgz", ".mgh")
NIFTI = (".nii", ".nii.gz", *MGH)
WRITTEN = (".npy", ".tif", ".tiff", *NIFTI)
"""Endings of what `write_back` writes."""


def write_back(image: Float[Tensor, "c *sides"], target: Path, *, like: Path, preparation: Preparation) -> None:
    """Writes an image in the values of the file that it was read from: the inverse of `read_image`, but for what that cut off.

    NIfTI and MGH keep the orientation and the affine of the file; the affine is scaled and shifted where the image is a box of it
    at another size. Of the one written as the other, what else the header says is left behind. In `.npy`, NIfTI and
    MGH, whole numbers are rounded and stay of the file's type where it holds them unscaled; all else, and all TIFF, is float32.

    Args:
        image: in [-1, 1], with as many channels as were read of the file.
        target: `.npy`, `.tif`, or `.nii`, `.nii.gz`, `.mgz`, `.mgh` of a file that is one of these.
        like: the file that it came from.
        preparation: how that was read, `ae.preparation`.

    Raises:
        ValueError: another ending, a folder in place of the file, an image that is not of this file's shape, or values of a type
            that the target cannot hold.
        OSError: `like` cannot be read, or `target` not be written.
        ImportError: the library that writes such files is not installed.
    """
    kind = ending(target.name)
    if kind not in WRITTEN:
        raise ValueError(f"{target} is no name for what is written: its ending may be {', '.join(WRITTEN)}.")
    if like.is_dir():
        raise ValueError(f"{target} is written as the file that an image came from, and {like} is a folder of slices: give a file.")
    check_target(target, (target.suffix.lower(),))
    content, channels, sides = like.read_bytes(), image.shape[0], image.ndim - 1
    try:
        decoded = values_of(content, like.name, sides=sides, channels=channels)
        # Pictures of 8 bits are 0..255, whatever the range.
        limits = [(0.0, 255.0)] if decoded is None else limits_for(decoded, preparation)
        decoded = decoded or Decoded(values=np.zeros((channels, *image.shape[1:]), np.uint8), limits=(0.0, 255.0))
    except UnusableImage as error:
        raise ValueError(f"{like} {error}.") from None
    values = _values(image, decoded, limits)
    if kind in NIFTI:
        if ending(like.name) not in NIFTI or sides != 3:
            raise ValueError(f"{target} needs an affine, and {like} is no volume that has one: write .npy or .tif.")
        box = box_of(decoded.sides, size=tuple(image.shape[1:]), crop=preparation.crop, spacing=decoded.spacing)
        made: bytes = _nifti(values, nifti.opened(content, like.name), box, target)
    elif kind == ".npy":
        file = io.BytesIO()
        np.save(file, values)
        made = file.getvalue()
    else:
        made = _tiff(values)
    with replacing(target) as part:
        part.write_bytes(made)


def _values(image: Tensor, decoded: Decoded, limits: list[tuple[float, float]]) -> np.ndarray:
    """An image in the values of a file, (c, *sides)."""
    if len(limits) not in (1, len(image)):
        raise ValueError(f"The image has {len(image)} channels, and the file that it came from {len(limits)}.")
    pairs = limits * (len(image) // len(limits))
    low, high = (np.reshape(np.array(x), (-1,) + (1,) * (image.ndim - 1)) for x in zip(*pairs, strict=True))
    values = (image.detach().to(torch.float64).cpu().numpy() + 1) / 2 * (high - low) + low
    if decoded.turned and decoded.limits is not None:
        values = sum(decoded.limits) - values
    kind = decoded.values.dtype
    if kind.kind not in "iu":
        return values.astype(np.float32)
    return np.clip(np.rint(values), np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)


def _nifti(values: np.ndarray, like: Any, box: Box, target: Path) -> bytes:
    """A volume in the orientation of the file that it came from, of the kind that the target's ending says."""
    import gzip

    from nibabel import MGHImage, Nifti1Image, orientations
    from nibabel.freesurfer.mghformat import MGHError

    if len(values) != 1:
        raise ValueError(f"Volumes of one channel are written back, not of {len(values)}: write .npy.")
    straight = nifti.canonical(like)
    # x, y, z, where the image has d, h, w.
    data, edges = values[0].transpose(2, 1, 0), tuple(reversed(box))
    affine = np.array(straight.affine, float)
    if tuple(data.shape) != tuple(straight.shape[:3]) or any(low for low, _ in edges):
        steps = np.array([(high - low) / n for (low, high), n in zip(edges, data.shape, strict=True)])
        first = np.array([low for low, _ in edges]) + steps / 2 - 0.5
        affine[:3, 3] += affine[:3, :3] @ first
        affine[:3, :3] *= steps
    back = orientations.ornt_transform(orientations.io_orientation(straight.affine), orientations.io_orientation(like.affine))
    kind, is_mgh = ending(target.name), isinstance(like, MGHImage)
    made_as: Any = type(like) if is_mgh == (kind in MGH) else Nifti1Image if is_mgh else MGHImage
    header = like.header.copy() if made_as is type(like) else made_as.header_class()
    if made_as is Nifti1Image and is_mgh:
        header.set_xyzt_units("mm")
    try:
        header.set_data_dtype(data.dtype)
    except MGHError:
        raise ValueError(f"{target} cannot hold {data.dtype}, which the file's values are: write .nii.gz or .npy.") from None
    turned = orientations.apply_orientation(data, back)
    affine = affine @ orientations.inv_ornt_aff(back, data.shape)
    if np.allclose(affine, like.affine, rtol=0, atol=1e-9):
        affine = like.affine
    made = made_as(np.ascontiguousarray(turned), affine, header)
    content: bytes = made.to_bytes()
    return gzip.compress(content, mtime=0) if kind in (".nii.gz", ".mgz") else content


def _tiff(values: np.ndarray) -> bytes:
    try:
        from tifffile import imwrite
    except ImportError:
        raise ImportError("Writing TIFF needs tifffile: pip install 'diffae[science]'.") from None
    file = io.BytesIO()
    flat = values[0] if len(values) == 1 else values
    axes = ("C" if len(values) > 1 else "") + ("ZYX" if values.ndim == 4 else "YX")
    imwrite(file, flat.astype(np.float32), photometric="minisblack", metadata={"axes": axes})
    return file.getvalue()
