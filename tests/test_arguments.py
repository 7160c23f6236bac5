"""What is wrong with a command is said before it computes: its numbers, where it writes, the port that it wants."""

import dataclasses
import os
import socket
import sys
import typing
import warnings

import pytest
import torch
import tyro

from diffae import cli
from diffae.autoencoder import DiffusionAutoencoder
from diffae.cli import arguments
from diffae.cli.bench import BenchData, BenchNetwork
from diffae.config import Range
from diffae.config.presets import preset
from diffae.diffusion.border import check_images
from diffae.runtime.files import check_target
from diffae.semantics.prior import GaussianPrior
from diffae.semantics.standardizer import Standardizer

COMMANDS = [*cli.COMMANDS.values(), BenchNetwork, BenchData]


def fails(capsys, *args):
    """The one line that a failing command prints."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(a) for a in args])
    assert stopped.value.code == 1
    return " ".join(capsys.readouterr().err.split())


def metadata(kind):
    return getattr(kind, "__metadata__", ())


def plain_kinds(kind):
    """What a type is made of: of `tuple[int, ...] | None` int and None."""
    inner = typing.get_args(kind.__origin__ if metadata(kind) else kind)
    return {kind} if not inner else set().union(*map(plain_kinds, inner))


def ranged(kind):
    return any(isinstance(m, Range) for m in metadata(kind)) or any(map(ranged, typing.get_args(kind)))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.__name__)
def test_every_number_of_every_command_has_a_range_and_every_place_a_kind(command):
    for name, kind in typing.get_type_hints(command, include_extras=True).items():
        if {int, float} & plain_kinds(kind):
            assert ranged(kind), f"{name} has no range"
        if name == "out":
            assert any(isinstance(m, arguments.Writes) for m in metadata(kind)), f"{name} is no place of a kind"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["neighbours", "RUN", "a.png", "--num", "0"], "--num must be at least 1, got 0."),
        (["sample", "RUN", "--num", "0"], "--num must be at least 1, got 0."),
        (["sample", "RUN", "--prior-steps", "0"], "--prior-steps must be at least 1 and at most 1000, got 0."),
        (["encode", "RUN", "images", "--batch-size", "0"], "--batch-size must be at least 1, got 0."),
        (["encode", "RUN", "images", "--x-T-steps", "-1"], "--x-T-steps must be at least 1 and at most 1000, got -1."),
        (["vary", "RUN", "a.png", "--num", "-2"], "--num must be at least 1, got -2."),
        (["interpolate", "RUN", "a.png", "b.png", "--frames", "0"], "--frames must be at least 1, got 0."),
        (["manipulate", "RUN", "a.png", "--attribute", "A", "--strengths", "nan"], "--strengths must be at least -100"),
        (["manipulate", "RUN", "a.png", "--attribute", "A", "--target-probability", "1"], "--target-probability must be at least"),
        (["studio", "RUN", "--port", "70000"], "--port must be at least 1 and at most 65535, got 70000."),
        (["bench", "network", "--batches", "0"], "--batches must be at least 1, got (0,)."),
        (["train", "images", "--out", "run", "--minutes", "-1"], "--minutes must be at least 0, got -1.0."),
        (["calibrate", "RUN", "--num", "1"], "--num must be at least 2, got 1."),
        (["evaluate", "RUN", "--out", "page", "--steps", "0"], "--steps must be at least 1 and at most 1000, got (0,)."),
    ],
)
def test_a_number_out_of_its_range_is_said_by_its_option(capsys, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *args)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["reconstruct", "RUN", "a.png", "--out", "a.jpg"], "a.jpg is no name for what is written: its ending may be '.png'"),
        (["vary", "RUN", "a.png", "--out", "pictures"], "pictures is no name for what is written"),
        (["neighbours", "RUN", "a.png", "--out", "n.gif"], "n.gif is no name for what is written: its ending may be '.png'."),
        (
            ["encode", "RUN", "images", "--out", "codes.csv"],
            "codes.csv is no name for what is written",
        ),
        (["sample", "RUN", "--out", "file"], "file is a file, where a folder is to be written"),
        (["reconstruct", "RUN", "a.png", "--out", "folder.png"], "folder.png is a folder, where a file is to be written"),
        (["export", "RUN", "file"], "file is a file, where a folder is to be written"),
        (["train", "images", "--out", "file/run"], "file/run cannot be written:"),
        (["import", "last.ckpt", "--out", "file/model"], "file/model cannot be written:"),
        (["fit-attributes", "nowhere"], "first: `diffae export nowhere FOLDER`"),
    ],
)
def test_a_place_that_cannot_be_written_is_said_first(capsys, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    assert message in fails(capsys, *args)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_place_without_permission_is_said_first(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OSError, match=r"new/a\.png cannot be written: there is no permission to write to .*Name another place"):
        check_target(tmp_path / "new" / "a.png", (".png",))


def test_films_need_their_writer_before_they_are_computed(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert "Writing .mp4 needs imageio-ffmpeg" in fails(capsys, "vary", "RUN", "a.png", "--out", "a.mp4")


@dataclasses.dataclass
class Like:
    """A command as far as memory is concerned."""

    training: object = None
    batch_size: int = 8
    precision: str = "float32"


@pytest.mark.parametrize(
    ("fields", "ways"),
    [
        (("training",), "--training.accumulation auto; --training.recompute; a smaller --training.batch-size"),
        (("batch_size",), "a smaller --batch-size than 8."),
        (("batch_size", "precision"), "a smaller --batch-size than 8; --precision bfloat16."),
        ((), "fewer images at a time."),
    ],
)
def test_what_helps_where_memory_ends_is_what_the_command_has(fields, ways):
    command = dataclasses.make_dataclass("Command", [(f, object, getattr(Like(), f)) for f in fields])()
    error = cli._what_helps(command, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert ways in str(error)


@pytest.fixture(scope="module")
def ae(tiny):
    ae = DiffusionAutoencoder(tiny).eval()
    ae.standardizer, ae.prior = Standardizer(torch.zeros(6), torch.ones(6)), GaussianPrior(6).fit(torch.randn(50, 6))
    return ae


X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ae: ae.vary(X, num=0), "num must be at least 1, got 0"),
        (lambda ae: ae.sample(0), "num must be at least 1, got 0"),
        (lambda ae: ae.sample(-1), "num must be at least 1, got -1"),
        (lambda ae: ae.sample(2, batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda ae: ae.sample(2, prior_steps=0), "prior_steps must be at least 1, got 0"),
        (lambda ae: ae.sample(2, max_proposals=0), "max_proposals must be at least 1, got 0"),
        (lambda ae: ae.interpolate_path(X, frames=0), "frames must be at least 1, got 0"),
        (lambda ae: ae.interpolate(X, X, [0.0, float("nan")]), "weights that are numbers"),
        (lambda ae: ae.interpolate(X, X, []), "weights that are numbers"),
        (lambda ae: ae.decode_mean(torch.zeros(1, 6), t=5000), r"t must be within 0\.\.999, got 5000"),
        (lambda ae: ae.decode_mean(torch.zeros(1, 6), t=-1), r"t must be within 0\.\.999, got -1"),
        (lambda ae: ae.decode(torch.zeros(1, 6), steps=0), "A path needs at least one step, got 0"),
    ],
)
def test_calls_refuse_numbers_that_mean_nothing(ae, call, message):
    with pytest.raises(ValueError, match=message):
        call(ae)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ae: ae.encode(X, 5), "too many positional arguments"),
        (lambda ae: ae.decode(torch.zeros(1, 6), None, 20), "too many positional arguments"),
        (lambda ae: ae.encode(X, seed=0), "unexpected keyword argument 'seed'"),
        (lambda ae: ae.invert(X), "missing a required argument: 'z_sem'"),
    ],
)
def test_arguments_that_a_method_does_not_have_are_refused(ae, call, message):
    with pytest.raises(TypeError, match=message):
        call(ae)


def test_images_in_0_to_1_are_warned_of_and_others_are_not():
    shape, draw = (3, 8, 8), torch.Generator().manual_seed(0)
    unit = torch.rand(1, *shape, generator=draw)
    unit[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    with pytest.warns(UserWarning, match=r"None of these images has a value below 0 .*multiply them by 2 and subtract 1"):
        check_images(unit, shape)
    with pytest.warns(UserWarning, match="are they in"):
        check_images(torch.rand(4, *shape, generator=draw), shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bright = 0.3 + 0.7 * torch.rand(5, *shape, generator=draw)
        of_bytes = torch.randint(130, 256, (5, *shape), generator=draw) / 127.5 - 1
        for x in (X, torch.ones(5, *shape), torch.zeros(5, *shape), 0.3 + 0.7 * unit, bright, of_bytes):
            check_images(x, shape)
    with pytest.warns(UserWarning, match="are they in"):
        check_images(torch.randint(0, 256, (5, *shape), generator=draw) / 255, shape)


# The studio -----------------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = fails(capsys, "studio", "nowhere", "--port", port)
    assert f"127.0.0.1:{port} cannot be listened on (Address already in use). Give another --port." in error


@pytest.mark.parametrize("form", ["--preset {}", "--preset={}"])
def test_of_an_option_that_is_given_twice_the_last_counts_in_what_follows_from_it_too(form):
    argv = ["train", "images", "--out", "run", *form.format("avatars32").split(), *form.format("pictures64").split()]
    found = tyro.cli(cli._command(argv), args=argv)
    assert (found.preset, found.model, found.training) == ("pictures64", preset("pictures64").model, preset("pictures64").training)
