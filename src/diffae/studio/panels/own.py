"""Own: attributes from a visitor's example images, as many as wanted."""

from dataclasses import replace
from typing import Any

import gradio as gr

from diffae.studio.batch import Edited
from diffae.studio.display import choices, listed
from diffae.studio.examples import codes_of_examples, from_examples
from diffae.studio.page import LASTS, MODEL, PROGRESS, EditPanel, Page, shows_errors
from diffae.studio.uploads import Uploads
from diffae.studio.visit import Visit


def panel(page: Page, editor: EditPanel) -> None:
    """The panel."""
    shop = page.shop

    @shows_errors
    def make(
        visit: Visit,
        name: str,
        shows: list[str] | None,
        lacks: list[str] | None,
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> list[Any]:
        visit.check_unused([name.strip()])
        seen, own = Edited(), page.folder_of(request)
        with (
            page.working(request, progress) as left,
            Uploads(shows or [], own) as with_it,
            Uploads(lacks or [], own) as without,
        ):
            codes = codes_of_examples(shop, name, with_it, without, seen, left)
        said = listed("Not all files could be read:", seen.unread) + listed("Of some, not all was taken:", seen.notes)
        attribute = from_examples(shop, name, *codes)
        shown = editor.define(visit, name.strip(), attribute)
        against = f"{len(codes[1])} that lack it" if len(codes[1]) else "images that may show it or not"
        told = f"**{name.strip()}** is told by {len(codes[0])} images that show it, against {against}."
        return [*shown, f"{told} It is a slider in Edit.{said}", _listed(shown[0])]

    @shows_errors
    def forget(visit: Visit, names: list[str]) -> list[Any]:
        if not names:
            raise ValueError("Choose which to forget.")
        visit.check_unused(names)
        visit = replace(visit, defined={name: a for name, a in visit.defined.items() if name not in names})
        return [*editor.listed(visit), f"Forgotten: {', '.join(names)}.", _listed(visit)]

    with gr.Tab("Own", id="own") as tab, gr.Row():
        with gr.Column(scale=3):
            name = gr.Textbox(label="A new attribute", placeholder="its name", elem_id="own-name")
            settings: dict[str, Any] = dict(file_count="multiple", type="filepath", height=150)
            shows = gr.File(label="Images that show it, or zips", elem_id="own-shows", **settings)
            lacks = gr.File(label="Images that lack it, if you have some", elem_id="own-lacks", **settings)
            go = gr.Button("Make it a slider in Edit", variant="primary", elem_id="own-go")
        with gr.Column(scale=3, min_width=260):
            said = gr.Markdown(
                "Name what three of your images or more show, and drop them. Images that lack it make it surer.",
                elem_id="own-said",
            )
            mine = gr.Dropdown([], label="Your own attributes", info=LASTS, multiselect=True, value=[], elem_id="own-mine")
            gone = gr.Button("Forget these", elem_id="own-forget")
    outputs = [*editor.define_outputs, said, mine]
    go.click(make, [page.visit, name, shows, lacks], outputs, api_name="own", show_progress_on=said, **MODEL)
    gone.click(forget, [page.visit, mine], outputs, api_visibility="private", **MODEL)
    tab.select(_listed, [page.visit], mine, show_progress="hidden", api_visibility="private")


def _listed(visit: Visit) -> Any:
    return gr.Dropdown(choices=choices(visit.defined), value=[])
