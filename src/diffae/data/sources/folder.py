"""Images in a folder."""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from diffae.data.images import ending
from diffae.data.sources.label_files import label_rows_of
from diffae.data.sources.names import is_hidden, is_image, is_nameless, texts
from diffae.runtime.files import printable


class Folder:
    """All image files in a folder, nested to any depth, links followed; hidden files and folders are left out.

    Labels are those of `label_rows_of`: of a .json file in COCO's format in the folder, else of subfolders, one for each class.

    Attributes:
        names: paths relative to the source, sorted, with forward slashes.
        rest: names of the files whose name is not an image's, hidden ones aside.
        others: number of those.
        holders: the files that hold the images; their bytes identify the data.
        notes: sentences about what was left out.

    Raises:
        OSError: a folder in it that cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[str] = []
        files = [name for name in _walk(root, self.notes) if not is_hidden(name)]
        images = sorted(name for name in files if is_image(name) or is_nameless(name, self._head))
        self.names = texts(images, self.notes)
        self.rest = sorted({*files} - {*images})
        self.others = len(self.rest)
        self.holders = [root / name for name in self.names]
        self._rows: list[Mapping[str, Any]] | None = None

    def is_dicom(self, name: str) -> bool:
        """Whether a file is DICOM, by its ending or its first bytes."""
        return ending(name) in (".dcm", ".dicom") or is_nameless(name, self._head)

    def _head(self, name: str) -> bytes:
        """The first bytes of a file; none where it cannot be read."""
        with contextlib.suppress(OSError), (self.root / name).open("rb") as opened:
            return opened.read(132)
        return b""

    def read(self, name: str) -> bytes:
        """The file's bytes; may be called from several threads."""
        return (self.root / name).read_bytes()

    def label_rows(self) -> list[Mapping[str, Any]]:
        """A label table, as `labels.align` takes it. What it was taken from is said in `notes`."""
        if self._rows is None:
            self._rows = label_rows_of(self.tops(), self.names, self.root, self.notes)
        return self._rows

    def tops(self) -> dict[str, Callable[[], bytes]]:
        """Readers of the .json files at its top, which may be annotations."""
        tops = [name for name in self.rest if "/" not in name and name.lower().endswith(".json")]
        return {name: (self.root / name).read_bytes for name in tops}


def _walk(root: Path, notes: list[str]) -> Iterator[str]:
    """Names of all files below a folder. Links are followed.

    Left out with a note: links to a folder that they lie in, and pipes, sockets and devices, whose reading might never end.
    """
    pending: list[tuple[Path, str, tuple[Path, ...]]] = [(root, "", (root.resolve(),))]
    while pending:
        folder, prefix, above = pending.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            what = f"The folder {folder} cannot be read ({error.strerror}). Make it readable, or move it."
            raise OSError(error.errno, what) from None
        for entry in entries:
            name = f"{prefix}{entry.name}"
            kind = _kind(entry)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                notes.append(f"{printable(name)} is a pipe, a socket or a device, not a file, and was left alone.")
            elif kind != stat.S_IFDIR:
                yield name
            elif (place := Path(entry.path).resolve()) in above:
                notes.append(f"The link {printable(name)} leads back to a folder that it lies in, and was left alone.")
            else:
                pending.append((Path(entry.path), f"{name}/", (*above, place)))


def _kind(entry: os.DirEntry[str]) -> int:
    """The type of a file, as `stat` has it. 0 for a link that leads nowhere: reading it says so later."""
    try:
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError:
        return 0
