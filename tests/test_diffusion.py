"""The plain DDIM: the baseline, through the same solver; and what a saved model carries with it."""

import json
import shutil
import warnings
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from test_nn import perturb

import diffae
from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import PriorConfig
from diffae.diffusion.ddim import DDIM
from diffae.diffusion.interpolation import slerp
from diffae.diffusion.schedule import decoding_path
from diffae.diffusion.solvers import solve
from diffae.interop.fingerprints import fingerprint
from diffae.interop.parts import available_priors, prior_folder, save_part
from diffae.runtime import weights as weights_module
from diffae.runtime.files import digest_file
from diffae.runtime.weights import files_of_weights, write_weights
from diffae.semantics.attributes import Attributes, Score
from diffae.semantics.prior import GaussianPrior, KernelPrior, LatentPrior
from diffae.semantics.standardizer import Standardizer


@pytest.fixture(scope="module")
def ddim(tiny):
    torch.manual_seed(0)
    return perturb(DDIM(replace(tiny, z_dim=None, prediction="v"))).eval()


@pytest.fixture(scope="module")
def x():
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_baseline_is_the_same_network_without_z_sem(tiny, ddim):
    ae = DiffusionAutoencoder(tiny)
    ours = set(ddim.state_dict())
    theirs = {k for k in ae.state_dict() if k.startswith("unet.") and "semantics" not in k}
    assert ours == theirs


def test_it_reconstructs_better_with_more_steps(ddim, x):
    errors = [(ddim.reconstruct(x, steps=steps) - x).square().mean().item() for steps in (10, 50, 250)]
    assert errors[0] > errors[1] > errors[2]


def test_its_samples_depend_on_their_number_and_the_seed_alone(ddim):
    assert torch.allclose(ddim.sample(5, steps=2, seed=7, batch_size=2)[:3], ddim.sample(3, steps=2, seed=7), atol=1e-5)
    assert not torch.allclose(ddim.sample(1, steps=2, seed=8), ddim.sample(1, steps=2, seed=7))


def test_it_interpolates_from_reconstruction_to_reconstruction(ddim, x):
    frames = ddim.interpolate(x[:1], x[1:2], [0.0, 0.5, 1.0], steps=5)
    assert torch.allclose(frames[:, 0], ddim.reconstruct(x[:1], steps=5), atol=1e-5)
    assert torch.allclose(frames[:, 2], ddim.reconstruct(x[1:2], steps=5), atol=1e-5)


def test_sdedit_goes_from_the_image_to_a_fresh_sample(ddim, x):
    assert torch.equal(ddim.sdedit(x, t_0=0, steps=10), x)
    distances = [(ddim.sdedit(x, t_0=s, steps=20) - x).square().mean().item() for s in (0.1, 0.5, 1.0)]
    assert distances[0] < distances[1] < distances[2]
    path = decoding_path(ddim.schedule, 20).last(10)
    noisy = ddim.schedule.add_noise(x, ddim.draw_x_T(3, 0), torch.full((3,), int(path.t[0])))
    expected = solve(ddim.eps_model(None), noisy, path, clamp=True)
    torch.testing.assert_close(ddim.sdedit(x, t_0=0.5, steps=20), expected)
    with pytest.raises(ValueError, match=r"within 0..1, got 1.5"):
        ddim.sdedit(x, t_0=1.5)


def test_each_kind_refuses_the_others_configuration(tiny):
    with pytest.raises(ValueError, match="its z_dim must be None, got 6"):
        DDIM(tiny)
    with pytest.raises(ValueError, match="needs a z_dim"):
        DiffusionAutoencoder(replace(tiny, z_dim=None))


def test_slerp_returns_its_ends_and_keeps_the_norm():
    a, b = torch.randn(2, 4, 3, 8, 8)
    assert slerp(a, b, 0.0) is a
    assert slerp(a, b, 1.0) is b
    b = b / b.flatten(1).norm(dim=1)[:, None, None, None] * a.flatten(1).norm(dim=1)[:, None, None, None]
    for weight in (0.1, 0.5, 0.9):
        assert torch.allclose(slerp(a, b, weight).flatten(1).norm(dim=1), a.flatten(1).norm(dim=1), rtol=1e-5)


# Saved models and what is beside them --------------------------------------------------------------------------------


@pytest.fixture
def ae(tiny):
    torch.manual_seed(0)
    model = perturb(DiffusionAutoencoder(tiny)).eval()
    model.standardizer = Standardizer(torch.full((6,), 2.0), torch.full((6,), 0.5))
    return model


def some_attributes():
    attributes = Attributes({"Round": Score("binary", 10, 0.5, 5, auroc=0.75)}, 6)
    for buffer in (attributes.weight, attributes.pattern):
        buffer.normal_(generator=torch.Generator().manual_seed(3))
    return attributes


