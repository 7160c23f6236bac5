"""The studio without its page: what visitors do, and edits that are the same pixels again."""

import asyncio
import base64
import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("gradio", reason="The studio's tests need gradio: pip install 'diffae[studio]'.")

from pretended_device import Recorder
from shops import small

from diffae import cli
from diffae.edits import Edit
from diffae.interop.fingerprints import fingerprint
from diffae.pictures import save_png, to_pil
from diffae.runtime import graphs
from diffae.studio.app import application
from diffae.studio.display import bars, difference, enlarged
from diffae.studio.page import Page
from diffae.studio.visit import OpenImage, Visit
from diffae.studio.workshop import Workshop

pytestmark = pytest.mark.filterwarnings("ignore:x_T has a standard deviation")  # These networks were never trained.


@pytest.fixture
def shop(tiny, make_images):
    return small(tiny, make_images)


def visiting(shop, index=0):
    return Visit(opened=OpenImage(shop.ae, shop.data.images([index])))


def test_a_preview_of_an_image_that_nothing_moves_is_the_image(shop):
    visit = visiting(shop)
    z = shop.moved(visit, {"Red": 0.0}, {}, [])
    assert float((shop.ae.render(visit.opened.preview, z_sem=z) - visit.opened.x).square().mean()) < 1e-6


def test_sliders_move_as_manipulate_does_and_keep_what_is_to_be_kept(shop):
    visit, ae = visiting(shop), shop.ae
    z = visit.opened.code.z_sem
    torch.testing.assert_close(shop.moved(visit, {"Red": 0.3}, {}, []), ae.edit(z, "Red", strength=0.3))
    kept = shop.moved(visit, {"Red": 0.3}, {}, ["Green"])
    rows = ae.attributes.names.index("Green")
    torch.testing.assert_close(ae.attributes.logits(kept)[:, rows], ae.attributes.logits(z)[:, rows], atol=1e-4, rtol=0)
    reached = shop.moved(visit, {}, {"Red": 0.9}, [])
    assert shop.probabilities(visit, reached)["Red"] >= 0.899


def test_own_attributes_and_fitted_ones_keep_each_other_as_they_are(shop):
    mine = {name: shop.define(name, few, [4, 5, 6, 7]) for name, few in (("Mine", [0, 1, 2, 3]), ("Yours", [8, 9, 10, 11]))}
    visit = replace(visiting(shop), defined=mine)
    z = visit.opened.preview.z_sem

    def logit(z, name):
        of = mine.get(name, shop.ae.attributes)
        return of.logits(z)[:, of.names.index(name)]

    for moved, kept in (("Mine", "Red"), ("Red", "Mine"), ("Mine", "Yours")):
        for asked in (({moved: 0.3}, {}), ({}, {moved: 0.95})):
            after = shop.moved(visit, *asked, [kept])
            torch.testing.assert_close(logit(after, kept), logit(z, kept), atol=1e-4, rtol=0)
            assert float(logit(after, moved) - logit(z, moved)) > 0.01
    both = shop.moved(visit, {}, {"Mine": 0.9, "Red": 0.9}, [])
    assert min(shop.probabilities(visit, both)[name] for name in ("Mine", "Red")) >= 0.899, "one does not undo the other"
    again = replace(visit, defined=mine | {"Mine 2": shop.define("Mine 2", [0, 1, 2, 3], [4, 5, 6, 7])})
    with pytest.raises(ValueError, match="Mine, Mine 2 cannot all be changed as asked"):
        shop.moved(again, {}, {"Mine": 0.9, "Mine 2": 0.8}, [])
    alone = Visit(opened=visit.opened)
    assert torch.equal(shop.moved(visit, {"Red": 0.3}, {}, []), shop.moved(alone, {"Red": 0.3}, {}, []))
    shop.ae.attributes = None
    torch.testing.assert_close(shop.moved(visit, {"Mine": 0.3}, {}, []), mine["Mine"].move(z, {"Mine": 0.3}))


def test_what_the_open_edit_moves_or_keeps_cannot_be_taken_from_it():
    visit = Visit(asked={"strengths": {"A": 0.1}, "targets": {"B": 0.9}, "keep": ["C"]})
    for name in "ABC":
        with pytest.raises(ValueError, match=f"'{name}' is part of the edit that is open"):
            visit.check_unused(["D", name])
    visit.check_unused(["D"])


