"""What can be trained: an autoencoder, a plain DDIM, a latent prior. The one training run asks each for the same few things."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from diffae.autoencoder import DiffusionAutoencoder, build
from diffae.config import AutoencoderConfig, RunConfig
from diffae.data.contents import Progress
from diffae.data.dataset import ImageSet, Order
from diffae.data.feed import Rows
from diffae.diffusion import DDIM, ImageDiffusion
from diffae.diffusion.schedule import each_error
from diffae.frozen.encoder import learned_part
from diffae.frozen.features import described_features, features_about
from diffae.nn.layers import Stage
from diffae.pictures import save_png, scale_for, sheet
from diffae.runtime import processes, seeding
from diffae.runtime.seeding import Draws
from diffae.training.evening import check_evens, evened, learned_encoder
from diffae.training.features import features_of, fit_features
from diffae.training.health import Health, check_codes, check_images
from diffae.training.starting import take_weights, trained_model
from diffae.training.views import augmented, dropped, of_view, shifted, training_view, view_contrast

KNOWN = 0.98
"""From which value on, of -1..1, a pixel counts that was mixed of such as do and such as do not."""
WHITENED_IMAGES = 2048
"""Images over which z_sem is whitened at the start, and evened."""
SMALL_PART, LARGE_PART = 16, 128
"""Of them encoded at once, at most: where it is not known what there is room for, and else."""


class Subject(Protocol):
    """What a training run needs to know of what it trains."""

    config: Any
    """The run's configuration: `model`, `data`, `training`."""

    @property
    def identity(self) -> str:
        """Which data it is trained on, in words: other data, or the same in another order, have another."""
        ...

    def build(self) -> nn.Module:
        """The model, with fresh weights."""
        ...

    def begin(self, model: nn.Module) -> str | None:
        """What happens once, before the first step of a new run; a sentence for people, or None."""
        ...

    def place(self, device: torch.device) -> None:
        """Brings the data to where the model is, as far as there is room."""
        ...

    def batch(self, positions: range) -> Tensor:
        """The data at these positions of the run, as the host sends it to the device."""
        ...

    def loss(self, model: nn.Module, batch: Tensor, draws: Draws) -> Tensor:
        """The mean loss of what was sent, with what is drawn for each row."""
        ...

    def names(self, positions: range) -> list[str]:
        """What the data at these positions is called."""
        ...

    def validate(self, ema: nn.Module) -> Health | None:
        """How well the averaged weights do on held-out data, or None if there is none."""
        ...

    def draw(self, ema: nn.Module, file: Path) -> Path:
        """A picture of what the averaged weights do, the same subject each time."""
        ...

    def save(self, ema: nn.Module, folder: Path, images: int) -> None:
        """Writes the averaged weights as users load them."""
        ...


