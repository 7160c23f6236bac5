"""The two codes, their compositions, and what is refused."""

import copy
from dataclasses import replace
from typing import get_args

import pytest
import torch
from test_nn import perturb

import diffae
from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import PriorConfig
from diffae.diffusion.interpolation import lerp, slerp
from diffae.diffusion.inversion import Inversion
from diffae.runtime.seeding import Draws
from diffae.semantics.prior import LatentPrior
from diffae.semantics.standardizer import Standardizer


@pytest.fixture(scope="module")
def ae(tiny):
    torch.manual_seed(0)
    # A v-prediction near zero is the exact one for white images: a denoiser that inversion can be tested on untrained.
    model = perturb(DiffusionAutoencoder(replace(tiny, prediction="v"))).eval()
    model.prior = perturb(LatentPrior(PriorConfig(z_dim=6, width=16, layers=3))).eval()
    model.standardizer = Standardizer(torch.full((6,), 2.0), torch.full((6,), 0.5))
    return model


@pytest.fixture(scope="module")
def x():
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_more_steps_reconstruct_better(ae, x):
    def error(inversion, steps):
        return (ae.reconstruct(x[:1], inversion=inversion, steps=steps) - x[:1]).square().mean().item()

    authors = [error("official", steps) for steps in (10, 50, 250)]
    assert authors[0] > authors[1] > authors[2]
    assert authors[2] < 1e-3
    assert error("fast", 5) > error("fast", 20) > error("fast", 80)


def test_render_of_infer_is_reconstruct_and_another_z_sem_changes_it(ae, x):
    code = ae.infer(x, steps=10)
    assert torch.equal(ae.render(code), ae.reconstruct(x, steps=10))
    assert not torch.allclose(ae.render(code, z_sem=code.z_sem + 5), ae.render(code))


@pytest.mark.parametrize("inversion", ["anchored", "reversible", "bdia"])
def test_what_is_kept_reconstructs_exactly(ae, x, inversion):
    assert (ae.reconstruct(x, inversion=inversion, steps=10) - x).abs().max() < 1e-4
    code = ae.infer(x, inversion=inversion, steps=10)
    torch.testing.assert_close(ae.render(code[1:2]), x[1:2], atol=1e-4, rtol=0)
    assert not torch.allclose(ae.render(code, z_sem=code.z_sem + 5), x, atol=1e-2), "and another z_sem makes another image"


@pytest.mark.parametrize("inversion", get_args(Inversion))
def test_images_of_a_small_type_are_inverted_as_others_are(ae, x, inversion):
    low = x.bfloat16()
    code, exact = (ae.infer(images, inversion=inversion, steps=8) for images in (low, low.float()))
    made = ae.render(code)
    assert made.dtype == code.z_sem.dtype == torch.bfloat16
    if inversion in ("anchored", "reversible", "bdia"):
        assert torch.equal(made, low)
    # z_sem itself is rounded, by a 256th at most.
    assert float((code.x_T.float() - exact.x_T).norm() / exact.x_T.norm()) < 0.02
    moved = (ae.render(c, z_sem=c.z_sem + 0.1).float() for c in (code, exact))
    difference = next(moved) - next(moved)
    assert float(difference.square().mean()) < 1e-4


def test_values_to_reach_are_one_for_all_or_one_for_each_image(ae, x):
    asked = []
    ae.unet.register_forward_pre_hook(lambda unet, args: asked.append(args))
    for value in (torch.zeros(2), [0.0, 0.0], torch.zeros(3, 1)):
        with pytest.raises(ValueError, match=r"one value for all images, or one for each of 3 \(n,\); got values of shape"):
            ae.manipulate(x, "age", target_value=value)
    assert not asked, "before anything is computed"


def test_bfloat16_is_the_decoders_alone_and_errs_by_a_hundredth(ae, x, tmp_path):
    ae.save_pretrained(tmp_path)
    exact, low = diffae.load(tmp_path), diffae.load(tmp_path, precision="bfloat16")
    z_sem = exact.encode(x)
    assert torch.equal(low.encode(x), z_sem)
    images = [model.decode(z_sem, seed=1) for model in (exact, low)]
    assert images[1].dtype == torch.float32
    assert 0 < float((images[1] - images[0]).norm() / images[0].norm()) < 0.02
    torch.testing.assert_close(low.reconstruct(x, steps=10), x, atol=1e-4, rtol=0)
    low.precision = "float32"
    assert torch.equal(low.decode(z_sem, seed=1), images[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_network_of_any_type_is_asked_at_the_timesteps_of_the_path(ae, dtype):
    other, asked = copy.deepcopy(ae).to(dtype), []
    other.unet.register_forward_pre_hook(lambda unet, args: asked.append(args[1]))
    other.decode(torch.zeros(1, 6), steps=7)
    wanted = other.path(7).to_the_image().t
    assert torch.stack(asked)[:, 0].double().tolist() == pytest.approx([float(t) for t in wanted if not t.isnan()], rel=1e-6)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-3), (torch.bfloat16, 0.3), (torch.float16, 0.05)])
