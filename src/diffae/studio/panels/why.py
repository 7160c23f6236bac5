"""Why: what would have to be different in an image for a classifier to decide otherwise."""

import gradio as gr
from PIL import Image

from diffae.explanation.explaining import FRAMES, render_between
from diffae.explanation.heat import difference
from diffae.studio.display import choices, enlarged, magnified
from diffae.studio.page import MODEL, PROGRESS, Page, images_or_notice, shows_errors
from diffae.studio.visit import Visit


def panel(page: Page) -> None:
    """The panel."""
    shop, ae = page.shop, page.shop.ae
    if images_or_notice(page, "Why", "ask a classifier about") is None:
        return
    names = shop.classifiable()
    if not names:
        with gr.Tab("Why", id="why"):
            gr.Markdown("There is no classifier to ask: name one with `--classifier`, or bring labels.")
        return

    @shows_errors
    def explain(
        visit: Visit, path: str | None, name: str, probability: float, num: int, request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> tuple[list[tuple[Image.Image, str]], str]:  # fmt: skip
        x = shop.dropped_or_opened(visit, path, gr.Warning)
        with page.working(request, progress) as left:
            explainer = shop.explainer(name, left)
            # Of one image it cannot say how far it is; its network calls can.
            explainer.progress = lambda what, done, total: None
            with left.of_unknown_length("Looking for counterfactuals"):
                found = explainer.explain(x, probability=probability, num=int(num))
                frames, answers = render_between(explainer, x, found.z_sem[:, 0])
        shown = [
            (enlarged(ae, frame), f"{place:.0%} of the way: {p:.2f}")
            for frame, place, p in zip(frames[0], FRAMES, answers[0], strict=True)
        ]
        others = zip(found.images[0, 1:], found.after[0, 1:], strict=True)
        shown += [(enlarged(ae, image), f"another: {p:.2f}") for image, p in others]
        hot = difference(ae.to_pictures(x), ae.to_pictures(found.images[:, 0]))[0]
        shown.append((magnified(hot), "brighter (red), darker (blue)"))
        before, after = float(found.before[0]), float(found.after[0, 0])
        said = f"**{before:.2f}** is what it says of the image, **{after:.2f}** of the counterfactual"
        return shown, said + ("." if found.reached[0, 0] else ": what was asked for was not reached.")

    with gr.Tab("Why", id="why"), gr.Row():
        with gr.Column(scale=2, min_width=240):
            file = gr.File(label="Drop an image, or leave Edit's", file_count="single", type="filepath", height=110)
            name = gr.Dropdown(choices(names), value=names[0], label="Which classifier", elem_id="why-name")
            probability = gr.Slider(0.5, 0.99, 0.9, step=0.01, label="Probability of the other class")
            num = gr.Slider(1, 4, 1, step=1, label="Counterfactuals")
            go = gr.Button("Explain", variant="primary", elem_id="why-go")
            said = gr.Markdown(elem_id="why-said")
        with gr.Column(scale=5):
            label = "From the image to where it decides otherwise"
            gallery = gr.Gallery(label=label, columns=4, height=520, elem_id="why-shown", format="png")
    go.click(
        explain, [page.visit, file, name, probability, num], [gallery, said], api_name="why", show_progress_on=gallery, **MODEL
    )
