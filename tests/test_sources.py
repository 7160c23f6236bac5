"""What is read of images: all of it, or a line that says what was not. And caches that know what they are of."""

import contextlib
import io
import os
import random
import shutil
import stat
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffae import cli
from diffae.config import DataConfig, Preparation
from diffae.data import contents, prepare
from diffae.data.images import UnusableImage, load_images, read_image
from diffae.data.sources import open_source
from diffae.runtime.files import InUse, locked


def prepared(root, *, size=(8, 8), channels=3, **settings):
    return prepare(DataConfig(source=str(root), validation=0.0, **settings), size=size, channels=channels)


def said(data):
    return " ".join(" ".join(data.notes).split())


def flat(folder, name, colour, size=(16, 16)):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(folder / name)


# Caches ---------------------------------------------------------------------------------------------------------------


def test_two_folders_of_the_same_names_sizes_and_times_have_each_its_own_images(tmp_path):
    for name, colour in (("a", "red"), ("b", "lime")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16), colour).save(tmp_path / name / "0.bmp")
        os.utime(tmp_path / name / "0.bmp", (1, 1))
    red, green = prepared(tmp_path / "a"), prepared(tmp_path / "b")
    assert red.pixels[0, :, 0, 0].tolist() == [255, 0, 0]
    assert green.pixels[0, :, 0, 0].tolist() == [0, 255, 0]
    assert red.key != green.key


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_file_that_is_given_back_its_old_time_is_read_again(tmp_path, kind):
    def write(colour):
        flat(tmp_path / "images", "0.bmp", colour)
        if kind == "zip":
            with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
                archive.writestr(zipfile.ZipInfo("0.bmp"), (tmp_path / "images" / "0.bmp").read_bytes())
            os.utime(tmp_path / "images.zip", (1, 1))
        os.utime(tmp_path / "images" / "0.bmp", (1, 1))
        return prepared(tmp_path / ("images.zip" if kind == "zip" else "images"))

    first = write("red")
    assert write("red").key == first.key
    assert write("blue").key != first.key


def test_what_was_read_is_remembered_unless_it_has_just_changed(tmp_path, monkeypatch):
    flat(tmp_path, "a.png", "red")
    progress = lambda *_: None  # noqa: E731
    first = contents.digests([tmp_path / "a.png"], progress)
    read = []
    monkeypatch.setattr(contents, "_digest", lambda file: read.append(file) or "again")
    assert contents.digests([tmp_path / "a.png"], progress) == ["again"]
    monkeypatch.undo()
    monkeypatch.setattr(contents, "SETTLED", -3600.0)
    assert contents.digests([tmp_path / "a.png"], progress) == first
    monkeypatch.setattr(contents, "_digest", lambda file: pytest.fail("read again"))
    assert contents.digests([tmp_path / "a.png"], progress) == first


def test_what_could_not_be_read_is_looked_at_again(tmp_path, monkeypatch):
    flat(tmp_path, "a.png", "red")
    progress = lambda *_: None  # noqa: E731
    monkeypatch.setattr(contents, "SETTLED", -3600.0)
    with monkeypatch.context() as patch:
        patch.setattr(contents, "digest_file", raising(OSError(5, "Input/output error")))
        assert contents.digests([tmp_path / "a.png"], progress) == ["unreadable: Input/output error"]
    assert not contents.digests([tmp_path / "a.png"], progress)[0].startswith("unreadable")


def raising(error):
    def call(*args, **kwargs):
        raise error

    return call


@pytest.mark.parametrize("limits", [None, "minmax"])
def test_an_image_that_the_system_refuses_while_it_is_prepared_is_an_error_and_no_memory(tmp_path, monkeypatch, limits):
    for i in range(3):
        (tmp_path / "set").mkdir(exist_ok=True)
        np.save(tmp_path / "set" / f"{i}.npy", np.full((1, 8, 8), 40.0 * i))
    config = DataConfig(source=str(tmp_path / "set"), validation=0.0, range=limits or (0.0, 80.0))

    def read(file, real=Path.read_bytes):
        if file.name == "1.npy":
            raise OSError(5, "Input/output error")
        return real(file)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read)
        with pytest.raises(
            OSError, match=r"1.npy could be read when the images were looked at, and now cannot \(Input/output error\)"
        ):
            prepare(config, size=(8, 8), channels=1)
    assert prepare(config, size=(8, 8), channels=1).names == ["0.npy", "1.npy", "2.npy"]


