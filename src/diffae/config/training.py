"""How a model is trained."""

from dataclasses import dataclass
from typing import Annotated, Literal

from diffae.config.ranges import Amount, Count, InRange, Range, Seed, Share
from diffae.config.schema import Precision

TimestepDraw = Literal["uniform", "noisy"]
Views = Literal["moment", "direction"]
LearningRate = Literal["constant", "cosine"]
Compile = Literal["default", "reduce-overhead", "max-autotune"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig(InRange):
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
    timesteps: TimestepDraw = "uniform"
    """t uniform over 0..T-1 (the paper), or `noisy`: t = T sqrt(u), which trains z_sem more."""
    min_snr: Annotated[float | None, Range(0)] = None
    """gamma of min-SNR weighting (Hang et al. 2023, with 5): no timestep's error in x_0 counts more than gamma times. None counts
    the errors of what the network predicts alike, as the paper."""
    z_sem_dropout: Share = 0.0
    """Share of the images whose decoder sees zeros in place of z_sem."""
    encoder_shift: Share = 0.0
    """The encoder sees each image moved by up to this share of its sides; the decoder denoises the image itself."""
    augment: Share = 0.0
    """Probability of each of rotation, scaling, stretching and shift, for small sets (Karras et al. 2022, appendix F.2: 0.12). The
    encoder sees the image as it was changed, so that z_sem tells the decoder of it, and none of it leaks into other images."""
    contrast: Amount = 0.0
    """Weight of a contrastive loss of z_sem: an image and another view of it (`views`) are to have codes more alike than those of
    the batch's others (Chen et al. 2020). With 0.03 z_sem tells kinds better, and less of detail, and of what differs between
    views; a step takes a pass of the encoder more. Logged training losses hold it,
    held-out ones do not. The batch has to be in one piece: no accumulation, one process."""
    views: Views = "moment"
    """What the contrastive loss takes for the same: an image a `moment` later, turned a little, scaled, moved, lit otherwise, so
    not for measurements; or from another `direction`, turned by any angle and mirrored, which leaves size, light and colour to be
    told: for measurements of what has no upside, such as galaxies, cells or grains."""
    whitened_start: bool = False
    """Whether z_sem starts whitened over the first images (`SemanticEncoder.whiten`), which trains it many times sooner; the
    paper's models do not."""
    precision: Precision = "auto"
    """Arithmetic of the networks; `auto` is bfloat16 where the processor or card is quick at it, and is resolved in config.json."""
    seed: Seed = 0
    """Seed of initial weights, order of images, timesteps, noise, flips and dropout."""
    tracker: tuple[str, ...] = ()
    """Trackers that are sent metrics and pictures beside the run's own TensorBoard: `wandb`, `mlflow`, `trackio`, or another that
    accelerate knows. Their packages are installed, and logged in to, by you."""
    log_every: Count = 2_000
    """Images between two lines of metrics."""
    validate_every: Count = 20_000
    """Images between two validations, which also check whether z_sem is used and has not collapsed."""
    patience: Annotated[int | None, Range(1)] = None
    """Images without a lower held-out loss after which the run ends; its model is that of the lowest one. Validations are
    `validate_every` images apart. None trains to the end of the budget, and keeps the last."""
    sample_every: Count = 20_000
    """Images between two pictures of fixed images and a fixed x_T."""
    checkpoint_every: Count = 20_000
    """Images between two checkpoints."""
    validation_images: Count = 512
    """Largest number of held-out images that a validation looks at."""

    def __post_init__(self) -> None:
        InRange.__post_init__(self)
        if not self.gradient_clip:
            raise ValueError(
                "training.gradient_clip 0 would let no step move anything. To clip nothing give a large one, such as 1e9."
            )
        if self.min_snr == 0:
            raise ValueError("training.min_snr 0 would let no error count. Give another, such as 5, or leave it away.")
        if self.ema_decay == 1:
            raise ValueError(
                "training.ema_decay 1 would leave the averaged weights, which are used afterwards, as they began: give .9999, say."
            )
        if self.views != "moment" and not self.contrast:
            raise ValueError(
                f"training.views {self.views} says what training.contrast takes for the same, and that is 0: set it, to 0.03 say."
            )
        if self.contrast and self.accumulation != 1:
            raise ValueError(
                f"training.contrast compares the images of a batch, which training.accumulation {self.accumulation} would divide: "
                "leave the latter away, or set the former to 0."
            )
