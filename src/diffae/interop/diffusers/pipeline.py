"""A diffusion autoencoder as a pipeline of diffusers: two networks and a scheduler, any that is made from the model's own."""

import inspect
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import Preparation, from_dict
from diffae.data.images import UnusableImage, in_range, read_image
from diffae.diffusion.border import check_counts, check_encoded, check_images, check_x_T, check_z_sem
from diffae.diffusion.schedule import Calibration
from diffae.diffusion.solvers import EpsModel, solve, to_eps
from diffae.interop.diffusers.code import named_in_folder, named_in_package, write_code
from diffae.interop.diffusers.networks import DiffAEEncoder, DiffAEUNet
from diffae.interop.diffusers.schedulers import check_scheduler, clips, scheduler_of, way_to_noise
from diffae.pictures import to_pil

Images = Image.Image | Sequence[Image.Image] | np.ndarray | Tensor
"""Pictures; or arrays (n, *sides, c) or tensors (n, c, *sides) of the model's size, in [0, 1] as everywhere in diffusers."""
STEPS = 20
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""Pillow's modes of pictures that can be prepared."""


class DiffAEPipeline(DiffusionPipeline):
    """A diffusion autoencoder: `pipe(image)` reconstructs, `pipe.encode` and `pipe.invert` find the codes, and with them
    `pipe(z_sem=..., x_T=...)` decodes.

    Args:
        unet: the decoder's network.
        encoder: the semantic encoder.
        scheduler: how noise becomes an image; any of diffusers that is made from the model's own by `from_config`.

    Raises:
        ValueError: networks of different models.

    References:
        Preechakul et al. 2022, *Diffusion Autoencoders: Toward a Meaningful and Decodable Representation*.
    """

    model_cpu_offload_seq = "encoder->unet"  # type: ignore[assignment]
    unet: Any
    encoder: Any
    scheduler: Any

    def __init__(self, unet: DiffAEUNet, encoder: DiffAEEncoder, scheduler: Any) -> None:
        super().__init__()
        if unet.settings() != encoder.settings():
            raise ValueError("The unet and the encoder are of different models: their config.json differ. Take both from one.")
        self.register_modules(unet=unet, encoder=encoder, scheduler=scheduler)

    @classmethod
    def from_autoencoder(cls, ae: DiffusionAutoencoder) -> "DiffAEPipeline":
        """The pipeline of a model that `diffae.load` gave; its networks are the model's own, not copies, in eval mode from then on.

        Raises:
            ValueError: a network is one of its maker's own, which diffusers could not build.
        """
        described = ae.to_config()
        if "networks" in described:
            raise ValueError(f"diffusers cannot build networks of your own ({', '.join(described['networks'].values())}).")
        described["model"]["mean_decoder"] = False  # It stays behind; the decoder's own call makes mean images too.
        with torch.device("meta"):
            unet = DiffAEUNet(model=described["model"], calibration=described["calibration"])
            encoder = DiffAEEncoder(model=described["model"], preparation=described["preparation"])
        unet.network, encoder.network = ae.unet, ae.encoder
        return cls(unet.eval(), encoder.eval(), scheduler_of(ae.config))

    @property
    def autoencoder(self) -> DiffusionAutoencoder:
        """The same networks as a `DiffusionAutoencoder`, which does all that diffae can; prior and attributes it has none."""
        ae = DiffusionAutoencoder(self.unet.settings(), encoder=self.encoder.network, unet=self.unet.network)
        ae.preparation = from_dict(Preparation, self.encoder.config["preparation"] or {}, path="preparation")
        if self.unet.config["calibration"] is not None:
            ae.calibration = from_dict(Calibration, self.unet.config["calibration"], path="calibration")
        return ae.eval()

    @torch.no_grad()
    def encode(self, image: Images) -> Float[Tensor, "n d"]:
        """z_sem of images."""
        return self._encode(self._images(image))

    @torch.no_grad()
    def invert(
        self, image: Images, z_sem: Float[Tensor, "n d"] | None = None, *, num_inference_steps: int = STEPS
    ) -> Float[Tensor, "n c *sides"]:
        """x_T of images: the noise from which the scheduler decodes them, in as many steps; see `schedulers.way_to_noise`.

        Args:
            image: see `Images`.
            z_sem: their semantic codes, found here where they are not given.
            num_inference_steps: number of network calls; with a DDIMScheduler one that divides the number of training timesteps, if
                it is to be as the authors do. Up to 4 of a distilled model are jumps, without the scheduler.
        """
        x = self._images(image)
        return self._invert(x, self._encode(x) if z_sem is None else self._codes(z_sem, len(x)), num_inference_steps)

    @torch.no_grad()
    def __call__(
        self,
        image: Images | None = None,
        *,
        z_sem: Float[Tensor, "n d"] | None = None,
        x_T: Float[Tensor, "n c *sides"] | None = None,
        num_inference_steps: int = STEPS,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Images of their codes.

        Args:
            image: whose codes are found where they are not given: x_T along its own z_sem, whatever `z_sem` says, so that
                `pipe(image, z_sem=edited)` edits.
            z_sem: semantic codes.
            x_T: stochastic codes; without them and without an image they are drawn from N(0, I).
            num_inference_steps: number of network calls, each way. Up to 4 of a distilled model are jumps, without the scheduler.
            eta: share of the noise of DDPM at each step; of DDIM's schedulers alone.
            generator: of x_T, and of what the scheduler draws; by default torch's own.
            output_type: pictures, arrays (n, *sides, c) or tensors (n, c, *sides), in [0, 1].
            return_dict: whether they come as the attribute `images` or in a tuple.

        Raises:
            ValueError: neither an image nor z_sem, shapes and ranges that cannot be, or a scheduler of another kind of model.
        """
        if image is None and z_sem is None:
            raise ValueError("What should be decoded? Give an image, or z_sem as `pipe.encode(image)` gives it.")
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"Unknown output_type {output_type!r}; there are 'pil', 'np' and 'pt'.")
        x = None if image is None else self._images(image)
        own = None if x is None else self._encode(x)
        z_sem = own if z_sem is None else self._codes(z_sem, None if x is None else len(x))
        assert z_sem is not None
        ae, drawn, jumps = self.autoencoder, x_T is None and x is None, self._jumps(num_inference_steps)
        if jumps and eta:
            raise ValueError(f"A jump has no eta, got {eta}. Leave it away, or take more steps.")
        if x_T is not None:
            x_T = check_x_T(x_T, ae.image_shape, len(z_sem)).to(self._execution_device, torch.float32)
        elif x is not None and own is not None:
            x_T = self._invert(x, own, num_inference_steps)
        else:
            x_T = ae.draw_x_T(len(z_sem), torch.default_generator if generator is None else generator)
        if jumps:
            path = ae.sample_path(num_inference_steps, "jump") if drawn else ae.path(num_inference_steps, "jump")
            clamp = drawn and ae.config.latents is None
            decoded = solve(self._eps_model(z_sem), x_T.to(z_sem), path, solver="jump", clamp=clamp)
        else:
            decoded = self._decode(z_sem, x_T.to(z_sem), num_inference_steps, eta, generator)
        images = self._shown(decoded, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    # Inside --------------------------------------------------------------------------------------------------------------

    def _decode(self, z_sem: Tensor, x: Tensor, steps: int, eta: float, generator: torch.Generator | None) -> Tensor:
        """x_0 of noise, as the scheduler steps."""
        known = inspect.signature(self.scheduler.step).parameters
        if eta and "eta" not in known:
            raise ValueError(f"{type(self.scheduler).__name__} has no eta, got {eta}. Leave it away, or take a DDIMScheduler.")
        given = {"eta": eta, "generator": generator, "use_clipped_model_output": clips(self.scheduler)}
        given = {name: value for name, value in given.items() if name in known}
        self._set_timesteps(steps)
        x = x * self.scheduler.init_noise_sigma
        with self.progress_bar(total=len(self.scheduler.timesteps)) as bar:
            for t in self.scheduler.timesteps:
                output = self.unet(self.scheduler.scale_model_input(x, t), t, z_sem, return_dict=False)[0]
                x = self.scheduler.step(output, t, x, **given, return_dict=False)[0]
                bar.update()
        return x

    def _invert(self, x: Tensor, z_sem: Tensor, steps: int) -> Tensor:
        ae, eps_model = self.autoencoder, self._eps_model(z_sem)
        if self._jumps(steps):
            return solve(eps_model, x, ae.path(steps, "jump").backwards(), solver="jump", clamp=False)
        self._set_timesteps(steps)
        path, solver = way_to_noise(self.scheduler, ae.schedule)
        return solve(eps_model, x, path, solver=solver, clamp=clips(self.scheduler))

    def _jumps(self, steps: int) -> bool:
        """Whether so few steps are jumps of a distilled network, which are no scheduler's."""
        check_counts(num_inference_steps=steps)
        return self.autoencoder.solver(None, steps) == "jump"

    def _eps_model(self, z_sem: Tensor) -> EpsModel:
        settings, schedule = self.unet.settings(), self.autoencoder.schedule

        def eps_model(x_t: Tensor, t: Tensor, to: Tensor | None = None) -> Tensor:
            output = self.unet(x_t, t, z_sem, return_dict=False, to=to)[0]
            return to_eps(settings.prediction, output, x_t, *schedule.alpha_sigma(t, like=x_t))

        return eps_model

    def _set_timesteps(self, steps: int) -> None:
        check_scheduler(self.scheduler, self.unet.settings())
        self.scheduler.set_timesteps(steps, device=self._execution_device)

    def _encode(self, x: Tensor) -> Tensor:
        return check_encoded(self.encoder(x, return_dict=False)[0])

    def _codes(self, z_sem: Tensor, num: int | None) -> Tensor:
        check_z_sem(z_sem, self.autoencoder.z_dim, num)
        return z_sem.to(self._execution_device, torch.float32)

    def _images(self, image: Images) -> Float[Tensor, "n c *sides"]:
        """Images as the networks see them, float32."""
        ae = self.autoencoder
        channels, *sides = ae.pixels_shape()
        if isinstance(image, Image.Image):
            image = [image]
        if isinstance(image, Sequence):
            x = torch.stack([self._prepared(picture, tuple(sides), channels, ae.preparation) for picture in image])
        else:
            x = torch.from_numpy(np.moveaxis(image, -1, 1)) if isinstance(image, np.ndarray) else image
            low, high = (float(v) for v in x.aminmax()) if x.numel() else (0.0, 0.0)
            if not x.is_floating_point() or not (low >= -0.001 and high <= 1.001):
                raise ValueError(
                    f"Expected arrays and tensors in [0, 1], as everywhere in diffusers, got {x.dtype}, {low:g}..{high:g}."
                )
            if tuple(x.shape[1:]) != (channels, *sides):
                raise ValueError(
                    f"Expected tensors (n, {channels}, {', '.join(map(str, sides))}), got {tuple(x.shape)}: resize first."
                )
            x = x * 2 - 1
        x = ae.from_pixels(x.to(self._execution_device, torch.float32))
        return check_images(x, ae.image_shape, of_pixels=False)

    def _prepared(self, picture: Any, sides: tuple[int, ...], channels: int, preparation: Preparation) -> Tensor:
        """A picture, cropped and resized as those were that the model was trained with."""
        if not isinstance(picture, Image.Image) or picture.mode not in MODES:
            what = f"one of mode {picture.mode!r}" if isinstance(picture, Image.Image) else type(picture).__name__
            raise ValueError(f"Expected pictures of mode {', '.join(MODES)}, got {what}: convert it, or give a batch as a tensor.")
        content = io.BytesIO()
        ImageOps.exif_transpose(picture).save(content, "PNG", compress_level=0)
        try:
            pixels = read_image(content.getvalue(), "picture.png", size=sides, channels=channels, preparation=preparation)
        except UnusableImage as error:
            raise ValueError(f"The picture {error}.") from None
        return in_range(pixels[:channels])

    def _shown(self, x: Tensor, output_type: str) -> Any:
        ae = self.autoencoder
        if output_type == "pil":
            return [to_pil(picture) for picture in ae.to_pictures(x)]
        images = (ae.to_pixels(x) / 2 + 0.5).clamp(0, 1)
        return images.movedim(1, -1).cpu().numpy() if output_type == "np" else images

    # Its folder ----------------------------------------------------------------------------------------------------------

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """`model_index.json` with the classes named by their modules: they are at hand, so that the folder's code is not run."""
        found = super().load_config(*args, **kwargs)
        return (named_in_package(found[0]), *found[1:]) if isinstance(found, tuple) else named_in_package(found)

    def save_config(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes `model_index.json`, and beside it the code that it names; `save_pretrained` ends with it."""
        write_code(Path(save_directory))
        super().save_config(save_directory, push_to_hub=push_to_hub, **kwargs)

    def to_json_string(self) -> str:
        """What `model_index.json` holds."""
        return named_in_folder(super().to_json_string())