def test_a_model_of_another_type_does_what_it_does_in_float32(ae, x, dtype, near):
    other = copy.deepcopy(ae).to(dtype)
    z_sem = ae.encode(x)
    verbs = {
        "encode": lambda model: model.encode(x),
        "decode": lambda model: model.decode(z_sem, steps=3, seed=1),
        "decode_mean": lambda model: model.decode_mean(z_sem),
        "invert": lambda model: model.invert(x, z_sem, steps=3),
        "interpolate": lambda model: model.interpolate(x[:1], x[1:2], (0.5,), steps=3),
        "manipulate": lambda model: model.manipulate(x, torch.eye(6)[0], steps=3),
        "fast": lambda model: model.reconstruct(x, inversion="fast", steps=6),
        "anchored": lambda model: model.reconstruct(x, steps=3),
        "sample": lambda model: model.sample(2, steps=2, prior_steps=2),
    }
    for name, verb in verbs.items():
        expected, found = verb(ae), verb(other)
        # Of the type of the images where some are given; noise that the model draws is of its own.
        assert found.dtype == (dtype if name in ("decode", "decode_mean", "sample") else torch.float32), name
        # The mean decode begins where this network of random weights enlarges errors most.
        allowed = (3 if name == "decode_mean" else 1) * near * float(expected.abs().mean())
        assert float((found.double() - expected.double()).abs().mean()) <= allowed, name
    assert torch.equal(other.reconstruct(x, steps=3), x), "anchored is exact in whatever type the images have"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_a_model_of_v_predicts_is_not_lost_in_a_small_type(tiny, dtype):
    """x_0 = alpha x - sigma v, as well as the network says v; not a small difference of rounded numbers, divided by alpha."""
    torch.manual_seed(0)
    exact = perturb(DiffusionAutoencoder(replace(tiny, prediction="v"))).eval()
    low, z_sem = copy.deepcopy(exact).to(dtype), torch.randn(4, exact.z_dim)
    (expected, found) = (model.decode_mean(z_sem, t=950).double() for model in (exact, low))
    assert float((found - expected).abs().mean()) < 0.05 * float(expected.abs().mean())


@pytest.mark.parametrize("quick", [True, False])
def test_auto_decodes_in_bfloat16_where_it_is_quick(ae, quick, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # Its networks are on the processor all the same.
    monkeypatch.setattr("diffae.runtime.processor.quick_bfloat16", lambda: quick)
    z_sem = torch.ones(2, ae.z_dim)
    found = []
    for precision in ("auto", "bfloat16" if quick else "float32"):
        monkeypatch.setattr(ae, "precision", precision)
        found.append(ae.decode(z_sem, steps=2))
    assert torch.equal(*found)


def test_an_anchored_code_without_its_defects_is_a_fast_one(ae, x):
    anchored, fast = (ae.infer(x, inversion=inversion, steps=6) for inversion in ("anchored", "fast"))
    torch.testing.assert_close(anchored.x_T, fast.x_T)
    torch.testing.assert_close(ae.render(anchored, detail=0.0), ae.render(fast), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("channels", "size"), [(3, (16, 16)), (1, (8, 24)), (7, (32, 32))])
def test_an_anchored_code_is_the_image_to_the_bit_whatever_the_network(tiny, channels, size, precision):
    # Of random weights, which enlarge the last bits of what they are asked, on images that nothing was trained on.
    torch.manual_seed(0)
    wild = perturb(perturb(DiffusionAutoencoder(replace(tiny, channels=channels, image_size=size)))).eval()
    wild.precision = precision
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    for steps in (5, 20, 40):
        assert torch.equal(wild.reconstruct(x, steps=steps), x), steps


def test_many_edits_of_one_image_are_one_batch(ae, x):
    code = ae.infer(x[:1], steps=6)
    z_sem = code.z_sem + torch.tensor([[0.0], [0.5], [1.0]])
    together = ae.render(code[torch.tensor([0, 0, 0])], z_sem=z_sem)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], ae.render(code, z_sem=z_sem[i : i + 1]), atol=1e-4, rtol=1e-3)


