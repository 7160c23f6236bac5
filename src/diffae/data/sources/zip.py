"""Images in a zip archive."""

import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from diffae.data.images import BOMB_RATIO, MOST_UNPACKED
from diffae.data.sources.label_files import TABLE, label_rows_of
from diffae.data.sources.names import is_hidden, is_image, is_nameless, note_doubled, texts
from diffae.runtime.files import is_the_systems, pointer_or


class Zip:
    """All image files in a zip archive; the attributes are those of `Folder`.

    Labels are those of `label_rows_of`: of `labels.csv` at the archive's top, or in the one folder that holds everything, else of a
    .json file in COCO's format there, else of folders, one for each class.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, UnicodeDecodeError) as error:
            what = pointer_or(path, f"is no readable zip archive ({error})")
            raise ValueError(f"{path} {what}. It may be cut short: copy it again.") from None
        infos = {i.filename: i for i in self.archive.infolist() if not i.is_dir() and not is_hidden(i.filename)}
        images = sorted(name for name in infos if is_image(name) or is_nameless(name, self._head))
        if any(infos[name].flag_bits & 1 for name in images):
            raise ValueError(f"{path} is locked with a password. Unpack it, and give the folder.")
        self.notes: list[str] = []
        note_doubled(path, len(self.archive.infolist()) - len(self.archive.NameToInfo), self.notes)
        self.names = texts(images, self.notes)
        self._tops = [name for name in _at_top(list(infos)) if PurePosixPath(name).suffix.lower() in (".csv", ".json")]
        self._rows: list[Mapping[str, Any]] | None = None
        self.others = len(infos) - len(images) - sum(PurePosixPath(name).name == TABLE for name in self._tops)
        self.holders = [path]

    def _head(self, name: str) -> bytes:
        """The first bytes of a member; none where it cannot be read."""
        try:
            with self.archive.open(name) as member:
                return member.read(132)
        except Exception:  # Of no name that is known, so it is left alone.
            return b""

    def read(self, name: str) -> bytes:
        """The file's bytes; may be called from several threads.

        Raises:
            OSError: the member is damaged, packed in a way that is not known, or a bomb; or the system cannot read it.
        """
        return self._content(name)

    def label_rows(self) -> list[Mapping[str, Any]]:
        """A label table, as `labels.align` takes it. What it was taken from is said in `notes`.

        Raises:
            ValueError: the table is damaged, or cannot be right.
        """
        if self._rows is None:
            files = {name: partial(self._table, name) for name in sorted(self._tops)}
            self._rows = label_rows_of(files, self.names, self.holders[0], self.notes)
        return self._rows

    def _table(self, name: str) -> bytes:
        try:
            return self._content(name)
        except OSError as error:
            if is_the_systems(error):
                raise
            raise ValueError(f"{self.holders[0]}: {name} {error}. Write the archive again.") from None

    def _content(self, name: str) -> bytes:
        info = self.archive.getinfo(name)
        if info.file_size > MOST_UNPACKED and info.file_size > BOMB_RATIO * info.compress_size:
            raise OSError(f"looks like a decompression bomb: {info.file_size:,} bytes out of {info.compress_size:,}")
        try:
            # No more than it says, so that a member that lies about its size fills no memory.
            with self.archive.open(info) as member:
                return member.read(info.file_size)
        except Exception as error:  # Readers and decompressors raise anything on damaged members.
            if is_the_systems(error):
                raise
            raise OSError(f"is damaged in the archive: {error}") from None


def _at_top(names: Sequence[str]) -> list[str]:
    """The files at the top of an archive; where all lie in one folder, those in that."""
    tops = {parts[0] for name in names if (parts := PurePosixPath(name).parts)}
    depth = 2 if len(tops) == 1 else 1
    return [name for name in names if len(PurePosixPath(name).parts) == depth]
