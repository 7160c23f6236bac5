"""The authors' `hyper_parameters` as configurations of ours."""

from pathlib import Path
from typing import Any

from diffae.config import (
    AutoencoderConfig,
    EncoderConfig,
    Preparation,
    PriorConfig,
    ScheduleConfig,
    UNetConfig,
    from_dict,
    to_dict,
)

SUPPORTED: dict[str, Any] = {
    "num_input_res_blocks": None, "time_embed_channels": None, "input_channel_mult": None, "dims": 2, "num_classes": None,
    "num_head_channels": -1, "num_heads_upsample": -1, "resblock_updown": True, "use_new_attention_order": False,
    "resnet_two_cond": True, "resnet_cond_channels": None, "enc_pool": "adaptivenonzero",
}  # fmt: skip
"""Settings of their `model_conf` that have one value in all published models; no other is implemented."""


def translate_settings(hyper: Any, path: str | Path) -> tuple[AutoencoderConfig, PriorConfig | None]:
    """Our configurations of the autoencoder, and of the latent network if there is one.

    Args:
        hyper: their `hyper_parameters`.
        path: of the file, for messages.

    Raises:
        ValueError: they describe no network that is known; the message names the file.
    """
    try:
        settings = from_dict(AutoencoderConfig, to_dict(autoencoder_config(hyper)))
        latent = None
        if hyper["model_conf"].get("latent_net_conf") is not None:
            latent = from_dict(PriorConfig, to_dict(prior_config(hyper)))
        preparation(hyper)
    except KeyError as error:
        raise ValueError(
            f"{path}: its `hyper_parameters` lack {error}, so they describe no network of the authors' code."
        ) from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}: its `hyper_parameters` describe no network that is known: {error}") from None
    return settings, latent


def autoencoder_config(hyper: dict[str, Any]) -> AutoencoderConfig:
    """Our configuration of their `hyper_parameters`.

    Raises:
        ValueError: a setting that no published model has and that is not implemented.
    """
    conf = hyper["model_conf"]
    for key, value in SUPPORTED.items():
        if conf.get(key, value) != value:
            raise ValueError(f"This checkpoint has {key}={conf[key]!r} in model_conf; only {value!r} is supported.")
    if hyper.get("beta_scheduler", "linear") != "linear":
        raise ValueError(f"This checkpoint has beta_scheduler={hyper['beta_scheduler']!r}; only 'linear' is supported.")
    attention = tuple(conf["attention_resolutions"])
    return AutoencoderConfig(
        image_size=(conf["image_size"], conf["image_size"]),
        channels=conf["in_channels"],
        z_dim=conf["enc_out_channels"],
        schedule=ScheduleConfig(T=hyper.get("T", 1000)),
        unet=UNetConfig(
            base_channels=conf["model_channels"],
            channel_mult=tuple(conf["channel_mult"]),
            blocks_per_level=conf["num_res_blocks"],
            attention_resolutions=attention,
            attention_heads=conf["num_heads"],
            embed_channels=conf["embed_channels"],
            dropout=float(conf["dropout"]),
        ),
        encoder=EncoderConfig(
            base_channels=conf["model_channels"],
            channel_mult=tuple(conf["enc_channel_mult"] or conf["channel_mult"]),
            blocks_per_level=conf["enc_num_res_block"],
            attention_resolutions=tuple(conf["enc_attn_resolutions"] or attention),
            attention_heads=conf["num_heads"],
        ),
    )


def preparation(hyper: dict[str, Any]) -> Preparation:
    """What their loader does to the images of a model: it crops those of CelebA, and no others."""
    return Preparation(crop="celeba" if hyper.get("data_name") == "celebalmdb" else "center")


def prior_config(hyper: dict[str, Any]) -> PriorConfig:
    """Our configuration of their latent network.

    Raises:
        ValueError: a setting that no published model has and that is not implemented.
    """
    conf = hyper["model_conf"]["latent_net_conf"]
    layers = conf["num_layers"]
    expected = {
        "skip_layers": list(range(1, layers)),
        "use_norm": True,
        "condition_bias": 1,
        "num_time_layers": 2,
        "time_last_act": False,
    }
    for key, value in expected.items():
        found = list(conf[key]) if isinstance(value, list) else conf[key]
        if found != value:
            raise ValueError(f"This checkpoint has {key}={conf[key]!r} in latent_net_conf; only {value!r} is supported.")
    kind = hyper.get("latent_beta_scheduler", "const0.008")
    if kind != "linear" and not kind.startswith("const"):
        raise ValueError(f"This checkpoint has latent_beta_scheduler={kind!r}; only 'linear' and 'const...' are supported.")
    beta = None if kind == "linear" else float(kind.removeprefix("const"))
    T = hyper.get("T", 1000)
    return PriorConfig(
        z_dim=conf["num_channels"],
        width=conf["num_hid_channels"],
        layers=layers,
        time_channels=conf["num_time_emb_channels"],
        schedule=ScheduleConfig(T=T) if beta is None else ScheduleConfig(T=T, beta_start=beta, beta_end=beta),
    )
