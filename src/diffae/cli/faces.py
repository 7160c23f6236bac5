"""Commands about faces in photographs: cut out as those of FFHQ are, and put back."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import tyro

from diffae.cli import arguments
from diffae.cli.bars import warn, work_bar
from diffae.cli.inputs import device
from diffae.config import Range, Share

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffae.data.cuts import Cut, Cuts
    from diffae.frozen.faces import FaceDetector, FaceLandmarks

SHOWN = 10
"""Names that a line lists."""


@dataclass(frozen=True, kw_only=True)
class Align:
    """Find the faces in photographs, and cut each out as those of FFHQ are: what models of faces were trained on.

    A photograph of several faces gives NAME-0.png, NAME-1.png and so on, the largest first. Beside them `align.json` says where
    each is from, for `diffae paste`. Two networks are needed: diffae weights --networks face-detector face-landmarks

    Example: diffae align holiday.jpg --out faces
    """

    photos: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PHOTOS")]
    """A photograph, or a folder, zip or any other source of them. HEIC is read with pip install 'diffae[photos]'."""
    out: arguments.Folder
    """Folder for the faces."""
    size: Annotated[int, Range(8, 4096)] = 256
    """Pixels a side of each: the model's."""
    score: Share = 0.5
    """How sure one must be that it is a face, from 0 to 1."""
    scales: Annotated[int, Range(1, 4)] = 2
    """1 finds heads from a tenth of a photograph's larger side on, each more those of half that size, in five times the time."""
    max_faces: arguments.Number = None
    """Take no more than so many faces of a photograph, the largest."""

    def run(self) -> None:
        from diffae.data.cuts import FILE, Cut, Cuts, cut_names, write_cuts
        from diffae.data.faces import cut, ffhq_quad, find_faces
        from diffae.data.images import UnusableImage
        from diffae.data.photos import open_photos, photo
        from diffae.pictures import save_png
        from diffae.runtime.files import printable

        if self.out.is_dir() and any(self.out.iterdir()):
            what = "has the faces of an earlier call" if (self.out / FILE).exists() else "is not empty"
            raise ValueError(f"{self.out} {what}. Name another folder, or delete this one.")
        source = open_photos(self.photos)
        detector, landmarks = _networks()
        faces: list[Cut] = []
        without, unusable, taken = [], [], set[str]()
        with work_bar("Faces") as update:
            for i, name in enumerate(source.names):
                update(f"{len(faces)} faces", i, len(source.names))
                try:
                    picture = photo(source, name)
                except UnusableImage as error:
                    unusable.append(name)
                    warn(f"{printable(name)} {error}.")
                    continue
                found = find_faces(picture, detector, landmarks, least=self.score, scales=self.scales)[: self.max_faces]
                if not found:
                    without.append(name)
                for face, file in zip(found, cut_names(name, len(found), taken), strict=True):
                    quad = ffhq_quad(face.landmarks)
                    try:
                        a, b, c, d = ((x, y) for x, y in quad.tolist())
                        kept = Cut(file=file, photo=name, photo_size=picture.size, quad=(a, b, c, d), score=face.score)
                        save_png(cut(picture, quad, self.size), self.out / file)
                    except ValueError as error:  # Landmarks that are those of no face.
                        warn(f"{printable(name)}: a face was left out. {error}")
                        continue
                    faces.append(kept)
        for note in source.notes:
            warn(note)
        if without:
            more = f" and {len(without) - SHOWN} more" if len(without) > SHOWN else ""
            warn(f"No face was found in {len(without)} of {len(source.names)}: {', '.join(map(printable, without[:SHOWN]))}{more}.")
        if not faces:
            raise ValueError(
                f"There is no face in {self.photos} that was found ({len(without)} photographs without, {len(unusable)} that could "
                f"not be read). A lower --score than {self.score:g} finds more."
            )
        cuts = Cuts(
            photos=str(self.photos.absolute()),
            size=self.size,
            faces=tuple(faces),
            without=tuple(without),
            unusable=tuple(unusable),
        )
        write_cuts(cuts, self.out)
        with_faces = len(source.names) - len(without) - len(unusable)
        print(f"{self.out}: {len(faces)} faces of {self.size} x {self.size}, from {with_faces} of {len(source.names)} photographs")


