"""What images a model is of, what was said of it, and how it is handed on."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae.config import AutoencoderConfig, Preparation, to_dict
from diffae.diffusion.border import Shape, device_of, shape_of
from diffae.diffusion.card import model_card
from diffae.frozen.vae import frozen_autoencoder
from diffae.runtime.files import write_text
from diffae.runtime.hub import upload
from diffae.runtime.weights import write_weights

FORMAT = "diffae-1"
"""Of `config.json`."""


class ImageModel(nn.Module):
    """A model of images (n, c, *sides) in [-1, 1], or of volumes, or of the latents that a frozen autoencoder makes of them.

    Args:
        config: of its networks.

    Attributes:
        preparation: how image files become what it sees; everything that reads files for it does so.
        about: what travels with the weights for people to read: data, licence, images seen, measured figures. JSON values.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.preparation = Preparation()
        self.about: dict[str, Any] = {}

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return device_of(self)

    @property
    def image_shape(self) -> Shape:
        """Channels and sides of an image as the networks see it."""
        return shape_of(self)

    def pixels_shape(self) -> Shape:
        """Channels and sides of an image as people see it."""
        if self.config.latents is None:
            return self.image_shape
        vae = frozen_autoencoder(self.config.latents)
        return (vae.image_channels, *vae.image_size(self.config.channels, self.config.image_size))

    def to_pixels(self, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n _ ..."]:
        """Images as people see them: latents decoded by their frozen autoencoder, pixels as they are."""
        return x if self.config.latents is None else frozen_autoencoder(self.config.latents).decode(x)

    def to_pictures(self, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n _ ..."]:
        """Images as they are drawn: of their pixels the channels that the data's `shown` names, all where it names none."""
        pixels = self.to_pixels(x)
        return pixels[:, [channel - 1 for channel in self.preparation.shown]] if self.preparation.shown else pixels

    def from_pixels(self, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n _ ..."]:
        """Images in [-1, 1] as the networks see them: encoded by a frozen autoencoder where the model is one of latents."""
        return x if self.config.latents is None else frozen_autoencoder(self.config.latents).encode(x)

    def clamp(self, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n c *sides"]:
        """Images clamped to [-1, 1]; latents, which have no range, as they are."""
        return x.clamp(-1, 1) if self.config.latents is None else x

    def fitted_config(self) -> dict[str, Any]:
        """What `config.json` says of what was fitted to the networks; nothing here."""
        return {}

    def to_config(self) -> dict[str, Any]:
        """`config.json`: all that a reader of the weights has to know of the model."""
        config = {"format": FORMAT, "model": to_dict(self.config), **self.fitted_config(), "about": self.about}
        return config | {"preparation": to_dict(self.preparation)}

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Writes `config.json` and `model.safetensors`, together and atomically; `diffae.load(folder)` reads them.

        Args:
            folder: made if it is not there.
            dtype: of the networks' weights in the file; bfloat16 halves it. They are float32 again when they are read.
        """
        networks = dict(self.named_parameters())
        tensors = {name: t.to(dtype or t.dtype) if name in networks else t for name, t in self.state_dict().items()}
        write_weights(Path(folder), self.to_config(), tensors)

    def model_card(self, name: str) -> str:
        """What the model is, of what data, under which licence, and what was measured, in Markdown; see `about`."""
        return model_card(name, self.about, self.fitted_config())

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads what `save_pretrained` writes, and a model card made of `about`, to the Hugging Face hub.

        Prior, standardiser and attributes travel with the autoencoder; `diffae.load(repo_id)` reads them. Returns the address;
        arguments and errors as of `runtime.hub.upload`.
        """

        def fill(folder: Path) -> None:
            self.save_pretrained(folder)
            write_text(folder / "README.md", self.model_card(repo_id))

        return upload(repo_id, fill, private=private, token=token)
