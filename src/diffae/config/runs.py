"""One training run: what is trained, on what, and how. Written, resolved, to RUN/config.json."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from diffae.config.data import DataConfig
from diffae.config.ranges import InRange
from diffae.config.schema import AutoencoderConfig, ComparatorConfig, PriorConfig
from diffae.config.training import TrainingConfig

M = TypeVar("M")


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
class RunConfig(AnyRunConfig[AutoencoderConfig]):
    """A run of a diffusion autoencoder, or of the plain DDIM."""

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    """The autoencoder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorRunConfig(AnyRunConfig[PriorConfig]):
    """A run of a latent prior, beside the autoencoder whose codes it is of."""

    model: PriorConfig = field(default_factory=PriorConfig)
    """The latent DDIM."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparatorRunConfig(AnyRunConfig[ComparatorConfig]):
    """A run of an autoencoder of another family."""

    model: ComparatorConfig = field(default_factory=ComparatorConfig)
    """The autoencoder of another family."""
