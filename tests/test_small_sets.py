"""Small sets: augmentation that z_sem tells of, and runs that end where the held-out loss turns."""

from dataclasses import replace

import pytest
import torch
from runs import run

import diffae
from diffae.autoencoder import build
from diffae.config import FeaturesConfig
from diffae.runtime.seeding import Draws
from diffae.training import health
from diffae.training.early_stopping import EarlyStopping
from diffae.training.health import LossHealth
from diffae.training.run import Finished, Noted, Validated, resolve
from diffae.training.subjects import ImageSubject
from diffae.training.views import augmented, training_view


class Given:
    """Draws that are given: by default nothing happens to any image."""

    def __init__(self, num, **values):
        self.num, self.values = num, values

    def uniform(self, purpose):
        what = purpose.removeprefix("augment ")
        if what.endswith("?"):
            return torch.full((self.num,), 0.0 if what[:-1] in self.values else 0.9)
        return torch.full((self.num,), float(self.values.get(what, 0)))

    def normal(self, purpose, shape):
        return torch.tensor(self.values.get(purpose.removeprefix("augment "), 0.0)).expand(self.num, *shape)


@pytest.fixture
def x():
    return torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_images_of_which_nothing_is_asked_stay_bit_for_bit(x):
    assert torch.equal(augmented(x, Given(3), 0.5), x)
    many = x.repeat(40, 1, 1, 1)
    changed = (augmented(many, Draws.of(120, 0), 0.12) != many).flatten(1).any(1)
    assert 0.2 < changed.float().mean() < 0.6  # 1 - .88 ** 4 = .40
    assert torch.equal(augmented(many, Draws.of(120, 0), 0.0), many)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_rotation_by_right_angles_moves_pixels(x, quarters):
    turned = augmented(x, Given(3, angle=(quarters % 4) / 4 + 0.5), 0.5)
    assert any(torch.allclose(turned, torch.rot90(x, k, (2, 3)), atol=1e-5) for k in (quarters, -quarters))


def test_a_shift_is_in_shares_of_the_sides_and_mirrors_what_comes_in(x):
    moved = augmented(x, Given(3, shift=(1.0, 2.0)), 0.5)  # 1/8 of the width, 2/8 of the height
    torch.testing.assert_close(moved[:, :, :6, :7], x[:, :, 2:, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, :, :6, 7], x[:, :, 2:, 7], atol=1e-5, rtol=0)


def test_scales_and_stretches_are_about_the_middle():
    ramp = torch.linspace(-7 / 8, 7 / 8, 8)
    across = ramp.expand(1, 1, 8, 8)
    small = augmented(across, Given(1, scale=-5.0), 0.5)  # 2 ** -1
    torch.testing.assert_close(small, across / 2, atol=1e-5, rtol=0)
    for axis, wide, high in ((0.0, 0.5, 2.0), (0.25, 2.0, 0.5)):
        for image, factor in ((across, wide), (across.mT, high)):
            seen = augmented(image, Given(1, stretch=-5.0, axis=axis), 0.5)[:, :, 3:5, 3:5]
            torch.testing.assert_close(seen, image[:, :, 3:5, 3:5] * factor, atol=1e-5, rtol=0)


def test_a_wide_image_turns_without_being_sheared():
    tall = torch.zeros(1, 1, 8, 16)
    tall[:, :, :, 8:] = 1
    turned = augmented(tall, Given(1, angle=0.75), 0.5)
    halves = turned[0, 0, :, 4:12]
    assert {float(halves[:4].mean().round()), float(halves[4:].mean().round())} == {0.0, 1.0}
    torch.testing.assert_close(halves, halves[:, :1].expand(-1, 8), atol=1e-5, rtol=0)


