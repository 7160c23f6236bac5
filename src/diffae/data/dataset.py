"""The images of a run, at the training size, memory-mapped, and the order in which training sees them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Float
from torch import Tensor

from diffae.config import DataConfig
from diffae.config.data import HeldOut
from diffae.data.images import in_range
from diffae.data.labels.columns import members
from diffae.data.sources.parts import divided
from diffae.runtime import seeding
from diffae.runtime.files import digest_lines


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images at one size, with their labels and their split.

    Attributes:
        names: paths relative to the source.
        pixels: (n, c, *sides), uint8 or uint16, or float16 for latents; memory-mapped.
        labels: attribute -> (n,) float64, NaN where unknown.
        train: indices to train on. Images that are neither these nor held out are not those of a run: it knows nothing of them.
        validation: indices held out.
        notes: what was skipped, ignored or missing, in sentences.
        config: how they were prepared.
        key: identifies the pixels: the files, and how they were prepared.
        known: (n, 1, *sides), of the pixels' type: its largest value where a pixel counts, and 0 where the loss leaves it out; None
            where all count.
        meaning: how their files are read, in a line.
        mirrored: like `pixels`, for the flipped images. Only for latents, which cannot be flipped themselves.
        given: the label that all have that are trained on or held out; None where all images are.
        groups: (n,), of the images that belong together, such as a person's; None where each stands for itself.
    """

    names: list[str]
    pixels: np.ndarray
    labels: dict[str, np.ndarray]
    train: np.ndarray
    validation: np.ndarray
    notes: list[str]
    config: DataConfig
    key: str
    known: np.ndarray | None = None
    meaning: str = ""
    mirrored: np.ndarray | None = None
    given: str | None = None
    groups: np.ndarray | None = None

    @property
    def identity(self) -> str:
        """Identifies the images, their preparation and their split: numbers in words, and a digest."""
        held = [self.names[i] for i in self.validation]
        given = [] if self.given is None else [f"given {self.given}", *(self.names[i] for i in self.train)]
        digest = digest_lines([self.key, *self.names, "held out", *held, *given])
        return f"{len(self.train):,} images to train on and {len(held):,} held out ({digest[:16]})"

    def with_label(self, given: str) -> "ImageSet":
        """To train on, and held out, those images alone that have a label; `not NAME`: that do not.

        Raises:
            ValueError: there is no such label, or it is one of numbers.
        """
        has = members(self.labels, given) == 1
        return replace(self, train=self.train[has[self.train]], validation=self.validation[has[self.validation]], given=given)

    def divided_by(self, validation: HeldOut) -> "ImageSet":
        """These images, divided into those to train on and those held out.

        Args:
            validation: a share, chosen by a hash of the group, or path; or `published`, see `published_split`.

        Raises:
            ValueError: as of `split` and `published_split`.
        """
        parts, notes = divided(self.names), list(self.notes)
        if validation == "published":
            train, held = published_split(self.names, parts)
        else:
            train, held = split(self.names, None if self.groups is None else self.groups.tolist(), validation)
            if parts:
                notes.append(
                    f"The images lie in {', '.join(parts)}, as a published split, and are taken as one set that is split anew: "
                    "what was held out there is trained on here. To keep them apart: --data.validation published."
                )
        config = replace(self.config, validation=validation)
        sides = replace(self, train=train, validation=held, notes=notes, config=config)
        notes += sides.torn()
        return sides

    def torn(self) -> list[str]:
        """What there is to note of groups that have images on both sides; nothing where there are none."""
        if self.groups is None:
            return []
        both = {*self.groups[self.train]} & {*self.groups[self.validation]}
        what = f"{len(both)} of {len({*self.groups})} groups have images on both sides of the split"
        return [f"{what}: what is held out is of groups that were trained on."] if both else []

    @property
    def arrays(self) -> list[np.ndarray]:
        """The arrays whose rows make a training batch."""
        return [array for array in (self.pixels, self.mirrored, self.known) if array is not None]

    def counted(self, indices: Sequence[int] | np.ndarray) -> Float[Tensor, "n 1 *sides"] | None:
        """Which of their pixels count, 0 or 1; None where all do."""
        return None if self.known is None else (in_range(self.known[np.asarray(indices)]) > 0).float()

    def some(self, indices: np.ndarray, num: int) -> np.ndarray:
        """So many of these images at most, in their order, chosen by a hash of their names: names are often sorted by kind."""
        if len(indices) <= num:
            return indices
        places = sorted(range(len(indices)), key=lambda i: seeding.mix("some", self.names[indices[i]]))[:num]
        return indices[sorted(places)]

    def grouped(self, indices: np.ndarray) -> np.ndarray | None:
        """The groups of these images; None where there are none."""
        return None if self.groups is None else self.groups[indices]

    def images(self, indices: Sequence[int] | np.ndarray) -> Float[Tensor, "n c *sides"]:
        """These images, in [-1, 1]; or their latents."""
        return in_range(self.pixels[np.asarray(indices)])


