"""Labels that lie with the images: a table, COCO's annotations, or folders that are classes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from diffae.data.labels.coco import coco_rows, parse_coco
from diffae.data.labels.readers import csv_rows
from diffae.data.sources.parts import folder_classes, told_classes
from diffae.runtime.files import printable

TABLE = "labels.csv"
"""What the label table is called that lies with images."""


def label_rows_of(
    files: Mapping[str, Callable[[], bytes]],
    names: Sequence[str],
    root: Path,
    notes: list[str],
    places: Sequence[str] | None = None,
) -> list[Mapping[str, Any]]:
    """The labels of images, as a table: of `labels.csv`, else of the one .json file in COCO's format, else of folders.

    Args:
        files: name -> reader of its bytes, of the files that lie at the top of the images.
        names: of the images.
        root: of the images, for messages.
        notes: gets sentences about what was taken for what.
        places: of the images among folders that may be classes, where their names say nothing.

    Raises:
        ValueError: the table, or the annotations, cannot be right.
    """
    tables = [name for name in files if PurePosixPath(name).name == TABLE]
    if tables:
        rows, _, remarks = csv_rows(files[tables[0]](), root / tables[0])
        notes += remarks
        return _placed(rows, names, str(PurePosixPath(tables[0]).parent))
    known = [name for name in files if name.lower().endswith(".json")]
    found = {name: annotations for name in known if (annotations := parse_coco(files[name]())) is not None}
    read = {name: coco_rows(annotations, root / name) for name, annotations in found.items()}
    images = set(names)
    placed = {name: _placed(rows, names, str(PurePosixPath(name).parent)) for name, (rows, _) in read.items()}
    of_these = [name for name, rows in placed.items() if any(row["file"] in images for row in rows)]
    if len(of_these) == 1:
        notes += read[of_these[0]][1]
        notes.append(f"The categories of {root / of_these[0]} are columns of 0 and 1: whether an image shows one.")
        return placed[of_these[0]]
    if found:
        what = "name these images" if of_these else "names any of these images"
        some = f"{len(of_these)} files in COCO's format" if of_these else "No file in COCO's format"
        notes.append(f"{some} {what} ({', '.join(map(printable, found))}), so none was taken: give one with --data.labels.")
    classes = folder_classes(names) or folder_classes(places or [])
    if not classes:
        return []
    notes.append(told_classes(classes))
    return [{"file": name, "class": own} for name, own in zip(names, classes, strict=True)]


def _placed(rows: Sequence[Mapping[str, Any]], names: Sequence[str], folder: str) -> list[Mapping[str, Any]]:
    """Rows whose files are named as the images are: a table in the one top folder of an archive may leave that out."""
    if folder == ".":
        return list(rows)
    images = set(names)

    def place(file: str) -> str:
        inside = f"{folder}/{file.replace(chr(92), '/').removeprefix('./')}"
        return inside if file not in images and inside in images else file

    return [row | {"file": place(str(row["file"]))} for row in map(dict, rows)]
