"""A model inside the library diffusers: its pipeline computes what we compute, and its schedulers are solvers here."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffae
from diffae import cli
from diffae.config import ScheduleConfig
from diffae.data.images import load_images
from diffae.diffusion.schedule import NoisePath, Schedule, spaced_path
from diffae.diffusion.solvers import solve, trajectory

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'diffae[interop]'")

from diffae.interop.diffusers import DiffAEPipeline, DiffAEUNet, SchedulerStep, write_folder  # noqa: E402
from diffae.interop.diffusers.schedulers import ADAPTABLE, DECODING  # noqa: E402

# NumPy's, of tensors that diffusers turns into arrays; and ours, of x_T that a network infers which is hardly trained.
pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in ("__array", "x_T has a standard deviation")]
SCHEDULE = Schedule(ScheduleConfig())
ROUNDING = 1e-4
"""Of images in [0, 1], a fortieth of a grey level of 8 bits: schedulers have float32 levels, products of a thousand factors, ours
are float64; and at large t an eps-predicting network's x_0 is divided by an alpha of less than a hundredth."""


def trained(config, *, seed=0):
    """A model whose last layers are not zero, so that its networks say something, but not so much that its ODE is wild."""
    torch.manual_seed(seed)
    ae = diffae.DiffusionAutoencoder(config).eval()
    for network in (ae.unet, ae.encoder):
        for weight in network.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.05)
    return ae


@pytest.fixture(params=["eps", "v"])
def ae(request, tiny):
    return trained(replace(tiny, prediction=request.param))


@pytest.fixture
def images():
    """Three images in [0, 1], and the same in [-1, 1]."""
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return x, x * 2 - 1


def loaded(folder, **more):
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipeline_of(ae):
    pipe = DiffAEPipeline.from_autoencoder(ae)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def shown(x):
    return (x / 2 + 0.5).clamp(0, 1)


def near(a, b, *, within=ROUNDING):
    assert a.shape == b.shape
    error = float((a - b).abs().max() / b.abs().max().clamp(min=1))
    assert error < within


# The pipeline -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [10, 20])
def test_the_pipeline_computes_what_the_autoencoder_computes(ae, images, steps):
    pipe, (shares, x) = pipeline_of(ae), images
    z_sem = ae.encode(x)
    assert torch.equal(pipe.encode(shares), z_sem)
    x_T = ae.invert(x, z_sem, steps=steps, solver="ddim")
    near(pipe.invert(shares, z_sem, num_inference_steps=steps), x_T)
    x_hat = ae.decode(z_sem, x_T, steps=steps, solver="ddim")
    assert (x_hat - x).abs().max() > 10 * ROUNDING  # An identity would prove nothing.
    near(pipe(z_sem=z_sem, x_T=x_T, num_inference_steps=steps, output_type="pt").images, shown(x_hat))
    near(pipe(shares, num_inference_steps=steps, output_type="pt").images, shown(x_hat))


def test_an_image_with_another_z_sem_is_edited_along_its_own_x_T(ae, images):
    pipe, (shares, x) = pipeline_of(ae), images
    z_sem = ae.encode(x)
    other = z_sem.flip(0) + 1
    expected = ae.decode(other, ae.invert(x, z_sem, steps=10, solver="ddim"), steps=10, solver="ddim")
    near(pipe(shares, z_sem=other, num_inference_steps=10, output_type="pt").images, shown(expected))


def test_drawn_noise_is_the_autoencoders_and_does_not_depend_on_the_batch(ae, images):
    pipe, z_sem = pipeline_of(ae), ae.encode(images[1])
    drawn = pipe(z_sem=z_sem, num_inference_steps=10, generator=torch.Generator().manual_seed(3), output_type="pt").images
    expected = ae.decode(z_sem, steps=10, solver="ddim", generator=torch.Generator().manual_seed(3))
    near(drawn, shown(expected))
    one = pipe(z_sem=z_sem[:1], num_inference_steps=10, generator=torch.Generator().manual_seed(3), output_type="pt").images
    near(one, drawn[:1])
    others = [pipe(z_sem=z_sem, num_inference_steps=2, output_type="pt").images for _ in range(2)]
    assert not torch.equal(*others)


