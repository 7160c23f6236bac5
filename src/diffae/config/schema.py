"""Frozen, nested configurations and their strict JSON form.

Every configuration of the project is a frozen dataclass: what a run was is what its `config.json` says (`strict`). A value out of
its range is an error wherever it comes from. Standard library only.
"""

import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

Prediction = Literal["eps", "v"]
Spacing = Literal["uniform", "noisy"]
LearningRate = Literal["constant", "cosine"]
Precision = Literal["auto", "float32", "bfloat16"]
Compile = Literal["default", "reduce-overhead", "max-autotune"]
Crop = Literal["center", "none", "celeba"]


class Range(NamedTuple):
    """Smallest and largest value that a setting may have."""

    least: float
    most: float = float("inf")


Count = Annotated[int, Range(1)]
Counts = Annotated[tuple[int, ...], Range(1)]
Share = Annotated[float, Range(0, 1)]
Seed = Annotated[int, Range(-(2**63), 2**63 - 1)]
Amount = Annotated[float, Range(0)]


def check_ranges(settings: object, named: Callable[[str], str] = str) -> None:
    """Refuses values outside of the range that their annotation names, not a number among them.

    Args:
        settings: an object of a dataclass.
        named: what a field is called in the message.

    Raises:
        ValueError: such a value.
    """
    for name, kind in typing.get_type_hints(type(settings), include_extras=True).items():
        value = getattr(settings, name)
        values = value if isinstance(value, tuple) else [value] if isinstance(value, int | float) else []
        for allowed in (m for m in getattr(kind, "__metadata__", ()) if isinstance(m, Range)):
            if value == () or not all(allowed.least <= v <= allowed.most for v in values):
                most = f" and at most {allowed.most:g}" if allowed.most < float("inf") else ""
                raise ValueError(f"{named(name)} must be at least {allowed.least:g}{most}, got {value!r}.")


