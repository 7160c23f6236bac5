"""Archives, databases and folders of the hostile corpus, each with two good images where it can hold any."""

import io
import os
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

from corpus import picture, saved, zeros

GOOD, EITHER, REFUSED = "good", "either", "refused"
"""What has to come of a source: the good images and, of what else it holds, a line that names it; those or an error; an error."""


@dataclass(frozen=True)
class Archive:
    """A source of images.

    Attributes:
        name: of the file or folder.
        content: its bytes; or what makes the folder, given its place.
        outcome: see above.
        said: what has to be named in what is said.
        num: number of images that are read where it is read.
    """

    name: str
    content: Any
    outcome: str = GOOD
    said: str = ""
    num: int = 2


def _good():
    return saved(picture()[0], "PNG")


def _zip(*members, compression=zipfile.ZIP_DEFLATED, good=True):
    buffer = io.BytesIO()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of names that are there twice.
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for i in range(2 * good):
                archive.writestr(zipfile.ZipInfo(f"good-{i}.png"), _good())
            for name, content in members:
                info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
                info.compress_type = compression
                archive.writestr(info, content)
    return buffer.getvalue()


def _raw_zip(name, packed, size, *, method=8, crc=0, flags=0):
    """A zip of one member beside the good ones, whose headers say what is given."""
    whole = _zip()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        start = archive.start_dir
    end = whole[start:-22]
    encoded = name.encode()
    fields = struct.pack("<HHHHHIII", 20, flags, method, 0, 33, crc, len(packed), size)
    local = b"PK\x03\x04" + fields + struct.pack("<HH", len(encoded), 0) + encoded + packed
    central = b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHHHII", len(encoded), 0, 0, 0, 0, 0, start) + encoded
    directory = end + central
    tail = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 3, 3, len(directory), start + len(local), 0)
    return whole[:start] + local + directory + tail


