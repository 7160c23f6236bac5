"""Images in an LMDB."""

import re
from pathlib import Path

from diffae.runtime.files import printable


class Lmdb:
    """All images in an LMDB; the attributes are those of `Folder`.

    Two layouts are known:

    - That of the diffusion autoencoders' authors has a key `length` and keys of resolution and number, such as `256-00012`. Images
      are taken in the largest resolution and named by number, `12.jpg`, as CelebA-HQ's annotations name them.
    - In any other, such as LSUN's, each key is an image, and its name.
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
            # Checked before any page is read: reading beyond the end of a mapped file kills the process.
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
    """Name -> key in the authors' layout, in the order of numbers. Adds a note about keys that do not fit it."""
    found = {key: re.fullmatch(rb"(\d{1,9})-(\d{1,18})", key) for key in keys if key != b"length"}
    parts = [(int(m[1]), int(m[2]), key) for key, m in found.items() if m]
    if odd := [printable(key.decode("utf-8", "surrogateescape")) for key, m in found.items() if not m]:
        notes.append(f"{path}: {len(odd)} keys are no RESOLUTION-NUMBER and were left alone ({', '.join(odd[:3])}).")
    largest = max((resolution for resolution, _, _ in parts), default=0)
    return {f"{i}.jpg": key for resolution, i, key in sorted(parts) if resolution == largest}
