"""Numbers that are none are an error where they come in, not a file of NaN or a black picture."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffae import cli
from diffae.autoencoder import DiffusionAutoencoder
from diffae.nn import SemanticEncoder
from diffae.pictures import to_pil
from diffae.runtime.weights import check_finite


@pytest.fixture
def broken(tiny, tmp_path):
    """A saved model of whose encoder one weight is no number."""
    DiffusionAutoencoder(tiny).save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["encoder.conv_in.weight"].view(-1)[0] = torch.nan
    save_file(tensors, file)
    return tmp_path / "model"


@pytest.mark.parametrize("command", ["encode", "reconstruct", "vary", "neighbours"])
def test_a_model_of_which_a_weight_is_no_number_is_refused_by_every_command(broken, make_images, tmp_path, capsys, command):
    given = make_images(2) if command == "encode" else make_images(2) / "000.png"
    out = tmp_path / ("out.parquet" if command == "encode" else "out.png")
    with pytest.raises(SystemExit):
        cli.main([command, str(broken), str(given), "--out", str(out)])
    error = " ".join(capsys.readouterr().err.split())
    assert "model.safetensors holds 1 values that are not finite (NaN or infinite), in 'encoder.conv_in.weight' first" in error
    assert not out.exists()


def test_codes_that_are_no_numbers_are_refused(tiny):
    ae = DiffusionAutoencoder(tiny)
    ae.encoder.linear.bias.data[0] = torch.inf
    with pytest.raises(ValueError, match="not finite .* for 2 of 2 images"):
        ae.encode(torch.zeros(2, 3, 8, 8) - 0.5)


def test_a_picture_of_no_numbers_is_refused():
    with pytest.raises(ValueError, match="has 192 values that are not a number"):
        to_pil(torch.full((3, 8, 8), torch.nan))


def test_integers_and_finite_weights_are_taken():
    check_finite({"a": torch.zeros(2), "steps": torch.ones(1, dtype=torch.long)}, "here")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_that_do_not_vary_leave_the_encoder_as_it_is(tiny, dtype):
    encoder = SemanticEncoder(tiny.encoder, image_size=(8, 8), channels=3, z_dim=tiny.z_dim)
    before = encoder.linear.weight.clone()
    row = torch.randn(1, encoder.linear.in_features, dtype=dtype)
    encoder.whiten(row)
    encoder.whiten(row.repeat(31, 1) * (1 + 0.1 * torch.finfo(dtype).eps * torch.randn(31, 1, dtype=dtype)))
    assert torch.equal(encoder.linear.weight, before)
    encoder.whiten(torch.randn(31, encoder.linear.in_features, dtype=dtype))
    assert not torch.equal(encoder.linear.weight, before)
