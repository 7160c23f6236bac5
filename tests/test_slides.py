"""Whole-slide images: cut into tiles of tissue, in bounded memory, and put together again as a map."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from PIL import Image

from diffae.config import DataConfig
from diffae.data import prepare
from diffae.data.sources import Slides, open_source, tile_map
from diffae.data.sources.tissue import otsu, tissue_share

openslide = pytest.importorskip("openslide")
tifffile = pytest.importorskip("tifffile")
PINK, GLASS = (190, 90, 150), (240, 240, 242)


def region(x, y, side, width, height):
    """A part of a slide: tissue in an ellipse in the middle, its red telling the column and its green the row; glass around it."""
    across, down = np.meshgrid(np.arange(x, x + side), np.arange(y, y + side))
    inside = ((across / width - 0.5) / 0.35) ** 2 + ((down / height - 0.5) / 0.35) ** 2 < 1
    tissue = np.stack([120 + 100 * across // width, 20 + 80 * down // height, np.full_like(across, 150)], axis=-1)
    return np.where(inside[..., None], tissue, GLASS).astype(np.uint8)


def write(path, width, height, *, levels=1, tile=512, compression="deflate"):
    """A tiled TIFF, with smaller levels if any, written tile by tile."""

    def tiles(width, height):
        for y in range(0, height, tile):
            for x in range(0, width, tile):
                yield region(x, y, tile, width, height)

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(levels):
            w, h = width >> level * 2, height >> level * 2
            file.write(
                tiles(w, h),
                shape=(h, w, 3),
                dtype=np.uint8,
                tile=(tile, tile),
                photometric="rgb",
                compression=compression,
                subfiletype=int(level > 0),
            )
    return path


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """5,000 x 4,200 pixels, with a smaller level."""
    return write(tmp_path_factory.mktemp("slides") / "a.tif", 5000, 4200, levels=2)


def pixels(source, name):
    return np.asarray(Image.open(io.BytesIO(source.read(name))))


def test_tiles_are_the_slides_own_pixels_where_there_is_tissue(slide):
    source = open_source(slide)
    assert isinstance(source, Slides)
    for name in source.names[::17]:
        x, y = int(name[3:8]), int(name[10:15])
        np.testing.assert_array_equal(pixels(source, name), region(x, y, 256, 5000, 4200))
    shares = {
        f"a/x{x:05d}_y{y:05d}.png": float((region(x, y, 256, 5000, 4200)[..., 0] != GLASS[0]).mean())
        for x in range(0, 5000 - 255, 256)
        for y in range(0, 4200 - 255, 256)
    }
    assert {name for name, share in shares.items() if share > 0.55} <= set(source.names)
    assert not {name for name, share in shares.items() if share < 0.45} & set(source.names)
    assert 0 < len(source.names) < len(shares)
    left = len(shares) - len(source.names)
    assert source.notes == [
        f"a: {len(source.names)} tiles of 256 x 256 pixels were taken, and {left} were left out, of which less than 50% is tissue. "
        "136 and 104 pixels at its right and lower edges are in no tile."
    ]


def test_all_tiles_are_taken_where_no_tissue_is_asked_for(slide):
    source = Slides([slide], slide, tile=1000, least_tissue=0.0)
    assert len(source.names) == 20
    assert pixels(source, "a/x04000_y03000.png").shape == (1000, 1000, 3)
    with pytest.raises(ValueError, match=r"Tiles have a side of at least 1 and tissue of 0 to 1, got 0 and 0\.5"):
        Slides([slide], slide, tile=0)
    assert len(open_source(slide, tile=1000, least_tissue=0.0).names) == 20


def test_tiles_are_trained_on_and_a_slide_is_held_out_as_one(slide, tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.tif").symlink_to(slide)
    data = prepare(DataConfig(source=str(tmp_path), validation=0.3), size=(16, 16), channels=3)
    train, held = ({data.names[i].split("/")[0] for i in side} for side in (data.train, data.validation))
    assert train | held == {"a", "b", "c"}
    assert held
    assert not train & held
    middle = data.pixels[data.names.index("a/x02304_y02048.png")]
    assert middle[2].min() == middle[2].max() == 150


def test_a_slide_is_held_out_as_one_where_a_table_labels_its_tiles(tmp_path):
    for name in "abc":
        write(tmp_path / f"{name}.tif", 4352, 256, tile=256)
    tiles = [f"{name}/x{x:05d}_y00000.png" for name in "abc" for x in range(0, 4352, 512)]
    table = tmp_path / "labels.csv"
    table.write_text("file,tumour\n" + "".join(f"{tile},{i % 2}\n" for i, tile in enumerate(tiles)))
    config = DataConfig(source=str(tmp_path), validation=0.3, least_tissue=0.0)
    data = prepare(config, size=(16, 16), channels=3)
    train, held = ({data.names[i].split("/")[0] for i in side} for side in (data.train, data.validation))
    assert held
    assert not train & held
    assert np.nansum(data.labels["tumour"]) == len(tiles) // 2
    assert f"{table} has no column 'group'. Images stay together by that of {tmp_path}, in 3 groups." in data.notes


def test_folders_of_slides_are_classes_of_their_tiles(tmp_path):
    for name in ("tumour/a", "tumour/b", "normal/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / f"{name}.tif", 4352, 256, tile=256)
    data = prepare(DataConfig(source=str(tmp_path), validation=0.3, least_tissue=0.0), size=(16, 16), channels=3)
    assert data.labels["class=tumour"].tolist() == [name.startswith("tumour") for name in data.names]
    assert set(data.groups) == {"tumour/a", "tumour/b", "normal/c"}


def test_a_map_puts_values_where_their_tiles_lie(slide):
    source = open_source(slide)
    red = np.array([pixels(source, name)[..., 0].mean() for name in source.names])
    grid = tile_map(source.names, red)
    rows, columns = np.nonzero(~np.isnan(grid))
    assert len(rows) == len(source.names)
    assert f"a/x{columns[3] * 256:05d}_y{rows[3] * 256:05d}.png" in source.names
    middle = grid[grid.shape[0] // 2]
    known = middle[~np.isnan(middle)][1:-1]
    assert (np.diff(known) > 0).all()
    assert tile_map(source.names, np.ones((len(source.names), 5))).shape == (*grid.shape, 5)


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["a/1.png"], {}, "'a/1.png' is no tile of a slide"),
        (["a/x00000_y00000.png", "b/x00000_y00000.png"], {}, "The tiles are of 2 slides: say which with slide=, of a, b"),
        (["a/x00000_y00000.png"], {"slide": "c"}, "There is no tile of 'c'; there are some of a"),
        (["a/x00100_y00000.png"], {}, "do not lie on a grid of 256 pixels"),
        ([], {}, "got 0 values for 0 tiles"),
    ],
)
def test_maps_that_cannot_be_right_are_refused(names, settings, message):
    with pytest.raises(ValueError, match=message):
        tile_map(names, np.zeros(len(names)), **settings)


def test_a_map_of_one_of_several_slides():
    grid = tile_map(["a/x00000_y00000.png", "b/x00256_y00512.png"], np.array([1.0, 2.0]), slide="b")
    assert grid.shape == (3, 2)
    assert grid[2, 1] == 2
    assert np.isnan(grid).sum() == 5


def test_small_tiffs_in_tiles_are_pictures(tmp_path):
    write(tmp_path / "a.tif", 1024, 1024)
    source = open_source(tmp_path)
    assert source.names == ["a.tif"]
    with pytest.raises(ValueError, match="is no source of images that is known"):
        open_source(tmp_path / "a.tif")


def test_pictures_beside_slides_are_named(slide, tmp_path):
    (tmp_path / "a.svs").write_bytes(b"no slide")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    assert open_source(tmp_path).names == ["b.png"]
    with pytest.raises(ValueError, match="is no source of images"):
        open_source(tmp_path / "a.svs")


def test_a_slide_is_known_by_all_files_that_hold_its_pixels(tmp_path):
    from diffae.data.sources import slides

    index = b"[Virtual Microscope Specimen]\nImageFile=a.jpg\nImageFile(1,0)=a(1,0).jpg\nMapFile=a_map2.jpg\n"
    for name, content in (("a.VMS", index), ("a.jpg", b"1"), ("a(1,0).jpg", b"2"), ("a_map2.jpg", b"3"), ("other.jpg", b"4")):
        (tmp_path / name).write_bytes(content)
    holders = slides._holders(tmp_path / "a.VMS")
    assert [file.name for file in holders] == ["a.VMS", "a(1,0).jpg", "a.jpg", "a_map2.jpg"]
    (tmp_path / "b").mkdir()
    for name in ("b.mrxs", "b/Data0000.dat", "b/Slidedat.ini"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in slides._holders(tmp_path / "b.mrxs")] == ["b.mrxs", "Data0000.dat", "Slidedat.ini"]
    assert slides._holders(tmp_path / "c.svs") == [tmp_path / "c.svs"]


def test_a_slide_of_glass_has_no_tile(tmp_path):
    file = tmp_path / "glass.tif"
    noise = np.random.default_rng(0).integers(238, 243, (4608, 4608, 3), dtype=np.uint8)
    tifffile.imwrite(file, noise, tile=(256, 256), photometric="rgb")
    with pytest.raises(ValueError, match=r"No tile of .* is of tissue by a share of 0\.5\. glass: 0 tiles .* 324 were left out"):
        open_source(file)


def test_a_damaged_tile_is_an_image_that_cannot_be_read(slide, tmp_path):
    content = bytearray(slide.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    (tmp_path / "a.tif").write_bytes(content)
    source = Slides([tmp_path / "a.tif"], tmp_path / "a.tif", least_tissue=0.0)
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(source.names, pool.map(partial(outcome, source), source.names), strict=True))
    bad = {name for name, said in found.items() if said}
    assert all("is damaged in the slide" in found[name] for name in bad)
    assert 0 < len(bad) < len(found) / 2
    assert not {source.names[0], source.names[-1]} & bad
    again = Slides([tmp_path / "a.tif"], tmp_path / "a.tif", least_tissue=0.0)
    assert {name for name in again.names if outcome(again, name)} == bad


def outcome(source, name):
    """Why a tile cannot be read, or nothing."""
    try:
        source.read(name)
    except OSError as error:
        return str(error)
    return ""


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.svs").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ImportError, match=r"a\.svs needs openslide: pip install 'diffae\[slides\]'"):
        open_source(tmp_path / "a.svs")


def test_a_slide_in_a_plain_tiff_is_no_picture_where_openslide_is_missing(slide, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    for path in (slide, slide.parent):
        with pytest.raises(ImportError, match=r"a\.tif needs openslide: pip install 'diffae\[slides\]'"):
            open_source(path)
    write(tmp_path / "small.tif", 1024, 1024)
    tifffile.imwrite(tmp_path / "rows.tif", np.zeros((4100, 8), np.uint8))
    (tmp_path / "damaged.tif").write_bytes(slide.read_bytes()[:40])
    assert open_source(tmp_path).names == ["damaged.tif", "rows.tif", "small.tif"]


# The rule of tissue -----------------------------------------------------------------------------------------------------


def share_of(picture, tile=32):
    """The share of tissue in the tiles of a picture."""

    def read(place, level, size):
        return picture[place[1] : place[1] + size[1], place[0] : place[0] + size[0]]

    height, width = picture.shape[:2]
    return tissue_share([1.0], [(width, height)], read, width // tile, height // tile, tile)


def test_tissue_has_a_colour_and_ink_glass_and_shadow_have_none():
    picture = np.full((96, 96, 3), GLASS, np.uint8)
    picture[:32, :32] = PINK
    picture[32:64, :32] = (25, 5, 20)
    picture[64:, :32] = (120, 120, 120)
    picture[:16, 64:] = PINK
    share = share_of(picture)
    np.testing.assert_allclose(share, [[1, 0, 0.5], [0, 0, 0], [0, 0, 0]])


def test_a_slide_that_is_all_tissue_is_taken_whole():
    picture = np.full((64, 64, 3), PINK, np.uint8)
    picture[::2] = (200, 60, 140)
    assert share_of(picture).min() == 1


def test_the_threshold_parts_two_kinds():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(20, 4, 3000), rng.normal(120, 10, 1000)]).clip(0, 255).astype(np.uint8)
    assert 30 < otsu(values) < 95
    assert otsu(np.zeros(10, np.uint8)) == 0
    assert otsu(np.zeros(0, np.uint8)) == 0


def test_a_large_slide_is_never_in_memory_as_a_whole(tmp_path):
    """6,144 x 6,144 pixels of one level, so that the thumbnail has to come from all of it, the hardest case; 151 MB as RGBA."""
    side = 6144
    plain = np.full((1024, 1024, 3), PINK, np.uint8)
    with tifffile.TiffWriter(tmp_path / "large.tif", bigtiff=True) as file:
        tiles = (plain for _ in range((side // 1024) ** 2))
        kept = {"tile": (1024, 1024), "photometric": "rgb", "compression": "jpeg"}
        file.write(tiles, shape=(side, side, 3), dtype=np.uint8, **kept)
    code = f"""
import re
import openslide
from pathlib import Path
from diffae.data.sources import open_source
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
source = open_source(Path({str(tmp_path / "large.tif")!r}))
sizes = [len(source.read(name)) for name in source.names[::40]]
print(len(source.names), peak() - before)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    num, kilobytes = map(int, out.stdout.split())
    assert num == 576
    assert kilobytes < 140_000
