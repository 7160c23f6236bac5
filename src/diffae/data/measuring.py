"""The range of values of a whole set of images, measured in one pass."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from diffae.config import DataConfig
from diffae.data.contents import Progress, check_own
from diffae.data.images import Decoded, UnusableImage, unknown, values_of
from diffae.data.sources import Source

MOST_KEPT = 2**22
"""Values of a channel that are kept for percentiles. Of larger sets they are a sample, drawn evenly from all values."""
PERCENTILES = (0.5, 99.5)
"""Per cent of values below the range, and up to its end: what nnU-Net clips at."""


class Extent:
    """The smallest and the largest value of one channel; exact."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def add(self, values: np.ndarray) -> None:
        """Takes in the values of one image, (n,)."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def limits(self) -> tuple[float, float]:
        """The range; infinite the wrong way round, where there is no value."""
        return self.low, self.high


class Percentiles:
    """Percentiles of the values of one channel: exact up to `MOST_KEPT` values, beyond that of a sample of at least half so
    many."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []
        self.share = 1.0
        self.generator = np.random.default_rng(0)

    def add(self, values: np.ndarray) -> None:
        """Takes in the values of one image, (n,)."""
        self.kept.append(self._drawn(values.astype(np.float64), self.share))
        while sum(map(len, self.kept)) > MOST_KEPT:
            self.kept, self.share = [self._drawn(np.concatenate(self.kept), 0.5)], self.share / 2

    def limits(self) -> tuple[float, float]:
        """The range; infinite the wrong way round, where there is no value."""
        if not self.kept:
            return np.inf, -np.inf
        low, high = np.percentile(np.concatenate(self.kept), PERCENTILES)
        return float(low), float(high)

    def _drawn(self, values: np.ndarray, share: float) -> np.ndarray:
        return values if share == 1 else values[self.generator.random(len(values)) < share]


MEASURES: dict[str, type[Extent] | type[Percentiles]] = {"minmax": Extent, "percentiles": Percentiles}


def measured(images: Iterable[Decoded], measure: str, *, padding: bool = False) -> tuple[float, ...]:
    """The range of values of each channel of images, gaps left out.

    Args:
        images: decoded, one at a time; none is kept.
        measure: `minmax`, or `percentiles`.
        padding: whether what scanners filled images up with is a gap too, as where gaps are left out of training.

    Returns:
        The smaller and the larger number of each channel, one after another; two numbers alone where all channels have the same.

    Raises:
        ValueError: there is no value, all are the same, or the images have different numbers of channels.
    """
    found: list[Extent | Percentiles] = []
    for image in images:
        found = found or [MEASURES[measure]() for _ in image.values]
        if len(found) != len(image.values):
            raise ValueError(
                f"Some images have {len(found)} channels and some {len(image.values)}, so data.range {measure} has no meaning: "
                "name two numbers, or take images of one kind."
            )
        gaps = unknown(image, padding=padding)
        for channel, values in enumerate(image.values):
            known = values.ravel() if gaps is None else values[~gaps[channel]]
            if known.size:
                found[channel].add(known)
    pairs = [channel.limits() for channel in found]
    if not pairs or not all(low < high for low, high in pairs):
        what = ", ".join(f"{low:g}..{high:g}" for low, high in pairs) or "no image of more than 8 bits among them"
        raise ValueError(
            f"data.range {measure} finds no range ({what}). Name two numbers; pictures of 8 bits alone need none, they are 0..255."
        )
    return pairs[0] if len(set(pairs)) == 1 else tuple(end for pair in pairs for end in pair)


def resolved(
    config: DataConfig, source: Source, names: Sequence[str], *, size: tuple[int, ...], channels: int, progress: Progress
) -> DataConfig:
    """The configuration with numbers for a range that is to be measured over all images; as it is, if none is.

    Images that cannot be used are left out; preparing them names them.

    Args:
        config: of the images.
        source: the images.
        names: of those that can be read.
        size: of the model's images.
        channels: of the model's images.
        progress: called as files are read.

    Raises:
        ValueError: see `measured`.
        OSError: the system refuses an image.
    """
    if config.range not in MEASURES:
        return config
    values = _values(source, names, len(size), channels, progress)
    numbers = measured(values, str(config.range), padding=config.mask == "gaps")
    return dataclasses.replace(config, range=numbers)


def _values(source: Source, names: Sequence[str], sides: int, channels: int, progress: Progress) -> Iterator[Decoded]:
    for done, name in enumerate(names, start=1):
        try:
            decoded = values_of(source.read(name), name, sides=sides, channels=channels)
        except UnusableImage:
            decoded = None
        except OSError as error:
            check_own(error, name)
            decoded = None
        if decoded is not None:
            yield decoded
        progress("Measuring the range", done, len(names))
