"""Configurations as JSON, strictly: an unknown key or a value of the wrong type is an error that names the dotted path, so that a
misspelled setting can never be silently ignored."""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

C = TypeVar("C")


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[C], values: Any, *, path: str = "") -> C:
    """Builds the configuration `cls` from JSON values, strictly.

    Args:
        cls: a configuration class.
        values: a dictionary as `to_dict` gives it; missing keys take their defaults.
        path: dotted path of `values` in the whole, for messages.

    Raises:
        ValueError: an unknown key, or a value out of range; the message names it by its dotted path.
        TypeError: a value of the wrong type, likewise.
    """
    return typing.cast(C, _convert(cls, values, path))


def differences(a: Any, b: Any, *, path: str = "") -> dict[str, tuple[Any, Any]]:
    """The settings in which two configurations differ: dotted path -> (value in a, value in b)."""
    found: dict[str, tuple[Any, Any]] = {}
    for f in dataclasses.fields(a):
        x, y, name = getattr(a, f.name), getattr(b, f.name), _join(path, f.name)
        if dataclasses.is_dataclass(x):
            found |= differences(x, y, path=name)
        elif x != y:
            found[name] = (x, y)
    return found


def read_json(cls: type[C], file: Path) -> C:
    """Reads a configuration from a JSON file; see `from_dict` for what is refused."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON ({error}). Restore it, or start a new run in another folder.") from None
    try:
        return from_dict(cls, values)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{file}: {error}") from None


MOST_SHOWN = 200
"""Characters of a value that a message shows."""
UNIONS = (types.UnionType, typing.Union)
"""Of classes; of others, such as a Literal and None."""


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _convert(kind: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type `kind`, or an error that names `path`."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise TypeError(f"{path or 'The configuration'} must be an object of settings, got {_shown(value)}.")
        hints = typing.get_type_hints(kind)
        for key in value:
            if key not in hints:
                known = ", ".join(sorted(hints))
                raise ValueError(f"Unknown setting {_join(path, key)!r}. Known here: {known}.")
        lacking = [f.name for f in dataclasses.fields(kind) if f.name not in value and _is_needed(f)]
        if lacking:
            raise ValueError(f"{_join(path, lacking[0])} is missing.")
        settings = {key: _convert(hints[key], v, _join(path, key)) for key, v in value.items()}
        try:
            return kind(**settings)
        except ValueError as error:
            raise ValueError(_join(path, str(error))) from None
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in args:
            raise TypeError(f"{path} must be one of {', '.join(map(repr, args))}, got {_shown(value)}.")
        return value
    if origin in UNIONS:
        for option in args:
            try:
                return _convert(option, value, path)
            except TypeError:
                continue
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) == len(value):
            return tuple(_convert(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{path} is too large a number: {_shown(value)}.") from None
    elif isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise TypeError(f"{path} must be {_describe(kind)}, got {_shown(value)}.")


def _is_needed(field: dataclasses.Field) -> bool:
    return field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _shown(value: Any) -> str:
    """A value as messages have it: not a thousand digits of it."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _describe(kind: Any) -> str:
    if kind is types.NoneType:
        return "null"
    if typing.get_origin(kind) in UNIONS:
        return " or ".join(_describe(k) for k in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