def test_the_encoder_and_the_decoder_see_the_same_changed_images(tiny_run, tmp_path, write_colours, monkeypatch):
    from diffae.data import prepare

    write_colours(tmp_path / "images", 12)
    config = tiny_run(images=16, augment=1.0)
    config = resolve(replace(config, data=replace(config.data, source=str(tmp_path / "images"))), tmp_path / "run")
    subject = ImageSubject(config, prepare(config.data, size=config.model.image_size, channels=3))
    seen = {}

    class Watched(diffae.DiffusionAutoencoder):
        def loss(self, x_0, draws, **settings):
            seen["decoder"] = x_0
            return super().loss(x_0, draws, **settings)

    model = Watched(config.model)
    model.encoder.register_forward_hook(lambda module, given, said: seen.update(encoder=given[0]))
    batch, draws = subject.batch(range(8)), Draws.of(8, 0)
    subject.loss(model, batch, draws)
    assert torch.equal(seen["encoder"], seen["decoder"])
    plain = training_view(subject.rows.unpack(batch)[0], draws, flip=subject.config.data.flip)
    assert (seen["encoder"] != plain).flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("model", "training", "message"),
    [
        ({"z_dim": None}, {}, "there is no z_sem"),
        ({"latents": "some/vae"}, {}, "the images are latents"),
        ({}, {"z_sem_dropout": 0.1}, "z_sem_dropout takes it away"),
        ({"features": FeaturesConfig(network="inception")}, {}, "z_sem is of a frozen network"),
    ],
)
def test_augmentation_that_the_decoder_is_not_told_of_is_refused(tiny_run, model, training, message):
    with pytest.raises(ValueError, match=message):
        tiny_run(images=8, model=model, augment=0.1, **training)


# Where the held-out loss turns ---------------------------------------------------------------------------------------


@pytest.fixture
def losses(monkeypatch):
    """Held-out losses by images, in place of those that the model has."""
    given = {}

    def validate(self, ema):
        images = given["at"] = given.get("at", self.begins) + self.config.training.validate_every
        given.setdefault("weights", {})[images] = next(ema.parameters()).clone()
        return LossHealth(given["losses"][images])

    monkeypatch.setattr(ImageSubject, "validate", validate)
    monkeypatch.setattr(ImageSubject, "begins", 0, raising=False)
    return given


def turning(config, tmp_path, write_colours, **training):
    if not (tmp_path / "images").is_dir():
        write_colours(tmp_path / "images", 24)
    usual = {"validate_every": 16, "checkpoint_every": 16, "batch_size": 8}
    config = config(**usual | training)
    return replace(config, data=replace(config.data, source=str(tmp_path / "images")))


def test_a_run_ends_where_the_loss_has_turned_and_keeps_the_best(tiny_run, tmp_path, write_colours, losses):
    losses["losses"] = {16: 0.5, 32: 0.4, 48: 0.45, 64: 0.42, 80: 0.3}
    config = turning(tiny_run, tmp_path, write_colours, images=800, patience=32)
    events = run(config, tmp_path / "run")
    assert events[-1] == Finished(64, False)
    told = [e.text for e in events if isinstance(e, Noted)]
    assert told == [
        "Stopped: the held-out loss was lowest (0.4000 after 32 images) and has not fallen since (0.4200 after 64); the model is "
        "that of 32 images."
    ]
    kept = next(diffae.load(tmp_path / "run").parameters())
    assert torch.equal(kept, losses["weights"][32])
    assert not torch.equal(kept, losses["weights"][64])
    again = run(config, tmp_path / "run")
    assert again[-1] == Finished(64, False)
    assert not any(isinstance(e, Validated) for e in again)


def test_a_run_that_died_ends_where_the_whole_one_does(tiny_run, tmp_path, write_colours, losses):
    losses["losses"] = {16: 0.5, 32: 0.4, 48: 0.45, 64: 0.42, 80: 0.3}
    config = turning(tiny_run, tmp_path, write_colours, images=800, patience=32)
    run(config, tmp_path / "run", stop_after=56)
    losses["at"] = 48
    assert run(config, tmp_path / "run")[-1] == Finished(64, False)
    assert torch.equal(next(diffae.load(tmp_path / "run").parameters()), losses["weights"][32])


def test_a_run_that_ended_goes_on_with_more_patience(tiny_run, tmp_path, write_colours, losses):
    losses["losses"] = {16: 0.5, 32: 0.4, 48: 0.45, 64: 0.42, 80: 0.3, 96: 0.31}
    config = turning(tiny_run, tmp_path, write_colours, images=96, patience=32)
    assert run(config, tmp_path / "run")[-1] == Finished(64, False)
    longer = replace(config, training=replace(config.training, patience=40))
    assert run(longer, tmp_path / "run")[-1] == Finished(96, False)
    assert torch.equal(next(diffae.load(tmp_path / "run").parameters()), losses["weights"][80])


