"""Where images come from: a folder, a zip, an LMDB, tables, shards. Listed by name and read one at a time."""

import zipfile
from pathlib import Path, PurePosixPath

from diffae.data.images import EXTENSIONS
from diffae.data.shards import Shards
from diffae.data.tables import Table, table_files
from diffae.files import digest_lines


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
        self.fingerprint = digest_lines([f"{name} {s.st_size} {s.st_mtime_ns}" for name, s in images])

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
        self.fingerprint = digest_lines([f"{i.filename} {i.file_size} {i.CRC}" for i in images])

    def read(self, name: str) -> bytes:
        """The file's bytes; may be called from several threads."""
        return self.archive.read(name)


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
            with self.environment.begin() as transaction:
                keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
        except lmdb.Error as error:
            raise ValueError(f"{path} is no readable LMDB ({error}). It may be cut short: copy it again.") from None
        self.keys = _by_number(keys) if b"length" in keys else {key.decode("utf-8", "backslashreplace"): key for key in keys}
        self.names = list(self.keys)
        self.others = 0
        file = path / "data.mdb" if path.is_dir() else path
        self.fingerprint = digest_lines([*self.names, f"{file.stat().st_size} {file.stat().st_mtime_ns}"])

    def read(self, name: str) -> bytes:
        """The image's bytes; may be called from several threads."""
        with self.environment.begin() as transaction:
            image = transaction.get(self.keys[name])
        if image is None:
            raise OSError(f"{name} is no longer there")
        return bytes(image)


def _by_number(keys: list[bytes]) -> dict[str, bytes]:
    """The names of the authors' layout, in the order of their numbers."""
    parts = [key.decode().partition("-") for key in keys if key != b"length"]
    largest = max((int(resolution) for resolution, _, _ in parts), default=0)
    numbers = sorted(((int(number), number) for resolution, _, number in parts if int(resolution) == largest))
    return {f"{i}.jpg": f"{largest}-{number}".encode() for i, number in numbers}


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
    if not folder.names and (files := table_files(path)):
        return Table(files, path)
    if not folder.names and (tars := sorted(f for f in path.rglob("*.tar") if not _hidden(f.relative_to(path).as_posix()))):
        return Shards(tars, path)
    return folder


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
