"""The hostile corpus against the commands: never a traceback, never a wrong number unsaid, never more than 1 GiB.

`make test` takes all files where a file costs nothing, and some where each is a command; `make soak` takes all everywhere.
"""

import contextlib
import io
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import corpus
import corpus_archives
import corpus_models
import corpus_tables
import numpy as np
import pytest
from corpus_archives import EITHER, GOOD, REFUSED

import diffae
from diffae import cli
from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import DataConfig
from diffae.data import prepare
from diffae.interop.weights import save_calibration

CHECKPOINT = Path(__file__).parent.parent / "fixtures" / "official" / "last.ckpt"


def some(every):
    """Each so-maniest case in `make test`, every one in `make soak`."""
    return pytest.mark.parametrize("every", [pytest.param(every, id="some"), pytest.param(1, marks=pytest.mark.soak, id="all")])


@pytest.fixture(scope="module")
def place(tiny, tmp_path_factory):
    """A folder with a model, attributes and a calibration beside it, images, an edit and a checkpoint of the authors' code."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "images").mkdir()
    for i in range(8):
        corpus.picture()[0].rotate(90 * i).save(root / "images" / f"{i}.png")
    for name in corpus_tables.NAMES:
        (root / "four").mkdir(exist_ok=True)
        shutil.copy(root / "images" / name, root / "four" / name)
    (root / "labels.csv").write_text("file,y\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(8)))
    ae = DiffusionAutoencoder(tiny).eval()
    ae.save_pretrained(root / "model")
    save_calibration(ae, root / "model")
    shutil.copy(CHECKPOINT, root / "last.ckpt")
    code, text = run("fit-attributes", root / "model", "--data", root / "images", "--labels", root / "labels.csv")
    assert code == 0, text
    from diffae.studio.workshop import OpenImage, Visit

    shop = workshop(root)
    opened = OpenImage(shop.ae, shop.open_files([root / "images" / "0.png"]))
    edit = shop.edit_of(Visit(opened=opened, z_sem=opened.code.z_sem + 0.1, asked={"strengths": {"y": 0.3}}))
    (root / "edit.json").write_text(edit.to_json())
    return root


def workshop(root):
    pytest.importorskip("gradio")
    from diffae.studio.workshop import Workshop

    return Workshop(diffae.load(root / "model"), None, None, name="model")


def run(*argv):
    """A command's exit code and all that it said; whatever else it raises is a fault, which pytest shows."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            cli.main([str(word) for word in argv])
        except SystemExit as end:
            return end.code, said.getvalue()
    return 0, said.getvalue()


class Found:
    """What was tried, and what was wrong.

    Attributes:
        faults: case -> what happened.
    """

    def __init__(self, command):
        self.command, self.names, self.faults = command, [], {}
        self.tracebacks = self.silent = self.unclear = 0

    def command_of(self, name, *argv):
        """Runs a command and returns its exit code and words; None where there was a traceback."""
        self.names.append(name)
        try:
            code, said = run(*argv)
        except Exception as error:
            self.traceback(name, error)
            return None
        if code not in (0, 1) or (code == 1 and said.count("error:") != 1):
            self.unsaid(name, f"ended with {code} and {said[-200:]!r}")
        return code, said

    def traceback(self, name, error):
        self.tracebacks += 1
        self.faults[name] = f"traceback: {type(error).__name__}: {error}"

    def wrong(self, name, what):
        self.silent += 1
        self.faults[name] = f"silent: {what}"

    def unsaid(self, name, what):
        self.unclear += 1
        self.faults[name] = f"unclear: {what}"

    def end(self):
        """Shows what was found, and fails where anything is wrong."""
        print(
            f"{self.command}: {len(self.names)} tried, {self.tracebacks} tracebacks, {self.silent} silent, {self.unclear} that do "
            "not name the file"
        )
        assert not self.faults, "\n".join(f"{name}: {what[:300]}" for name, what in self.faults.items())


def seen(array):
    """The corners, as values of 0..255, of an image in [-1, 1]."""
    return ((array + 1) * 127.5)[:, ::7, ::7].transpose(1, 2, 0)


