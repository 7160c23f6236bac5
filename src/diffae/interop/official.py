"""The authors' checkpoints (github.com/phizaz/diffae, `last.ckpt`), read exactly.

The correspondence of names is spelled out below, module by module, and checked both ways: a weight of ours that the file
lacks, or a weight of the file that we have no place for, is an error.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffae.autoencoder import DiffusionAutoencoder
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
from diffae.interop import unpickling
from diffae.interop.reading import check_depth, naming
from diffae.nn import SemanticEncoder, SkipMLP, UNet
from diffae.nn.layers import ResBlock, Stage
from diffae.runtime.weights import check_finite
from diffae.semantics.attributes import Attributes, Score
from diffae.semantics.prior import LatentPrior
from diffae.semantics.standardizer import Standardizer

Names = Iterator[tuple[str, str]]
"""Pairs (our module's name, theirs)."""

SUPPORTED: dict[str, Any] = {
    "num_input_res_blocks": None, "time_embed_channels": None, "input_channel_mult": None, "dims": 2, "num_classes": None,
    "num_head_channels": -1, "num_heads_upsample": -1, "resblock_updown": True, "use_new_attention_order": False,
    "resnet_two_cond": True, "resnet_cond_channels": None, "enc_pool": "adaptivenonzero",
}  # fmt: skip
"""Settings of their `model_conf` of which all published models have one value: the one implemented here."""

CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair Blurry "
    "Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns "
    "Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young"
).split()
"""The attributes of CelebA in the order of its annotation file, which is that of the authors' classifier."""


def load(path: str | Path, *, ema: bool = True) -> DiffusionAutoencoder:
    """Reads a `last.ckpt` of the authors' code. Nothing that the pickle names is imported or run.

    Args:
        path: the checkpoint.
        ema: the moving average of the weights, which all published figures are of, rather than the raw ones.

    Returns:
        The autoencoder in eval mode; `prior` and `standardizer` are set if the file holds a latent network.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a checkpoint, cut short, unsafe, of an unsupported architecture, or with weights that do not fit.
    """
    content = unpickling.load(path)
    if not isinstance(content, dict) or not {"state_dict", "hyper_parameters"} <= content.keys():
        raise ValueError(f"{path} is no checkpoint of the authors' code: it lacks `state_dict` or `hyper_parameters`.")
    hyper, tensors = content["hyper_parameters"], _tensors(content["state_dict"], path)
    settings, latent = _described(hyper, path)
    with naming(Path(path)):
        check_depth(settings, len(tensors))
        if latent is not None and latent.layers > len(tensors):
            raise ValueError(
                f"a latent network of {latent.layers:,} layers is described, but there are only {len(tensors):,} weights."
            )
        with torch.device("meta"):
            # Before there is room for it: a checkpoint may say anything.
            names, shapes = _places(_whole(settings, latent))
    prefix, other = ("ema_model.", "model.") if ema else ("model.", "ema_model.")
    state: dict[str, Tensor] = {}
    missing = []
    for ours, theirs in names:
        key = theirs if theirs.startswith("conds_") else prefix + theirs
        if key in tensors:
            state[ours] = tensors.pop(key)
        else:
            missing.append(key)
    # The other set of weights, the noise of their sample pictures, and a second name of the latent network's time layers.
    left = [
        k for k in tensors if not k.startswith(other) and k not in ("x_T", "conds_mean", "conds_std") and ".cond_layers." not in k
    ]
    if missing or left:
        raise ValueError(
            f"{path} does not hold the network that its `hyper_parameters` describe: "
            f"{len(missing)} weights are missing ({', '.join(missing[:3])} ...) and {len(left)} have no place "
            f"({', '.join(left[:3])} ...)."
        )
    for name, tensor in state.items():
        # Their 1x1 convolutions in one dimension, and a 1x1 convolution of a pooled pixel, are our 1x1 convolutions and Linear.
        if tensor.squeeze().shape != torch.empty(shapes[name], device="meta").squeeze().shape:
            raise ValueError(f"{path}: {name} has shape {tuple(tensor.shape)} where the network has {tuple(shapes[name])}.")
        if not tensor.is_floating_point():
            raise ValueError(f"{path}: {name} has values of type {tensor.dtype}, which are no weights.")
        state[name] = tensor.reshape(shapes[name]).float()
    check_finite(state, path)
    with naming(Path(path)):
        model = _whole(settings, latent)
    model.preparation = preparation(hyper)
    model.load_state_dict(state, strict=True)
    return model.eval()


