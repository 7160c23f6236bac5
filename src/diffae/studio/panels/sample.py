"""Sample: new images, of a class where one is asked for; a click opens one in Edit."""

from collections.abc import Callable
from typing import Any

import gradio as gr
from torch import Tensor

from diffae.studio.display import choices, enlarged
from diffae.studio.page import ANY, MODEL, PROGRESS, EditPanel, Page, shows_errors
from diffae.studio.visit import Visit

KEPT = ("samples", "other samples")
"""Names under which samples are kept, in turn."""


def panel(page: Page, editor: EditPanel) -> None:
    """The panel."""
    shop, ae = page.shop, page.shop.ae

    def truncated(z: Tensor, truncation: float) -> Tensor:
        if truncation == 1:
            return z
        assert ae.standardizer is not None
        return ae.standardizer.inverse(ae.standardizer(z) * truncation)

    def of_class(visit: Visit, what: str, present: str, truncation: float) -> Callable[[Tensor], Tensor] | None:
        """The probability of the class for each code, once truncated: what it showed before, it may not show then."""
        if what in (None, ANY):
            return None
        shows = shop.accept(visit, what, present == "shows it")
        return lambda z: shows(truncated(z, truncation))

    @shows_errors
    def sample(
        visit: Visit, num: int, seed: int, steps: int, truncation: float, what: str, present: str, shown: str | None,
        request: gr.Request, progress: gr.Progress = PROGRESS,
    ) -> list[Any]:  # fmt: skip
        with page.working(request, progress) as left:
            left("Drawing z_sem", 0, 1)
            accept = of_class(visit, what, present, truncation)
            z, proposals = shop.draw(int(num), seed=int(seed), accept=accept)
            z = truncated(z, truncation)
            left("Drawing z_sem", 1, 1)
            with left.asking("Decoding", int(num) * len(ae.sample_path(int(steps)))):
                x = ae.clamp(ae.decode(z, steps=int(steps), seed=int(seed)))
            # Those that the page shows can be clicked until it shows these.
            drawn = KEPT[shown == KEPT[0]]
            page.keep(request, drawn, x)
        said = f"{int(num)} of {proposals} proposals were taken." if accept else ""
        return [[enlarged(ae, one, 160) for one in x], said, drawn]

    @shows_errors
    def pick(shown: str | None, request: gr.Request, event: gr.SelectData) -> Tensor:
        x = None if shown is None else page.kept(request, shown, event.index)
        if x is None:
            raise ValueError("These samples are not there any more: draw them again.")
        return x[None]

    with gr.Tab("Sample", id="sample"), gr.Row():
        shown = gr.State(None)
        with gr.Column(scale=2, min_width=240):
            num = gr.Slider(1, 32, 12, step=1, label="How many")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="sample-seed")
            steps = gr.Slider(1 if ae.jumps else 2, 50, ae.sample_steps, step=1, label="Steps of the decoder")
            truncation = gr.Slider(0.2, 1, 1, step=0.05, label="Truncation: below 1 more alike, and more usual")
            what = gr.Dropdown([ANY, *choices(shop.attributes(Visit()))], value=ANY, label="Of", elem_id="sample-what")
            present = gr.Radio(["shows it", "lacks it"], value="shows it", label="That")
            go = gr.Button("Sample", variant="primary", elem_id="sample-go")
            said = gr.Markdown()
        with gr.Column(scale=5):
            gallery = gr.Gallery(
                label="Click one to edit it",
                columns=6,
                height=520,
                allow_preview=False,
                buttons=[],
                elem_id="sample-shown",
                format="png",
            )
    go.click(
        sample,
        [page.visit, num, seed, steps, truncation, what, present, shown],
        # The last is set last, when the pictures are on their way.
        [gallery, said, shown],
        api_name="sample",
        show_progress_on=gallery,
        **MODEL,
    )
    editor.opens(gallery, pick, [shown])
    editor.define_outputs.append(what)
