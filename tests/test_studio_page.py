"""The studio as a visitor meets it: in a browser, against a small model. How long things took is printed, not tested."""

import contextlib
import copy
import functools
import io
import json
import os
import re
import shutil
import socket
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from browsing import chromium
from PIL import Image

pytest.importorskip("gradio", reason="The studio's tests need gradio: pip install 'diffae[studio]'.")
pytest.importorskip("playwright.sync_api", reason="The studio's page is tested with playwright: pip install playwright.")

import uvicorn

from diffae.autoencoder import build
from diffae.config import DataConfig
from diffae.config.presets import preset
from diffae.data import prepare
from diffae.edits import Edit
from diffae.pictures import save_png, to_pil
from diffae.semantics.attributes import Attributes, Score
from diffae.semantics.classifiers import Classifier
from diffae.semantics.fitting import fit_attributes
from diffae.semantics.prior import GaussianPrior
from diffae.semantics.standardizer import Standardizer
from diffae.studio.app import application, temporary_folder
from diffae.studio.panels import own
from diffae.studio.workshop import Workshop

pytestmark = [
    pytest.mark.slow,
    # These networks were never trained; and what Gradio and its servers warn of is theirs.
    pytest.mark.filterwarnings("ignore"),
]
SHOTS = Path(os.environ.get("DIFFAE_SCREENSHOTS", "")) if os.environ.get("DIFFAE_SCREENSHOTS") else None
PATIENCE = 60_000
"""Milliseconds; machines are shared."""


@pytest.fixture
def nothing_is_left():
    """The server is in this process, and keeps its visitors' connections until they or the module end."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return workshop_of(narrow(), tmp_path_factory.mktemp("studio"))


def narrow():
    """avatars64 with fewer channels and levels: what a page does does not depend on them."""
    model, few = preset("avatars64").model, {"base_channels": 16, "channel_mult": (1, 1, 2)}
    return replace(model, unet=replace(model.unet, **few), encoder=replace(model.encoder, **few))


def workshop_of(model, folder):
    """A Workshop of a network, untrained: what a page does does not depend on that either."""
    os.environ["DIFFAE_CACHE"] = str(folder / "cache")
    generator = np.random.default_rng(0)
    for i in range(48):
        colour = generator.integers(0, 255, 3)
        array = np.clip(colour + generator.normal(0, 20, (64, 64, 3)), 0, 255).astype(np.uint8)
        save_png(to_pil(torch.from_numpy(array).permute(2, 0, 1) / 127.5 - 1), folder / "images" / f"{i:02d}.png")
    data = prepare(DataConfig(source=str(folder / "images"), validation=0.25), size=(64, 64), channels=3)
    means = data.images(range(48)).mean((2, 3)).numpy()
    labels = {
        name: (means[:, c] > np.median(means[:, c])).astype(float) for c, name in enumerate(("Reddish", "Greenish", "Bluish"))
    }
    data = replace(data, labels=labels)
    torch.manual_seed(0)
    ae = build(model).eval()
    for module in ae.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and not module.weight.any():
            torch.nn.init.normal_(module.weight, std=0.02)  # Fresh networks end in zeros, and z_sem would not be seen.
    z = torch.cat([ae.encode(data.images(range(i, i + 16))) for i in range(0, 48, 16)])
    ae.standardizer = Standardizer.fit(z)
    ae.prior = GaussianPrior(ae.z_dim).fit(ae.standardizer(z))
    parts = [{name: values[i] for name, values in labels.items()} for i in (data.train, data.validation)]
    ae.attributes, _ = fit_attributes(z[data.train], parts[0], held_z_sem=z[data.validation], held_labels=parts[1])
    bright = Classifier(lambda x: (4 * x.mean((1, 2, 3))).sigmoid().detach())
    workshop = Workshop(ae, data, z, name="a small model", classifiers={"Bright": bright})
    workshop.folder = folder
    return workshop


@contextlib.contextmanager
def served(shop):
    """The address at which a shop is open."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with shop.serving(), temporary_folder() as folder:
        server = uvicorn.Server(uvicorn.Config(application(shop, folder), host="127.0.0.1", port=port, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            for _ in range(600):
                if server.started:
                    break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)


@pytest.fixture(scope="module")
def address(shop):
    with served(shop) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def visitor(browser, address):
    """Opens pages; in the end no request may have left this machine, and no script have failed."""
    with contextlib.ExitStack() as stack:
        asked, failed = set(), []

        def visit(**settings):
            context = stack.enter_context(
                contextlib.closing(browser.new_context(viewport={"width": 1280, "height": 720}, **settings))
            )
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            page.on("request", lambda request: asked.add(request.url))
            page.on("pageerror", lambda error: failed.append(str(error)))
            page.goto(address)
            page.wait_for_selector("#edit-set img")
            return page

        yield visit
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not failed


def picture(page, where):
    return page.locator(f"{where} img").first.get_attribute("src")


def changed(page, where, before):
    """Waits until a picture is another one."""
    page.wait_for_function(
        "([where, before]) => { const i = document.querySelector(where + ' img'); return i && i.getAttribute('src') !== before; }",
        arg=[where, before],
    )


def shot(page, name):
    if SHOTS:
        page.screenshot(path=SHOTS / f"{name}.png")


def open_first(page, number=0):
    before = picture(page, "#edit-after")
    page.locator("#edit-set button:has(img)").nth(number).click()
    changed(page, "#edit-after", before)


def drag(page, slider, share):
    """Moves a slider with the mouse to a share of its length, and returns it, still held."""
    page.locator(f"#{slider} input[type=range]").scroll_into_view_if_needed()
    box = page.locator(f"#{slider} input[type=range]").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * share, y, steps=4)