def _tensors(found: Any, path: str | Path) -> dict[str, Tensor]:
    """The weights of a `state_dict`, if it is one."""
    odd = [k for k, v in found.items() if not (isinstance(k, str) and isinstance(v, Tensor))] if isinstance(found, dict) else [None]
    if odd:
        raise ValueError(f"{path} is no checkpoint of the authors' code: its `state_dict` is no table of weights ({odd[0]!r:.60}).")
    return dict(found)


def _described(hyper: Any, path: str | Path) -> tuple[AutoencoderConfig, PriorConfig | None]:
    """Our configurations of their `hyper_parameters`, of the autoencoder and of the latent network if there is one."""
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


def _whole(settings: AutoencoderConfig, latent: PriorConfig | None) -> DiffusionAutoencoder:
    """The network, with its latent network if it has one; its numbers are loaded after."""
    model = DiffusionAutoencoder(settings)
    if latent is not None:
        model.prior = LatentPrior(latent)
        model.standardizer = Standardizer(torch.zeros(model.z_dim), torch.ones(model.z_dim))
    return model


def _places(model: DiffusionAutoencoder) -> tuple[list[tuple[str, str]], dict[str, torch.Size]]:
    """Pairs of our name and theirs, and the shapes by our names."""
    names = list(_autoencoder_names(model))
    if isinstance(model.prior, LatentPrior):
        names += [*_prior_names(model.prior.net), ("standardizer.mean", "conds_mean"), ("standardizer.std", "conds_std")]
    return names, {name: tensor.shape for name, tensor in model.state_dict().items()}


def load_classifier(path: str | Path, *, z_dim: int, ema: bool = True) -> Attributes:
    """Reads a linear classifier of the authors' code (`last.ckpt` of their `..._cls` runs): directions on standardised z_sem.

    Args:
        path: the checkpoint.
        z_dim: dimension of z_sem of the autoencoder that it is for.
        ema: the moving average of the weights rather than the raw ones.

    Returns:
        The attributes: CelebA's by their names where there are forty, else class_0, class_1, ... Their probabilities are not
        calibrated.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a checkpoint, cut short, unsafe, or of another dimension.
    """
    content = unpickling.load(path)
    tensors = _tensors(content.get("state_dict", {}) if isinstance(content, dict) else {}, path)
    prefix = "ema_classifier." if ema else "classifier."
    needed = [f"{prefix}weight", f"{prefix}bias", "conds_mean", "conds_std"]
    missing = [key for key in needed if key not in tensors]
    if missing:
        raise ValueError(f"{path} is no classifier of the authors' code: it lacks {', '.join(missing)}.")
    check_finite({key: tensors[key] for key in needed}, path)
    weight, bias, mean, std = (tensors[key].float() for key in needed)
    if weight.dim() != 2 or bias.shape != weight.shape[:1] or mean.numel() != z_dim or std.numel() != z_dim:
        shapes = ", ".join(f"{key} {tuple(tensors[key].shape)}" for key in needed)
        raise ValueError(f"{path} holds no linear classifier of z_sem of {z_dim} dimensions: {shapes}.")
    if weight.shape[1] != z_dim:
        raise ValueError(f"{path} classifies z_sem of {weight.shape[1]} dimensions, but that of the autoencoder has {z_dim}.")
    names = CELEBA_ATTRIBUTES if len(weight) == len(CELEBA_ATTRIBUTES) else [f"class_{i}" for i in range(len(weight))]
    found = Attributes({name: Score("binary", 0, 0.5) for name in names}, z_dim)
    found.weight.copy_(weight)
    found.pattern.copy_(weight)
    found.bias.copy_(bias)
    found.standardizer.load_state_dict({"mean": mean.reshape(-1), "std": std.reshape(-1)})
    return found


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


