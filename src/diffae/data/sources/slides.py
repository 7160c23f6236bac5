"""Whole-slide images, cut into tiles."""

import contextlib
import io
import os
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from diffae.data.sources.folder import Folder
from diffae.data.sources.parts import folder_classes, told_classes
from diffae.data.sources.tissue import tissue_share
from diffae.runtime.files import first_line

SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu")
"""Endings of slides. TIFF may be one too."""
INDICES = (".vms", ".vmu")
"""Endings of slides that are an index alone, of files beside it."""
TIFFS = (".tif", ".tiff")
LEAST_SIDE = 4096
"""Pixels: a plain TIFF in tiles is a slide where a side is longer than this, and else a picture."""
TILE_WIDTH = 322
"""The tag of a TIFF that is in tiles."""
TILE = re.compile(r"(?:(?P<slide>.*)/)?x(?P<x>\d+)_y(?P<y>\d+)\.png")


class Slides:
    """The tiles of whole-slide images; the attributes are those of `Folder`.

    A slide is cut at its full resolution into squares side by side, from its upper left corner. Tiles are named by slide and
    corner, `SLIDE/x00256_y00512.png`. Of each only the share of `tissue.tissue_share` counts: tiles with less tissue are left out,
    and so is what is left of a slide at its right and lower edges; notes say how many. Tiles of one slide are one `group`, so that
    no slide is both trained on and held out, where there are several slides.

    Args:
        files: the slides.
        root: what their names are relative to; one of the files if it is the only one.
        tile: side of a tile, in pixels.
        least_tissue: a tile is taken where at least this share of it is tissue, 0..1; 0 takes all.

    Raises:
        ImportError: openslide is not installed.
        ValueError: a slide is damaged, or no tile has enough tissue.
    """

    def __init__(self, files: Sequence[Path], root: Path, *, tile: int = 256, least_tissue: float = 0.5) -> None:
        if tile < 1 or not 0 <= least_tissue <= 1:
            raise ValueError(f"Tiles have a side of at least 1 and tissue of 0 to 1, got {tile} and {least_tissue}.")
        self.tile = tile
        self.notes: list[str] = []
        self.others = 0
        self.holders = [each for file in files for each in _holders(file)]
        self._files = dict(zip(_names(files, root), files, strict=True))
        self._slides = {name: _opened(file) for name, file in self._files.items()}
        self._lock = threading.Lock()
        self._places: dict[str, tuple[str, int, int]] = {}
        for name, slide in self._slides.items():
            self._list(name, slide, least_tissue)
        self.names = list(self._places)
        self._rows: list[Mapping[str, Any]] | None = None
        if not self.names:
            raise ValueError(f"No tile of {root} is of tissue by a share of {least_tissue:g}. {self.notes[-1]}")

    def read(self, name: str) -> bytes:
        """The tile as a PNG, on white where the slide has no pixels; may be called from several threads.

        Raises:
            OSError: the slide is damaged there.
        """
        slide, *corner = self._places[name]
        buffer = io.BytesIO()
        self._tile(slide, (corner[0], corner[1])).save(buffer, "png", compress_level=1)
        return buffer.getvalue()

    def label_rows(self) -> list[Mapping[str, Any]]:
        """The slide of each tile as its group, and its folder as its class, as `labels.align` takes them; see `folder_classes`.

        Nothing where there is one slide. What was taken for classes is said in `notes`.
        """
        if len(self._slides) == 1:
            return []
        if self._rows is None:
            slides = [slide for slide, _, _ in self._places.values()]
            rows: list[dict[str, Any]] = [{"file": name, "group": slide} for name, slide in zip(self.names, slides, strict=True)]
            if classes := folder_classes(slides):
                rows = [row | {"class": own} for row, own in zip(rows, classes, strict=True)]
                self.notes.append(told_classes(classes))
            self._rows = list(rows)
        return self._rows

    def _tile(self, name: str, corner: tuple[int, int]) -> Image.Image:
        opened, size = self._slides[name], (self.tile, self.tile)
        try:
            return _region(opened, corner, 0, size)
        except OSError:
            # A slide that failed once gives nothing more, of any tile: others go on with a new one, and whether it was this tile's
            # fault is seen in one that is opened for it alone.
            with self._lock:
                if self._slides[name] is opened:
                    self._slides[name] = _opened(self._files[name])
            with _opened(self._files[name]) as own:
                return _region(own, corner, 0, size)

    def _list(self, name: str, slide: Any, least_tissue: float) -> None:
        """Names the tiles of a slide, and says which were left out."""
        width, height = slide.dimensions
        columns, rows = width // self.tile, height // self.tile
        taken = 0
        if columns and rows:
            share = np.ones((rows, columns))
            if least_tissue > 0:
                share = tissue_share(slide.level_downsamples, slide.level_dimensions, _reader(slide), columns, rows, self.tile)
            for row, column in np.argwhere(share >= least_tissue).tolist():
                x, y = column * self.tile, row * self.tile
                self._places[f"{name}/x{x:05d}_y{y:05d}.png"] = (name, x, y)
                taken += 1
        left = rows * columns - taken
        edge = f" {width % self.tile} and {height % self.tile} pixels at its right and lower edges are in no tile."
        self.notes.append(
            f"{name}: {taken:,} tiles of {self.tile} x {self.tile} pixels were taken, and {left:,} were left out, of which less "
            f"than {least_tissue:.0%} is tissue." + (edge if width % self.tile or height % self.tile else "")
        )


def slide_files(folder: Folder) -> list[Path]:
    """The files of a folder that OpenSlide knows as slides; a TIFF counts where all images there are TIFFs, the first a slide.

    Raises:
        ImportError: there are slides, but openslide is not installed.
    """
    found = [folder.root / name for name in folder.rest if is_slide(folder.root / name)]
    if not found and folder.names and all(name.lower().endswith(TIFFS) for name in folder.names) and is_slide(folder.holders[0]):
        found = [file for file in folder.holders if is_slide(file)]
    return found


