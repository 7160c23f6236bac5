"""The authors' checkpoints: every weight accounted for in both directions, and nothing guessed."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from diffae.config import PriorConfig, ScheduleConfig
from diffae.interop import official

FIXTURE = Path(__file__).parent / "fixtures" / "official" / "last.ckpt"


@pytest.fixture(scope="module")
def content():
    return torch.load(FIXTURE, weights_only=True)


@pytest.fixture
def load(content, tmp_path):
    """Loads the fixture after a change."""

    def load(change, **kwargs):
        changed = {"state_dict": dict(content["state_dict"]), "hyper_parameters": copy.deepcopy(content["hyper_parameters"])}
        change(changed["state_dict"], changed["hyper_parameters"])
        torch.save(changed, tmp_path / "last.ckpt")
        return official.load(tmp_path / "last.ckpt", **kwargs)

    return load


def test_every_weight_of_theirs_has_a_place_and_none_is_used_twice(content):
    names = content["state_dict"]
    theirs = sum(t.numel() for k, t in names.items() if k.startswith("ema_model.") and ".cond_layers." not in k)
    ae = official.load(FIXTURE)
    assert sum(p.numel() for p in ae.parameters()) == theirs


def test_an_autoencoder_without_a_latent_network_has_no_prior(load):
    def without(tensors, hyper):
        hyper["model_conf"]["latent_net_conf"] = None
        for key in [k for k in tensors if ".latent_net." in k or k.startswith("conds_")]:
            del tensors[key]

    ae = load(without)
    assert ae.prior is None
    assert ae.standardizer is None
    with pytest.raises(ValueError, match="has no latent prior"):
        ae.sample(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, h: t.pop("ema_model.out.2.weight"), r"1 weights are missing \(ema_model.out.2.weight"),
        (lambda t, h: t.pop("conds_mean"), r"1 weights are missing \(conds_mean"),
        (lambda t, h: t.update({"ema_model.extra": torch.zeros(1)}), r"1 have no place \(ema_model.extra"),
        (lambda t, h: t.update({"elsewhere": torch.zeros(1)}), r"1 have no place \(elsewhere"),
        (lambda t, h: t.update({"ema_model.out.2.bias": torch.zeros(4)}), r"unet.conv_out.bias has shape \(4,\) where .* \(3,\)"),
        (lambda t, h: h["model_conf"].update(num_res_blocks=3), "weights are missing"),
        (lambda t, h: h["model_conf"].update(resnet_two_cond=False), "has resnet_two_cond=False in model_conf; only True"),
        (lambda t, h: h["model_conf"].update(enc_pool="attention"), "has enc_pool='attention' in model_conf"),
        (lambda t, h: h.update(beta_scheduler="cosine"), "has beta_scheduler='cosine'; only 'linear'"),
        (lambda t, h: h.update(latent_beta_scheduler="cosine"), "has latent_beta_scheduler='cosine'"),
        (lambda t, h: h["model_conf"]["latent_net_conf"].update(use_norm=False), "has use_norm=False in latent_net_conf"),
        (lambda t, h: h["model_conf"]["latent_net_conf"].update(skip_layers=(2,)), r"has skip_layers=\(2,\) in latent_net_conf"),
    ],
)
def test_a_checkpoint_that_does_not_fit_says_where(load, change, message):
    with pytest.raises(ValueError, match=message):
        load(change)


def test_weights_of_half_precision_become_float32(load):
    def halve(tensors, hyper):
        tensors.update({k: t.half() for k, t in tensors.items() if t.is_floating_point()})

    ae, exact = load(halve), official.load(FIXTURE)
    for (name, a), (_, b) in zip(ae.state_dict().items(), exact.state_dict().items(), strict=True):
        assert a.dtype == torch.float32, name
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_file_with_raw_weights_alone_can_be_read_as_such(load):
    def drop(tensors, hyper):
        for key in [k for k in tensors if k.startswith("ema_model.")]:
            del tensors[key]

    assert load(drop, ema=False).prior is not None
    with pytest.raises(ValueError, match="weights are missing .*ema_model"):
        load(drop)


@pytest.mark.parametrize(
    ("kind", "start", "end"), [("const0.008", 0.008, 0.008), ("const0.01", 0.01, 0.01), ("linear", 1e-4, 0.02)]
)
def test_the_latent_schedule_is_the_one_the_checkpoint_names(content, kind, start, end):
    hyper = copy.deepcopy(content["hyper_parameters"]) | {"latent_beta_scheduler": kind}
    config = official.prior_config(hyper)
    assert config.schedule == ScheduleConfig(T=1000, beta_start=start, beta_end=end)
    assert isinstance(config, PriorConfig)


def test_the_encoder_has_levels_of_its_own_where_the_checkpoint_says_so(content):
    hyper = copy.deepcopy(content["hyper_parameters"])
    config = official.autoencoder_config(hyper)
    assert config.unet.channel_mult == (1, 2)
    assert config.encoder.channel_mult == (1, 2, 2)
    hyper["model_conf"]["enc_channel_mult"] = None
    assert official.autoencoder_config(hyper).encoder.channel_mult == (1, 2)


def test_digests_are_those_of_files_that_were_written_before_there_were_features_and_jumps(tiny):
    import hashlib
    import json

    from diffae.config import to_dict
    from diffae.diffusion.ddim import DDIM
    from diffae.interop.fingerprints import digest_model
    from diffae.runtime.weights import digest_module

    torch.manual_seed(0)
    model = DDIM(dataclasses.replace(tiny, z_dim=None))
    config = to_dict(model.config)
    before = {name: config[name] for name in config if name not in ("features", "learned", "mean_decoder")}
    assert len(before) == len(config) - 3
    assert before["unet"].pop("jumps") is False
    assert before["unet"].pop("evened") is False
    expected = hashlib.blake2b(json.dumps([before, digest_module(model.unet)]).encode(), digest_size=16).hexdigest()
    assert digest_model(model) == expected
    jumping = DDIM(dataclasses.replace(model.config, unet=dataclasses.replace(tiny.unet, jumps=True)))
    jumping.load_state_dict(model.state_dict(), strict=False)
    assert digest_model(jumping) != expected
