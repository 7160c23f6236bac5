"""How the columns of a label table are read: as yes and no, as numbers, or as text. Where that is unclear, a note says so.

All that uses labels gets 0, 1 and NaN from here, or numbers and NaN, however the table wrote them.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from diffae.data.labels.classes import FEW, ClassName, classes_of_numbers

KINDS = {"binary": (1, 0, -1), "signed": (1, -1, 0), "continuous": (), "ordinal": (), "classes": ()}
"""How a column can be read -> its values for yes, no and unknown. Empty cells are always unknown."""
MEASURES = ("continuous", "ordinal")
"""Kinds that are numbers: of any scale, or steps with an order."""
UNKNOWN = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>"})
"""What tables write for an unknown value, pandas' and R's words among them, in lower case."""
SENTINELS = (-1, -9, -99, -999, -9999)
"""Numbers that may mean unknown, where they are a column's only number below zero."""
MOSTLY = 0.9
"""Where at least this share of a column is yes or no, other numbers count as mistakes."""

NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)", re.ASCII | re.IGNORECASE)
COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d*),\d+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
TRUTH = {"true": 1.0, "false": 0.0}
NO_NAME = re.compile(r"|Unnamed: \d+(_level_\d+)?|__index_level_\d+__")
"""What the columns of an index are called, which tables are often written with."""
NOT = "not "
"""Before an attribute's name: the class of the images that lack it."""
RESERVED = ("file", "group")
"""Columns that are no attributes."""


def is_unknown(cell: Any) -> bool:
    """Whether a cell says nothing."""
    if isinstance(cell, str):
        return not isinstance(cell, ClassName) and cell.strip().lower() in UNKNOWN
    return cell is None or (isinstance(cell, float) and cell != cell)


def is_number(cell: Any) -> bool:
    """Whether a cell is a number, or says nothing."""
    return _number(cell) is not None


def numbers(name: str, cells: Sequence[Any], where: Callable[[int], str]) -> np.ndarray | None:
    """A column's cells as numbers, NaN where unknown; True and False are 1 and 0. None if they are text.

    Args:
        name: of the column.
        cells: numbers, text, booleans; None or empty where unknown.
        where: cell number i -> its place in the table, for messages.

    Raises:
        ValueError: most cells are numbers but not all, or a number is infinite or has a decimal comma.
    """
    kinds = {cell: _number(cell) for cell in {c for c in cells if isinstance(c, str)}}
    found = [kinds[c] if isinstance(c, str) else _number(c) for c in cells]
    bad = [i for i, value in enumerate(found) if value is None]
    filled = sum(value is None or value == value for value in found)
    commas = [i for i in bad if isinstance(cells[i], str) and COMMA.fullmatch(cells[i].strip())]
    if commas and 2 * (len(bad) - len(commas)) <= filled:
        raise ValueError(
            f"{where(commas[0])}: {name} is {cells[commas[0]]!r}, which may have a decimal comma or one between thousands. Write "
            "a decimal point, and nothing between thousands."
        )
    if 2 * len(bad) > filled:
        return None
    if bad:
        raise ValueError(
            f"{where(bad[0])}: {name} is {str(cells[bad[0]])[:60]!r}; give a number, or leave it empty for unknown "
            f"({len(bad)} of {filled} values are none)."
        )
    values = np.array(found, dtype=np.float64)
    if np.isinf(values).any():
        i = int(np.isinf(values).argmax())
        raise ValueError(f"{where(i)}: {name} is {str(cells[i])[:60]!r}, which is not finite. Correct it, or leave it empty.")
    return values


def parse_kinds(asked: Sequence[str]) -> dict[str, str]:
    """Reads `NAME=KIND`, or `KIND` alone for all columns: name of a column -> kind, with "" for all.

    Raises:
        ValueError: there is no such kind, or one column has two.
    """
    found: dict[str, str] = {}
    for text in asked:
        name, _, kind = text.rpartition("=")
        if kind not in KINDS:
            raise ValueError(f"A kind of labels is NAME=KIND, or KIND alone, where KIND is {', '.join(KINDS)}; got {text!r}.")
        if found.setdefault(name, kind) != kind:
            raise ValueError(f"Labels {name or 'without a name'} were given two kinds, {found[name]} and {kind}: give one.")
    return found


