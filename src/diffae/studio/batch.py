"""One edit of many images: what the panel of folders does, without a page."""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from diffae.data.images import stem
from diffae.pictures import to_pil
from diffae.runtime.files import first_line, replacing
from diffae.studio.moves import move
from diffae.studio.uploads import Uploads
from diffae.studio.visit import Visit
from diffae.studio.workshop import Workshop

READABLE = (ValueError, TypeError, OSError, ImportError)
"""What files that cannot be read come to; what goes wrong otherwise ends the work."""
SHOWN = 12
"""Edited images that the page shows."""


@dataclass
class Edited:
    """What came of an edit of many images.

    Attributes:
        num: images that were edited.
        unread: a sentence about each file that could not be read.
        notes: sentences about files of which only a part was taken, and the like.
        shown: some of the images before and after, each (c, *sides).
    """

    num: int = 0
    unread: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shown: list[tuple[Tensor, Tensor]] = field(default_factory=list)


def read(shop: Workshop, uploads: Uploads, edited: Edited) -> Iterator[tuple[str, Tensor | None]]:
    """The name of each file, and its image (1, c, *sides) as the model takes it; None where it cannot be read, of which `edited`
    then has a sentence."""
    edited.unread += uploads.unread
    for name, where in uploads:
        if isinstance(where, str):
            edited.unread.append(where)
            yield name, None
            continue

        def named(said: str, last: str = where.name, name: str = name) -> str:
            return said.replace(last, name, 1)

        try:
            x = shop.open_files([where], lambda said: edited.notes.append(named(said)))
        except READABLE as error:
            edited.unread.append(f"{named(first_line(error))}.")
            yield name, None
        else:
            yield name, x


def edit_all(shop: Workshop, visit: Visit, uploads: Uploads, target: Path, tell: Callable[[str, int, int], object]) -> Edited:
    """Applies the visitor's edit to every image, at full quality, and writes a zip of PNGs, each named as its file.

    An image comes out as it would in Edit, pixel by pixel. Beside the images there are `names.csv`, which says of which file each
    is, `what-was-done.json`, which says what was done, and, where files could not be read, `not-read.txt`, which says why.

    Args:
        shop: the model.
        visit: whose last edit it is.
        uploads: the images.
        target: the zip.
        tell: called with what is being done, the number done, and the number in all.

    Raises:
        ValueError: nothing was edited yet, no file was given, or none can be read.
    """
    if visit.z_sem is None:
        raise ValueError("Nothing is edited yet: move a slider in Edit; what you did there is then done to all files.")
    if not uploads and not uploads.unread:
        raise ValueError("There are no files: drop images, zips of images or a folder on the left.")
    edited, taken = Edited(), set[str]()
    asked: dict[str, Any] = {"strengths": {}, "targets": {}, "keep": [], **visit.asked}
    names = csv.writer(listed := io.StringIO(), lineterminator="\n")
    names.writerow(["file", "given"])
    with replacing(target) as part:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            tell("Editing", 0, left := len(uploads))
            for name, x in read(shop, uploads, edited):
                if x is None:
                    left -= 1
                    tell("Editing", edited.num, edited.num + left)
                    continue
                code = shop.ae.infer(x)
                z = move(code.z_sem, shop.ae.attributes, visit.defined, **asked)
                after = shop.ae.clamp(shop.ae.render(code, z_sem=z))
                to_pil(shop.ae.to_pictures(after)[0]).save(png := io.BytesIO(), "PNG")
                archive.writestr(written := _free(name, taken), png.getvalue())
                names.writerow([written, name])
                edited.num, left = edited.num + 1, left - 1
                if len(edited.shown) < SHOWN:
                    edited.shown.append((x[0], after[0]))
                tell("Editing", edited.num, edited.num + left)
            archive.writestr("names.csv", listed.getvalue())
            archive.writestr("what-was-done.json", json.dumps({"model": shop.model, "asked": asked}, indent=1) + "\n")
            if edited.unread:
                archive.writestr("not-read.txt", "\n".join(edited.unread) + "\n")
        if not edited.num:
            raise ValueError(f"None of the files can be read. {' '.join(edited.unread[:3])}")
    return edited


def _free(name: str, taken: set[str]) -> str:
    """The name of a PNG in the zip, another where two files had the same."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    bare = stem(str(PurePosixPath(*parts))) if parts else "image"
    found, i = f"{bare}.png", 1
    while found.lower() in taken:
        i += 1
        found = f"{bare} ({i}).png"
    taken.add(found.lower())
    return found