def test_a_plain_ddim_is_saved_and_read_and_not_taken_for_an_autoencoder(ddim, x, tmp_path):
    ddim.save_pretrained(tmp_path / "ddim")
    again = diffae.load_diffusion(tmp_path / "ddim")
    assert torch.equal(again.reconstruct(x, steps=2), ddim.reconstruct(x, steps=2))
    with pytest.raises(ValueError, match="holds a plain DDIM, which has no z_sem. Read it with `diffae.load_diffusion`"):
        diffae.load(tmp_path / "ddim")


@pytest.mark.parametrize(
    "prior",
    [
        GaussianPrior(6),
        KernelPrior.of(torch.randn(20, 6, generator=torch.Generator().manual_seed(0))),
        LatentPrior(PriorConfig(z_dim=6, width=8, layers=3, gaussian_start=True)),
    ],
)
def test_prior_standardiser_and_attributes_travel_with_the_autoencoder(ae, x, tmp_path, prior):
    ae.prior, ae.attributes, ae.about = prior, some_attributes(), {"data": "three squares"}
    ae.save_pretrained(tmp_path / "model")
    again = diffae.load(tmp_path / "model")
    assert torch.equal(again.sample(2, steps=2, prior_steps=2), ae.sample(2, steps=2, prior_steps=2))
    assert torch.equal(again.manipulate(x, "Round", steps=2), ae.manipulate(x, "Round", steps=2))
    assert again.attributes.scores == ae.attributes.scores
    assert again.about == {"data": "three squares"}


def test_a_file_in_bfloat16_has_rounded_networks_and_all_else_as_it_was(ae, tmp_path):
    ae.prior, ae.attributes = LatentPrior(PriorConfig(z_dim=6, width=8, layers=3)), some_attributes()
    for folder, dtype in (("whole", None), ("half", torch.bfloat16)):
        ae.save_pretrained(tmp_path / folder, dtype=dtype)
    sizes = [(tmp_path / folder / "model.safetensors").stat().st_size for folder in ("whole", "half")]
    assert sizes[1] < 0.75 * sizes[0], "a small network has much that is no weight"
    again, networks = diffae.load(tmp_path / "half"), {name for name, _ in ae.named_parameters()}
    for name, tensor in ae.state_dict().items():
        expected = tensor.bfloat16().float() if name in networks else tensor
        assert torch.equal(again.state_dict()[name], expected), name
        assert again.state_dict()[name].dtype == tensor.dtype, name
    assert "attributes.weight" not in networks


def test_several_priors_live_beside_one_autoencoder_and_one_is_chosen_by_name(ae, tmp_path):
    ae.save_pretrained(tmp_path / "run" / "model")
    for name, shift in (("gaussian", 1.0), ("mine", 2.0), ("ddim", 3.0)):
        ae.prior = GaussianPrior(6)
        ae.prior.mean.fill_(shift)
        save_part(ae, prior_folder(tmp_path / "run", name) / "model", ["prior", "standardizer"])
    assert available_priors(tmp_path / "run") == ["ddim", "gaussian", "mine"]
    assert float(diffae.load(tmp_path / "run").prior.mean[0]) == 3
    assert float(diffae.load(tmp_path / "run", prior="mine").prior.mean[0]) == 2
    with pytest.raises(FileNotFoundError, match="no prior 'other' beside .*; there are: ddim, gaussian, mine"):
        diffae.load(tmp_path / "run", prior="other")


def test_what_was_fitted_to_another_state_of_the_encoder_is_left_out_and_said(ae, tmp_path):
    ae.save_pretrained(tmp_path)
    ae.prior, ae.attributes = GaussianPrior(6), some_attributes()
    save_part(ae, prior_folder(tmp_path, "gaussian") / "model", ["prior", "standardizer"])
    save_part(ae, tmp_path / "attributes", ["attributes"])
    assert diffae.load(tmp_path).attributes is not None
    before = fingerprint(ae)
    ae.encoder.linear.bias.data.add_(1)
    assert fingerprint(ae) != before
    ae.prior = ae.attributes = None
    ae.save_pretrained(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = diffae.load(tmp_path)
    assert len(caught) == 2
    assert "was fitted to z_sem of another encoder" in str(caught[0].message)
    assert again.prior is None
    assert again.attributes is None
    with pytest.raises(ValueError, match="fitted to z_sem of another encoder"):
        diffae.load(tmp_path, prior="gaussian")


def test_a_prior_of_another_dimension_is_refused(ae, tmp_path):
    ae.prior = LatentPrior(PriorConfig(z_dim=6, width=8, layers=3))
    ae.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["prior"]["z_dim"] = 7
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="The prior is one of 7 dimensions, but z_sem of this autoencoder has 6"):
        diffae.load(tmp_path)


def test_editing_needs_attributes_or_a_unit_vector(ae, x):
    with pytest.raises(ValueError, match="has no attributes yet. Fit them with `diffae fit-attributes"):
        ae.manipulate(x, "Round")
    unit = torch.eye(6)[0]
    assert torch.allclose(ae.edit(torch.full((1, 6), 2.0), unit, strength=1.0)[0], 2 + 0.5 * 6**0.5 * unit)
    with pytest.raises(ValueError, match="can neither keep attributes nor reach a probability"):
        ae.edit(torch.zeros(1, 6), unit, target_probability=0.9)
    ae.attributes = some_attributes()
    assert torch.equal(ae.edit(torch.zeros(1, 6), "Round", strength=0.2), ae.edit(torch.zeros(1, 6), {"Round": 0.2}))