def judge(found, file, pixels, told, whole):
    """Looks at what was read of an image file: (c, h, w) in [-1, 1], or None where it was refused by name."""
    if pixels is None:
        must = file.corners is not None or file.like == file.content
        if must and not file.refusable:
            found.wrong(file.name, f"is sound, and was refused: {told}")
    elif file.like is not None:
        most = np.abs(pixels - whole(file)).max() * 127.5
        if most > 1 and not told:
            found.wrong(file.name, f"is damaged, and was read with pixels off by {most:.0f}")
    elif file.corners is None:
        if not told:
            found.wrong(file.name, f"is none that can be right, and was read as {seen(pixels).round().tolist()}")
    elif np.abs(seen(pixels) - file.corners).max() > file.near:
        found.wrong(file.name, f"was read as {seen(pixels).round().tolist()}, where {np.round(file.corners).tolist()} is right")


@pytest.fixture(scope="module")
def files():
    """All image files but those that need much memory, of which one of their own is run below."""
    made = [file for file in corpus.files() if file.name != "bomb-below.png"]
    assert len({file.name.lower() for file in made}) == len(made) > 400
    return made


def test_every_image_file_that_is_uploaded_is_right_or_refused_by_name(place, files, tmp_path):
    found, shop = Found("studio, Workshop.open_files"), workshop(place)

    def opened(name, content, told):
        (tmp_path / name).write_bytes(content)
        return shop.open_files([tmp_path / name], told.append)[0].numpy()

    for file in files:
        found.names.append(file.name)
        told = []
        try:
            pixels = opened(file.name, file.content, told)
        except (ValueError, OSError) as error:
            if file.name not in str(error) or str(tmp_path) in str(error):
                found.unsaid(file.name, error)
            pixels, told = None, [str(error)]
        except Exception as error:
            found.traceback(file.name, error)
            continue
        judge(found, file, pixels, told, lambda file: opened(f"whole-{file.name}", file.like, []))
    found.end()


def test_a_folder_of_all_image_files_is_encoded_but_for_those_that_are_named(place, files, tmp_path):
    import pyarrow.parquet

    found = Found("encode, a folder of all images")
    folder = tmp_path / "all"
    folder.mkdir()
    for file in files:
        (folder / file.name).write_bytes(file.content)
    code, said = found.command_of("all", "encode", place / "model", folder, "--out", tmp_path / "codes.parquet")
    assert code == 0, said
    found.names = [file.name for file in files]
    data = prepare(DataConfig(source=str(folder), validation=0.0), size=(8, 8), channels=3)
    assert pyarrow.parquet.read_table(tmp_path / "codes.parquet")["file"].to_pylist() == data.names
    index = json.loads(next((Path(str(tmp_path / "cache")) / "pixels").glob("*/index.json")).read_text())
    skipped, told = dict(index["skipped"]), {first for _, first in index["told"].values()}
    assert f"{len(skipped)} of {len(files)} images were skipped" in " ".join(said.split())
    assert len(skipped) + len(data.names) == len(files)
    wholes = {}

    def whole(file):
        if file.like not in wholes:
            (tmp_path / "whole").mkdir(exist_ok=True)
            (tmp_path / "whole" / file.name).write_bytes(file.like)
            from diffae.data.images import load_images

            preparation = DataConfig(source="").preparation
            path = tmp_path / "whole" / file.name
            wholes[file.like] = load_images([path], size=(8, 8), channels=3, preparation=preparation, warn=print)[0].numpy()
        return wholes[file.like]

    rows = dict(zip(data.names, range(len(data.names)), strict=True))
    for file in files:
        pixels = data.images([rows[file.name]])[0].numpy() if file.name in rows else None
        words = [skipped[file.name]] if file.name in skipped else [name for name in told if name == file.name]
        judge(found, file, pixels, words, whole)
    found.end()


