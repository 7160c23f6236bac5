"""The UNet that predicts the noise in x_t, conditioned on t and, where it has one, z_sem."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffae.config import UNetConfig
from diffae.nn.evening import Unevened
from diffae.nn.layers import Conditions, Resample, ResBlock, SelfAttention, Stage, sinusoid, zero_init
from diffae.nn.normalisation import FusedMaps, Modulation, NormSiLU, fuse_maps, modulations
from diffae.nn.resampling import patched, unpatched
from diffae.nn.space import Levels, Sides, channels_last, convolution, layered
from diffae.runtime.seeding import Draws


class UNet(nn.Module):
    """The ADM UNet with AdaGN on time and z_sem; without z_sem (`z_dim=None`) it is the plain DDIM baseline.

    Args:
        config: widths and depths.
        image_size: height and width, or depth, height and width; decides where attention goes, what sizes are refused, and which
            sides of a volume are halved.
        channels: image channels.
        z_dim: dimension of z_sem, or None.

    Attributes:
        joins: whether the modulations of all blocks are computed at once. Not where weights are divided over processes.
        fused_maps: the linear maps of all blocks as one, if they were computed for several calls.

    Raises:
        ValueError: a size or width that the network cannot have.

    References:
        Dhariwal & Nichol 2021; Preechakul et al. 2022, section 3.1 and appendix A.
    """

    joins = True
    fused_maps: FusedMaps | None = None

    def __init__(self, config: UNetConfig, *, image_size: Sides, channels: int, z_dim: int | None) -> None:
        super().__init__()
        self.config = config
        self.z_dim = z_dim
        base, embed = config.base_channels, config.embed_channels
        widths, sides, by = Levels.of("unet", image_size, config)
        rank = len(image_size)

        def block(c_in: int, c_out: int, level: int, resample: Resample = "none") -> ResBlock:
            return ResBlock(c_in, c_out, resample=resample, by=by[level], t_channels=embed, z_dim=z_dim, dropout=config.dropout)

        def attention(c: int, level: int) -> SelfAttention | None:
            attends = min(sides[level][-2:]) in config.attention_resolutions
            return SelfAttention(c, config.attention_heads, rank) if attends else None

        self.time = nn.Sequential(nn.Linear(base, embed), nn.SiLU(), nn.Linear(embed, embed))
        self.towards = towards(base, embed) if config.jumps else None
        self.unevened = Unevened(z_dim) if config.evened and z_dim is not None else None
        self.conv_in = convolution(rank, channels * config.patch**rank, widths[0])
        self.down = nn.ModuleList()
        c, skips = widths[0], [widths[0]]
        for level, width in enumerate(widths):
            if level > 0:
                self.down.append(Stage(block(c, c, level, "down")))
                skips.append(c)
            for _ in range(config.blocks_per_level):
                self.down.append(Stage(block(c, width, level), attention(width, level)))
                c = width
                skips.append(c)
        middle = SelfAttention(c, config.attention_heads, rank)
        self.middle = nn.ModuleList([Stage(block(c, c, 0), middle), Stage(block(c, c, 0))])
        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for i in range(config.blocks_per_level + 1):
                last = level > 0 and i == config.blocks_per_level
                upsample = block(width, width, level, "up") if last else None
                self.up.append(Stage(block(c + skips.pop(), width, level), attention(width, level), upsample))
                c = width
        for index, module in enumerate(m for m in self.modules() if isinstance(m, ResBlock)):
            module.index = index
        self.norm = NormSiLU(c)
        self.conv_out = zero_init(convolution(rank, c, channels * config.patch**rank))
        channels_last(self, rank)

    def forward(
        self,
        x_t: Float[Tensor, "n c *sides"],
        t: Float[Tensor, " n"],
        *,
        z_sem: Float[Tensor, "n d"] | None = None,
        draws: Draws | None = None,
        to: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n c *sides"]:
        """What the network predicts (eps or v) for noisy images.

        Args:
            x_t: noisy images.
            t: timesteps 0..T-1, which need not be integers.
            z_sem: semantic codes; required where the network has `z_dim`, refused where it has none.
            draws: of the images, for dropout in training; by default new ones at each call.
            to: timesteps to which a DDIM step with this prediction is to lead, -1 the image itself; only of a network that `jumps`.
                By default t: the prediction at this very level, as without it.
        """
        if (z_sem is None) != (self.z_dim is None):
            raise ValueError(
                "This UNet is conditioned on z_sem: pass z_sem=ae.encode(x)."
                if z_sem is None
                else "This UNet is unconditional (z_dim=None): it takes no z_sem."
            )
        at = sinusoid(t, self.config.base_channels)
        e_t = self.time(at.to(x_t.dtype))
        if to is not None:
            if self.towards is None:
                raise ValueError("This UNet does not jump (unet.jumps is False), so it cannot be told where to. Distil it.")
            e_t = e_t + self.towards((sinusoid(to, self.config.base_channels) - at).to(x_t.dtype))
        e_t = F.silu(e_t)
        z = None if z_sem is None else F.silu(z_sem if self.unevened is None else self.unevened(z_sem))
        if self.config.dropout and self.training and draws is None:
            draws = Draws.of(len(x_t), torch.default_generator, device=x_t.device)
        conditions = Conditions(e_t, z, draws if self.training else None)
        modulated = self._modulations(conditions)
        # The layout of the weights implies it, except where they are sharded and have the layout that FSDP wants.
        h = self.conv_in(layered(patched(x_t, self.config.patch)))
        skips = [h]
        for stage in self.down:
            h = stage(h, conditions, next(modulated))
            skips.append(h)
        for stage in self.middle:
            h = stage(h, conditions, next(modulated))
        for stage in self.up:
            h = stage(torch.cat([h, skips.pop()], dim=1), conditions, next(modulated))
        return unpatched(self.conv_out(self.norm(h)), self.config.patch)

    def fuse_maps(self) -> FusedMaps:
        """The linear maps of time and semantics of all blocks as one, for `fused_maps`."""
        return fuse_maps([layer for stage in self._stages() for layer in stage.adaptive])

    def _modulations(self, conditions: Conditions) -> Iterator[list[Modulation] | None]:
        """The modulations of each stage, or None where a stage is to compute its own."""
        stages = self._stages()
        if not self.joins:
            return iter([None] * len(stages))
        layers = [layer for stage in stages for layer in stage.adaptive]
        each = iter(modulations(layers, conditions.t, conditions.z_sem, self.fused_maps))
        return iter([[next(each) for _ in stage.adaptive] for stage in stages])

    def _stages(self) -> list[Stage]:
        return [*self.down, *self.middle, *self.up]


def towards(base: int, embed: int) -> nn.Sequential:
    """What is added to the time embedding for where a step leads, of the difference between both sinusoids. Without biases, so that
    a step to where it starts adds nothing, whatever was learned; zero at first."""
    layers = nn.Sequential(nn.Linear(base, embed, bias=False), nn.SiLU(), nn.Linear(embed, embed, bias=False))
    nn.init.zeros_(layers[2].weight)  # type: ignore[arg-type]
    return layers