def is_slide(file: Path) -> bool:
    """Whether OpenSlide knows a file as a slide. A plain TIFF in tiles is one only where a side is above `LEAST_SIDE`.

    Raises:
        ImportError: openslide is not installed, and the ending is a slide's, or it is such a TIFF.
    """
    ending = file.suffix.lower()
    if ending not in (*SLIDES, *TIFFS) or not file.is_file():
        return False
    try:
        import openslide
    except ImportError:
        if ending in TIFFS and not _is_large(file):
            return False
        raise ImportError(f"Reading {file} needs openslide: pip install 'diffae[slides]'.") from None
    try:
        kind = openslide.OpenSlide.detect_format(str(file))
        if kind != "generic-tiff":
            return kind is not None
        with openslide.OpenSlide(str(file)) as slide:
            return max(slide.dimensions) > LEAST_SIDE
    except openslide.OpenSlideError:
        return ending in SLIDES  # It says what is wrong when it is opened.


def _is_large(file: Path) -> bool:
    """Whether a TIFF is in tiles and longer than `LEAST_SIDE`, by its first header, and so what OpenSlide may take for a slide."""
    with (
        contextlib.suppress(Exception),
        file.open("rb") as opened,
    ):  # A damaged header: whoever reads it says what is wrong with it.
        head = opened.read(16)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head if head[2] + head[3] == 43 else head[:8])
        opened.seek(tags.next)
        tags.load(opened)
        return TILE_WIDTH in tags and max(tags[256], tags[257]) > LEAST_SIDE
    return False


def tile_map(names: Sequence[str], values: np.ndarray, *, tile: int = 256, slide: str | None = None) -> np.ndarray:
    """Values of tiles, such as their codes or an attribute's score, as a map over their slide.

    Args:
        names: of the tiles, `SLIDE/x00256_y00512.png`, as `diffae encode` writes them under `file`.
        values: (n,) or (n, d), one for each tile.
        tile: side of a tile, in pixels.
        slide: which one, where the tiles are of several.

    Returns:
        (rows, columns) or (rows, columns, d), NaN where there is no tile.

    Raises:
        ValueError: a name is no tile's, tiles do not lie on the grid, or they are of several slides and none was named.
    """
    values = np.asarray(values, dtype=np.float64)
    found = [TILE.fullmatch(name) for name in names]
    if not names or len(values) != len(names):
        raise ValueError(f"A map has a value for each tile, got {len(values)} values for {len(names)} tiles.")
    if None in found:
        raise ValueError(f"{names[found.index(None)]!r} is no tile of a slide: their names are SLIDE/x00256_y00512.png.")
    tiles = [(m["slide"] or "", int(m["x"]), int(m["y"])) for m in found if m]
    slides = sorted({name for name, _, _ in tiles})
    if slide is None and len(slides) > 1:
        raise ValueError(f"The tiles are of {len(slides)} slides: say which with slide=, of {', '.join(slides[:5])}.")
    own = [i for i, (name, _, _) in enumerate(tiles) if slide in (None, name)]
    if not own:
        raise ValueError(f"There is no tile of {slide!r}; there are some of {', '.join(slides[:5])}.")
    places = np.array([tiles[i][:0:-1] for i in own])
    if (places % tile).any():
        raise ValueError(f"The tiles do not lie on a grid of {tile} pixels: give the side that they were cut with, tile=.")
    rows, columns = (places // tile).T
    grid = np.full((rows.max() + 1, columns.max() + 1, *values.shape[1:]), np.nan)
    grid[rows, columns] = values[own]
    return grid


def _opened(file: Path) -> Any:
    try:
        import openslide
    except ImportError:
        raise ImportError(f"Reading {file} needs openslide: pip install 'diffae[slides]'.") from None
    try:
        return openslide.OpenSlide(str(file))
    except openslide.OpenSlideError as error:
        raise ValueError(f"{file} is no readable slide ({first_line(error)}). It may be cut short: copy it again.") from None


def _reader(slide: Any) -> Any:
    return lambda place, level, size: np.asarray(_region(slide, place, level, size))


def _region(slide: Any, place: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
    """A part of a slide on white: its corner at full resolution, and its width and height at a level.

    Raises:
        OSError: the slide is damaged there.
    """
    import openslide

    try:
        part = slide.read_region(place, level, size)
    except openslide.OpenSlideError as error:
        raise OSError(f"is damaged in the slide ({first_line(error)})") from None
    white = Image.new("RGB", size, (255, 255, 255))
    white.paste(part, mask=part.getchannel("A"))
    return white


def _names(files: Sequence[Path], root: Path) -> list[str]:
    """What slides are called: their path without its ending, unless two are then called alike."""
    if list(files) == [root]:
        return [root.stem]
    names = [file.relative_to(root).with_suffix("").as_posix() for file in files]
    counts = Counter(names)
    return [n if counts[n] == 1 else file.relative_to(root).as_posix() for n, file in zip(names, files, strict=True)]


def _holders(file: Path) -> list[Path]:
    """The files of a slide: of a .mrxs, those of its folder too; of a .vms and .vmu, those beside it that it names."""
    beside: list[Path] = []
    if file.suffix.lower() == ".mrxs":
        beside = [f for f in file.with_suffix("").rglob("*") if f.is_file()]
    elif file.suffix.lower() in INDICES:
        content = file.read_bytes()
        beside = [f for f in file.parent.iterdir() if f.is_file() and f != file and os.fsencode(f.name) in content]
    return [file, *sorted(beside)]
