"""What the folders of images mean: parts of a published split, or classes."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from diffae.data.labels.classes import MOST_CLASSES, ClassName

PARTS = {"train": 0, "training": 0, "test": 1, "testing": 1, "val": 2, "valid": 2, "validation": 2, "dev": 2}
"""Names of the parts of a split -> which part."""
SPLIT = re.compile(rf"({'|'.join(PARTS)})([-_.]\d.*)?", re.IGNORECASE)
"""Folder names of the parts of published splits."""
LARGEST = 999
"""Folders that are all called by numbers, some above this one, divide images by their own number, as FFHQ's do, not by class."""


def divided(names: Sequence[str]) -> list[str]:
    """The folders, or files of rows, that are called like the parts of a published split, such as `train` and `test`; empty where
    there are fewer than two parts."""
    tops = {part for name in names for part in PurePosixPath(name).parts[:-1]}
    parts = {top: m[1].lower() for top in sorted(tops) if (m := SPLIT.fullmatch(top))}
    return list(parts) if len({PARTS[part] for part in parts.values()}) > 1 else []


def folder_classes(names: Sequence[str]) -> list[ClassName]:
    """The class of each image where images lie in a folder for each class, `cats/1.jpg`; empty where they do not.

    Folders that all images share, and the parts of a published split, say nothing. What is left has to be one folder for each
    image, 2 to `MOST_CLASSES` of them, of two images on average at least, and not thousands of an image's own number.
    """
    parts = set(divided(names))
    places = [[part for part in PurePosixPath(name).parts[:-1] if part not in parts] for name in names]
    while places and all(places) and len({place[0] for place in places}) == 1:
        places = [place[1:] for place in places]
    if not all(len(place) == 1 for place in places):
        return []
    found = [ClassName(place[0]) for place in places]
    distinct = set(found)
    thousands = all(c.isdecimal() for c in distinct) and any(int(c) > LARGEST for c in distinct)
    return found if 2 <= len(distinct) <= min(MOST_CLASSES, len(found) // 2) and not thousands else []


def told_classes(classes: Sequence[str]) -> str:
    """A note about folders that were taken for classes."""
    counts = Counter(classes).most_common()
    listed = ", ".join(f"{name} ({num:,} images)" for name, num in counts[:5])
    more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    return (
        f"{len(counts)} folders were taken for classes: {listed}{more}. Each is a column of 0 and 1, as class={counts[0][0]}; a "
        "label table would be taken in their place."
    )
