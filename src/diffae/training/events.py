"""What a training run tells while it goes on: one event for each thing that happened."""

from dataclasses import dataclass
from pathlib import Path

from diffae.config import AnyRunConfig
from diffae.training.health import Health
from diffae.training.loop import TrainingStep


@dataclass(frozen=True, slots=True)
class Started:
    """Training is about to begin, or to go on."""

    config: AnyRunConfig
    images: int


@dataclass(frozen=True, slots=True)
class Stepped:
    """One optimizer step was taken."""

    step: TrainingStep
    total: int | None


@dataclass(frozen=True, slots=True)
class Logged:
    """The loss was looked at, and written down."""

    images: int
    loss: float


@dataclass(frozen=True, slots=True)
class Noted:
    """Something was decided that a reader of the log may want to know."""

    text: str


@dataclass(frozen=True, slots=True)
class Validated:
    """The averaged weights were validated."""

    images: int
    health: Health


@dataclass(frozen=True, slots=True)
class Pictured:
    """A picture was written."""

    file: Path


@dataclass(frozen=True, slots=True)
class Finished:
    """The budget is used up, or the run was asked to stop and can go on later."""

    images: int
    interrupted: bool


Event = Started | Stepped | Logged | Noted | Validated | Pictured | Finished
