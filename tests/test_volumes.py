"""Volumes: the same networks, codes, views and pictures, with three sides."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import diffae
from diffae.autoencoder import build
from diffae.config import AutoencoderConfig, EncoderConfig, ScheduleConfig, UNetConfig
from diffae.diffusion.schedule import each_error
from diffae.nn import SemanticEncoder, UNet
from diffae.nn.normalisation import NormSiLU
from diffae.nn.resampling import adaptive_average_pool, add_upsampled, downsample, patched, unpatched, upsample
from diffae.nn.space import halvings, level_sides
from diffae.pictures import flat, save_animation, sheet, slices, to_pil
from diffae.runtime.seeding import Draws
from diffae.training.views import augmented, shifted, training_view

SMALL = dict(base_channels=8, channel_mult=(1, 2), blocks_per_level=1, attention_resolutions=(4,))


def config(sides: tuple[int, ...], *, patch: int = 1, **changes: object) -> AutoencoderConfig:
    return AutoencoderConfig(
        image_size=sides, channels=1, z_dim=6, schedule=ScheduleConfig(T=100, beta_end=0.1),
        unet=UNetConfig(**SMALL, embed_channels=16, dropout=0.1, patch=patch), encoder=EncoderConfig(**SMALL, patch=patch),
        **changes,
    )  # fmt: skip


def autoencoder(sides: tuple[int, ...], **settings: object) -> diffae.DiffusionAutoencoder:
    """A model whose layers all matter, those that start at zero too."""
    torch.manual_seed(0)
    ae = build(config(sides, **settings))
    for parameter in ae.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return ae.eval()


def volumes(num: int, sides: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(num, 1, *sides, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_thin_volumes_are_halved_across_first():
    assert halvings((64, 64), 3) == [(2, 2), (2, 2)]
    assert halvings((128, 64), 3) == [(2, 2), (2, 2)], "images as ever"
    assert halvings((8, 8, 8), 3) == [(2, 2, 2), (2, 2, 2)]
    assert level_sides((16, 64, 64), 4) == [(16, 64, 64), (16, 32, 32), (16, 16, 16), (8, 8, 8)]


def test_sides_that_cannot_be_halved_are_refused_with_the_nearest_that_can():
    with pytest.raises(ValueError, match=r"divisible by 1 x 2 x 2, got 3 x 9 x 8; the nearest such size is 3 x 8 x 8"):
        UNet(UNetConfig(**SMALL), image_size=(3, 9, 8), channels=1, z_dim=None)
    with pytest.raises(ValueError, match=r"divisible by 4, got 6 x 8 x 8"):
        SemanticEncoder(EncoderConfig(**SMALL, patch=2), image_size=(6, 8, 8), channels=1, z_dim=4)
    with pytest.raises(ValueError, match=r"height and width, or depth, height and width, got \(8,\)"):
        config((8,))


@pytest.mark.parametrize("sides", [(8, 8), (4, 8, 6)])
def test_patches_lose_nothing(sides):
    x = volumes(2, sides).repeat(1, 3, *[1] * len(sides))
    there = patched(x, 2)
    assert there.shape == (2, 3 * 2 ** len(sides), *[side // 2 for side in sides])
    assert torch.equal(unpatched(there, 2), x)
    if len(sides) == 2:
        assert torch.equal(there, torch.nn.functional.pixel_unshuffle(x, 2))


@pytest.mark.parametrize("by", [(2, 2, 2), (1, 2, 2)])
def test_volumes_are_resampled_as_torch_does_it(by):
    x, f = volumes(2, (4, 8, 6)), torch.nn.functional
    factors = tuple(map(float, by))
    assert torch.allclose(downsample(x, by), f.avg_pool3d(x, by), atol=1e-6)
    assert torch.equal(upsample(x, by), f.interpolate(x, scale_factor=factors, mode="nearest"))
    h = torch.ones_like(upsample(x, by))
    assert torch.equal(add_upsampled(h, x, by), 1 + upsample(x, by))
    assert torch.allclose(adaptive_average_pool(x, 4).squeeze(), f.adaptive_avg_pool3d(x, 4).squeeze(), atol=1e-6)


def test_what_cards_do_to_volumes_is_the_same():
    from diffae.nn.resampling import _as_bricks, _repeated

    x = volumes(2, (4, 8, 6))
    assert torch.allclose(_as_bricks(x, (1, 2, 2)).mean((3, 5, 7)), downsample(x, (1, 2, 2)), atol=1e-6)
    assert torch.equal(_repeated(x, (1, 2, 2)), upsample(x, (1, 2, 2)))


@pytest.mark.parametrize("settings", [dict(), dict(patch=2), dict(prediction="v")])
@pytest.mark.parametrize("sides", [(8, 8, 8), (4, 16, 16)])
def test_both_codes_of_a_volume_give_it_back(sides, settings, tmp_path):
    ae, x = autoencoder(sides, **settings), volumes(2, sides)
    z_sem = ae.encode(x)
    assert z_sem.shape == (2, 6)
    assert ae.invert(x, z_sem).shape == ae.decode_mean(z_sem).shape == x.shape
    assert ae.image_shape == (1, *sides)
    assert (ae.reconstruct(x) - x).square().mean() / 4 < 1e-10
    assert not torch.allclose(ae.decode(z_sem), x, atol=0.1)
    ae.save_pretrained(tmp_path / "model")
    again = diffae.load(tmp_path / "model")
    assert torch.equal(again.encode(x), z_sem)
    with pytest.raises(ValueError, match=rf"shape \(n, 1, {', '.join(map(str, sides))}\), got \(2, 1, 8, 8\)"):
        ae.encode(volumes(2, (8, 8)))


def test_a_volume_of_one_slice_is_computed_like_the_image():
    """Of a volume one voxel deep, convolutions see the slice and zeros: the middle of their kernels is an image's."""
    image, volume = autoencoder((8, 8)), autoencoder((1, 8, 8))
    weights = image.state_dict()
    for name, theirs in volume.state_dict().items():
        if theirs.dim() == 5:
            kernel = torch.zeros_like(theirs)
            kernel[:, :, theirs.shape[2] // 2] = weights[name]
            weights[name] = kernel
    volume.load_state_dict(weights)
    x = volumes(3, (8, 8))
    assert torch.allclose(volume.encode(x[:, :, None]), image.encode(x), atol=1e-5)
    z_sem = image.encode(x)
    assert torch.allclose(volume.decode_mean(z_sem, t=50, seed=3)[:, :, 0], image.decode_mean(z_sem, t=50, seed=3), atol=1e-4)


def test_the_gradient_of_a_volume_is_the_slope_of_its_loss():
    ae = autoencoder((4, 8, 8)).double()
    x = volumes(2, (4, 8, 8)).double()
    draws = Draws.of(2, 0)
    weight = ae.unet.conv_in.weight
    loss = ae.loss(x, draws)
    (slope,) = torch.autograd.grad(loss, weight)
    with torch.no_grad():
        step = torch.zeros_like(weight)
        step[0, 0, 1, 1, 1] = 1e-3
        weight.add_(step)
        above = ae.loss(x, draws)
        weight.sub_(2 * step)
        below = ae.loss(x, draws)
    assert float((above - below) / 2e-3) == pytest.approx(float(slope[0, 0, 1, 1, 1]), rel=2e-2, abs=1e-7)


def test_volumes_are_mirrored_moved_and_turned_in_the_plane_of_their_slices():
    x = torch.from_numpy(np.arange(64, dtype=np.uint8).reshape(1, 1, 4, 4, 4)).repeat(64, 1, 1, 1, 1)
    draws = Draws.of(64, 0)
    seen = training_view(x, draws, flip=True)
    mirrored = (seen != seen[0:1]).flatten(1).any(1) if torch.equal(seen[0], training_view(x, draws, flip=False)[0]) else None
    plain = training_view(x, draws, flip=False)
    same, turned = (seen == plain).flatten(1).all(1), (seen == plain.flip(-1)).flatten(1).all(1)
    assert (same ^ turned).all()
    assert 16 < int(turned.sum()) < 48
    assert mirrored is None or torch.equal(mirrored, turned)
    moved = shifted(plain, draws, 0.25)
    assert moved.shape == plain.shape
    assert set(moved[:, 0, 1, 1, 1].unique().tolist()) <= set(plain[0].unique().tolist())
    assert len({tuple(v.flatten().tolist()) for v in moved}) > 9, "along all three sides"
    assert torch.equal(augmented(plain, draws, 0.0), plain)
    layers = torch.arange(4.0)[:, None, None].expand(1, 1, 4, 4, 4).repeat(64, 1, 1, 1, 1)
    some = augmented(layers, draws, 1.0)
    assert some.shape == layers.shape
    assert torch.allclose(some.std((3, 4)), torch.zeros(64, 1, 4), atol=1e-4), "slices stay level"


def test_pictures_of_volumes_are_three_slices_and_move_through_all(tmp_path):
    x = torch.full((1, 4, 6, 8), -1.0)
    x[0, 2], x[0, :, 3], x[0, :, :, 4] = 0.0, 0.5, 1.0
    picture = flat(x)
    assert picture.shape == (1, 6, 8 + 8 + 6 + 2)
    assert torch.equal(picture[:, :6, :8], x[:, 2])
    assert torch.equal(picture[:, :4, 9:17], x[:, :, 3])
    assert torch.equal(picture[:, :4, 18:24], x[:, :, :, 4])
    assert to_pil(x).size == (24, 6)
    assert sheet([[x, x], [x]], scale=2, gap=2).size == (2 * 48 + 2, 2 * 12 + 2)
    x[0] = torch.linspace(-1, 1, 4)[:, None, None]
    frames = [sheet(rows) for rows in slices([[x, x]])]
    assert len(frames) == 4
    with Image.open(save_animation(frames, tmp_path / "through.gif")) as movie:
        assert movie.n_frames == 6, "there and back"


def test_two_channels_are_magenta_and_green():
    x = torch.stack([torch.full((2, 2), 1.0), torch.full((2, 2), -1.0)])
    assert to_pil(x).getpixel((0, 0)) == (255, 0, 255)
    assert to_pil(x.flip(0)).getpixel((0, 0)) == (0, 255, 0)


def test_frozen_networks_see_no_volumes():
    with pytest.raises(ValueError, match="see two sides"):
        config((8, 8, 8), latents="somewhere")
    with pytest.raises(ValueError, match="see two sides"):
        dataclasses.replace(config((8, 8, 8)), features=diffae.config.FeaturesConfig(network="inception"))


def test_what_a_mask_leaves_out_the_loss_leaves_out():
    ae = autoencoder((4, 8, 8))
    x, draws = volumes(3, (4, 8, 8)), Draws.of(3, 0)
    z_sem = ae.encode(x)
    known = torch.ones(3, 1, 4, 8, 8)
    with torch.no_grad():
        whole = ae.loss(x, draws, z_sem=z_sem)
        torch.testing.assert_close(ae.loss(x, draws, z_sem=z_sem, known=known), whole)
        known[:, :, 2:] = 0
        part = ae.loss(x, draws, z_sem=z_sem, known=known)
    assert not torch.isclose(part, whole)
    output = torch.ones_like(x).requires_grad_()
    (gradient,) = torch.autograd.grad(each_error(output, torch.zeros_like(x), known).sum(), output)
    assert (gradient[:, :, 2:] == 0).all()
    assert (gradient[:, :, :2] != 0).all()
    assert each_error(output, torch.zeros_like(x), known).tolist() == [1, 1, 1]


@pytest.mark.parametrize("num", [1, 2])
@pytest.mark.parametrize("sides", [(4, 4, 4), (1, 8, 4), (2, 1, 4)])
def test_slices_below_one_another_are_normalised_as_the_volume_whatever_its_strides(num, sides):
    """Of a batch of one, and of sides of one, strides say nothing."""
    norm = NormSiLU(8)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(num, 8, *sides, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.silu(torch.nn.functional.group_norm(x, 8, norm.weight, norm.bias, 1e-5))
    for given in (
        x,
        x.contiguous(memory_format=torch.channels_last_3d),
        x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3),
    ):
        with torch.no_grad():
            torch.testing.assert_close(norm(given), wanted, atol=1e-5, rtol=1e-5)
        given = given.detach().requires_grad_()
        (slope,) = torch.autograd.grad(norm(given).square().sum(), given)
        (right,) = torch.autograd.grad(
            torch.nn.functional.silu(torch.nn.functional.group_norm(given, 8, norm.weight, norm.bias, 1e-5)).square().sum(), given
        )
        torch.testing.assert_close(slope, right, atol=1e-4, rtol=1e-4)
