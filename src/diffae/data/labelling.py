"""Which labels images have, and which of them belong together: as a table says, or as they say themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from diffae.config import DataConfig
from diffae.data.avatars import SCALES, SETS
from diffae.data.labels import Labels, align, load_labels
from diffae.data.labels.readers import Rows, read_rows
from diffae.data.sources import Labelled, Source


class LabelTable(NamedTuple):
    """A table of labels, and what its columns are taken for: see `load_labels`."""

    path: Path
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Labelling:
    """Where images have their labels from.

    Attributes:
        source: the images.
        root: where they lie.
        beside: where a table lies that is taken unless `config.labels` names another; None where there can be none.
        names: of the images that can be used.
        config: which table, and what its columns are taken for.
    """

    source: Source
    root: Path
    beside: Path | None
    names: list[str]
    config: DataConfig

    def labels(self) -> tuple[Labels | None, list[str]]:
        """The labels of the table `config.labels`, of the one beside the images, or else the source's own; and notes.

        A table without a column `group` leaves images together as they say themselves.

        Raises:
            FileNotFoundError, ValueError: as of `load_labels`.
        """
        table, kinds = self._table(), self.config.labels_kind
        if table is not None:
            scales = SCALES if self.config.source in SETS and not self.config.labels else ()
            found = load_labels(table, self.names, kinds or scales)
            if found.groups is not None:
                return found, found.notes
            groups, notes = self._brought()
            return replace(found, groups=groups), [*found.notes, *(f"{table} has no column 'group'. {note}" for note in notes)]
        rows, notes = self._rows()
        if not rows or len(rows[0]) < 2:
            if kinds:
                raise ValueError(f"A kind of labels was given ({' '.join(kinds)}), but {self.root} has none: name their table.")
            return None, notes
        found = align(rows, self.names, self.root, kinds=kinds)
        return found, [*notes, *found.notes]

    def groups(self) -> list[str] | None:
        """The groups of `labels`, of whose other columns nothing is read.

        Raises:
            FileNotFoundError, ValueError: as of `load_labels`.
        """
        table = self._table()
        if table is not None and (found := self._grouped(read_rows(table), table)) is not None:
            return found
        return self._brought()[0]

    def _table(self) -> Path | None:
        """The table that is read, if any."""
        if self.config.labels:
            return Path(self.config.labels)
        return self.beside if self.beside is not None and self.beside.is_file() else None

    def _brought(self) -> tuple[list[str] | None, list[str]]:
        """The groups that images have beside those of the table that is read, and a note where there are such."""
        table = self.beside if self.config.labels and self.beside is not None and self.beside.is_file() else None
        try:
            found = None if table is None else self._grouped(read_rows(table), table)
            where = self.root if found is None else table
            found = self._grouped((self._rows()[0], [], []), self.root) if found is None else found
        except ValueError as error:
            return None, [f"Nor can groups be taken from what lies with the images: {error}"]
        if found is None:
            return None, []
        return found, [f"Images stay together by that of {where}, in {len(set(found)):,} groups."]

    def _grouped(self, table: Rows, path: Path) -> list[str] | None:
        """The groups in the rows of a table, in the order of the images; None where it has none."""
        rows, lines, _ = table
        if not rows or "group" not in rows[0]:
            return None
        return align([{key: row[key] for key in ("file", "group")} for row in rows], self.names, path, lines=lines).groups

    def _rows(self) -> tuple[list[Mapping[str, Any]], list[str]]:
        """What the source itself knows of the images that can be used, and what it says of that."""
        if not isinstance(self.source, Labelled):
            return [], []
        known, skipped = len(self.source.notes), {*self.source.names} - {*self.names}
        rows = [row for row in self.source.label_rows() if row["file"] not in skipped]
        return rows, list(self.source.notes)[known:]
