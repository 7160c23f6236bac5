"""Label tables of the hostile corpus. All are about four images, 0.png to 3.png, of which the attribute `a` is 1, 0, 1, 0."""

import io
from dataclasses import dataclass

NAMES = ("0.png", "1.png", "2.png", "3.png")
A = (1.0, 0.0, 1.0, 0.0)
RIGHT, REFUSED, SAID = "right", "refused", "said"
"""What a table has to lead to: `a` as it is and nothing else; one error that names the table; or `a`, and a note that names it."""


@dataclass(frozen=True)
class Table:
    """A table, and what has to come of it.

    Attributes:
        name: of its file.
        content: its bytes.
        outcome: see above.
        others: further attributes that it gives.
    """

    name: str
    content: bytes
    outcome: str
    others: tuple[str, ...] = ()


PLAIN = "file,a\n0.png,1\n1.png,0\n2.png,1\n3.png,0\n"


def csvs():
    """Text: encodings, separators, cells that are not there, and numbers that are none."""
    text = {
        "plain": (PLAIN, RIGHT),
        "crlf": (PLAIN.replace("\n", "\r\n"), RIGHT),
        "cr": (PLAIN.replace("\n", "\r"), RIGHT),
        "blank-lines": (PLAIN.replace("\n", "\n\n"), RIGHT),
        "no-end": (PLAIN.rstrip(), RIGHT),
        "semicolons": (PLAIN.replace(",", ";"), RIGHT),
        "tabs": (PLAIN.replace(",", "\t"), RIGHT),
        "pipes": (PLAIN.replace(",", "|"), REFUSED),
        "spaces": (PLAIN.replace(",", ", "), RIGHT),
        "quoted": ('"file","a"\n"0.png","1"\n"1.png","0"\n"2.png","1"\n"3.png","0"\n', RIGHT),
        "quote-open": (PLAIN.replace("1.png", '"1.png'), REFUSED),
        "quote-within": (PLAIN.replace("1.png,", '"1.p"ng,'), REFUSED),
        "doubled": ("file,a,a\n0.png,1,0\n1.png,0,1\n2.png,1,1\n3.png,0,0\n", REFUSED),
        "doubled-file": ("file,file,a\n0.png,0.png,1\n", REFUSED),
        "surplus": (PLAIN.replace("1.png,0", "1.png,0,5"), REFUSED),
        "decimal-comma": (PLAIN.replace("1.png,0", "1.png,3,5"), REFUSED),
        "missing-cell": (PLAIN.replace("1.png,0", "1.png"), REFUSED),
        "no-file": (PLAIN.replace("file", "image"), REFUSED),
        "no-header": (PLAIN.partition("\n")[2], REFUSED),
        "only-header": ("file,a\n", REFUSED),
        "empty": ("", REFUSED),
        "space": (" \n \n", REFUSED),
        "same-row": (PLAIN + "0.png,1\n", REFUSED),
        "other-row": (PLAIN + "0.png,0\n", REFUSED),
        "same-row-dot": (PLAIN + "./0.png,0\n", REFUSED),
        "empty-file": (PLAIN + ",1\n", REFUSED),
        "others": ("file,a\nx.png,1\ny.png,0\n", REFUSED),
        "row-more": (PLAIN + "4.png,1\n", SAID),
        "in-folder": (PLAIN.replace(".png", ".png").replace("\n", "\nphotos/", 4), REFUSED),
        "dot-slash": (PLAIN.replace("\n", "\n./", 4), RIGHT),
        "infinite": (PLAIN.replace("1.png,0", "1.png,inf"), REFUSED),
        "minus-infinite": (PLAIN.replace("1.png,0", "1.png,-Infinity"), REFUSED),
        "overflow": (PLAIN.replace("1.png,0", "1.png,1e999"), REFUSED),
        "underscore": (PLAIN.replace("1.png,0", "1.png,1_0"), REFUSED),
        "hexadecimal": (PLAIN.replace("1.png,0", "1.png,0x10"), REFUSED),
        "formula": (PLAIN.replace("1.png,0", "1.png,=1-1"), REFUSED),
        "digits-of-others": (PLAIN.replace("1.png,0", "1.png,\u0660"), REFUSED),
        "words": (PLAIN.replace(",1", ",True").replace(",0", ",False"), RIGHT),
        "index": (",file,a\n0,0.png,1\n1,1.png,0\n2,2.png,1\n3,3.png,0\n", SAID),
        "unnamed": ("Unnamed: 0,file,a\n0,0.png,1\n1,1.png,0\n2,2.png,1\n3,3.png,0\n", SAID),
        "text-column": ("file,a,who\n0.png,1,Ann\n1.png,0,Bob\n2.png,1,Cid\n3.png,0,Dan\n", SAID),
        "signed": (PLAIN.replace(",0", ",-1"), SAID),
        "nan-named": ("file,a,b\n0.png,1,nan\n1.png,0,1\n2.png,1,0\n3.png,0,1\n", RIGHT, ("b",)),
        "backslashes": (PLAIN.replace("0.png", ".\\0.png"), RIGHT),
        "group-alone": ("file,a,group\n0.png,1,x\n1.png,0,\n2.png,1,x\n3.png,0,\n", SAID),
        "long-cell": (PLAIN.replace("1.png,0", "1.png," + "9" * 200_000), REFUSED),
        "long-number": (PLAIN.replace("1.png,0", "1.png," + "9" * 400), REFUSED),
        "names-of-columns": (
            "file,a,../../etc,<b>,[red]\n0.png,1,1,1,1\n1.png,0,0,0,0\n2.png,1,0,1,0\n3.png,0,1,0,1\n",
            RIGHT,
            ("../../etc", "<b>", "[red]"),
        ),
        "zero-byte": (PLAIN.replace("1.png,0", "1.png,\0"), REFUSED),
        "control": (PLAIN.replace("1.png,0", "1.png,\x1b[31m0"), REFUSED),
        "wide": (
            "file,a,"
            + ",".join(f"c{i}" for i in range(10_000))
            + "\n"
            + "".join(f"{n},{v:g}" + ",1" * 10_000 + "\n" for n, v in zip(NAMES, A, strict=True)),
            RIGHT,
            tuple(f"c{i}" for i in range(10_000)),
        ),
        "page": ("<!DOCTYPE html><html><body><h1>404</h1></body></html>\n", REFUSED),
        "json": ('{"0.png": 1}', REFUSED),
        "pointer": ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", REFUSED),
    }
    for name, (content, outcome, *others) in text.items():
        yield Table(f"{name}.csv", content.encode(), outcome, *others)
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        yield Table(f"{encoding}.csv", PLAIN.encode(encoding), RIGHT)
    yield Table("utf-16-bare.csv", PLAIN.encode("utf-16-le"), REFUSED)
    yield Table("latin-1.csv", PLAIN.replace("1.png", "é.png").encode("latin-1"), REFUSED)
    yield Table("spreadsheet.csv", b"PK\x03\x04" + bytes(200), REFUSED)
    yield Table("noise.csv", bytes(range(256)) * 8, REFUSED)
    yield Table("celeba.txt", b"4\na b\n0.png 1 1\n1.png -1 -1\n2.png 1 -1\n3.png -1 1\n", RIGHT, ("b",))
    for name, content in {
        "cut": b"4\na b\n0.png 1 1\n",
        "count": b"400\na\n0.png 1\n1.png -1\n2.png 1\n3.png -1\n",
        "no-count": b"a\n0.png 1\n1.png -1\n",
        "cell": b"4\na\n0.png 1\n1.png -1\n2.png\n3.png -1\n",
        "value": b"4\na\n0.png 1\n1.png 0\n2.png 1\n3.png -1\n",
        "doubled": b"4\na a\n0.png 1 1\n1.png -1 1\n2.png 1 1\n3.png -1 1\n",
        "empty": b"",
        "huge-count": b"9" * 5000 + b"\na\n0.png 1\n",
        "odd-count": "\u00b2\na\n0.png 1\n1.png -1\n".encode(),
        "twice": b"4\na\n0.png 1\n0.png -1\n2.png 1\n3.png -1\n",
    }.items():
        yield Table(f"celeba-{name}.txt", content, REFUSED)


