"""The folder of a pipeline: written whole beside its place, then moved into it."""

import copy
from pathlib import Path

import torch

from diffae.autoencoder import DiffusionAutoencoder
from diffae.diffusion.card import model_card
from diffae.interop.diffusers.code import INDEX
from diffae.interop.diffusers.pipeline import DiffAEPipeline
from diffae.runtime.files import filling, write_text

USE = """```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{repo_id}", trust_remote_code=True)   # pip install 'diffae[interop]'
z_sem = pipe.encode(image)                                   # image: a picture, or several
x_T = pipe.invert(image, z_sem, num_inference_steps=50)
image = pipe(z_sem=z_sem, x_T=x_T, num_inference_steps=50).images[0]
```"""


def write_folder(ae: DiffusionAutoencoder, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Writes a model for `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`, and a model card.

    Its prior and attributes stay behind: `ae.save_pretrained` writes them. `model_index.json` takes its place last, so whoever dies
    before leaves no folder that looks like a pipeline, or the old one's index over networks of which each is old or new.

    Args:
        ae: the model; it stays as it is, also in train or eval mode.
        folder: made if it is not there; other files in it stay.
        dtype: of the weights in the files; diffusers makes them float32 again unless it is told otherwise.

    Raises:
        ValueError: a model with a network of its maker's own.
        OSError: it cannot be written.
    """
    folder = Path(folder)
    # A copy: a pipeline's networks are in eval mode, and may be of another type.
    pipeline = DiffAEPipeline.from_autoencoder(copy.deepcopy(ae))
    if dtype is not None:
        for component in (pipeline.unet, pipeline.encoder):
            for weight in component.parameters():
                weight.data = weight.data.to(dtype)
    with filling(folder, order=lambda file: file.name == INDEX) as part:
        pipeline.save_pretrained(part)
        card = model_card(folder.as_posix(), ae.about, {"prior": None}, library="diffusers", use=USE)
        write_text(part / "README.md", card)
