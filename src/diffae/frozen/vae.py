"""A frozen autoencoder of diffusers. For large images its latents are diffused in place of pixels."""

import functools
import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffae.runtime.files import first_line

KINDS = ("AutoencoderKL", "AutoencoderDC")
"""The classes of diffusers that can be used."""
BATCH = 8
"""Images at a time: the first layers of these networks are large."""


class FrozenAutoencoder:
    """`AutoencoderKL` (Rombach et al. 2022) or `AutoencoderDC` (Chen et al. 2024), which is never trained here.

    It is not a submodule of any model: its weights are not saved with the models that are trained on its latents.

    Args:
        name: what messages call it.
        net: the network of diffusers; on a GPU where there is one.

    Attributes:
        channels: of the latents.
        image_channels: of the images.
        factor: how many times smaller than the image the latents are, in height and width.
        digest: identifies its weights and its scale.
    """

    def __init__(self, name: str, net: Any) -> None:
        self.name = name
        self.net = net.requires_grad_(False).eval().to("cuda" if torch.cuda.is_available() else "cpu")
        levels = net.config.get("block_out_channels") or net.config["encoder_block_out_channels"]
        self.factor = 2 ** (len(levels) - 1)
        self.channels: int = net.config["latent_channels"]
        self.image_channels: int = net.config["in_channels"]
        self.scale = float(net.config.get("scaling_factor") or 1)
        self.shift = float(net.config.get("shift_factor") or 0)
        digest = hashlib.blake2b(f"{self.scale} {self.shift}".encode(), digest_size=16)
        for weight in net.state_dict().values():
            digest.update(weight.cpu().contiguous().numpy().tobytes())
        self.digest = digest.hexdigest()

    def image_size(self, channels: int, size: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of the images whose latents have this many channels and this height and width.

        Raises:
            ValueError: its latents have another number of channels.
        """
        if channels != self.channels:
            raise ValueError(
                f"The latents of {self.name} have {self.channels} channels and the model's images {channels}: set "
                f"model.channels to {self.channels}, and model.image_size to the images' size divided by {self.factor}."
            )
        return (size[0] * self.factor, size[1] * self.factor)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k i j"]:
        """Latents of images in [-1, 1]: the mode of the posterior where there is one, shifted and scaled as its authors say.

        Raises:
            ValueError: images of other channels, or of sides that its factor does not divide.
        """
        if x.shape[1] != self.image_channels or x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ValueError(
                f"{self.name} takes images of {self.image_channels} channels whose sides are multiples of {self.factor}, got "
                f"{tuple(x.shape[1:])}."
            )
        latents = torch.cat([self._encode(part.to(self.net.device, self.net.dtype)) for part in x.split(BATCH)])
        return ((latents - self.shift) * self.scale).to(x)

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "n k i j"]) -> Float[Tensor, "n c h w"]:
        """Images of latents, clamped to [-1, 1].

        Raises:
            ValueError: latents of other channels.
        """
        if z.shape[1] != self.channels:
            raise ValueError(f"The latents of {self.name} have {self.channels} channels, got {tuple(z.shape[1:])}.")
        latents = z.to(self.net.device, self.net.dtype) / self.scale + self.shift
        return torch.cat([self.net.decode(part).sample for part in latents.split(BATCH)]).clamp(-1, 1).to(z)

    def _encode(self, x: Tensor) -> Tensor:
        encoded = self.net.encode(x)
        return encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent


@functools.lru_cache(maxsize=1)
def frozen_autoencoder(name: str) -> FrozenAutoencoder:
    """Reads an autoencoder, from safetensors only. The last one stays in memory.

    Args:
        name: a folder that diffusers saved (or a pipeline's, with a folder `vae` in it), or the hub's name of one.

    Raises:
        ImportError: diffusers is not installed.
        FileNotFoundError: there is none, or none with weights as safetensors.
        ValueError: it is of another kind.
    """
    try:
        import diffusers
    except ImportError:
        raise ImportError("Autoencoders of latents are networks of diffusers: pip install 'diffae[interop]'.") from None
    source = Path(name) / "vae" if (Path(name) / "vae" / "config.json").is_file() else name
    try:
        if not Path(name).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise OSError("there is no such folder")
        config: Any = diffusers.AutoencoderKL.load_config(source)
        kind = config.get("_class_name")
        if kind not in KINDS:
            raise ValueError(f"{name} is {kind or 'of no named kind'}, and latents are taken of {' or '.join(KINDS)}.")
        # low_cpu_mem_usage would go through accelerate, and warn where that is not installed.
        net = getattr(diffusers, kind).from_pretrained(source, use_safetensors=True, low_cpu_mem_usage=False)
    except OSError as error:
        reason = first_line(error)
        raise FileNotFoundError(
            f"The autoencoder of latents {name} cannot be read ({reason}). Give a folder that diffusers saved with its weights as "
            "safetensors, or the hub's name of one; a model trained on latents needs the one that it was trained with."
        ) from None
    return FrozenAutoencoder(name, net)
