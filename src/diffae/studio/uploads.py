"""What visitors upload in numbers: files, and zips of files, one after another."""

import contextlib
import lzma
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffae.data.images.files import ending

MOST_BYTES = 256 * 2**20
"""Of a file in a zip, unpacked."""
BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Ways of packing of which Python unpacks no more than it is asked for; of others a kilobyte can become gigabytes at once."""
MOST_ENDING = 16
"""Characters of a name's ending, by which some formats are known."""

TORN = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, ValueError, RuntimeError, NotImplementedError, OSError, EOFError,
)  # fmt: skip
"""What Python says of zips that are damaged, or of a kind that it does not know; a RuntimeError of those with a password."""


class Uploads:
    """Files that were uploaded, those within zips too, each under the name that the visitor knows it by.

    All are there until the end, also where the page takes old uploads away meanwhile. Zips are unpacked a file at a time. What
    archives of others hold beside files, folders and what macOS adds, is left out.

    Args:
        files: where they lie.
        folder: of the visitor's, in which files are kept and zips unpacked; made if it is not there. Both go with it.

    Attributes:
        unread: sentences about files that are not there, and zips that cannot be opened.
    """

    def __init__(self, files: Sequence[str | Path], folder: Path) -> None:
        self.unread: list[str] = []
        self._stack = contextlib.ExitStack()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix="uploads-")))
        self._found: list[tuple[str, Path | tuple[zipfile.ZipFile, zipfile.ZipInfo]]] = []
        for file in map(Path, files):
            if file.suffix.lower() != ".zip":
                self._take(file)
                continue
            try:
                archive = self._stack.enter_context(zipfile.ZipFile(file))
            except TORN as error:
                self.unread.append(f"{file.name} is no zip that can be opened ({error}).")
                continue
            infos = [i for i in archive.infolist() if not i.is_dir() and not i.filename.startswith("__MACOSX/")]
            self._found += [(info.filename, (archive, info)) for info in infos]

    def __len__(self) -> int:
        return len(self._found)

    def __enter__(self) -> "Uploads":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[tuple[str, Path | str]]:
        """The name of each, and where it lies until the next is asked for; where it cannot be unpacked, a sentence in its place."""
        for i, (name, where) in enumerate(self._found):
            if isinstance(where, Path):
                yield name, where
                continue
            archive, info = where
            target = self._place(i, name)
            try:
                with archive.open(info) as member:
                    content = member.read(MOST_BYTES + 1) if info.compress_type in BOUNDED else None
                if content is not None and len(content) <= MOST_BYTES:
                    target.write_bytes(content)
            except TORN as error:
                said = str(error).replace(str(target), name).rstrip(".")
                yield name, f"{name} cannot be unpacked ({said})."
                continue
            if content is None:
                yield name, f"{name} is packed by bzip2 or LZMA, which may unpack to anything: pack it as usual (deflate)."
                continue
            if len(content) > MOST_BYTES:
                yield name, f"{name} is more than {MOST_BYTES >> 20} MiB unpacked."
                continue
            yield name, target
            target.unlink(missing_ok=True)  # The visitor may have left.

    def _take(self, file: Path) -> None:
        """Keeps a file of the visitor's: a link to it, or a copy on disks that have no links."""
        target = self._place(len(self._found), file.name)
        try:
            with contextlib.suppress(OSError):
                os.link(file, target)
            if not target.exists():
                shutil.copyfile(file, target)
            self._found.append((file.name, target))
        except OSError as error:
            self.unread.append(f"{file.name} is not there any more, or cannot be read ({error.strerror}): upload it again.")

    def _place(self, i: int, name: str) -> Path:
        """Where an upload is kept; under a name of our own, since theirs may be too long, or none."""
        return self._folder / f"upload-{i}{ending(name)[:MOST_ENDING]}"