def test_up_to_four_steps_of_a_distilled_model_are_jumps_whatever_the_scheduler(tiny, images):
    ae = trained(replace(tiny, prediction="v", unet=replace(tiny.unet, jumps=True)))
    pipe, (shares, x) = pipeline_of(ae), images
    z_sem = ae.encode(x)
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    drawn = [pipe(z_sem=z_sem, num_inference_steps=n, generator=torch.Generator().manual_seed(3), output_type="pt") for n in (1, 4)]
    for n, found in zip((1, 4), drawn, strict=True):
        near(found.images, shown(ae.decode(z_sem, steps=n, generator=torch.Generator().manual_seed(3))))
    assert (drawn[0].images - drawn[1].images).abs().max() > 10 * ROUNDING
    x_T = pipe.invert(shares, num_inference_steps=2)
    near(x_T, ae.invert(x, z_sem, steps=2))
    other = z_sem.flip(0) + 1
    edited = pipe(shares, z_sem=other, num_inference_steps=2, output_type="pt").images
    near(edited, shown(ae.decode(other, x_T, steps=2)))
    near(pipe(z_sem=other, x_T=x_T, num_inference_steps=2, output_type="pt").images, edited)
    with pytest.raises(ValueError, match=r"A jump has no eta, got 0\.5"):
        pipe(shares, num_inference_steps=2, eta=0.5)


def test_eta_adds_noise_that_the_generator_draws(ae, images):
    pipe, z_sem = pipeline_of(ae), ae.encode(images[1])
    x_T = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))

    def made(eta, seed):
        given = dict(z_sem=z_sem, x_T=x_T, num_inference_steps=10, eta=eta, output_type="pt")
        return pipe(**given, generator=torch.Generator().manual_seed(seed)).images

    assert torch.equal(made(0, 1), made(0, 2))
    assert torch.equal(made(1, 1), made(1, 1))
    assert not torch.equal(made(1, 1), made(1, 2))


def dpmpp(pipe):
    return diffusers.DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, lower_order_final=False, final_sigmas_type="sigma_min"
    )


def test_dpm_solver_decodes_as_ours_along_its_own_levels_and_inverts_along_them(ae, images):
    pipe, (shares, x) = pipeline_of(ae), images
    z_sem, pipe.scheduler = ae.encode(x), dpmpp(pipe)
    pipe.scheduler.set_timesteps(20)
    t = torch.cat([pipe.scheduler.timesteps.double(), torch.zeros(1, dtype=torch.float64)])
    path = NoisePath(SCHEDULE.levels(t.long()), t)
    with torch.no_grad():
        x_T = solve(ae.eps_model(z_sem), x, path.backwards(), solver="dpmpp2m")
        x_hat = solve(ae.eps_model(z_sem), x_T, path, solver="dpmpp2m")
    near(pipe.invert(shares, z_sem, num_inference_steps=20), x_T)
    near(pipe(z_sem=z_sem, x_T=x_T, num_inference_steps=20, output_type="pt").images, shown(x_hat))


OTHERS = """DDPMScheduler DEISMultistepScheduler EulerDiscreteScheduler EulerAncestralDiscreteScheduler HeunDiscreteScheduler
PNDMScheduler UniPCMultistepScheduler""".split()


def test_schedulers_made_from_the_models_own_decode_and_those_without_noise_end_where_ours_do(tiny, images):
    ae = trained(replace(tiny, prediction="v"))
    pipe, z_sem, x_T = pipeline_of(ae), ae.encode(images[1][:1]), ae.draw_x_T(1, 0)
    ours = shown(ae.decode(z_sem, x_T, steps=100, solver="ddim", clamp=False))
    for name in OTHERS:
        generator = torch.Generator().manual_seed(0)
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, clip_sample=False)
        made = pipe(z_sem=z_sem, x_T=x_T, num_inference_steps=20, output_type="pt", generator=generator).images
        assert made.shape == (1, 3, 8, 8)
        assert made.isfinite().all()
        if name not in ("DDPMScheduler", "EulerAncestralDiscreteScheduler"):
            assert (made - ours).square().mean() < 5e-4, name


