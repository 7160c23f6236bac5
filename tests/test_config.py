"""Configurations: strict, complete, and the same after a round trip."""

import dataclasses
import inspect
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffae import config as config_module
from diffae.config import (
    AutoencoderConfig,
    DataConfig,
    PriorConfig,
    PriorRunConfig,
    RunConfig,
    ScheduleConfig,
    TrainingConfig,
    differences,
    from_dict,
    read_json,
    to_dict,
)
from diffae.config.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name):
    once = preset(name)
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(once)))) == once
    assert once.preset == name


@given(st.floats(1e-6, 1, allow_nan=False), st.integers(1, 10**9), st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_any_values_survive_json(rate, images, mult):
    unet = config_module.UNetConfig(channel_mult=tuple(mult))
    once = RunConfig(model=AutoencoderConfig(unet=unet), training=TrainingConfig(learning_rate=rate, images=images))
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(once)))) == once


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": {"unet": {"dropuot": 0.1}}}, ValueError, r"Unknown setting 'model.unet.dropuot'. Known here: attention_heads"),
        ({"training": {"batch_size": "big"}}, TypeError, "training.batch_size must be int, got 'big'"),
        ({"training": {"batch_size": True}}, TypeError, "training.batch_size must be int, got True"),
        ({"training": {"images": 1.5}}, TypeError, "training.images must be int or null, got 1.5"),
        ({"model": {"prediction": "x"}}, TypeError, "model.prediction must be one of 'eps', 'v', got 'x'"),
        (
            {"model": {"image_size": [64]}},
            ValueError,
            r"image_size is height and width, or depth, height and width, got \(64,\)",
        ),
        ({"model": {"image_size": [64, "64"]}}, TypeError, r"model.image_size\[1\] must be int, got '64'"),
        ({"model": {"z_dim": 0}}, ValueError, "^model.z_dim must be at least 1, got 0"),
        ({"model": {"unet": {"channel_mult": [1, 0]}}}, ValueError, r"model.unet.channel_mult must be at least 1, got \(1, 0\)"),
        ({"model": {"encoder": {"channel_mult": []}}}, ValueError, r"model.encoder.channel_mult must be at least 1, got \(\)"),
        ({"training": {"ema_decay": 1.1}}, ValueError, "training.ema_decay must be at least 0 and at most 1, got 1.1"),
        ({"training": {"learning_rate": float("nan")}}, ValueError, "training.learning_rate must be at least 0, got nan"),
        ({"model": 3}, TypeError, "model must be an object of settings, got 3"),
    ],
)
def test_a_wrong_setting_is_named_by_its_path(change, error, message):
    with pytest.raises(error, match=message):
        from_dict(RunConfig, change)


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{cut sho")
    with pytest.raises(ValueError, match="config.json is not valid JSON"):
        read_json(RunConfig, tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"speed": 1}')
    with pytest.raises(ValueError, match="config.json: Unknown setting 'speed'"):
        read_json(RunConfig, tmp_path / "config.json")


def test_differences_are_found_by_path():
    a = RunConfig()
    b = dataclasses.replace(a, data=DataConfig(flip=False), training=TrainingConfig(batch_size=2))
    assert differences(a, b) == {"data.flip": (True, False), "training.batch_size": (128, 2)}
    assert differences(a, a) == {}


def test_every_configuration_is_frozen_and_every_setting_is_explained():
    explained = 0
    for cls in vars(config_module).values():
        if dataclasses.is_dataclass(cls):
            assert cls.__dataclass_params__.frozen
            assert cls.__doc__
            source = inspect.getsource(sys.modules[cls.__module__]).partition(f"class {cls.__name__}(")[2]
            for name in cls.__annotations__:
                after = source.partition(f"\n    {name}: ")[2]
                assert after.splitlines()[1].lstrip().startswith('"""'), f"{cls.__name__}.{name} has no docstring"
                explained += 1
    assert explained > 80


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainingConfig(gradient_clip=0), "gradient_clip 0 would let no step move anything"),
        (lambda: TrainingConfig(min_snr=0), "min_snr 0 would let no error count"),
        (lambda: TrainingConfig(ema_decay=1), "ema_decay 1 would leave the averaged weights"),
        (lambda: config_module.UNetConfig(dropout=1), "unet.dropout 1 would leave nothing"),
        *(
            (
                lambda name=name, value=value: RunConfig(
                    model=AutoencoderConfig(unet=config_module.UNetConfig(jumps=True)),
                    start=config_module.StartConfig(model="teacher", freeze="encoder"),
                    training=TrainingConfig(**{name: value}),
                ),
                f"training.{name} is of learning from images, and model.unet.jumps from a teacher",
            )
            for name, value in (("min_snr", 5.0), ("z_sem_dropout", 0.1), ("encoder_shift", 0.1))
        ),
        (lambda: ScheduleConfig(beta_start=0.0), "must lie between 0 and 1, got 0.0 and 0.02"),
        (lambda: ScheduleConfig(beta_end=1.0), "must lie between 0 and 1, got 0.0001 and 1.0"),
        (lambda: PriorRunConfig(training=TrainingConfig(timesteps="noisy")), "training.timesteps is of images and their encoder"),
        (
            lambda: RunConfig(model=AutoencoderConfig(z_dim=None), training=TrainingConfig(whitened_start=True)),
            "training.whitened_start is of z_sem and its encoder, and a plain DDIM has none: leave it away",
        ),
        (lambda: PriorRunConfig(training=TrainingConfig(contrast=0.1)), "training.contrast is of images and their encoder"),
        (
            lambda: PriorRunConfig(model=PriorConfig(schedule=ScheduleConfig(zero_terminal_snr=True))),
            "zero_terminal_snr needs prediction 'v', and a prior predicts eps",
        ),
    ],
)
def test_what_would_train_nothing_or_be_ignored_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
