"""Where images come from: a folder, a zip, an LMDB, tables, shards. Listed by name and read one at a time."""

import os
import re
import stat
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from diffae.data.contents import is_hidden, note_doubled, texts
from diffae.data.images import BOMB_RATIO, EXTENSIONS
from diffae.data.sources.parquet import Table, table_files
from diffae.data.sources.shards import Shards
from diffae.runtime.files import pointer_or, shown


class Folder:
    """All image files in a folder, nested to any depth, links followed; hidden files and folders are left out.

    Attributes:
        names: paths relative to the source, sorted, with forward slashes.
        others: number of files whose name is not an image's.
        holders: the files that hold the images, whose bytes tell this data from other.
        notes: sentences about what was left alone beside.

    Raises:
        OSError: a folder in it that cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[str] = []
        files = [name for name in _walk(root, self.notes) if not is_hidden(name)]
        images = sorted(name for name in files if PurePosixPath(name).suffix.lower() in EXTENSIONS)
        self.names = texts(images, self.notes)
        self.others = len(files) - len(images)
        self.holders = [root / name for name in self.names]

    def read(self, name: str) -> bytes:
        """The file's bytes; may be called from several threads."""
        return (self.root / name).read_bytes()


class Zip:
    """All image files in a zip archive; the attributes are those of `Folder`."""

    def __init__(self, path: Path) -> None:
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, UnicodeDecodeError) as error:
            what = pointer_or(path, f"is no readable zip archive ({error})")
            raise ValueError(f"{path} {what}. It may be cut short: copy it again.") from None
        infos = {i.filename: i for i in self.archive.infolist() if not i.is_dir() and not is_hidden(i.filename)}
        images = sorted(name for name in infos if PurePosixPath(name).suffix.lower() in EXTENSIONS)
        if any(infos[name].flag_bits & 1 for name in images):
            raise ValueError(f"{path} is locked with a password. Unpack it, and give the folder.")
        self.notes: list[str] = []
        note_doubled(path, len(self.archive.infolist()) - len(self.archive.NameToInfo), self.notes)
        self.names = texts(images, self.notes)
        self.others = len(infos) - len(images)
        self.holders = [path]

    def read(self, name: str) -> bytes:
        """The file's bytes; may be called from several threads.

        Raises:
            OSError: the member is damaged, packed in a way that is not known, or a bomb.
        """
        info = self.archive.getinfo(name)
        if info.file_size > MOST_UNPACKED and info.file_size > BOMB_RATIO * info.compress_size:
            raise OSError(f"looks like a decompression bomb: {info.file_size:,} bytes out of {info.compress_size:,}")
        try:
            # As many bytes as it says: of what says less than it holds, no more is unpacked.
            with self.archive.open(info) as member:
                return member.read(info.file_size)
        except Exception as error:  # Of damaged members, whatever the reader and its decompressors stumble over.
            raise OSError(f"is damaged in the archive: {error}") from None


class Lmdb:
    """All images in an LMDB; the attributes are those of `Folder`.

    Two layouts are known. The authors' of diffusion autoencoders has keys such as `256-00012`, by resolution and number, and
    `length`; its images are named by their number, `12.jpg`, as CelebA-HQ's annotations name them, in the largest resolution that
    there is. Any other, such as LSUN's, has an image a key, and images have their keys' names.
    """

    def __init__(self, path: Path) -> None:
        try:
            import lmdb
        except ImportError:
            raise ImportError(f"Reading {path} needs lmdb: pip install 'diffae[data]'.") from None
        try:
            self.environment = lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, max_readers=32
            )
            file = path / "data.mdb" if path.is_dir() else path
            # Before a page is looked at: one beyond the end of a mapped file ends the process.
            length, says = file.stat().st_size, (self.environment.info()["last_pgno"] + 1) * self.environment.stat()["psize"]
            if length < says:
                raise lmdb.CorruptedError(f"{length:,} bytes, where it says that it has {says:,}")
            with self.environment.begin() as transaction:
                keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
        except lmdb.Error as error:
            raise ValueError(f"{path} is no readable LMDB ({error}). It may be cut short: copy it again.") from None
        self.notes: list[str] = []
        numbered = b"length" in keys
        self.keys = _by_number(path, keys, self.notes) if numbered else {k.decode("utf-8", "backslashreplace"): k for k in keys}
        self.names = list(self.keys)
        self.others = 0
        self.holders = [file]

    def read(self, name: str) -> bytes:
        """The image's bytes; may be called from several threads."""
        import lmdb

        try:
            with self.environment.begin() as transaction:
                image = transaction.get(self.keys[name])
        except lmdb.Error as error:
            raise OSError(f"is damaged in the LMDB: {error}") from None
        if image is None:
            raise OSError(f"{name} is no longer there")
        return bytes(image)


def _by_number(path: Path, keys: list[bytes], notes: list[str]) -> dict[str, bytes]:
    """The names of the authors' layout, in the order of their numbers; of keys that are not of it a note."""
    found = {key: re.fullmatch(rb"(\d{1,9})-(\d{1,18})", key) for key in keys if key != b"length"}
    parts = [(int(m[1]), int(m[2]), key) for key, m in found.items() if m]
    if odd := [shown(key.decode("utf-8", "surrogateescape")) for key, m in found.items() if not m]:
        notes.append(f"{path}: {len(odd)} keys are no RESOLUTION-NUMBER and were left alone ({', '.join(odd[:3])}).")
    largest = max((resolution for resolution, _, _ in parts), default=0)
    return {f"{i}.jpg": key for resolution, i, key in sorted(parts) if resolution == largest}