def test_a_schedule_that_ends_in_noise_alone_is_the_schedulers_too(tiny, images):
    ae = trained(replace(tiny, prediction="v", schedule=ScheduleConfig(zero_terminal_snr=True)))
    pipe, z_sem = pipeline_of(ae), ae.encode(images[1])
    x_T = ae.invert(images[1], z_sem, steps=10, solver="ddim")
    near(pipe.invert(images[0], z_sem, num_inference_steps=10), x_T)
    made = pipe(z_sem=z_sem, x_T=x_T, num_inference_steps=10, output_type="pt").images
    near(made, shown(ae.decode(z_sem, x_T, steps=10, solver="ddim")))


def test_pictures_are_prepared_as_the_models_are_and_come_back_as_asked_for(tiny, tmp_path):
    ae = trained(replace(tiny, prediction="v"))
    pipe = pipeline_of(ae)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 12, 20, 4), dtype=np.uint8)
    pictures = [Image.fromarray(p) for p in pixels]
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    x = load_images([tmp_path / f"{i}.png" for i in range(3)], size=(8, 8), channels=3, preparation=ae.preparation)
    assert torch.equal(pipe.encode(pictures), ae.encode(x))
    assert torch.equal(pipe.encode(pictures[0]), ae.encode(x[:1]))
    given = dict(num_inference_steps=2)
    tensors = pipe(pictures, output_type="pt", **given).images
    arrays = pipe(pictures, output_type="np", **given).images
    assert arrays.shape == (3, 8, 8, 3)
    assert np.array_equal(arrays, tensors.permute(0, 2, 3, 1).numpy())
    assert torch.allclose(pipe.encode(arrays), pipe.encode(tensors), atol=1e-6)
    drawn = pipe(pictures, **given).images
    assert [picture.size for picture in drawn] == [(8, 8)] * 3
    assert np.abs(np.asarray(drawn[0]) / 255 - arrays[0]).max() <= 0.5 / 255 + 1e-6
    (in_a_tuple,) = pipe(pictures, output_type="np", return_dict=False, **given)
    assert np.array_equal(in_a_tuple, arrays)


def test_what_cannot_be_is_refused_in_words(tiny, images):
    ae = trained(tiny)
    pipe, z_sem = pipeline_of(ae), torch.zeros(2, 6)
    for wrong, says in (
        (dict(), "Give an image, or z_sem"),
        (dict(z_sem=z_sem[:, :3]), r"Expected z_sem of shape \(n, 6\), got \(2, 3\)"),
        (dict(image=images[0], z_sem=z_sem), r"Expected z_sem of shape \(3, 6\), got \(2, 6\)"),
        (dict(z_sem=z_sem, x_T=torch.randn(3, 3, 8, 8)), r"Expected x_T of shape \(2, 3, 8, 8\)"),
        (dict(z_sem=z_sem, num_inference_steps=0), "num_inference_steps must be at least 1, got 0"),
        (dict(z_sem=z_sem, output_type="latent"), "Unknown output_type 'latent'"),
        (dict(image=images[1]), r"in \[0, 1\], as everywhere in diffusers, got torch.float32, -"),
        (dict(image=images[0][:, :, :4]), r"Expected tensors \(n, 3, 8, 8\), got \(3, 3, 4, 8\)"),
        (dict(image=Image.new("CMYK", (8, 8))), "got one of mode 'CMYK'"),
        (dict(image=["face.png"]), "got str"),
    ):
        with pytest.raises(ValueError, match=says):
            pipe(**wrong)
    for scheduler, says in (
        (
            diffusers.DDIMScheduler(prediction_type="v_prediction"),
            "predicts 'epsilon', and this DDIMScheduler takes its output for 'v",
        ),
        (
            diffusers.DDIMScheduler(beta_schedule="scaled_linear"),
            "are not those that the network was trained with. Make it by DDIM",
        ),
        (diffusers.DDIMScheduler(num_train_timesteps=500), "are not those that the network was trained with"),
        (diffusers.FlowMatchEulerDiscreteScheduler(), "The noise levels of this FlowMatchEulerDiscreteScheduler are not those"),
    ):
        pipe.scheduler = scheduler
        with pytest.raises(ValueError, match=says):
            pipe(z_sem=z_sem)
        with pytest.raises(ValueError, match=says):
            pipe.invert(images[0])
    pipe.scheduler = dpmpp(pipeline_of(ae))
    with pytest.raises(ValueError, match="DPMSolverMultistepScheduler has no eta, got 0.5"):
        pipe(z_sem=z_sem, eta=0.5)
    with pytest.raises(ValueError, match="are of different models"):
        DiffAEPipeline(pipe.unet, pipeline_of(trained(replace(tiny, z_dim=5))).encoder, pipe.scheduler)
    own = diffae.DiffusionAutoencoder(tiny, unet=torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="cannot build networks of your own .torch.nn.modules.linear.Linear"):
        DiffAEPipeline.from_autoencoder(own)