def test_what_is_known_best_comes_first_and_own_attributes_last(shop, monkeypatch):
    visit, scores = visiting(shop), shop.ae.attributes.scores
    visit = replace(visit, defined={"Mine": shop.define("Mine", [0, 1, 2, 3], [4, 5, 6, 7])})
    for first, second in (("Red", "Green"), ("Green", "Red")):
        known = {first: replace(scores[first], auroc=0.9), second: replace(scores[second], auroc=0.8)}
        monkeypatch.setattr(shop.ae.attributes, "scores", scores | known)
        assert shop.attributes(visit) == [first, second, "Mine"]
    moved = shop.moved(visit, {"Mine": 0.4}, {}, ["Mine"])
    assert shop.probabilities(visit, moved)["Mine"] > shop.probabilities(visit, visit.opened.code.z_sem)["Mine"]
    with pytest.raises(ValueError, match="at least three images on either side"):
        shop.define("Mine", [0], [1, 2, 3])
    with pytest.raises(ValueError, match="Give the attribute a name"):
        shop.define(" ", [0, 1, 2], [3, 4, 5])


def test_an_edit_whose_array_is_damaged_is_no_edit(shop):
    visit = visiting(shop)
    visit = replace(visit, z_sem=shop.moved(visit, {"Red": 0.3}, {}, []), asked={"strengths": {"Red": 0.3}})
    edit = json.loads(shop.edit_of(visit).to_json())
    content = base64.b64decode(edit["image"])
    for damaged in (content.replace(b")", b"(", 1), content.replace(b"'<f4'", b"'<f4(", 1), content[:40]):
        with pytest.raises(ValueError, match="This is no edit that the studio saved"):
            Edit.from_json(json.dumps(edit | {"image": base64.b64encode(damaged).decode()}))


def test_a_saved_edit_is_the_same_pixels_again(shop, tmp_path, capsys):
    visit = visiting(shop)
    with pytest.raises(ValueError, match="Nothing is edited yet"):
        shop.edit_of(visit)
    visit = replace(visit, z_sem=shop.moved(visit, {"Red": 0.3}, {}, []), asked={"strengths": {"Red": 0.3}})
    expected = shop.ae.render(visit.opened.code, z_sem=visit.z_sem)[0]
    text = shop.edit_of(visit).to_json()
    again = Edit.from_json(text)
    assert torch.equal(again.render(shop.ae, model=shop.model), expected)
    assert again.asked == {"strengths": {"Red": 0.3}}

    shop.ae.save_pretrained(tmp_path / "model")
    (tmp_path / "edit.json").write_text(text)
    save_png(to_pil(expected), tmp_path / "expected.png")
    cli.main(["manipulate", str(tmp_path / "model"), "--from", str(tmp_path / "edit.json"), "--out", str(tmp_path / "again.png")])
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "expected.png").read_bytes()

    old = json.loads(text)
    assert (old.pop("networks"), old.pop("levels")) == (shop.networks, list(again.levels))
    assert Edit.from_json(json.dumps(old)).differences(shop.ae, networks="other") == []
    assert again.differences(shop.ae, networks=shop.networks) == []
    capsys.readouterr()
    (tmp_path / "edit.json").write_text(json.dumps(json.loads(text) | {"networks": "other", "levels": ["log_snr", 3.0]}))
    cli.main(["manipulate", str(tmp_path / "model"), "--from", str(tmp_path / "edit.json"), "--out", str(tmp_path / "again.png")])
    said = " ".join(capsys.readouterr().err.split())
    assert "it was saved with another decoder" in said
    assert "it was saved before the model was calibrated as it is now" in said

    wider = replace(again, image=again.image.double(), z_sem=again.z_sem.double())
    assert Edit.from_json(wider.to_json()).to_json() == text
    low = Edit.from_json(replace(again, image=again.image.bfloat16()).to_json())
    assert torch.equal(low.image, again.image.bfloat16().float())
    volume = replace(again, image=torch.rand(1, 4, 8, 8))
    assert torch.equal(Edit.from_json(volume.to_json()).image, volume.image)

    with pytest.raises(ValueError, match="This edit was made with another model"):
        again.render(shop.ae, model="another")
    for bad in ("{", "[]", '{"format": "diffae-edit-1"}', '{"format": "other"}', json.dumps(json.loads(text) | {"more": 1})):
        with pytest.raises(ValueError, match="no edit that the studio saved"):
            Edit.from_json(bad)