def test_inversions_that_there_are_not_or_that_cannot_be_are_refused(ae, x):
    with pytest.raises(ValueError, match="Unknown inversion 'slow'; there are 'fast', 'anchored'"):
        ae.infer(x, inversion="slow")
    with pytest.raises(ValueError, match="Unknown solver 'euler'; there are 'dpmpp2m', 'unipc', 'heun', 'ddim'"):
        ae.decode(torch.zeros(1, 6), solver="euler")
    with pytest.raises(ValueError, match="UniPC decodes, but does not invert"):
        ae.invert(x, ae.encode(x), solver="unipc")
    with pytest.raises(ValueError, match=r"The authors' spacing cannot give 37 steps"):
        ae.infer(x, inversion="official", steps=37)


@pytest.mark.parametrize("inversion", ["reversible", "bdia"])
def test_an_inversion_that_takes_back_its_steps_says_where_it_cannot(ae, x, inversion):
    with pytest.raises(ValueError, match="at least two steps"):
        ae.infer(x, inversion=inversion, steps=1)
    with pytest.raises(ValueError, match=f"Between two codes of `{inversion}` .* two states belong to one image"):
        ae.interpolate(x[:1], x[1:2], inversion=inversion, steps=3)
    ae.train()
    try:
        with pytest.raises(ValueError, match=rf"The inversion '{inversion}' needs .* gives the same twice: call eval\(\)"):
            ae.infer(x, inversion=inversion)
    finally:
        ae.eval()


@pytest.mark.parametrize("solver", ["dpmpp2m", "unipc", "heun", "ddim"])
def test_any_solver_decodes_what_was_drawn_to_nearly_one_image(ae, solver):
    z_sem = torch.zeros(2, 6)
    limit = ae.decode(z_sem, steps=200, solver="heun")
    assert (ae.decode(z_sem, steps=50, solver=solver) - limit).abs().mean() < 0.05


def test_a_sample_depends_on_its_number_and_the_seed_alone(ae):
    five, three = ae.sample(5, steps=2, prior_steps=2, seed=7, batch_size=2), ae.sample(3, steps=2, prior_steps=2, seed=7)
    assert torch.allclose(five[:3], three, atol=1e-5)
    assert not torch.allclose(ae.sample(3, steps=2, prior_steps=2, seed=8), three)
    z_sem = torch.zeros(4, 6)
    assert torch.allclose(ae.decode(z_sem, steps=2)[:2], ae.decode(z_sem[:2], steps=2), atol=1e-5)


