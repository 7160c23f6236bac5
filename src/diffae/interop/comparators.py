"""Autoencoders of other families, to stand beside a diffusion autoencoder in its tables: diffusers' VAE and VQ-VAE.

Anything with `encode`, `decode` and a `title` that says its latent size can stand there.
"""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffae.config import ComparatorConfig, from_dict, to_dict
from diffae.interop.reading import read_weights
from diffae.runtime.seeding import Draws
from diffae.runtime.weights import write_weights

FORMAT = "diffae-comparator-1"


@runtime_checkable
class Autoencoder(Protocol):
    """What a table needs of an autoencoder."""

    @property
    def title(self) -> str:
        """What it is called there."""
        ...

    def encode(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n latent"]:
        """Latents of images in [-1, 1]."""
        ...

    def decode(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n c h w"]:
        """Images of latents."""
        ...


class Comparator(nn.Module):
    """The VAE of latent diffusion, or a VQ-VAE, with their reconstruction by mean squared error.

    Args:
        config: its kind and sizes.

    Attributes:
        net: the network of diffusers.
        latent_size: number of latent values of one image.

    Raises:
        ImportError: diffusers is not installed.
        ValueError: an image size that the halvings do not divide.
    """

    def __init__(self, config: ComparatorConfig) -> None:
        super().__init__()
        try:
            from diffusers import AutoencoderKL, VQModel
        except ImportError:
            raise ImportError("Comparators are networks of diffusers: pip install 'diffae[interop]'.") from None
        h, w = config.image_size
        if h % 2**config.halvings or w % 2**config.halvings:
            raise ValueError(f"Images of {h} x {w} cannot be halved {config.halvings} times. Give fewer halvings.")
        self.config = config
        self.grid = (config.latent_channels, h // 2**config.halvings, w // 2**config.halvings)
        self.latent_size = self.grid[0] * self.grid[1] * self.grid[2]
        levels = config.halvings + 1
        sizes: dict[str, Any] = dict(
            in_channels=config.channels,
            out_channels=config.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(config.base_channels * 2**i for i in range(levels)),
            latent_channels=config.latent_channels,
            norm_num_groups=min(32, config.base_channels),
        )
        self.net: Any = AutoencoderKL(**sizes) if config.kind == "vae" else VQModel(**sizes, num_vq_embeddings=config.codebook)

    @property
    def title(self) -> str:
        """What it is called in a table."""
        return f"{self.config.kind}, {self.latent_size} values"

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n latent"]:
        """Latents of images in [-1, 1]: the mean of the VAE's, the VQ-VAE's entries of its codebook."""
        if self.config.kind == "vae":
            return self.net.encode(x).latent_dist.mode().flatten(1)
        return self.net.quantize(self.net.encode(x).latents)[0].flatten(1)

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n c h w"]:
        """Images of latents."""
        grid = z.unflatten(1, self.grid)
        if self.config.kind == "vae":
            return self.net.decode(grid).sample
        return self.net.decode(grid, force_not_quantize=True).sample

    def loss(self, x: Float[Tensor, "n c h w"], draws: Draws) -> Float[Tensor, ""]:
        """Mean squared error, and beside it the VAE's divergence from N(0, I) or the VQ-VAE's codebook and commitment losses.

        Args:
            x: images in [-1, 1].
            draws: of the images; the VAE draws its posterior by them.
        """
        if self.config.kind == "vq":
            quantized, codebook_loss, _ = self.net.quantize(self.net.encode(x).latents)
            return F.mse_loss(self.net.decode(quantized, force_not_quantize=True).sample, x) + codebook_loss
        posterior = self.net.encode(x).latent_dist
        noise = draws.normal("posterior", self.grid).to(x)
        made = self.net.decode(posterior.mean + posterior.std * noise).sample
        return F.mse_loss(made, x) + self.config.kl_weight * posterior.kl().mean()

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json` and `model.safetensors`."""
        write_weights(Path(folder), {"format": FORMAT, "model": to_dict(self.config)}, self.state_dict())


def load(source: str | Path) -> Comparator:
    """Reads a comparator from its run directory, or from what `save_pretrained` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a damaged file, or one that holds something else.
    """
    folder = Path(source)
    config, tensors = read_weights(folder / "model" if (folder / "model").is_dir() else folder, FORMAT)
    model = Comparator(from_dict(ComparatorConfig, config.get("model"), path="model"))
    model.load_state_dict(tensors)
    return model.eval()
