"""One training run: what is trained, on what, and how. Written, resolved, to RUN/config.json."""

from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from diffae.config.data import DataConfig
from diffae.config.ranges import InRange
from diffae.config.schema import AutoencoderConfig, ComparatorConfig, PriorConfig
from diffae.config.training import TrainingConfig

M = TypeVar("M")
Frozen = Literal["encoder", "decoder"]
OF_Z_SEM = ("z_sem_dropout", "encoder_shift", "whitened_start")
"""Settings of training that say nothing where no z_sem is learned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnyRunConfig(InRange, Generic[M]):
    """A run of whatever the configuration `model` defines."""

    preset: str = ""
    """The preset that this run began from, for the reader."""
    model: M
    """What is trained."""
    data: DataConfig = field(default_factory=DataConfig)
    """The images; of a prior, those whose codes it is trained on."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The training; that of a prior counts codes where others count images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartConfig(InRange):
    """Which weights a run begins with."""

    model: str | None = None
    """A trained model: a run, a saved folder, the hub's name of one, or the authors' `last.ckpt`. Every weight that fits is taken;
    None begins with random weights."""
    freeze: Frozen | None = None
    """Which of the two networks keeps the weights that it begins with."""
    fresh: tuple[str, ...] = ()
    """Weights that the trained model had none for. Filled in when the run begins."""
    digest: str | None = None
    """Of a distillation, which model its teacher is. Filled in when the run begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig(AnyRunConfig[AutoencoderConfig]):
    """A run of a diffusion autoencoder, or of the plain DDIM."""

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    """The autoencoder."""
    start: StartConfig = field(default_factory=StartConfig)
    """The weights that it begins with."""

    def __post_init__(self) -> None:
        InRange.__post_init__(self)
        if self.start.model is not None and self.training.whitened_start:
            raise ValueError(
                "training.whitened_start sets the encoder's last layer anew, and start.model begins with a trained one. Set one of "
                "the two."
            )
        if self.training.augment:
            self._check_augmented()
        if self.training.contrast:
            self._check_contrast()
        if self.model.z_dim is None:
            for name in OF_Z_SEM:
                if getattr(self.training, name):
                    raise ValueError(f"training.{name} is of z_sem and its encoder, and a plain DDIM has none: leave it away.")
        if self.model.unet.jumps and (self.start.model is None or self.start.freeze != "encoder"):
            raise ValueError(
                "model.unet.jumps is learned from a trained decoder, whose encoder stays: use `diffae distill MODEL`, or give "
                "start.model (--from MODEL) and start.freeze encoder."
            )
        if self.model.unet.jumps:
            for name in ("min_snr", "z_sem_dropout", "encoder_shift"):
                if getattr(self.training, name):
                    raise ValueError(
                        f"training.{name} is of learning from images, and model.unet.jumps from a teacher: leave it away."
                    )
        if self.start.freeze is not None and self.start.model is None:
            raise ValueError(
                f"start.freeze keeps the {self.start.freeze} as it begins, which is at random. Give start.model (--from MODEL) too."
            )

    def _check_contrast(self) -> None:
        """Refuses a contrastive loss where there is no encoder that it could train.

        Raises:
            ValueError: there is none.
        """
        told, learned = "training.contrast trains the encoder to see what views of an image share;", self.model.z_dim or 0
        if self.model.features.network is not None:
            learned = self.model.learned
        if learned < 2:
            raise ValueError(f"{told} here {learned} numbers of z_sem are learned, which have no directions: set it to 0.")
        if self.model.latents is not None:
            raise ValueError(f"{told} latents cannot be turned or lit: set it to 0.")
        if self.start.freeze == "encoder":
            raise ValueError(f"{told} start.freeze keeps that as it is: set one of the two.")

    def _check_augmented(self) -> None:
        """Refuses augmentation that the decoder would not be told of, and would take for what images look like.

        Raises:
            ValueError: it is such.
        """
        told = "training.augment changes images, of which z_sem tells the decoder; here"
        if self.model.z_dim is None:
            raise ValueError(f"{told} there is no z_sem.")
        if self.model.latents is not None:
            raise ValueError(f"{told} the images are latents, which cannot be turned or scaled.")
        if self.training.z_sem_dropout:
            raise ValueError(f"{told} training.z_sem_dropout takes it away. Set one of the two to 0.")
        if self.model.features.network is not None and not self.model.learned:
            raise ValueError(f"{told} z_sem is of a frozen network, which saw the images as they are. Give model.learned too.")


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorRunConfig(AnyRunConfig[PriorConfig]):
    """A run of a latent prior, beside the autoencoder whose codes it is of."""

    model: PriorConfig = field(default_factory=PriorConfig)
    """The latent DDIM."""

    def __post_init__(self) -> None:
        InRange.__post_init__(self)
        if self.training.augment:
            raise ValueError("training.augment changes images, and a prior is trained on codes: leave it at 0.")
        usual = TrainingConfig()
        for name in ("timesteps", "min_snr", "contrast", *OF_Z_SEM):
            if getattr(self.training, name) != getattr(usual, name):
                raise ValueError(f"training.{name} is of images and their encoder, and a prior is trained on codes: leave it away.")
        if self.model.schedule.zero_terminal_snr:
            raise ValueError("schedule.zero_terminal_snr needs prediction 'v', and a prior predicts eps: leave it away.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparatorRunConfig(AnyRunConfig[ComparatorConfig]):
    """A run of an autoencoder of another family."""

    model: ComparatorConfig = field(default_factory=ComparatorConfig)
    """The autoencoder of another family."""
