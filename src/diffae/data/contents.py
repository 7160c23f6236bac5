"""Digests of files, and the cache folder. Files are identified by their bytes, since names, sizes and times can be the same."""

import contextlib
import errno
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from diffae.runtime import seeding
from diffae.runtime.cores import usable_cores
from diffae.runtime.files import cache_folder, digest_file, write_text

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, number done, number in all)."""

SETTLED = 2.0
"""Seconds without a change after which a digest may be remembered. Clocks of file systems are too coarse to show two changes in
quick succession."""
UNREADABLE = "unreadable: "
"""How begins what stands in place of the digest of what cannot be read."""


@contextlib.contextmanager
def caching() -> Iterator[None]:
    """Within it, a failure to write the cache is reported as that.

    Raises:
        OSError: the cache cannot be written; the message says where it is and how to choose another.
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
    """A digest of each file's bytes, or the reason why it cannot be read: `UNREADABLE`, and what the system says.

    Digests, no reasons, are remembered in the cache by the file's inode, size, mtime and ctime. Only the system sets ctime, so a
    file that was changed and given its old mtime is read again. So is a file that changed a moment ago.
    """
    memory = cache_folder() / "contents" / f"{seeding.mix('contents', *map(str, files[:1])):016x}.json"
    known = _remembered(memory)
    keys = [_key(file) for file in files]
    found = [known.get(key, "") for key in keys]
    unread, now = [i for i, digest in enumerate(found) if not digest], time.time()
    with ThreadPoolExecutor(len(usable_cores())) as pool:
        for done, (i, digest) in enumerate(zip(unread, pool.map(lambda i: _digest(files[i]), unread), strict=True), start=1):
            found[i] = digest
            progress("Looking at files", done, len(unread))
    dated = {key: digest for key, digest in zip(keys, found, strict=True) if key and not digest.startswith(UNREADABLE)}
    settled = {key: digest for key, digest in dated.items() if float(key.rsplit(" ", 1)[1]) / 1e9 < now - SETTLED}
    if settled != known:
        with caching():
            write_text(memory, json.dumps(settled))
    return found


def check_own(error: OSError, name: str) -> None:
    """Lets a fault of an image itself pass, by which it is skipped, and raises one of the machine, which may soon be gone.

    Args:
        error: of reading an image that could be read when its digest was taken.
        name: of the image.

    Raises:
        OSError: the error is the system's; those of sources have no number.
    """
    if error.errno is not None:
        raise OSError(
            error.errno,
            f"{name} could be read when the images were looked at, and now cannot ({error.strerror or error}). Run again: what was "
            "prepared until then is kept. If it stays so, move it away.",
        ) from None


def _remembered(memory: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(memory.read_text(encoding="utf-8"))
        return known if isinstance(known, dict) else {}
    return {}


def _key(file: Path) -> str:
    """Identifies a state of a file by what the system knows of it; empty where the system refuses."""
    with contextlib.suppress(OSError):
        s = file.stat()
        return f"{s.st_dev} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"
    return ""


def _digest(file: Path) -> str:
    try:
        return digest_file(file)
    except OSError as error:
        return f"{UNREADABLE}{error.strerror}"
