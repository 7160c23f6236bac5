"""Which images, and how files become what a model sees."""

from dataclasses import dataclass
from typing import Annotated, Literal

from diffae.config.ranges import Count, InRange, Range, Share

Crop = Literal["center", "none", "celeba"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation(InRange):
    """How an image file becomes what a model sees, in training and ever after: a model carries it."""

    crop: Crop = "center"
    """Named crop before resizing."""
    background: Annotated[tuple[int, int, int], Range(0, 255)] = (255, 255, 255)
    """Colour, 0..255, on which transparent images are composited."""
    range: tuple[float, float] | None = None
    """The pixel values that become -1 and 1, of images that have more than 8 bits; None is 0 and 65535."""
    shown: tuple[int, ...] = ()
    """The channels, counted from 1, that pictures show: as red, green and blue, or one as grey."""

    def __post_init__(self) -> None:
        InRange.__post_init__(self)
        if len(self.shown) not in (0, 1, 3) or any(channel < 1 for channel in self.shown):
            raise ValueError(f"shown is one channel, counted from 1, or three for red, green and blue, got {self.shown!r}.")
        if self.range is not None and not -float("inf") < self.range[0] < self.range[1] < float("inf"):
            raise ValueError(f"range must be two numbers, the smaller first, got {self.range!r}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig(InRange):
    """How image files become tensors, and which are held out."""

    source: str = ""
    """A folder, zip or tar of images, a folder of tars (WebDataset), Parquet or Arrow files (Hugging Face `datasets`), an LMDB (the
    authors', LSUN's), hf://datasets/USER/NAME, `avatars`, or `avatars-unseen`: of parts that the first never have."""
    labels: str | None = None
    """A label table (CSV or Parquet) with a `file` column, or annotations in CelebA's format (.txt); None looks for `labels.csv`
    beside the images."""
    labels_kind: tuple[str, ...] = ()
    """What columns of labels are taken for, NAME=KIND each: `binary` (1 yes, 0 no, -1 unknown), `signed` (1 yes, -1 no, 0 unknown)
    or `continuous` (numbers). KIND alone is for every column where -1 could be either. Empty cells are unknown always."""
    crop: Crop = "center"
    """Named crop before resizing: the largest centred box of the target's shape, none, or a data set's own."""
    flip: bool = True
    """Horizontal flips while training, each with probability one half."""
    validation: Share = 0.05
    """Share of images held out, chosen by a hash of the path (or of the `group` column of the label table)."""
    background: Annotated[tuple[int, int, int], Range(0, 255)] = (255, 255, 255)
    """Colour, 0..255, on which transparent images are composited."""
    range: tuple[float, float] | None = None
    """The pixel values that become -1 and 1, of images that have more than 8 bits (such as -1024 3071 of a CT, 0 4095 of 12 bits in
    16); None is 0 and 65535. Values beyond are clipped, as by the window of a viewer."""
    shown: tuple[int, ...] = ()
    """The channels, counted from 1, that pictures show: as red, green and blue, or one as grey. By default the first three; of two
    the first in magenta and the second in green."""
    avatars: Count = 6000
    """Number of avatars to render, where the source is `avatars`."""
    latents: str | None = None
    """Train on the latents of this frozen AutoencoderKL or AutoencoderDC of diffusers (a folder, or the hub's name), for large
    images; model.image_size and model.channels are then those of the latents."""

    def __post_init__(self) -> None:
        InRange.__post_init__(self)
        _ = self.preparation  # Looks at the range.

    @property
    def preparation(self) -> Preparation:
        """What a model that is trained on these images has to do with others."""
        return Preparation(crop=self.crop, background=self.background, range=self.range, shown=self.shown)
