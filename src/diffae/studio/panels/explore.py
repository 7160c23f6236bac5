"""Explore: the set as a map of z_sem. Hover shows an image, a click its neighbours, a drag chooses a group."""

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image
from torch import Tensor

from diffae.studio.display import enlarged
from diffae.studio.page import MODEL, EditPanel, Page, images_or_notice, shows_errors
from diffae.studio.panels.atlas import atlas_of
from diffae.studio.visit import Visit

MOST_POINTS, NEIGHBOURS = 3000, 12
NOBODY: dict[str, list[int]] = {"with": [], "without": []}
"""The groups to begin with."""

MAP = Path(__file__).with_name("map.js").read_text(encoding="utf-8")


def panel(page: Page, editor: EditPanel) -> None:
    """The panel."""
    shop, ae = page.shop, page.shop.ae
    data = images_or_notice(page, "Explore", "explore")
    if data is None:
        return
    indices = np.linspace(0, len(data.names) - 1, min(MOST_POINTS, len(data.names))).round().astype(int)

    def pictures(chosen: list[int]) -> list[Image.Image]:
        images = data.images(chosen[:60])
        return [enlarged(ae, x, 96) for x in images]

    def colours(name: str) -> list[float | None]:
        """The labels by which the map is coloured; it asks for those that it needs, of maybe hundreds."""
        values = data.labels[name][indices] if name in data.labels else []
        return [None if np.isnan(v) else float(f"{v:.6g}") for v in values]

    @shows_errors
    def choose(event: gr.EventData) -> list[Any]:
        chosen = [int(i) for i in event._data["index"]]
        if event._data["value"] == "one":
            chosen = shop.neighbours(chosen[0], NEIGHBOURS)
        return [chosen, pictures(chosen), f"{len(chosen)} images"]

    def counted(groups: dict[str, list[int]]) -> str:
        return f"With it: {len(groups['with'])} images. Without it: {len(groups['without'])}."

    def add(groups: dict[str, list[int]], chosen: list[int], side: str, other: str) -> list[Any]:
        moved = len({*chosen} & {*groups[other]})
        # An image is on the side where it was put last.
        groups = {side: sorted({*groups[side], *chosen}), other: sorted({*groups[other]} - {*chosen})}
        told = f" {moved} of them {'was' if moved == 1 else 'were'} on the other side before." if moved else ""
        return [groups, counted(groups) + told]

    def start_over() -> list[Any]:
        return [NOBODY, counted(NOBODY)]

    @shows_errors
    def define(visit: Visit, groups: dict[str, list[int]], name: str) -> list[Any]:
        return [*editor.define(visit, name.strip(), shop.define(name, groups["with"], groups["without"])), *start_over()]

    @shows_errors
    def pick(chosen: list[int], event: gr.SelectData) -> Tensor:
        return data.images([chosen[event.index]])

    with gr.Tab("Explore", id="explore"), gr.Row():
        chosen = gr.State([])
        groups = gr.State(NOBODY)
        with gr.Column(scale=5):
            atlas = gr.HTML(atlas_of(shop, indices), js_on_load=MAP, elem_id="explore-map", server_functions=[colours])
        with gr.Column(scale=4, min_width=300):
            said = gr.Markdown("Point at a dot to see its image; click it for its neighbours; drag to choose a group.")
            gallery = gr.Gallery(
                label="Chosen; click one to edit it", columns=4, height=270, allow_preview=False, buttons=[], format="png",
                elem_id="explore-shown",
            )  # fmt: skip
            name = gr.Textbox(label="A new attribute", placeholder="its name", elem_id="explore-name")
            with gr.Row():
                has = gr.Button("These have it", elem_id="explore-with")
                lacks = gr.Button("These lack it", elem_id="explore-without")
            groups_said = gr.Markdown(counted(NOBODY), elem_id="explore-groups")
            with gr.Row():
                go = gr.Button("Define it", variant="primary", elem_id="explore-define")
                over = gr.Button("Start over", elem_id="explore-over")
    atlas.select(choose, None, [chosen, gallery, said], api_visibility="private")
    shown = [groups, groups_said]
    has.click(lambda g, c: add(g, c, "with", "without"), [groups, chosen], shown, api_visibility="private")
    lacks.click(lambda g, c: add(g, c, "without", "with"), [groups, chosen], shown, api_visibility="private")
    over.click(start_over, None, shown, api_visibility="private")
    go.click(define, [page.visit, groups, name], [*editor.define_outputs, *shown], api_visibility="private", **MODEL)
    editor.opens(gallery, pick, [chosen])
