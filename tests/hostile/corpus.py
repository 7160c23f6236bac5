"""Image files of the hostile corpus: every format and mode that Pillow writes, and what is damaged, cut, lying or a bomb."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL
from PIL import Image

QUADRANTS = ((204, 51, 0), (0, 102, 204), (255, 204, 51), (51, 153, 102))
"""Colours of the four quadrants of every picture, row by row, so that a turned or mirrored one is seen. All are web-safe."""
SIDE = 16
LOSSY = {"JPEG", "MPO", "AVIF", "JPEG2000", "WEBP", "BLP"}


@dataclass(frozen=True)
class File:
    """One file of the corpus.

    Attributes:
        name: what it is called, where it is read.
        content: its bytes.
        corners: (2, 2, 3), what a model has to see in the corners; None where the file must be refused.
        near: by how much a corner may differ, of 255.
        refusable: whether it may be refused as well, by name.
        like: an undamaged file, of which every pixel has to be the same, if this one is read at all.
    """

    name: str
    content: bytes
    corners: Any = None
    near: float = 2.0
    refusable: bool = False
    like: bytes | None = None


def picture(mode="RGB"):
    """The picture of four colours, and what a model has to see of it on white."""
    quadrants = np.array(QUADRANTS, np.uint8).reshape(2, 2, 3)
    rgb = Image.fromarray(quadrants).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    seen = quadrants.astype(float)
    alpha = np.array([[255, 0], [128, 255]], np.uint8)
    grey = np.array([[10, 80], [160, 240]], np.uint8)
    over = alpha[..., None] / 255
    big = lambda a: Image.fromarray(np.kron(a, np.ones((SIDE // 2, SIDE // 2), a.dtype)))  # noqa: E731
    as_grey = np.repeat(grey[..., None].astype(float), 3, axis=2)
    if mode == "RGB":
        return rgb, seen
    if mode in ("RGBA", "RGBa", "PA"):
        image = rgb.copy()
        image.putalpha(big(alpha))
        return image, over * seen + (1 - over) * 255
    if mode == "RGBX":
        return rgb.convert("RGBX"), seen
    if mode == "L":
        return big(grey), as_grey
    if mode in ("LA", "La"):
        return Image.merge("LA", (big(grey), big(alpha))), over * as_grey + (1 - over) * 255
    if mode == "1":
        ones = np.array([[0, 255], [255, 0]], np.uint8)
        return big(ones).convert("1"), np.repeat(ones[..., None].astype(float), 3, axis=2)
    if mode == "P":
        return rgb.quantize(8, dither=Image.Dither.NONE), seen
    if mode == "CMYK":
        return rgb.convert("CMYK"), seen
    if mode == "YCbCr":
        return rgb.convert("YCbCr"), seen
    if mode == "HSV":
        return rgb.convert("HSV"), seen
    if mode == "LAB":
        lab = np.array([[[50, 0, 0], [80, 0, 0]], [[20, 0, 0], [100, 0, 0]]], np.uint8)
        # Lightness alone, of 255: 50 is L* = 19.6, which in sRGB is 47.
        return _lab(lab), np.repeat(np.array([[47.0, 74.0], [23.0, 92.0]])[..., None], 3, axis=2)
    deep = (grey.astype(np.int64) * 257).astype(np.uint16)
    if mode.startswith("I;16"):
        return big(deep), as_grey
    if mode == "I":
        return big(deep.astype(np.int32)), as_grey
    assert mode == "F", mode
    return big(deep.astype(np.float32)), None


def _lab(values):
    return Image.frombytes("LAB", (SIDE, SIDE), np.kron(values, np.ones((8, 8, 1), np.uint8)).tobytes())


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F")
UNREAD = {"PDF", "EPS", "BUFR", "GRIB", "HDF5", "WMF", "PALM"}
"""Formats that Pillow writes, and reads not at all or with a program that may not be there."""


def saved(image, kind, **settings):
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def formats():
    """Every format that Pillow writes, in every mode that it takes."""
    Image.init()
    endings = {kind: ending for ending, kind in reversed(Image.registered_extensions().items())}
    for kind in sorted(Image.SAVE):
        if kind not in endings:
            continue
        for mode in MODES:
            image, seen = picture(mode)
            try:
                content = saved(image, kind)
            except Exception:  # The format does not take this mode.
                continue
            name = f"format-{kind}-{mode.replace(';', '')}{endings[kind]}".lower()
            if mode in ("I", "I;16", "F") and kind in ("AVIF", "GIF", "WEBP"):
                seen = np.full((2, 2, 3), 255.0)  # Pillow clips these as it writes: the file is white.
            elif mode in ("LA", "RGBA") and kind in ("BMP", "DIB", "PPM", "GIF"):
                seen = picture(mode.removesuffix("A"))[1]  # These have no alpha, so it is lost as Pillow writes,
                if kind == "GIF" and mode == "RGBA":
                    seen[0, 1] = 255  # or is one of two values.
            # Of numbers of 32 bits nobody knows which are black and white; raw YCbCr that Pillow writes before its version 13 lacks
            # the tag that says how it is sampled.
            unsaid = ("I", "F") if int(PIL.__version__.split(".")[0]) >= 13 else ("I", "F", "YCbCr")
            unread = kind in UNREAD or (mode in unsaid and kind == "TIFF")
            yield File(name, content, None if unread else seen, near=30.0 if kind in LOSSY else 4.0)


def tiffs():
    image, seen = picture()
    grey, as_grey = picture("L")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "jpeg"):
        try:
            yield File(f"tiff-{compression}.tif", saved(image, "TIFF", compression=compression), seen, near=30.0)
        except OSError:  # This build has no such codec.
            continue
    for compression in ("group3", "group4", "tiff_ccitt"):
        one, black = picture("1")
        yield File(f"tiff-{compression}.tif", saved(one, "TIFF", compression=compression), black)
    yield File("tiff-big.tif", saved(image, "TIFF", big_tiff=True), seen)
    yield File(
        "tiff-tags.tif", saved(grey, "TIFF", tiffinfo={270: "x" * 100000, 305: "\N{SNOWMAN}", 65000: b"\0" * 100000}), as_grey
    )
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", save_all=True, append_images=[image.transpose(Image.Transpose.ROTATE_180)])
    yield File("tiff-two-pages.tif", buffer.getvalue(), seen)


def oriented():
    """The same picture in every orientation that EXIF knows."""
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    image, seen = picture()
    for orientation, turn in back.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = image if turn is None else image.transpose(Image.Transpose(turn))
        for kind, ending in (("JPEG", "jpg"), ("PNG", "png"), ("TIFF", "tif"), ("WEBP", "webp")):
            if kind in ("TIFF", "WEBP") and orientation not in (1, 6):
                continue
            lossless = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
            yield File(f"orientation-{orientation}.{ending}", saved(turned, kind, exif=exif, **lossless), seen, near=12.0)
    exif = Image.Exif()
    exif[0x0112] = 77
    yield File("orientation-77.png", saved(image, "PNG", exif=exif), seen)


def chunk(kind, content, crc=None):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body) if crc is None else crc)


def zeros(num):
    """So many zeros, packed by zlib, without packing them all: pieces that stand alone are repeated."""
    piece, whole = 2**20, zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = whole.compress(bytes(piece)) + whole.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    end = rest.compress(bytes(num % piece)) + rest.flush()
    return b"\x78\xda" + packed * (num // piece) + end + struct.pack(">HH", num % 65521, 1)


SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png(width, height, rows, *, depth=8, colour=2, before=b"", after=b""):
    """A PNG put together by hand."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return SIGNATURE + head + before + chunk(b"IDAT", rows) + after + chunk(b"IEND", b"")