def test_what_lies_beside_an_image_and_cannot_be_read_is_said_of_the_image(tmp_path):
    for name in "ab":
        flat(tmp_path / "set", f"{name}.png", "red")
        flat(tmp_path / "set", f"x/{name}.png", "red")
    flat(tmp_path / "masks", "a.png", "white")
    flat(tmp_path / "masks", "x/a.png", "white")
    flat(tmp_path / "masks", "x/b.png", "white")
    (tmp_path / "masks" / "b.png").symlink_to(tmp_path / "nowhere.png")
    data = prepare(DataConfig(source=str(tmp_path / "set"), mask=str(tmp_path / "masks"), validation=0.0), size=(8, 8), channels=3)
    assert data.names == ["a.png", "x/a.png", "x/b.png"]
    assert "b.png has b.png in" in said(data)
    assert "masks, which cannot be read (No such file or directory)" in said(data)


def test_a_memory_of_contents_that_is_damaged_is_made_anew(tmp_path, cache, monkeypatch):
    flat(tmp_path / "images", "a.png", "red")
    monkeypatch.setattr(contents, "SETTLED", -3600.0)
    key = prepared(tmp_path / "images").key
    for file in (cache / "contents").iterdir():
        file.write_text("{cut")
    assert prepared(tmp_path / "images").key == key


def test_a_cache_that_cannot_be_written_is_called_that(tmp_path, monkeypatch, capsys):
    flat(tmp_path / "images", "a.png", "red")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIFFAE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match=r"The cache of images, .*file/cache, cannot be written .*DIFFAE_CACHE"):
        prepared(tmp_path / "images")


def test_images_are_read_by_one_process_at_a_time_and_the_other_takes_what_it_read(tmp_path, monkeypatch):
    flat(tmp_path / "images", "a.png", "red")
    prepared(tmp_path / "images")
    folder = next((contents.cache_folder() / "pixels").iterdir())
    saved = shutil.copytree(folder, tmp_path / "saved")
    (folder / "index.json").unlink()
    held = locked(folder, "reading images")
    held.__enter__()
    with pytest.raises(InUse, match="is reading images there"), locked(folder, "reading images"):
        pass

    def meanwhile(seconds):
        shutil.copy(saved / "index.json", folder / "index.json")

    monkeypatch.setattr("diffae.data.cache.time.sleep", meanwhile)
    try:
        assert prepared(tmp_path / "images").names == ["a.png"]
    finally:
        held.__exit__(None, None, None)


# Ranges ---------------------------------------------------------------------------------------------------------------


def deep(values, kind):
    """A TIFF of a type that Pillow has no name for, such as signed 16 bits."""
    return tiff.encode(np.asarray(values, kind))


def window(values, kind, limits):
    made = Preparation(crop="none", range=limits)
    return read_image(deep(values, kind), "a.tif", size=(8, 8), channels=1, preparation=made)


CT = np.linspace(-1024, 3071, 64).reshape(8, 8).round()


@pytest.mark.parametrize("kind", ["<i2", ">i2", "<i4"])
def test_a_range_maps_signed_values(kind):
    array = window(CT, kind, (-1024.0, 3071.0))
    assert array.dtype == np.uint16
    assert np.abs(array[0].astype(float) - (CT + 1024) / 4095 * 65535).max() <= 1


def test_a_range_is_a_window():
    array = window(CT, "<i2", (0.0, 80.0))[0]
    assert (array[CT <= 0] == 0).all()
    assert (array[CT >= 80] == 65535).all()


@pytest.mark.parametrize(("kind", "values"), [("<i4", CT * 100), ("<f4", CT / 10)])
def test_values_that_fit_no_range_are_refused_with_what_they_are(kind, values):
    with pytest.raises(UnusableImage, match=r"-?\d.*\.\.\d.*Name the values that stand for black and white: --data.range LOW HIGH"):
        window(values, kind, None)


def test_signed_16_bits_of_which_few_are_used_have_the_range_of_their_type_and_it_is_said(tmp_path):
    (tmp_path / "a.tif").write_bytes(deep(CT, "<i2"))
    told = []
    (x,) = load_images([tmp_path / "a.tif"], size=(8, 8), channels=1, preparation=Preparation(), warn=told.append)
    assert np.abs((x[0].numpy() + 1) * 32767.5 - 32768 - CT).max() <= 0.01
    assert "a.tif has values that fill 6.2 % of their range, nearly one grey to the model" in told[0]


