"""Images in tar files, as WebDataset shards them: files whose names begin alike belong together, labels beside images."""

import contextlib
import errno
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from diffae.data.labels.classes import MOST_CLASSES
from diffae.data.sources.names import is_hidden, is_image, note_doubled, texts
from diffae.data.sources.parts import folder_classes, told_classes
from diffae.runtime.files import pointer_or, printable

try:
    import resource
except ImportError:  # Windows, which has no such limit.
    resource = None  # type: ignore[assignment]

OTHER_FILES = 256
"""That a process needs open beside tars."""


class Shards:
    """All images in tar files; the attributes are those of `Folder`.

    A file's name up to its first dot is the key of a sample. `KEY.jpg` (or any image) is its image, `KEY.json` a row of labels,
    and `KEY.cls` the number of its class. Classes become attributes `cls_NUMBER` of 0 and 1, if there are no more than
    `classes.MOST_CLASSES`. Where there are no labels, folders within the tars are classes, see `folder_classes`. An image is named
    by its tar and its name in it, `train-0000/00017.jpg`; with a single tar, by the latter alone.
    Nothing is unpacked: headers are read once, then only images.

    Args:
        files: the tars.
        root: what the names are relative to; one of the files if it is the only one.

    Raises:
        ValueError: a file that is no tar, or a compressed one.
    """

    def __init__(self, files: Sequence[Path], root: Path) -> None:
        self.places: dict[str, tuple[int, int, int]] = {}
        self.notes: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._inside: dict[str, str] = {}
        self.others = 0
        # Read by position, so that threads share a file without moving each other's place in it.
        self.descriptors = _opened(files)
        for i, file in enumerate(files):
            self._list(i, file, "" if file == root else f"{file.relative_to(root).with_suffix('').as_posix()}/")
        self.names = texts(list(self.places), self.notes)
        kept = set(self.names)
        self._rows = [row for row in self._rows if row["file"] in kept]
        self.holders = list(files)
        classes = sorted({row["cls"] for row in self._rows if "cls" in row})
        if len(classes) > MOST_CLASSES:
            self.notes.append(f"The {len(classes):,} classes of {root} were left out: at most {MOST_CLASSES} become attributes.")
            classes = []
        for row in self._rows:
            if "cls" in row:
                own = row.pop("cls")
                row |= {f"cls_{c}": c == own for c in classes}
        if not any(len(row) > 1 for row in self._rows) and (found := folder_classes([self._inside[name] for name in self.names])):
            self._rows = [{"file": name, "class": own} for name, own in zip(self.names, found, strict=True)]
            self.notes.append(told_classes(found))

    def __del__(self) -> None:
        for descriptor in getattr(self, "descriptors", ()):
            os.close(descriptor)

    def read(self, name: str) -> bytes:
        """The image's bytes; may be called from several threads."""
        i, start, size = self.places[name]
        content = os.pread(self.descriptors[i], size, start)
        if len(content) < size:
            raise OSError("the tar is cut short")
        return content

    def label_rows(self) -> list[dict[str, Any]]:
        """A label table, as `labels.align` takes it."""
        attributes = dict.fromkeys(key for row in self._rows for key in row)
        return [dict.fromkeys(attributes) | row for row in self._rows]

    def _list(self, i: int, file: Path, prefix: str) -> None:
        """Adds the images and labels of tar number i."""
        samples: dict[str, dict[str, tarfile.TarInfo]] = {}
        num, special = 0, list[str]()
        try:
            with tarfile.open(file, "r:") as archive:
                for member in archive:
                    if member.size < 0:
                        raise tarfile.ReadError(f"{member.name!r} has {member.size} bytes")
                    place = PurePosixPath(member.name.removeprefix("./"))
                    if member.isdir() or is_hidden(member.name):
                        continue
                    if not member.isfile():
                        special.append(member.name)
                        continue
                    stem, _, extension = place.name.partition(".")
                    if not stem:  # It is called `.` or `..`, as folders are.
                        self.others += 1
                        continue
                    num += 1
                    samples.setdefault(str(place.with_name(stem)), {})[extension] = member
                # The reader stops in silence where a header is damaged.
                if os.pread(self.descriptors[i], 512, archive.offset).strip(b"\0"):
                    raise tarfile.ReadError(f"no header of a file, nor an end, at byte {archive.offset:,}")
        except (tarfile.TarError, ValueError, OSError) as error:
            what = pointer_or(file, f"is no readable tar ({error})")
            raise ValueError(f"{file} {what}. It may be cut short, or compressed: copy it again, or unpack it.") from None
        if special:
            self.notes.append(
                f"{file}: {len(special)} links, pipes or devices were left alone ({printable(special[0])}, ...): only files "
                "are read."
            )
        note_doubled(file, num - sum(map(len, samples.values())), self.notes)
        for key, members in samples.items():
            images = {e: m for e, m in members.items() if is_image(f"image.{e}")}
            # Beside `a.jpg`, `a.mask.png` is no image of its own; without it, dots are part of the name.
            images = {e: m for e, m in images.items() if "." not in e} or images
            labels = self._labels(i, file, members) if images else {}
            self.others += len(members) - len(images) - sum(e in ("json", "cls") for e in members)
            for extension, member in images.items():
                name = f"{prefix}{key}.{extension}"
                self.places[name] = (i, member.offset_data, member.size)
                self._inside[name] = f"{key}.{extension}"
                self._rows.append({"file": name} | labels)

    def _labels(self, i: int, file: Path, members: dict[str, tarfile.TarInfo]) -> dict[str, Any]:
        """The labels of a sample: name -> value, with its class under `cls`."""
        found: dict[str, Any] = {}
        for kind in ("json", "cls"):
            if kind in members:
                member = members[kind]
                content = os.pread(self.descriptors[i], member.size, member.offset_data)
                try:
                    value = json.loads(content)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{file}: {printable(member.name)} is no JSON ({error}). Write the shard again.") from None
                if kind == "cls" and not isinstance(value, int):
                    raise ValueError(
                        f"{file}: {printable(member.name)} is not the number of a class, but {str(value)[:60]!r}. Write it again."
                    )
                if kind == "cls":
                    found["cls"] = value
                elif isinstance(value, dict):
                    found |= {k: v for k, v in value.items() if k not in ("file", "cls")}
        return found


def _opened(files: Sequence[Path]) -> list[int]:
    """Descriptors of all tars, of which a set may have more than a process may usually open.

    Raises:
        ValueError: the system does not let it.
    """
    if resource is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = len(files) + OTHER_FILES if hard == resource.RLIM_INFINITY else min(len(files) + OTHER_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            with contextlib.suppress(ValueError, OSError):  # Some systems let less be set than they say.
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    descriptors: list[int] = []
    try:
        descriptors.extend(os.open(file, os.O_RDONLY) for file in files)
    except OSError as error:
        for descriptor in descriptors:
            os.close(descriptor)
        if error.errno != errno.EMFILE:
            raise
        raise ValueError(
            f"{files[0].parent} has {len(files):,} tars, and the system lets a process open no more than some "
            f"{len(descriptors):,} files: let it open more (`ulimit -n {len(files) + OTHER_FILES}`), or pack them into fewer tars."
        ) from None
    return descriptors
