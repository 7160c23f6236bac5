"""What the networks of the presets ask of a card, counted without one: commands, traffic, waits, copies.

Beside each goal stands what was counted in the same way of the version before (ef7eb4c, its group norm let through).
"""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from pretended_device import DEVICE, counting, pretended

from diffae.autoencoder import build
from diffae.config.presets import preset
from diffae.training.loop import LossModule, training_steps
from diffae.training.state import TrainingState

pytestmark = pytest.mark.usefixtures("fresh_accelerator")

CALL, STEP = {"operations": 818, "dispatched": 1367}, {"operations": 4834, "dispatched": 8746}
"""Of a decoder call of ffhq128 and a training step of avatars32 (batch 16, bfloat16), before."""
TRAFFIC = 8690.6e6
"""Bytes an image of a training step of ffhq128 (batch 128, bfloat16) that are neither a convolution's nor a product's, before."""
NOW = {
    "call float32": (310, 441), "call bfloat16": (344, 475), "step": (1615, 3312), "traffic": 1419.3e6,
}  # fmt: skip
"""What they take now, in the same order: the goals above would not notice an operation that falls apart again."""
MORE = 1.05
"""For what another version of PyTorch dispatches otherwise."""


def counted_step(name, batch, precision, monkeypatch):
    """What a training step asks; of tensors without values, so that any size is counted in no time."""
    monkeypatch.setattr(Accelerator, "device", property(lambda self: DEVICE))
    config = preset(name)
    with pretended(without_values=True):
        ae = build(config.model).to(DEVICE)
        training = replace(config.training, batch_size=batch, precision=precision, images=10**9)
        state, x = TrainingState.start(ae, training), torch.zeros(batch, *ae.image_shape)
        steps = training_steps(
            state, LossModule(ae, ae.loss), lambda _: x, training, accelerator=Accelerator(), total=lambda: 10**9
        )
        next(steps)
        with counting() as counts:
            next(steps)
    print(f"\n{name}, batch {batch}, {precision}: {counts}, {counts.traffic() / batch / 1e6:.1f} MB an image")
    return counts


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_decoder_call_is_half_as_many_commands_and_neither_waits_nor_is_sent_anything(precision):
    with pretended(without_values=True):
        ae = build(preset("ffhq128").model).eval().to(DEVICE)
        ae.precision = precision
        x, z = torch.zeros(1, *ae.image_shape, device=DEVICE), torch.zeros(1, ae.z_dim, device=DEVICE)
        call, t = ae.eps_model(z), torch.full((1,), 500.0, device=DEVICE)
        with torch.no_grad():
            call(x, t)
            with counting() as counts:
                call(x, t)
    print(f"\nffhq128, {precision}: {counts}")
    assert (counts.waits, counts.copies) == (0, 0)
    assert counts.operations <= CALL["operations"] / 2
    assert counts.dispatched <= CALL["dispatched"] / 2
    operations, dispatched = NOW[f"call {precision}"]
    assert counts.operations <= MORE * operations
    assert counts.dispatched <= MORE * dispatched


def test_a_training_step_is_half_as_many_commands_and_never_waits(monkeypatch):
    counts = counted_step("avatars32", 16, "bfloat16", monkeypatch)
    assert counts.waits == 0
    assert counts.copies <= 1
    assert counts.operations <= STEP["operations"] / 2
    assert counts.dispatched <= STEP["dispatched"] / 2
    assert counts.operations <= MORE * NOW["step"][0]
    assert counts.dispatched <= MORE * NOW["step"][1]


def test_a_training_step_moves_a_third(monkeypatch):
    counts = counted_step("ffhq128", 128, "bfloat16", monkeypatch)
    assert (counts.waits, counts.copies) == (0, 1)
    assert counts.traffic() / 128 <= min(TRAFFIC / 3, MORE * NOW["traffic"])


@pytest.mark.parametrize("inversion", ["fast", "anchored", "reversible"])
def test_an_inversion_and_decoding_is_sent_the_image_and_no_more(inversion):
    torch.manual_seed(0)
    with pretended():
        ae = build(preset("avatars32").model).eval().to(DEVICE)
        x = torch.rand(1, 3, 32, 32) * 2 - 1
        ae.reconstruct(x, inversion=inversion, steps=2)
        with counting() as counts:
            ae.reconstruct(x, inversion=inversion, steps=20)
        assert counts.copies <= 2
        assert counts.waits <= 3, "a look at the images, one at their codes, and what comes back"
        z, x_T = torch.zeros(1, ae.z_dim, device=DEVICE), torch.randn(1, 3, 32, 32).to(DEVICE)
        with counting() as counts:
            ae.decode(z, x_T, steps=20)
            ae.decode(z, steps=20)
        assert counts.copies == 0
