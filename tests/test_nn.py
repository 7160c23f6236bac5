"""The networks' contract: shapes, gradients, sizes, what is refused."""

import copy
from dataclasses import replace

import pytest
import torch

from diffae.autoencoder import DiffusionAutoencoder, build
from diffae.config import EncoderConfig, PriorConfig, UNetConfig
from diffae.config.presets import PRESETS, preset
from diffae.nn import SkipMLP, UNet
from diffae.nn.kernels import normalisation as kernels
from diffae.nn.kernels import operators
from diffae.nn.layers import SelfAttention
from diffae.nn.normalisation import AdaGNSiLU, Dropout, GroupNorm, Modulation, NormSiLU, modulations
from diffae.nn.normalisation import normalise as normalised_by
from diffae.nn.resampling import adaptive_average_pool
from diffae.nn.winograd import Conv3x3
from diffae.runtime import processor
from diffae.runtime.seeding import Draws
from diffae.training.updates import move_towards


def perturb(module):
    """Away from the zeros that some layers start with, so that every path carries a signal."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return module


@pytest.mark.parametrize(("channels", "size", "z_dim"), [(3, (8, 8), 6), (1, (8, 8), 5), (7, (8, 16), 1), (3, (16, 4), 33)])
def test_every_parameter_gets_a_finite_gradient(tiny, channels, size, z_dim):
    model = perturb(DiffusionAutoencoder(replace(tiny, channels=channels, image_size=size, z_dim=z_dim)))
    x = torch.rand(4, channels, *size) * 2 - 1
    model.loss(x, Draws.of(4, 0)).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().max() > 0, name
    z_sem = model.encode(x)
    assert z_sem.shape == (4, z_dim)
    assert model.decode(z_sem, steps=2).shape == x.shape


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("celeba64", 90_839_235),
        ("ffhq128", 128_545_155),
        ("horse128", 128_545_155),
        ("bedroom128", 128_545_155),
        ("ffhq256", 168_492_291),
    ],
)
def test_the_papers_models_have_the_papers_size(name, parameters):
    with torch.device("meta"):
        model = DiffusionAutoencoder(preset(name).model)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_built(name):
    with torch.device("meta"):
        build(preset(name).model)


def test_adagn_is_the_formula_of_the_paper_as_run():
    layer = perturb(AdaGNSiLU(8, 5, 3))
    h, t, z = torch.randn(2, 8, 4, 4), torch.randn(2, 5), torch.randn(2, 3)
    t_s, t_b = layer.time(t)[:, :, None, None].chunk(2, dim=1)
    z_s = layer.semantics(z)[:, :, None, None]
    expected = torch.nn.functional.silu((layer.norm(h) * (1 + t_s) + t_b) * (1 + z_s))
    (modulation,) = modulations([layer], t, z)
    assert torch.allclose(layer(h, modulation), expected, atol=1e-6)


def test_attention_with_several_heads_splits_heads_before_q_k_v():
    layer = perturb(SelfAttention(8, heads=2))
    x = torch.randn(2, 8, 3, 3)
    q_k_v = layer.qkv(layer.norm(x)).reshape(2 * 2, 3 * 4, 9)
    q, k, v = q_k_v.split(4, dim=1)
    weight = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / 4**0.5, dim=-1)
    a = torch.einsum("bts,bcs->bct", weight, v).reshape(2, 8, 3, 3)
    assert torch.allclose(layer(x), x + layer.out(a), atol=1e-6)


def test_a_whitened_encoder_starts_with_uncorrelated_codes_of_unit_variance(tiny):
    encoder = DiffusionAutoencoder(tiny).encoder
    x = torch.rand(200, 3, 8, 8) * 2 - 1
    before = encoder(x)
    encoder.whiten(encoder.features(x))
    z = encoder(x)
    assert before.std(0).max() < 0.3
    assert z.mean(0).abs().max() < 1e-3
    assert (torch.cov(z.T) - torch.eye(6)).abs().max() < 0.05


def test_whitening_survives_fewer_directions_than_dimensions(tiny):
    encoder = DiffusionAutoencoder(replace(tiny, z_dim=40)).encoder
    x = torch.rand(5, 3, 8, 8) * 2 - 1
    encoder.whiten(encoder.features(x))
    assert torch.isfinite(encoder(x)).all()
    assert encoder(x).std(0).max() < 3


def test_one_cell_forgets_where_features_are_and_more_keep_it(tiny):
    h = torch.rand(2, 16, 4, 4)
    for cells in (1, 2):
        encoder = DiffusionAutoencoder(replace(tiny, encoder=replace(tiny.encoder, pooled_size=cells))).encoder
        assert encoder(torch.rand(2, 3, 8, 8)).shape == (2, tiny.z_dim)
        assert encoder.pooled_size == cells
        same = torch.allclose(adaptive_average_pool(h, cells), adaptive_average_pool(h.flip(3), cells))
        assert same == (cells == 1)


@pytest.mark.parametrize(("h", "w", "size"), [(4, 4, 4), (8, 4, 2), (5, 7, 3), (6, 6, 1), (7, 5, 5)])
def test_cells_are_those_of_adaptive_pooling(h, w, size):
    x = torch.randn(2, 3, h, w).requires_grad_()
    expected, found = torch.nn.functional.adaptive_avg_pool2d(x, size), adaptive_average_pool(x, size)
    torch.testing.assert_close(found, expected)
    dy = torch.randn(expected.shape)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, dy)[0] for y in (found, expected)))


def test_a_grid_finer_than_the_features_is_refused(tiny):
    with pytest.raises(ValueError, match=r"pooled_size.*4 x 4"):
        DiffusionAutoencoder(replace(tiny, encoder=replace(tiny.encoder, pooled_size=5)))


def test_without_z_sem_the_unet_is_the_plain_ddim():
    config = UNetConfig(base_channels=8, channel_mult=(1, 2), blocks_per_level=1, embed_channels=16)
    plain = UNet(config, image_size=(8, 8), channels=3, z_dim=None)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 900.0])
    assert plain(x, t).shape == x.shape
    with pytest.raises(ValueError, match="takes no z_sem"):
        plain(x, t, z_sem=torch.zeros(2, 4))
    conditional = UNet(config, image_size=(8, 8), channels=3, z_dim=4)
    with pytest.raises(ValueError, match="is conditioned on z_sem"):
        conditional(x, t)


def test_time_may_be_fractional():
    torch.manual_seed(0)
    net = perturb(SkipMLP(PriorConfig(z_dim=4, width=8, layers=3, time_channels=6)))
    z = torch.randn(1, 4).expand(3, 4)
    low, middle, high = net(z, torch.tensor([10.0, 10.5, 11.0])).double()
    assert 0 < (middle - low).norm() < (high - low).norm()
    assert 0 < (middle - high).norm() < (high - low).norm()


def test_sizes_that_the_levels_do_not_divide_are_refused_with_the_nearest(tiny):
    with pytest.raises(ValueError, match=r"unet need image sides divisible by 2, got 9 x 8; the nearest such size is 8 x 8"):
        DiffusionAutoencoder(replace(tiny, image_size=(9, 8)))
    deep = replace(tiny, encoder=EncoderConfig(base_channels=8, channel_mult=(1, 1, 1, 1, 1), attention_resolutions=()))
    with pytest.raises(ValueError, match="encoder need image sides divisible by 16, got 8 x 8"):
        DiffusionAutoencoder(deep)


def test_heads_must_divide_channels(tiny):
    with pytest.raises(ValueError, match="cannot divide 8 channels into 3 attention heads"):
        DiffusionAutoencoder(replace(tiny, unet=replace(tiny.unet, attention_heads=3)))


@pytest.fixture
def quick_products(monkeypatch):
    """A processor on which Winograd's way is the quick one, whichever this is."""
    monkeypatch.setattr("diffae.nn.winograd.quick_products", lambda: True)