def parquets():
    """Parquet: kinds of columns, and damage."""
    import pyarrow as pa
    import pyarrow.parquet

    def written(**columns):
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pa.table({"file": list(NAMES)} | columns), buffer)
        return buffer.getvalue()

    whole = written(a=list(A))
    yield Table("plain.parquet", whole, RIGHT)
    yield Table("bools.parquet", written(a=[bool(v) for v in A]), RIGHT)
    yield Table("strings.parquet", written(a=["1", "0", "1", "0"]), RIGHT)
    yield Table("text.parquet", written(a=list(A), who=list("abcd")), SAID)
    yield Table("lists.parquet", written(a=list(A), b=[[1]] * 4), SAID)
    yield Table("nested.parquet", written(a=list(A), b=[{"c": 1}] * 4), SAID)
    yield Table("infinite.parquet", written(a=[1.0, float("inf"), 1.0, 0.0]), REFUSED)
    yield Table("none.parquet", written(a=list(A), b=[None] * 4), RIGHT, ("b",))
    yield Table("dates.parquet", written(a=list(A), b=pa.array([1, 2, 3, 4], pa.timestamp("s"))), SAID)
    yield Table("huge.parquet", written(a=list(A), b=pa.array([10**37] * 4, pa.decimal128(38))), RIGHT, ("b",))
    yield Table("dictionary.parquet", written(a=pa.array(["1", "0", "1", "0"]).dictionary_encode()), RIGHT)
    yield Table("binary.parquet", written(a=list(A), b=[b"\xff"] * 4), SAID)
    doubled = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_arrays([pa.array(NAMES), pa.array(A), pa.array(A)], ["file", "a", "a"]), doubled)
    yield Table("doubled.parquet", doubled.getvalue(), REFUSED)
    numbers = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"file": [0, 1, 2, 3], "a": list(A)}), numbers)
    yield Table("numbers-as-files.parquet", numbers.getvalue(), REFUSED)
    empty = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"file": pa.array([], pa.string()), "a": pa.array([], pa.float64())}), empty)
    yield Table("empty-rows.parquet", empty.getvalue(), REFUSED)
    for name, content in {
        "cut": whole[: len(whole) // 2],
        "last": whole[:-1],
        "none": b"",
        "text": b"file,a\n0.png,1\n",
        "footer-long": whole[:-8] + b"\xff\xff\xff\x7fPAR1",
        "footer-noise": whole[:-200] + bytes(192) + whole[-8:],
        "pages-noise": whole[:4] + bytes(60) + whole[64:],
    }.items():
        yield Table(f"damaged-{name}.parquet", content, REFUSED)


def tables():
    """All tables of the corpus."""
    return [*csvs(), *parquets()]
