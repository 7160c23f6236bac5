"""Trainings of tests: whole ones, and such as end early."""

import safetensors.torch

from diffae.data import prepare
from diffae.training.run import Stepped, resolve, train
from diffae.training.subjects import ImageSubject


def run(config, out, *, stop_after=None):
    """Trains; with `stop_after` leaves the loop there, as a process that is killed does. Returns the events."""
    config = resolve(config, out)
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    events = []
    for event in train(ImageSubject(config, data), out):
        events.append(event)
        if stop_after and isinstance(event, Stepped) and event.step.images >= stop_after:
            break
    return events


def checkpoint(out):
    return safetensors.torch.load_file(max((out / "checkpoints").iterdir()))