@pytest.mark.usefixtures("quick_products")
@pytest.mark.parametrize(("n", "c_in", "c_out", "h", "w"), [(4, 128, 128, 8, 8), (1, 128, 130, 18, 21), (2, 130, 128, 40, 52)])
def test_winograds_convolution_is_the_convolution(n, c_in, c_out, h, w):
    torch.manual_seed(0)
    conv = Conv3x3(c_in, c_out)
    x = torch.randn(n, c_in, h, w)
    expected = torch.nn.functional.conv2d(*(v.detach().double() for v in (x, conv.weight, conv.bias)), padding=1)
    plain = conv(x)
    with torch.no_grad():
        assert conv._uses_winograd(x)
        quick = conv(x)
    assert plain.requires_grad
    assert float((plain.detach() - expected).norm() / expected.norm()) < 1e-6
    assert 0 < float((quick - expected).norm() / expected.norm()) < 1e-5
    assert float((quick - expected).abs().max()) < 1e-4 * float(expected.abs().max())


@pytest.mark.usefixtures("quick_products")
def test_winograds_convolution_knows_when_its_weight_has_changed():
    conv, x = Conv3x3(128, 128), torch.randn(4, 128, 8, 8)
    with torch.no_grad():
        before = conv(x)
        conv.weight.mul_(2)
        conv.bias.mul_(2)
        torch.testing.assert_close(conv(x), 2 * before, rtol=1e-4, atol=1e-4)
        conv.load_state_dict({key: value / 2 for key, value in conv.state_dict().items()})
        torch.testing.assert_close(conv(x), before, rtol=1e-4, atol=1e-4)
        twin = copy.deepcopy(conv)
        assert twin._transformed is None, "a copy does not carry four times its weights"
        conv.weight.zero_()
        torch.testing.assert_close(twin(x), before, rtol=1e-4, atol=1e-4)