def _deflated(content):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def zips():
    good, other = _good(), saved(picture("L")[0], "PNG")
    yield Archive("plain.zip", _zip())
    yield Archive(
        "traversal.zip", _zip(("../../../outside.png", other), ("/absolute.png", other), ("C:\\windows.png", other)), num=5
    )
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    yield Archive("symlink.zip", _zip((link, b"../../etc/passwd")), said="link.png")
    device = zipfile.ZipInfo("device.png")
    device.external_attr = 0o020666 << 16
    yield Archive("device.zip", _zip((device, b"")), said="device.png")
    yield Archive("twice.zip", _zip(("good-1.png", good)), said="twice.zip")
    yield Archive("macosx.zip", _zip(("__MACOSX/._good-0.png", b"\0\5\x16\7"), (".DS_Store", b"x")))
    yield Archive("empty-member.zip", _zip(("none.png", b"")), said="none.png")
    yield Archive("folders.zip", _zip(("folder.png/", b""), ("a/b/c/d.png", other)), num=3)
    yield Archive("names.zip", _zip(*((f"{name}.png", other) for name in NAMES)), num=2 + len(NAMES))
    yield Archive("no-images.zip", _zip(("a.txt", b"x"), good=False), REFUSED)
    yield Archive("nothing.zip", _zip(good=False), REFUSED)
    yield Archive("nested.zip", _zip(("inner.zip", _zip())), said="1 file in")
    yield Archive("nested-image.zip", _zip(("inner.png", _zip())), said="inner.png")
    yield Archive("bad-crc.zip", _raw_zip("bad.png", _deflated(other), len(other), crc=1), said="bad.png")
    sound = zlib.crc32(other)
    yield Archive("encrypted.zip", _raw_zip("bad.png", _deflated(other), len(other), crc=sound, flags=1), REFUSED, "password")
    yield Archive("no-deflate.zip", _raw_zip("bad.png", b"\xff" * 99, len(other), crc=sound), said="bad.png")
    yield Archive("method-99.zip", _raw_zip("bad.png", other, len(other), crc=sound, method=99), said="bad.png")
    yield Archive("shorter.zip", _raw_zip("bad.png", _deflated(other), len(other) + 999, crc=sound), EITHER, "bad.png", num=3)
    yield Archive("longer.zip", _raw_zip("bad.png", _deflated(other), 30, crc=sound), said="bad.png")
    yield Archive("no-size.zip", _raw_zip("bad.png", _deflated(other), 0, crc=sound), said="bad.png")
    yield Archive("zip64-lie.zip", _raw_zip("bad.png", _deflated(other), 2**32 - 1, crc=sound), EITHER, "bad.png")
    yield Archive("bomb.zip", _raw_zip("bad.png", zeros(2**30)[2:-4], 2**30), said="bad.png")
    yield Archive("bomb-lie.zip", _raw_zip("bad.png", zeros(2**30)[2:-4], 1000), said="bad.png")
    yield Archive("bomb-npy.zip", _raw_zip("bad.npy", zeros(2**28)[2:-4], 2**28 - 1), said="bad.npy")
    for method, ending in ((zipfile.ZIP_BZIP2, "bz2"), (zipfile.ZIP_LZMA, "lzma"), (zipfile.ZIP_STORED, "stored")):
        whole = _zip(("c.png", other), compression=method)
        yield Archive(f"{ending}.zip", whole, num=3)
        yield Archive(f"{ending}-noise.zip", _damaged(whole, "c.png"), said="c.png")
    whole = _zip(("c.png", other))
    for eighth in range(8):
        yield Archive(f"cut-{eighth}.zip", whole[: len(whole) * eighth // 8], REFUSED, f"cut-{eighth}.zip")
    yield Archive("cut-last.zip", whole[:-1], REFUSED, "cut-last.zip")
    yield Archive("before.zip", b"#!/bin/sh\n" * 50 + whole, num=3)
    yield Archive("behind.zip", whole + b"x" * 100, EITHER, "behind.zip", num=3)
    end = whole.rindex(b"PK\x05\x06")
    yield Archive(
        "count-lie.zip", whole[: end + 8] + struct.pack("<HH", 60000, 60000) + whole[end + 12 :], EITHER, "count-lie.zip", num=3
    )
    yield Archive("offset-lie.zip", whole[: end + 16] + struct.pack("<I", 2**32 - 2) + whole[end + 20 :], REFUSED, "offset-lie.zip")
    yield Archive("directory-noise.zip", whole[: end - 60] + bytes(60) + whole[end:], EITHER, "directory-noise.zip")
    yield Archive("extra-noise.zip", _extra(), EITHER, "extra-noise.zip", num=3)
    yield Archive("text.zip", b"no archive", REFUSED, "text.zip")
    yield Archive("pointer.zip", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", REFUSED, "pointer.zip")
    yield Archive("a-tar.zip", tar_of(), REFUSED, "a-tar.zip")


def _damaged(whole, name):
    """The archive with the data of one member made noise."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        info = archive.getinfo(name)
    start = info.header_offset + 30 + len(name)
    return whole[: start + 10] + b"\xa5" * (info.compress_size - 20) + whole[start + info.compress_size - 10 :]


def _extra():
    info = zipfile.ZipInfo("c.png")
    info.extra = struct.pack("<HH", 0x7075, 9000)
    return _zip((info, saved(picture("L")[0], "PNG")))


NAMES = (
    "日本語",
    "العربية",
    "עברית",
    "e\u0301",
    "\u00e9t\u00e9",
    "😀",
    "\u202egnp.exe",
    "a b",
    "-leading",
    "--out",
    "a'b\"c",
    "a\tb",
    "a\nb",
    "\x1b[31mred",
    "a[bold]b",
    "100%",
    "$HOME",
    "`id`",
    "a;b",
    "a|b",
    "a*b?",
    "\u200b",
    "x" * 200,
    "CON",
    "~",
    "#",
    "a\\b",
    "\ufeffbom",
)
"""Names of files in every script, and with what terminals, shells and markup would act on."""


def tar_of(*members, kind=tarfile.PAX_FORMAT, good=True):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for name, content in ([(f"good-{i}.png", _good()) for i in range(2)] if good else []) + list(members):
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if content is not None:
                info.size = len(content)
            archive.addfile(info, None if content is None else io.BytesIO(content))
    return buffer.getvalue()


def _special(name, kind, target="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


def tars():
    other = saved(picture("L")[0], "PNG")
    yield Archive("plain.tar", tar_of())
    yield Archive("traversal.tar", tar_of(("../../outside.png", other), ("/absolute.png", other)), num=4)
    for name, kind in (
        ("symlink", tarfile.SYMTYPE),
        ("hardlink", tarfile.LNKTYPE),
        ("device", tarfile.CHRTYPE),
        ("fifo", tarfile.FIFOTYPE),
    ):
        yield Archive(f"{name}.tar", tar_of((_special("bad.png", kind, "/etc/passwd"), None)), said="bad.png")
    yield Archive("twice.tar", tar_of(("good-1.png", _good())), said="twice.tar")
    yield Archive("names.tar", tar_of(*((f"{name}.png", other) for name in NAMES)), num=2 + len(NAMES))
    yield Archive("gnu.tar", tar_of(("x" * 150 + ".png", other), kind=tarfile.GNU_FORMAT), num=3)
    yield Archive("empty-member.tar", tar_of(("none.png", b"")), said="none.png")
    yield Archive("macosx.tar", tar_of(("._good-0.png", b"\0\5\x16\7")))
    yield Archive("no-images.tar", tar_of(("a.txt", b"x"), good=False), REFUSED)
    labelled = [(f"{i}.{kind}", content) for i in range(2) for kind, content in (("png", other), ("json", b'{"b": 1}'))]
    yield Archive("labels.tar", tar_of(*labelled), num=4)
    for name, content in {
        "cut": b'{"b": ',
        "deep": b"[" * 100_000,
        "list": b"[1, 2]",
        "number": b"1" * 5000,
        "huge": b'{"b": 1e999}',
        "nan": b'{"b": NaN}',
        "nested": b'{"b": {"c": [1]}}',
        "noise": bytes(range(256)),
        "empty": b"",
        "text": b'{"b": "x"}',
        "twice": b'{"b": 1, "b": 0}',
    }.items():
        yield Archive(f"json-{name}.tar", tar_of(("c.png", other), ("c.json", content)), EITHER, f"json-{name}.tar", num=3)
    for name, content in {
        "text": b"cat",
        "float": b"1.5",
        "empty": b"",
        "deep": b"[" * 100_000,
        "huge": b"9" * 4000,
        "bool": b"true",
    }.items():
        yield Archive(f"cls-{name}.tar", tar_of(("c.png", other), ("c.cls", content)), EITHER, f"cls-{name}.tar", num=3)
    whole = tar_of(("c.png", other))
    for eighth in range(8):
        yield Archive(f"cut-{eighth}.tar", whole[: len(whole) * eighth // 8], EITHER, f"cut-{eighth}.tar", num=3)
    size = bytearray(whole)
    size[124:136] = b"77777777777\0"
    yield Archive("size-lie.tar", bytes(size), EITHER, "size-lie.tar")
    yield Archive("sum-wrong.tar", whole[:148] + b"000000\0 " + whole[156:], REFUSED, "sum-wrong.tar")
    at = 2 * 1024
    yield Archive("sum-wrong-later.tar", whole[: at + 148] + b"000000\0 " + whole[at + 156 :], EITHER, "sum-wrong-later.tar")
    pax = tarfile.TarInfo("p.png")
    pax.pax_headers = {"size": "999999999999"}
    yield Archive("pax-lie.tar", tar_of((pax, other)), EITHER, "pax-lie.tar", num=3)
    sparse = tarfile.TarInfo("s.png")
    sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1099511627776"}
    yield Archive("sparse-lie.tar", tar_of((sparse, other)), EITHER, "sparse-lie.tar", num=3)
    yield Archive("minus.tar", _minus(whole), EITHER, "minus.tar")
    import gzip

    yield Archive("gzip.tar", gzip.compress(whole), REFUSED, "gzip.tar")
    yield Archive("text.tar", b"no archive" * 100, REFUSED, "text.tar")
    yield Archive("zeros.tar", bytes(10240), REFUSED)
    yield Archive("pointer.tar", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", REFUSED, "pointer.tar")


def _minus(whole):
    """A member of size minus 512, in base 256, with a sound checksum."""
    head = bytearray(whole[2048:2560])
    head[124:136] = b"\xff" * 10 + b"\xfe\x00"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return whole[:2048] + bytes(head) + whole[2560:]


def columns():
    """Parquet, Arrow and LMDB as sources."""
    import pyarrow as pa
    import pyarrow.parquet

    good = _good()

    def parquet(table):
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(table, buffer)
        return buffer.getvalue()

    def arrow(table, stream=True):
        buffer = io.BytesIO()
        with (pa.ipc.new_stream if stream else pa.ipc.new_file)(buffer, table.schema) as writer:
            writer.write_table(table)
        return buffer.getvalue()

    table = pa.table({"image": [good, good], "y": [0, 1]})
    whole, stream = parquet(table), arrow(table)
    yield Archive("plain.parquet", whole)
    yield Archive("row-none.parquet", parquet(pa.table({"image": [good, None, good]})), said="00000001")
    yield Archive("row-text.parquet", parquet(pa.table({"image": [good, b"no picture", good]})), said="00000001")
    yield Archive(
        "row-path.parquet",
        parquet(
            pa.table(
                {"image": [{"bytes": good, "path": "a"}, {"bytes": None, "path": "/etc/passwd"}, {"bytes": good, "path": "a"}]}
            )
        ),
        said="00000001",
    )
    yield Archive("row-ragged.parquet", parquet(pa.table({"image": [[[1, 2], [3]], [[1, 2], [3, 4]]]})), REFUSED)
    yield Archive("no-images.parquet", parquet(pa.table({"a": [1, 2]})), REFUSED, "no-images.parquet")
    yield Archive("no-rows.parquet", parquet(pa.table({"image": pa.array([], pa.binary())})), REFUSED)
    yield Archive("two-images.parquet", parquet(pa.table({"a": [good], "b": [good]})), REFUSED, "two-images.parquet")
    twice = pa.Table.from_arrays([pa.array([good]), pa.array([good])], ["image", "image"])
    yield Archive("doubled.parquet", parquet(twice), REFUSED, "doubled.parquet")
    yield Archive(
        "infinite.parquet", parquet(pa.table({"image": [good, good], "y": [1.0, float("inf")]})), REFUSED, "infinite.parquet"
    )
    for name, noted in {
        "noise": b"{cut",
        "list": b"[]",
        "empty": b"{}",
        "wrong": b'{"info": {"features": {"image": 7, "y": {"_type": "ClassLabel", "names": 7}}}}',
        "number": b'{"info": 7}',
        "deep": b"[" * 100_000,
    }.items():
        yield Archive(
            f"noted-{name}.parquet",
            parquet(table.replace_schema_metadata({b"huggingface": noted})),
            EITHER,
            f"noted-{name}.parquet",
        )
    for name, content in {
        "cut": whole[: len(whole) // 2],
        "last": whole[:-1],
        "empty": b"",
        "footer-long": whole[:-8] + b"\xff\xff\xff\x7fPAR1",
        "text": b"no table",
    }.items():
        yield Archive(f"damaged-{name}.parquet", content, REFUSED, f"damaged-{name}.parquet")
    yield Archive("damaged-magic.parquet", b"RAP1" + whole[4:], EITHER, "damaged-magic")
    yield Archive("damaged-footer-noise.parquet", whole[:-300] + bytes(292) + whole[-8:], EITHER, "damaged-footer-noise")
    yield Archive("damaged-pages.parquet", whole[:4] + bytes(100) + whole[104:], EITHER, "damaged-pages")
    yield Archive("plain.arrow", stream)
    yield Archive("file.arrow", arrow(table, stream=False))
    for eighth in range(8):
        yield Archive(f"cut-{eighth}.arrow", stream[: len(stream) * eighth // 8], EITHER, f"cut-{eighth}.arrow")
    yield Archive("noise.arrow", bytes(range(256)) * 8, REFUSED, "noise.arrow")
    yield Archive("length-lie.arrow", b"\xff\xff\xff\xff\xff\xff\xff\x7f" + stream[8:], REFUSED, "length-lie.arrow")
    yield Archive("garbage.lmdb", bytes(range(256)) * 64, REFUSED, "garbage.lmdb")
    yield Archive("empty.lmdb", b"", REFUSED, "empty.lmdb")


def _lmdb(keys):
    def make(place):
        import lmdb

        with lmdb.open(str(place), map_size=2**20) as environment, environment.begin(write=True) as transaction:
            for key, value in keys.items():
                transaction.put(key, value)

    return make


def _lmdb_cut(share):
    def make(place):
        _lmdb({b"0": _good(), b"1": _good(), b"2": os.urandom(0) + bytes(30_000)})(place)
        file = place / "data.mdb"
        whole = file.read_bytes()
        file.write_bytes(whole[: int(len(whole) * share)])

    return make


def _states(text):
    def make(place):
        place.mkdir()
        (place / "state.json").write_text(text)

    return make


def _folder(place):
    """Names in every script, links that lead nowhere, to themselves and out, a pipe, and names that are no UTF-8."""
    place.mkdir()
    good = _good()
    for name in NAMES:
        (place / f"{name}.png").write_bytes(good)
    for i in range(2):
        (place / f"good-{i}.png").write_bytes(good)
    (place / "broken.png").symlink_to("nowhere.png")
    (place / "itself.png").symlink_to("itself.png")
    (place / "passwd.png").symlink_to("/etc/passwd")
    (place / "round").symlink_to(".")
    (place / "folder.png").mkdir()
    with open(os.fsencode(place) + b"/caf\xe9.png", "wb") as file:
        file.write(good)


def _deep(place):
    below = place
    for _ in range(300):
        below = below / "d"
    below.mkdir(parents=True)
    (below / "far.png").write_bytes(_good())
    (place / "near.png").write_bytes(_good())


def _pipe(place):
    place.mkdir()
    for i in range(2):
        (place / f"good-{i}.png").write_bytes(_good())
    os.mkfifo(place / "pipe.png")


def folders():
    good = _good()
    yield Archive("names", _folder, said="UTF-8", num=2 + len(NAMES))
    yield Archive("deep", _deep)
    yield Archive("pipe", _pipe, said="pipe.png")
    yield Archive("nothing", lambda place: place.mkdir(), REFUSED, "nothing")
    yield Archive("lmdb", _lmdb({b"0": good, b"1": good}))
    yield Archive("lmdb-numbers", _lmdb({b"length": b"2", b"256-00000": good, b"256-00001": good}))
    yield Archive("lmdb-bad", _lmdb({b"0": good, b"1": b"no picture", b"2": good}), said="1")
    yield Archive("lmdb-odd-keys", _lmdb({b"\xff\xfe": good, b"../..": good}))
    yield Archive(
        "lmdb-odd-numbers",
        _lmdb({b"length": b"2", b"256-00000": good, b"nonsense": good, b"\xff-1": good}),
        EITHER,
        "lmdb-odd-numbers",
    )
    yield Archive("lmdb-length-lie", _lmdb({b"length": b"200", b"256-00000": good, b"256-00001": good}), EITHER, "lmdb-length-lie")
    yield Archive("lmdb-nothing", _lmdb({}), REFUSED, "lmdb-nothing")
    for share in (0.0, 0.1, 0.5, 0.9):
        yield Archive(f"lmdb-cut-{share:g}", _lmdb_cut(share), EITHER, f"lmdb-cut-{share:g}")
    for name, text in {
        "cut": "{",
        "list": "[]",
        "away": '{"_data_files": [{"filename": "nowhere.arrow"}]}',
        "none": "{}",
        "number": '{"_data_files": 7}',
        "deep": "[" * 100_000,
        "out": '{"_data_files": [{"filename": "../../../../etc/passwd"}]}',
        "no-name": '{"_data_files": [{}]}',
        "null": '{"_data_files": null}',
    }.items():
        yield Archive(f"state-{name}", _states(text), REFUSED, f"state-{name}")


def archives():
    """All sources of the corpus."""
    return [*zips(), *tars(), *columns(), *folders()]