def divided_as_configured(data: ImageSet) -> ImageSet:
    """Images, divided as their configuration says."""
    return data.divided_by(data.config.validation)


def split(names: Sequence[str], groups: Sequence[str] | None, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Chooses the images to hold out by a hash of the path, or of the group where there are groups.

    So an image stays on its side when others are added, and a group is never divided.

    Args:
        names: of the images.
        groups: the group of each image, or None.
        share: of images to hold out, [0, 1).

    Returns:
        Indices to train on, and indices held out.

    Raises:
        ValueError: the share is not within [0, 1), or leaves nothing to train on.
    """
    if not 0 <= share < 1:
        raise ValueError(f"The share of images to hold out (data.validation) must be within [0, 1), got {share}.")
    keys = names if groups is None else groups
    hashes = {key: seeding.mix("split", key) for key in set(keys)}
    held = np.array([hashes[key] / 2**63 < share for key in keys])
    if share > 0 and len(hashes) > 1 and (not held.any() or held.all()):
        # Very few images or groups: hold out the one with the smallest hash rather than none, or all.
        least = min(hashes, key=hashes.__getitem__)
        held = np.array([key == least for key in keys])
    if held.all():
        what = "the only image is held out" if len(names) == 1 else f"all {len(names)} images share one group, which is held out"
        raise ValueError(f"Nothing is left to train on: {what}. Set data.validation to 0.")
    return np.flatnonzero(~held), np.flatnonzero(held)


def published_split(names: Sequence[str], parts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The published split of images: those to train on, and those of all other parts.

    Args:
        names: of the images.
        parts: the folders of the split, as `sources.divided` finds them.

    Raises:
        ValueError: none of the parts is called `train`, there are no parts, or an image is in none.
    """
    training = [part for part in parts if part.lower().startswith("train")]
    if not training:
        found = ", ".join(parts) or "none"
        raise ValueError(f"data.validation published wants folders such as train and test; there are {found}. Give a share.")
    places = [next((part for part in PurePosixPath(name).parts[:-1] if part in parts), None) for name in names]
    if None in places:
        raise ValueError(
            f"data.validation published: {names[places.index(None)]} is in none of {', '.join(parts)} "
            f"({places.count(None)} such in all). Move it, or give a share."
        )
    held = np.array([place not in training for place in places])
    return np.flatnonzero(~held), np.flatnonzero(held)


class Order:
    """The endless order in which training sees images: a new permutation each epoch, as a function of (seed, epoch).

    Any position is computed on its own, without those before it, so a run can start anywhere.
    """

    def __init__(self, indices: np.ndarray, *, seed: int) -> None:
        self.indices = indices
        self.seed = seed
        self._epoch: tuple[int, np.ndarray] | None = None

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, len(self.indices))
        if self._epoch is None or self._epoch[0] != epoch:
            generator = np.random.default_rng(seeding.mix(self.seed, "epoch", epoch))
            self._epoch = (epoch, generator.permutation(self.indices))
        return int(self._epoch[1][place])
