"""Contact sheets: rows of images as one PNG."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffae.runtime.files import replacing


def flat(x: Float[Tensor, "c *sides"]) -> Float[Tensor, "c h w"]:
    """An image as it is. Of a volume the middle slices across depth, height and width, side by side on black."""
    if x.dim() == 3:
        return x
    c, d, h, w = x.shape
    parts = (x[:, d // 2], x[:, :, h // 2], x[:, :, :, w // 2])
    canvas = x.new_full((c, max(h, d), sum(part.shape[2] for part in parts) + 2), -1.0)
    left = 0
    for part in parts:
        canvas[:, : part.shape[1], left : left + part.shape[2]] = part
        left += part.shape[2] + 1
    return canvas


def slices(rows: Sequence[Sequence[Tensor] | Tensor]) -> Iterator[list[list[Tensor]]]:
    """Rows of volumes as rows of images, slice by slice."""
    for k in range(rows[0][0].shape[1]):
        yield [[x[:, k] for x in row] for row in rows]


def to_pil(x: Float[Tensor, "c *sides"]) -> Image.Image:
    """An image in [-1, 1] as 8-bit RGB or grey; of a volume three slices (`flat`). Of two channels the first is magenta and the
    second green, of more than three the first three are shown.

    Raises:
        ValueError: pixels that are not numbers, which no picture can show.
    """
    x = x.detach().cpu()
    if x.isnan().any():
        raise ValueError(
            f"The image has {int(x.isnan().sum()):,} values that are not a number (NaN): the weights that made it are broken."
        )
    x = flat(x)
    x = x[[0, 1, 0]] if len(x) == 2 else x[:3]
    array = x.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).numpy()
    return Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def batch_of(images: Sequence[Tensor] | Tensor) -> Float[Tensor, "n c *sides"]:
    """Images (c, *sides) as one batch."""
    return torch.stack(list(images))


def sheet(rows: Sequence[Sequence[Tensor] | Tensor], *, scale: int = 1, gap: int = 2, names: Sequence[str] = ()) -> Image.Image:
    """Rows of images in [-1, 1] as one picture, each pixel enlarged `scale` times, with the rows' names at their left."""
    _, h, w = flat(rows[0][0]).shape
    h, w = h * scale, w * scale
    columns = max(len(row) for row in rows)
    font = ImageFont.load_default(size=15)
    margin = max((round(font.getlength(name)) + 12 for name in names), default=0)
    picture = Image.new("RGB", (margin + columns * (w + gap) - gap, len(rows) * (h + gap) - gap), "white")
    for i, name in enumerate(names):
        ImageDraw.Draw(picture).text((0, i * (h + gap) + h // 2), name, "#333", font=font, anchor="lm")
    for i, row in enumerate(rows):
        for j, x in enumerate(row):
            picture.paste(to_pil(x).resize((w, h), Image.Resampling.NEAREST), (margin + j * (w + gap), i * (h + gap)))
    return picture


def scale_for(x: Tensor, width: int = 96) -> int:
    """The whole factor that brings images, or slices of volumes, to about `width` pixels, so that small ones can be seen."""
    return max(1, round(width / x.shape[-1]))


def save_png(picture: Image.Image, file: Path) -> Path:
    """Writes a picture as PNG, atomically."""
    with replacing(file) as part:
        picture.save(part, "PNG")
    return file


def save_animation(frames: Sequence[Image.Image], file: Path, *, seconds: float = 0.08) -> Path:
    """Writes frames that move, there and back again, atomically: .gif, .webp or .mp4 (which needs imageio-ffmpeg).

    Raises:
        ValueError: another kind of file.
    """
    frames = [*frames, *frames[-2:0:-1]]
    kind = file.suffix.lower()
    if kind not in (".gif", ".webp", ".mp4"):
        raise ValueError(f"{file} is no kind of file for moving pictures: name it .gif, .webp or .mp4 (or .png for a still).")
    with replacing(file) as part:
        if kind == ".mp4":
            _write_mp4(frames, part, 1 / seconds)
        else:
            form, milliseconds = kind[1:].upper(), round(1000 * seconds)
            frames[0].save(part, form, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return file


def ffmpeg() -> ModuleType:
    """What writes .mp4.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import imageio_ffmpeg
    except ImportError:
        raise ImportError("Writing .mp4 needs imageio-ffmpeg: pip install 'diffae[studio]', or write a .gif or .webp.") from None
    return imageio_ffmpeg


def _write_mp4(frames: Sequence[Image.Image], file: Path, rate: float) -> None:
    # The codec wants even sides; the name of a file being written does not tell it what to write.
    width, height = (side + side % 2 for side in frames[0].size)
    writer = ffmpeg().write_frames(str(file), (width, height), fps=rate, macro_block_size=2, quality=8, output_params=["-f", "mp4"])
    try:
        writer.send(None)
        for frame in frames:
            padded = Image.new("RGB", (width, height), "white")
            padded.paste(frame)
            writer.send(padded.tobytes())
    finally:
        writer.close()