@some(40)
def test_a_command_on_one_image_file_is_right_or_one_error_that_names_it(place, files, tmp_path, every):
    found = Found("manipulate, reconstruct, one image each")
    for i, file in enumerate(files[::every]):
        (tmp_path / file.name).write_bytes(file.content)
        words = ("manipulate", place / "model", "--attribute", "y", "--steps", "2")
        if i % 2:
            words = ("reconstruct", place / "model", "--steps", "2")
        out = ("--out", tmp_path / "out.png")
        # What begins with a dash is an option to every command: it is named by a path.
        if (ended := found.command_of(file.name, *words, tmp_path / file.name, *out)) is None:
            continue
        code, said = ended
        if code == 1 and file.name not in said:
            found.unsaid(file.name, said[-200:])
        if code == 1 and file.corners is not None and not file.refusable:
            found.wrong(file.name, f"is sound, and was refused: {said[-200:]}")
    found.end()


def labels_right(table, labels):
    return set(labels) == {"a", *table.others} and labels["a"].tolist() == list(corpus_tables.A)


def test_every_table_is_read_right_or_refused_by_name(place, tmp_path):
    found = Found("prepare, label tables")
    for table in corpus_tables.tables():
        found.names.append(table.name)
        file = tmp_path / table.name
        file.write_bytes(table.content)
        try:
            settings = DataConfig(source=str(place / "four"), labels=str(file), validation=0.0)
            data = prepare(settings, size=(8, 8), channels=3)
        except (ValueError, OSError) as error:
            if table.outcome != corpus_tables.REFUSED:
                found.wrong(table.name, f"was refused: {error}")
            elif table.name not in str(error):
                found.unsaid(table.name, error)
        except Exception as error:
            found.traceback(table.name, error)
        else:
            notes = [note for note in data.notes if table.name in note]
            if table.outcome == corpus_tables.REFUSED or not labels_right(table, data.labels):
                found.wrong(table.name, f"was read as {str(data.labels)[:200]}")
            elif (table.outcome == corpus_tables.SAID) != bool(notes):
                found.wrong(table.name, f"was read with the notes {data.notes}")
    found.end()


@some(12)
def test_a_command_on_a_table_is_right_or_one_error_that_names_it(place, tmp_path, every):
    found = Found("encode, fit-attributes, a label table each")
    shutil.copytree(place / "model", tmp_path / "model")
    for i, table in enumerate(corpus_tables.tables()[::every]):
        (tmp_path / table.name).write_bytes(table.content)
        last = ("--labels", tmp_path / table.name)
        words = ("encode", tmp_path / "model", place / "four", *last, "--out", tmp_path / "codes.parquet")
        if i % 2 and len(table.others) < 100:
            words = ("fit-attributes", tmp_path / "model", "--data", place / "four", *last)
        if (ended := found.command_of(table.name, *words)) is None:
            continue
        code, said = ended
        if (code == 1) != (table.outcome == corpus_tables.REFUSED) and words[0] == "encode":
            found.wrong(table.name, f"ended with {code}: {said[-200:]}")
        elif code == 1 and table.outcome == corpus_tables.REFUSED and table.name not in said:
            found.unsaid(table.name, said[-200:])
    found.end()


HEAVY = ("bomb.zip", "bomb-lie.zip", "bomb-npy.zip")
"""Sources that need memory, if they are not refused; run where it is measured, and in `make soak`."""


APART = ("minus.tar", "pipe", "lmdb-cut-0.1", "lmdb-cut-0.5", "lmdb-cut-0.9")
"""Sources that an unwary reader reads for ever, or that end its process: each in one of its own."""


def make(archive, folder):
    path = folder / archive.name
    if callable(archive.content):
        archive.content(path)
    else:
        path.write_bytes(archive.content)
    return path


