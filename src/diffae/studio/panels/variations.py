"""Variations: one z_sem, many x_T; from what all of them have in common to the detail of each."""

from typing import Any

import gradio as gr
import torch

from diffae.studio.display import enlarged
from diffae.studio.page import MODEL, PROGRESS, Page, shows_errors
from diffae.studio.visit import Visit

DIAL = [
    "the mean image, in one call",
    "the same sharpened, in two",
    "the average of 8",
    "the average of 4",
    "the average of 2",
    "fresh detail",
]
AVERAGED = [0, 0, 8, 4, 2, 1]
SHARPEN = 100
"""Timestep of the noise by which a mean is sharpened."""


def panel(page: Page) -> None:
    """The panel."""
    shop, ae = page.shop, page.shop.ae

    @shows_errors
    def vary(
        visit: Visit, path: str | None, num: int, dial: str, seed: int, request: gr.Request, progress: gr.Progress = PROGRESS
    ) -> list[Any]:
        x = shop.dropped_or_opened(visit, path, gr.Warning)
        z, count = ae.encode(x), AVERAGED[DIAL.index(dial)]
        made, num = [], 1 if count == 0 else int(num)
        calls = max(1 + (dial == DIAL[1]), num * count * len(ae.sample_path()))
        with page.working(request, progress) as left, left.asking("Varying", calls):
            for i in range(num):
                one = (
                    ae.decode_mean(z, sharpen=min(SHARPEN, ae.schedule.T - 1) if dial == DIAL[1] else 0, seed=int(seed))
                    if count == 0
                    else ae.decode(z.expand(count, -1), seed=1000 * int(seed) + i).mean(0)
                )
                made.append(one.reshape(x.shape[1:]))
        return [enlarged(ae, torch.as_tensor(m), 160) for m in (x[0], *made)]

    with gr.Tab("Variations", id="variations"), gr.Row():
        with gr.Column(scale=2, min_width=240):
            file = gr.File(label="Drop an image, or leave Edit's", file_count="single", type="filepath", height=110)
            num = gr.Slider(1, 16, 8, step=1, label="How many")
            dial = gr.Radio(
                DIAL, value=DIAL[-1], label="From what z_sem says (left out: all else) to one of the images that it allows"
            )
            seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            go = gr.Button("Vary", variant="primary", elem_id="vary-go")
        with gr.Column(scale=5):
            gallery = gr.Gallery(label="The image, and its variations", columns=5, height=520, elem_id="vary-shown", format="png")
    go.click(vary, [page.visit, file, num, dial, seed], gallery, api_name="vary", **MODEL)