def _networks() -> "tuple[FaceDetector, FaceLandmarks]":
    """What finds faces, and their landmarks.

    Raises:
        FileNotFoundError: their weights are not there; the message says how to get both.
    """
    from diffae.frozen.faces import FaceDetector, FaceLandmarks
    from diffae.frozen.weights import load_network

    try:
        detector, landmarks = (load_network(name)[0].to(device()) for name in ("face-detector", "face-landmarks"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} Both at once: diffae weights --networks face-detector face-landmarks") from None
    assert isinstance(detector, FaceDetector)
    assert isinstance(landmarks, FaceLandmarks)
    return detector, landmarks


@dataclass(frozen=True, kw_only=True)
class Paste:
    """Put edited faces back where they were in their photographs, at the photographs' full size.

    An edited face is known by its name, which must be that of the cut; its ending and its size may be others. Pixels outside the
    squares of the faces stay exactly as they are.

    Example: diffae paste edited --faces faces --out pasted
    """

    edited: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="EDITED")]
    """Edited faces, or folders of them."""
    faces: Path
    """The folder that `diffae align` wrote."""
    out: arguments.Folder
    """Folder for the photographs, as PNG."""
    photos: Path | None = None
    """Where the photographs are, if they have moved."""
    feather: Annotated[float, Range(0, 0.5)] = 0.1
    """Share of a face's square over which it fades into the photograph, at each edge."""
    detail: bool = False
    """Add to the photograph only what an edit changed: keeps what is finer than the cut, leaves ghosts where edges have moved."""

    def run(self) -> None:
        from diffae.data.cuts import cut_names, read_cuts
        from diffae.data.photos import mode_of, open_photos
        from diffae.pictures import save_png

        if not self.edited:
            raise ValueError("Give edited faces, or a folder of them.")
        cuts = read_cuts(self.faces)
        of_photo = _by_photo(self.edited, cuts, self.faces)
        where = self.photos or Path(cuts.photos)
        if not where.exists():
            raise FileNotFoundError(f"The photographs are not in {where}. Name where they are now with --photos.")
        source = open_photos(where)
        if absent := [name for name in of_photo if name not in set(source.names)]:
            raise FileNotFoundError(f"There is no photograph {absent[0]} in {where}. Name where they are now with --photos.")
        taken: set[str] = set()
        # Nothing that is read is written over.
        inputs = {file.resolve() for pairs in of_photo.values() for file, _ in pairs}
        inputs |= {(self.faces / cut.file).resolve() for cut in cuts.faces}
        inputs |= {(where / name if where.is_dir() else where).resolve() for name in source.names}
        with work_bar("Photographs") as update:
            for i, (name, edited) in enumerate(of_photo.items()):
                update(name, i, len(of_photo))
                content = source.read(name)
                picture = _picture(content, name)
                if (mode := mode_of(content)) != "RGB":
                    warn(f"{name} is an image of the kind {mode}: it is written as RGB of 8 bits, white where it is transparent.")
                for file, cut in edited:
                    picture = self._pasted(picture, file, cut)
                (target,) = cut_names(name, 1, taken)
                if (self.out / target).exists() and (self.out / target).resolve() in inputs:
                    raise ValueError(f"{self.out / target} is one of the files that are read: name another folder with --out.")
                print(f"Photograph: {save_png(picture, self.out / target)}")

    def _pasted(self, picture: "Image", file: Path, cut: "Cut") -> "Image":
        import numpy as np

        from diffae.data.faces import paste

        if picture.size != cut.photo_size:
            was, is_ = (f"{w} x {h}" for w, h in (cut.photo_size, picture.size))
            raise ValueError(
                f"{cut.photo} was a photograph of {was} when its faces were cut, and is one of {is_}: bring that back."
            )
        image = _picture(file.read_bytes(), str(file))
        if image.width != image.height:
            raise ValueError(f"{file} is {image.width} x {image.height}: an edited face must be a square, as its cut was.")
        before = None
        if self.detail:
            before = _picture((self.faces / cut.file).read_bytes(), str(self.faces / cut.file)).resize(image.size)
        return paste(picture, image, np.array(cut.quad), feather=self.feather, before=before)


def _picture(content: bytes, name: str) -> "Image":
    from diffae.data.images import UnusableImage, read_photo

    try:
        return read_photo(content)
    except UnusableImage as error:
        raise ValueError(f"{name} {error}.") from None


def _by_photo(edited: tuple[Path, ...], cuts: "Cuts", folder: Path) -> "dict[str, list[tuple[Path, Cut]]]":
    """Photograph -> its edited faces with their cuts, in the order of the cuts.

    Raises:
        FileNotFoundError: an edited face is not there.
        ValueError: one is named like no cut, or two like the same.
    """
    from diffae.data.cuts import cut_of
    from diffae.data.sources import Folder

    found: dict[str, tuple[Path, Cut]] = {}
    for given in edited:
        names = list(Folder(given).names) if given.is_dir() else [given.name]
        if not names or not given.exists():
            raise FileNotFoundError(f"There is no edited face {'in ' if given.is_dir() else ''}{given}.")
        for file in (given / name if given.is_dir() else given for name in names):
            cut = cut_of(PurePosixPath(file.as_posix()), cuts)
            if cut is None:
                known = ", ".join(cut.file for cut in cuts.faces[:SHOWN])
                raise ValueError(f"{file} is named like no face in {folder}: give it the name of its cut ({known}).")
            if cut.file in found:
                raise ValueError(f"{file} and {found[cut.file][0]} are both named like {folder / cut.file}: give one of them.")
            found[cut.file] = file, cut
    grouped: dict[str, list[tuple[Path, Cut]]] = {}
    for cut in cuts.faces:
        if cut.file in found:
            grouped.setdefault(cut.photo, []).append(found[cut.file])
    return grouped
