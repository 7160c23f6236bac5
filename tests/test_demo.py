"""The page that edits in the browser: what it shows is what Python computes, of a small model, in Chromium.

That of models/avatars64 takes minutes to build, and is tested by `pytest -m soak`.
"""

import contextlib
import copy
import functools
import http.server
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from browsing import chromium
from filelock import FileLock
from PIL import Image

pytest.importorskip("onnxscript", reason="The page's networks are exported with onnxscript: pip install 'diffae[interop]'.")
pytest.importorskip("playwright.sync_api", reason="The page is tested with playwright: pip install playwright.")

import diffae
from diffae.config import PriorConfig
from diffae.data.images import load_images
from diffae.semantics.fitting import fit_attributes
from diffae.semantics.prior import LatentPrior
from diffae.semantics.standardizer import Standardizer

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:x_T has a standard deviation")]
ROOT = Path(__file__).parents[1]
NPM = ROOT / "build" / "npm"
"""Where the runtime's package is kept."""
SHOTS = Path(os.environ["DIFFAE_SCREENSHOTS"]) if os.environ.get("DIFFAE_SCREENSHOTS") else None
PATIENCE = 120_000
"""Milliseconds; machines are shared."""
LEVELS = 2
"""Of 255, by which a pixel of the page may differ from Python's."""


@pytest.fixture
def nothing_is_left():
    """The server and the browser are of the module."""


@pytest.fixture(scope="module")
def ae(tiny, tmp_path_factory):
    return untrained(tiny, tmp_path_factory.mktemp("demo") / "model")


def untrained(tiny, folder, *, jumps=False):
    """A model with all that the page shows, never trained, but each of its inputs counts; of one level, as exporting takes time."""
    torch.manual_seed(0)
    one = {"channel_mult": (1,), "attention_resolutions": ()}
    unet = replace(tiny.unet, **one, jumps=jumps)
    config = replace(tiny, prediction="v", unet=unet, encoder=replace(tiny.encoder, **one))
    ae = diffae.DiffusionAutoencoder(config)
    ae.prior = LatentPrior(PriorConfig(z_dim=6, width=16, layers=3, time_channels=8, gaussian_start=True))
    with torch.no_grad():
        for p in ae.parameters():
            p.copy_(0.3 * torch.randn_like(p) / max(1, p[0].numel()) ** 0.5 if p.dim() > 1 else p + 0.1 * torch.randn_like(p))
        if jumps:
            for p in ae.unet.towards.parameters():
                p *= 20  # Where a step leads makes another picture, as in a model that is trained.
    x = torch.rand(400, 3, 8, 8) * 2 - 1
    ae.encoder.whiten(ae.encoder.features(x).detach())
    z = ae.encode(x).detach()
    ae.standardizer = Standardizer.fit(z)
    ae.prior.gaussian.fit(ae.standardizer(z))
    along = ae.standardizer(z) @ torch.randn(6, 3)
    labels = {
        "Round_Face": (along[:, 0] > 0).double().numpy(),
        "Red": (along[:, 1] > 0.5).double().numpy(),
        "Age": along[:, 2].numpy(),
    }
    ae.attributes, _ = fit_attributes(z, labels, held_z_sem=z, held_labels=labels, components=2)
    ae.save_pretrained(folder, dtype=torch.bfloat16)
    return diffae.load(folder), folder


