"""Images in a zip archive."""

import zipfile
from pathlib import Path

from diffae.data.images import BOMB_RATIO, MOST_UNPACKED
from diffae.data.sources.names import is_hidden, is_image, is_nameless, note_doubled, texts
from diffae.runtime.files import pointer_or


class Zip:
    """All image files in a zip archive; the attributes are those of `Folder`."""

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
        self.others = len(infos) - len(images)
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
            OSError: the member is damaged, packed in a way that is not known, or a bomb.
        """
        info = self.archive.getinfo(name)
        if info.file_size > MOST_UNPACKED and info.file_size > BOMB_RATIO * info.compress_size:
            raise OSError(f"looks like a decompression bomb: {info.file_size:,} bytes out of {info.compress_size:,}")
        try:
            # No more than it says, so that a member that lies about its size fills no memory.
            with self.archive.open(info) as member:
                return member.read(info.file_size)
        except Exception as error:  # Readers and decompressors raise anything on damaged members.
            raise OSError(f"is damaged in the archive: {error}") from None
