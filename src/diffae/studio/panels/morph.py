"""Morph: a path through two images or more."""

from typing import Any

import gradio as gr

from diffae.pictures import save_animation
from diffae.studio.page import MODEL, PROGRESS, Page, shows_errors
from diffae.studio.shown import enlarged

MOST_IMAGES = 8


def panel(page: Page) -> None:
    """The panel."""
    shop, ae = page.shop, page.shop.ae

    @shows_errors
    def morph(files: list[str] | None, frames: int, request: gr.Request, progress: gr.Progress = PROGRESS) -> list[Any]:
        if not files or not 2 <= len(files) <= MOST_IMAGES:
            raise ValueError(f"A path needs two to {MOST_IMAGES} images, got {len(files or [])}: drop them on the left.")
        progress(0.1, desc="Encoding and decoding")
        path = ae.in_range(ae.interpolate_path(shop.open_files(files, gr.Warning), frames=int(frames)))
        pictures = [enlarged(ae, x) for x in path]
        made = []
        for kind in ("gif", "mp4"):
            progress(0.9, desc=f"Writing the {kind.upper()}")
            made.append(str(save_animation(pictures, page.folder / f"{request.session_hash}-morph.{kind}")))
        return [pictures, gr.Slider(maximum=len(pictures) - 1, value=0, interactive=True), pictures[0], *made]

    def frame(pictures: list[Any] | None, at: float) -> Any:
        return pictures[int(at)] if pictures else None

    with gr.Tab("Morph", id="morph"), gr.Row():
        path = gr.State(None, time_to_live=3600)
        with gr.Column(scale=2, min_width=240):
            files = gr.File(label="Drop two images or more", file_count="multiple", type="filepath", elem_id="morph-files")
            frames = gr.Slider(2, 24, 8, step=1, label="Frames from one to the next")
            go = gr.Button("Morph", variant="primary", elem_id="morph-go")
        with gr.Column(scale=4):
            shown = gr.Image(label="On the way", interactive=False, buttons=[], height=360, elem_id="morph-shown", format="png")
            at = gr.Slider(0, 8, 0, step=1, label="Where on the way", interactive=False, elem_id="morph-at")
            with gr.Row():
                gif, mp4 = gr.DownloadButton("GIF", elem_id="morph-gif"), gr.DownloadButton("MP4")
    go.click(morph, [files, frames], [path, at, shown, gif, mp4], api_name="morph", **MODEL)
    at.input(frame, [path, at], shown, trigger_mode="always_last", show_progress="hidden", api_visibility="private")
