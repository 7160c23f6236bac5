"""The authors' own `model/` and `diffusion/`, unmodified, with the weights of a model of ours.

They are read from a checkout beside the project and never copied into it:

    git clone https://github.com/phizaz/diffae && git -C diffae checkout 00c57d3f626f28bf9ed8aff58d90baab25de3af4
"""

import contextlib
import copy
import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffae.autoencoder import DiffusionAutoencoder
from diffae.interop.official.names import autoencoder_names

COMMIT = "00c57d3f626f28bf9ed8aff58d90baab25de3af4"
WHERE = f"git clone https://github.com/phizaz/diffae AUTHORS && git -C AUTHORS checkout {COMMIT}"


class Prediction(NamedTuple):
    """What their sampler expects of a network."""

    pred: Tensor


class EpsOf(nn.Module):
    """Their network as their sampler wants it: one that predicts eps. Ours may have been trained to predict v.

    Args:
        network: theirs, with our weights.
        ae: whose weights they are.
    """

    def __init__(self, network: nn.Module, ae: DiffusionAutoencoder) -> None:
        super().__init__()
        self.network = network
        self.prediction = ae.config.prediction
        self.schedule = ae.schedule

    def forward(self, x: Tensor, t: Tensor, *, cond: Tensor, **_: Any) -> Prediction:
        output = self.network(x=x, t=t, cond=cond).pred
        if self.prediction == "v":
            alpha, sigma = self.schedule.alpha_sigma(t.long(), like=x)
            output = alpha * output + sigma * x
        return Prediction(output)


class Authors:
    """Their inversion and decoding.

    Args:
        checkout: of their repository.
        ae: the model whose weights they get.

    Raises:
        FileNotFoundError: there is no checkout.
        ValueError: their network has other weights than ours.
    """

    def __init__(self, checkout: Path, ae: DiffusionAutoencoder) -> None:
        if not (checkout / "diffusion" / "base.py").is_file():
            raise FileNotFoundError(f"There is no checkout of the authors' code at {checkout}. Get it with: {WHERE}")
        self.model, self.diffusion = _import(checkout)
        self.ae = ae
        self.eps = EpsOf(self._network(), ae).eval()

    def invert(self, x: Tensor, z_sem: Tensor, steps: int) -> Tensor:
        """x_T, by their `ddim_reverse_sample_loop`."""
        return self._sampler(steps).ddim_reverse_sample_loop(self.eps, x, model_kwargs={"cond": z_sem})["sample"]

    @torch.no_grad()
    def decode(self, z_sem: Tensor, x_T: Tensor, steps: int) -> Tensor:
        """Images, by their `ddim_sample_loop`."""
        return self._sampler(steps).ddim_sample_loop(self.eps, noise=x_T, model_kwargs={"cond": z_sem})

    def loss(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Mean of their `training_losses`, of images with these timesteps and this noise; the encoder is theirs."""
        terms = self._sampler(self.ae.schedule.T).training_losses(self.eps.network, x_start=x, t=t, noise=noise)
        return terms["loss"].mean()

    def training(self, x: Tensor, *, half: bool = False) -> Callable[[], float]:
        """A step of their training on these images, whose loss is read: Adam, clipping, their average; seed 0.

        Args:
            x: images, where their network is.
            half: float16 by autocast, with gradients scaled, as they train on a card.
        """
        network = self.eps.network.train()
        average = copy.deepcopy(network).eval().requires_grad_(False)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
        scaler = torch.amp.GradScaler(x.device.type, enabled=half)
        generator = torch.Generator(x.device).manual_seed(0)

        def step() -> float:
            t = torch.randint(0, self.ae.schedule.T, (len(x),), generator=generator, device=x.device)
            noise = torch.randn(x.shape, generator=generator, device=x.device)
            with torch.autocast(x.device.type, torch.float16) if half else contextlib.nullcontext():
                loss = self.loss(x, t, noise)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(list(network.parameters()), 1.0)
            scaler.step(optimizer)
            scaler.update()
            with torch.no_grad():
                source, target = network.state_dict(), average.state_dict()
                for key in source:
                    target[key].data.copy_(target[key].data * 0.9999 + source[key].data * (1 - 0.9999))
            return float(loss.detach())

        return step

    def _network(self) -> nn.Module:
        c, unet = self.ae.config, self.ae.config.unet
        theirs = self.model.BeatGANsAutoencConfig(
            image_size=c.image_size[0],
            in_channels=c.channels,
            out_channels=c.channels,
            model_channels=unet.base_channels,
            num_res_blocks=unet.blocks_per_level,
            embed_channels=unet.embed_channels,
            attention_resolutions=unet.attention_resolutions,
            dropout=unet.dropout,
            channel_mult=unet.channel_mult,
            num_heads=unet.attention_heads,
            resnet_two_cond=True,
            resnet_cond_channels=c.z_dim,
            enc_out_channels=c.z_dim,
            enc_pool="adaptivenonzero",
            enc_num_res_block=c.encoder.blocks_per_level,
            enc_channel_mult=c.encoder.channel_mult,
            enc_attn_resolutions=c.encoder.attention_resolutions,
        ).make_model()
        own, state = self.ae.state_dict(), theirs.state_dict()
        names = dict(autoencoder_names(self.ae))
        # Where cells are pooled, which theirs cannot, the encoder stays ours.
        shared = ("unet.", "encoder.") if c.encoder.pooled_size == 1 else ("unet.",)
        mine = {names[key]: tensor for key, tensor in own.items() if key.startswith(shared) and key in names}
        missing = [key for key in state if not (key.startswith("encoder.") and len(shared) == 1) and key not in mine]
        if missing:
            raise ValueError(f"The authors' network has weights that ours has not: {', '.join(missing[:3])} ...")
        theirs.load_state_dict(state | {key: tensor.reshape(state[key].shape) for key, tensor in mine.items()})
        return theirs

    def _sampler(self, steps: int) -> Any:
        d, T = self.diffusion, self.ae.schedule.T
        config = d.SpacedDiffusionBeatGansConfig(
            use_timesteps=d.diffusion.space_timesteps(T, f"ddim{steps}"),
            gen_type=d.base.GenerativeType.ddim,
            betas=d.base.get_named_beta_schedule("linear", T),
            model_type=d.base.ModelType.autoencoder,
            model_mean_type=d.base.ModelMeanType.eps,
            model_var_type=d.base.ModelVarType.fixed_large,
            loss_type=d.base.LossType.mse,
            rescale_timesteps=False,
            fp16=False,
        )
        return config.make_sampler()


def _import(checkout: Path) -> tuple[types.ModuleType, types.ModuleType]:
    """Their two packages, under the names that they import each other by."""
    sys.path.insert(0, str(checkout))
    try:
        return importlib.import_module("model"), importlib.import_module("diffusion")
    finally:
        sys.path.remove(str(checkout))
