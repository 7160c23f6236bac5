"""DICOM files that are slices of volumes."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffae.data.images import UnusableImage, dicom
from diffae.data.images.arrays import PACKED, packed
from diffae.data.images.decoded import Decoded
from diffae.data.images.frames import order_of_slices
from diffae.data.sources.folder import Folder
from diffae.data.sources.label_files import label_rows_of
from diffae.runtime.files import first_line, printable

if TYPE_CHECKING:
    from pydicom import Dataset


class Series:
    """All volumes in a folder: its series of DICOM slices, each one image, and whatever other image files lie there.

    A series is named by its folder and its UID, `patient/1.2.840.1.series`. Its slices lie along the normal of their plane, towards
    its head (for axial slices, towards the patient's), by their positions; where those are not said, by their numbers, which a note
    tells. Rows and columns stay as they are: the first row of an axial slice is anterior, its first column the patient's right.

    The attributes are those of `Folder`, and so are labels. A folder of one series alone is that volume's own, not its class:
    `ill/P1/*.dcm` are of the class `ill`.

    Raises:
        ImportError: pydicom is not installed.
    """

    def __init__(self, root: Path) -> None:
        self.folder = Folder(root)
        self.notes = list(self.folder.notes)
        self.rest, self.others = self.folder.rest, self.folder.others
        self.holders = self.folder.holders
        self._rows: list[Mapping[str, Any]] | None = None
        self.slices: dict[str, list[str]] = {}
        self.spacings: dict[str, float | None] = {}
        self.faults: dict[str, str] = {}
        found: dict[str, list[tuple[str, Dataset]]] = defaultdict(list)
        rest = []
        for name in self.folder.names:
            header = _slice(root / name, name) if self.folder.is_dicom(name) else None
            if header is None:
                rest.append(name)
            else:
                uid, dataset = header
                found[f"{_parent(name)}{uid}{PACKED}"].append((name, dataset))
        for name, slices in found.items():
            self._sort(name, slices)
        self.names = sorted([*found, *rest])

    def read(self, name: str) -> bytes:
        """The file's bytes; of a series, bytes that `read_image` knows. May be called from several threads.

        Raises:
            OSError: it cannot be read, or its slices are no volume; the message says why.
        """
        if name not in self.slices:
            return self.folder.read(name)
        if name in self.faults:
            raise OSError(self.faults[name])
        parts = []
        for file in self.slices[name]:
            try:
                parts.append(dicom.decode(self.folder.read(file), file, sides=2, channels=1))
            except UnusableImage as error:
                raise OSError(f"its slice {printable(file)} {error}") from None
        return packed(_stacked(parts, self.spacings[name]))

    def label_rows(self) -> list[Mapping[str, Any]]:
        """A label table, as `labels.align` takes it. What it was taken from is said in `notes`."""
        if self._rows is None:
            parents = Counter(map(_parent, self.names))
            alone = {name for name in self.slices if parents[_parent(name)] == 1}
            places = [_parent(name).removesuffix("/") if name in alone else name for name in self.names]
            self._rows = label_rows_of(self.folder.tops(), self.names, self.folder.root, self.notes, places=places)
        return self._rows

    def _sort(self, name: str, slices: list[tuple[str, "Dataset"]]) -> None:
        """Puts slices into their order, and notes what keeps them from being a volume."""
        self.spacings[name], order = None, np.arange(len(slices))
        try:
            positions = [_numbers(*each, "ImagePositionPatient") for each in slices]
            found = order_of_slices(positions, [_numbers(*each, "ImageOrientationPatient") for each in slices])
            if found is not None:
                order, self.spacings[name] = found
            else:
                order = self._by_number(name, [_numbers(*each, "InstanceNumber") for each in slices])
        except UnusableImage as error:
            self.faults[name] = str(error)
        self.slices[name] = [slices[i][0] for i in order]

    def _by_number(self, name: str, numbers: list[list[float]]) -> np.ndarray:
        if not all(numbers) or len(set(map(tuple, numbers))) < len(numbers):
            self.faults[name] = "does not say in which order its slices lie: neither their positions nor their numbers do"
        self.notes.append(f"The slices of {printable(name)} say no positions, and were put in the order of their numbers.")
        return np.argsort([n[0] if n else 0 for n in numbers], kind="stable")


def _slice(file: Path, name: str) -> "tuple[str, Dataset] | None":
    """The series of a DICOM file of one frame, and its elements before its pixels; None for others, and for what cannot be read,
    which is said when it is."""
    try:
        dataset = dicom.opened(file, name, pixels=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if "SeriesInstanceUID" in dataset and int(dataset.get("NumberOfFrames") or 1) <= 1:
                return str(dataset.SeriesInstanceUID), dataset
    except (MemoryError, ImportError):
        raise
    except Exception:  # pydicom makes values out of bytes when they are asked for, and raises anything on damaged ones.
        return None
    return None


def _numbers(name: str, dataset: "Dataset", keyword: str) -> list[float]:
    """The numbers of an element of a slice; empty where it says none.

    Raises:
        UnusableImage: they are damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = dataset.get(keyword)
            return [] if value is None or value == "" else [float(x) for x in np.atleast_1d(value)]
    except MemoryError:
        raise
    except Exception as error:  # As above.
        raise UnusableImage(f"has a slice, {printable(name)}, whose {keyword} is damaged ({first_line(error)})") from None


def _stacked(parts: list[Decoded], between: float | None) -> Decoded:
    """Slices as one volume.

    Raises:
        OSError: they have different sizes, channels or windows of values.
    """
    first = parts[0]
    for part in parts:
        if part.values.shape != first.values.shape:
            raise OSError(f"has slices of {_by(first)} and of {_by(part)}")
    limits: Any = None
    if all(part.limits is not None for part in parts):
        # Scanners may scale each slice by itself.
        limits = min(p.limits[0] for p in parts if p.limits), max(p.limits[1] for p in parts if p.limits)
    if first.turned and any(part.limits != first.limits for part in parts):
        raise OSError("is MONOCHROME1 (more is darker), with slices that are scaled each in its own way")
    spacing = (between, *first.spacing) if between and first.spacing else None
    windows = {part.window for part in parts}
    padding = None
    if any(part.padding is not None for part in parts):
        padding = np.stack([np.zeros(p.values.shape, bool) if p.padding is None else p.padding for p in parts], axis=1)
    return Decoded(
        values=np.stack([part.values for part in parts], axis=1),
        limits=limits,
        spacing=spacing,
        window=windows.pop() if len(windows) == 1 else None,
        padding=padding,
        turned=first.turned,
        colours=first.colours,
        meant=(f"{len(parts)} slices", *first.meant),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _by(part: Decoded) -> str:
    return " x ".join(map(str, part.values.shape))


def _parent(name: str) -> str:
    folder, _, _ = name.rpartition("/")
    return f"{folder}/" if folder else ""
