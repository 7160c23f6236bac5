"""The two networks as components of a pipeline of diffusers: with a `config.json` and `from_pretrained` of their own."""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.utils import BaseOutput
from jaxtyping import Float
from torch import Tensor

from diffae.config import AutoencoderConfig, from_dict
from diffae.diffusion.networks import encoder_of
from diffae.nn import UNet
from diffae.nn.space import channels_last

N = TypeVar("N", bound="Network")


@dataclass
class EncoderOutput(BaseOutput):
    """What `DiffAEEncoder` gives.

    Attributes:
        z_sem: (n, d), the semantic codes.
    """

    z_sem: Tensor


class Network(ModelMixin, ConfigMixin):
    """What both have in common: the layout of their weights in memory, which diffusers does not keep when it reads them."""

    @classmethod
    def from_pretrained(cls: type[N], *args: Any, **kwargs: Any) -> N:
        """Reads a network from its folder; arguments as of `diffusers.ModelMixin.from_pretrained`."""
        found = super().from_pretrained(*args, **kwargs)
        channels_last(found.network, len(found.settings().image_size))
        return found

    def settings(self) -> AutoencoderConfig:
        """The configuration of the model that it is a part of.

        Raises:
            ValueError, TypeError: the component's `config.json` describes none.
        """
        return from_dict(AutoencoderConfig, self.config["model"], path="model")


class DiffAEUNet(Network):
    """The UNet that predicts the noise (or v) in x_t, given z_sem.

    Args:
        model: the configuration of the whole model, as a dictionary: a diffae `config.json` has it as `model`.
        calibration: what `diffae calibrate` found, likewise, or None.
    """

    @register_to_config
    def __init__(self, model: dict[str, Any], calibration: dict[str, Any] | None = None) -> None:
        super().__init__()
        settings = self.settings()
        self.network: Any = UNet(settings.unet, image_size=settings.image_size, channels=settings.channels, z_dim=settings.z_dim)

    def forward(
        self, sample: Float[Tensor, "n c *sides"], timestep: Tensor | float, z_sem: Float[Tensor, "n d"],
        return_dict: bool = True, to: Float[Tensor, " n"] | None = None,
    ) -> UNet2DOutput | tuple[Tensor]:  # fmt: skip
        """What the network predicts, in the type of `sample`.

        Args:
            sample: noisy images x_t.
            timestep: t, 0..T-1, one for all or (n,).
            z_sem: semantic codes.
            return_dict: whether it comes as the attribute `sample` or in a tuple.
            to: of a distilled network, timesteps to which a step with this prediction is to lead; see `UNet`.
        """
        # Timesteps stay float32: bfloat16 has no 999.
        t = torch.as_tensor(timestep, device=sample.device, dtype=torch.float32).expand(len(sample))
        output = self.network(sample.to(self.dtype), t, z_sem=z_sem.to(self.dtype), to=to).to(sample)
        return UNet2DOutput(sample=output) if return_dict else (output,)


class DiffAEEncoder(Network):
    """The semantic encoder, image -> z_sem.

    Args:
        model: the configuration of the whole model, as of `DiffAEUNet`.
        preparation: how image files become what it sees, likewise a dictionary.
    """

    @register_to_config
    def __init__(self, model: dict[str, Any], preparation: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.network: Any = encoder_of(self.settings())

    def forward(self, sample: Float[Tensor, "n c *sides"], return_dict: bool = True) -> EncoderOutput | tuple[Tensor]:
        """z_sem of images in [-1, 1], in their type; `return_dict` says whether as the attribute `z_sem` or in a tuple."""
        z_sem = self.network(sample.to(self.dtype)).to(sample)
        return EncoderOutput(z_sem=z_sem) if return_dict else (z_sem,)
