"""Where cut faces are from: the file `align.json` beside them, and the names that they have."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from diffae.config import read_json, to_dict
from diffae.runtime.files import write_text

FILE = "align.json"
"""The name of that file."""
Corner = tuple[float, float]
"""x and y, in pixels of the upright photograph; a pixel's number is its centre."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """One face.

    Attributes:
        file: of the cut, in the folder.
        photo: name of the photograph, in its source.
        photo_size: its width and height, upright.
        quad: the square's corners: upper left, lower left, lower right, upper right.
        score: how likely it is a face, from 0 to 1.
    """

    file: str
    photo: str
    photo_size: tuple[int, int]
    quad: tuple[Corner, Corner, Corner, Corner]
    score: float

    def __post_init__(self) -> None:
        a, b, c, d = self.quad
        sides = [math.dist(*ends) for ends in ((a, b), (b, c), (c, d), (d, a))]
        ends = math.dist(a, c), math.dist(b, d)
        if not (0 < max(sides) < math.inf) or min(sides) < 0.99 * max(sides) or min(ends) < 0.99 * max(ends):
            raise ValueError(f"quad must be the corners of a square, got {self.quad}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cuts:
    """All faces of a folder.

    Attributes:
        photos: the source of the photographs.
        size: of each cut, in pixels.
        faces: by photograph, and there the largest first.
        without: names of photographs in which no face was found.
        unusable: names of those that could not be read.
    """

    photos: str
    size: int
    faces: tuple[Cut, ...]
    without: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()


def write_cuts(cuts: Cuts, folder: Path) -> None:
    """Writes the file, atomically."""
    write_text(folder / FILE, json.dumps(to_dict(cuts), indent=1, ensure_ascii=False) + "\n")


def read_cuts(folder: Path) -> Cuts:
    """The faces of a folder.

    Raises:
        FileNotFoundError: it has no such file.
        ValueError: the file says something else.
    """
    if not (folder / FILE).is_file():
        raise FileNotFoundError(f"There is no {FILE} in {folder}: give the folder that `diffae align` wrote.")
    return read_json(Cuts, folder / FILE)


def cut_names(photo: str, num: int, taken: set[str]) -> list[str]:
    """Names for the cuts of a photograph, in its own folder: that of the photograph, with a number if there are several; where
    others have these, with its ending too.

    Args:
        photo: its name.
        num: of faces.
        taken: names that others have; those given are added.
    """
    for stem in _stems(photo):
        names = [f"{stem}{f'-{i}' if num > 1 else ''}.png" for i in range(num)]
        if taken.isdisjoint(names):
            break
    taken.update(names)
    return names


def _stems(photo: str) -> Iterator[str]:
    # Names in archives may lead out of the folder.
    photo = PurePosixPath(*(part for part in PurePosixPath(photo).parts if part not in ("/", "//", ".."))).as_posix()
    yield PurePosixPath(photo).with_suffix("").as_posix()
    while True:
        yield photo
        photo += "_"


def cut_of(file: PurePosixPath, cuts: Cuts) -> Cut | None:
    """The cut that a file is named like, whatever its ending: the one whose folder fits too, or else the only one of that name.

    Args:
        file: an edited cut.
        cuts: all that there are.
    """
    parts = file.with_suffix("").parts
    fitting = [
        (len(theirs), cut) for cut in cuts.faces if parts[-len(theirs := PurePosixPath(cut.file).with_suffix("").parts) :] == theirs
    ]
    if fitting:
        return max(fitting, key=lambda found: found[0])[1]
    alike = [cut for cut in cuts.faces if PurePosixPath(cut.file).stem == file.stem]
    return alike[0] if len(alike) == 1 else None