def test_neighbours_begin_with_the_image_and_the_map_lies_within_its_frame(shop):
    assert shop.neighbours(7, 5)[0] == 7
    assert len(set(shop.neighbours(7, 5))) == 5
    at = shop.map()
    assert at.shape == (60, 2)
    assert at.min() >= 0
    assert at.max() <= 1
    assert at.std(0).min() > 0.1


def test_codes_of_one_dimension_have_a_map_too(shop):
    one = Workshop(shop.ae, shop.data, shop.z_sem[:, :1], name="of one dimension")
    at = one.map()
    assert at.shape == (60, 2)
    assert at[:, 0].std() > 0.1
    assert (at[:, 1] == 0.5).all()


def test_teaching_asks_for_what_is_least_certain_and_says_when_it_knows(shop):
    along = shop.z_sem[:, 0]
    truth, labels = along > along.median(), {}
    assert shop.taught_auroc(labels) is None
    for _ in range(36):
        i = shop.most_uncertain(labels)
        assert i not in labels
        labels[i] = int(truth[i])
    assert 0 <= shop.taught_auroc(labels) <= 1, "those that it is least certain of are the hardest"
    assert shop.taught_auroc({i: int(truth[i]) for i in range(60)}) > 0.8
    with pytest.raises(ValueError, match="All images are labelled"):
        shop.most_uncertain(dict.fromkeys(range(60), 1))


def test_without_images_there_is_a_sentence(shop):
    bare = Workshop(shop.ae, None, None, name="bare")
    with pytest.raises(ValueError, match="This needs images: start with `diffae studio RUN --data IMAGES`"):
        bare.neighbours(0, 3)
    with pytest.raises(FileNotFoundError, match="There is no image"):
        bare.open_files(["nothing.png"])


def test_a_broken_upload_is_named_as_the_visitor_named_it(shop, tmp_path, monkeypatch):
    (tmp_path / "mine.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="^mine.png is not an image"):
        shop.open_files([tmp_path / "mine.png"])
    (tmp_path / "mine.png").unlink()
    with pytest.raises(FileNotFoundError, match="^There is no image mine.png"):
        shop.open_files([tmp_path / "mine.png"])
    (tmp_path / "mine.png").symlink_to(tmp_path / "mine.png")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "is_file", lambda file: True)
        with pytest.raises(OSError, match="'mine.png'$"):
            shop.open_files([tmp_path / "mine.png"])


def test_pictures_are_enlarged_by_whole_pixels_and_differences_seen(shop):
    x = shop.data.images([0])[0]
    assert enlarged(shop.ae, x, 64).size == (64, 64)
    assert enlarged(shop.ae, x, 64).getpixel((0, 0)) == enlarged(shop.ae, x, 64).getpixel((7, 7))
    assert float(difference(x, x).max()) == -1
    assert float(difference(x, x + 0.1).max()) <= 1
    said = bars({"A_<b>": 0.25}, {"A_<b>": 0.9})
    assert "A &lt;b&gt;" in said
    assert "25 %" in said
    assert "90 %" in said
    assert "No attribute is fitted" in bars({}, {})


def test_the_page_leaves_no_event_loop_or_socket_open(shop, tmp_path, monkeypatch):
    loops = []
    made = asyncio.new_event_loop
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: loops.append(made()) or loops[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What Gradio warns of is its own.
        application(shop, tmp_path)
    assert all(loop.is_closed() for loop in loops)


def test_requests_are_counted_as_they_come(shop, tmp_path):
    from fastapi.testclient import TestClient

    with shop.serving(), TestClient(application(shop, tmp_path)) as client:
        client.get("/config")
        assert shop.requests == 0
        client.post("/gradio_api/queue/join", json={"data": [], "fn_index": 0, "session_hash": "a"})
        client.post("/gradio_api/call/preview", json={"data": []})
    assert shop.requests == 2


def test_others_reach_the_page_only_with_a_password(shop, tmp_path, capsys):
    with pytest.raises(ValueError, match="others can reach the page: give a --password"):
        application(shop, tmp_path, host="0.0.0.0")
    with pytest.raises(SystemExit):
        cli.main(["studio", str(tmp_path), "--host", "0.0.0.0"])
    assert "give a --password" in capsys.readouterr().err


def test_options_that_the_studio_would_leave_aside_are_refused(shop, tmp_path, capsys):
    shop.ae.save_pretrained(tmp_path / "model")
    for given, said in (
        (["--answers", "logit"], "--answers logit is about what a --classifier says, and none was given: name it."),
        (
            ["--labels", "few.csv"],
            f"--labels few.csv is about images, and {tmp_path / 'model'} brings none: name them with --data.",
        ),
    ):
        with pytest.raises(SystemExit):
            cli.main(["studio", str(tmp_path / "model"), *given])
        assert said in " ".join(capsys.readouterr().err.split())


def test_without_a_run_the_studio_says_how_to_get_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["studio"])
    assert "There is no run under runs/" in capsys.readouterr().err