# Its folder ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_a_pipeline_again_however_it_is_loaded_and_saved(ae, images, tmp_path):
    folder, again = tmp_path / "pipeline", tmp_path / "again"
    ae.preparation = replace(ae.preparation, crop="none")
    ae.calibration = replace(ae.calibration, t_max=900.0, steps=12)
    write_folder(ae, folder)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "README.md",
        "encoder/config.json",
        "encoder/diffae_encoder.py",
        "encoder/diffusion_pytorch_model.safetensors",
        "model_index.json",
        "pipeline.py",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffae_unet.py",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    assert not list(tmp_path.glob(".*"))  # What it was written in.

    def made(pipe):
        pipe.set_progress_bar_config(disable=True)
        return pipe(images[0], num_inference_steps=4, output_type="pt").images

    expected = made(pipeline_of(ae))
    pipe = loaded(folder)
    assert type(pipe) is DiffAEPipeline
    pipe.save_pretrained(again)
    written = json.loads((again / "model_index.json").read_text())
    assert written == json.loads((folder / "model_index.json").read_text())
    assert "tmp" not in json.dumps(written)
    for found in (pipe, loaded(again), loaded(again, custom_pipeline=str(again)), DiffAEPipeline.from_pretrained(again)):
        assert torch.equal(made(found), expected)
        assert found.autoencoder.preparation == ae.preparation
        assert found.autoencoder.calibration == ae.calibration
        for ours, theirs in ((ae.unet, found.unet.network), (ae.encoder, found.encoder.network)):
            for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
                assert torch.equal(a, b)
                assert a.stride() == b.stride()  # The layout that convolutions want.
    other = loaded(again, scheduler=dpmpp(pipe))
    assert torch.isfinite(made(other)).all()
    assert torch.equal(DiffAEUNet.from_pretrained(folder / "unet").network.conv_in.weight, ae.unet.conv_in.weight)


def test_the_autoencoder_of_a_pipeline_does_what_others_do(tiny, images):
    ae = trained(replace(tiny, prediction="v"))
    same = pipeline_of(ae).autoencoder
    assert torch.equal(same.reconstruct(images[1], steps=4), ae.reconstruct(images[1], steps=4))


def test_a_folders_code_runs_only_if_it_is_trusted_and_not_at_all_where_the_classes_are_at_hand(tiny, tmp_path):
    write_folder(trained(tiny), tmp_path / "pipeline")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        diffusers.DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    for code in (tmp_path / "pipeline").rglob("*.py"):
        code.write_text("raise SystemExit('run')")
    DiffAEPipeline.from_pretrained(tmp_path / "pipeline")
    with pytest.raises(SystemExit):
        loaded(tmp_path / "pipeline")
    index = tmp_path / "pipeline" / "model_index.json"
    index.write_text(index.read_text().replace("DiffAEUNet", "UNet2DModel"))
    with pytest.raises(ValueError, match="is of no DiffAEPipeline: model_index.json says"):
        DiffAEPipeline.from_pretrained(tmp_path / "pipeline")


def test_weights_of_half_the_size_are_float32_again_and_the_model_stays_as_it_is(tiny, images, tmp_path):
    ae = trained(tiny)
    before = {name: weight.clone() for name, weight in ae.state_dict().items()}
    ae.train().encoder.eval()
    modes = [module.training for module in ae.modules()]
    write_folder(ae, tmp_path / "half", dtype=torch.bfloat16)
    write_folder(ae, tmp_path / "whole")
    assert [module.training for module in ae.modules()] == modes, "who exports in the middle of training goes on"
    ae.eval()
    assert all(torch.equal(before[name], weight) for name, weight in ae.state_dict().items())
    half, whole = ((tmp_path / kind / "unet/diffusion_pytorch_model.safetensors").stat().st_size for kind in ("half", "whole"))
    assert half < 0.7 * whole
    ae.save_pretrained(tmp_path / "ours", dtype=torch.bfloat16)
    pipe = loaded(tmp_path / "half")
    assert pipe.unet.dtype == torch.float32
    assert torch.equal(pipe.encode(images[0]), diffae.load(tmp_path / "ours").encode(images[1]))
    pipe.to(torch.bfloat16)
    made = pipe(images[0], num_inference_steps=2, output_type="pt").images
    assert made.dtype == torch.float32
    assert made.isfinite().all()


