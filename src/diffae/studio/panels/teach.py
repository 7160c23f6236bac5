"""Teach: label images by clicking, the most uncertain next, until the classifier knows enough; export the labels."""

import csv
import io
from typing import Any

import gradio as gr

from diffae.runtime.files import write_text
from diffae.studio.display import enlarged
from diffae.studio.page import MODEL, EditPanel, Page, images_or_notice, shows_errors
from diffae.studio.visit import Visit

ENOUGH = 0.9
"""AUROC that makes a useful slider."""
SKIPPED = -1
ANSWERS: dict[str, Any] = {"concurrency_id": "answers", "concurrency_limit": 1}
"""Labels that are given quickly wait for each other: each is added to those before it."""

SEEN = "(labels, at) => [labels, document.querySelector('#teach-image img')?.complete ? at : null]"
"""Has an answer be for the image that is seen: its number is there before it has come over the net."""


def panel(page: Page, editor: EditPanel) -> None:
    """The panel."""
    shop, ae = page.shop, page.shop.ae
    data = images_or_notice(page, "Teach", "label")
    if data is None:
        return

    def shown(labels: dict[int, int], at: int | None, told: str = "") -> list[Any]:
        counts = [sum(y == value for y in labels.values()) for value in (1, 0)]
        auroc = shop.taught_auroc(labels)
        said = f"{told}{counts[0]} have it, {counts[1]} lack it."
        if auroc is None:
            said += " At least four of both are needed to say how well it is known."
        else:
            said += f" AUROC on images that it was not fitted on: **{auroc:.2f}**."
            said += " That is enough; more labels make it surer." if auroc >= ENOUGH else " Go on."
        if at is None:
            return [labels, at, None, f"{said} All images are labelled."]
        return [labels, at, enlarged(ae, data.images([at])[0]), said]

    def following(labels: dict[int, int]) -> int | None:
        return shop.most_uncertain(labels) if len(labels) < len(data.names) else None

    @shows_errors
    def start(labels: dict[int, int], of: str, name: str) -> list[Any]:
        if not (name := name.strip()):
            raise ValueError("Name what is taught first.")
        told = ""
        if name != of and labels:
            told, labels = f"The answers for {of}, {len(labels)}, were taken away. ", {}
        return [*shown(labels, following(labels), told), name]

    @shows_errors
    def answer(labels: dict[int, int], at: int | None, value: int) -> list[Any]:
        if at is None:
            raise ValueError("No image is shown to answer for: wait for it, or name what is taught, and begin.")
        # The page says which image it showed; of answers for one image the last counts.
        labels = {**labels, at: value}
        return shown(labels, following(labels))

    @shows_errors
    def back(labels: dict[int, int]) -> list[Any]:
        if not labels:
            raise ValueError("There is no answer to take back.")
        *before, (at, _) = labels.items()
        return shown(dict(before), at)

    @shows_errors
    def define(visit: Visit, labels: dict[int, int], name: str) -> list[Any]:
        sides = [[i for i, y in labels.items() if y == value] for value in (1, 0)]
        return editor.define(visit, name.strip(), shop.define(name, *sides))

    @shows_errors
    def export(labels: dict[int, int], name: str, request: gr.Request) -> str:
        known = {i: y for i, y in labels.items() if y >= 0}
        if not name.strip() or not known:
            raise ValueError("Name the attribute and label an image first.")
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["file", name.strip()])
        writer.writerows([data.names[i], y] for i, y in sorted(known.items()))
        file = page.file(request, "labels.csv")
        write_text(file, buffer.getvalue())
        return str(file)

    with gr.Tab("Teach", id="teach"), gr.Row():
        labels, of = gr.State({}), gr.State("")
        # The page has it, and sends it with an answer: meanwhile the next image may have been chosen.
        at = gr.Number(None, precision=0, visible=False)
        with gr.Column(scale=3):
            picture = gr.Image(
                label="Does it have it?", interactive=False, buttons=[], height=360, elem_id="teach-image", format="png"
            )
            with gr.Row():
                yes = gr.Button("Yes", variant="primary", elem_id="teach-yes", min_width=100)
                no = gr.Button("No", variant="primary", elem_id="teach-no", min_width=100)
                skip = gr.Button("Skip", elem_id="teach-skip", min_width=100)
                undone = gr.Button("Back", elem_id="teach-back", min_width=100)
        with gr.Column(scale=3, min_width=260):
            name = gr.Textbox(label="What is taught", placeholder="the attribute's name", elem_id="teach-name")
            begin = gr.Button("Begin", elem_id="teach-begin")
            said = gr.Markdown("Name the attribute, begin, and answer for one image after another.", elem_id="teach-said")
            go = gr.Button("Make it a slider in Edit", elem_id="teach-define")
            made = gr.Button("Write the labels", elem_id="teach-export")
            file = gr.File(label="The labels (CSV), for diffae fit-attributes", interactive=False, height=90, elem_id="teach-file")
    outputs = [labels, at, picture, said]
    private: dict[str, Any] = dict(api_visibility="private", **ANSWERS)
    begin.click(start, [labels, of, name], [*outputs, of], **private)
    for button, value in ((yes, 1), (no, 0), (skip, SKIPPED)):
        button.click(lambda a, b, v=value: answer(a, b, v), [labels, at], outputs, js=SEEN, **private)
    undone.click(back, [labels], outputs, **private)
    go.click(define, [page.visit, labels, name], editor.define_outputs, api_visibility="private", **MODEL)
    made.click(export, [labels, name], file, api_visibility="private")