def test_a_set_of_12_bits_in_16_says_that_it_is_nearly_black(tmp_path, capsys):
    values = np.linspace(0, 4095, 256).reshape(16, 16).astype(np.uint16)
    (tmp_path / "deep").mkdir()
    for i in range(4):
        Image.fromarray(values).save(tmp_path / "deep" / f"{i}.png")
    assert "no value above" in said(prepared(tmp_path / "deep", channels=1))
    assert "--data.range 0 4095" in said(prepared(tmp_path / "deep", channels=1))
    right = prepared(tmp_path / "deep", channels=1, range=(0.0, 4095.0))
    assert not right.notes
    assert right.pixels.max() > 60000
    told = []
    load_images([tmp_path / "deep" / "0.png"], size=(8, 8), channels=1, preparation=Preparation(), warn=told.append)
    assert len(told) == 1
    assert "0.png has no value above" in told[0]


def test_16_bits_that_are_used_are_no_matter(tmp_path):
    values = np.linspace(0, 65535, 256).reshape(16, 16).astype(np.uint16)
    (tmp_path / "deep").mkdir()
    for i in range(2):
        Image.fromarray(values // (1 + 8 * i)).save(tmp_path / "deep" / f"{i}.png")
    assert not prepared(tmp_path / "deep", channels=1).notes


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float64, np.uint16])
def test_arrays_have_ranges_too(tmp_path, kind):
    buffer = io.BytesIO()
    np.save(buffer, (CT[None].clip(0) if kind is np.uint16 else CT[None]).astype(kind))
    made = Preparation(crop="none", range=(-1024.0, 3071.0))
    array = read_image(buffer.getvalue(), "a.npy", size=(8, 8), channels=1, preparation=made)
    expected = ((CT.clip(0) if kind is np.uint16 else CT) + 1024) / 4095 * 65535
    assert np.abs(array[0].astype(float) - expected).max() <= 1


# What is left of a file ------------------------------------------------------------------------------------------------


def stack(form, num=3):
    frames = [Image.new("RGB", (16, 16), (80 * i, 0, 0)) for i in range(num)]
    buffer = io.BytesIO()
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(("form", "name"), [("TIFF", "a.tif"), ("GIF", "a.gif"), ("WEBP", "a.webp"), ("PNG", "a.png")])
def test_stacks_are_said_to_be_read_in_part(tmp_path, form, name):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_bytes(stack(form))
    flat(tmp_path / "set", "single.png", "red")
    data = prepared(tmp_path / "set")
    assert len(data.names) == 2
    assert "1 files are of several pages or frames, of which the first was taken: save each" in said(data)
    assert f"({name})" in said(data)
    told = []
    x = load_images([tmp_path / "set" / name], size=(8, 8), channels=3, preparation=Preparation(), warn=told.append)
    assert "of which the first was taken" in told[0]
    assert x.max() < -0.9
    assert prepared(tmp_path / "set").notes == data.notes, "from the cache too"


