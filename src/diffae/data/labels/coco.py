"""Annotations in COCO's format: which kinds of things an image shows."""

import json
from collections import ChainMap, Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffae.data.labels.classes import MOST_CLASSES
from diffae.data.labels.columns import RESERVED, refuse_doubled


def parse_coco(content: bytes) -> dict[str, Any] | None:
    """The annotations in a JSON file, or None where it is in another format, or no JSON."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    lists = ("images", "annotations", "categories")
    return found if isinstance(found, dict) and all(isinstance(found.get(key), list) for key in lists) else None


def coco_rows(found: Mapping[str, Any], path: Path) -> tuple[list[Mapping[str, Any]], list[str]]:
    """A label table: for each image its `file_name`, and for each category 1 where something of it was marked there, else 0.

    Args:
        found: from `parse_coco`.
        path: where it comes from, for messages.

    Returns:
        A row for each image, and notes. Beyond `MOST_CLASSES` categories, those in fewest images are left out, with a note.

    Raises:
        ValueError: an entry lacks what the format wants, two categories have one name, or two categories or images one id.
    """
    named = [_get(entry, "name", str, path, f"category {i}") for i, entry in _listed(found, "categories")]
    names = dict(zip(_ids(found, "categories", "category", path), named, strict=True))
    refuse_doubled([*RESERVED, *names.values()], f"{path}, {' and '.join(RESERVED)} before its categories")
    shown: dict[int, set[int]] = {image: set() for image in _ids(found, "images", "image", path)}
    stray = 0
    for i, entry in _listed(found, "annotations"):
        image, category = (_get(entry, key, int, path, f"annotation {i}") for key in ("image_id", "category_id"))
        if category not in names:
            raise ValueError(f"{path}, annotation {i}: there is no category with the id {category}. Correct it, or take it out.")
        if image in shown:
            shown[image].add(category)
        else:
            stray += 1
    notes = [f"{path}: {stray:,} annotations are of images that it does not list."] if stray else []
    counts = Counter(category for categories in shown.values() for category in categories)
    kept = sorted(sorted(names, key=lambda category: -counts[category])[:MOST_CLASSES], key=list(names).index)
    if len(kept) < len(names):
        notes.append(
            f"{path}: of {len(names):,} categories the {MOST_CLASSES} that most images show became attributes, and the others were "
            "left out."
        )
    none = {names[category]: 0 for category in kept}
    rows: list[Mapping[str, Any]] = []
    for i, entry in _listed(found, "images"):
        own: dict[str, Any] = {names[category]: 1 for category in shown[entry["id"]] if names[category] in none}
        rows.append(ChainMap({"file": _get(entry, "file_name", str, path, f"image {i}"), **own}, none))
    return rows, notes


def _listed(found: Mapping[str, Any], key: str) -> list[tuple[int, Any]]:
    return list(enumerate(found[key], start=1))


def _ids(found: Mapping[str, Any], key: str, what: str, path: Path) -> list[int]:
    """The ids of a list's entries, each of which has one of its own."""
    ids: dict[int, int] = {}
    for i, entry in _listed(found, key):
        own = _get(entry, "id", int, path, f"{what} {i}")
        if (first := ids.setdefault(own, i)) != i:
            raise ValueError(
                f"{path}: {what} {first} and {what} {i} have the same id, {own}. Give each its own, and write the file again."
            )
    return list(ids)


def _get(entry: Any, key: str, kind: type, path: Path, what: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"{path}, {what}: it has no {key!r} as COCO's format wants it, {kind.__name__}. Write the file again.")
    return value
