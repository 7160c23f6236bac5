"""Muon: what it does to singular values, whose weights it takes, and that runs with it are as exact as others."""

import pytest
import safetensors.torch
import torch

import diffae
from diffae.config import TrainingConfig
from diffae.data import prepare
from diffae.training.muon import QUINTIC, RMS, Muon, orthogonalized
from diffae.training.run import Stepped, resolve, train
from diffae.training.state import TrainingState
from diffae.training.subjects import ImageSubject

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def matrices(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 40), (2, 40, 5), (1, 1, 7)])
@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_singular_vectors_stay_and_singular_values_follow_the_polynomial(shape, iterations):
    given = matrices(*shape).double()
    u, s, vh = torch.linalg.svd(given, full_matrices=False)
    a, b, c = QUINTIC
    s = s / s.norm(dim=-1, keepdim=True)
    for _ in range(iterations):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(orthogonalized(given, iterations), u * s[:, None] @ vh)


def test_five_iterations_make_singular_values_about_one():
    values = torch.linalg.svdvals(orthogonalized(matrices(4, 16, 64), 5))
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 32, 512)])
def test_products_in_bfloat16_leave_the_same_matrix_but_for_rounding(shape):
    given = matrices(*shape)
    exact, low = orthogonalized(given), orthogonalized(given, dtype=torch.bfloat16)
    assert low.dtype == torch.float32
    assert 0 < float((low - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_in_bfloat16_orthogonalizes_in_it(precision, tiny, monkeypatch):
    asked = []
    monkeypatch.setattr("diffae.training.muon.orthogonalized", lambda m, *, dtype: asked.append(dtype) or m)
    model = diffae.autoencoder.build(tiny)
    state = TrainingState.start(model, TrainingConfig(precision=precision, muon_rate=3.0))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for optimizer in state.optimizers:
        optimizer.step()
    assert set(asked) == {torch.bfloat16 if precision == "bfloat16" else None}
    assert all(value.dtype == torch.float32 for p in state.optimizers[1].state.values() for value in p.values())


def test_rare_directions_move_as_far_as_common_ones():
    # A gradient of which one direction is a thousand times another.
    weight = torch.nn.Parameter(torch.zeros(4, 6))
    weight.grad = torch.zeros(4, 6)
    weight.grad[0, 0], weight.grad[1, 1] = 1000.0, 100.0
    Muon([{"params": [weight]}], lr=1.0).step()
    moved = weight.detach()
    assert 0.5 < moved[1, 1] / moved[0, 0] < 2
    assert moved[0, 0] < 0, "against the gradient"
    assert (moved != 0).sum() == 2


def test_a_step_is_about_as_large_as_adams():
    weight = torch.nn.Parameter(torch.zeros(64, 64))
    weight.grad = matrices(64, 64)
    Muon([{"params": [weight]}], lr=0.5).step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.5 * RMS, rel=0.3)


def test_momentum_is_nesterovs():
    weight, (first, second) = torch.nn.Parameter(torch.zeros(6, 4)), matrices(2, 6, 4)
    optimizer = Muon([{"params": [weight]}], lr=0.1)
    for gradient in (first, second):
        weight.grad = gradient.clone()
        optimizer.step()
    average = 0.05 * first
    expected = orthogonalized((0.05 * first + 0.95 * average)[None])
    average = 0.95 * average + 0.05 * second
    expected = expected + orthogonalized((0.05 * second + 0.95 * average)[None])
    torch.testing.assert_close(weight.detach(), -0.1 * RMS * 6**0.5 * expected[0])


def test_memory_layout_does_not_matter_and_weight_decay_pulls_to_zero():
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = torch.nn.Parameter(matrices(8, 4, 3, 3).contiguous(memory_format=layout))
        weight.grad = matrices(8, 4, 3, 3, seed=1).contiguous(memory_format=layout)
        optimizer = Muon([{"params": [weight]}], lr=0.1)
        for _ in range(3):
            optimizer.step()
        assert weight.is_contiguous(memory_format=layout)
        found.append(weight.detach())
    torch.testing.assert_close(*found)
    still = torch.nn.Parameter(torch.ones(2, 2))
    still.grad = torch.zeros(2, 2)
    Muon([{"params": [still]}], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(still.detach(), torch.full((2, 2), 0.95))


def test_each_weight_has_one_optimizer_and_those_that_touch_the_data_have_adam(tiny):
    model = diffae.DiffusionAutoencoder(tiny)
    state = TrainingState.start(model, TrainingConfig(muon_rate=2.0, encoder_rate=0.1))
    adam, muon = ([p for group in o.param_groups for p in group["params"]] for o in state.optimizers)
    assert len(adam) + len(muon) == len({*adam, *muon}) == len(list(model.parameters()))
    adams = {name for name, p in model.named_parameters() if p.dim() >= 2 and any(p is other for other in adam)}
    assert adams == {"unet.conv_in.weight", "unet.conv_out.weight", "encoder.conv_in.weight"}
    assert all(p.dim() >= 2 for p in muon)
    assert [g["relative_rate"] for o in state.optimizers for g in o.param_groups] == pytest.approx([1, 0.1, 2, 0.2])


def run(config, out, *, stop_after=None):
    config = resolve(config, out)
    data = prepare(config.data, size=config.model.image_size, channels=config.model.channels)
    losses = []
    for event in train(ImageSubject(config, data), out):
        if isinstance(event, Stepped):
            losses.append(event.step.loss)
            if stop_after and event.step.images >= stop_after:
                break
    return losses


def test_an_interrupted_run_ends_bitwise_where_an_undisturbed_one_does(tiny_run, tmp_path):
    config = tiny_run(images=64, muon_rate=2.0)
    run(config, tmp_path / "whole")
    run(config, tmp_path / "parts", stop_after=40)
    run(config, tmp_path / "parts")
    a, b = (safetensors.torch.load_file(max((tmp_path / n / "checkpoints").iterdir())) for n in ("whole", "parts"))
    assert any(name.startswith("momentum/") for name in a)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_it_lowers_the_loss(tiny_run, tmp_path):
    seldom = {"validate_every": 10**6, "sample_every": 10**6, "checkpoint_every": 10**6}
    losses = run(tiny_run(images=800, muon_rate=2.0, **seldom), tmp_path / "run")
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


def test_moments_of_another_optimizer_are_no_state_to_go_on_from(tiny, tmp_path):
    model = diffae.DiffusionAutoencoder(tiny)
    saved = TrainingState.start(model, TrainingConfig(muon_rate=2.0))
    saved.make_room()
    saved.save(tmp_path / "state")
    TrainingState.start(model, TrainingConfig(muon_rate=2.0)).load(tmp_path / "state")
    with pytest.raises(ValueError, match=r"the moments of .+ for another optimizer than AdamW: an earlier version"):
        TrainingState.start(model, TrainingConfig()).load(tmp_path / "state")