def test_a_telephones_second_view_is_no_page(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.mpo").write_bytes(stack("MPO", 2))
    assert not prepared(tmp_path / "set").notes


# Folders --------------------------------------------------------------------------------------------------------------


def test_linked_folders_and_files_are_read(tmp_path):
    flat(tmp_path / "store", "cats/0.png", "red")
    flat(tmp_path / "set", "dogs/0.png", "blue")
    (tmp_path / "set" / "cats").symlink_to(tmp_path / "store" / "cats")
    (tmp_path / "set" / "one.png").symlink_to(tmp_path / "store" / "cats" / "0.png")
    (tmp_path / "set" / "dogs" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    data = prepared(tmp_path / "set")
    assert data.names == ["cats/0.png", "dogs/0.png", "one.png"]
    assert "The link dogs/up leads back to a folder that it lies in" in said(data)
    assert "broken.png cannot be read" in said(data)


def test_names_that_are_no_text_are_left_alone_and_counted(tmp_path):
    flat(tmp_path / "set", "a.png", "red")
    odd = os.path.join(os.fsencode(tmp_path / "set"), b"caf\xe9.png")
    shutil.copy(tmp_path / "set" / "a.png", odd)
    data = prepared(tmp_path / "set")
    assert data.names == ["a.png"]
    assert r"1 images were left alone: their names are no UTF-8 (caf\udce9.png, ...). Rename them." in said(data)


@pytest.mark.parametrize("name", ["two\nlines.png", "\x1b[31mred.png", "-rf.png", '\'"quoted".png', "名前.png", "\u202egnp.png"])
def test_odd_names_are_names(tmp_path, name):
    flat(tmp_path / "set", name, "red")
    (tmp_path / "set" / f"bad {name}").write_bytes(b"no image")
    data = prepared(tmp_path / "set")
    assert data.names == [name]
    assert "\x1b" not in "".join(data.notes)
    assert "1 of 2 images were skipped" in said(data)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads all folders")
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path):
    flat(tmp_path / "set", "a.png", "red")
    flat(tmp_path / "set", "closed/b.png", "red")
    (tmp_path / "set" / "closed").chmod(0)
    with pytest.raises(OSError, match=r"The folder .*closed cannot be read"):
        prepared(tmp_path / "set")
    (tmp_path / "set" / "closed").chmod(stat.S_IRWXU)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    flat(tmp_path / "set", "closed/b.png", "red")

    def scandir(path, real=os.scandir):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(OSError, match=r"The folder .*closed cannot be read \(Permission denied\)"):
        open_source(tmp_path / "set")


@pytest.mark.parametrize(
    ("parts", "divided"),
    [(("train", "test"), True), (("Train", "val"), True), (("train", "training"), False), (("cats", "test"), False)],
)
def test_the_parts_of_a_published_split_are_not_mixed_without_a_word(tmp_path, parts, divided):
    for i, part in enumerate(parts):
        flat(tmp_path / "set", f"{part}/{i}.png", "red")
    assert ("as a published split, and are taken as one set" in said(prepared(tmp_path / "set"))) == divided


# Damage ---------------------------------------------------------------------------------------------------------------


def zipped(path, members, **kwargs):
    with zipfile.ZipFile(path, "w", **kwargs) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def png(colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_one_bad_member_of_a_zip_is_skipped_and_named(tmp_path):
    path = zipped(tmp_path / "a.zip", [("good.png", png()), ("bad.png", png("blue"))])
    content = bytearray(path.read_bytes())
    content[content.rindex(png("blue")) + 40] ^= 255
    path.write_bytes(content)
    data = prepared(path)
    assert data.names == ["good.png"]
    assert "bad.png cannot be read (is damaged in the archive: Bad CRC-32" in said(data)


def test_a_disk_that_fails_is_no_damaged_member(tmp_path, failing_disk):
    source = open_source(zipped(tmp_path / "a.zip", [("a.png", png()), ("labels.csv", "file,age\na.png,3\n")]))
    failing_disk(lambda: source.read("a.png"), source.label_rows)


def test_a_locked_zip_says_so_once(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a.png", png())])
    content = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.zip is locked with a password\. Unpack it"):
        open_source(path)


def test_names_that_a_zip_holds_twice_are_said(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = zipped(tmp_path / "a.zip", [("a.png", png()), ("a.png", png("blue"))])
    data = prepared(path)
    assert data.names == ["a.png"]
    assert data.pixels[0, :, 0, 0].tolist() == [0, 0, 255]
    assert "holds 1 files under names that others have too: of each name the last was taken" in said(data)


@pytest.mark.parametrize(("kind", "name"), [("zip", "."), ("zip", "./."), ("tar", "."), ("tar", "./."), ("tar", "..")])
def test_a_member_that_is_called_like_a_folder_is_left_alone_and_counted(tmp_path, kind, name):
    if kind == "zip":
        path = zipped(tmp_path / "a.zip", [(name, b"odd"), ("set/a.png", png()), ("set/labels.csv", "file,age\na.png,3\n")])
    else:
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as archive:
            for member, content in ((name, b"odd"), ("set/a.png", png())):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    source = open_source(path)
    assert (source.names, source.others) == (["set/a.png"], 1)


def test_a_bomb_in_a_zip_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr("diffae.data.sources.zip.MOST_UNPACKED", 2**16)
    path = zipped(tmp_path / "a.zip", [("a.png", png()), ("bomb.bmp", bytes(2**20))], compression=zipfile.ZIP_DEFLATED)
    assert "bomb.bmp cannot be read (looks like a decompression bomb" in said(prepared(path))


def test_an_array_that_says_it_is_longer_than_its_file_takes_no_room():
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (3, 10**6, 10**6)})
    with pytest.raises(UnusableImage, match="it is cut short"):
        read_image(buffer.getvalue() + bytes(64), "a.npy", size=(8, 8), channels=3, preparation=Preparation())


def test_a_pointer_of_git_lfs_is_called_that(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for name in ("a.png", "a.zip", "a.parquet", "a.tar"):
        (tmp_path / name).write_bytes(pointer)
    with pytest.raises(ValueError, match=r"a.png is a git-lfs pointer, not the file itself: fetch it with `git lfs pull`"):
        load_images([tmp_path / "a.png"], size=(8, 8), channels=3, preparation=Preparation())
    for name in ("a.zip", "a.parquet", "a.tar"):
        with pytest.raises(ValueError, match=rf"{name} is a git-lfs pointer"):
            open_source(tmp_path / name)


@pytest.mark.parametrize("address", ["https://example.com/a.zip", "s3://bucket/faces", "file:///tmp"])
def test_addresses_are_refused_as_what_they_are(address, tmp_path):
    with pytest.raises(FileNotFoundError, match="is an address, which is not opened: download what is there"):
        prepared(address)


FORMS = [
    "PNG",
    "JPEG",
    "GIF",
    "TIFF",
    "BMP",
    "WEBP",
    "PPM",
    "TGA",
    "PCX",
    "ICO",
    "SGI",
    "DDS",
    "IM",
    "JPEG2000",
    "AVIF",
    "MSP",
    "XBM",
]


def pictures():
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    for form in FORMS:
        for mode in ("RGB", "L", "P", "1"):
            buffer = io.BytesIO()
            try:
                Image.fromarray(noise).convert(mode).save(buffer, form)
            except (OSError, KeyError, ValueError, AttributeError):
                continue
            yield f"{form} {mode}", buffer.getvalue()


def test_damage_of_any_kind_is_an_unusable_image_or_a_picture():
    chance, tried = random.Random(0), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _, content in pictures():
            for _ in range(8):
                hurt = bytearray(content)
                for _ in range(chance.randint(1, 4)):
                    hurt[chance.randrange(len(hurt))] = chance.randrange(256)
                hurt = hurt[: chance.choice([len(hurt), chance.randint(1, len(hurt))])]
                tried += 1
                with contextlib.suppress(UnusableImage):
                    array = read_image(bytes(hurt), "a.png", size=(8, 8), channels=3, preparation=Preparation())
                    assert array.shape == (3, 8, 8)
    assert tried > 200


def test_a_picture_whose_notes_are_cut_is_read_or_skipped_but_ends_nothing(tmp_path, capsys):
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, "PNG", exif=exif)
    content = buffer.getvalue()
    at = content.index(b"eXIf")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cut.png").write_bytes(content[: at + 4] + b"II*\0\x08\0\0\0\xff\xff" + content[at + 14 :])
    flat(tmp_path / "set", "good.png", "red")
    assert "good.png" in prepared(tmp_path / "set").names


@settings(max_examples=12)
@given(
    st.dictionaries(st.from_regex(r"[a-zé名 _.-]{1,12}(/[a-z]{1,3})?", fullmatch=True), st.integers(0, 255), min_size=1, max_size=5)
)
def test_folder_and_zip_of_the_same_names_are_the_same_images(tmp_path_factory, pictures):
    root = tmp_path_factory.mktemp("same")
    members = [(f"{name.strip('. /') or 'x'}.png", png((level, 0, 0))) for name, level in pictures.items()]
    members = list(
        {name: (name, content) for name, content in members if not any(p.startswith(".") for p in Path(name).parts)}.values()
    )
    if not members:
        return
    for name, content in members:
        (root / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "folder" / name).write_bytes(content)
    one, other = prepared(root / "folder"), prepared(zipped(root / "a.zip", members))
    assert one.names == other.names
    assert np.array_equal(one.pixels, other.pixels)


def test_a_run_whose_images_moved_says_where_they_were(tiny_run, make_images, tmp_path, capsys, fresh_accelerator):
    from runs import run

    root = make_images(8)
    run(tiny_run(images=8, source=root), tmp_path / "run")
    root.rename(tmp_path / "moved")
    with pytest.raises(SystemExit):
        cli.main(["neighbours", str(tmp_path / "run"), str(tmp_path / "moved" / "000.png")])
    assert "was trained on what was there: name where it is now with --data." in " ".join(capsys.readouterr().err.split())
    events = run(tiny_run(images=16, source=tmp_path / "moved"), tmp_path / "run")
    assert events[0].images == 8
    with pytest.raises(ValueError, match="not those that"):
        run(tiny_run(images=24, source=make_images(9, folder="others")), tmp_path / "run")