MOST_UNPACKED = 2**28
"""Bytes of a member of an archive beyond which it has to be packed as pictures are."""
KINDS_OF_SPLIT = {"train": 0, "training": 0, "test": 1, "testing": 1, "val": 2, "valid": 2, "validation": 2, "dev": 2}
SPLIT = re.compile(rf"({'|'.join(KINDS_OF_SPLIT)})([-_.]\d.*)?", re.IGNORECASE)
"""How the parts of published splits are called."""

Source = Folder | Zip | Lmdb | Table | Shards
"""Images by name."""

HUB = "hf://datasets/"
"""How the address of a data set on the Hugging Face hub begins."""
KINDS = (
    "a folder of images, a zip or tar of images, a folder of tars (WebDataset), Parquet or Arrow files (Hugging Face `datasets`), "
    f"{HUB}USER/NAME, an LMDB, or the name `avatars`"
)
"""What can be given, in words."""


def from_hub(address: str) -> Path:
    """The folder of a data set on the Hugging Face hub, downloaded unless it is in the hub's cache: its tables and tars.

    Args:
        address: `hf://datasets/USER/NAME`, with a folder in it behind where only that is wanted.

    Raises:
        FileNotFoundError: the hub has no such data set, none that may be read, or does not answer.
        ValueError: no such address.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    user, _, rest = address.removeprefix(HUB).partition("/")
    name, _, folder = rest.strip("/").partition("/")
    if not (user and name):
        raise ValueError(f"{address} names no data set on the hub. Give {HUB}USER/NAME.")
    patterns = [
        f"{folder}/*{kind}" if folder else f"*{kind}" for kind in (".parquet", ".arrow", ".tar", "labels.csv", "state.json")
    ]
    try:
        return Path(snapshot_download(f"{user}/{name}", repo_type="dataset", allow_patterns=patterns)) / folder
    except (HfHubHTTPError, LocalEntryNotFoundError, HTTPError) as error:
        reason = str(error.__cause__ or error).strip().split("\n")[0].rstrip(".")
        raise FileNotFoundError(
            f"The hub gives no data set {user}/{name} ({reason}). Log in with `hf auth login` if it is private, or try again later."
        ) from None


def open_source(path: Path) -> Source:
    """The images at a path, whatever holds them; a folder without image files is looked through for tables, then for tars.

    Raises:
        FileNotFoundError: there is nothing at that path.
        ValueError: nothing that is known, or no image in it.
        ImportError: an LMDB or a table, and the package that reads it is not installed.
    """
    if re.match(r"\w[\w+.-]+:/", path.as_posix()):
        raise FileNotFoundError(f"{path} is an address, which is not opened: download what is there, and give the file or folder.")
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}. Give {KINDS}.")
    source = _open(path)
    if not source.names:
        found = f"{source.others} other files" if source.others else "no files at all"
        raise ValueError(f"There are no images in {path}: it holds {found}. Any format that Pillow reads will do, nested or not.")
    return source


def _open(path: Path) -> Source:
    kind = path.suffix.lower() if path.is_file() else ""
    if kind in (".mdb", ".lmdb") or (path / "data.mdb").is_file():
        return Lmdb(path)
    if kind in (".parquet", ".arrow"):
        return Table([path], path)
    if kind == ".tar":
        return Shards([path], path)
    if kind == ".zip":
        return Zip(path)
    if path.is_file():
        raise ValueError(f"{path} is no source of images that is known. Give {KINDS}.")
    folder = Folder(path)
    if folder.names:
        return folder
    if files := table_files(path):
        return Table(files, path)
    tars = sorted(f for f in path.rglob("*.tar") if f.is_file() and not is_hidden(f.relative_to(path).as_posix()))
    return Shards(tars, path) if tars else folder


def _walk(root: Path, notes: list[str]) -> Iterator[str]:
    """Names of all files below a folder. Links are followed; one that leads back to where it lies is noted, and so is what is
    neither file nor folder: a pipe is read for ever."""
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
                notes.append(f"{shown(name)} is a pipe, a socket or a device, not a file, and was left alone.")
            elif kind != stat.S_IFDIR:
                yield name
            elif (place := Path(entry.path).resolve()) in above:
                notes.append(f"The link {shown(name)} leads back to a folder that it lies in, and was left alone.")
            else:
                pending.append((Path(entry.path), f"{name}/", (*above, place)))


def _kind(entry: os.DirEntry[str]) -> int:
    """Of a file, as `stat` has it; 0 where a link leads nowhere: that is named when it is read."""
    try:
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError:
        return 0


def divided(names: Sequence[str]) -> list[str]:
    """The folders, or files of rows, that names say are parts of a published split; empty unless there are two or more."""
    tops = {part for name in names for part in PurePosixPath(name).parts[:-1]}
    parts = {top: m[1].lower() for top in sorted(tops) if (m := SPLIT.fullmatch(top))}
    return list(parts) if len({KINDS_OF_SPLIT[part] for part in parts.values()}) > 1 else []