def test_every_source_of_images_is_read_right_or_refused_by_name(tmp_path):
    found = Found("prepare, archives and folders")
    # Every image in them is one of these two.
    colour, grey = (corpus.picture(mode)[1].transpose(2, 0, 1) for mode in ("RGB", "L"))
    for archive in (a for a in corpus_archives.archives() if a.name not in HEAVY + APART):
        found.names.append(archive.name)
        try:
            data = prepare(DataConfig(source=str(make(archive, tmp_path)), validation=0.0), size=(8, 8), channels=3)
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            if archive.outcome == GOOD:
                found.wrong(archive.name, f"was refused: {error}")
            elif archive.name not in str(error) or archive.said not in str(error):
                found.unsaid(archive.name, f"{type(error).__name__}: {error}")
            continue
        except Exception as error:
            found.traceback(archive.name, error)
            continue
        said = " ".join(data.notes)
        read = {name: pixels[:, ::7, ::7] for name, pixels in zip(data.names, data.pixels, strict=True)}
        off = {
            name: [np.abs(x - right).max() for right in (colour, grey)[: 1 if "good" in name else 2]] for name, x in read.items()
        }
        if archive.outcome == REFUSED:
            found.wrong(archive.name, f"was read: {data.names}")
        elif any(min(most) > 1 for most in off.values()):
            found.wrong(archive.name, "its images are not what they are")
        elif archive.outcome == GOOD and (archive.said not in said or len(data.names) != archive.num):
            found.wrong(archive.name, f"was read as {data.names}, with the notes {data.notes}")
        elif archive.outcome == EITHER and len(data.names) != archive.num and archive.said not in said:
            found.wrong(archive.name, f"{archive.num - len(data.names)} of its images are gone without a word: {data.notes}")
    found.end()


@some(16)
def test_a_command_on_a_source_is_right_or_one_error_that_names_it(place, tmp_path, every):
    found = Found("encode, train, an archive or folder each")
    net = "--model.{}.base-channels 8 --model.{}.channel-mult 1 2 --model.{}.blocks-per-level 1 --model.{}.attention-resolutions 4"
    model = " ".join(net.replace("{}", name) for name in ("unet", "encoder"))
    settings = f"--images 4 --model.image-size 8 8 --model.z-dim 6 --model.unet.embed-channels 16 {model}".split()
    settings += "--training.batch-size 2 --training.precision float32 --data.validation 0".split()
    for i, archive in enumerate([a for a in corpus_archives.archives() if a.name not in APART + HEAVY * (every > 1)][::every]):
        path = make(archive, tmp_path)
        words = ("encode", place / "model", path, "--out", tmp_path / "codes.parquet")
        if i % 8 == 1:
            words = ("train", path, "--out", tmp_path / f"run-{i}", *settings)
        if (ended := found.command_of(archive.name, *words)) is None:
            continue
        code, said = ended
        if code != (archive.outcome == REFUSED) and archive.outcome != EITHER:
            found.wrong(archive.name, f"ended with {code}: {said[-200:]}")
        elif code == 1 and archive.name not in said:
            found.unsaid(archive.name, said[-200:])
        elif archive.outcome == GOOD and archive.said not in said:
            found.wrong(archive.name, f"does not name {archive.said}: {said[-200:]}")
    found.end()


def damaged(found, damages, place, folder, command, result):
    """Runs a command on each damaged file, and compares what it writes with what it writes of the undamaged one."""
    whole = run(*command(place))
    assert whole[0] == 0, whole[1]
    right = result.read_bytes()
    for damage in damages:
        shutil.rmtree(folder, ignore_errors=True)
        if damage.file in ("edit.json", "last.ckpt"):
            folder.mkdir()
            shutil.copy(place / damage.file, folder)
        else:
            shutil.copytree(place / "model", folder / "model")
        file = folder / ("model" if (folder / "model").is_dir() else "") / damage.file
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            damage.do(file)
        result.unlink(missing_ok=True)
        if (ended := found.command_of(damage.name, *command(folder))) is None:
            continue
        code, said = ended
        error = said.rpartition("error:")[2]
        if code == 1 and damage.outcome == corpus_models.SAME:
            found.wrong(damage.name, f"was refused: {error}")
        elif code == 1 and not any(
            name in error
            for name in (
                damage.file,
                "no edit that the studio",
                "This edit",
                "Expected images",
                "One of them is",
                "does not fit config.json",
            )
        ):
            found.unsaid(damage.name, error)
        elif code == 0 and damage.outcome == REFUSED:
            found.wrong(damage.name, f"was taken: {said}")
        elif code == 0 and damage.file != "last.ckpt" and result.read_bytes() != right and Path(damage.file).name not in said:
            found.wrong(damage.name, "was taken, and the picture is another")