def chunks(content):
    """Where the chunks of a PNG begin."""
    at, places = 8, []
    while at < len(content):
        places.append(at)
        at += 12 + struct.unpack(">I", content[at : at + 4])[0]
    return places


def segments(content):
    """Where the segments of a JPEG begin."""
    at, places = 2, []
    while at < len(content) - 1 and content[at] == 0xFF:
        places.append(at)
        if content[at + 1] in (0xD9, 0xDA):
            break
        at += 2 + struct.unpack(">H", content[at + 2 : at + 4])[0]
    return places


def cut():
    """Files that end where a chunk or segment begins, and within it; and others at each eighth."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[270] = "x" * 40
    pngs = {
        "rgb": saved(noise, "PNG", exif=exif, icc_profile=b"\0" * 200, dpi=(72, 72)),
        "palette": saved(noise.quantize(16), "PNG", transparency=3),
        "deep": saved(Image.fromarray(rng.integers(0, 65535, (24, 24), np.uint16)), "PNG"),
    }
    for kind, whole in pngs.items():
        for i, at in enumerate(chunks(whole)):
            for place, where in (("before", at), ("within", at + 10)):
                if where < len(whole):
                    yield File(f"cut-png-{kind}-{i}-{place}.png", whole[:where], refusable=True, like=whole)
    jpegs = {
        "plain": saved(noise, "JPEG", exif=exif, icc_profile=b"\0" * 200),
        "progressive": saved(noise, "JPEG", progressive=True, comment=b"c" * 30),
    }
    for kind, whole in jpegs.items():
        for i, at in enumerate(segments(whole)):
            for place, where in (("before", at), ("within", at + 6)):
                yield File(f"cut-jpeg-{kind}-{i}-{place}.jpg", whole[:where], refusable=True, like=whole)
    others = {
        "jpg": saved(noise, "JPEG"),
        "webp": saved(noise, "WEBP", lossless=True),
        "gif": saved(noise.quantize(64), "GIF"),
        "bmp": saved(noise, "BMP"),
        "tif": saved(noise, "TIFF"),
        "tiff": saved(noise, "TIFF", compression="tiff_lzw"),
        "ppm": saved(noise, "PPM"),
        "tga": saved(noise, "TGA", compression="tga_rle"),
        "ico": saved(noise, "ICO"),
        "dds": saved(noise, "DDS"),
        "sgi": saved(noise, "SGI"),
        "pcx": saved(noise, "PCX"),
        "im": saved(noise, "IM"),
        "jp2": saved(noise, "JPEG2000"),
        "qoi": saved(noise, "QOI"),
        "icns": saved(noise.resize((32, 32)), "ICNS"),
    }
    for ending, whole in others.items():
        for eighth in range(1, 8):
            content = whole[: len(whole) * eighth // 8]
            yield File(f"cut-{ending}-{eighth}.{ending}", content, refusable=True, like=whole)
        yield File(f"cut-{ending}-last.{ending}", whole[:-1], refusable=True, like=whole)


def lying():
    """Names that lie, headers that lie, and files of other things."""
    image, seen = picture()
    jpeg = saved(image, "JPEG", quality=95, subsampling=0)
    yield File("a-jpeg.png", jpeg, seen, near=12.0)
    yield File("a-png.jpg", saved(image, "PNG"), seen)
    yield File("a-webp.gif", saved(image, "WEBP", lossless=True), seen)
    yield File("SHOUTED.PNG", saved(image, "PNG"), seen)
    yield File("empty.png", b"")
    yield File("empty.npy", b"")
    yield File("text.jpg", b"this is no picture\n" * 20)
    yield File("page.jpg", b"<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>")
    yield File("pointer.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n")
    yield File("pointer.npy", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n")
    yield File("zeros.png", bytes(4096))
    yield File("noise.png", np.random.default_rng(1).bytes(4096))
    yield File("signature.png", SIGNATURE)
    yield File("signature.jpg", b"\xff\xd8\xff\xe0")
    yield File("signature.gif", b"GIF89a")
    yield File("signature.webp", b"RIFF\x10\0\0\0WEBPVP8 ")
    yield File("signature.tif", b"II*\0\x08\0\0\0")
    yield File("program.svg.png", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    yield File("archive.png", b"PK\x03\x04" + bytes(200))
    yield File("gzip.png", b"\x1f\x8b\x08" + bytes(100))
    yield File("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n(x) run\n")
    raw = np.asarray(image)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in raw))
    yield File("by-hand.png", png(16, 16, rows), seen)
    yield File("no-size.png", png(0, 0, rows))
    yield File("wide-lie.png", png(2**31 - 1, 1, rows))
    yield File("taller.png", png(16, 64, rows))
    yield File("wider.png", png(64, 16, rows))
    yield File("depth-3.png", png(16, 16, rows, depth=3))
    yield File("colour-9.png", png(16, 16, rows, colour=9))
    yield File("palette-none.png", png(16, 16, zlib.compress((b"\0" + b"\7" * 16) * 16), colour=3))
    yield File("filter-9.png", png(16, 16, zlib.compress(b"".join(b"\x09" + row.tobytes() for row in raw))))
    yield File("no-zlib.png", png(16, 16, b"no zlib at all"))
    whole = png(16, 16, rows)
    at = chunks(whole)[1]
    flipped = bytearray(whole)
    flipped[at + 8 + len(rows) - 1] ^= 0xFF
    yield File("bad-adler.png", bytes(flipped), refusable=True, like=whole)
    yield File("bad-crc.png", whole[: at + 8 + len(rows)] + b"\0\0\0\0" + whole[at + 12 + len(rows) :], refusable=True, like=whole)
    stored = zlib.compressobj(0)
    plain = stored.compress(b"".join(b"\0" + row.tobytes() for row in raw)) + stored.flush()
    other = bytearray(plain)
    other[300] ^= 0x80
    sound = png(16, 16, plain)
    yield File("flipped-pixel.png", sound.replace(plain, bytes(other)), refusable=True, like=sound)
    head = bytearray(whole)
    head[29] ^= 0xFF
    yield File("bad-head-crc.png", bytes(head), refusable=True, like=whole)
    yield File("no-end.png", whole[:-12], refusable=True, like=whole)
    yield File("more-behind.png", whole + b"trailing" * 100, seen)
    yield File("exif-cut.png", png(16, 16, rows, before=chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12")), seen, refusable=True)
    yield File("exif-noise.png", png(16, 16, rows, before=chunk(b"eXIf", bytes(range(200)))), seen, refusable=True)
    loop = b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
    yield File("exif-loop.png", png(16, 16, rows, before=chunk(b"eXIf", loop)), seen, refusable=True)
    yield File("exif-xmp.png", saved(image, "PNG", pnginfo=_xmp()), seen, refusable=True)
    yield File("icc-huge.png", saved(image, "PNG", icc_profile=np.random.default_rng(2).bytes(2_000_000)), seen, refusable=True)
    text = chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros(80_000_000))
    yield File("text-bomb.png", png(16, 16, rows, before=text), seen, refusable=True)
    yield File("text-many.png", png(16, 16, rows, before=chunk(b"tEXt", b"a\0" + b"b" * 1000) * 2000), seen, refusable=True)
    yield File("icc-bomb.png", png(16, 16, rows, before=chunk(b"iCCP", b"p\0\0" + zeros(80_000_000))), seen, refusable=True)
    yield File(
        "chunk-lie.png",
        SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)) + b"\xff\xff\xff\xffIDAT" + rows,
        seen,
        refusable=True,
    )
    yield File("small.png", saved(Image.new("RGB", (1, 1)), "PNG"))
    yield File("line.png", saved(Image.new("RGB", (4000, 1)), "PNG"))
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "lime")]
    for kind, ending in (("GIF", "gif"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif")):
        buffer = io.BytesIO()
        extra = {"lossless": True} if kind == "WEBP" else {}
        image.save(buffer, kind, save_all=True, append_images=frames, **extra)
        yield File(f"stack.{ending}", buffer.getvalue(), seen, near=3.0)
    buffer = io.BytesIO()
    image.save(buffer, "MPO", save_all=True, append_images=frames[:1], quality=95, subsampling=0)
    yield File("second-view.mpo", buffer.getvalue(), seen, near=12.0)
    clear = picture("P")[0]
    index = clear.getpixel((0, 0))
    on_white = seen.copy()
    on_white[0, 0] = 255
    yield File("clear-index.gif", saved(clear, "GIF", transparency=index), on_white)
    yield File("clear-index.png", saved(clear, "PNG", transparency=index), on_white)
    yield File("clear-colour.png", saved(image, "PNG", transparency=QUADRANTS[0]), on_white)
    grey, as_grey = picture("L")
    clear_grey = as_grey.copy()
    clear_grey[0, 0] = 255
    yield File("clear-grey.png", saved(grey, "PNG", transparency=10), clear_grey)
    yield File(
        "clear-short.png",
        png(16, 16, zlib.compress((b"\0" + bytes(16)) * 16), colour=3, before=chunk(b"PLTE", b"\xff\0\0") + chunk(b"tRNS", b"")),
        np.full((2, 2, 3), (255.0, 0, 0)),
        refusable=True,
    )


def _xmp():
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>99</tiff:Orientation>' * 50)
    return info


def tiff_of(tags, body=b"", order="<"):
    """A TIFF put together by hand: (tag, kind, count, value) each."""
    start = 8
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    out = head + struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        packed = struct.pack(f"{order}H", value) + b"\0\0" if kind == 3 and count == 1 else struct.pack(f"{order}I", value)
        out += struct.pack(f"{order}HHI", tag, kind, count) + packed
    return out + bytes(4) + body


def absurd():
    """TIFF with absurd tags and strips, and other headers that ask for more than there is."""
    place = 8 + 2 + 12 * 9 + 4
    sound = {
        256: (3, 1, 16),
        257: (3, 1, 16),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, place),
        277: (3, 1, 1),
        278: (4, 1, 16),
        279: (4, 1, 256),
    }
    body = bytes(range(256))
    whole = tiff_of([(t, *v) for t, v in sound.items()], body)
    yield File("absurd-none.tif", whole, like=whole)
    wrong = {
        "strips-many": {273: (4, 2**31, place)},
        "strip-far": {273: (4, 1, 2**32 - 1)},
        "strip-long": {279: (4, 1, 2**32 - 1)},
        "strip-empty": {279: (4, 1, 0)},
        "rows-none": {278: (4, 1, 0)},
        "rows-many": {278: (4, 1, 2**32 - 1)},
        "wide": {256: (4, 1, 2**31 - 1)},
        "tall": {257: (4, 1, 2**31 - 1)},
        "none-wide": {256: (3, 1, 0)},
        "depth": {258: (3, 1, 77)},
        "samples": {277: (3, 1, 60000)},
        "compression": {259: (3, 1, 31337)},
        "photometric": {262: (3, 1, 999)},
        "kind": {256: (99, 1, 16)},
        "float-depth": {258: (3, 1, 64)},
        "lzw-not": {259: (3, 1, 5)},
        "jpeg-not": {259: (3, 1, 7)},
        "deflate-not": {259: (3, 1, 8)},
    }
    for name, change in wrong.items():
        yield File(f"absurd-{name}.tif", tiff_of([(t, *v) for t, v in (sound | change).items()], body), refusable=True, like=whole)
    yield File(
        "absurd-cycle.tif", whole[: 8 + 2 + 12 * 9] + struct.pack("<I", 8) + whole[8 + 2 + 12 * 9 + 4 :], refusable=True, like=whole
    )
    yield File("absurd-tags.tif", b"II*\0\x08\0\0\0\xff\xff" + bytes(1000))
    yield File("absurd-offset.tif", b"II*\0\xff\xff\xff\xff" + bytes(1000))


def bombs():
    """Small files that would need far more memory than there should be."""
    yield File("bomb-grey.png", png(60000, 60000, zeros(7501 * 60000), depth=1, colour=0))
    yield File("bomb-above.png", png(13000, 13000, zeros((1 + 3 * 13000) * 13000)))
    yield File("bomb-below.png", png(9400, 9400, zeros((1 + 3 * 9400) * 9400)), np.zeros((2, 2, 3)), refusable=True)
    lzw = b"\x02\x02\x4c\x01\x00"
    yield File(
        "bomb-canvas.gif",
        b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0)
        + bytes(6)
        + b","
        + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
        + lzw
        + b";",
    )
    yield File(
        "bomb.bmp",
        b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
    )
    yield File("bomb.ppm", b"P6 90000 90000 255\n" + bytes(100))
    yield File("bomb.pgm", b"P5\n1000000000000 1000000000000\n255\n" + bytes(100))
    yield File("bomb.webp", b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0/\xff\xff\xff\x0f" + bytes(9))
    yield File("bomb.tga", struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 65535, 65535, 24, 0) + bytes(100))
    yield File("bomb.sgi", struct.pack(">HBBHHHH", 474, 0, 1, 3, 65535, 65535, 3) + bytes(512))
    yield File("bomb.pcx", struct.pack("<BBBBHHHH", 10, 5, 1, 8, 0, 0, 65534, 65534) + bytes(116))
    yield File(
        "bomb.dds",
        b"DDS "
        + struct.pack("<7I", 124, 0x1007, 60000, 60000, 0, 0, 0)
        + bytes(44)
        + struct.pack("<II4s5I", 32, 4, b"DXT1", 0, 0, 0, 0, 0)
        + bytes(20),
    )
    yield File("bomb.qoi", b"qoif" + struct.pack(">IIBB", 2**31, 2**31, 3, 0) + bytes(100))
    yield File("bomb.xpm", b'/* XPM */\nstatic char *a[] = {\n"60000 60000 1 1",\n"a c #000000",\n' + b'"aaa"};')
    yield File(
        "bomb-tiff.tif",
        tiff_of(
            [
                (256, 4, 1, 60000),
                (257, 4, 1, 60000),
                (258, 3, 1, 8),
                (259, 3, 1, 8),
                (262, 3, 1, 1),
                (273, 4, 1, 122),
                (277, 3, 1, 1),
                (278, 4, 1, 60000),
                (279, 4, 1, 100),
            ],
            bytes(100),
        ),
    )


def npy(array, **settings):
    buffer = io.BytesIO()
    np.save(buffer, array, **settings)
    return buffer.getvalue()


def header(text, version=b"\x01\x00"):
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(padded)) + padded


def arrays():
    """`.npy` files: kinds of numbers, orders, lies and pickles."""
    image, seen = picture()
    rgb = np.asarray(image).transpose(2, 0, 1)
    sound = npy(np.ascontiguousarray(rgb))
    yield File("npy-uint8.npy", sound, seen)
    yield File("npy-int8.npy", npy((rgb.astype(int) - 128).astype(np.int8)), seen)
    yield File("npy-fortran.npy", npy(np.asfortranarray(rgb)), seen)
    yield File("npy-uint16.npy", npy(rgb.astype(np.uint16) * 257), seen)
    yield File("npy-big-endian.npy", npy((rgb.astype(np.uint16) * 257).astype(">u2")), seen)
    for kind in ("<f4", ">f4", "<f8", "<f2"):
        yield File(f"npy-{'big' if kind[0] == '>' else 'little'}-{kind[1:]}.npy", npy((rgb / 127.5 - 1).astype(kind)), seen)
    for name, array in {
        "flat": rgb[0],
        "last": rgb.transpose(1, 2, 0),
        "four": rgb[None],
        "none": np.zeros((3, 0, 0), np.uint8),
        "scalar": np.array(1.0),
        "bool": rgb > 100,
        "int32": rgb.astype(np.int32),
        "complex": rgb + 1j,
        "text": np.array([["a"] * 4] * 4),
        "dates": np.zeros((3, 16, 16), "M8[s]"),
        "structured": np.zeros((3, 16, 16), [("a", "u1"), ("b", "f4")]),
        "beyond": rgb.astype(np.float32),
        "nan": np.full((3, 16, 16), np.nan, np.float32),
        "inf": np.full((3, 16, 16), -np.inf),
        "one-nan": np.where(np.arange(768).reshape(3, 16, 16) == 400, np.nan, 0.0),
        "long": np.zeros((3, 16, 16), np.longdouble) + 7,
    }.items():
        yield File(f"npy-{name}.npy", npy(array))
    yield File("npy-objects.npy", npy(np.array([[["a"] * 16] * 16] * 3, object), allow_pickle=True))
    for eighth in range(8):
        yield File(f"npy-cut-{eighth}.npy", sound[: len(sound) * eighth // 8])
    yield File("npy-cut-last.npy", sound[:-1])
    huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1000000, 1000000), }"
    yield File("npy-huge.npy", header(huge) + bytes(100))
    yield File(
        "npy-overflow.npy", header("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 4294967296, 4294967296), }") + bytes(100)
    )
    yield File("npy-minus.npy", header("{'descr': '|u1', 'fortran_order': False, 'shape': (3, -16, -16), }") + bytes(768))
    yield File(
        "npy-nothing-wide.npy", header("{'descr': '|V0', 'fortran_order': False, 'shape': (3, 99999999, 99999), }") + bytes(9)
    )
    yield File("npy-call.npy", header("{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (3, 16, 16), }"))
    yield File("npy-deep.npy", header("(" * 100))
    yield File("npy-extra.npy", header("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 16, 16), 'more': 1}") + bytes(768))
    yield File("npy-version.npy", header(huge, b"\x09\x00") + bytes(100))
    yield File("npy-long-header.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + bytes(100))
    buffer = io.BytesIO()
    np.savez(buffer, rgb)
    yield File("npy-npz.npy", buffer.getvalue())
    yield File("npy-behind.npy", sound + b"more" * 10, seen, refusable=True)


MAKERS = (formats, tiffs, oriented, cut, lying, absurd, bombs, arrays)


def files():
    """All image files of the corpus."""
    return [file for make in MAKERS for file in make()]
