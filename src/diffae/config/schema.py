"""What defines networks and their diffusion. Standard library only, like all settings."""

from dataclasses import dataclass
from typing import Annotated, Literal

from diffae.config.ranges import Count, Counts, InRange, Range, Share

Prediction = Literal["eps", "v"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig(InRange):
    """Noise schedule: T betas, from `beta_start` to `beta_end` in equal steps (Ho et al. 2020, section 4)."""

    T: Count = 1000
    """Number of training timesteps."""
    beta_start: Share = 1e-4
    """First beta."""
    beta_end: Share = 0.02
    """Last beta; equal to `beta_start` for the constant schedule of the latent prior."""
    zero_terminal_snr: bool = False
    """Whether the last level is noise alone, the others shifted and scaled accordingly (Lin et al. 2024); asks for v-prediction."""

    def __post_init__(self) -> None:
        InRange.__post_init__(self)
        if not (0 < self.beta_start < 1 and 0 < self.beta_end < 1):
            raise ValueError(
                f"schedule.beta_start and beta_end must lie between 0 and 1, got {self.beta_start} and {self.beta_end}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetConfig(InRange):
    """The noise-predicting network (Dhariwal & Nichol 2021; Preechakul et al. 2022, table 6)."""

    base_channels: Count = 128
    """Channels at full resolution, before `channel_mult`."""
    channel_mult: Counts = (1, 1, 2, 3, 4)
    """Multiplier of the channels at each level; each further level halves the resolution."""
    blocks_per_level: Count = 2
    """Residual blocks of each level on the way down; one more on the way up."""
    attention_resolutions: tuple[int, ...] = (16,)
    """Self-attention where the shorter image side, of a volume that of its slices, has been reduced to one of these sizes (and
    always in the middle)."""
    attention_heads: Count = 1
    """Heads of each self-attention."""
    embed_channels: Count = 512
    """Width of the time embedding."""
    dropout: Share = 0.1
    """Dropout before the second convolution of each residual block."""
    patch: Count = 1
    """Side of the blocks of pixels that are taken together as channels before the first convolution, and apart after the last: 2
    for large volumes, at a fraction of the cost (Hoogeboom et al. 2023, *simple diffusion*, section 2.3)."""
    jumps: bool = False
    """Whether the network is also told to which timestep a step leads, so that one step can go far (a flow map, Boffi et al. 2024).
    `diffae distill` makes such a network of a trained one."""
    evened: bool = False
    """Whether z_sem comes in coordinates in which its directions vary more alike than in training, for whoever reads it
    (`docs/design/evening.md`). The network turns them back."""

    def __post_init__(self) -> None:
        InRange.__post_init__(self)
        if self.dropout == 1:
            raise ValueError("unet.dropout 1 would leave nothing of what a block computes: give less, such as 0.1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig(InRange):
    """The semantic encoder, image -> z_sem (Preechakul et al. 2022, section 3.2)."""

    base_channels: Count = 128
    """Channels at full resolution, before `channel_mult`."""
    channel_mult: Counts = (1, 1, 2, 3, 4, 4)
    """Multiplier of the channels at each level; each further level halves the resolution."""
    blocks_per_level: Count = 2
    """Residual blocks of each level."""
    attention_resolutions: tuple[int, ...] = (16,)
    """Self-attention where the shorter image side, of a volume that of its slices, has been reduced to one of these sizes (and
    always in the middle)."""
    attention_heads: Count = 1
    """Heads of each self-attention."""
    patch: Count = 1
    """Side of the blocks of pixels that are taken together as channels before the first convolution: 2 for
    large volumes, at a fraction of the cost (Hoogeboom et al. 2023, *simple diffusion*, section 2.3)."""
    pooled_size: Count = 1
    """Side of the grid of cells over which features are averaged before the linear map: 1 is global average pooling (the
    paper); more keeps where things are, for aligned images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeaturesConfig(InRange):
    """A frozen network whose features z_sem is made of, and how it sees images."""

    network: str | None = None
    """`inception` (that of FID), `timm:NAME`, `transformers:NAME`, a file of TorchScript or ONNX, or a function of images,
    `module:function`. None leaves z_sem to the encoder alone."""
    size: Annotated[int | None, Range(1)] = None
    """Side to which images are resized for it; None is its own, and for functions and files of no fixed size that of the images."""
    mean: tuple[float, ...] = ()
    """Of each channel on the [0, 1] scale, what it sees as 0; by default its own, or 0.5 where it has none."""
    std: tuple[float, ...] = ()
    """Likewise, the standard deviation that it is divided by."""
    width: Annotated[int, Range(0)] = 0
    """Number of its features. Filled in when the run begins, as is what follows."""
    digest: str = ""
    """Identifies its weights."""
    licence: str = ""
    """Of its weights, where it is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderConfig(InRange):
    """Everything that defines a diffusion autoencoder's networks and its diffusion."""

    image_size: Counts = (128, 128)
    """Height and width in pixels, or depth, height and width of volumes in voxels. What both networks halve at each level has to be
    divisible so often: all sides of images; of volumes those longer than half of the longest."""
    channels: Count = 3
    """Image channels: 1 grey, 3 colour, or any other number."""
    latents: str | None = None
    """The frozen autoencoder whose latents take the place of images: `data.latents`, for whoever loads the model."""
    z_dim: Annotated[int | None, Range(1)] = 512
    """Dimension d of z_sem; None for the plain DDIM, which has no z_sem and no encoder."""
    prediction: Prediction = "eps"
    """What the network predicts: `eps` as in the paper, or `v = alpha eps - sigma x_0` (Salimans & Ho 2022)."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Noise schedule of the images."""
    unet: UNetConfig = UNetConfig()
    """The decoder's network."""
    encoder: EncoderConfig = EncoderConfig()
    """The semantic encoder."""
    mean_decoder: bool = False
    """Whether a network of its own, the encoder in a mirror, makes the mean image of z_sem in one small call, trained beside the
    decoder by squared error, which is part of the loss then (`docs/design/mean.md`). The paper's models have none."""
    features: FeaturesConfig = FeaturesConfig()
    """A frozen network whose features z_sem is made of, in place of the encoder or beside it."""
    learned: Annotated[int, Range(0)] = 0
    """Where there is a frozen network, how many of the z_dim values the encoder learns, for what that network does not see."""

    def __post_init__(self) -> None:
        InRange.__post_init__(self)
        if len(self.image_size) not in (2, 3):
            raise ValueError(f"image_size is height and width, or depth, height and width, got {self.image_size!r}.")
        if len(self.image_size) == 3 and (self.latents or self.features.network):
            raise ValueError("Frozen networks (model.latents, model.features) see two sides, and this model is of volumes.")
        if self.z_dim is None and self.mean_decoder:
            raise ValueError("model.mean_decoder decodes z_sem, and a plain DDIM (z_dim None) has none: leave one away.")
        if self.features.network is None and self.learned:
            raise ValueError(f"model.learned ({self.learned}) is what the encoder adds to model.features.network: name one.")
        if self.features.network is not None:
            if self.latents is not None:
                raise ValueError("A frozen network (model.features) sees pixels, and this model is one of latents. Leave one away.")
            if self.z_dim is None or self.learned >= self.z_dim:
                raise ValueError(
                    f"model.learned ({self.learned}) leaves none of z_dim ({self.z_dim}) values for {self.features.network}."
                )
        if self.schedule.zero_terminal_snr and self.prediction != "v":
            raise ValueError(
                "schedule.zero_terminal_snr needs prediction 'v': in noise alone, eps says nothing of an image. Set both or none."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorConfig(InRange):
    """The latent DDIM over standardised z_sem (Preechakul et al. 2022, section 4 and appendix A.1)."""

    z_dim: Count = 512
    """Dimension d of z_sem."""
    width: Count = 2048
    """Width of the hidden layers."""
    layers: Count = 10
    """Number of layers; 10 for FFHQ and CelebA, 20 for Horse and Bedroom in the paper."""
    time_channels: Count = 64
    """Dimension of the sinusoidal time embedding."""
    gaussian_start: bool = False
    """Whether the network adds to the denoiser of the codes' Gaussian, rather than learning all by itself; the paper's do not."""
    schedule: ScheduleConfig = ScheduleConfig(beta_start=0.008, beta_end=0.008)
    """Noise schedule of the latents: constant beta."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparatorConfig(InRange):
    """An autoencoder of another family, to compare with: the VAE of latent diffusion, or a VQ-VAE."""

    kind: Literal["vae", "vq"] = "vae"
    """`vae` is diffusers' AutoencoderKL (Rombach et al. 2022), `vq` its VQModel (van den Oord et al. 2017)."""
    image_size: Annotated[tuple[int, int], Range(1)] = (32, 32)
    """Height and width in pixels; each must be divisible by 2 ** halvings."""
    channels: Count = 3
    """Image channels."""
    latent_channels: Count = 8
    """Channels of the latent grid."""
    halvings: Count = 2
    """How often the grid is halved: its sides are those of the image, divided by 2 ** halvings."""
    base_channels: Count = 32
    """Channels at full resolution; each halving doubles them."""
    codebook: Count = 512
    """Entries of the codebook of `vq`."""
    kl_weight: Annotated[float, Range(0)] = 1e-6
    """Weight of the Kullback-Leibler divergence of `vae`, summed over the latents, beside the mean squared error."""
