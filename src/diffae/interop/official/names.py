"""Our names of weights and the authors', paired by walking our modules.

Every pair is spelled out, module by module; `checkpoint` sees to it that neither side has a weight left over.
"""

from collections.abc import Iterator

from torch import nn

from diffae.autoencoder import DiffusionAutoencoder
from diffae.nn import SemanticEncoder, SkipMLP, UNet
from diffae.nn.layers import ResBlock, Stage
from diffae.semantics.prior import LatentPrior

Names = Iterator[tuple[str, str]]
"""Pairs of our name of a module or weight, and theirs."""


def paired_names(model: DiffusionAutoencoder) -> list[tuple[str, str]]:
    """Of every weight of the model and its prior, pairs of our name and theirs."""
    names = list(autoencoder_names(model))
    if isinstance(model.prior, LatentPrior):
        names += [*_prior_names(model.prior.net), ("standardizer.mean", "conds_mean"), ("standardizer.std", "conds_std")]
    return names


def autoencoder_names(model: DiffusionAutoencoder) -> Names:
    """The same of the encoder and the decoder alone."""
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