@pytest.fixture(scope="module")
def builder():
    """docs/demo/build.py as a module."""
    spec = importlib.util.spec_from_file_location("demo_build", ROOT / "docs" / "demo" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built(model, out):
    """Builds the page, in a process of its own: what enforces shapes in tests would look into the shapes that are traced."""
    command = [sys.executable, ROOT / "docs" / "demo" / "build.py", "--model", model, "--out", out, "--npm", NPM]
    NPM.mkdir(parents=True, exist_ok=True)
    with FileLock(NPM / "lock"):  # The package is fetched once, whoever needs it first.
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    said = done.stderr.strip().rpartition("\n")[2]
    if done.returncode and said.startswith(("There is no npm", "npm cannot bring")):
        pytest.skip(f"NO NPM: the page is not tested. {said}")
    assert done.returncode == 0, done.stderr
    return done.stdout


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files as any web server gives them."""

    def log_message(self, *told):
        """Nothing."""


@contextlib.contextmanager
def served(folder):
    """The address at which a folder is served."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def folder(browser, ae, tmp_path_factory):
    """The page."""
    out = tmp_path_factory.mktemp("page")
    built(ae[1], out)
    return out


@pytest.fixture(scope="module")
def address(folder):
    with served(folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@contextlib.contextmanager
def visiting(browser, address, query="", but=None, **settings):
    """A page that is ready; in the end nothing may have been fetched from elsewhere, and nothing have been complained of, but what
    begins with `but`."""
    asked, failed = set(), []
    with contextlib.closing(browser.new_context(viewport={"width": 1280, "height": 900}, **settings)) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.add(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("console", lambda message: failed.append(message.text) if message.type in ("error", "warning") else None)
        page.goto(f"{address}/{query}")
        page.wait_for_function("window.times && 'inverted a' in window.times")
        yield page
    assert not [url for url in asked if not url.startswith((address, "blob:", "data:"))]
    assert [text for text in failed if but is None or not text.startswith(but)] == []


@pytest.fixture
def visitor(address, browser):
    with visiting(browser, address, "?number=5") as page:
        yield page


def pixels(page, where):
    """What a canvas holds, (h, w, 3)."""
    values, width = page.evaluate(
        """(where) => { const canvas = document.querySelector(where), { width, height } = canvas;
            return [[...canvas.getContext('2d').getImageData(0, 0, width, height).data], width]; }""",
        where,
    )
    return np.array(values, np.uint8).reshape(-1, width, 4)[..., :3]


def levels(x):
    """An image of Python's as 8-bit numbers (h, w, 3)."""
    return x.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()


def apart(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max()


def picture(width, height, seed=0):
    """A file that is no square, with waves in it that a coarse filter would let through."""
    y, x = np.mgrid[:height, :width] / 9
    random = np.random.default_rng(seed).uniform(0.3, 3, (3, 3))
    waves = [128 + 120 * np.sin(a * x + b * y + c) * np.cos(b * x - a * y) for a, b, c in random]
    file = io.BytesIO()
    Image.fromarray(np.clip(np.stack(waves, 2), 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def give(page, content, place="a"):
    page.evaluate("window.times = {}")
    page.set_input_files(f"#file-{place}", {"name": "face.png", "mimeType": "image/png", "buffer": content})


def waits(page, what):
    page.wait_for_function("(what) => what in window.times", arg=what)


def move(page, name, strength):
    """Moves the slider of an attribute, and waits for the edited picture."""
    page.evaluate("delete window.times.edited")
    page.get_by_label(name, exact=True).evaluate(
        "(s, value) => { s.value = value; s.dispatchEvent(new Event('input')); s.dispatchEvent(new Event('change')); }", strength
    )
    waits(page, "edited")


def test_pictures_are_cropped_and_resized_as_python_does(ae, visitor, tmp_path):
    for shape in ((31, 40), (40, 31), (8, 8), (5, 7), (300, 201)):
        content = picture(*shape)
        (tmp_path / "face.png").write_bytes(content)
        give(visitor, content)
        waits(visitor, "editable")
        x = load_images([tmp_path / "face.png"], size=(8, 8), channels=3, preparation=ae[0].preparation)
        assert apart(pixels(visitor, "#before"), levels(x[0])) == 0, shape


def test_an_edit_is_pythons(ae, visitor, tmp_path):
    content = picture(31, 40)
    (tmp_path / "face.png").write_bytes(content)
    x = load_images([tmp_path / "face.png"], size=(8, 8), channels=3, preparation=ae[0].preparation)
    give(visitor, content)
    waits(visitor, "inverted a")
    move(visitor, "Round Face", 0.5)
    expected = ae[0].manipulate(x, "Round_Face", strength=0.5, inversion="fast")[0]
    assert apart(levels(expected), levels(x[0])) > 2 * LEVELS, "the edit is not seen"
    assert apart(pixels(visitor, "#after"), levels(expected)) <= LEVELS
    move(visitor, "Direction 2", -0.3)
    moved = ae[0].edit(ae[0].encode(x), {"Round_Face": 0.5, "pc2": -0.3})
    both = ae[0].manipulate(x, {"Round_Face": 0.5, "pc2": -0.3}, inversion="fast")[0]
    assert apart(pixels(visitor, "#after"), levels(both)) <= LEVELS
    told = [visitor.inner_text(f"#said-{i}") for i in range(3)]
    p = ae[0].attributes.probabilities(moved)[0]
    assert told == [f"{100 * p[0]:.0f} %", f"{100 * p[1]:.0f} %", f"{p[2]:.1f}"]


def test_faces_between_two_are_pythons(ae, visitor, tmp_path):
    contents = [picture(31, 40), picture(40, 31, seed=1)]
    for i, content in enumerate(contents):
        (tmp_path / f"{i}.png").write_bytes(content)
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    x = load_images(files, size=(8, 8), channels=3, preparation=ae[0].preparation)
    give(visitor, contents[0])
    waits(visitor, "inverted a")
    give(visitor, contents[1], "b")
    waits(visitor, "morphed")
    weights = [0.25, 0.5, 0.875]
    for weight, expected in zip(weights, ae[0].interpolate(x[:1], x[1:], weights, inversion="fast")[0], strict=True):
        visitor.get_by_label("How far along").fill(str(round(8 * weight)))
        assert apart(pixels(visitor, "#morphed"), levels(expected)) <= LEVELS, weight


def test_new_faces_are_pythons(ae, visitor):
    visitor.click("#sample")
    waits(visitor, "sampled")
    for i, expected in enumerate(ae[0].sample(9, seed=0)[5:]):
        assert apart(pixels(visitor, f"#samples div:nth-child({i + 1}) canvas"), levels(expected)) <= LEVELS, i
    visitor.evaluate("window.times = {}")
    visitor.get_by_label("Edit new face 2").click()
    waits(visitor, "inverted a")
    assert apart(pixels(visitor, "#before"), pixels(visitor, "#samples div:nth-child(2) canvas")) == 0


def test_a_distilled_model_edits_while_a_slider_moves_and_draws_new_faces_in_one_call(tiny, browser, tmp_path):
    ae, folder = untrained(tiny, tmp_path / "model", jumps=True)
    built(folder, tmp_path / "page")
    content = picture(31, 40)
    (tmp_path / "face.png").write_bytes(content)
    x = load_images([tmp_path / "face.png"], size=(8, 8), channels=3, preparation=ae.preparation)
    with served(tmp_path / "page") as address, visiting(browser, address, "?number=5") as visitor:
        give(visitor, content)
        waits(visitor, "editable")
        code = ae.infer(x, steps=2)
        for strength in (0.5, 0.0):
            visitor.evaluate("delete window.times.preview")
            visitor.get_by_label("Round Face", exact=True).evaluate(
                "(s, value) => { s.value = value; s.dispatchEvent(new Event('input')); }", strength
            )
            waits(visitor, "preview")
            expected = ae.render(code, z_sem=ae.edit(code.z_sem, {"Round_Face": strength}))[0]
            assert apart(pixels(visitor, "#after"), levels(expected)) <= LEVELS, strength
            assert (apart(levels(expected), levels(x[0])) > 2 * LEVELS) == (strength != 0)
        assert apart(pixels(visitor, "#after"), pixels(visitor, "#before")) == 0, "an unmoved picture is not the picture"
        waits(visitor, "inverted a")
        move(visitor, "Round Face", 0.5)
        expected = ae.manipulate(x, "Round_Face", strength=0.5, inversion="fast")[0]
        assert apart(pixels(visitor, "#after"), levels(expected)) <= LEVELS
        visitor.click("#sample")
        waits(visitor, "sampled")
        assert visitor.inner_text("#sample-text") == "Nobody has seen them before."
        drawn = ae.sample(9, seed=0)[5:]
        for i, expected in enumerate(drawn):
            assert apart(pixels(visitor, f"#samples div:nth-child({i + 1}) canvas"), levels(expected)) <= LEVELS, i
        torch.nn.init.zeros_(ae.unet.towards[2].weight)
        assert apart(levels(ae.sample(9, seed=0)[5]), levels(drawn[0])) > 2 * LEVELS, "it would not matter where a step leads"


def test_a_new_face_is_edited_only_once_it_is_drawn(visitor):
    visitor.click("#sample")
    waits(visitor, "sampled")
    visitor.evaluate(
        """window.times = {}; window.enabled = [];
        for (const one of document.getElementById('samples').children)
            new MutationObserver(() => enabled.push(one.querySelectorAll('button:enabled').length)).observe(
                one.firstElementChild, {attributeFilter: ['width']});"""
    )
    visitor.click("#sample")
    waits(visitor, "sampled")
    # A canvas is drawn at each step, and the last of them shows a face.
    drawn = visitor.evaluate("enabled")
    assert len(drawn) > 4
    assert [count for count in drawn if count] == [2] * 4


def test_sliders_are_used_with_the_keyboard_and_found_by_name(visitor):
    visitor.get_by_label("Find an attribute").fill("red")
    assert visitor.locator(".slider:visible").count() == 1
    before = pixels(visitor, "#after")
    visitor.keyboard.press("Tab")
    for _ in range(16):
        visitor.keyboard.press("ArrowRight")
    waits(visitor, "edited")
    visitor.wait_for_function("document.getElementById('status').textContent === 'Ready'")
    assert visitor.get_by_label("Red", exact=True).input_value() == "0.32"
    assert apart(pixels(visitor, "#after"), before) > LEVELS
    visitor.click("#reset")
    assert visitor.get_by_label("Red", exact=True).input_value() == "0"
    assert apart(pixels(visitor, "#after"), pixels(visitor, "#before")) == 0


def test_what_is_no_picture_is_a_sentence_and_the_page_goes_on(visitor):
    give(visitor, b"this is no picture")
    visitor.get_by_text("no picture that the browser can read").wait_for()
    give(visitor, picture(1, 1))
    visitor.get_by_text("only 1 x 1 pixels").wait_for()
    give(visitor, picture(20, 20))
    waits(visitor, "inverted a")
    assert visitor.locator("#error").is_hidden()


def test_a_file_that_is_refused_leaves_the_picture_before_as_it_was(visitor):
    give(visitor, picture(20, 20))
    waits(visitor, "inverted a")
    move(visitor, "Red", 0.4)
    edited = pixels(visitor, "#after")
    wide = io.BytesIO()
    Image.new("RGB", (70_000, 8)).save(wide, "PNG")  # Wider than a canvas can be.
    for content, said in (
        (b"this is no picture", "no picture that the browser can read"),
        (wide.getvalue(), "70000 x 8 pixels is too large"),
    ):
        give(visitor, content)
        visitor.get_by_text(said).wait_for()
        assert visitor.inner_text("#status") == "Ready"
        assert visitor.get_by_label("Red", exact=True).input_value() == "0.4"
        assert apart(pixels(visitor, "#after"), edited) == 0
    move(visitor, "Red", 0.2)
    assert apart(pixels(visitor, "#after"), edited) > 0
    visitor.click("#reset")
    assert apart(pixels(visitor, "#after"), pixels(visitor, "#before")) == 0
    assert visitor.locator("#error").is_hidden()


def test_of_pictures_that_come_quickly_the_last_counts(ae, visitor, tmp_path):
    contents = [picture(31, 40, seed=seed) for seed in range(4)]
    (tmp_path / "face.png").write_bytes(contents[-1])
    x = load_images([tmp_path / "face.png"], size=(8, 8), channels=3, preparation=ae[0].preparation)
    give(visitor, picture(20, 20), "b")
    for content in contents:
        give(visitor, content)
    waits(visitor, "inverted a")
    waits(visitor, "morphed")
    assert apart(pixels(visitor, "#before"), levels(x[0])) == 0
    move(visitor, "Round Face", 0.5)
    expected = ae[0].manipulate(x, "Round_Face", strength=0.5, inversion="fast")[0]
    assert apart(pixels(visitor, "#after"), levels(expected)) <= LEVELS


def test_new_faces_that_could_not_be_fetched_can_be_asked_for_again(folder, browser, tmp_path):
    page = shutil.copytree(folder, tmp_path / "page")
    file = page / "prior.weights.bin"
    content = file.read_bytes()
    file.unlink()
    with served(page) as address, visiting(browser, address, but="Failed to load resource") as visitor:
        visitor.click("#sample")
        visitor.get_by_text("prior.weights.bin is not there").wait_for()
        assert visitor.inner_text("#sample-text") == "They could not be drawn. Try again."
        file.write_bytes(content)
        visitor.click("#sample")
        waits(visitor, "sampled")
        assert visitor.locator("#error").is_hidden()


def test_nothing_hinders_those_who_cannot_see_the_page_well(visitor):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    for width, height in ((1280, 900), (390, 844)):
        visitor.set_viewport_size({"width": width, "height": height})
        assert visitor.evaluate("document.documentElement.scrollWidth") <= width
        found = axe.Axe().run(visitor).response["violations"]
        assert [violation["id"] for violation in found] == []


def test_a_split_into_many_parts_is_cut_by_slices(builder):
    import onnxruntime
    from onnx import TensorProto, helper
    from onnx.numpy_helper import from_array

    sizes, value = [1, 3, 2, 1, 1, 2, 1, 1, 4, 1], helper.make_tensor_value_info
    parts = [value(f"part{i}", TensorProto.FLOAT, [2, size]) for i, size in enumerate(sizes)]
    node = helper.make_node("Split", ["x", "sizes"], [part.name for part in parts], axis=1)
    given = [value("x", TensorProto.FLOAT, [2, sum(sizes)])]
    graph = helper.make_graph([node], "split", given, parts, [from_array(np.array(sizes), "sizes")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    x = np.random.default_rng(0).normal(size=(2, sum(sizes))).astype(np.float32)
    builder.narrow(model)
    assert {node.op_type for node in model.graph.node} == {"Slice"}
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    for part, expected in zip(found, np.split(x, np.cumsum(sizes)[:-1], axis=1), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_a_package_that_is_not_what_it_says_is_an_error_and_is_not_kept(builder, tmp_path, monkeypatch):
    monkeypatch.setattr(builder.shutil, "which", lambda name: name)
    monkeypatch.setattr(builder, "brought", lambda folder: (folder / f"{builder.RUNTIME}.tgz").write_bytes(b"another"))
    with pytest.raises(SystemExit, match="is damaged"):
        builder.fetched(tmp_path / "npm")
    assert list((tmp_path / "npm").iterdir()) == []


def test_npm_that_does_not_answer_is_not_waited_for(builder, tmp_path, monkeypatch):
    (tmp_path / "npm").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(builder, "PATIENCE", 0.2)
    with pytest.raises(SystemExit, match=r"npm cannot bring onnxruntime-web@1\.30\.0: it has not answered"):
        builder.fetched(tmp_path / "kept")


def test_models_that_the_page_cannot_show_are_refused(builder, ae):
    bare = copy.deepcopy(ae[0])
    bare.attributes = None
    with pytest.raises(SystemExit, match="fit-attributes"):
        builder.check(bare)
    builder.check(ae[0])


@pytest.mark.soak
def test_the_model_of_drawn_faces_is_edited_within_25_mb(browser, tmp_path):
    """What is published: its size, its pixels, and how long they take, which is printed."""
    out, ae = tmp_path / "page", diffae.load(ROOT / "models" / "avatars64")
    print(built(ROOT / "models" / "avatars64", out))
    with served(out) as address, contextlib.closing(browser.new_context(viewport={"width": 1280, "height": 900})) as context:
        page, fetched = context.new_page(), []
        page.set_default_timeout(PATIENCE)
        page.on("response", lambda response: fetched.append(int(response.headers.get("content-length", 0))))
        page.goto(address)
        waits(page, "inverted a")
        x = load_images([out / "examples" / "0.png"], size=(64, 64), channels=3, preparation=ae.preparation)
        move(page, "Sunglasses", 0.4)
        print(f"{sum(fetched) / 1e6:.1f} MB, ms: {page.evaluate('window.times')}")
        worst = apart(pixels(page, "#after"), levels(ae.manipulate(x, "Sunglasses", strength=0.4, inversion="fast")[0]))
        print(f"{worst} of 255 apart from Python")
        assert sum(fetched) <= 25e6
        assert worst <= LEVELS
        if SHOTS:
            page.screenshot(path=SHOTS / "demo.png")
            page.set_viewport_size({"width": 390, "height": 844})
            page.screenshot(path=SHOTS / "demo-phone.png", full_page=True)
