"""Where image files come from: a folder or a zip, listed by path and read one at a time."""

import hashlib
import zipfile
from pathlib import Path, PurePosixPath

from diffae.data.images import EXTENSIONS


class Folder:
    """All image files in a folder, nested to any depth; hidden files and folders are left out.

    Attributes:
        names: paths relative to the source, sorted, with forward slashes.
        others: number of files whose name is not an image's.
        fingerprint: changes whenever a file is added, removed or changed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        files = [p for p in root.rglob("*") if p.is_file() and not _hidden(p.relative_to(root).as_posix())]
        images = sorted((p.relative_to(root).as_posix(), p.stat()) for p in files if p.suffix.lower() in EXTENSIONS)
        self.names = [name for name, _ in images]
        self.others = len(files) - len(images)
        self.fingerprint = _digest([f"{name} {s.st_size} {s.st_mtime_ns}" for name, s in images])

    def read(self, name: str) -> bytes:
        """The file's bytes; may be called from several threads."""
        return (self.root / name).read_bytes()


class Zip:
    """All image files in a zip archive; the attributes are those of `Folder`."""

    def __init__(self, path: Path) -> None:
        try:
            self.archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is no readable zip archive ({error}). It may be cut short: copy it again.") from None
        infos = [i for i in self.archive.infolist() if not i.is_dir() and not _hidden(i.filename)]
        images = sorted((i for i in infos if PurePosixPath(i.filename).suffix.lower() in EXTENSIONS), key=lambda i: i.filename)
        self.names = [i.filename for i in images]
        self.others = len(infos) - len(images)
        self.fingerprint = _digest([f"{i.filename} {i.file_size} {i.CRC}" for i in images])

    def read(self, name: str) -> bytes:
        """The file's bytes; may be called from several threads."""
        return self.archive.read(name)


Source = Folder | Zip
"""Image files by name."""


def open_source(path: Path) -> Source:
    """The images of a folder or zip.

    Raises:
        FileNotFoundError: there is nothing at that path.
        ValueError: neither folder nor zip, or no image file in it.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}. Give a folder of images, a zip of images, or the name `avatars`.")
    if path.is_file() and path.suffix.lower() != ".zip":
        raise ValueError(f"{path} is neither a folder nor a .zip. Give a folder of images, a zip of images, or the name `avatars`.")
    source = Folder(path) if path.is_dir() else Zip(path)
    if not source.names:
        found = f"{source.others} other files" if source.others else "no files at all"
        raise ValueError(f"There are no images in {path}: it holds {found}. Any format that Pillow reads will do, nested or not.")
    return source


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _digest(lines: list[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