def read_kinds(columns: Mapping[str, np.ndarray], asked: Mapping[str, str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns as labels: 0, 1 and NaN, or numbers and NaN.

    Without being asked, 0 and 1 are read as no and yes, and so are -1 and 1 unless another column has both -1 and 0. A column that
    could be read in several ways is left out, with a note. Whole numbers that are classes become a column of 0 and 1 each.

    Args:
        columns: name -> numbers of all rows.
        asked: name -> kind, from `parse_kinds`.

    Returns:
        The usable columns, and notes about the others.

    Raises:
        ValueError: a kind for a column that is not there, or that does not fit its values.
    """
    absent = [name for name in asked if name and name not in columns]
    if absent:
        existing = ", ".join(columns) or "none"
        raise ValueError(f"There is no column {absent[0]!r} of numbers to take for {asked[absent[0]]}. There are: {existing}.")
    distinct = {name: set(np.unique(y[~np.isnan(y)]).tolist()) for name, y in columns.items()}
    ternary = any({-1, 0} <= values <= {-1, 0, 1} for values in distinct.values())
    found: dict[str, np.ndarray] = {}
    notes: dict[str, list[str]] = {}
    for name, y in columns.items():
        kind, values = asked.get(name), distinct[name]
        few = len(y[~np.isnan(y)]) >= 3 * len(values) and 2 < len(values) <= FEW and all(v % 1 == 0 for v in values)
        if kind == "classes" or (kind is None and few and asked.get("") == "classes"):
            found |= classes_of_numbers(name, y)
            continue
        if kind is not None and not _fits(kind, values):
            raise ValueError(f"{name} cannot be taken for {kind}: {_why_not(kind, values)}.")
        if kind is None and asked.get("") and -1 in values and _fits(asked[""], values):
            kind = asked[""]
        reason = "" if kind else _unclear(name, y, values, ternary=ternary)
        if kind is None and reason and asked.get("") in MEASURES and _fits(asked[""], values):
            kind = asked[""]
        if kind is None and values == {-1, 1} and not reason:
            kind = "signed"
            notes.setdefault("1 and -1 were taken for yes and no in {}.", []).append(name)
        if kind is None and reason:
            notes.setdefault(reason, []).append(name)
            continue
        if kind is None and few and asked.get("") not in MEASURES:
            notes.setdefault(
                "{}: the few whole numbers were taken for a scale. If they are classes, --labels-kind NAME=classes gives each a "
                "column of 0 and 1; if not, --labels-kind NAME=ordinal says so.",
                [],
            ).append(name)
        if kind in MEASURES and values == {0, 1}:
            notes.setdefault("Only 0 and 1 are in {}, so they are yes and no whatever was asked for.", []).append(name)
        found[name], unknown = _as(kind, y)
        if unknown:
            notes.setdefault(f"{KINDS[kind or ''][2]} was taken for unknown in {{}}.", []).append(f"{name} ({unknown} times)")
    return found, [text.replace("{}", _listed(names)) for text, names in notes.items()]


def refuse_doubled(columns: Sequence[str], where: str) -> None:
    """Refuses a table in which two columns have the same name.

    Args:
        columns: their names.
        where: what to call the table in the message.

    Raises:
        ValueError: two have.
    """
    twice = [c for c, count in Counter(columns).items() if count > 1 and not NO_NAME.fullmatch(c)]
    if twice:
        places = [str(i) for i, c in enumerate(columns, start=1) if c == twice[0]]
        raise ValueError(f"{where}: the columns {' and '.join(places)} are both called {twice[0]!r}. Rename or remove all but one.")


def members(labels: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Whether each image is a member of a class: 1, 0, or NaN for unknown. `not NAME` is the absence of NAME.

    Raises:
        ValueError: there is no such label, or it is one of numbers.
    """
    label = name if name in labels else name.removeprefix(NOT)
    if label not in labels:
        raise ValueError(f"There is no label {label!r}. There are: {', '.join(labels) or 'none'}.")
    if not is_binary(y := labels[label]):
        raise ValueError(f"{label!r} is no label of yes and no, so it has no members: {describe_values(y)}.")
    return y if label == name else 1 - y


def is_binary(y: np.ndarray) -> bool:
    """Whether labels say yes, no or unknown, and nothing else."""
    return bool(np.isin(y[~np.isnan(y)], (0, 1)).all())


def describe_values(y: np.ndarray) -> str:
    """Labels in a few words: `0/1, 40 unknown`, or `numbers 3..78`."""
    known = y[~np.isnan(y)]
    if not len(known):
        return f"no value, {len(y)} unknown"
    what = "0/1" if is_binary(y) else f"numbers {known.min():g}..{known.max():g}"
    return f"{what}, {len(y) - len(known):,} unknown" if len(known) < len(y) else what


def _number(cell: Any) -> float | None:
    if is_unknown(cell):
        return float("nan")
    if isinstance(cell, str):
        text = cell.strip()
        return TRUTH.get(text.lower()) if text.lower() in TRUTH else float(text) if NUMBER.fullmatch(text) else None
    if not isinstance(cell, Real | Decimal):
        return None
    try:
        return float(cell)
    except OverflowError:
        return float("inf")


def _fits(kind: str, values: set[float]) -> bool:
    if kind in MEASURES:
        return values != {-1, 1}
    return values <= set(KINDS[kind])


def _why_not(kind: str, values: set[float]) -> str:
    if kind in MEASURES:
        return "its only values are 1 and -1, which are yes and no"
    other = sorted(values - set(KINDS[kind]))
    yes, no, unknown = KINDS[kind]
    return f"that is {yes} for yes, {no} for no, {unknown} or nothing for unknown, and it has {other[0]:g} too"


def _unclear(name: str, y: np.ndarray, values: set[float], *, ternary: bool) -> str:
    """Why a column cannot be read without asking, as a note about columns `{}`; empty if it can."""
    known = y[~np.isnan(y)]
    if values <= {0, 1} or (values == {-1, 1} and not ternary):
        return ""
    if values <= {-1, 0, 1}:
        return (
            "Left out: {}. -1 may be unknown there, or no. Say which: --labels-kind binary "
            "(1 yes, 0 no, -1 unknown) or signed (1 yes, -1 no, 0 unknown), or NAME=binary, NAME=signed or NAME=continuous for "
            "one column."
        )
    plain = np.isin(known, (-1, 0, 1))
    others = sorted(values - {-1, 0, 1})
    if plain.mean() >= MOSTLY and len(values & {-1, 0, 1}) > 1:
        return (
            f"Left out: {{}}. All but {int((~plain).sum())} of its {len(known):,} values are yes or no, and {others[0]:g} is "
            f"neither: correct it, or say --labels-kind {name}=continuous if these are numbers."
        )
    below = [v for v in values if v < 0]
    if len(below) == 1 and below[0] in SENTINELS and len(values) > 2:
        return (
            f"Left out: {{}}. {below[0]:g} is its only value below zero ({int((known == below[0]).sum())} times) and may stand for "
            f"unknown: leave these cells empty, or say --labels-kind {name}=continuous if it is a number."
        )
    if len(values) == 2 and len(known) >= 6 and all(v % 1 == 0 for v in values):
        low, high = sorted(values)
        return (
            f"Left out: {{}}. Its only values are {low:g} and {high:g}: write 0 for no and 1 for yes, or say --labels-kind "
            f"{name}=continuous if these are numbers."
        )
    return ""


def _as(kind: str | None, y: np.ndarray) -> tuple[np.ndarray, int]:
    """A column read as one of `KINDS`, and how many of its values mean unknown."""
    if kind is None or kind in MEASURES:
        return y, 0
    yes, no, unknown = KINDS[kind]
    values = np.select([y == yes, y == no], [1.0, 0.0], np.nan)
    return values, int((y == unknown).sum())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
