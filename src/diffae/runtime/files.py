"""Files that are either whole or not there: written beside their place, then moved into it."""

import contextlib
import errno
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LOCK = ".lock"
"""The file that tells who writes to a folder."""


ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS, errno.ESTALE)
"""What the system says of a write: there is no room, or it cannot be made."""


def is_the_systems(error: BaseException) -> bool:
    """Whether the machine failed, as disks and networks do, and not what was read: only the system numbers its errors. Places that
    cannot be in a file, to which a damaged one leads, are invalid arguments."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def cache_folder() -> Path:
    """The folder of what is made once and used again: DIFFAE_CACHE, or `diffae` in the user's cache directory."""
    if os.environ.get("DIFFAE_CACHE"):
        return Path(os.environ["DIFFAE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffae"


class Unwritten(OSError):
    """What was to be written could not be."""


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write to, beside `target`; when the block ends well, it takes the place of `target` in one step.

    When it does not, `target` is as it was, and what had been written is removed. What a process that died had written is
    overwritten by the next that writes the same target.

    Raises:
        Unwritten: the disk is full, or another failure of the file system; the message names the target.
    """
    with naming_unwritten(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, folder = _begin(target)
        part = folder / f"{target.name}.part"
        try:
            part.touch()
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            # The file is as readable as any other new file, also where it was made privately.
            umask = os.umask(0)
            os.umask(umask)
            part.chmod(0o666 & ~umask)
            part.replace(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if handle is not None:
                os.close(handle)


def _begin(target: Path) -> tuple[int | None, Path]:
    """An empty hidden folder beside the target, locked. In it there is room for what a writer puts beside its file, as safetensors
    does. It has always the same name, so that a dead process's is taken over; where a living one writes the same target, or nothing
    can be locked, it has a name of its own."""
    folder = target.with_name(f".{target.name}.part")
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        folder.mkdir(exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have done with it, and removed it, since it was opened.
            if os.path.samestat(os.fstat(handle), os.stat(folder)):
                for left in folder.iterdir():
                    left.unlink()
                return handle, folder
        os.close(handle)
    return None, Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))


@contextlib.contextmanager
def naming_unwritten(target: Path) -> Iterator[None]:
    """Within it, a failure to write says what could not be written.

    Raises:
        Unwritten: there is no room, or another failure of the file system; the message names the target.
    """
    try:
        yield
    except Unwritten:
        raise
    except Exception as error:
        # safetensors and pyarrow report these as errors of their own, with the system's words in them.
        code = error.errno if isinstance(error, OSError) else None
        code = code or next((code for code in (*ROOM, *REFUSED) if os.strerror(code) in str(error)), None)
        if code in ROOM:
            raise Unwritten(
                errno.ENOSPC, f"No room to write {target}: {error}. What was there before is kept; free some space and run again."
            ) from None
        if code in REFUSED and not getattr(error, "filename", None):
            raise Unwritten(code, f"{target} cannot be written: {error}. What was there before is kept.") from None
        raise


@contextlib.contextmanager
def filling(folder: Path, *, order: Callable[[Path], Any]) -> Iterator[Path]:
    """A folder to write to, beside `folder`; when the block ends well, its files move to their places there, and others stay.

    When it does not, `folder` is as it was, and what had been written is removed.

    Args:
        folder: made if it is not there.
        order: the key by which files are moved, one after the other.

    Raises:
        Unwritten: as of `replacing`.
    """
    with naming_unwritten(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part") as part:
            yield Path(part)
            for file in sorted((file for file in Path(part).rglob("*") if file.is_file()), key=order):
                target = folder / file.relative_to(part)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)


def check_target(target: Path, endings: Sequence[str]) -> None:
    """Refuses a place that cannot be written, before anything is computed for it.

    Args:
        target: where something is to be written.
        endings: that a file may have; none where it is a folder. An empty one among them makes a name without ending a folder's.

    Raises:
        ValueError: another ending.
        OSError: a folder in place of a file, a file in place of a folder, or no permission to write there.
    """
    ending = target.suffix.lower()
    if endings and ending not in endings:
        known = ", ".join(repr(e) if e else "none (a folder)" for e in endings)
        raise ValueError(f"{target} is no name for what is written: its ending may be {known}.")
    folder = not endings or not ending
    if target.exists() and target.is_dir() != folder:
        is_, should = ("a folder", "a file") if target.is_dir() else ("a file", "a folder")
        raise OSError(f"{target} is {is_}, where {should} is to be written. Name another place.")
    there = next(p for p in (target.absolute(), *target.absolute().parents) if p.exists())
    if not there.is_dir() and there != target.absolute():
        raise OSError(f"{target} cannot be written: {there} is a file. Name another place.")
    if not os.access(there, os.W_OK) or (there.is_file() and not os.access(there.parent, os.W_OK)):
        raise OSError(f"{target} cannot be written: there is no permission to write to {there}. Name another place.")


class InUse(ValueError):
    """What is to be written is being written by another process."""


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Within it no other process of this machine gets in; the system ends it with the process, however that dies.

    Where a file system has no locks, nothing is held.

    Args:
        folder: where the lock is kept, in a hidden file; made if it is not there.
        what: is being done there, for the message.

    Raises:
        InUse: another process is at it; the message says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InUse(
                f"{folder} is in use: {file.read().strip() or 'another process'} is {what} there. Wait for it, or end it."
            ) from None
        except (ImportError, OSError):
            pass
        with naming_unwritten(folder / LOCK):
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {platform.node()}".encode())
        yield


def printable(name: str) -> str:
    """A file's name as it can be printed: control characters, and bytes that are no text, are written out."""
    return name if name.isprintable() else name.encode("unicode_escape", "backslashreplace").decode()


def is_pointer(content: bytes) -> bool:
    """Whether a file is what git-lfs leaves in the place of one that it has not fetched."""
    return content.startswith(b"version https://git-lfs")


POINTER = "is a git-lfs pointer, not the file itself: fetch it with `git lfs pull`"
"""What to say of such."""


def pointer_or(file: Path, reason: str) -> str:
    """Why a file cannot be read, in words that follow its name: it is such a pointer, or else this reason."""
    with file.open("rb") as opened:
        return POINTER if is_pointer(opened.read(64)) else reason


def write_text(target: Path, text: str) -> None:
    """Writes a text file atomically."""
    with replacing(target) as part:
        part.write_text(text, encoding="utf-8")


def digest_file(file: Path) -> str:
    """Identifies what a file holds."""
    found = hashlib.blake2b(digest_size=16)
    with file.open("rb", buffering=0) as opened:
        while piece := opened.read(2**20):
            found.update(piece)
    return found.hexdigest()


def digest_arrays(arrays: "Mapping[str, np.ndarray]") -> str:
    """Identifies named arrays."""
    found = hashlib.blake2b(digest_size=16)
    for name, array in sorted(arrays.items()):
        found.update(name.encode())
        found.update(array.tobytes())
    return found.hexdigest()


def digest_lines(lines: Iterable[str]) -> str:
    """Identifies lines of text."""
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def first_line(error: BaseException) -> str:
    """What an error says first, without a full stop; its kind, where it says nothing. Some messages start with empty lines."""
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