class _InRange:
    """Refuses values outside of the range that their annotation names."""

    __slots__ = ()

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig(_InRange):
    """Noise schedule: T betas, from `beta_start` to `beta_end` in equal steps (Ho et al. 2020, section 4)."""

    T: Count = 1000
    """Number of training timesteps."""
    beta_start: Share = 1e-4
    """First beta."""
    beta_end: Share = 0.02
    """Last beta; equal to `beta_start` for the constant schedule of the latent prior."""
    zero_terminal_snr: bool = False
    """Whether the last level is noise alone, the others shifted and scaled accordingly (Lin et al. 2024); asks for v-prediction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetConfig(_InRange):
    """The noise-predicting network (Dhariwal & Nichol 2021; Preechakul et al. 2022, table 6)."""

    base_channels: Count = 128
    """Channels at full resolution, before `channel_mult`."""
    channel_mult: Counts = (1, 1, 2, 3, 4)
    """Multiplier of the channels at each level; each further level halves the resolution."""
    blocks_per_level: Count = 2
    """Residual blocks of each level on the way down; one more on the way up."""
    attention_resolutions: tuple[int, ...] = (16,)
    """Self-attention where the shorter image side has been reduced to one of these sizes (and always in the middle)."""
    attention_heads: Count = 1
    """Heads of each self-attention."""
    embed_channels: Count = 512
    """Width of the time embedding."""
    dropout: Share = 0.1
    """Dropout before the second convolution of each residual block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig(_InRange):
    """The semantic encoder, image -> z_sem (Preechakul et al. 2022, section 3.2)."""

    base_channels: Count = 128
    """Channels at full resolution, before `channel_mult`."""
    channel_mult: Counts = (1, 1, 2, 3, 4, 4)
    """Multiplier of the channels at each level; each further level halves the resolution."""
    blocks_per_level: Count = 2
    """Residual blocks of each level."""
    attention_resolutions: tuple[int, ...] = (16,)
    """Self-attention where the shorter image side has been reduced to one of these sizes (and always in the middle)."""
    attention_heads: Count = 1
    """Heads of each self-attention."""
    pooled_size: Count = 1
    """Side of the grid of cells over which features are averaged before the linear map: 1 is global average pooling (the
    paper); more keeps where things are, for aligned images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderConfig(_InRange):
    """Everything that defines a diffusion autoencoder's networks and its diffusion."""

    image_size: Annotated[tuple[int, int], Range(1)] = (128, 128)
    """Height and width in pixels; each must be divisible by 2 ** (levels - 1) of both networks."""
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

    def __post_init__(self) -> None:
        _InRange.__post_init__(self)
        if self.schedule.zero_terminal_snr and self.prediction != "v":
            raise ValueError(
                "schedule.zero_terminal_snr needs prediction 'v': in noise alone, eps says nothing of an image. Set both or none."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorConfig(_InRange):
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
class Preparation(_InRange):
    """How an image file becomes what a model sees, in training and ever after: a model carries it."""

    crop: Crop = "center"
    """Named crop before resizing."""
    background: Annotated[tuple[int, int, int], Range(0, 255)] = (255, 255, 255)
    """Colour, 0..255, on which transparent images are composited."""
    range: tuple[float, float] | None = None
    """The pixel values that become -1 and 1, of images that have more than 8 bits; None is 0 and 65535."""

    def __post_init__(self) -> None:
        _InRange.__post_init__(self)
        if self.range is not None and not -float("inf") < self.range[0] < self.range[1] < float("inf"):
            raise ValueError(f"range must be two numbers, the smaller first, got {self.range!r}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig(_InRange):
    """How image files become tensors, and which are held out."""

    source: str = ""
    """A folder, zip or tar of images, a folder of tars (WebDataset), Parquet or Arrow files (Hugging Face `datasets`), an LMDB (the
    authors', LSUN's), hf://datasets/USER/NAME, `avatars`, or `avatars-unseen`: of parts that the first never have."""
    labels: str | None = None
    """A label table (CSV or Parquet) with a `file` column, or annotations in CelebA's format (.txt); None looks for `labels.csv`
    beside the images."""
    labels_kind: tuple[str, ...] = ()
    """What columns of labels are taken for, NAME=KIND each: `binary` (1 yes, 0 no, -1 unknown), `signed` (1 yes, -1 no, 0 unknown)
    or `continuous` (numbers). KIND alone is for every column where -1 could be either. Empty cells are unknown always."""
    crop: Crop = "center"
    """Named crop before resizing: the largest centred box of the target's shape, none, or a data set's own."""
    flip: bool = True
    """Horizontal flips while training, each with probability one half."""
    validation: Share = 0.05
    """Share of images held out, chosen by a hash of the path (or of the `group` column of the label table)."""
    background: Annotated[tuple[int, int, int], Range(0, 255)] = (255, 255, 255)
    """Colour, 0..255, on which transparent images are composited."""
    range: tuple[float, float] | None = None
    """The pixel values that become -1 and 1, of images that have more than 8 bits (such as -1024 3071 of a CT, 0 4095 of 12 bits in
    16); None is 0 and 65535. Values beyond are clipped, as by the window of a viewer."""
    avatars: Count = 6000
    """Number of avatars to render, where the source is `avatars`."""
    latents: str | None = None
    """Train on the latents of this frozen AutoencoderKL or AutoencoderDC of diffusers (a folder, or the hub's name), for large
    images; model.image_size and model.channels are then those of the latents."""

    def __post_init__(self) -> None:
        _InRange.__post_init__(self)
        _ = self.preparation  # Looks at the range.

    @property
    def preparation(self) -> Preparation:
        """What a model that is trained on these images has to do with others."""
        return Preparation(crop=self.crop, background=self.background, range=self.range)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig(_InRange):
    """How a model is trained. Progress is counted in images, so that a run is a function of images alone."""

    images: Annotated[int | None, Range(1)] = None
    """Budget in images seen, total over resumes. Filled in once from `minutes` where only that is given."""
    minutes: Annotated[float | None, Range(0)] = None
    """Budget in minutes, turned into images from the rate of the first minute."""
    batch_size: Count = 128
    """Global batch size: over all processes and accumulation steps."""
    accumulation: Annotated[int | Literal["auto"], Range(1)] = 1
    """Number of micro-batches that make one batch; `auto` takes the fewest for which a card has room, before the first step."""
    recompute: bool = False
    """Whether each stage's activations are computed again for its gradient rather than kept: less memory, a third more time."""
    compile: Compile | None = None
    """Compiles the networks, with this mode of torch.compile (`reduce-overhead` uses CUDA graphs): fewer and larger kernels on a
    GPU, after a minute or more of compiling. On two processor cores nothing is gained. See `diffae bench network --compile`."""
    graphs: bool = True
    """Whether a card may record the whole step and replay it (CUDA graph), which it does where the host is what it waits for."""
    sharded: bool = False
    """Whether weights, average and optimizer are divided over processes (FSDP2) rather than kept whole by each: for models that one
    device does not hold with them. Checkpoints are then folders, which any number of processes can go on from."""
    learning_rate: Amount = 1e-4
    """Peak learning rate of Adam."""
    learning_rate_schedule: LearningRate = "constant"
    """Constant, or held and then lowered to zero along a half cosine that ends with the budget."""
    encoder_rate: Amount = 1.0
    """Learning rate of the semantic encoder, relative to that of the decoder."""
    warmup_images: Annotated[int, Range(0)] = 0
    """Images over which the learning rate rises linearly from 0."""
    weight_decay: Amount = 0.0
    """Decoupled weight decay (AdamW); 0 is Adam."""
    adam_betas: Annotated[tuple[float, float], Range(0, 1)] = (0.9, 0.999)
    """Decay rates of Adam's two moments."""
    muon_rate: Annotated[float | None, Range(0)] = None
    """Learning rate of hidden layers' matrices by Muon, relative to Adam's of the rest; None trains all by Adam, as the paper."""
    gradient_clip: Amount = 1.0
    """Largest global gradient norm."""
    ema_decay: Share = 0.9999
    """Decay, per optimizer step, of the moving average of the weights that is used everywhere after training."""
    average_every: Annotated[int | None, Range(1)] = None
    """Images between two snapshots of two further averages, from which `diffae average` makes that of any length after training
    (Karras et al. 2024); twice the weights each, in RUN/averages. None keeps none."""
    timesteps: Spacing = "uniform"
    """t uniform over 0..T-1 (the paper), or `noisy`: t = T sqrt(u), which trains z_sem more."""
    min_snr: Annotated[float | None, Range(0)] = None
    """gamma of min-SNR weighting (Hang et al. 2023, with 5): no timestep's error in x_0 counts more than gamma times. None counts
    the errors of what the network predicts alike, as the paper."""
    z_sem_dropout: Share = 0.0
    """Share of the images whose decoder sees zeros in place of z_sem."""
    encoder_shift: Share = 0.0
    """The encoder sees each image moved by up to this share of its sides; the decoder denoises the image itself."""
    whitened_start: bool = False
    """Whether z_sem starts whitened over the first images (`SemanticEncoder.whiten`), which trains it many times sooner; the
    paper's models do not."""
    precision: Precision = "auto"
    """Arithmetic of the networks; `auto` is bfloat16 where the processor computes in it, and is resolved in config.json."""
    seed: Seed = 0
    """Seed of initial weights, order of images, timesteps, noise, flips and dropout."""
    log_every: Count = 2_000
    """Images between two lines of metrics."""
    validate_every: Count = 20_000
    """Images between two validations, which also check whether z_sem is used and has not collapsed."""
    sample_every: Count = 20_000
    """Images between two pictures of fixed images and a fixed x_T."""
    checkpoint_every: Count = 20_000
    """Images between two checkpoints."""
    validation_images: Count = 512
    """Largest number of held-out images that a validation looks at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig(_InRange):
    """One training run: what is trained, on what, and how. Written, resolved, to RUN/config.json."""

    preset: str = ""
    """The preset that this run began from, for the reader."""
    model: AutoencoderConfig = AutoencoderConfig()
    """The autoencoder."""
    data: DataConfig = DataConfig()
    """The images."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorRunConfig(_InRange):
    """One training run of a latent prior, beside the autoencoder whose codes it is of."""

    preset: str = ""
    """The preset that this run began from, for the reader."""
    model: PriorConfig = PriorConfig()
    """The latent DDIM."""
    data: DataConfig = DataConfig()
    """The images whose codes it is trained on."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The training; it counts codes where others count images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparatorConfig(_InRange):
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparatorRunConfig(_InRange):
    """One training run of an autoencoder of another family."""

    preset: str = ""
    """The preset that this run began from, for the reader."""
    model: ComparatorConfig = ComparatorConfig()
    """The autoencoder."""
    data: DataConfig = DataConfig()
    """The images."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol(_InRange):
    """How images are read and split for an evaluation, and how many of them are measured."""

    suite: tuple[str, ...] = ("all",)
    """Which tables and figures."""
    crop: Crop | None = None
    """Crop of the images; None takes the training run's, or the centre."""
    validation: Share | None = None
    """Share held out from the classifiers; None takes the training run's, or 0.05."""
    unseen: bool = False
    """Whether the model was trained on none of these images, so that all of them can be tested on."""
    num: Count = 500
    """Images of everything but FID and KID."""
    num_inception: Count = 200
    """Images of FID and KID."""
    num_real: Count = 400
    """Real images of a class that few-shot samples are compared with, at most."""
    steps: tuple[int, ...] = (10, 20, 50, 100)
    """Network calls of the decoder, T."""
    generation_steps: tuple[int, ...] = (10, 100)
    """The same for samples."""
    attributes: tuple[str, ...] = ()
    """Attributes that are sampled (`not NAME`: their absence) and edited; none for the two known best."""
    faces: bool = False
    """Whether the images are of faces, so that a face network says how much of the person an edit keeps."""
