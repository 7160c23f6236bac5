"""Settings: frozen dataclasses with ranges, their strict JSON form, and named ones."""

from diffae import _moved
from diffae.config.data import Crop, DataConfig, Preparation
from diffae.config.protocols import Protocol
from diffae.config.ranges import Amount, Count, Counts, Range, Seed, Share, check_ranges, spelled
from diffae.config.runs import AnyRunConfig, ComparatorRunConfig, Frozen, PriorRunConfig, RunConfig, StartConfig
from diffae.config.schema import (
    AutoencoderConfig,
    ComparatorConfig,
    EncoderConfig,
    FeaturesConfig,
    Precision,
    Prediction,
    PriorConfig,
    ScheduleConfig,
    UNetConfig,
)
from diffae.config.strict import differences, from_dict, read_json, to_dict
from diffae.config.training import Compile, LearningRate, TimestepDraw, TrainingConfig

__all__ = [
    "Amount",
    "AnyRunConfig",
    "AutoencoderConfig",
    "ComparatorConfig",
    "ComparatorRunConfig",
    "Compile",
    "Count",
    "Counts",
    "Crop",
    "DataConfig",
    "EncoderConfig",
    "FeaturesConfig",
    "Frozen",
    "LearningRate",
    "Precision",
    "Prediction",
    "Preparation",
    "PriorConfig",
    "PriorRunConfig",
    "Protocol",
    "Range",
    "RunConfig",
    "ScheduleConfig",
    "Seed",
    "Share",
    "StartConfig",
    "TimestepDraw",
    "TrainingConfig",
    "UNetConfig",
    "check_ranges",
    "differences",
    "from_dict",
    "read_json",
    "spelled",
    "to_dict",
]

_moved.answer(__name__)
