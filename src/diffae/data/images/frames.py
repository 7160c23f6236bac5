"""Frames of a DICOM file, which may each say of itself how it is scaled and where it lies, and slices put into order by that."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffae.data.images.files import UnusableImage

if TYPE_CHECKING:
    from pydicom import Dataset

UNEVEN = 0.1
"""Share by which distances between slices may differ: positions are rounded, and tables sag."""


def said(dataset: "Dataset", frame: int, sequence: str) -> "Dataset | None":
    """What an enhanced DICOM file says of a frame in a sequence: of it alone, or else of all; None if nothing.

    Raises:
        UnusableImage: it has several frames, and describes another number of them.
    """
    own, shared = dataset.get("PerFrameFunctionalGroupsSequence"), dataset.get("SharedFunctionalGroupsSequence")
    if own and len(own) != (num := int(dataset.get("NumberOfFrames") or 1)) > 1:
        raise UnusableImage(f"describes {len(own)} frames, and has {num}")
    for groups in (own and own[frame], shared and shared[0]):
        if groups and (found := groups.get(sequence)):
            return found[0]
    return None


def scales(dataset: "Dataset", num: int) -> list[tuple[float, float]]:
    """Slope and intercept of each of the first frames; one pair alone where all have the same."""
    found = []
    for frame in range(num):
        of = said(dataset, frame, "PixelValueTransformationSequence") or dataset
        found.append((float(of.get("RescaleSlope", 1) or 1), float(of.get("RescaleIntercept", 0) or 0)))
    return found if len(set(found)) > 1 else found[:1]


def order_of_frames(dataset: "Dataset", num: int) -> tuple[np.ndarray, float | None] | None:
    """As `order_of_slices`, of the frames of one file; None where they do not say where they lie."""
    positions: list[Any] = [said(dataset, i, "PlanePositionSequence") for i in range(num)]
    planes: list[Any] = [said(dataset, i, "PlaneOrientationSequence") for i in range(num)]
    return order_of_slices(
        [p and p.get("ImagePositionPatient") for p in positions], [p and p.get("ImageOrientationPatient") for p in planes]
    )


def order_of_slices(positions: Sequence[Any], planes: Sequence[Any]) -> tuple[np.ndarray, float | None] | None:
    """The order of slices along the normal of their plane, and how far apart neighbours are, in millimetres.

    Args:
        positions: of their first pixels, three numbers each, or None.
        planes: directions of their rows and columns, six numbers each, or None.

    Returns:
        Order and distance; None where any slice does not say where it lies.

    Raises:
        UnusableImage: they are no volume: their planes differ, or two lie at one place, or one is missing; or a position is no
            finite number.
    """
    if len({tuple(round(float(x), 2) + 0.0 for x in plane or ()) for plane in planes}) > 1:
        raise UnusableImage("has slices of several orientations, as a scout has: divide them")
    if not all(p and q and len(p) == 3 and len(q) == 6 for p, q in zip(positions, planes, strict=True)):
        return None
    directions = np.array(planes, float)
    places = np.sum(np.cross(directions[:, :3], directions[:, 3:]) * np.array(positions, float), axis=1)
    if not np.isfinite(places).all():
        raise UnusableImage("has slices whose positions are no finite numbers")
    order = np.argsort(places, kind="stable")
    steps = np.diff(places[order])
    if not steps.size:
        return order, None
    if steps.min() <= 1e-3 * max(steps.max(), 1e-9):
        raise UnusableImage(f"has {len(places)} slices, several of them at one place: divide its phases or echoes")
    if steps.max() - steps.min() > UNEVEN * np.median(steps):
        raise UnusableImage(f"has slices {steps.min():g} to {steps.max():g} mm apart, as where one is missing")
    return order, float(np.median(steps))
