"""Folder: the edit that was made of one image, of as many as there are."""

from dataclasses import replace
from typing import Any

import gradio as gr

from diffae.studio.batch import edit_all
from diffae.studio.display import enlarged, listed, worded
from diffae.studio.page import PROGRESS, Page, shows_errors
from diffae.studio.uploads import Uploads
from diffae.studio.visit import Visit

MOST_LINES = 20
"""Files that the page names; the zip names all."""


def panel(page: Page) -> None:
    """The panel."""
    shop, ae = page.shop, page.shop.ae

    def described(visit: Visit) -> str:
        """What was done in Edit, in words."""
        if visit.z_sem is None:
            return "Nothing is edited yet: move a slider in Edit; what you did there is then done to all files."
        said = [f"{worded(name)} {strength:+.2f}" for name, strength in visit.asked["strengths"].items()]
        said += [f"{worded(name)} to a probability of {p:.2f}" for name, p in visit.asked.get("targets", {}).items()]
        kept = ", ".join(map(worded, visit.asked["keep"]))
        return f"**What was done in Edit:** {', '.join(said) or 'nothing moved'}{f'; kept: {kept}' if kept else ''}."

    def lines(title: str, sentences: list[str]) -> str:
        more = [f"… and {len(sentences) - MOST_LINES} more, which `not-read.txt` in the zip names."]
        return listed(title, [*sentences[:MOST_LINES], *(more if len(sentences) > MOST_LINES else ())])

    def ask(visit: Visit) -> list[Any]:
        """The edit as it is when it is asked for, and in words; when its turn comes, the visitor may have done another. It goes
        without images, which would stay in memory."""
        return [replace(visit, opened=None, recent=(), past=(), edited=None), described(visit)]

    @shows_errors
    def run(
        visit: Visit, clicked: Visit | None, files: list[str] | None, folder: list[str] | None, request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> list[Any]:  # fmt: skip
        # A script clicks nothing.
        visit = visit if clicked is None else clicked
        target = page.file(request, "edited.zip")
        own = page.folder_of(request)
        with page.working(request, progress) as left, Uploads([*(files or []), *(folder or [])], own) as uploads:
            edited = edit_all(shop, visit, uploads, target, left)
        unread = len(edited.unread)
        said = f"**{edited.num} image{'s' * (edited.num != 1)} edited.**"
        said += lines(f"**{unread} file{'s' * (unread != 1)} could not be read:**", edited.unread)
        said += lines("Of some, not all was taken:", edited.notes)
        return [said, str(target), [enlarged(ae, x, 128) for pair in edited.shown for x in pair]]

    with gr.Tab("Folder", id="folder") as tab, gr.Row():
        clicked = gr.State(None)
        with gr.Column(scale=2, min_width=260):
            asked = gr.Markdown(described(Visit()), elem_id="folder-asked")
            files = gr.File(
                label="Drop images, or zips of images", file_count="multiple", type="filepath", height=150, elem_id="folder-files"
            )
            folder = gr.File(
                label="Or a whole folder", file_count="directory", type="filepath", height=150, elem_id="folder-folder"
            )
            go = gr.Button("Edit them all", variant="primary", elem_id="folder-go")
        with gr.Column(scale=5):
            said = gr.Markdown("The edited images appear here, and a zip of all.", elem_id="folder-said")
            made = gr.File(label="All of them (zip)", interactive=False, height=90, elem_id="folder-zip")
            gallery = gr.Gallery(
                label="The first of them, each before and after", columns=6, height=430, allow_preview=False, buttons=[],
                elem_id="folder-shown", format="png",
            )  # fmt: skip
    tab.select(described, [page.visit], asked, show_progress="hidden", api_visibility="private")
    # Those who move sliders do not wait for a folder: it takes turns with other folders alone.
    go.click(ask, [page.visit], [clicked, asked], show_progress="hidden", api_visibility="private", queue=False).then(
        run,
        [page.visit, clicked, files, folder],
        [said, made, gallery],
        api_name="folder",
        show_progress_on=gallery,
        concurrency_id="folder",
        concurrency_limit=1,
    )