class ImageSubject:
    """Images, and an autoencoder or a plain DDIM to train on them.

    Args:
        config: the run's.
        data: its images.
        make: builds the model, with fresh weights; give your own for a model with an encoder or a network of your own.
        progress: called while features are computed, where there is a frozen network.

    Raises:
        ValueError: model and data are not both of pixels, or not both of the same latents.
    """

    def __init__(
        self, config: RunConfig, data: ImageSet, *, make: Callable[[AutoencoderConfig], DiffusionAutoencoder | DDIM] = build,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        if config.model.latents != config.data.latents:
            raise ValueError(
                f"The model is one of {config.model.latents or 'pixels'} (model.latents) and its data of "
                f"{config.data.latents or 'pixels'} (data.latents): a model knows one kind alone. Give both the same."
            )
        if config.training.patience is not None and len(data.validation) < 2:
            raise ValueError(
                f"training.patience waits for held-out images, and there are {len(data.validation)}: set data.validation higher."
            )
        if config.training.contrast and len(data.train) < config.training.batch_size:
            raise ValueError(f"training.contrast compares {config.training.batch_size} images, and there are {len(data.train)}.")
        self.config = config = replace(config, model=described_features(config.model))
        self.data = data
        frozen = config.model.features
        self._features = [] if frozen.network is None else features_of(data, frozen, progress=progress)
        self._make = make
        self.order = Order(data.train, seed=seeding.mix(config.training.seed, "order"))
        self._noisy = config.training.timesteps == "noisy"
        self.place(torch.device("cpu"))

    @property
    def identity(self) -> str:
        return self.data.identity

    def build(self) -> DiffusionAutoencoder | DDIM:
        model = self._make(self.config.model)
        model.preparation = self.data.config.preparation
        for module in model.modules():
            if isinstance(module, Stage):
                module.recompute = self.config.training.recompute
        if frozen := self.config.start.freeze:
            network = model.unet if frozen == "decoder" else getattr(model, "encoder", None)
            if network is None:
                raise ValueError("A plain DDIM has no encoder to freeze.")
            network.requires_grad_(False)
        if self._evens and isinstance(model, DiffusionAutoencoder):
            check_evens(model)
        return model

    @torch.no_grad()
    def begin(self, model: nn.Module) -> str | None:
        assert isinstance(model, DiffusionAutoencoder | DDIM)
        start = self.config.start
        if start.model is not None:
            trained = trained_model(start.model)
            found = take_weights(model, trained)
            self.config = replace(self.config, start=replace(start, fresh=tuple(found.fresh)))
            note = f"Starting from {start.model}: {found}"
            if self._features and (trained.config.features != model.config.features or "encoder.projection" in found.fresh):
                note += "\n" + fit_features(model, self.data, self._features)
            return note
        told = fit_features(model, self.data, self._features) if self._features else None
        if self.config.training.whitened_start and isinstance(model, DiffusionAutoencoder):
            ours = learned_encoder(model, "training.whitened_start")
            if ours is not None:
                ours.whiten(torch.cat([ours.features(self._images(p, model)) for p in self._some()]))
        return told

    def place(self, device: torch.device) -> None:
        self.rows = Rows([*self.data.arrays, *self._features], device)

    def batch(self, positions: range) -> Tensor:
        return self.rows.pack([self.order[p] for p in positions])

    def view(self, batch: Tensor, draws: Draws) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The images of what `batch` sent, which of their pixels count, where not all do, and what the frozen network says of them,
        if there is one."""
        flip, rows = self.config.data.flip, self.rows.unpack(batch)
        images, features = rows[: len(self.data.arrays)], rows[len(self.data.arrays) :]
        mirrored = images[1] if self.data.mirrored is not None else None
        # What is known goes along as a channel: mirrored, turned and moved as its image is.
        x = training_view(images[0] if self.data.known is None else torch.cat(images, 1), draws, flip=flip, mirrored=mirrored)
        x = augmented(x, draws, self.config.training.augment) if self.config.training.augment else x
        seen = of_view(features, draws) if features else None
        return (x, None, seen) if self.data.known is None else (x[:, :-1], (x[:, -1:] > KNOWN).float(), seen)

    def loss(self, model: nn.Module, batch: Tensor, draws: Draws) -> Tensor:
        training, (x, known, features) = self.config.training, self.view(batch, draws)
        if isinstance(model, DDIM):
            return model.loss(x, draws, noisy=self._noisy, min_snr=training.min_snr, known=known)
        assert isinstance(model, DiffusionAutoencoder)
        view = shifted(x, draws, training.encoder_shift) if training.encoder_shift else x
        z_sem, apart = model.encoder(view) if features is None else model.encoder(view, features), x.new_zeros(())
        if training.contrast:  # Of what is learned, the last values of z_sem: all (-0) where no features come before.
            ours = learned_part(model.encoder)
            apart = training.contrast * view_contrast(training.views, z_sem[:, -self.config.model.learned :], ours, x, known, draws)
        if model.mean_decoder is not None:
            apart = apart + each_error(model.mean_decoder(z_sem), x, known).mean()
        if training.z_sem_dropout:
            z_sem = dropped(z_sem, draws, training.z_sem_dropout)
        return model.loss(x, draws, noisy=self._noisy, min_snr=training.min_snr, z_sem=z_sem, known=known) + apart

    def names(self, positions: range) -> list[str]:
        return [self.data.names[self.order[p]] for p in positions]

    def validate(self, ema: nn.Module) -> Health | None:
        held_out = self.data.some(self.data.validation, self.config.training.validation_images)
        if len(held_out) < 2:
            return None
        training = self.config.training
        x = self._images(held_out, ema)
        known = self.data.counted(held_out)
        settings: dict[str, Any] = dict(batch_size=training.batch_size, noisy=self._noisy, seed=training.seed)
        settings |= {} if known is None else {"known": known.to(x.device)}
        if isinstance(ema, DDIM):
            return check_images(ema, x, **settings)
        assert isinstance(ema, DiffusionAutoencoder)
        return check_codes(ema, x, **settings)

    @torch.no_grad()
    def draw(self, ema: nn.Module, file: Path) -> Path:
        """A sheet with a row each of images, their mean decode, z_sem with fixed noise, and z_sem with inferred x_T. For a plain
        DDIM: images, samples of fixed noise, and images decoded from inferred x_T."""
        x = self._images(self.data.validation[:8] if len(self.data.validation) else self.data.train[:8], ema)
        if isinstance(ema, DiffusionAutoencoder):
            z_sem = ema.encode(x)
            rows = [x, ema.decode_mean(z_sem), ema.decode(z_sem), ema.reconstruct(x, inversion="fast")]
        else:
            assert isinstance(ema, DDIM)
            rows = [x, ema.sample(len(x)), ema.reconstruct(x)]
        rows = [ema.to_pictures(row) for row in rows]
        return save_png(sheet(rows, scale=scale_for(rows[0])), file)

    def save(self, ema: nn.Module, folder: Path, images: int) -> None:
        assert isinstance(ema, ImageDiffusion)
        ema.about = {
            "data": f"{Path(self.config.data.source).name}, {len(self.data.train):,} images",
            "preset": self.config.preset,
            "images_seen": images,
        } | features_about(ema.config)
        (self._evened(ema) if isinstance(ema, DiffusionAutoencoder) else ema).save_pretrained(folder)

    @property
    def _evens(self) -> bool:
        return self.config.model.unet.evened and self.config.start.freeze is None

    @torch.no_grad()
    def _evened(self, ema: DiffusionAutoencoder) -> DiffusionAutoencoder:
        """The model as users get it. What begins with a trained part that stays keeps that one's z_sem."""
        if not self._evens:
            return ema
        ways: list[Callable[[Tensor], Tensor]] = [lambda x: x]
        if self.config.data.flip and self.config.model.latents is None:
            ways.append(lambda x: x.flip(-1))
        parts = self._some()
        return evened(ema, *(torch.cat([ema.encode(way(self._images(p, ema))) for p in parts]) for way in ways))

    def _some(self) -> list[np.ndarray]:
        """The first images of the run, in parts no larger than training's, where these are known: over them z_sem is whitened at
        the start, and evened at the end."""
        training, chosen = self.config.training, np.unique([self.order[p] for p in range(WHITENED_IMAGES)])
        among = processes.count() * (1 if training.accumulation == "auto" else training.accumulation)
        most = SMALL_PART if training.accumulation == "auto" else LARGE_PART
        return np.array_split(chosen, -(-len(chosen) // max(1, min(most, training.batch_size // among))))

    def _images(self, indices: Sequence[int] | np.ndarray, model: nn.Module) -> Tensor:
        return self.data.images(indices).to(next(model.parameters()).device)
