"""The map of a set: positions by z_sem, and thumbnails."""

import base64
import html
import io
import json

import numpy as np
from PIL import Image

from diffae.pictures import to_pil
from diffae.studio.display import worded
from diffae.studio.workshop import Workshop

THUMBNAIL = 40
"""Pixels of a side."""


def atlas_of(shop: Workshop, indices: np.ndarray) -> str:
    """The map as HTML: positions, and a sprite of thumbnails, all inside."""
    assert shop.data is not None
    columns = max(1, round(len(indices) ** 0.5))
    sprite = Image.new("RGB", (columns * THUMBNAIL, -(-len(indices) // columns) * THUMBNAIL))
    for k, i in enumerate(indices):
        picture = to_pil(shop.ae.to_pictures(shop.data.images([int(i)]))[0]).convert("RGB").resize((THUMBNAIL, THUMBNAIL))
        sprite.paste(picture, (k % columns * THUMBNAIL, k // columns * THUMBNAIL))
    buffer = io.BytesIO()
    sprite.save(buffer, "JPEG", quality=80)
    points = json.dumps(
        {"at": shop.map()[indices].round(4).tolist(), "indices": indices.tolist(), "side": THUMBNAIL,
         "columns": columns, "sprite": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()}
    )  # fmt: skip
    options = "".join(f'<option value="{html.escape(name)}">{html.escape(worded(name))}</option>' for name in shop.data.labels)
    return (
        f"<div class='map' data-points='{html.escape(points)}'>"
        f"<label>Coloured by <select><option value=''>nothing</option>{options}</select></label>"
        "<canvas width='900' height='640' role='img' aria-label='Map of the images by their z_sem'></canvas>"
        "<canvas class='tip' width='96' height='96' aria-hidden='true'></canvas></div>"
    )