def drop_and_drag(page, shop):
    """Drops a picture and moves a slider, which stays held; prints how long that took."""
    began = time.monotonic()
    before = picture(page, "#edit-after")
    page.locator("#edit-file input[type=file]").set_input_files(str(shop.folder / "images" / "00.png"))
    changed(page, "#edit-after", before)
    opened = picture(page, "#edit-after")
    drag(page, "slider-0", 0.8)
    changed(page, "#edit-after", opened)
    print(f"\nfrom drop to the first edited preview: {time.monotonic() - began:.2f} s", end="")
    times = []
    for share in (0.7, 0.9, 0.6, 0.85):
        before, began = picture(page, "#edit-after"), time.monotonic()
        box = page.locator("#slider-0 input[type=range]").bounding_box()
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
        changed(page, "#edit-after", before)
        times.append(time.monotonic() - began)
    print(f"; a drag repaints in {sorted(times)[len(times) // 2]:.2f} s (median of {len(times)})", end="")


def test_a_picture_is_dropped_edited_undone_and_saved(visitor, shop, tmp_path):
    page = visitor()
    drop_and_drag(page, shop)
    page.mouse.up()
    page.wait_for_selector("#edit-pictures > :last-child img")
    with page.expect_download() as download:
        page.wait_for_timeout(1000)
        page.locator("#edit-json").click()
    edit = Edit.from_json(Path(download.value.path()).read_text())
    with page.expect_download() as download:
        page.locator("#edit-png").click()
    save_png(to_pil(edit.render(shop.ae, model=shop.model)), tmp_path / "again.png")
    assert Path(download.value.path()).read_bytes() == (tmp_path / "again.png").read_bytes(), "the same pixels"
    assert edit.asked["strengths"]
    shot(page, "edit")
    before = picture(page, "#edit-after")
    page.locator("#edit-undo").click()
    changed(page, "#edit-after", before)
    assert float(page.locator("#slider-0 input[type=number]").input_value()) == 0