def _ours(conv):
    move_towards([conv.weight], [torch.randn(conv.weight.shape)], torch.tensor(0.5))


def _fused_adam(conv):
    conv.weight.grad = torch.randn(conv.weight.shape)
    torch.optim.AdamW([conv.weight], lr=0.1, fused=True).step()


@pytest.mark.usefixtures("quick_products")
@pytest.mark.parametrize("update", [_ours, _fused_adam])
def test_winograds_convolution_knows_what_fused_kernels_change_and_do_not_tell(update):
    conv, x = Conv3x3(128, 128), torch.randn(4, 128, 8, 8)
    with torch.no_grad():
        before = conv(x)
    update(conv)
    with torch.no_grad():
        after, expected = conv(x), torch.nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
    assert float((after - before).abs().max()) > 0.1
    torch.testing.assert_close(after, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("quick_products")
def test_convolutions_go_winograds_way_only_where_it_is_quicker(monkeypatch):
    conv, x = Conv3x3(128, 128), torch.randn(4, 128, 8, 8)
    assert not conv._uses_winograd(x), "gradients are the plain convolution's"
    with torch.no_grad():
        assert conv._uses_winograd(x)
        assert not conv._uses_winograd(x[:1]), "few pixels"
        assert not conv._uses_winograd(x.bfloat16())
        assert not Conv3x3(64, 128)._uses_winograd(x), "few channels"
        with torch.autocast("cpu", torch.bfloat16):
            assert not conv._uses_winograd(x)
        monkeypatch.setattr("diffae.nn.winograd.quick_products", lambda: False)
        assert not conv._uses_winograd(x), "slow products"


@pytest.mark.parametrize(("name", "quick"), [("AMD EPYC", False), ("Intel Xeon", True), ("", True)])
def test_mkl_is_slow_on_a_processor_of_amd(name, quick, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name})
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert processor.quick_products() == quick
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert processor.quick_products()


def normalise(x, gamma, beta, t=None, z=None, *, groups, **kwargs):
    """Of any weights, and any number of groups."""
    norm = GroupNorm(len(gamma))
    norm.num_groups = groups
    norm.__dict__ |= {"weight": gamma, "bias": beta}
    return normalised_by(x, norm, None if t is None else Modulation(t, z), **kwargs)


def by_definition(x, gamma, beta, t=None, z=None, *, groups, silu=True, mask=1.0):
    """Group normalisation, and what follows it, step by step."""
    y = torch.nn.functional.group_norm(x, groups, gamma, beta, eps=1e-5)
    if t is not None:
        t_s, t_b = t[:, :, None, None].chunk(2, dim=1)
        y = y * (1 + t_s) + t_b
    if z is not None:
        y = y * (1 + z[:, :, None, None])
    return (torch.nn.functional.silu(y) if silu else y) * mask


def random_inputs(kind=torch.float32, *, channels=8, size=(5, 4), adaptive=2, seed=0):
    """Images, gamma, beta, t and z, as far as they are asked for; and a gradient."""
    torch.manual_seed(seed)
    shapes = [(3, channels, *size), (channels,), (channels,), (3, 2 * channels), (3, channels)][: 3 + adaptive]
    return [(torch.randn(shape) + 0.5).to(kind) for shape in shapes], torch.randn(shapes[0]).to(kind)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("channels", "groups", "adaptive", "silu"), [(8, 4, 2, True), (6, 6, 1, True), (8, 2, 0, True), (8, 4, 0, False)]
)
def test_normalisation_has_the_gradients_of_its_parts(layout, channels, groups, adaptive, silu):
    (x, *others), dy = random_inputs(channels=channels, adaptive=adaptive)
    inputs = [v.clone().requires_grad_() for v in (x.to(memory_format=layout), *others)]
    doubles = [v.double().requires_grad_() for v in (x, *others)]
    y, expected = normalise(*inputs, groups=groups, silu=silu), by_definition(*doubles, groups=groups, silu=silu)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(y, inputs, dy), torch.autograd.grad(expected, doubles, dy.double()), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(normalise(*inputs, groups=groups, silu=silu), y)


