"""An autoencoder whose z_sem draws the whole image, so that what a move of it does to an image is known in closed form."""

import torch
from torch import nn

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import AutoencoderConfig, EncoderConfig, UNetConfig

D, SIDE = 6, 8


class Draws(nn.Module):
    """Predicts the noise in x_t as if z_sem told x_0: x_0 = G z_sem."""

    def __init__(self, pattern):
        super().__init__()
        self.pattern = nn.Parameter(pattern)
        self.schedule = None

    def forward(self, x_t, t, *, z_sem=None, draws=None):
        alpha, sigma = self.schedule.alpha_sigma(t.long(), like=x_t)
        return (x_t - alpha * (z_sem @ self.pattern).view(x_t.shape)) / sigma


class Sees(nn.Module):
    """The z_sem of an image that is drawn so."""

    def __init__(self, pattern):
        super().__init__()
        self.inverse = nn.Parameter(torch.linalg.pinv(pattern))

    def forward(self, x):
        return x.flatten(1) @ self.inverse


def ideal(channels=1):
    """The autoencoder, and the pattern (d, c h w) with orthogonal rows that it draws by."""
    generator = torch.Generator().manual_seed(0)
    pattern = torch.linalg.qr(torch.randn(channels * SIDE * SIDE, D, generator=generator, dtype=torch.float64))[0].T.float()
    config = AutoencoderConfig(
        image_size=(SIDE, SIDE), channels=channels, z_dim=D, prediction="eps",
        unet=UNetConfig(base_channels=8, channel_mult=(1,), embed_channels=8),
        encoder=EncoderConfig(base_channels=8, channel_mult=(1,)),
    )  # fmt: skip
    unet = Draws(pattern)
    ae = DiffusionAutoencoder(config, encoder=Sees(pattern), unet=unet).eval()
    unet.schedule = ae.schedule
    return ae, pattern


def codes(n, seed=1):
    """z_sem of n images, of unequal variances, small enough for pixels within [-1, 1]."""
    scale = torch.tensor([0.8, 0.6, 0.5, 0.4, 0.3, 0.2])
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed)).clamp(-2, 2) * scale
