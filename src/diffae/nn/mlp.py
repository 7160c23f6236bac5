"""The network of the latent DDIM: an MLP whose hidden layers all see the input again."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffae.config import PriorConfig
from diffae.nn.layers import sinusoid


class SkipMLP(nn.Module):
    """MLP with skip connections from the input; predicts the noise in a standardised z_sem.

    From the second layer on the input is concat(h, z_t). A hidden layer is
    `SiLU(LayerNorm(Linear(x) (1 + Linear(SiLU(e_t)))))`; the last is a plain Linear.

    References:
        Preechakul et al. 2022, appendix A.1 and table 7.
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        d, width = config.z_dim, config.width
        self.time = nn.Sequential(nn.Linear(config.time_channels, d), nn.SiLU(), nn.Linear(d, d))
        inputs = [d] + [width + d] * (config.layers - 2)
        self.hidden = nn.ModuleList([_ModulatedLinear(n, width, d) for n in inputs])
        self.out = nn.Linear(width + d, d)

    def forward(self, z_t: Float[Tensor, "n d"], t: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The noise in z_t at timesteps t (0..T-1)."""
        e_t = F.silu(self.time(sinusoid(t, self.config.time_channels).to(z_t.dtype)))
        h = self.hidden[0](z_t, e_t)
        for layer in self.hidden[1:]:
            h = layer(torch.cat([h, z_t], dim=1), e_t)
        return self.out(torch.cat([h, z_t], dim=1))


class _ModulatedLinear(nn.Module):
    """Linear, scaled by the time, normalised, activated."""

    def __init__(self, n_in: int, n_out: int, t_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.time = nn.Linear(t_channels, n_out)
        self.norm = nn.LayerNorm(n_out)
        for linear in (self.linear, self.time):
            # A sketch has no numbers to draw, and PyTorch would load its compiler to draw none.
            if not linear.weight.is_meta:
                nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")

    def forward(self, x: Tensor, e_t: Tensor) -> Tensor:
        return F.silu(self.norm(self.linear(x) * (1 + self.time(e_t))))
