"""The studio without its page: many images edited together, many attributes, the time left, and the memory that a visit takes."""

import concurrent.futures
import csv
import gc
import io
import json
import shutil
import sys
import warnings
import zipfile
from dataclasses import replace
from types import FunctionType, ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

gr = pytest.importorskip("gradio", reason="The studio's tests need gradio: pip install 'diffae[studio]'.")

from shops import small

from diffae.autoencoder import DiffusionAutoencoder
from diffae.data.images import stem
from diffae.pictures import save_png, to_pil
from diffae.semantics.attributes import Attributes, Score
from diffae.studio import visit as visits
from diffae.studio.app import _within_a_loop, build
from diffae.studio.batch import Edited, edit_all, read
from diffae.studio.display import MOST_BARS, bars, enlarged
from diffae.studio.examples import codes_of_examples, from_examples
from diffae.studio.page import ANY, HOURS, Page
from diffae.studio.panels.sliders import slider_list, strengths
from diffae.studio.progress import TimeLeft, duration_text
from diffae.studio.uploads import Uploads
from diffae.studio.visit import OpenImage, Visit

pytestmark = pytest.mark.filterwarnings("ignore:x_T has a standard deviation")  # These networks were never trained.


@pytest.fixture
def shop(tiny, make_images):
    opened = small(tiny, make_images)
    with opened.serving():
        yield opened


@pytest.fixture
def folder(shop, tmp_path):
    """A folder of four images, of which a visitor uploads what they like."""
    for i in range(4):
        save_png(to_pil(shop.data.images([i])[0]), tmp_path / "mine" / f"{i}.png")
    return tmp_path / "mine"


def edited(shop, **asked):
    visit, _ = shop.open(Visit(), shop.data.images([9]))
    asked = {"strengths": {"Red": 0.3}, "keep": ["Green"], **asked}
    return replace(visit, z_sem=shop.moved(visit, asked["strengths"], asked.get("targets", {}), asked["keep"]), asked=asked)


def silent(what, done, total):
    """Tells nobody."""


# Many images ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_edited_as_each_image_is_in_edit_and_nothing_is_lost(shop, folder, tmp_path):
    (folder / "notes.txt").write_text("no image")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:40])
    (tmp_path / "again").mkdir()
    save_png(to_pil(shop.data.images([7])[0]), tmp_path / "again" / "0.png")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(folder / "1.png", "deep/1.png")
        archive.write(folder / "2.png", "../../2.png")
        archive.writestr("__MACOSX/._1.png", b"of the system")
        archive.writestr("deep/not.png", b"no image either")
    (tmp_path / "torn.zip").write_bytes(b"PK no zip")
    files = [*sorted(folder.iterdir()), tmp_path / "again" / "0.png", tmp_path / "more.zip", tmp_path / "torn.zip"]
    visit, told = edited(shop), []
    with Uploads(files, tmp_path / "own") as uploads:
        found = edit_all(shop, visit, uploads, tmp_path / "out.zip", lambda *what: told.append(what))
    assert found.num == 7
    assert len(found.unread) == 4
    for name in ("notes.txt", "cut.png", "deep/not.png", "torn.zip"):
        assert sum(said.startswith(f"{name} ") for said in found.unread) == 1, "one line for each that cannot be read"
    assert str(tmp_path) not in " ".join(found.unread)
    assert told[0] == ("Editing", 0, 10)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        names = set(archive.namelist())
        pictures = {"0.png", "1.png", "2.png", "3.png", "0 (2).png", "deep/1.png", "2 (2).png"}
        assert names == pictures | {"names.csv", "what-was-done.json", "not-read.txt"}
        assert archive.read("not-read.txt").decode().splitlines() == found.unread
        assert json.loads(archive.read("what-was-done.json"))["asked"]["strengths"] == {"Red": 0.3}
        one = replace(visit, opened=OpenImage(shop.ae, shop.open_files([folder / "3.png"])))
        z = shop.moved(one, {"Red": 0.3}, {}, ["Green"])
        save_png(to_pil(shop.ae.clamp(shop.ae.render(one.opened.code, z_sem=z))[0]), tmp_path / "expected.png")
        assert archive.read("3.png") == (tmp_path / "expected.png").read_bytes(), "the same pixels"