def test_previews_of_a_distilled_model_are_jumps(browser, tmp_path):
    # Of the whole size: how long a drop and a drag take by jumps is printed.
    model = preset("avatars64").model
    shop = workshop_of(replace(model, unet=replace(model.unet, jumps=True)), tmp_path)
    # From where each call is told to lead, and where; None of a step that is no jump.
    asked = []
    shop.ae.unet.register_forward_pre_hook(
        lambda unet, args, kwargs: asked.append((float(args[1][0]), kwargs.get("to"))), with_kwargs=True
    )
    with served(shop) as address, contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.wait_for_selector("#edit-set img")
        asked.clear()
        drop_and_drag(page, shop)
        page.mouse.up()
        page.wait_for_selector("#edit-pictures > :last-child img")
    led = [float(to[0]) for t, to in asked if to is not None and float(to[0]) < t]
    assert len(led) >= 4, "there were previews"
    assert led == pytest.approx(shop.ae.path(2).t[1:].tolist() * (len(led) // 2)), "each is two jumps to the image"


def test_an_image_is_open_when_the_page_comes_and_its_sliders_move_it(visitor):
    page = visitor()
    opened = picture(page, "#edit-after")
    page.wait_for_selector("#edit-bars table")
    drag(page, "slider-0", 0.9)
    changed(page, "#edit-after", opened)
    page.mouse.up()
    page.wait_for_selector("#edit-pictures > :last-child img")


def test_without_images_the_model_draws_one_to_begin_with(shop):
    drawing = Workshop(shop.ae, None, None, name="drawing")
    assert 1 <= len(drawing.examples) <= 8
    assert torch.equal(drawing.first.x, drawing.examples[:1])
    assert Workshop(build(preset("avatars32").model).eval(), None, None, name="one that draws nothing").first is None


def test_a_slider_among_hundreds_is_found_by_its_name(shop, browser, tmp_path):
    torch.manual_seed(0)
    old, ae = shop.ae.attributes, copy.copy(shop.ae)
    ae._modules = dict(shop.ae._modules)
    names = [f"Trait_{i}" for i in range(400)]
    many = Attributes({name: Score("binary", 10, 0.5, auroc=0.9 - i / 1000) for i, name in enumerate(names)}, ae.z_dim)
    fresh = many.state_dict()
    repeated = {key: v[torch.arange(400) % len(v)] for key, v in old.state_dict().items() if v.dim() and len(v) == len(old.names)}
    same = {key: v for key, v in old.state_dict().items() if v.shape == fresh[key].shape}
    many.load_state_dict(fresh | same | repeated)
    ae.attributes = many
    with served(Workshop(ae, None, None, name="many")) as address:
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.wait_for_selector("text=12 of 400 shown")
        assert page.locator(".attribute").count() == 12
        assert page.locator("#edit-bars tbody tr, #edit-bars tr").count() <= 16
        page.locator("#attribute-search").fill("trait 39")
        page.wait_for_selector("text=14 of 14 found among 400 shown")
        before = picture(page, "#edit-after")
        drag(page, "slider-397", 0.9)
        page.mouse.up()
        changed(page, "#edit-after", before)
        page.wait_for_selector("#edit-bars th:has-text('Trait 397')")
        page.locator("#attribute-search").fill("")
        page.wait_for_selector("text=13 of 400 shown")
        assert float(page.locator("#slider-397 input[type=number]").input_value()) > 0.3, "what is moved stays in sight"
        page.locator("#attribute-search").fill("nothing such")
        page.wait_for_selector("text=None of 400 is called so")
        shot(page, "many")
        context.close()


def test_sliders_are_used_with_the_keyboard_and_let_go_with_the_key(visitor):
    page = visitor()
    open_first(page)
    before = picture(page, "#edit-after")
    page.locator("#slider-0 input[type=range]").focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    changed(page, "#edit-after", before)
    page.wait_for_selector("#edit-json a[href], #edit-json:not([disabled])")
    assert float(page.locator("#slider-0 input[type=number]").input_value()) == pytest.approx(0.16)


def test_a_broken_file_is_a_sentence_and_the_page_goes_on(visitor, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    page = visitor()
    page.locator("#edit-file input[type=file]").set_input_files(str(tmp_path / "broken.png"))
    page.wait_for_selector("text=broken.png is not an image in any format that Pillow reads")
    assert "Traceback" not in page.content()
    open_first(page)


def test_two_visitors_do_not_see_each_others_work(visitor):
    one, two = visitor(), visitor()
    open_first(one, 0)
    open_first(two, 1)
    first, second = picture(one, "#edit-before"), picture(two, "#edit-before")
    assert first != second
    drag(one, "slider-0", 0.9)
    one.mouse.up()
    changed(one, "#edit-after", first)
    assert picture(two, "#edit-before") == second
    assert float(two.locator("#slider-0 input[type=number]").input_value()) == 0


def test_a_page_that_is_loaded_again_in_the_middle_of_work_works(visitor, shop, monkeypatch):
    begun, goes_on, draw = threading.Event(), threading.Event(), shop.draw

    def draws(*args, **settings):
        begun.set()
        assert goes_on.wait(PATIENCE / 1000)
        return draw(*args, **settings)

    monkeypatch.setattr(shop, "draw", draws)
    page = visitor()
    page.get_by_role("tab", name="Sample").click()
    page.locator("#sample-go").click()
    try:
        assert begun.wait(PATIENCE / 1000)
        page.reload()
        page.wait_for_selector("#edit-set img")
    finally:
        goes_on.set()
    open_first(page)


def test_samples_are_drawn_and_one_is_edited(visitor):
    page = visitor()
    page.get_by_role("tab", name="Sample").click()
    page.locator("#sample-go").click()
    page.wait_for_selector("#sample-shown button:has(img)")
    shot(page, "sample")
    before = picture(page, "#edit-after")
    page.locator("#sample-shown button:has(img)").nth(2).click()
    changed(page, "#edit-after", before)
    page.wait_for_selector("#edit-after img", state="visible")


def test_a_classifier_is_explained(visitor):
    page = visitor()
    open_first(page)
    page.get_by_role("tab", name="Why").click()
    page.click("#why-go")
    page.wait_for_function("document.querySelector('#why-said').innerText.includes('of the counterfactual')", timeout=3 * PATIENCE)
    assert page.locator("#why-shown img").count() >= 6
    shot(page, "why")


def test_variations_and_a_morph(visitor, shop):
    page = visitor()
    open_first(page)
    page.get_by_role("tab", name="Variations").click()
    page.locator("#vary-go").click()
    page.wait_for_selector("#vary-shown button:has(img)")
    shot(page, "variations")
    page.get_by_role("tab", name="Morph").click()
    files = [str(shop.folder / "images" / f"{i:02d}.png") for i in (3, 4)]
    page.locator("#morph-go").click()
    page.wait_for_selector("text=A path needs two to 8 images, got 0")
    page.locator("#morph-files input[type=file]").set_input_files(files)
    page.wait_for_timeout(1000)
    page.locator("#morph-go").click()
    page.wait_for_selector("#morph-shown img")
    shot(page, "morph")
    with page.expect_download() as download:
        page.locator("#morph-gif").click()
    assert Path(download.value.path()).read_bytes()[:4] == b"GIF8"


def test_what_was_done_to_one_image_is_done_to_a_folder(visitor, shop, tmp_path):
    page = visitor()
    before = picture(page, "#edit-after")
    drag(page, "slider-0", 0.85)
    page.mouse.up()
    changed(page, "#edit-after", before)
    page.wait_for_selector("#edit-pictures > :last-child img")
    page.get_by_role("tab", name="Folder").click()
    page.wait_for_selector("#folder-asked:has-text('What was done in Edit: ')")
    (tmp_path / "mine").mkdir()
    for i in range(2):
        shutil.copy(shop.folder / "images" / f"{i:02d}.png", tmp_path / "mine")
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    page.locator("#folder-files input[type=file]").set_input_files(str(tmp_path / "broken.png"))
    page.locator("#folder-folder input[type=file]").set_input_files(str(tmp_path / "mine"))
    page.wait_for_selector("#folder-folder [aria-label='01.png']")
    page.locator("#folder-go").click()
    # Or it is done already, where these two go faster than the page looks.
    page.wait_for_selector("#folder-shown :text-matches('Editing: .* left|measured'), #folder-said:has-text('2 images edited')")
    page.wait_for_selector("#folder-said:has-text('2 images edited')", timeout=3 * PATIENCE)
    page.wait_for_selector("#folder-said:has-text('broken.png is not an image in any format that Pillow reads.')")
    assert page.locator("#folder-shown button:has(img)").count() == 4
    shot(page, "folder")
    with page.expect_download() as download:
        page.locator("#folder-zip a").first.click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert {"00.png", "01.png", "names.csv", "what-was-done.json", "not-read.txt"} == set(archive.namelist())


def test_example_images_become_sliders_more_than_four_of_them(visitor, shop):
    page = visitor()
    files = [str(shop.folder / "images" / f"{i:02d}.png") for i in range(4)]
    page.get_by_role("tab", name="Own").click()
    page.locator("#own-shows input[type=file]").set_input_files(files)
    page.wait_for_selector("#own-shows [aria-label='03.png']")
    names = [f"Look {i}" for i in range(6)]
    for name in names:
        page.locator("#own-name textarea, #own-name input").fill(name)
        page.locator("#own-go").click()
        page.wait_for_selector(f"#own-said:has-text('{name} is told by 4 images that show it')")
    shot(page, "own")
    page.get_by_role("tab", name="Edit").click()
    for name in names:
        page.wait_for_selector(f".attribute:has-text('{name}')")
    before = picture(page, "#edit-after")
    page.locator(".attribute:has-text('Look 5') input[type=number]").fill("0.4")
    page.keyboard.press("Enter")
    changed(page, "#edit-after", before)
    page.wait_for_selector("#edit-bars th:has-text('Look 5')")


@pytest.mark.parametrize("held", [False, True])
def test_a_slider_that_is_moved_while_an_attribute_is_learned_stays_there(visitor, shop, monkeypatch, held):
    learn, go = own.codes_of_examples, threading.Event()
    monkeypatch.setattr(own, "codes_of_examples", lambda *args: go.wait(60) and learn(*args))
    page, name = visitor(), f"Meanwhile {held}"
    page.get_by_role("tab", name="Own").click()
    page.locator("#own-shows input[type=file]").set_input_files([str(shop.folder / "images" / f"{i:02d}.png") for i in range(4)])
    page.wait_for_selector("#own-shows [aria-label='03.png']")
    page.locator("#own-name textarea, #own-name input").fill(name)
    page.locator("#own-go").click()
    page.get_by_role("tab", name="Edit").click()
    with page.expect_request("**/queue/join*"):
        if held:
            drag(page, "slider-0", 0.8)
        else:
            page.locator("#slider-0 input[type=number]").fill("0.36")
            page.keyboard.press("Enter")
    go.set()
    page.wait_for_selector(f".attribute:has-text('{name}')")
    page.wait_for_selector("#edit-pictures > :last-child img")
    assert float(page.locator("#slider-0 input[type=number]").input_value()) == pytest.approx(0.36, abs=0.05)


def test_two_groups_of_the_map_become_a_slider(visitor):
    page = visitor()
    page.get_by_role("tab", name="Explore").click()
    canvas = page.locator("#explore-map canvas").first
    canvas.wait_for()
    page.locator("#explore-map select").select_option("Reddish")
    page.wait_for_selector("#explore-map .map[data-colour='Reddish']", state="attached")
    seen = canvas.evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    red, _, blue, _ = np.array(seen).reshape(-1, 4).T
    assert ((red > 200) & (blue < 90)).sum() > 100, "those that have it are of another colour"
    box = canvas.bounding_box()

    def choose(left, right):
        page.mouse.move(box["x"] + left * box["width"], box["y"] + 2)
        page.mouse.down()
        page.mouse.move(box["x"] + right * box["width"], box["y"] + box["height"] - 3, steps=4)
        page.mouse.up()
        page.wait_for_selector("#explore-shown button:has(img)")
        page.wait_for_timeout(1000)

    choose(0.005, 0.45)
    page.locator("#explore-with").click()
    page.wait_for_selector("text=/With it: [1-9]/")
    choose(0.55, 0.995)
    page.locator("#explore-without").click()
    page.wait_for_selector("text=/Without it: [1-9]/")
    page.locator("#explore-name textarea, #explore-name input").fill("Left of the map")
    shot(page, "explore")
    page.locator("#explore-define").click()
    page.wait_for_selector("#explore-groups:has-text('With it: 0 images. Without it: 0.')")
    page.get_by_role("tab", name="Edit").click()
    page.wait_for_selector(".attribute:has-text('Left of the map')")
    open_first(page)


def test_labels_are_taught_and_written(visitor, shop, monkeypatch):
    page = visitor()
    choose = shop.most_uncertain
    monkeypatch.setattr(shop, "most_uncertain", lambda labels: time.sleep(0.2) or choose(labels))
    page.get_by_role("tab", name="Teach").click()
    page.locator("#teach-name textarea, #teach-name input").fill("Bright")
    page.locator("#teach-begin").click()
    seen = "document.querySelector('#teach-image img')?.complete"
    page.wait_for_function(seen)
    # One answer on the heels of another, before the next image is there: both are for the one that was seen, and the last counts.
    page.evaluate("for (const it of ['yes', 'no']) document.querySelector(`#teach-${it}`).click()")
    page.wait_for_selector("text=0 have it, 1 lack it")
    # What is answered as soon as its image is there counts.
    for i in range(7):
        page.wait_for_function(seen)
        before = picture(page, "#teach-image")
        page.locator("#teach-yes" if i % 2 else "#teach-no").click()
        changed(page, "#teach-image", before)
    # While the next image is on its way, nothing is answered for it.
    page.wait_for_function(seen)
    held = []
    page.route("**/gradio_api/file=**", lambda route: held.append(route))
    page.locator("#teach-no").click()
    page.wait_for_selector("text=3 have it, 6 lack it")
    page.locator("#teach-no").click()
    page.wait_for_selector("text=No image is shown to answer for")
    for route in held:
        route.continue_()
    page.unroute("**/gradio_api/file=**")
    page.locator("#teach-back").click()
    page.wait_for_selector("text=3 have it, 5 lack it")
    page.locator("#teach-back").click()
    page.wait_for_selector("text=3 have it, 4 lack it")
    page.wait_for_function(seen)
    page.locator("#teach-yes").click()
    page.wait_for_selector("text=4 have it, 4 lack it")
    page.wait_for_selector("text=/AUROC on images/")
    shot(page, "teach")
    page.locator("#teach-export").click()
    with page.expect_download() as download:
        page.locator("#teach-file a").first.click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0] == "file,Bright"
    assert len(lines) == 9
    page.locator("#teach-define").click()
    page.get_by_role("tab", name="Edit").click()
    page.wait_for_selector(".attribute:has-text('Bright')")


def test_nothing_serious_hinders_those_who_cannot_see_the_page_well(visitor):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    page = visitor(color_scheme="dark")
    open_first(page)
    shot(page, "dark")
    found = axe.Axe().run(page).response["violations"]
    ours, theirs = [], []
    for rule in found:
        for node in rule["nodes"]:
            where = " ".join(map(str, node["target"]))
            (ours if re.search(r"\.bars|\.map|#edit-bars|attribute|#slider-|#range-|#edit-sliders", where) else theirs).append(
                (rule["id"], rule["impact"], where)
            )
    print("\nGradio's own:", json.dumps(sorted({(a, b) for a, b, _ in theirs})), end="")
    assert not [v for v in ours if v[1] in ("serious", "critical")]


def test_the_http_interface_edits_as_the_tutorial_says(address, shop):
    pytest.importorskip("gradio_client")
    text = (Path(__file__).parents[1] / "docs" / "tutorials" / "studio.md").read_text()
    (example,) = re.findall(r"```py\n(.*?)```", text, flags=re.DOTALL)
    face = shop.folder / "images" / "00.png"
    found: dict = {}
    changes = {"http://127.0.0.1:7860": address, "face.png": str(face), "Smiling": "Reddish"}
    exec(functools.reduce(lambda text, change: text.replace(*change), changes.items(), example), found)
    picture, edit = (v if isinstance(v, str) else v["value"] for v in (found["picture"], found["edit"]))
    assert Edit.from_json(Path(edit).read_text()).asked["strengths"] == {"Reddish": 0.3}
    assert Path(picture).read_bytes()[:4] == b"\x89PNG"


def test_all_pictures_of_volumes_show_the_slice_that_a_slider_names(browser, tmp_path):
    config = preset("volume32").model
    torch.manual_seed(0)
    ae = build(replace(config, image_size=(8, 32, 32), encoder=replace(config.encoder, pooled_size=2))).eval()
    volume = np.zeros((1, 8, 32, 32), np.uint8)
    for depth in range(8):
        volume[0, depth, 4 * depth : 4 * depth + 4] = 255  # A bar that is lower in each slice.
    np.save(tmp_path / "bars.npy", volume)
    with served(Workshop(ae, None, None, name="volumes")) as address:
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        assert "8 x 32 x 32, 1 channel" in page.content()
        page.locator("#edit-file input[type=file]").set_input_files(tmp_path / "bars.npy")
        page.wait_for_selector("#edit-after img")
        image = page.locator("#edit-after img").first

        def brightest():
            """Where the bar is, as a share of the picture's height."""
            box = image.bounding_box()
            with Image.open(io.BytesIO(image.screenshot())) as seen:
                rows = np.asarray(seen.convert("L"), float)[:-2, seen.width // 2 : -4].mean(1)  # Beside the label and the frame.
            assert box["height"] == pytest.approx(box["width"], rel=0.03), "a slice is as wide as high"
            return float((rows * np.arange(len(rows))).sum() / rows.sum() / len(rows))

        shot(page, "volume")
        for number in (4, 0, 7, 2):
            if number != 4:
                page.locator("#slice").fill(str(number))
            assert brightest() == pytest.approx((4 * number + 2) / 32, abs=0.03)
            assert page.locator(".slice output").inner_text() == f"{number + 1} of 8"
        context.close()
