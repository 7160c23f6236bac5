"""The columns of a table: which one holds the images, and which are labels."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffae.data.labels.classes import MOST_CLASSES
from diffae.data.sources.nested import is_nested
from diffae.runtime.files import first_line

if TYPE_CHECKING:
    import pyarrow as pa


def read_features(schema: "pa.Schema", path: Path, notes: list[str]) -> dict[str, Any]:
    """What `datasets` wrote about the columns: name -> feature. Where that cannot be read, a note is added and nothing returned."""
    noted = (schema.metadata or {}).get(b"huggingface")
    if not noted:
        return {}
    try:
        features = dict(json.loads(noted)["info"]["features"])
        for feature in features.values():
            if not all(isinstance(name, str) for name in _classes(feature)):
                raise TypeError("names of classes that are no text")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        notes.append(
            f"What `datasets` noted in {path} of its columns cannot be read ({type(error).__name__}: {first_line(error)}) and was "
            "left out, so classes are numbers there."
        )
        return {}
    return features


def image_column(schema: "pa.Schema", features: dict[str, Any], path: Path) -> str:
    """The name of the column that holds the images.

    Raises:
        ValueError: there is none, or several could be it and none is called `image`.
    """
    noted = [c for c in schema.names if isinstance(features.get(c), dict) and features[c].get("_type") == "Image"]
    found = noted or list(_candidates(schema))
    named = [c for c in found if c.lower() in ("image", "img", "images")]
    if len(found) != 1 and len(named) != 1:
        what = f"several columns that could hold the images: {', '.join(found)}" if found else "no column of images"
        raise ValueError(
            f"{path} has {what} (its columns: {', '.join(schema.names)}). Name the one to take `image`: encoded files, or decoded "
            "arrays."
        )
    return found[0] if len(found) == 1 else named[0]


def label_columns(schema: "pa.Schema", features: Sequence[dict[str, Any]], files: Sequence[Path]) -> dict[str, list[list[str]]]:
    """The columns of labels -> the names of their classes in each of the files, whose features these are; empty for numbers and
    text. Class labels of too many classes are left out: their numbers are no measurement. A `group`, which becomes no attributes,
    may have any number of them.

    Raises:
        ValueError: some files name the classes of a column, and others do not.
    """
    found = {c: [_classes(own.get(c)) for own in features] for c in schema.names if _is_label(schema.field(c), c)}
    for column, each in found.items():
        if any(each) and not all(each):
            named, plain = (
                next(f for f, names in zip(files, each, strict=True) if bool(names) == asked) for asked in (True, False)
            )
            raise ValueError(
                f"{named} names the classes of {column}, and {plain} has plain numbers there, which may mean others. Save both "
                "with their names, or without."
            )
    return {c: each for c, each in found.items() if c == "group" or len(union(each)) <= MOST_CLASSES}


def union(each: Iterable[Iterable[str]]) -> list[str]:
    """The names of classes of all files, in the order in which they appear first."""
    return list(dict.fromkeys(name for names in each for name in names))


def is_text(kind: "pa.DataType") -> bool:
    """Whether values are text, also where each different one is stored once."""
    import pyarrow.types as kinds

    kind = kind.value_type if kinds.is_dictionary(kind) else kind
    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)


def _is_label(field: "pa.Field", name: str) -> bool:
    import pyarrow.types as kinds

    kind = field.type.value_type if kinds.is_dictionary(field.type) else field.type
    number = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind) or kinds.is_decimal(kind)
    return name != "file" and (number or is_text(field.type))


def _classes(feature: Any) -> list[str]:
    """The names of a class label's classes, or none."""
    return (feature.get("names") or []) if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else []


def _candidates(schema: "pa.Schema") -> Iterator[str]:
    """Columns whose type could be that of images."""
    import pyarrow.types as kinds

    for field in schema:
        encoded = kinds.is_struct(field.type) and {"bytes", "path"} <= {f.name for f in field.type}
        if encoded or kinds.is_binary(field.type) or kinds.is_large_binary(field.type) or is_nested(field.type):
            yield field.name