def test_names_lose_no_more_than_an_images_ending_and_a_table_says_which_file_each_was(shop, folder, tmp_path):
    given = ["1.2.840.113619.2.5.1", "1.2.840.113619.2.5.2", "brain.nii.gz.png", "P1/IM0001", "P2/IM0001", "as,said.JPG"]
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for name in given:
            archive.write(folder / "0.png", name)
    for where in ("one", "other"):
        (tmp_path / where).mkdir()
        shutil.copy(folder / "1.png", tmp_path / where / "IM0001")
    files = [tmp_path / "mine.zip", tmp_path / "one" / "IM0001", tmp_path / "other" / "IM0001"]
    with Uploads(files, tmp_path / "own") as uploads:
        edit_all(shop, edited(shop), uploads, tmp_path / "out.zip", silent)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        head, *rows = csv.reader(io.StringIO(archive.read("names.csv").decode()))
        assert {name for name, _ in rows} == {name for name in archive.namelist() if name.endswith(".png")}
    assert head == ["file", "given"]
    assert rows == [
        ["1.2.840.113619.2.5.1.png", given[0]],
        ["1.2.840.113619.2.5.2.png", given[1]],
        ["brain.nii.gz.png", given[2]],
        ["P1/IM0001.png", given[3]],
        ["P2/IM0001.png", given[4]],
        ["as,said.png", given[5]],
        ["IM0001.png", "IM0001"],
        ["IM0001 (2).png", "IM0001"],
    ]
    assert stem("P1/brain.nii.gz") == "P1/brain"
    assert stem("P1/1.2.840.1.5") == "P1/1.2.840.1.5"


def test_a_folder_is_brought_to_a_probability_too(shop, folder, tmp_path):
    visit = edited(shop, strengths={}, targets={"Green": 0.9}, keep=[])
    with Uploads([folder / "0.png"], tmp_path / "own") as uploads:
        edit_all(shop, visit, uploads, tmp_path / "out.zip", silent)
    one = replace(visit, opened=OpenImage(shop.ae, shop.open_files([folder / "0.png"])))
    expected = to_pil(shop.ae.clamp(shop.ae.render(one.opened.code, z_sem=shop.moved(one, {}, {"Green": 0.9}, [])))[0])
    with zipfile.ZipFile(tmp_path / "out.zip") as archive, Image.open(io.BytesIO(archive.read("0.png"))) as made:
        assert np.array_equal(np.asarray(made), np.asarray(expected))


def test_a_folder_of_nothing_is_a_sentence_and_leaves_no_zip(shop, folder, tmp_path):
    (folder / "notes.txt").write_text("no image")
    for files, visit, said in (
        ([folder / "0.png"], Visit(), "Nothing is edited yet"),
        ([], edited(shop), "There are no files"),
        ([folder / "notes.txt"], edited(shop), "None of the files can be read. notes.txt is"),
    ):
        with Uploads(files, tmp_path / "own") as uploads, pytest.raises(ValueError, match=said):
            edit_all(shop, visit, uploads, tmp_path / "out.zip", silent)
    assert not (tmp_path / "out.zip").exists()


def test_files_in_a_zip_that_cannot_be_unpacked_are_named(shop, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("diffae.studio.uploads.MOST_BYTES", 5000)
    with zipfile.ZipFile(tmp_path / "odd.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", b"0" * 100_000)
        archive.write(folder / "0.png", "good.png")
        archive.writestr("bent.png", bytes(range(256)) * 8)
    content = bytearray((tmp_path / "odd.zip").read_bytes())
    at = content.index(b"bent.png") + 20
    content[at : at + 8] = b"\xff" * 8
    (tmp_path / "odd.zip").write_bytes(content)
    with Uploads([tmp_path / "odd.zip"], tmp_path / "own") as uploads:
        found = edit_all(shop, edited(shop), uploads, tmp_path / "out.zip", silent)
    assert found.num == 1
    assert any(said.startswith("bomb.png is more than") for said in found.unread)
    assert any(said.startswith("bent.png cannot be unpacked") for said in found.unread)


def test_work_of_a_visitor_who_left_ends_and_leaves_nothing(shop, folder, tmp_path):
    page, request, bars = Page(shop, None, None, None, tmp_path / "downloads"), SimpleNamespace(session_hash="a"), []

    def leaves(share, desc):
        bars.append(desc)
        if len(bars) == 2:
            page.forget(request)

    with (
        pytest.raises(RuntimeError, match="The visitor has left"),
        page.working(request, leaves) as left,
        Uploads(sorted(folder.iterdir()), page.folder_of(request)) as uploads,
    ):
        edit_all(shop, edited(shop), uploads, page.file(request, "edited.zip"), left)
    assert len(bars) == 2, "of four images one was edited"
    assert not list((tmp_path / "downloads").iterdir())
    with page.working(request, leaves):
        page.forget(request)
        page.keep(request, "late", torch.zeros(1, 2))
    assert not list((tmp_path / "downloads").iterdir())
    with page.working(request, leaves) as left:
        left("Working", 1, 2)
        page.keep(request, "again", torch.zeros(1, 2))
    assert page.kept(request, "again", 0) is not None, "who comes back may work"


def test_what_is_unpacked_lies_in_the_visitors_folder_and_goes_with_it(shop, folder, tmp_path, monkeypatch):
    (tmp_path / "system").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "system"))
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for i in range(4):
            archive.write(folder / f"{i}.png", f"{i}.png")
    page, own, other = Page(shop, None, None, None, tmp_path / "downloads"), *(SimpleNamespace(session_hash=n) for n in "ab")
    page.keep(other, "images", torch.zeros(1, 2))

    def leaves_at_the_second():
        with page.working(own, lambda *_, **__: None) as left, Uploads([tmp_path / "mine.zip"], page.folder_of(own)) as uploads:
            for i, (_, where) in enumerate(uploads):
                assert where.is_relative_to(page.folder_of(own))
                assert len([file for file in page.folder_of(own).rglob("*") if file.is_file()]) == 1, "one at a time"
                if i == 1:
                    page.forget(own)
                    assert not where.exists()
                left("Unpacking", i, 4)

    with pytest.raises(RuntimeError, match="The visitor has left"):
        leaves_at_the_second()
    assert not page.folder_of(own).exists()
    seen = Edited()
    with Uploads([tmp_path / "mine.zip"], page.folder_of(own)) as uploads:
        assert sum(x is not None for _, x in read(shop, uploads, seen)) == 4, "who comes back may upload again"
    assert not seen.unread
    assert not list(page.folder_of(own).iterdir())
    assert page.kept(other, "images", 0) is not None, "another visitor's stay"
    assert not list((tmp_path / "system").iterdir())


