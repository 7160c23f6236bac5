"""Ranges of settings, as annotations: a value outside of its range is an error wherever it comes from."""

import typing
from collections.abc import Callable, Iterable
from typing import Annotated, NamedTuple


class Range(NamedTuple):
    """Smallest and largest value that a setting may have."""

    least: float
    most: float = float("inf")


Count = Annotated[int, Range(1)]
Counts = Annotated[tuple[int, ...], Range(1)]
Share = Annotated[float, Range(0, 1)]
Seed = Annotated[int, Range(-(2**63), 2**63 - 1)]
Amount = Annotated[float, Range(0)]


def check_ranges(settings: object, named: Callable[[str], str] = str) -> None:
    """Refuses values outside of the range that their annotation names, not a number among them.

    Args:
        settings: an object of a dataclass.
        named: what a field is called in the message.

    Raises:
        ValueError: such a value.
    """
    for name, kind in typing.get_type_hints(type(settings), include_extras=True).items():
        value = getattr(settings, name)
        values = value if isinstance(value, tuple) else [value] if isinstance(value, int | float) else []
        for allowed in (m for m in getattr(kind, "__metadata__", ()) if isinstance(m, Range)):
            if value == () or not all(allowed.least <= v <= allowed.most for v in values):
                most = f" and at most {allowed.most:g}" if allowed.most < float("inf") else ""
                raise ValueError(f"{named(name)} must be at least {allowed.least:g}{most}, got {value!r}.")


class InRange:
    """Refuses values outside of the range that their annotation names."""

    __slots__ = ()

    def __post_init__(self) -> None:
        check_ranges(self)


def spelled(sides: Iterable[int]) -> str:
    """Sides of images or volumes for people: `64 x 64`."""
    return " x ".join(map(str, sides))
