"""What benchmarks of speed set beside each other: networks like the authors', theirs of the same weights, our training steps."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from authors import WHERE, Authors
from torch import Tensor, nn

from diffae.autoencoder import DiffusionAutoencoder, build
from diffae.config.presets import preset
from diffae.training.loop import LossModule, compile_networks, training_steps
from diffae.training.run import create_accelerator
from diffae.training.state import TrainingState

CPU = torch.device("cpu")


def like_theirs(name: str, device: torch.device = CPU, **changes: Any) -> DiffusionAutoencoder:
    """A preset's autoencoder that predicts eps and pools as theirs, whose zero layers are redrawn so that all of it matters."""
    config = preset(name).model
    encoder = dataclasses.replace(config.encoder, pooled_size=1)
    torch.manual_seed(0)
    ae = build(dataclasses.replace(config, prediction="eps", encoder=encoder, **changes))
    assert isinstance(ae, DiffusionAutoencoder)
    for module in ae.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.02)
    return ae.to(device)


def authors_of(checkout: Path, ae: DiffusionAutoencoder) -> Authors:
    """Their networks with the weights of ours, where ours are."""
    device = ae.device
    try:
        theirs = Authors(checkout, ae.cpu())
    except FileNotFoundError as error:
        raise SystemExit(f"{error} ({WHERE})") from None
    theirs.eps.to(device)
    ae.to(device)
    return theirs


def our_step(name: str, ae: DiffusionAutoencoder, x: Tensor, **changes: Any) -> Callable[[], object]:
    """A whole training step of ours on these images: a preset's with changes, and with Adam, as theirs."""
    config = dataclasses.replace(preset(name).training, batch_size=len(x), images=10**9, muon_rate=None, **changes)
    state = TrainingState.start(ae, config)
    compile_networks(ae, config)
    loss, accelerator = LossModule(ae, ae.loss), create_accelerator()
    steps = training_steps(state, loss, lambda _: x, config, accelerator=accelerator, total=lambda: 10**9)
    return lambda: next(steps)
