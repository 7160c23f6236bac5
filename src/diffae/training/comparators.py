"""Training the autoencoders of other families on the same images, by the same run."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from diffae.config import ComparatorRunConfig
from diffae.data.dataset import ImageSet, Order
from diffae.interop.comparators import Comparator
from diffae.pictures import save_png, scale_for, sheet
from diffae.runtime import seeding
from diffae.runtime.seeding import Draws
from diffae.training.health import Health, LossHealth
from diffae.training.subjects import ImageSubject


class ComparatorSubject(ImageSubject):
    """Images, and a VAE or VQ-VAE to train on them.

    Args:
        config: the run's.
        data: its images.
    """

    config: ComparatorRunConfig  # type: ignore[assignment]

    def __init__(self, config: ComparatorRunConfig, data: ImageSet) -> None:
        self.config = config
        self.data, self._features = data, []
        self.order = Order(data.train, seed=seeding.mix(config.training.seed, "order"))
        self.place(torch.device("cpu"))

    def build(self) -> Comparator:  # type: ignore[override]
        return Comparator(self.config.model)

    def begin(self, model: nn.Module) -> None:
        pass

    def loss(self, model: nn.Module, batch: torch.Tensor, draws: Draws) -> torch.Tensor:
        assert isinstance(model, Comparator)
        return model.loss(self.view(batch, draws)[0], draws)

    @torch.no_grad()
    def validate(self, ema: nn.Module) -> Health | None:
        assert isinstance(ema, Comparator)
        held_out = self.data.some(self.data.validation, self.config.training.validation_images)
        if not len(held_out):
            return None
        size = self.config.training.batch_size
        parts = [self._images(held_out[i : i + size], ema) for i in range(0, len(held_out), size)]
        draws = [Draws.of(len(x), 0, start=i * size, device=x.device).fork("validation") for i, x in enumerate(parts)]
        losses = [float(ema.loss(x, d)) for x, d in zip(parts, draws, strict=True)]
        return LossHealth(float(np.average(losses, weights=[len(x) for x in parts])))

    @torch.no_grad()
    def draw(self, ema: nn.Module, file: Path) -> Path:
        """A sheet with a row of images, and below it their reconstructions."""
        assert isinstance(ema, Comparator)
        x = self._images(self.data.validation[:8] if len(self.data.validation) else self.data.train[:8], ema)
        return save_png(sheet([x, ema.decode(ema.encode(x)).clamp(-1, 1)], scale=scale_for(x)), file)

    def save(self, ema: nn.Module, folder: Path, images: int) -> None:
        assert isinstance(ema, Comparator)
        ema.save_pretrained(folder)