def test_without_a_run_the_studio_shows_the_projects_own_model_and_its_faces(shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shop.ae.save_pretrained("models/avatars64")
    monkeypatch.setattr("diffae.cli.studio.FEW", 6)
    served = []
    monkeypatch.setattr("diffae.studio.app.serve", lambda shop, reserved, **_: served.append(shop))
    cli.main(["studio"])
    (mine,) = served
    assert (mine.name, len(mine.data.names), len(mine.z_sem)) == ("avatars64", 6, 6)
    (tmp_path / "runs" / "newer" / "model").mkdir(parents=True)
    shop.ae.save_pretrained("runs/newer/model")
    cli.main(["studio"])
    assert served[1].name == "newer", "a run of one's own comes first"
    assert served[1].data is None


def test_an_edit_names_its_model(shop):
    assert shop.model == fingerprint(shop.ae)


@pytest.mark.soak
def test_two_thousand_requests_leave_memory_flat_and_visitors_apart(tmp_path):
    script = Path(__file__).parents[1] / "benchmarks" / "studio.py"
    out = subprocess.run([sys.executable, script, "--out", tmp_path / "studio.md"], capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr


@pytest.mark.parametrize("name", ["..", ".", "", "../others", "{outside}/others", None])
def test_a_session_that_is_named_as_a_path_reaches_nothing_but_its_own_files(shop, tmp_path, name):
    page = Page(shop, None, None, None, tmp_path / "downloads" / "of visitors")
    for folder in (tmp_path / "others", page.folder / "others", page.folder.parent / "others"):
        folder.mkdir(parents=True)
        (folder / "kept.txt").write_text("of another")
    before = sorted(tmp_path.rglob("*"))
    request = SimpleNamespace(session_hash=name and name.replace("{outside}", str(tmp_path)))
    page.keep(request, "images", torch.zeros(2, 3))
    assert torch.equal(page.kept(request, "images", 1), torch.zeros(3))
    (written,) = {path.parent for path in tmp_path.rglob("images.npy")}
    assert written.parent == page.folder
    assert written not in before
    page.forget(request)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_attribute_of_ones_own_takes_no_name_of_a_measurement(shop):
    scores = shop.ae.attributes.scores
    scores["Green"] = replace(scores["Green"], kind="continuous")
    assert "Green" not in shop.attributes(Visit())
    with pytest.raises(ValueError, match="There is an attribute 'Green' already"):
        shop.define("Green", [0, 1, 2, 3], [4, 5, 6, 7])


def test_network_calls_are_told_where_they_are_replayed(shop, monkeypatch):
    """A replay of a recording does not call the network: bars would stand still, and work would not end."""

    class Replaying(Recorder):
        def record(self, compute):
            compute()
            result = []
            return lambda: result.append(None)

    monkeypatch.setitem(graphs.RECORDERS, "cpu", Replaying)
    monkeypatch.setattr(graphs, "BOUND", 0.0)
    told, z_sem = [], torch.zeros(2, shop.ae.z_dim)
    before = shop.ae.watch
    with shop.serving():
        with shop.watched(told.append):
            for _ in range(3):
                shop.ae.decode(z_sem, steps=5)
        assert told == [2] * 18
        shop.ended.set()
        with pytest.raises(RuntimeError, match="The studio has ended"):
            shop.ae.decode(z_sem, steps=5)
    assert shop.ae.watch is before
