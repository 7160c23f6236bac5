"""Edit: one image, a slider for every attribute."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gradio as gr
from torch import Tensor

from diffae.pictures import save_png, to_pil
from diffae.runtime.files import write_text
from diffae.studio.page import ANY, MODEL, EditPanel, Page, shows_errors
from diffae.studio.shown import bars, choices, difference, enlarged, worded
from diffae.studio.workshop import MOST_UNDOS, Opened, Visit

SLIDERS, DEFINED = 16, 4
"""Sliders of fitted attributes at most, and of those that a visitor defines."""
SHOWN = 16
"""Images of the set to begin with."""


def panel(page: Page) -> EditPanel:
    """The panel, and how others open an image in it."""
    shop, ae = page.shop, page.shop.ae
    fitted = shop.attributes(Visit())[:SLIDERS]

    def slots(visit: Visit) -> list[str | None]:
        """The attribute of each slider."""
        defined = [n for n in visit.defined if n not in fitted][:DEFINED]
        return [*fitted, *defined, *[None] * (DEFINED - len(defined))]

    def chosen(visit: Visit, values: tuple[float, ...]) -> dict[str, float]:
        return {name: v for name, v in zip(slots(visit), values, strict=True) if name is not None and v}

    def opened(visit: Visit) -> Opened:
        if visit.opened is None:
            raise ValueError("Open an image first: drop one on the left, or click one of the set.")
        return visit.opened

    def bars_of(visit: Visit, z: Tensor) -> str:
        return bars(shop.probabilities(visit, opened(visit).preview.z_sem), shop.probabilities(visit, z))

    @shows_errors
    def open_image(visit: Visit, x: Tensor) -> list[Any]:
        one = Opened(ae, x)
        visit = replace(visit, opened=one, past=(), z_sem=None, asked={})
        picture = enlarged(ae, x[0])
        return [visit, picture, picture, None, bars_of(visit, one.preview.z_sem), None, None, *[0.0] * (len(fitted) + DEFINED)]

    @shows_errors
    def preview(visit: Visit, keep: list[str], *values: float) -> tuple[Any, str]:
        one = opened(visit)
        z = shop.moved(visit, chosen(visit, values), {}, keep)
        return enlarged(ae, ae.render(one.preview, z_sem=z)[0]), bars_of(visit, z)

    def finished(visit: Visit, asked: Mapping[str, Any], z: Tensor, request: gr.Request) -> list[Any]:
        one = opened(visit)
        after = ae.in_range(ae.render(one.code, z_sem=z))
        visit = replace(visit, z_sem=z, asked=asked)
        png, text = (page.folder / f"{request.session_hash}.{kind}" for kind in ("png", "json"))
        save_png(to_pil(ae.to_pictures(after)[0]), png)
        write_text(text, shop.edit_of(visit).to_json())
        gap = enlarged(ae, difference(one.x[0], after[0]))
        return [visit, enlarged(ae, after[0]), gap, bars_of(visit, z), str(png), str(text)]

    @shows_errors
    def finish(visit: Visit, keep: list[str], request: gr.Request, *values: float) -> list[Any]:
        opened(visit)
        strengths = chosen(visit, values)
        past = (*visit.past, dict(visit.asked.get("strengths", {})))[-MOST_UNDOS:]
        asked = {"strengths": strengths, "keep": keep}
        return finished(replace(visit, past=past), asked, shop.moved(visit, strengths, {}, keep), request)

    @shows_errors
    def reach(visit: Visit, keep: list[str], name: str, p: float, request: gr.Request, *values: float) -> list[Any]:
        opened(visit)
        if not name:
            raise ValueError("Choose an attribute.")
        strengths = chosen(visit, values)
        asked = {"strengths": strengths, "keep": keep, "targets": {name: p}}
        return finished(visit, asked, shop.moved(visit, strengths, {name: p}, keep), request)

    @shows_errors
    def undo(visit: Visit, request: gr.Request) -> list[Any]:
        opened(visit)
        if not visit.past:
            raise ValueError("There is nothing to undo.")
        strengths, keep = dict(visit.past[-1]), list(visit.asked.get("keep", []))
        visit = replace(visit, past=visit.past[:-1])
        shown = finished(visit, {"strengths": strengths, "keep": keep}, shop.moved(visit, strengths, {}, keep), request)
        return [*shown, *[strengths.get(name or "", 0.0) for name in slots(visit)]]

    def define(visit: Visit, name: str, positives: list[int], negatives: list[int]) -> list[Any]:
        visit = replace(visit, defined={**visit.defined, name.strip(): shop.define(name, positives, negatives)})
        gr.Info(f"{name} is a slider in Edit now.")
        names = slots(visit)
        sliders = [gr.Slider(label=worded(name), visible=name is not None) for name in names[len(fitted) :]]
        known = choices(name for name in names if name)
        return [visit, *sliders, gr.CheckboxGroup(choices=known), gr.Dropdown(choices=known), gr.Dropdown(choices=[ANY, *known])]

    held = [] if shop.data is None else _held(page)
    with gr.Tab("Edit", id="edit"), gr.Row():
        with gr.Column(scale=3, min_width=250):
            file = gr.File(label="Drop an image", file_count="single", type="filepath", height=120, elem_id="edit-file")
            gallery = gr.Gallery(
                [enlarged(ae, x, 64) for x in (shop.data.images(held) if shop.data is not None else [])],
                label="Or take one of the set", columns=2, height=300, allow_preview=False, visible=bool(held), buttons=[],
                elem_id="edit-set", format="png",
            )  # fmt: skip
            with gr.Accordion("Keep attributes, or bring one to a probability", open=False, visible=bool(fitted)):
                keep = gr.CheckboxGroup(choices(fitted), label="Keep as they are", elem_id="edit-keep")
                name = gr.Dropdown(choices(fitted), label="Bring to a probability", value=None, elem_id="edit-target")
                p = gr.Slider(0.02, 0.98, 0.9, step=0.02, label="Probability")
                reached = gr.Button("Reach it", elem_id="edit-reach")
        with gr.Column(scale=6):
            with gr.Row():
                before = gr.Image(label="Before", interactive=False, buttons=[], height=230, elem_id="edit-before", format="png")
                after = gr.Image(label="After", interactive=False, buttons=[], height=230, elem_id="edit-after", format="png")
                gap = gr.Image(label="Difference, times 4", interactive=False, buttons=[], height=230, format="png")
            with gr.Row():
                undone = gr.Button("Undo", size="sm", elem_id="edit-undo")
                png = gr.DownloadButton("Picture (PNG)", size="sm", elem_id="edit-png")
                text = gr.DownloadButton("Edit (JSON)", size="sm", elem_id="edit-json")
            shown_bars = gr.HTML("<p>What the classifiers say appears here.</p>", elem_id="edit-bars")
        with gr.Column(scale=3, min_width=260, elem_id="edit-sliders"):
            labels = [*fitted, *[None] * DEFINED]
            sliders = [
                gr.Slider(
                    -0.6, 0.6, 0.0, step=0.02, label=worded(n), visible=n is not None, elem_id=f"slider-{i}", buttons=["reset"]
                )
                for i, n in enumerate(labels)
            ]
    opens = [page.visit, before, after, gap, shown_bars, png, text, *sliders]
    shown = [page.visit, after, gap, shown_bars, png, text]

    @shows_errors
    def from_file(visit: Visit, path: str | None) -> list[Any]:
        if path is None:
            return [gr.skip()] * len(opens)
        return open_image(visit, shop.open_files([path], gr.Warning))

    @shows_errors
    def from_set(visit: Visit, event: gr.SelectData) -> list[Any]:
        assert shop.data is not None
        return open_image(visit, shop.data.images([held[event.index]]))

    def ready(visit: Visit) -> None:
        """Full quality is computed before it is asked for."""
        if visit.opened is not None:
            _ = visit.opened.code

    file.change(from_file, [page.visit, file], opens, api_name="open", **MODEL).then(
        ready, [page.visit], None, show_progress="hidden", api_visibility="private", **MODEL
    )
    gallery.select(from_set, [page.visit], opens, api_visibility="private", **MODEL).then(
        ready, [page.visit], None, show_progress="hidden", api_visibility="private", **MODEL
    )
    for i, slider in enumerate(sliders):
        # A newer drag overtakes one that has not begun.
        slider.input(
            preview, [page.visit, keep, *sliders], [after, shown_bars], trigger_mode="always_last", show_progress="hidden",
            api_name="preview" if i == 0 else None, api_visibility="public" if i == 0 else "private", **MODEL,
        )  # fmt: skip
        slider.release(
            finish, [page.visit, keep, *sliders], shown, trigger_mode="always_last", show_progress="minimal",
            api_name="edit" if i == 0 else None, api_visibility="public" if i == 0 else "private", **MODEL,
        )  # fmt: skip
    reached.click(reach, [page.visit, keep, name, p, *sliders], shown, api_name="reach", **MODEL)
    undone.click(undo, [page.visit], [*shown, *sliders], api_visibility="private", **MODEL)

    def open_in_front(visit: Visit, x: Tensor) -> list[Any]:
        return [*open_image(visit, x), gr.Tabs(selected="edit")]

    return EditPanel(open_in_front, [*opens, page.tabs], define, [page.visit, *sliders[len(fitted) :], keep, name])


def _held(page: Page) -> list[int]:
    """Images to begin with: held out, so that the model has not seen them."""
    data = page.shop.data
    assert data is not None
    indices = data.validation if len(data.validation) else data.train
    return [int(i) for i in indices[:SHOWN]]