def test_patience_that_comes_later_counts_from_then_on(tiny_run, tmp_path, write_colours, losses):
    """The models before were not kept, so none of them is what a run could go back to."""
    losses["losses"] = {16: 0.3, 32: 0.4, 48: 0.45, 64: 0.44, 80: 0.46, 96: 0.47}
    config = turning(tiny_run, tmp_path, write_colours, images=48)
    run(config, tmp_path / "run")
    patient = replace(config, training=replace(config.training, images=800, patience=32))
    events = run(patient, tmp_path / "run", stop_after=72)
    assert next(e.text for e in events if isinstance(e, Noted)).startswith("training.patience counts from here on")
    losses["at"] = 64
    events = run(patient, tmp_path / "run")
    assert events[-1] == Finished(96, False)
    told = [e.text for e in events if isinstance(e, Noted)]
    assert len(told) == 1
    assert told[-1].endswith("the model is that of 64 images.")
    assert torch.equal(next(diffae.load(tmp_path / "run").parameters()), losses["weights"][64])


def test_a_run_that_got_worse_says_so(tiny_run, tmp_path, write_colours, losses):
    losses["losses"] = {16: 0.5, 32: 0.4, 48: 0.45}
    events = run(turning(tiny_run, tmp_path, write_colours, images=48), tmp_path / "run")
    told = [e.text for e in events if isinstance(e, Noted)]
    assert len(told) == 1
    assert told[0].startswith(
        "The held-out loss was lowest (0.4000 after 32 images) and has risen since (0.4500 after 48): the model"
    )
    assert "--images 32" in told[0]
    assert torch.equal(next(diffae.load(tmp_path / "run").parameters()), losses["weights"][48])


def test_a_run_that_was_still_learning_says_nothing(tiny_run, tmp_path, write_colours, losses):
    losses["losses"] = {16: 0.5, 32: 0.45, 48: 0.455}
    events = run(turning(tiny_run, tmp_path, write_colours, images=48), tmp_path / "run")
    assert not [e for e in events if isinstance(e, Noted)]


def test_patience_without_images_to_hold_out_is_refused(tiny_run, tmp_path, write_colours):
    config = turning(tiny_run, tmp_path, write_colours, images=48, patience=32)
    with pytest.raises(ValueError, match="waits for held-out images, and there are 0: set data.validation higher"):
        run(replace(config, data=replace(config.data, validation=0.0)), tmp_path / "run")


def test_patience_is_counted_from_the_lowest(tiny_run):
    config = replace(tiny_run(images=8).training, patience=10)
    found = EarlyStopping(
        config, [{"images": 5, "validation/loss": 1.0}, {"images": 7, "loss": 0.1}, {"images": 20, "validation/loss": 0.9}]
    )
    assert (found.best, found.is_due) == ((20, 0.9), False)
    assert not found.record(29, 0.95)
    assert not found.is_due
    found.record(30, 0.95)
    assert found.is_due
    assert EarlyStopping(replace(config, patience=None), [{"images": 5, "validation/loss": 1.0}]).note() is None


@pytest.mark.parametrize(("z_dim", "check", "losses"), [(4, health.check_codes, 2), (None, health.check_images, 1)])
def test_few_held_out_images_are_looked_at_at_many_timesteps(tiny, monkeypatch, z_dim, check, losses):
    torch.manual_seed(0)
    model = build(replace(tiny, z_dim=z_dim)).eval()
    seen = []
    real = type(model).loss
    monkeypatch.setattr(type(model), "loss", lambda self, x, draws, **kw: seen.append(draws) or real(self, x, draws, **kw))
    check(model, torch.rand(5, 3, 8, 8) * 2 - 1, batch_size=8, noisy=True, seed=0)
    numbers = torch.cat([draws.numbers for draws in seen])
    assert len(numbers) == losses * 65
    assert len(numbers.unique()) == 65, "each with its own timestep and noise"