@some(8)
def test_a_damaged_model_gives_the_same_picture_or_one_error_that_names_the_file(place, tmp_path, every):
    found = Found("reconstruct, a damaged model each")
    out = tmp_path / "out.png"

    def command(folder):
        return "reconstruct", folder / "model", place / "images" / "0.png", "--steps", "2", "--out", out

    damaged(found, corpus_models.models()[::every], place, tmp_path / "work", command, out)
    found.end()


@some(6)
def test_a_damaged_edit_gives_the_same_picture_or_one_error(place, tmp_path, every):
    found = Found("manipulate --from, a damaged edit each")
    out = tmp_path / "out.png"

    def command(folder):
        return "manipulate", place / "model", "--from", folder / "edit.json", "--out", out

    damaged(found, list(corpus_models.edits())[::every], place, tmp_path / "work", command, out)
    found.end()


@some(10)
def test_a_hostile_checkpoint_is_imported_right_or_one_error_that_names_it(place, tmp_path, monkeypatch, every):
    found = Found("import, a hostile checkpoint each")
    monkeypatch.chdir(tmp_path)

    def command(folder):
        return "import", folder / "last.ckpt", "--out", tmp_path / "imported"

    result = tmp_path / "imported" / "model.safetensors"
    damaged(found, list(corpus_models.checkpoints())[::every], place, tmp_path / "work", command, result)
    assert not (tmp_path / "was_run").exists(), "a pickle ran code"
    found.end()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs pipes with names")
@pytest.mark.parametrize("name", APART)
def test_no_source_is_read_for_ever_or_ends_the_process(place, tmp_path, name):
    (archive,) = (a for a in corpus_archives.archives() if a.name == name)
    words = ["encode", place / "model", make(archive, tmp_path), "--out", tmp_path / "codes.parquet"]
    ended = subprocess.run([sys.executable, "-m", "diffae", *map(str, words)], capture_output=True, text=True, timeout=120)
    assert ended.returncode in (0, 1), ended.stderr
    assert archive.said in ended.stderr
    assert "Traceback" not in ended.stderr


PEAK = """
import sys, warnings
warnings.simplefilter("ignore")
from diffae import cli
from diffae.runtime import memory
cli.main(["encode", sys.argv[1], sys.argv[2], "--out", sys.argv[4]])
before = memory.peak()
for source in sys.argv[5:]:
    try:
        cli.main(["encode", sys.argv[1], source, "--out", sys.argv[4]])
    except SystemExit:
        pass
    print("peak", source, memory.peak() - before, flush=True)
"""


@pytest.mark.soak
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_no_bomb_takes_more_than_a_gibibyte(place, tmp_path):
    bombs = tmp_path / "bombs"
    bombs.mkdir()
    for file in corpus.files():
        if "bomb" in file.name or "huge" in file.name or "absurd" in file.name:
            (bombs / file.name).write_bytes(file.content)
    shutil.copy(place / "images" / "0.png", bombs / "good.png")
    archives = [a for a in corpus_archives.archives() if "bomb" in a.name or "-lie" in a.name]
    sources = [bombs] + [make(a, tmp_path) for a in archives]
    words = [sys.executable, "-c", PEAK, place / "model", place / "images", "", tmp_path / "codes.parquet", *sources]
    ended = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=600)
    peaks = {Path(line.split()[1]).name: float(line.split()[2]) for line in ended.stdout.splitlines() if line.startswith("peak")}
    print("\n".join(f"{name}: {peak:.2f} GiB more at the most" for name, peak in peaks.items()))
    assert len(peaks) == len(sources), ended.stderr
    assert max(peaks.values()) < 1, peaks