def _autoencoder_names(model: DiffusionAutoencoder) -> Names:
    yield from _parameters("unet.", model.unet, "", _unet_names(model.unet))
    yield from _parameters("encoder.", model.encoder, "encoder.", _encoder_names(model.encoder))


def _prior_names(net: SkipMLP) -> Names:
    yield from _parameters("prior.net.", net, "latent_net.", _mlp_names(net))


def _parameters(ours: str, root: nn.Module, theirs: str, modules: Names) -> Names:
    """From pairs of modules to pairs of parameters."""
    for a, b in modules:
        for name, _ in root.get_submodule(a).named_parameters(recurse=False):
            yield f"{ours}{a}.{name}", f"{theirs}{b}.{name}"


def _unet_names(unet: UNet) -> Names:
    yield from (("time.0", "time_embed.time_embed.0"), ("time.2", "time_embed.time_embed.2"))
    yield from _backbone_names(unet.down, unet.middle)
    for i, stage in enumerate(unet.up):
        yield from _stage_names(stage, f"up.{i}", f"output_blocks.{i}")
    yield from (("norm", "out.0"), ("conv_out", "out.2"))


def _encoder_names(encoder: SemanticEncoder) -> Names:
    yield from _backbone_names(encoder.down, encoder.middle)
    yield from (("norm", "out.0"), ("linear", "out.3"))


def _backbone_names(down: nn.ModuleList, middle: nn.ModuleList) -> Names:
    yield "conv_in", "input_blocks.0.0"
    for i, stage in enumerate(down):
        yield from _stage_names(stage, f"down.{i}", f"input_blocks.{i + 1}")
    # Theirs is one flat list (block, attention, block); ours is two stages.
    first, second = middle
    assert isinstance(first, Stage)
    assert isinstance(second, Stage)
    yield from _block_names(first.block, "middle.0.block", "middle_block.0")
    yield from _attention_names("middle.0.attention", "middle_block.1")
    yield from _block_names(second.block, "middle.1.block", "middle_block.2")


def _stage_names(stage: nn.Module, ours: str, theirs: str) -> Names:
    assert isinstance(stage, Stage)
    yield from _block_names(stage.block, f"{ours}.block", f"{theirs}.0")
    if stage.attention is not None:
        yield from _attention_names(f"{ours}.attention", f"{theirs}.1")
    if stage.upsample is not None:
        yield from _block_names(stage.upsample, f"{ours}.upsample", f"{theirs}.{2 if stage.attention else 1}")


def _block_names(block: ResBlock, ours: str, theirs: str) -> Names:
    yield from ((f"{ours}.norm", f"{theirs}.in_layers.0"), (f"{ours}.conv", f"{theirs}.in_layers.2"))
    if isinstance(block.skip, nn.Conv2d):
        yield f"{ours}.skip", f"{theirs}.skip_connection"
    if block.adagn is not None:
        yield f"{ours}.adagn.norm", f"{theirs}.out_layers.0"
        yield f"{ours}.adagn.time", f"{theirs}.emb_layers.1"
        yield f"{ours}.adagn.semantics", f"{theirs}.cond_emb_layers.1"
        yield f"{ours}.conv_out", f"{theirs}.out_layers.3"


def _attention_names(ours: str, theirs: str) -> Names:
    for a, b in (("norm", "norm"), ("qkv", "qkv"), ("out", "proj_out")):
        yield f"{ours}.{a}", f"{theirs}.{b}"


def _mlp_names(net: SkipMLP) -> Names:
    yield from (("time.0", "time_embed.0"), ("time.2", "time_embed.2"))
    for i in range(len(net.hidden)):
        for a, b in (("linear", "linear"), ("time", "linear_emb"), ("norm", "norm")):
            yield f"hidden.{i}.{a}", f"layers.{i}.{b}"
    yield "out", f"layers.{len(net.hidden)}.linear"
