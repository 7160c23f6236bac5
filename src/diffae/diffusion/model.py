"""What every diffusion of images has: a UNet, a schedule, a way back and forth between image and noise.

`DDIM` is the plain one, whose noise has to hold everything; `autoencoder.DiffusionAutoencoder` puts the meaning into
z_sem first. Both are solved, inverted, checked and saved by what stands here.
"""

import dataclasses
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffae.config import AutoencoderConfig, Precision, Preparation, to_dict
from diffae.diffusion.card import model_card
from diffae.diffusion.checks import check_images, check_x_T
from diffae.diffusion.interpolation import slerp
from diffae.diffusion.placement import at_home
from diffae.diffusion.predictor import Predictor, Recordings
from diffae.diffusion.schedule import (
    Calibration,
    Schedule,
    decoding_path,
    draw_timesteps,
    encoding_path,
    min_snr_weights,
    spaced_path,
    uncalibrated,
)
from diffae.diffusion.schedule import Path as Levels
from diffae.diffusion.solvers import EpsModel, solve, to_target
from diffae.nn import UNet
from diffae.nn.vae import frozen_autoencoder
from diffae.runtime.files import digest_file, replacing, write_text
from diffae.runtime.seeding import Draws, drawn

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""The files of a saved model."""
ImageSolver = Literal["dpmpp2m", "unipc", "heun", "ddim"]
"""What images are decoded and inverted with. `ddim` is the authors' scheme, with their spacing, index shift and clamping; the
others go evenly in log-SNR and do not clamp. UniPC is for decoding."""


class ImageDiffusion(nn.Module):
    """A UNet, a noise schedule, and what follows from the two. Images are (n, c, h, w) in [-1, 1].

    Wherever images and codes are, the networks compute where they are themselves, and what comes of it is brought back there.

    Args:
        config: the network and the diffusion.

    Attributes:
        preparation: how image files become what it sees; everything that reads files for it does so.
        about: what travels with the weights for people to read: data, licence, images seen, measured figures. JSON values.
        precision: of the UNet's calls by solvers, float32 unless set. `bfloat16` is up to twice as quick where the processor has it
            (`auto` asks), and errs by a hundredth of what the network says; states, codes and images stay float32.
        records: whether a card records the UNet's calls by solvers, a few shapes of batches, and replays them (CUDA graphs).
    """

    precision: Precision = "float32"
    records = True

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.preparation = Preparation()
        self.about: dict[str, Any] = {}
        self.schedule = Schedule(config.schedule)
        self._calibration: Calibration | None = None
        self._recordings = Recordings()
        self.unet = UNet(config.unet, image_size=config.image_size, channels=config.channels, z_dim=config.z_dim)

    @property
    def calibration(self) -> Calibration:
        """Where paths begin, how many steps they take, and the timestep of the mean decode."""
        return self._calibration or uncalibrated(self.schedule, self.config.prediction)

    @calibration.setter
    def calibration(self, calibration: Calibration) -> None:
        self._calibration = calibration

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.unet.conv_in.weight.device

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return (self.config.channels, *self.config.image_size)

    def to_pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n _ _h _w"]:
        """What is to be seen of images: of a model of latents, their frozen autoencoder's decoding; of all others themselves."""
        return x if self.config.latents is None else frozen_autoencoder(self.config.latents).decode(x)

    def from_pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n _ _h _w"]:
        """Images in [-1, 1] as this model takes them: of a model of latents, their latents; of all others themselves."""
        return x if self.config.latents is None else frozen_autoencoder(self.config.latents).encode(x)

    def in_range(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Images clamped to [-1, 1]; latents, which have no range, as they are."""
        return x.clamp(-1, 1) if self.config.latents is None else x

    def pixels_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of images as they are seen."""
        if self.config.latents is None:
            return self.image_shape
        vae = frozen_autoencoder(self.config.latents)
        return (vae.image_channels, *vae.image_size(self.config.channels, self.config.image_size))

    def _clamps(self, asked: bool | None, usual: bool) -> bool:
        """Whether predicted images are clamped: as asked for, or as usual for pixels."""
        return usual and self.config.latents is None if asked is None else asked

    def eps_model(self, z_sem: Float[Tensor, "n d"] | None = None) -> EpsModel:
        """The network as solvers want it: `(x_t, t) -> eps`, whatever it was trained to predict."""
        return Predictor(
            self.unet,
            z_sem,
            schedule=self.schedule,
            prediction=self.config.prediction,
            precision=self.precision,
            recordings=self._recordings if self.records else None,
        )

    def path(self, steps: int) -> Levels:
        """From noise to the level at which images are taken to live; `path(steps).backwards()` is the way there."""
        return spaced_path(self.schedule, steps, spacing=self.calibration.spacing, t_max=self.calibration.t_max)

    def _to_noise(self, x: Tensor, z_sem: Tensor | None, *, steps: int | None, solver: ImageSolver, clamp: bool | None) -> Tensor:
        _check_solver(solver)
        x, steps = self._check_images(x), self.calibration.steps if steps is None else steps
        if solver == "unipc":
            raise ValueError("UniPC decodes, but does not invert: its corrector asks for levels in the other order. Use 'dpmpp2m'.")
        path = encoding_path(self.schedule, steps) if solver == "ddim" else self.path(steps).backwards()
        return self._solve(x, z_sem, path, solver, clamp=self._clamps(clamp, solver == "ddim"))

    def _to_image(self, x_T: Tensor, z_sem: Tensor | None, *, steps: int | None, solver: ImageSolver, clamp: bool | None) -> Tensor:
        """The image of its own x_T, along the path that it came by."""
        _check_solver(solver)
        steps = self.calibration.steps if steps is None else steps
        path = decoding_path(self.schedule, steps) if solver == "ddim" else self.path(steps)
        return self._solve(x_T, z_sem, path, solver, clamp=self._clamps(clamp, solver == "ddim"))

    def _to_sample(
        self, x_T: Tensor, z_sem: Tensor | None, *, steps: int | None, solver: ImageSolver, clamp: bool | None
    ) -> Tensor:
        """The image of noise that was drawn: with a last predicted x_0, so that no noise is left in it."""
        _check_solver(solver)
        steps = self.calibration.sample_steps if steps is None else steps
        path = decoding_path(self.schedule, steps) if solver == "ddim" else self.path(steps).to_the_image()
        return self._solve(x_T, z_sem, path, solver, clamp=self._clamps(clamp, True))

    def _solve(self, x: Tensor, z_sem: Tensor | None, path: Levels, solver: ImageSolver = "ddim", *, clamp: bool) -> Tensor:
        return solve(self.eps_model(z_sem), x, path, solver=solver, clamp=clamp)

    def _loss(self, x_0: Tensor, draws: Draws, z_sem: Tensor | None, *, noisy: bool, min_snr: float | None = None) -> Tensor:
        """Mean squared error of the network's prediction at one timestep per image."""
        t = draw_timesteps(draws.uniform("t"), self.schedule.T, noisy=noisy)
        eps = draws.normal("eps", tuple(x_0.shape[1:])).to(x_0)
        alpha, sigma = self.schedule.alpha_sigma(t, like=x_0)
        output = self.unet(alpha * x_0 + sigma * eps, t.to(x_0), z_sem=z_sem, draws=draws)
        target = to_target(self.config.prediction, x_0, eps, alpha, sigma)
        if min_snr is None:
            return F.mse_loss(output.to(target.dtype), target)
        weights = min_snr_weights(self.schedule.levels(t), min_snr, self.config.prediction).to(target)
        return ((output.to(target.dtype) - target).square().flatten(1).mean(1) * weights).mean()

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Writes `config.json` and `model.safetensors`, each atomically; `diffae.load(folder)` reads them.

        Args:
            folder: made if it is not there.
            dtype: of the networks' weights in the file; bfloat16 halves it. They are float32 again when they are read.
        """
        networks = dict(self.named_parameters())
        tensors = {name: t.to(dtype or t.dtype) if name in networks else t for name, t in self.state_dict().items()}
        config = {"format": "diffae-1", "model": to_dict(self.config), **self._parts(), "about": self.about}
        config["preparation"] = to_dict(self.preparation)
        config["calibration"] = None if self._calibration is None else dataclasses.asdict(self._calibration)
        write_weights(Path(folder), config, tensors)

    def model_card(self, name: str) -> str:
        """What the model is, of what data, under which licence, and what was measured, in Markdown; see `about`."""
        return model_card(name, self.about, self._parts())

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads what `save_pretrained` writes, and a model card made of `about`, to the Hugging Face hub.

        Prior, standardiser and attributes travel with the autoencoder; `diffae.load(repo_id)` reads them.

        Args:
            repo_id: `user/model`; made if it is not there.
            private: whether a new repository is private.
            token: of the hub; by default the one that `hf auth login` stored.

        Returns:
            The address of the model.

        Raises:
            ValueError: a name that is not `user/model`.
            PermissionError: nobody is logged in, or the token may not write there.
            ConnectionError: the hub cannot be reached.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HTTPError

        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
            raise ValueError(f"Expected the hub's name for the model as user/model, got {repo_id!r}.")
        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            write_text(Path(folder) / "README.md", self.model_card(repo_id))
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload from diffae")
            except HfHubHTTPError as error:
                if error.response.status_code not in (401, 403):
                    raise
                raise PermissionError(
                    f"The hub does not let you write to {repo_id}: log in with `hf auth login`, with a token that may write there."
                ) from None
            except HTTPError as error:
                raise ConnectionError(
                    f"The hub at {api.endpoint} does not answer ({str(error) or type(error).__name__}): try again later."
                ) from None
        return f"{api.endpoint}/{repo_id}"

    def _parts(self) -> dict[str, Any]:
        """What `config.json` says beside the model's own configuration."""
        return {}

    # Checks ----------------------------------------------------------------------------------------------------------

    def _draw_x_T(self, num: int, seed: int | torch.Generator, *, start: int = 0) -> Tensor:
        return Draws.of(num, seed, start=start, device=self.device).normal("x_T", self.image_shape).to(self.unet.conv_in.weight)

    def _check_images(self, x: Tensor) -> Tensor:
        return check_images(x, self.image_shape, of_pixels=self.config.latents is None)

    def _check_x_T(self, x_T: Tensor, num: int | None) -> Tensor:
        return check_x_T(x_T, self.image_shape, num)


class DDIM(ImageDiffusion):
    """The plain DDIM: the same UNet without z_sem, to compare with. Its x_T alone is the code of an image.

    Args:
        config: the network and the diffusion, with `z_dim=None`.

    Raises:
        ValueError: a configuration with a z_sem.

    References:
        Song et al. 2021, *Denoising Diffusion Implicit Models*; the baseline of Preechakul et al. 2022, section 5.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        if config.z_dim is not None:
            raise ValueError(f"A plain DDIM has no z_sem: its z_dim must be None, got {config.z_dim}.")
        super().__init__(config)

    @at_home
    def invert(
        self,
        x: Float[Tensor, "n c h w"],
        *,
        steps: int | None = None,
        solver: ImageSolver = "dpmpp2m",
        clamp: bool | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """x_T of images: the DDIM run backwards. Arguments as in `DiffusionAutoencoder.invert`."""
        return self._to_noise(x, None, steps=steps, solver=solver, clamp=clamp)

    @at_home
    def decode(
        self,
        x_T: Float[Tensor, "n c h w"],
        *,
        steps: int | None = None,
        solver: ImageSolver = "dpmpp2m",
        clamp: bool | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """Images of the x_T that `invert` gave. Arguments as in `DiffusionAutoencoder.decode`."""
        return self._to_image(self._check_x_T(x_T, None), None, steps=steps, solver=solver, clamp=clamp)

    @at_home
    def reconstruct(
        self, x: Float[Tensor, "n c h w"], *, steps: int | None = None, solver: ImageSolver = "dpmpp2m"
    ) -> Float[Tensor, "n c h w"]:
        """`decode(invert(x))`."""
        return self._to_image(self.invert(x, steps=steps, solver=solver), None, steps=steps, solver=solver, clamp=None)

    @torch.no_grad()
    def sample(
        self,
        num: int = 1,
        *,
        steps: int | None = None,
        solver: ImageSolver = "dpmpp2m",
        batch_size: int = 64,
        seed: int = 0,
        generator: torch.Generator | None = None,
        start: int = 0,
    ) -> Float[Tensor, "num c h w"]:
        """New images number `start` on, from x_T ~ N(0, I). Number i depends on the seed and i alone."""
        seed = seed if generator is None else drawn(generator)
        parts = [range(i, min(i + batch_size, num)) for i in range(0, num, batch_size)]
        noises = (self._draw_x_T(len(part), seed, start=start + part.start) for part in parts)
        return torch.cat([self._to_sample(x_T, None, steps=steps, solver=solver, clamp=None) for x_T in noises])

    @at_home
    def interpolate(
        self,
        x_a: Float[Tensor, "n c h w"],
        x_b: Float[Tensor, "n c h w"],
        weights: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
        *,
        steps: int | None = None,
        solver: ImageSolver = "dpmpp2m",
    ) -> Float[Tensor, "n frames c h w"]:
        """From image to image by slerp of x_T (figure 4, beside the autoencoder's)."""
        a, b = (self.invert(x, steps=steps, solver=solver) for x in (x_a, x_b))
        frames = (slerp(a, b, w) for w in map(float, weights))
        return torch.stack([self.decode(x_T, steps=steps, solver=solver) for x_T in frames], dim=1)

    @at_home
    def sdedit(
        self, x: Float[Tensor, "n c h w"], *, share: float = 0.5, steps: int = 100, seed: int = 0, start: int = 0
    ) -> Float[Tensor, "n c h w"]:
        """Images noised part of the way and denoised again: what is lost is made up anew.

        Args:
            x: images, or sketches of images.
            share: how much of the way to noise, in 0..1: 0 returns the image, 1 all but a fresh sample.
            steps: network calls of the whole way, of which about this share is made.
            seed: of the noise.
            start: number of the first image, whose noise depends on the seed and its number alone.

        References:
            Meng et al. 2022, *SDEdit*, algorithm 1, with the deterministic DDIM.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"The share of the way to noise must be within 0..1, got {share}.")
        path = decoding_path(self.schedule, steps).last(round(share * steps))
        if not len(path):
            return self._check_images(x)
        t = torch.full((len(x),), int(path.t[0]), device=x.device)
        noise = self._draw_x_T(len(x), seed, start=start).to(x)
        return self._solve(self.schedule.add_noise(self._check_images(x), noise, t), None, path, clamp=self._clamps(None, True))

    def loss(
        self, x_0: Float[Tensor, "n c h w"], draws: Draws, *, noisy: bool = False, min_snr: float | None = None
    ) -> Float[Tensor, ""]:
        """L_simple, as in `DiffusionAutoencoder.loss`."""
        return self._loss(x_0, draws, None, noisy=noisy, min_snr=min_snr)


def write_weights(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """The two files of a saved model, or of a part of one, together: whoever dies in between leaves the old pair or the new one.

    The new `config.json` is put beside the old under a name that tells the weights that it is of, and takes its place after them.
    """
    for left in folder.glob(f".{CONFIG}-*"):
        left.unlink()
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with replacing(folder / WEIGHTS) as part:
        safetensors.torch.save_file(tensors, part, metadata={"format": "pt"})
        coming = folder / f".{CONFIG}-{digest_file(part)}"
        write_text(coming, json.dumps(config, indent=2) + "\n")
    coming.replace(folder / CONFIG)


def files_of_weights(folder: Path) -> tuple[Path, Path]:
    """What `write_weights` wrote: the configuration, and the weights that it is of."""
    weights = folder / WEIGHTS
    for coming in folder.glob(f".{CONFIG}-*"):  # There is one only where a process died, or is writing at this moment.
        if weights.is_file() and coming.name == f".{CONFIG}-{digest_file(weights)}":
            return coming, weights
    return folder / CONFIG, weights


def _check_solver(solver: str) -> None:
    if solver not in get_args(ImageSolver):
        raise ValueError(f"Unknown solver {solver!r}; there are {', '.join(map(repr, get_args(ImageSolver)))}.")