def test_an_edit_grows_until_the_picture_shows_the_attribute_and_no_further(ae, x, monkeypatch):
    ae.attributes = some_attributes()
    ae.attributes.standardizer.load_state_dict(ae.standardizer.state_dict())
    z = ae.encode(x)
    rendered = []
    original = DiffusionAutoencoder.render

    def render(self, code, *, z_sem=None):
        rendered.append(z_sem.clone())
        return original(self, code, z_sem=z_sem)

    monkeypatch.setattr(DiffusionAutoencoder, "render", render)
    # An encoder that sees three quarters of what was done to z_sem, so the first try falls short and a later one does not.
    monkeypatch.setattr(DiffusionAutoencoder, "encode", lambda self, images: z if len(rendered) == 0 else seen())
    todo = []

    def seen():
        todo.append(len(rendered[-1]))
        return z[: len(rendered[-1])] + 0.75 * (rendered[-1] - z[: len(rendered[-1])])

    target = float(ae.attributes.probability("Round")(z).max()) * 0.5 + 0.5
    images = ae.manipulate(x, "Round", target_probability=target, steps=2)
    assert images.shape == x.shape
    assert todo == [3, 3], "all three fell short at once, and were there when what was lacking had been asked for"
    assert torch.allclose(rendered[1] - z, (rendered[0] - z) / 0.75, atol=1e-3)


def test_what_shows_an_attribute_already_is_not_touched(ae, x):
    ae.attributes = some_attributes()
    low = float(ae.attributes.probability("Round")(ae.encode(x)).min())
    if low < 0.5:
        ae.attributes.bias += 20
    code = ae.infer(x, steps=2)
    assert torch.equal(ae.manipulate(code, "Round", target_probability=0.5), ae.render(code))


def test_samples_of_a_class_are_chosen_among_the_same_proposals(ae):
    ae.prior, ae.attributes = GaussianPrior(6), some_attributes()
    ae.attributes.standardizer.load_state_dict(ae.standardizer.state_dict())
    free, chosen = ae.sample_z_sem(200), ae.sample_z_sem(30, accept=ae.attributes.probability("Round"))
    assert chosen.proposals > 30
    assert all((free.z_sem[: chosen.proposals] == z).all(1).any() for z in chosen.z_sem)
    assert ae.attributes.logits(chosen.z_sem).mean() > ae.attributes.logits(free.z_sem).mean() + 0.5
    images = ae.sample(3, steps=2, accept=ae.attributes.probability("Round"))
    assert images.shape == (3, 3, 8, 8)


def test_a_path_goes_through_every_image(ae, x):
    path = ae.interpolate_path(x, frames=4, steps=5)
    again = ae.reconstruct(x, steps=5)
    assert path.shape == (9, 3, 8, 8)
    # A batch of another size rounds otherwise, and this network enlarges that.
    assert torch.allclose(path[[0, 4, 8]], again, atol=5e-3)
    with pytest.raises(ValueError, match="at least two images, got 1"):
        ae.interpolate_path(x[:1])


@pytest.mark.filterwarnings("ignore:x_T has a standard deviation")
def test_noise_of_one_sign_is_no_mistake_but_uniform_noise_is(ddim):
    flat = torch.full((2, 3, 8, 8), 0.3) + 0.01 * torch.randn(2, 3, 8, 8)
    assert ddim.decode(flat, steps=2).shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"lies within 0..1: draw it with torch.randn"):
        ddim.decode(torch.rand(2, 3, 8, 8), steps=2)


def test_weights_and_their_configuration_are_a_pair_through_two_failures_in_a_row(tmp_path, monkeypatch):
    def pair():
        config, weights = files_of_weights(tmp_path / "model")
        return json.loads(config.read_text())["number"], float(safetensors.torch.load_file(weights)["w"])

    for folder, number in (("model", 1.0), ("other", 2.0)):
        write_weights(tmp_path / folder, {"number": number}, {"w": torch.tensor(number)})
    # A process that died after its weights had taken their place, and before its configuration had.
    config, weights = files_of_weights(tmp_path / "other")
    shutil.copy(config, tmp_path / "model" / f".config.json-{digest_file(weights)}")
    shutil.copy(weights, tmp_path / "model" / "model.safetensors")
    assert pair() == (2.0, 2.0)

    def full(path):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(weights_module, "replacing", full)
        with pytest.raises(OSError, match="No space"):
            write_weights(tmp_path / "model", {"number": 3.0}, {"w": torch.tensor(3.0)})
    assert pair() == (2.0, 2.0)
    write_weights(tmp_path / "model", {"number": 3.0}, {"w": torch.tensor(3.0)})
    assert pair() == (3.0, 3.0)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
