"""A latent prior as what a run trains: codes, and the latent DDIM that learns how they lie."""

from pathlib import Path

import torch
from torch import Tensor, nn

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import PriorRunConfig
from diffae.data.dataset import ImageSet, Order
from diffae.data.feed import Rows
from diffae.interop.parts import save_part
from diffae.pictures import save_png, scale_for, sheet
from diffae.runtime import seeding
from diffae.runtime.seeding import Draws
from diffae.semantics.prior import LatentPrior
from diffae.training.health import Health, check_prior


class PriorSubject:
    """Codes, and a latent DDIM to train on them. The encoder is not touched.

    Args:
        config: the run's.
        ae: the autoencoder, with the standardiser of its training codes.
        z_sem: (n, d), the codes of all images.
        data: the images of these codes.
    """

    def __init__(self, config: PriorRunConfig, ae: DiffusionAutoencoder, z_sem: Tensor, data: ImageSet) -> None:
        assert ae.standardizer is not None
        if config.training.patience is not None and not len(data.validation):
            raise ValueError("training.patience waits for held-out codes, and there are none: leave it away, or hold images out.")
        self.config = config
        self.ae = ae
        self.z = ae.standardizer(z_sem).cpu()
        self.data = data
        self.order = Order(data.train, seed=seeding.mix(config.training.seed, "order"))
        self.place(torch.device("cpu"))

    @property
    def identity(self) -> str:
        return self.data.identity

    def build(self) -> LatentPrior:
        return LatentPrior(self.config.model, given=self.data.given)

    def begin(self, model: nn.Module) -> None:
        assert isinstance(model, LatentPrior)
        model.start(self.z[self.data.train])

    def place(self, device: torch.device) -> None:
        self.rows = Rows([self.z.numpy()], device)

    def batch(self, positions: range) -> Tensor:
        return self.rows.pack([self.order[p] for p in positions])

    def loss(self, model: nn.Module, batch: Tensor, draws: Draws) -> Tensor:
        assert isinstance(model, LatentPrior)
        return model.loss(self.rows.unpack(batch)[0], draws)

    def names(self, positions: range) -> list[str]:
        return [self.data.names[self.order[p]] for p in positions]

    def validate(self, ema: nn.Module) -> Health | None:
        assert isinstance(ema, LatentPrior)
        held_out = self.data.some(self.data.validation, self.config.training.validation_images)
        if not len(held_out):
            return None
        return check_prior(ema, self.z[self.data.train], self.z[held_out], seed=self.config.training.seed)

    def draw(self, ema: nn.Module, file: Path) -> Path:
        """Images of fixed seeds, sampled by the prior as it is."""
        assert isinstance(ema, LatentPrior)
        self.ae.prior = ema
        x = self.ae.to_pictures(self.ae.sample(16, seed=self.config.training.seed))
        return save_png(sheet(x.split(8), scale=scale_for(x)), file)

    def save(self, ema: nn.Module, folder: Path, images: int) -> None:
        assert isinstance(ema, LatentPrior)
        self.ae.prior = ema
        save_part(self.ae, folder, ["prior", "standardizer"])
