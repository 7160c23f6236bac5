"""Rows of images as a picture, still or moving."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffae.cli import inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from diffae.autoencoder import DiffusionAutoencoder
    from diffae.config import Crop


def show(ae: "DiffusionAutoencoder", rows: "Sequence[Sequence[Tensor] | Tensor]", out: Path) -> None:
    """Writes rows of images to a file.

    Args:
        ae: the model, which turns its images to pixels.
        rows: of images as the model has them, (c, *sides) each.
        out: .png for a contact sheet; any other ending of `arguments.MOVING` for an animation, with a frame for each column; of
            volumes with one for each slice.
    """
    from diffae.pictures import batch_of, save_animation, save_png, scale_for, sheet, slices

    seen = [ae.to_pictures(batch_of(row)) for row in rows]
    scale = scale_for(seen[0])
    if out.suffix.lower() == ".png":
        save_png(sheet(seen, scale=scale), out)
    elif seen[0][0].dim() == 4:
        save_animation([sheet(rows, scale=scale) for rows in slices(seen)], out)
    else:
        frames = [sheet([[row[i]] for row in seen], scale=2 * scale) for i in range(len(seen[0]))]
        save_animation(frames, out)
    print(f"Picture: {out}")


def save_values(ae: "DiffusionAutoencoder", image: "Tensor", target: Path, *, like: Path, crop: "Crop | None") -> None:
    """Writes an image as the model has it, (c, *sides), in the values and the space of the file that it came from."""
    from diffae.data.images import write_back

    write_back(ae.to_pixels(ae.clamp(image)[None])[0], target, like=like, preparation=inputs.preparation(ae, crop))
    print(f"Values: {target}")


def save_each(ae: "DiffusionAutoencoder", images: "Tensor", files: "Sequence[Path]") -> None:
    """Writes images as the model has them, (n, c, *sides), to a .png each."""
    from diffae.pictures import save_png, to_pil

    for pixels, file in zip(ae.to_pictures(images), files, strict=True):
        print(f"Picture: {save_png(to_pil(pixels), file)}")
