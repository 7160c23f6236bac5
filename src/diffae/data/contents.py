"""What files hold, told apart by their bytes: names, sizes and times can be alike where contents are not."""

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from diffae.runtime import seeding
from diffae.runtime.files import digest_file, shown, write_text

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, number done, number in all)."""

SETTLED = 2.0
"""Seconds after which a file is no longer changing: clocks of file systems are too coarse to tell a second change at once."""


def cache_folder() -> Path:
    """Where rendered and resized images are kept: DIFFAE_CACHE, or `diffae` in the user's cache directory."""
    if "DIFFAE_CACHE" in os.environ:
        return Path(os.environ["DIFFAE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffae"


@contextlib.contextmanager
def caching() -> Iterator[None]:
    """Within it, a cache that cannot be written is called that.

    Raises:
        OSError: it cannot; the message says where it is and how to have another.
    """
    try:
        yield
    except OSError as error:
        folder, place = cache_folder(), str(error.filename or "")
        known = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
        if not (place.startswith(str(folder)) or (known and folder.as_posix().startswith(place) and place)):
            raise
        reason = (error.strerror or str(error)).rstrip(".")
        raise OSError(
            error.errno, f"The cache of images, {folder}, cannot be written ({reason}). Name another folder in DIFFAE_CACHE."
        ) from None


def digests(files: Sequence[Path], progress: Progress) -> list[str]:
    """Of each file a digest of its bytes, or why they cannot be read.

    What a file was when it was last read is remembered in the cache, by its place on the disk, its size and the two times that the
    system keeps. One of these (ctime) is set by the system alone, so a file that was changed and given back its old time is read
    again; and so is one that has just been changed.
    """
    memory = cache_folder() / "contents" / f"{seeding.mix('contents', *map(str, files[:1])):016x}.json"
    known = _remembered(memory)
    keys = [_key(file) for file in files]
    found = [known.get(key, "") for key in keys]
    unread, now = [i for i, digest in enumerate(found) if not digest], time.time()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (i, digest) in enumerate(zip(unread, pool.map(lambda i: _digest(files[i]), unread), strict=True), start=1):
            found[i] = digest
            progress("Looking at files", done, len(unread))
    dated = {key: digest for key, digest in zip(keys, found, strict=True) if key}
    settled = {key: digest for key, digest in dated.items() if float(key.rsplit(" ", 1)[1]) / 1e9 < now - SETTLED}
    if settled != known:
        with caching():
            write_text(memory, json.dumps(settled))
    return found


def _remembered(memory: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(memory.read_text(encoding="utf-8"))
        return known if isinstance(known, dict) else {}
    return {}


def _key(file: Path) -> str:
    """What tells a file from all others and from its own past; nothing where it cannot be looked at."""
    with contextlib.suppress(OSError):
        s = file.stat()
        return f"{s.st_dev} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"
    return ""


def _digest(file: Path) -> str:
    try:
        return digest_file(file)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def is_hidden(name: str) -> bool:
    """Whether a part of a path hides it; `.` and `..` do not."""
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in PurePosixPath(name).parts)


def note_doubled(archive: Path, num: int, notes: list[str]) -> None:
    """A note of so many files of an archive, or none, that others of the same name take the place of."""
    if num:
        notes.append(f"{archive} holds {num} files under names that others have too: of each name the last was taken.")


def texts(names: Sequence[str], notes: list[str]) -> list[str]:
    """The names that are text; of the others a note."""
    odd = [name for name in names if not _is_text(name)]
    if odd:
        notes.append(f"{len(odd)} images were left alone: their names are no UTF-8 ({shown(odd[0])}, ...). Rename them.")
    return [name for name in names if _is_text(name)]


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
