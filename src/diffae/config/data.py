"""Which images, and how files become what a model sees."""

from dataclasses import dataclass
from typing import Annotated, Literal

from diffae.config.ranges import Count, InRange, Range, Share

Crop = Literal["center", "none", "celeba"]
Measure = Literal["minmax", "percentiles"]
"""Ranges that are measured over all images."""
HeldOut = Annotated[float | Literal["published"], Range(0, 1)]
"""Which images are held out: a share, or what is published as such."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation(InRange):
    """How an image file becomes what a model sees, in training and ever after: a model carries it."""

    crop: Crop = "center"
    """Named crop before resizing."""
    background: Annotated[tuple[int, int, int], Range(0, 255)] = (255, 255, 255)
    """Colour, 0..255, on which transparent images are composited."""
    range: tuple[float, ...] | Literal["window"] | None = None
    """The pixel values that become -1 and 1, of all but pictures of 8 bits: two numbers, or two for each channel. `window` is each
    DICOM file's own; None, all that each file's type or stored bits can say."""
    shown: tuple[int, ...] = ()
    """The channels, counted from 1, that pictures show: as red, green and blue, or one as grey."""
    mask: str | None = None
    """`gaps`: images have one channel more, which says where something is known; what is not a number, or marked as no data
    or as padding, is not."""

    def __post_init__(self) -> None:
        InRange.__post_init__(self)
        if isinstance(self.range, tuple):
            _check_pairs(self.range)
        if len(self.shown) not in (0, 1, 3) or any(channel < 1 for channel in self.shown):
            raise ValueError(f"shown is one channel, counted from 1, or three for red, green and blue, got {self.shown!r}.")


def _check_pairs(numbers: tuple[float, ...]) -> None:
    """Refuses numbers that are no pairs of finite ones, the smaller first.

    Raises:
        ValueError: they are none.
    """
    pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
    if not pairs or len(numbers) % 2 or not all(-float("inf") < low < high < float("inf") for low, high in pairs):
        raise ValueError(f"range must be two numbers, the smaller first, or two for each channel, got {numbers!r}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig(InRange):
    """How image files become tensors, and which are held out."""

    source: str = ""
    """A folder, zip or tar of images, a folder of tars (WebDataset), Parquet or Arrow files (Hugging Face `datasets`), arrays
    (.npz, HDF5, Zarr), whole-slide images, an LMDB (the authors', LSUN's), hf://datasets/USER/NAME, `avatars`, or `avatars-unseen`:
    of parts that the first never have."""
    labels: str | None = None
    """A label table (CSV or Parquet) with a `file` column, or annotations in CelebA's format (.txt) or COCO's (.json); None looks
    for `labels.csv` beside the images."""
    labels_kind: tuple[str, ...] = ()
    """What columns of labels are taken for, NAME=KIND each: `binary` (1 yes, 0 no, -1 unknown), `signed` (1 yes, -1 no, 0 unknown),
    `continuous` (numbers), `ordinal` (numbers that are an order) or `classes` (a column of yes and no for each). KIND alone is for
    every column where -1 could be either. Empty cells are unknown always."""
    crop: Crop = "center"
    """Named crop before resizing: the largest centred box of the target's shape, none, or a data set's own."""
    flip: bool = True
    """Horizontal flips while training, each with probability one half."""
    validation: HeldOut = 0.05
    """Share of images held out, chosen by a hash of the path (or of the `group` column of the label table). `published` holds out
    what lies in folders `val` and `test`, and trains on `train`."""
    background: Annotated[tuple[int, int, int], Range(0, 255)] = (255, 255, 255)
    """Colour, 0..255, on which transparent images are composited."""
    range: tuple[float, ...] | Measure | Literal["dtype", "window"] | None = None
    """The pixel values that become -1 and 1, of all but pictures of 8 bits, which are 0..255: two numbers (such as -1024 3071 of a
    CT, 0 4095 of 12 bits in 16), or two for each channel. None or `dtype`: what each file's type, or the bits that it stores, can
    say; `minmax` and `percentiles` (0.5 and 99.5) are measured over all images, for each channel; `window` is each DICOM file's
    own. Values beyond are clipped, as by the window of a viewer."""
    shown: tuple[int, ...] = ()
    """The channels, counted from 1, that pictures show: as red, green and blue, or one as grey. By default the first three; of two
    the first in magenta and the second in green."""
    mask: str | None = None
    """What the loss leaves out: `gaps` (what is not a number, or marked as no data or as padding), or a folder of masks with the
    same names."""
    tile: Count = 256
    """Side of the tiles that whole-slide images are cut into, in pixels of their highest resolution."""
    least_tissue: Share = 0.5
    """Share of a tile that has to be tissue; others are left out."""
    also: tuple[str, ...] = ()
    """Folders, or other sources, with files of the same names as the images': each gives one channel more, such as a mask or
    another stain, and model.channels counts them."""
    avatars: Count = 6000
    """Number of avatars to render, where the source is `avatars`."""
    latents: str | None = None
    """Train on the latents of this frozen AutoencoderKL or AutoencoderDC of diffusers (a folder, or the hub's name), for large
    images; model.image_size and model.channels are then those of the latents."""

    def __post_init__(self) -> None:
        InRange.__post_init__(self)
        if isinstance(self.range, tuple):
            _check_pairs(self.range)
        if self.latents is not None and self.mask is not None:
            raise ValueError("data.mask leaves pixels out, and latents have none: leave away data.mask or data.latents.")

    @property
    def preparation(self) -> Preparation:
        """What a model that is trained on these images has to do with others.

        Raises:
            ValueError: the range is still to be measured.
        """
        if self.range in ("minmax", "percentiles"):
            raise ValueError(f"data.range {self.range} has not been measured: see `diffae.data.measuring.resolved`.")
        limits = None if self.range == "dtype" else self.range
        mask = "gaps" if self.mask == "gaps" else None
        return Preparation(crop=self.crop, background=self.background, range=limits, shown=self.shown, mask=mask)  # type: ignore[arg-type]
