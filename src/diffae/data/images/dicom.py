"""DICOM: what scanners write."""

import contextlib
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffae.data.images.decoded import Decoded, arranged, native, ordered, turned_over
from diffae.data.images.files import UnusableImage, check_inflated, check_unpacked, ending
from diffae.data.images.frames import order_of_frames, said, scales
from diffae.runtime.files import is_the_systems

if TYPE_CHECKING:
    from pydicom import Dataset

GREYS = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")


def decode(content: bytes, name: str, *, sides: int, channels: int) -> Decoded:
    """A DICOM file: modality values (Hounsfield units of a CT), or red, green and blue.

    MONOCHROME1 is turned over, so that more is brighter. Frames are the depth of a volume, along the normal of their plane where
    they say where they lie, as in `sources.Series`; of a flat image the first is taken. Each is scaled as it says. Limits are
    those of the bits that are stored. What the stored values are by which a scanner filled its image up (PixelPaddingValue, and the
    range from there to PixelPaddingRangeLimit) is its padding. A file without its header is read where its name ends as DICOM's do.
    """
    dataset = opened(content, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About elements that do not touch the pixels; missing ones are errors.
            return _decoded(dataset, len(content), sides=sides, channels=channels)
    except (UnusableImage, MemoryError, ImportError):
        raise
    except Exception as error:  # Readers raise anything on damaged files.
        _check_codecs(dataset)
        raise UnusableImage(f"has pixels that cannot be decoded ({_first(error)})") from None


def opened(content: bytes | Path, name: str, *, pixels: bool = True) -> "Dataset":
    """The elements of a DICOM file.

    Args:
        content: its bytes, or the file itself.
        name: its name.
        pixels: whether to read the pixels too.

    Raises:
        UnusableImage: it is no DICOM file, a damaged one, or a bomb.
        ImportError: pydicom is not installed.
    """
    try:
        from pydicom import dcmread
        from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
    except ImportError:
        raise ImportError("Reading DICOM needs pydicom: pip install 'diffae[medical]'.") from None
    force = ending(name) in (".dcm", ".dicom")
    try:
        with warnings.catch_warnings(), io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
            warnings.simplefilter("ignore")
            dataset = dcmread(_Looked(file), force=force, stop_before_pixels=not pixels)
            if "TransferSyntaxUID" not in dataset.file_meta:
                implicit, little = dataset.original_encoding
                explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    except (UnusableImage, MemoryError):
        raise
    except Exception as error:  # Readers raise anything on damaged files.
        if is_the_systems(error):
            raise
        raise UnusableImage(f"is no readable DICOM file ({_first(error)})") from None
    if not len(dataset):
        raise UnusableImage("is no readable DICOM file (it has no elements)")
    return dataset


class _Looked:
    """A file for pydicom, which asks for the whole rest of one only to inflate it: that is looked at first."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        content = self.file.read(size)
        if size < 0:
            check_inflated(content)
        return content


def _decoded(dataset: "Dataset", length: int, *, sides: int, channels: int) -> Decoded:
    from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(dataset.dir("Pixel")):
        raise UnusableImage(f"holds no pixels (its modality is {dataset.get('Modality') or 'not said'})")
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if kind not in (*GREYS, *COLOURS):
        raise UnusableImage(
            f"has the colours {kind or 'of no name'}, which are not known here: known are {', '.join((*GREYS, *COLOURS))}"
        )
    frames = int(dataset.get("NumberOfFrames") or 1)
    taken = frames if sides == 3 else 1
    pixel = int(dataset.get("SamplesPerPixel", 1)) * ((int(dataset.get("BitsAllocated", 8)) + 7) // 8)
    check_unpacked(taken * int(dataset.Rows) * int(dataset.Columns) * pixel, length)
    stored = pixel_array(dataset) if sides == 3 else pixel_array(dataset, index=0)
    meant: tuple[str, ...] = ()
    limits: tuple[float, float] | None
    axes = "F" * (taken > 1) + "YX" + "C" * (kind in COLOURS)
    if kind == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
        limits = _bits(stored.dtype.itemsize * 8, signed=False)
    elif stored.dtype.kind == "f":
        limits = None
    else:
        limits = _bits(int(dataset.BitsStored), signed=bool(dataset.PixelRepresentation))
    values = stored
    padding, odd = _padding(stored, dataset) if kind in GREYS else (None, ())
    if kind in GREYS:
        values, limits = _modality(stored, dataset, limits, apply_modality_lut, taken)
    turned = kind == "MONOCHROME1"
    window, windows = _window(dataset, taken)
    if turned:
        values, (low, high) = turned_over(values, limits)
        window = window and (low + high - window[1], low + high - window[0])
        meant = ("MONOCHROME1 turned over",)
    order, between = (order_of_frames(dataset, taken) if taken > 1 else None) or (None, None)

    def laid(each: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        if sides == 3 and taken == 1:
            return arranged(each[None], f"F{axes}", sides=sides, channels=channels)
        return arranged(each if order is None else each[order], axes, sides=sides, channels=channels)

    values, notes = laid(native(np.asarray(values)))
    if sides == 2 and frames > 1:
        notes = (f"of {frames} frames, of which {frames - 1} are left out: the first was taken", *notes)
    return Decoded(
        values=values,
        limits=limits,
        spacing=_spacing(dataset, sides, between),
        window=window,
        padding=None if padding is None else laid(padding)[0],
        turned=turned,
        colours=kind in COLOURS,
        meant=(*meant, *windows),
        notes=(*notes, *odd),
    )


def _padding(stored: np.ndarray, dataset: "Dataset") -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Where stored values are padding, as PS3.3 C.7.5.1.1.2 defines it, or None; and what to say where that cannot be read."""
    kind = {"f4": "Float", "f8": "DoubleFloat"}.get(stored.dtype.str[1:], "")
    try:
        value, limit = (dataset.get(f"{kind}PixelPadding{end}") for end in ("Value", "RangeLimit"))
        if value is None:
            return None, ()
        ends = [float(value), float(value if limit is None else limit)]
    except Exception:  # Readers raise anything on damaged elements, and without this one the image is whole.
        return None, ("with a PixelPaddingValue that is no number, so no padding is known",)
    if stored.dtype.kind != "f" and stored.dtype.itemsize <= 2:
        # It has 16 bits, which count as those of the pixels do, whatever sign it says itself.
        least = -(2**15) if stored.dtype.kind == "i" else 0
        ends = [(end - least) % 2**16 + least for end in ends]
    found = (stored >= min(ends)) & (stored <= max(ends))
    return (found if found.any() else None), ()


def _modality(
    stored: np.ndarray, dataset: "Dataset", limits: tuple[float, float] | None, apply: Any, taken: int
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Values of the modality, and what the stored bits can say of them. What is not scaled keeps its type."""
    if "ModalityLUTSequence" in dataset:
        values = apply(stored, dataset)
        table = np.asarray(dataset.ModalityLUTSequence[0].LUTData)
        return values, (float(table.min()), float(table.max()))
    pairs = scales(dataset, taken)
    if pairs == [(1.0, 0.0)]:
        return stored, limits
    if len(pairs) > 1 and dataset.PhotometricInterpretation == "MONOCHROME1":
        raise UnusableImage("is MONOCHROME1 (more is darker), with frames that are scaled each in its own way")
    ends = None
    if limits is not None:
        each = [ordered(limits, slope, intercept) for slope, intercept in pairs]
        ends = min(low for low, _ in each), max(high for _, high in each)
    whole = ends is not None and all(x.is_integer() for pair in pairs for x in pair) and max(map(abs, ends)) < 2**31
    slope, intercept = np.array(pairs, np.int32 if whole else np.float64).T.reshape(2, -1, 1, 1)
    return (stored.astype(slope.dtype) * slope + intercept).reshape(stored.shape), ends


def _bits(stored: int, *, signed: bool) -> tuple[float, float] | None:
    if stored > 16:
        return None
    return (-(2.0 ** (stored - 1)), 2.0 ** (stored - 1) - 1) if signed else (0.0, 2.0**stored - 1)


def _window(dataset: "Dataset", num: int) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """The first window that a file has, as PS3.3 C.11.2.1.2 defines it, and what to say of further ones, its frames' too."""
    (window, meant), *others = [_window_of(said(dataset, frame, "FrameVOILUTSequence") or dataset) for frame in range(num)]
    differ = any(other != window for other, _ in others)
    return window, (*meant, "window of the first frame, and others have others") if differ and window else meant


def _window_of(of: "Dataset") -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    centers, widths = of.get("WindowCenter"), of.get("WindowWidth")
    if centers is None or widths is None or of.get("VOILUTFunction", "LINEAR") == "SIGMOID":
        return None, ()
    centers, widths = np.atleast_1d(np.asarray(centers, float)), np.atleast_1d(np.asarray(widths, float))
    if not (centers.size and widths.size and np.isfinite([centers[0], widths[0]]).all()):
        return None, ()
    center, width = float(centers[0]), float(widths[0])
    if of.get("VOILUTFunction", "LINEAR") != "LINEAR_EXACT":
        center, width = center - 0.5, width - 1
    if width <= 0:
        return None, ()
    return (center - width / 2, center + width / 2), (f"first of {centers.size} windows",) if centers.size > 1 else ()


def _spacing(dataset: "Dataset", sides: int, between: Any) -> tuple[float, ...] | None:
    """Millimetres between slices (unless they are known by where these lie), rows and columns, where the file says them."""
    measures = said(dataset, 0, "PixelMeasuresSequence") or dataset
    found = [float(x) for x in (measures.get("PixelSpacing") or dataset.get("ImagerPixelSpacing") or ())]
    if sides == 3:
        between = between or measures.get("SpacingBetweenSlices") or dataset.get("GridFrameOffsetVector")
        between = abs(between[1] - between[0]) if np.ndim(between) and len(between) > 1 else between
        between = between or measures.get("SliceThickness")
        found = [float(between), *found] if between and not np.ndim(between) else []
    return tuple(found) if len(found) == sides and all(x > 0 for x in found) else None


def _check_codecs(dataset: "Dataset") -> None:
    """After a failure to decode pixels: whether another decoder might have done it that is not installed.

    Raises:
        ImportError: it might.
    """
    from pydicom.pixels import get_decoder

    with contextlib.suppress(NotImplementedError):  # A kind of compression that none decodes.
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        if any(missing.startswith("pylibjpeg ") for missing in decoder.missing_dependencies):
            raise ImportError(
                f"Reading DICOM of this compression ({decoder.UID.name}) needs pylibjpeg: pip install 'diffae[medical]'."
            )


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
