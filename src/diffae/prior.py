"""The latent DDIM: a second diffusion, over standardised z_sem, which makes the autoencoder a generative model."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae import seeding
from diffae.config import PriorConfig
from diffae.nn.mlp import SkipMLP
from diffae.schedule import Schedule, decoding_path, draw_timesteps
from diffae.solvers import solve


class LatentPrior(nn.Module):
    """A DDIM over standardised z_sem, wholly in that space.

    References:
        Preechakul et al. 2022, section 4 (eq. 9: the L1 loss) and appendix A.1.
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = Schedule(config.schedule)
        self.net = SkipMLP(config)

    def loss(self, z: Float[Tensor, "n d"], seeds: Sequence[int]) -> Float[Tensor, ""]:
        """L1 between the noise and its prediction, at one timestep per code.

        Args:
            z: standardised codes.
            seeds: one per code; its draw of t and noise depends on nothing else.
        """
        t = draw_timesteps(seeding.uniform(seeds), self.schedule.T).to(z.device)
        eps = seeding.normal([seeding.mix(s, "eps") for s in seeds], z.shape[1:]).to(z)
        return (self.net(self.schedule.add_noise(z, eps, t), t.to(z)) - eps).abs().mean()

    @torch.no_grad()
    def sample(
        self, num: int, *, steps: int = 100, seed: int = 0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "num d"]:
        """Standardised codes drawn from the prior; code number i depends on the seed and i alone."""
        weight = self.net.out.weight
        z_T = seeding.normal(seeding.sample_seeds(num, generator or seed), (self.config.z_dim,)).to(weight)
        return solve(self.net, z_T, decoding_path(self.schedule, steps))
