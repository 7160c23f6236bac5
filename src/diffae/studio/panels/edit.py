"""Edit: one image, a slider for every attribute."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import gradio as gr
from torch import Tensor

from diffae.pictures import save_png, to_pil
from diffae.runtime.files import write_text
from diffae.semantics.attributes import Attributes
from diffae.studio.display import bars, choices, difference, enlarged, magnified
from diffae.studio.page import ANY, LASTS, MODEL, EditPanel, Page, shows_errors
from diffae.studio.panels.sliders import is_late, slider_list, sliders, strengths
from diffae.studio.visit import MOST_BYTES, MOST_UNDOS, OpenImage, Visit


class _Asked(Exception):
    """A visitor has asked for something."""


def panel(page: Page) -> EditPanel:
    """The panel, and how others open an image in it."""
    shop, ae = page.shop, page.shop.ae
    fitted, first = shop.attributes(Visit()), shop.first

    def opened(visit: Visit) -> OpenImage:
        if visit.opened is None:
            raise ValueError("Open an image first: drop one on the left, or click one of those there.")
        return visit.opened

    def asked_now(visit: Visit, keep: list[str], sent: Any, targets: Mapping[str, float] | None = None) -> dict[str, Any]:
        """What moves the image now: a probability that was reached stays, until the slider of its attribute is moved."""
        before, now = visit.asked.get("strengths", {}), strengths(sent, shop.attributes(visit))
        stay = {name: p for name, p in visit.asked.get("targets", {}).items() if now.get(name) == before.get(name)}
        stay |= targets or {}
        return {"strengths": now, "targets": stay, "keep": [name for name in keep if name not in now and name not in stay]}

    def sliders_of(visit: Visit, at: Mapping[str, float] | None) -> dict[str, Any]:
        return slider_list(shop.attributes(visit), visit.defined, at, visit.told)

    def bars_of(visit: Visit, z: Tensor, asked: Mapping[str, Any]) -> str:
        moved = [*asked.get("strengths", ()), *asked.get("targets", ())]
        return bars(shop.probabilities(visit, opened(visit).z_sem), shop.probabilities(visit, z), moved)

    @shows_errors
    def open_image(visit: Visit, x: Tensor) -> list[Any]:
        visit, forgotten = shop.open(visit, x)
        if forgotten:
            gr.Info(
                f"To stay within {MOST_BYTES >> 20} MiB, the codes of the {'image' if forgotten == 1 else f'{forgotten} images'} "
                "opened longest ago were forgotten: opened again, they are computed anew."
            )
        picture = enlarged(ae, x[0])
        z = opened(visit).z_sem
        return [visit, picture, picture, None, bars_of(visit, z, {}), None, None, sliders_of(visit, {})]

    @shows_errors
    def preview(visit: Visit, keep: list[str], sent: Any) -> list[Any]:
        one = opened(visit)
        if is_late(sent, visit.told):
            return [gr.skip()] * len(previews)
        asked = asked_now(visit, keep, sent)
        if asked == visit.asked and visit.edited is not None and visit.z_sem is not None:
            # A slider that is let go is finished before the last preview of its drag is asked for.
            return [enlarged(ae, visit.edited[0]), bars_of(visit, visit.z_sem, asked)]
        z = shop.moved(visit, **asked)
        return [enlarged(ae, ae.render(one.preview, z_sem=z)[0]), bars_of(visit, z, asked)]

    def finished(visit: Visit, asked: Mapping[str, Any], request: gr.Request) -> list[Any]:
        one = opened(visit)
        z = shop.moved(visit, **asked)
        after = ae.clamp(ae.render(one.code, z_sem=z))
        visit = replace(visit, z_sem=z, edited=after, asked=asked)
        png, text = (page.file(request, f"edit.{kind}") for kind in ("png", "json"))
        save_png(to_pil(ae.to_pictures(after)[0]), png)
        write_text(text, shop.edit_of(visit).to_json())
        gap = magnified(difference(ae.to_pictures(one.x)[0], ae.to_pictures(after)[0]))
        return [visit, enlarged(ae, after[0]), gap, bars_of(visit, z, asked), str(png), str(text)]

    def changed(visit: Visit, asked: Mapping[str, Any], request: gr.Request) -> list[Any]:
        """As `finished`, and can be undone."""
        return finished(replace(visit, past=(*visit.past, visit.asked)[-MOST_UNDOS:]), asked, request)

    @shows_errors
    def finish(visit: Visit, keep: list[str], sent: Any, request: gr.Request) -> list[Any]:
        opened(visit)
        if is_late(sent, visit.told):
            return [gr.skip()] * len(finishes)
        return changed(visit, asked_now(visit, keep, sent), request)

    @shows_errors
    def reach(visit: Visit, keep: list[str], name: str, p: float, sent: Any, request: gr.Request) -> list[Any]:
        opened(visit)
        if is_late(sent, visit.told):
            return [gr.skip()] * len(finishes)
        if not name:
            raise ValueError("Choose an attribute.")
        return changed(visit, asked_now(visit, keep, sent, {name: p}), request)

    @shows_errors
    def undo(visit: Visit, request: gr.Request) -> list[Any]:
        opened(visit)
        if not visit.past:
            raise ValueError("There is nothing to undo.")
        names, past = shop.attributes(visit), visit.past[-1]
        # One that the visitor made may have been forgotten since.
        moves = {kind: {name: v for name, v in past.get(kind, {}).items() if name in names} for kind in ("strengths", "targets")}
        keep = [name for name in past.get("keep", ()) if name in names]
        visit = replace(visit, past=visit.past[:-1], told=visit.told + 1)
        return [*finished(visit, {**moves, "keep": keep}, request), sliders_of(visit, moves["strengths"]), keep]

    def listed(visit: Visit) -> list[Any]:
        names = choices(shop.attributes(visit))
        dropdowns = [gr.Dropdown(choices=names), gr.Dropdown(choices=names), gr.Dropdown(choices=[ANY, *names])]
        # A slider that was moved meanwhile stays where it is.
        return [visit, sliders_of(visit, None), *dropdowns]

    def define(visit: Visit, name: str, attribute: Attributes) -> list[Any]:
        visit.check_unused([name])
        gr.Info(f"{name} is a slider in Edit now. {LASTS}")
        return listed(replace(visit, defined={**visit.defined, name: attribute}))

    with gr.Tab("Edit", id="edit"), gr.Row():
        with gr.Column(scale=3, min_width=250, elem_id="edit-left"):
            file = gr.File(label="Drop an image", file_count="single", type="filepath", height=120, elem_id="edit-file")
            gallery = gr.Gallery(
                [enlarged(ae, x, 64) for x in shop.examples],
                label="Or take one of the set" if shop.data is not None else "Or take one that the model draws",
                columns=2, height=330, allow_preview=False, visible=first is not None, buttons=[], format="png",
                elem_id="edit-set",
            )  # fmt: skip
            with gr.Accordion("Keep attributes, or bring one to a probability", open=False):
                keep = gr.Dropdown(choices(fitted), label="Keep as they are", multiselect=True, value=[], elem_id="edit-keep")
                name = gr.Dropdown(choices(fitted), label="Bring to a probability", value=None, elem_id="edit-target")
                p = gr.Slider(0.02, 0.98, 0.9, step=0.02, label="Probability")
                reached = gr.Button("Reach it", elem_id="edit-reach")
        with gr.Column(scale=6, elem_id="edit-middle"):
            shown = None if first is None else enlarged(ae, first.x[0])
            with gr.Row(elem_id="edit-pictures"):
                settings: dict[str, Any] = dict(interactive=False, buttons=[], height=230, format="png")
                before = gr.Image(shown, label="Before", elem_id="edit-before", **settings)
                after = gr.Image(shown, label="After", elem_id="edit-after", **settings)
                gap = gr.Image(label="Difference, times 4", **settings)
            with gr.Row(elem_id="edit-downloads"):
                undone = gr.Button("Undo", size="sm", elem_id="edit-undo")
                png = gr.DownloadButton("Picture (PNG)", size="sm", elem_id="edit-png")
                text = gr.DownloadButton("Edit (JSON)", size="sm", elem_id="edit-json")
            begun = "<p>What the classifiers say appears here.</p>"
            if first is not None:
                begun = bars_of(Visit(opened=first), first.z_sem, {})
            shown_bars = gr.HTML(begun, elem_id="edit-bars")
        with gr.Column(scale=3, min_width=260, elem_id="edit-right"):
            moving = sliders(slider_list(fitted, (), {}), elem_id="edit-sliders")
        picked = gr.State()  # Of all galleries, and within a tab: beside tabs Gradio would count it as one.
    opens = [page.visit, before, after, gap, shown_bars, png, text, moving]
    finishes = [page.visit, after, gap, shown_bars, png, text]
    previews = [after, shown_bars]

    @shows_errors
    def from_file(visit: Visit, path: str | None) -> list[Any]:
        if path is None:
            return [gr.skip()] * len(opens)
        return open_image(visit, shop.open_files([path], gr.Warning))

    @shows_errors
    def from_set(visit: Visit, event: gr.SelectData) -> list[Any]:
        return open_image(visit, shop.examples[event.index : event.index + 1])

    def ready(visit: Visit) -> None:
        """Codes are computed before they are asked for. That of full quality is given up where a visitor asks for something
        meanwhile: a preview would wait for it."""
        if (one := visit.opened) is None:
            return
        requests = shop.requests

        def give_way(images: int) -> None:
            if shop.requests > requests:
                raise _Asked

        _ = one.preview
        with contextlib.suppress(_Asked), shop.watched(give_way):
            _ = one.code

    soon: dict[str, Any] = dict(show_progress="hidden", api_visibility="private", **MODEL)
    # A visit that ended of age is an empty one, with no image: what the page still shows is not there any more.
    begin = Visit() if first is None else Visit(first, (first,))
    page.blocks.load(lambda: begin, None, page.visit, api_visibility="private", queue=False)
    file.change(from_file, [page.visit, file], opens, api_name="open", **MODEL).then(ready, [page.visit], None, **soon)
    gallery.select(from_set, [page.visit], opens, api_visibility="private", **MODEL).then(ready, [page.visit], None, **soon)
    # A newer drag overtakes one that has not begun.
    latest: dict[str, Any] = dict(trigger_mode="always_last", **MODEL)
    asks = [page.visit, keep, moving]
    moving.input(preview, asks, previews, show_progress="hidden", api_name="preview", **latest)
    moving.release(finish, asks, finishes, show_progress="minimal", api_name="edit", **latest)
    reached.click(reach, [page.visit, keep, name, p, moving], finishes, api_name="reach", **MODEL)
    undone.click(undo, [page.visit], [*finishes, moving, keep], api_visibility="private", **MODEL)

    def open_in_front(visit: Visit, x: Tensor) -> list[Any]:
        return [*open_image(visit, x), gr.Tabs(selected="edit")]

    def opens_in_front(gallery: gr.Gallery, pick: Callable[..., Tensor], inputs: list[Any]) -> None:
        clicked = gallery.select(pick, inputs, picked, show_progress="hidden", api_visibility="private", queue=False)
        clicked.success(open_in_front, [page.visit, picked], [*opens, page.tabs], api_visibility="private", **MODEL)

    return EditPanel(opens_in_front, define, listed, [page.visit, moving, keep, name])