def test_uploads_that_are_deleted_while_they_are_worked_on_are_read_all_the_same(shop, folder, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(folder / "1.png", "deep/1.png")
    files = [*sorted(folder.iterdir()), tmp_path / "more.zip"]
    for linked in (True, False):
        for file in files:
            shutil.copy(file, tmp_path / f"upload-of-{file.name}")
        given, seen = [tmp_path / f"upload-of-{file.name}" for file in files], Edited()
        if not linked:
            monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
        with Uploads([*given, tmp_path / "never.png"], tmp_path / "own") as uploads:
            for file in given:
                file.unlink()
            found = [(name, x is not None) for name, x in read(shop, uploads, seen)]
        assert found == [*((f"upload-of-{i}.png", True) for i in range(4)), ("deep/1.png", True)]
        assert [said[:34] for said in seen.unread] == ["never.png is not there any more, o"]
        assert not list((tmp_path / "own").iterdir())


def test_uploads_and_downloads_stay_a_day(page):
    frequency, age = page.blocks.delete_cache
    assert (frequency, age) == (3600, 24 * 3600)


WORK = {
    "vary": (None, 4, "fresh detail", 0),
    "why": (None, "Red", 0.9, 1),
    "sample": (4, 0, 4, 1.0, ANY, "shows it", None),
    "morph": (["0.png", "1.png"], 4),
}
"""Panel -> what a visitor asks of it that takes many network calls."""


@pytest.mark.filterwarnings("ignore")  # What Gradio warns of is its own.
@pytest.mark.parametrize("panel", WORK)
def test_every_panel_stops_asking_the_network_once_its_visitor_has_left(shop, folder, tmp_path, monkeypatch, panel):
    monkeypatch.chdir(folder)
    shop.explainer("Red", silent)  # What is learned first is learned for all visitors.
    blocks = _within_a_loop(lambda: build(shop, tmp_path / "downloads"))
    request, bars, calls = SimpleNamespace(session_hash="a"), [], []
    (work,) = (fn.fn for fn in blocks.fns.values() if fn.api_name == panel)
    (forget,) = (fn.fn for fn in blocks.fns.values() if fn.targets[0][1] == "unload")
    visit = () if panel == "morph" else (edited(shop),)
    handle = shop.ae.unet.register_forward_pre_hook(lambda *_: calls.append(len(bars)))

    def leaves(share, desc):
        bars.append(desc)
        if calls:
            forget(request)

    try:
        with pytest.raises(gr.Error, match="The visitor has left"):
            work(*visit, *WORK[panel], request, leaves)
    finally:
        handle.remove()
    assert len(calls) == 2, "the call within which he left, and the one that found it out"
    assert not list((tmp_path / "downloads").rglob("*"))


def test_odd_entries_of_a_zip_are_named_and_end_nothing(shop, folder, tmp_path):
    good = (folder / "0.png").read_bytes()
    long = "名" * 300 + ".png"
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        archive.writestr("bent.png", bytes(range(256)) * 8, zipfile.ZIP_LZMA)
        archive.writestr("nothing.png", bytes(2**20), zipfile.ZIP_BZIP2)
        archive.writestr("..", good)
        archive.writestr(long, good)
        archive.writestr("no image/" + "x" * 300, b"no image")
        archive.writestr("last.png", good)
    with Uploads([tmp_path / "odd.zip"], tmp_path / "own") as uploads:
        found = edit_all(shop, edited(shop), uploads, tmp_path / "out.zip", silent)
    assert found.num == 3
    # Of such, a kilobyte may be gigabytes: Python does not bound what it unpacks of them.
    assert [said[:30] for said in found.unread] == [
        "bent.png is packed by bzip2 or",
        "nothing.png is packed by bzip2",
        "no image/" + "x" * 21,
    ]
    assert "upload-" not in " ".join(found.unread)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert {"image.png", long, "last.png"} < set(archive.namelist())


def test_a_zip_whose_directory_cannot_be_read_is_named(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "bent.zip", "w") as archive:
        archive.write(folder / "0.png", "é.png")
    content = (tmp_path / "bent.zip").read_bytes()
    (tmp_path / "bent.zip").write_bytes(content.replace("é".encode(), b"\xff\xfe"))
    with Uploads([tmp_path / "bent.zip"], tmp_path / "own") as uploads:
        assert len(uploads) == 0
        assert uploads.unread[0].startswith("bent.zip is no zip that can be opened")


def test_who_moves_a_slider_beside_a_folder_gets_the_same_pixels(shop, folder, tmp_path):
    visit, counted = edited(shop), []
    expected = shop.ae.render(visit.opened.code, z_sem=visit.z_sem)
    with Uploads(sorted(folder.iterdir()), tmp_path / "own") as uploads, concurrent.futures.ThreadPoolExecutor() as pool:
        done = pool.submit(edit_all, shop, visit, uploads, tmp_path / "out.zip", silent)
        while not done.done() or not counted:
            with shop.watched(counted.append):
                assert torch.equal(shop.ae.render(visit.opened.code, z_sem=visit.z_sem), expected)
            assert sum(counted) % visit.opened.code.steps == 0, "each sees its own network calls alone"
        assert done.result().num == 4


# One image after another, and what is asked for too late --------------------------------------------------------------


@pytest.fixture
def page(shop, tmp_path):
    """What the page does, by the names of the functions that do it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What Gradio warns of is its own.
        blocks = _within_a_loop(lambda: build(shop, tmp_path / "downloads"))
    return SimpleNamespace(blocks=blocks, **{fn.fn.__name__: fn.fn for fn in blocks.fns.values()})


VISITOR = SimpleNamespace(session_hash="a")
SKIP = gr.skip()


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_there_is_nothing_but_tabs_among_the_tabs(page):
    """Gradio counts children: a tab behind something else has two headings as soon as it is opened."""
    (tabs,) = (block for block in page.blocks.blocks.values() if isinstance(block, gr.Tabs))
    assert len(tabs.children) == 9
    assert {type(child) for child in tabs.children} == {gr.Tab}


def test_all_that_changes_a_visit_takes_turns(page):
    changing = [
        fn for fn in page.blocks.fns.values() if any(isinstance(out, gr.State) and out.value == Visit() for out in fn.outputs)
    ]
    alone = [fn for fn in changing if (fn.concurrency_id, fn.concurrency_limit) != ("model", 1)]
    assert len(changing) > 8
    assert [fn.targets[0][1] for fn in alone] == ["load"], "with which a visit begins"


def test_codes_are_computed_before_they_are_asked_for_and_give_way_to_who_asks(shop, page):
    left, opened = [], [shop.open(Visit(), shop.data.images([i]))[0] for i in range(3)]

    def count(unet, args):
        if left:
            left.pop()
            shop.requests += not left  # Someone asks, while the network is at work.

    hook = shop.ae.unet.register_forward_pre_hook(count)
    for visit, calls in zip(opened, (1, 10, 1000), strict=True):
        left[:] = [None] * calls
        page.ready(visit)
        assert "preview" in vars(visit.opened), "which every edit needs first"
    assert ["code" in vars(visit.opened) for visit in opened] == [False, False, True]
    hook.remove()
    page.ready(Visit())
    shop.requests += 1
    page.ready(opened[0])
    assert torch.equal(opened[0].opened.code.x_T, shop.ae.infer(opened[0].opened.x).x_T), "what came before does not matter"


def test_a_preview_that_comes_after_the_finished_picture_is_that_picture(shop, page):
    visit, _ = shop.open(Visit(), shop.data.images([0]))
    sent = {"strengths": {"Red": 0.5}, "told": visit.told}
    before, bars_before = page.preview(visit, [], sent)
    visit, after, _, bars_after, *_ = page.finish(visit, [], sent, VISITOR)
    assert not same(before, after), "few steps are seen"
    late, bars_late = page.preview(visit, [], sent)
    assert same(late, after)
    assert bars_late == bars_after == bars_before
    assert not same(page.preview(visit, ["Green"], sent)[0], after), "another edit"
    assert not same(page.preview(visit, [], {"Red": 0.4})[0], after)


def test_what_was_asked_of_the_sliders_before_they_were_set_anew_is_not_done(shop, page):
    visit, _ = shop.open(Visit(), shop.data.images([0]))
    sent = {"strengths": {"Red": 0.5}, "told": visit.told}
    visit = page.finish(visit, [], sent, VISITOR)[0]
    undone = page.undo(visit, VISITOR)
    for later, told in ((shop.open(visit, shop.data.images([1]))[0], None), (undone[0], undone[6]["told"])):
        assert told in (None, later.told)
        assert page.preview(later, [], sent) == [SKIP] * 2
        assert page.finish(later, [], sent, VISITOR) == [SKIP] * 6
        assert page.reach(later, [], "Red", 0.9, sent, VISITOR) == [SKIP] * 6
        assert page.preview(later, [], sent | {"told": later.told}) != [SKIP] * 2
        assert page.preview(later, [], {"Red": 0.5}) != [SKIP] * 2, "scripts know no such number"


def test_a_click_opens_the_sample_that_was_clicked_whatever_is_drawn_meanwhile(shop, page):
    def sample(seed, shown):
        return page.sample(Visit(), 2, seed, 2, 1.0, ANY, "shows it", shown, VISITOR, lambda *_, **__: None)

    (first, *_), _, shown = sample(0, None)
    second, _, then = sample(1, shown)
    assert shown != then
    picks = [fn for fn in page.blocks.fns.values() if fn.fn.__name__ == "pick"]
    assert [(fn.queue, fn.targets[0][1]) for fn in picks] == [(False, "select")] * 2, "samples, and images of the map"
    for name, picture in ((shown, first), (then, second[0])):
        x = picks[0].fn(name, VISITOR, SimpleNamespace(index=0))
        assert same(enlarged(shop.ae, x[0], 160), picture)


def test_truncated_samples_of_a_class_are_of_it(shop, page, monkeypatch):
    bound, drawn, decode = float(shop.z_sem[:, 0].quantile(0.75)), [], shop.ae.decode
    monkeypatch.setattr(shop, "accept", lambda visit, name, present: lambda z: (z[:, 0] > bound).double())
    monkeypatch.setattr(shop.ae, "decode", lambda z, **settings: drawn.append(z) or decode(z, **settings))
    for truncation in (1.0, 0.5):
        page.sample(Visit(), 6, 0, 2, truncation, "Red", "shows it", None, VISITOR, lambda *_, **__: None)
        assert (drawn[-1][:, 0] > bound).all()


def test_each_change_is_undone_alone_and_a_probability_stays_until_its_own_slider_is_moved(shop, page):
    begun, _ = shop.open(Visit(), shop.data.images([0]))
    red, both = {"Red": 0.3}, {"Red": 0.3, "Green": -0.1}
    reached = page.reach(begun, ["Red"], "Green", 0.9, {}, VISITOR)[0]
    nothing = page.undo(reached, VISITOR)
    assert nothing[0].asked == {"strengths": {}, "targets": {}, "keep": []}, "what was reached at once is undone"
    with pytest.raises(gr.Error, match="There is nothing to undo"):
        page.undo(nothing[0], VISITOR)

    moved = page.finish(begun, ["Green", "Red"], red, VISITOR)[0]
    assert moved.asked["keep"] == ["Green"], "what is moved is not kept, nor said to be"
    then = page.reach(moved, [], "Green", 0.9, red, VISITOR)[0]
    visit, *_, sliders, keep = page.undo(then, VISITOR)
    assert visit.asked == moved.asked
    assert (sliders["strengths"], keep) == (red, ["Green"])
    assert torch.equal(visit.z_sem, moved.z_sem)

    assert page.preview(reached, [], red)[1] == page.finish(reached, [], red, VISITOR)[3], "the preview is of it too"
    more = page.finish(reached, [], red, VISITOR)[0]
    assert more.asked == {"strengths": red, "targets": {"Green": 0.9}, "keep": []}
    assert shop.probabilities(more, more.z_sem)["Green"] >= 0.899
    assert shop.edit_of(more).asked == more.asked
    assert page.finish(more, [], both, VISITOR)[0].asked == {"strengths": both, "targets": {}, "keep": []}


def click(page, button):
    """What a click does, by the button's name in the page."""
    (found,) = [block for block in page.blocks.blocks.values() if block.elem_id == button]
    (work,) = [fn.fn for fn in page.blocks.fns.values() if fn.targets[0] == (found._id, "click")]
    return work


def test_a_second_answer_to_an_image_replaces_the_first_and_labels_no_other(page):
    yes, no, skip = (click(page, f"teach-{answer}") for answer in ("yes", "no", "skip"))
    labels, first, *_ = page.start({}, "", "Bright")
    labels, second, *_ = yes(labels, first)
    assert no(labels, first)[0] == {first: 0}, "the next image was not there yet"
    assert skip(labels, first)[0] == {first: -1}
    assert no(labels, second)[0] == {first: 1, second: 0}
    with pytest.raises(gr.Error, match="No image is shown to answer for"):
        yes({}, None)


def test_an_answer_is_taken_back_and_the_last_image_of_all_counts(shop, page):
    no, (labels, at, *_) = click(page, "teach-no"), page.start({}, "", "Bright")
    while at is not None:
        last = at
        labels, at, shown, said = no(labels, at)
    assert len(labels) == len(shop.data.names)
    assert shown is None
    assert "All images are labelled" in said
    labels, at, *_ = page.back(labels)
    assert (len(labels), at) == (len(shop.data.names) - 1, last)
    with pytest.raises(gr.Error, match="no answer to take back"):
        page.back({})


def test_another_attribute_begins_without_the_labels_of_the_former(page):
    assert page.start({3: 1}, "Bright", " Bright ")[0] == {3: 1}, "the same goes on"
    labels, _, _, said, of = page.start({3: 1}, "Bright", "Round")
    assert (labels, of) == ({}, "Round")
    assert "The answers for Bright, 1, were taken away. 0 have it" in said
    with pytest.raises(gr.Error, match="Name what is taught"):
        page.start({}, "", " ")


def test_groups_of_the_map_are_apart_and_begin_anew_with_each_attribute(page):
    has, lacks, over, define = (click(page, f"explore-{name}") for name in ("with", "without", "over", "define"))
    groups, said = has({"with": [], "without": []}, [1, 2, 3, 4])
    groups, said = lacks(groups, [4, 5, 6])
    assert groups == {"with": [1, 2, 3], "without": [4, 5, 6]}
    assert said == "With it: 3 images. Without it: 3. 1 of them was on the other side before."
    with pytest.raises(gr.Error, match="Give the attribute a name"):
        define(Visit(), groups, "")
    nobody = {"with": [], "without": []}
    visit, *_, left, said = define(Visit(), groups, "Mine")
    assert list(visit.defined) == ["Mine"]
    assert [left, said] == over() == [nobody, "With it: 0 images. Without it: 0."]


def test_a_folder_gets_the_edit_of_when_it_was_asked_for(shop, page, folder):
    files, then = [str(folder / "0.png")], edited(shop)
    clicked, said = page.ask(then)
    assert "Red +0.30; kept: Green" in said
    assert clicked.opened is None
    assert not clicked.recent
    later = edited(shop, strengths={"Red": -0.3})

    def strengths_of(visit, clicked):
        with zipfile.ZipFile(page.run(visit, clicked, files, None, VISITOR, lambda *_, **__: None)[1]) as archive:
            return json.loads(archive.read("what-was-done.json"))["asked"]["strengths"]

    assert strengths_of(later, clicked) == {"Red": 0.3}
    assert strengths_of(later, None) == {"Red": -0.3}, "a script clicks nothing"


def test_an_own_attribute_that_the_open_edit_uses_is_not_defined_anew(shop, page, monkeypatch):
    visit = replace(edited(shop, strengths={"Mine": 0.0}), defined={"Mine": shop.define("Mine", [0, 1, 2], [3, 4, 5])})
    visit = replace(visit, asked={"strengths": {"Mine": 0.3}, "keep": []})
    labels = {i: int(i < 3) for i in range(6)}
    monkeypatch.setattr(shop.ae, "encode", None)
    for define in (
        lambda: page.define(visit, labels, " Mine "),
        lambda: page.make(visit, "Mine", [], [], VISITOR, lambda *_, **__: None),
    ):
        with pytest.raises(gr.Error, match="'Mine' is part of the edit that is open"):
            define()
    other = page.define(replace(visit, asked={}), labels, "Mine")[0]
    assert list(other.defined) == ["Mine"]
    assert other.defined["Mine"] is not visit.defined["Mine"]


# Many attributes ------------------------------------------------------------------------------------------------------


def test_own_attributes_are_learned_from_examples_of_ones_own(shop):
    along = shop.z_sem[:, 0].argsort()
    low, high = shop.z_sem[along[:12]], shop.z_sem[along[-12:]]
    both = from_examples(shop, "Mine", high, low)
    assert both.probabilities(high).mean() > 0.6 > 0.4 > both.probabilities(low).mean()
    alone = from_examples(shop, "Mine", high, high[:0])
    assert alone.logits(high).mean() > alone.logits(low).mean()
    with pytest.raises(ValueError, match="at least three images on either side, got 2 positive"):
        from_examples(shop, "Mine", high[:2], low)
    with pytest.raises(ValueError, match="Give the attribute a name"):
        from_examples(shop, " ", high, low)
    shop.data = shop.z_sem = shop.standardizer = None
    assert from_examples(shop, "Mine", high, high[:0]).names == ["Mine"], "against what the model draws"
    shop.ae.prior = None
    with pytest.raises(ValueError, match="There is nothing to compare the examples with"):
        from_examples(shop, "Mine", high, high[:0])


def test_examples_are_checked_before_any_is_encoded_and_the_bar_ends_at_its_end(shop, folder, tmp_path, monkeypatch):
    (tmp_path / "torn.zip").write_bytes(b"PK no zip")
    (folder / "notes.txt").write_text("no image")
    files, told, seen = [*sorted(folder.iterdir()), tmp_path / "torn.zip"], [], Edited()

    def codes(name, shows, lacks):
        with Uploads(shows, tmp_path / "own") as with_it, Uploads(lacks, tmp_path / "own") as without:
            return codes_of_examples(shop, name, with_it, without, seen, lambda *what: told.append(what[1:]))

    shows, lacks = codes("Mine", files, files[:3])
    assert (len(shows), len(lacks)) == (4, 3)
    assert told == [(i + 1, 8) for i in range(8)]
    assert [said.split()[0] for said in seen.unread] == ["torn.zip", "notes.txt"]
    monkeypatch.setattr(shop.ae, "encode", None)
    for name, some, others, said in (
        (" ", files, [], "Give the attribute a name"),
        ("Red", files, [], "There is an attribute 'Red' already"),
        ("Mine", files[:2], [], "at least three images that show it, got 2"),
        ("Mine", files[-1:], [], "that show it, got 0. torn.zip is no zip"),
        ("Mine", files, files[:1], "that lack it, got 1"),
    ):
        with pytest.raises(ValueError, match=said):
            codes(name, some, others)


@pytest.mark.filterwarnings("ignore")  # What Gradio warns of is its own.
def test_of_which_examples_only_a_part_was_taken_is_said(page, folder):
    with Image.open(folder / "0.png") as first, Image.open(folder / "1.png") as second:
        first.save(folder / "stack.tif", save_all=True, append_images=[second])
    (folder / "notes.txt").write_text("no image")
    *_, said, _ = page.make(Visit(), "Mine", sorted(map(str, folder.iterdir())), [], VISITOR, lambda *_, **__: None)
    assert "told by 5 images" in said
    assert "Not all files could be read:\n\n- notes.txt is" in said
    assert "Of some, not all was taken:\n\n- stack.tif is" in said


def test_how_long_own_attributes_last_is_said_where_they_are_made_and_listed(page, monkeypatch):
    said = []
    monkeypatch.setattr(gr, "Info", said.append)
    page.define(Visit(), {i: int(i < 3) for i in range(6)}, "Mine")
    (mine,) = (block.info for block in page.blocks.blocks.values() if block.elem_id == "own-mine")
    hours = {b.time_to_live for b in page.blocks.blocks.values() if isinstance(b, gr.State) and b.value == Visit()}
    assert hours == {HOURS * 3600}
    assert mine == f"Attributes of your own last until this page is closed or loaded again, or {HOURS} hours without a change."
    assert said == [f"Mine is a slider in Edit now. {mine}"]


def test_there_is_no_limit_to_own_attributes(shop):
    visit = edited(shop)
    visit = replace(visit, defined={f"Mine {i}": shop.define(f"Mine {i}", [0, 1, 2], [3, 4, 5 + i % 50]) for i in range(40)})
    listed = slider_list(shop.attributes(visit), visit.defined, {"Mine 39": 0.2, "forgotten": 0.3})
    assert len(listed["names"]) == 42
    assert sum(one["own"] for one in listed["names"]) == 40
    assert listed["strengths"] == {"Mine 39": 0.2}
    assert not torch.equal(shop.moved(visit, {"Mine 39": 0.2}, {}, []), visit.opened.preview.z_sem)


def test_of_hundreds_of_attributes_those_that_matter_are_shown():
    before = {f"a{i}": 0.5 for i in range(300)}
    after = before | {"a250": 0.9, "a123": 0.501}
    shown = bars(before, after, ["a123"])
    assert shown.count('scope="row"') == MOST_BARS
    assert "a250" in shown
    assert "a123" in shown
    assert f"{MOST_BARS} attributes of 300" in shown


def test_strengths_that_are_none_are_refused():
    assert strengths({"Red": 0.25, "Green": 0}, ["Red", "Green"]) == {"Red": 0.25}
    assert strengths(slider_list(["Red"], (), {"Red": 0.1}), ["Red"]) == {"Red": 0.1}, "as the page has it before anything is moved"
    assert strengths(None, []) == {}
    for bad in (0.3, [0.3], {"Red": "much"}, {"Red": float("nan")}, {"Red": True}):
        with pytest.raises(ValueError, match="Strengths are a number for each attribute"):
            strengths(bad, ["Red"])
    with pytest.raises(ValueError, match="There is no attribute 'Blue'; there are 'Red'"):
        strengths({"Blue": 0.2}, ["Red"])


# Time -----------------------------------------------------------------------------------------------------------------


def test_bars_say_how_much_time_is_left(shop, monkeypatch):
    now, shown = [100.0], []
    monkeypatch.setattr("diffae.studio.progress.time.monotonic", lambda: now[0])
    tell = TimeLeft(lambda share, desc: shown.append((round(share, 2), desc)), shop)
    for done in range(4):
        tell("Editing", done, 10)
        now[0] += 3
    assert shown[0] == (0, "Editing: time left is being measured")
    assert shown[3] == (0.3, "Editing: about 21 s left")
    later = TimeLeft(lambda share, desc: shown.append((round(share, 2), desc)), shop)
    later("Editing", 0, 100)
    assert shown[-1] == (0, "Editing: about 5 min left"), "as long as it took before"
    assert [duration_text(s) for s in (0.2, 59, 600, 7200)] == ["less than a second", "about 59 s", "about 10 min", "about 2.0 h"]


def test_bars_move_with_each_network_call_and_reach_their_end(shop):
    ae, x = shop.ae, shop.data.images([0, 1])
    z, steps = ae.encode(x), ae.calibration.steps

    def last(images, work):
        shown = []
        with TimeLeft(lambda share, desc: shown.append((share, desc)), shop).asking("Working", images):
            work()
        assert [share for share, _ in shown] == sorted(share for share, _ in shown)
        assert all(desc.endswith(("left", "measured")) for _, desc in shown)
        return shown[-1][0]

    assert last(2 * (7 + 1), lambda: ae.decode(z, steps=7)) == 1, "as Sample and Variations count"
    assert last((2 + 4) * steps, lambda: ae.interpolate_path(x, frames=3)) == 1, "as Morph does"
    shop.ended.set()
    with pytest.raises(RuntimeError, match="The studio has ended"):
        ae.decode(z, steps=7)


# Memory ---------------------------------------------------------------------------------------------------------------


def held(*things):
    """Bytes of all tensors, arrays and pictures that can be reached from things, but for the model's."""
    total, seen, storages, found = 0, set(), set(), list(things)
    while found:
        thing = found.pop()
        if id(thing) in seen or isinstance(thing, DiffusionAutoencoder | type | ModuleType | FunctionType):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            storage = thing.untyped_storage()
            total += 0 if storage.data_ptr() in storages else storage.nbytes()
            storages.add(storage.data_ptr())
        elif isinstance(thing, Image.Image):
            total += thing.width * thing.height * len(thing.getbands())
        elif isinstance(thing, np.ndarray | str | bytes):
            total += sys.getsizeof(thing)
        else:
            found += gc.get_referents(thing)
    return total


def test_what_a_visit_says_that_it_holds_is_what_it_holds(shop):
    visit, _ = shop.open(Visit(), shop.data.images([0]))
    before = held(visit)
    _ = visit.opened.preview, visit.opened.code
    visit, _ = shop.open(visit, shop.data.images([1]))
    _ = visit.opened.preview, visit.opened.code
    visit = replace(
        visit,
        defined={"Mine": shop.define("Mine", [0, 1, 2], [3, 4, 5])},
        z_sem=torch.zeros(1, shop.ae.z_dim),
        edited=visit.opened.x.clone(),
    )
    assert before < held(visit) <= visit.nbytes * 1.05 + 20_000
    assert visit.nbytes <= 1.2 * held(visit)


def test_a_visitors_memory_is_bounded_and_the_oldest_images_are_forgotten(shop, monkeypatch):
    one = OpenImage(shop.ae, shop.data.images([0])).nbytes
    monkeypatch.setattr(visits, "MOST_BYTES", 5 * one)
    visit, forgotten, most = Visit(), [], 0
    for i in range(30):
        visit, gone = shop.open(visit, shop.data.images([i]))
        _ = visit.opened.preview, visit.opened.code
        forgotten.append(gone)
        most = max(most, held(visit))
        assert torch.equal(visit.recent[-1].x, shop.data.images([i]))
    assert forgotten == [0] * 5 + [1] * 25
    assert most <= 5 * one + 20_000
    asked = []
    monkeypatch.setattr(shop.ae, "encode", lambda *_, **__: asked.append(1))
    again, gone = shop.open(visit, shop.data.images([27]))
    assert not asked, "what is remembered is not computed again"
    assert torch.equal(again.opened.x, shop.data.images([27]))
    assert (len(again.recent), gone) == (5, 0)
    monkeypatch.setattr(visits, "MOST_BYTES", 1)
    assert len(again.open(again.opened)[0].recent) == 1, "the one that is open is kept in any case"


def test_an_attribute_counts_too():
    visit = Visit(defined={"Mine": Attributes({"Mine": Score("binary", 1, 0.5)}, 512)})
    assert visit.nbytes >= 2 * 512 * 4
    assert held(visit) >= 2 * 512 * 4
