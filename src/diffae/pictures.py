"""Contact sheets: rows of images as one PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffae.files import replacing


def to_pil(x: Float[Tensor, "c h w"]) -> Image.Image:
    """An image in [-1, 1] as 8-bit RGB or grey. Of two channels the first is shown, of more than three the first three."""
    x = x.detach().cpu()
    x = x[:3] if len(x) >= 3 else x[:1]
    array = x.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).numpy()
    return Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def sheet(rows: Sequence[Sequence[Tensor] | Tensor], *, scale: int = 1, gap: int = 2) -> Image.Image:
    """Rows of images in [-1, 1] as one picture, each pixel enlarged `scale` times."""
    _, h, w = rows[0][0].shape
    h, w = h * scale, w * scale
    columns = max(len(row) for row in rows)
    picture = Image.new("RGB", (columns * (w + gap) - gap, len(rows) * (h + gap) - gap), "white")
    for i, row in enumerate(rows):
        for j, x in enumerate(row):
            picture.paste(to_pil(x).resize((w, h), Image.Resampling.NEAREST), (j * (w + gap), i * (h + gap)))
    return picture


def scale_for(x: Tensor, width: int = 96) -> int:
    """The whole factor that brings images to about `width` pixels, so that small ones can be seen."""
    return max(1, round(width / x.shape[-1]))


def save_png(picture: Image.Image, file: Path) -> Path:
    """Writes a picture as PNG, atomically."""
    with replacing(file) as part:
        picture.save(part, "PNG")
    return file