def test_the_operator_of_normalisation_is_one_that_torch_can_rely_on():
    """Its shapes without values are those with them, and it changes and shares nothing that it is given."""
    (x, *others), dy = random_inputs()
    x, dy = (v.to(memory_format=torch.channels_last) for v in (x, dy))
    numbers, settings = torch.arange(3), (True, 0.25, 7)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(operators.normalise, (x, *others, numbers, 4, 1e-5, *settings), test_utils=checks)
    _, mean, inverse = kernels.forward(x, *others, numbers, 4, 1e-5, *settings)
    torch.library.opcheck(operators.normalise_backward, (dy, x, mean, inverse, *others, numbers, *settings), test_utils=checks)


def test_dropout_is_a_share_of_an_image_whatever_batch_it_is_in():
    (x, *others), dy = random_inputs(channels=16, size=(32, 32))
    dropout = Dropout(0.25, Draws.of(3, 5), 2)
    inputs = [v.clone().requires_grad_() for v in (x, *others)]
    y = normalise(*inputs, groups=4, dropout=dropout)
    zeros = y == 0
    assert float(zeros.float().mean()) == pytest.approx(0.25, abs=0.01)
    mask = (~zeros).double() / 0.75
    doubles = [v.double().requires_grad_() for v in (x, *others)]
    expected = by_definition(*doubles, groups=4, mask=mask)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(y, inputs, dy), torch.autograd.grad(expected, doubles, dy.double()), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-3)
    one = normalise(x[1:2], *others[:2], *(v[1:2] for v in others[2:]), groups=4, dropout=Dropout(0.25, Draws.of(1, 5, start=1), 2))
    torch.testing.assert_close(one, y[1:2])
    for other in (Dropout(0.25, Draws.of(3, 5), 3), Dropout(0.25, Draws.of(3, 6), 2), Dropout(0.25, Draws.of(3, 5, start=3), 2)):
        assert 0.3 < float(((normalise(x, *others, groups=4, dropout=other) == 0) != zeros).float().mean()) < 0.45


def test_normalisation_computes_in_float32_and_keeps_the_precision_of_its_input():
    x = torch.randn(2, 8, 4, 4) * 0.01 + 100
    low = normalise(x.bfloat16().requires_grad_(), torch.ones(8), torch.zeros(8), groups=4)
    assert low.dtype == torch.bfloat16
    expected = torch.nn.functional.silu(torch.nn.functional.group_norm(x.bfloat16().double(), 4, eps=1e-5))
    torch.testing.assert_close(low.double(), expected, rtol=1e-2, atol=1e-2)


def test_normalisation_in_bfloat16_has_the_gradients_of_float32():
    (x, gamma, beta), dy = random_inputs(torch.bfloat16, size=(16, 16), adaptive=0)
    found = []
    for kind in (torch.bfloat16, torch.float32):
        inputs = [v.clone().requires_grad_() for v in (x.to(kind), gamma.float(), beta.float())]
        found.append(torch.autograd.grad(normalise(*inputs, groups=4), inputs, dy.to(kind)))
    (dx, *others), (expected, *expected_others) = found
    assert dx.dtype == torch.bfloat16
    torch.testing.assert_close(dx, expected.bfloat16(), rtol=0, atol=0)
    torch.testing.assert_close(others, expected_others, rtol=0, atol=0)


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_normalisation_leaves_the_gradient_that_it_is_given(silu, rate):
    (x, gamma, beta), dy = random_inputs(adaptive=0)
    before = dy.clone()
    dropout = Dropout(rate, Draws.of(3, 0), 0) if rate else None
    normalise(x.requires_grad_(), gamma, beta, groups=4, silu=silu, dropout=dropout).backward(dy)
    assert torch.equal(dy, before)


def test_normalisation_keeps_its_input_and_nothing_else_of_that_size():
    kept = []
    x = torch.randn(2, 8, 16, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        NormSiLU(8)(x)
    assert sum(size >= x.numel() for size in kept) == 1