def test_an_interrupted_writing_leaves_the_old_folder(tiny, tmp_path, monkeypatch):
    folder = tmp_path / "pipeline"
    write_folder(trained(tiny), folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def fails(self, *args, **kwargs):
        raise RuntimeError("cut")

    monkeypatch.setattr(DiffAEPipeline, "save_pretrained", fails)
    with pytest.raises(RuntimeError, match="cut"):
        write_folder(trained(tiny, seed=1), folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_without_diffae_a_folder_says_what_is_missing(tiny, tmp_path):
    write_folder(trained(tiny), tmp_path / "pipeline")
    code = "import sys; sys.modules['diffae'] = None\n"
    code += (
        f"from diffusers import DiffusionPipeline as P; P.from_pretrained({str(tmp_path / 'pipeline')!r}, trust_remote_code=True)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode
    assert "ImportError: This model is one of diffae, which has to be installed: pip install 'diffae[interop]'." in out.stderr


@pytest.mark.slow
def test_without_diffusers_it_says_what_is_missing():
    code = "import sys; sys.modules['diffusers'] = None\nimport diffae.interop.diffusers"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: This is for the library diffusers, which is not installed: pip install 'diffae[interop]'." in out.stderr


def test_the_command_writes_it_with_its_card(tiny, images, tmp_path, capsys):
    ae = trained(tiny)
    ae.save_pretrained(tmp_path / "model")
    out = tmp_path / "pipeline"
    cli.main(["export", str(tmp_path / "model"), str(out), "--format", "diffusers", "--licence", "mit"])
    assert f"DiffusionPipeline.from_pretrained('{out.as_posix()}', trust_remote_code=True)" in capsys.readouterr().out.replace(
        "\n", ""
    )
    card = (out / "README.md").read_text()
    assert "library_name: diffusers" in card
    assert 'license: "mit"' in card
    assert "Reconstruct, vary and interpolate." in card
    assert torch.equal(loaded(out).encode(images[0]), ae.encode(images[1]))


@pytest.mark.slow
def test_the_drawn_faces_are_the_same_in_the_pipeline(tmp_path):
    ae = diffae.load(Path(__file__).parents[1] / "models" / "avatars64")
    x = ae.decode(torch.randn(1, 512, generator=torch.Generator().manual_seed(0)), steps=4).clamp(-1, 1)
    write_folder(ae, tmp_path / "faces")
    pipe, z_sem = loaded(tmp_path / "faces"), ae.encode(x)
    near(pipe.encode(shown(x)), z_sem, within=1e-5)
    x_T = ae.invert(x, z_sem, steps=10, solver="ddim")
    near(pipe.invert(shown(x), num_inference_steps=10), x_T, within=1e-4)
    x_hat = shown(ae.decode(z_sem, x_T, steps=10, solver="ddim"))
    near(pipe(shown(x), num_inference_steps=10, output_type="pt").images, x_hat, within=2e-5)


# Schedulers as solvers ----------------------------------------------------------------------------------------------


def gaussian_eps(x, t):
    """The noise in x_t where data are Gaussian."""
    alpha, sigma = SCHEDULE.alpha_sigma(t, like=x)
    return sigma * (x - alpha * 0.3) / (alpha**2 * 0.25 + sigma**2)


X = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PATH = spaced_path(SCHEDULE, 20, t_max=950)


@pytest.mark.parametrize("path", [PATH, PATH.to_the_image()], ids=["to the last level", "to the image"])
@pytest.mark.parametrize(
    ("name", "settings", "solver", "within"),
    [
        ("DDIMScheduler", {}, "ddim", 1e-12),
        ("DPMSolverMultistepScheduler", {"lower_order_final": False}, "dpmpp2m", 2e-6),
        ("UniPCMultistepScheduler", {"lower_order_final": False}, "unipc", 1e-12),
        ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, "ddim", 2e-6),
    ],
)
def test_a_scheduler_steps_as_our_solver_of_its_kind(name, settings, solver, within, path):
    step = SchedulerStep(getattr(diffusers, name)(**settings))
    for _ in range(2):  # What it remembers of one way is forgotten at the next.
        near(solve(gaussian_eps, X, path, solver=step), solve(gaussian_eps, X, path, solver=solver), within=within)


@pytest.mark.parametrize("kind", ADAPTABLE, ids=lambda kind: kind.__name__)
def test_every_adapted_scheduler_follows_the_ode_one_way_or_both(kind):
    solution = solve(gaussian_eps, X, spaced_path(SCHEDULE, 1000, t_max=950), solver="dpmpp2m")
    step = SchedulerStep(kind())
    errors = []
    for steps in (20, 80):
        path = spaced_path(SCHEDULE, steps, t_max=950)
        errors.append((solve(gaussian_eps, X, path, solver=step) - solution).abs().max().item())
    assert errors[1] < errors[0] / 3
    assert errors[1] < 0.04
    if kind in DECODING:
        with pytest.raises(ValueError, match=f"{kind.__name__} decodes, but does not invert"):
            solve(gaussian_eps, solution, path.backwards(), solver=step)
    else:
        near(solve(gaussian_eps, solution, path.backwards(), solver=step), X, within=0.3)


def test_the_levels_are_the_paths_whatever_the_scheduler_says_of_its_own():
    plain = SchedulerStep(diffusers.DPMSolverMultistepScheduler())
    told = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        beta_end=0.012,
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        num_train_timesteps=500,
    )
    told.set_timesteps(7)
    timesteps = told.timesteps.clone()
    assert torch.equal(solve(gaussian_eps, X, PATH, solver=SchedulerStep(told)), solve(gaussian_eps, X, PATH, solver=plain))
    assert torch.equal(told.timesteps, timesteps)
    clamped = SchedulerStep(diffusers.DDIMScheduler(clip_sample=True))
    near(solve(gaussian_eps, X, PATH, solver=clamped), solve(gaussian_eps, X, PATH, solver="ddim"), within=1e-12)
    states = [state for state, _ in trajectory(gaussian_eps, X, PATH, solver=clamped, clamp=True)]
    near(states[-1], solve(gaussian_eps, X, PATH, solver="ddim", clamp=True), within=1e-12)


def test_an_autoencoder_takes_a_scheduler_where_it_takes_a_solver(ae, images):
    z_sem, step = ae.encode(images[1]), SchedulerStep(diffusers.DPMSolverMultistepScheduler(lower_order_final=False))
    x_T = ae.invert(images[1], z_sem, steps=8)
    within = 5 * ROUNDING  # Nothing is clamped here, and an untrained network's ODE enlarges errors.
    near(ae.invert(images[1], z_sem, steps=8, solver=step), x_T, within=within)
    near(ae.decode(z_sem, x_T, steps=8, solver=step), ae.decode(z_sem, x_T, steps=8), within=within)
    near(ae.decode(z_sem, seed=1, steps=8, solver=step), ae.decode(z_sem, seed=1, steps=8), within=within)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("EulerAncestralDiscreteScheduler", {}, "EulerAncestralDiscreteScheduler cannot be a solver here"),
        ("DDPMScheduler", {}, "draws noise, asks the network twice, or keeps to timesteps of its own"),
        ("HeunDiscreteScheduler", {}, "These can: DDIMScheduler, DPMSolverMultistepScheduler"),
        ("FlowMatchEulerDiscreteScheduler", {}, "cannot be a solver here"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "algorithm_type='sde-dpmsolver\\+\\+' is random"),
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, "set for flow matching"),
        ("DDIMScheduler", {"thresholding": True}, "thresholding=True changes what the network predicts"),
    ],
)
def test_schedulers_that_cannot_be_solvers_are_refused_with_the_reason(name, settings, says):
    with pytest.raises(ValueError, match=re.compile(says)):
        SchedulerStep(getattr(diffusers, name)(**settings))