def test_a_generator_may_stand_for_the_seed(ae):
    z_sem = torch.zeros(2, 6)
    once, again = (ae.decode(z_sem, steps=2, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, ae.decode(z_sem, steps=2, generator=torch.Generator().manual_seed(4)))


def test_decode_without_x_T_stays_in_range(ae):
    x_hat = ae.decode(torch.zeros(2, 6), steps=10)
    assert x_hat.abs().max() <= 1


def test_vary_gives_different_images_of_one_z_sem(ae, x):
    varied = ae.vary(x, num=2, steps=5)
    assert varied.shape == (3, 2, 3, 8, 8)
    assert not torch.allclose(varied[:, 0], varied[:, 1])
    for i in range(3):
        one = ae.decode(ae.encode(x[i : i + 1]).expand(2, -1), steps=5)
        torch.testing.assert_close(varied[i], one, atol=1e-4, rtol=0)
    more = ae.vary(x[1:], num=3, steps=5)
    torch.testing.assert_close(more[:, :2], varied[1:], atol=1e-4, rtol=0)  # Whatever is varied beside it, and how often.
    with pytest.raises(ValueError, match=r"a whole number for each of 3 samples, got \(2,\)"):
        ae.decode(ae.encode(x), start=torch.arange(2))


def test_as_many_second_images_as_first_ones_are_asked_for(ae, x):
    with pytest.raises(ValueError, match="Expected 1 images, as many as the first argument has, got 2"):
        ae.interpolate(x[:1], x[:2], [0.5])


def test_interpolation_ends_at_the_reconstructions(ae, x):
    frames = ae.interpolate(x[:1], x[1:2], [0.0, 0.5, 1.0], steps=10)
    assert frames.shape == (1, 3, 3, 8, 8)
    assert torch.allclose(frames[:, 0], ae.reconstruct(x[:1], steps=10), atol=1e-4)
    assert torch.allclose(frames[:, 2], ae.reconstruct(x[1:2], steps=10), atol=1e-4)


def test_the_mean_decode_is_the_mean_where_noise_says_nothing(ae):
    # With a v-predicting network whose output is -m everywhere, x_0 = alpha x_t + sigma m is m at the last timestep.
    model = DiffusionAutoencoder(replace(ae.config, prediction="v")).eval()
    torch.nn.init.constant_(model.unet.conv_out.bias, -0.25)
    mean = model.decode_mean(torch.zeros(2, 6))
    assert (mean - 0.25).abs().max() < 0.05


def test_each_pair_may_have_a_weight_of_its_own():
    a, b = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    weights = torch.tensor([0.0, 0.3, 1.0])
    for between in (lerp, slerp):
        each = torch.cat([between(a[i : i + 1], b[i : i + 1], float(w)) for i, w in enumerate(weights)])
        torch.testing.assert_close(between(a, b, weights), each)


def test_slerp_is_exact_at_its_ends_and_keeps_the_norm():
    a, b = torch.randn(2, 4, 500)
    assert torch.allclose(slerp(a, b, 0.0), a)
    assert torch.allclose(slerp(a, b, 1.0), b)
    unit_a, unit_b = (v / v.norm(dim=1, keepdim=True) for v in (a, b))
    assert torch.allclose(slerp(unit_a, unit_b, 0.3).norm(dim=1), torch.ones(4), atol=1e-5)
    assert torch.allclose(slerp(a, 2 * a, 0.5), lerp(a, 2 * a, 0.5))
    x, y = torch.eye(2)[:, None]
    angle = torch.tensor(0.15 * torch.pi)
    torch.testing.assert_close(slerp(2 * x, 4 * y, 0.3), 2.6 * (angle.cos() * x + angle.sin() * y))
    with pytest.raises(ValueError, match="zero vector"):
        slerp(a, torch.zeros_like(a), 0.5)


def test_standardised_codes_have_mean_zero_and_variance_one():
    z = torch.randn(100, 4) * 3 + 5
    s = Standardizer.fit(z)
    assert torch.allclose(s(z).mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(s(z).std(0), torch.ones(4), atol=1e-5)
    assert torch.allclose(s.inverse(s(z)), z, atol=1e-5)
    with pytest.raises(ValueError, match="at least two codes, got 1"):
        Standardizer.fit(z[:1])


def test_the_loss_of_a_batch_is_the_mean_of_its_images(ae, x):
    whole = ae.loss(x, Draws.of(3, 0, start=1))
    parts = torch.stack([ae.loss(x[i : i + 1], Draws.of(1, 0, start=i + 1)) for i in range(3)])
    assert torch.allclose(whole, parts.mean(), atol=1e-6)


def test_saving_and_loading_gives_the_same_model(ae, x, tmp_path):
    ae.save_pretrained(tmp_path / "model")
    again = diffae.load(tmp_path / "model")
    assert torch.equal(again.encode(x), ae.encode(x))
    assert torch.equal(again.sample(1, steps=2, prior_steps=2), ae.sample(1, steps=2, prior_steps=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x + 1) * 127.5, r"Expected images in \[-1, 1\], got .*\.\.25.*: divide by 127.5 and subtract 1"),
        (lambda x: x[:, :1], r"Expected images of shape \(n, 3, 8, 8\), got \(3, 1, 8, 8\)"),
        (lambda x: x / 0 * 0, r"not a number"),
    ],
)
def test_images_of_the_wrong_kind_are_refused(ae, x, change, message):
    with pytest.raises(ValueError, match=message):
        ae.encode(change(x))


def test_bytes_are_refused(ae):
    with pytest.raises(TypeError, match=r"got torch.uint8: convert, divide by 127.5 and subtract 1"):
        ae.encode(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_uniform_noise_is_refused(ae):
    with pytest.raises(ValueError, match=r"draw it with torch.randn, not torch.rand"):
        ae.decode(torch.zeros(1, 6), torch.rand(1, 3, 8, 8), steps=2)


def test_codes_of_another_shape_are_refused(ae, x):
    with pytest.raises(ValueError, match=r"Expected z_sem of shape \(3, 6\), got \(2, 6\)"):
        ae.invert(x, torch.zeros(2, 6))
    with pytest.raises(ValueError, match=r"Expected x_T of shape \(1, 3, 8, 8\)"):
        ae.decode(torch.zeros(1, 6), torch.randn(2, 3, 8, 8))


def test_without_a_prior_there_is_no_sampling(tiny):
    with pytest.raises(ValueError, match="no latent prior, so it can reconstruct and edit but not sample"):
        DiffusionAutoencoder(tiny).sample(1)
