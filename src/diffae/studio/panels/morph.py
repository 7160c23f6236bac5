"""Morph: a path through two images or more."""

from typing import Any

import gradio as gr

from diffae.pictures import save_animation
from diffae.studio.display import enlarged
from diffae.studio.page import MODEL, PROGRESS, Page, shows_errors

MOST_IMAGES = 8


def panel(page: Page) -> None:
    """The panel."""
    shop, ae = page.shop, page.shop.ae

    @shows_errors
    def morph(files: list[str] | None, frames: int, request: gr.Request, progress: gr.Progress = PROGRESS) -> list[Any]:
        if not files or not 2 <= len(files) <= MOST_IMAGES:
            raise ValueError(f"A path needs two to {MOST_IMAGES} images, got {len(files or [])}: drop them on the left.")
        with page.working(request, progress) as left:
            x = shop.open_files(files, gr.Warning)
            images = len(x) + (len(x) - 1) * int(frames) + 1
            with left.asking("Encoding and decoding", images * ae.calibration.steps):
                path = ae.clamp(ae.interpolate_path(x, frames=int(frames)))
            page.keep(request, "morph", path)
            pictures = [enlarged(ae, x) for x in path]
            made = []
            for i, kind in enumerate(("gif", "mp4")):
                left("Writing GIF and MP4", i, 2)
                made.append(str(save_animation(pictures, page.file(request, f"morph.{kind}"))))
        return [gr.Slider(maximum=len(pictures) - 1, value=0, interactive=True), pictures[0], *made]

    def frame(at: float, request: gr.Request) -> Any:
        x = page.kept(request, "morph", int(at))
        return None if x is None else enlarged(ae, x)

    with gr.Tab("Morph", id="morph"), gr.Row():
        with gr.Column(scale=2, min_width=240):
            files = gr.File(label="Drop two images or more", file_count="multiple", type="filepath", elem_id="morph-files")
            frames = gr.Slider(2, 24, 8, step=1, label="Frames from one to the next")
            go = gr.Button("Morph", variant="primary", elem_id="morph-go")
        with gr.Column(scale=4):
            shown = gr.Image(label="On the way", interactive=False, buttons=[], height=360, elem_id="morph-shown", format="png")
            at = gr.Slider(0, 8, 0, step=1, label="Where on the way", interactive=False, elem_id="morph-at")
            with gr.Row():
                gif, mp4 = gr.DownloadButton("GIF", elem_id="morph-gif"), gr.DownloadButton("MP4")
    go.click(morph, [files, frames], [at, shown, gif, mp4], api_name="morph", show_progress_on=shown, **MODEL)
    at.input(frame, [at], shown, trigger_mode="always_last", show_progress="hidden", api_visibility="private")
