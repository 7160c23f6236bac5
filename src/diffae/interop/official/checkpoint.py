"""The authors' checkpoints of autoencoders (`last.ckpt`), read exactly: no weight is left over on either side."""

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import AutoencoderConfig, PriorConfig
from diffae.interop import unpickling
from diffae.interop.official.names import paired_names
from diffae.interop.official.settings import preparation, translate_settings
from diffae.interop.reading import check_depth, naming_model_file
from diffae.runtime.weights import check_finite
from diffae.semantics.prior import LatentPrior
from diffae.semantics.standardizer import Standardizer


def load(path: str | Path, *, ema: bool = True, settings: AutoencoderConfig | None = None) -> DiffusionAutoencoder:
    """Reads a `last.ckpt` of the authors' code. Nothing that the pickle names is imported or run.

    Args:
        path: the checkpoint; or its weights alone, as safetensors.
        ema: the moving average of the weights, which all published figures are of, rather than the raw ones. Weights under names
            of neither are taken for what was asked for.
        settings: of the networks, where the file has weights alone, and only there.

    Returns:
        The autoencoder in eval mode; `prior` and `standardizer` are set if the file holds a latent network.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a checkpoint, cut short, unsafe, of an unsupported architecture, or with weights that do not fit.
    """
    tensors, hyper = read_tensors(path)
    latent = None
    if hyper is not None and settings is not None:
        raise ValueError(f"{path} says itself of which networks its weights are: leave --preset away.")
    if hyper is not None:
        settings, latent = translate_settings(hyper, path)
    elif settings is None:
        raise ValueError(f"{path} has weights alone, and does not say of which networks. Name them: --preset ffhq256, say.")
    if not any(key.startswith(("ema_model.", "model.")) for key in tensors):
        tensors = {f"{'ema_model' if ema else 'model'}.{key}": tensor for key, tensor in tensors.items()}
    with naming_model_file(Path(path)):
        check_depth(settings, len(tensors))
        if latent is not None and latent.layers > len(tensors):
            raise ValueError(
                f"a latent network of {latent.layers:,} layers is described, but there are only {len(tensors):,} weights."
            )
        with torch.device("meta"):
            # Before there is room for it: a checkpoint may say anything.
            skeleton = _network(settings, latent)
    state = _renamed(tensors, paired_names(skeleton), path, ema=ema)
    state = _shaped(state, {name: tensor.shape for name, tensor in skeleton.state_dict().items()}, path)
    check_finite(state, path)
    with naming_model_file(Path(path)):
        model = _network(settings, latent)
    model.preparation = preparation(hyper or {})
    model.load_state_dict(state, strict=True)
    return model.eval()


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], Any]:
    """The weights of a checkpoint, and its `hyper_parameters`, which weights alone (safetensors) have not. Errors as of `load`."""
    if Path(path).suffix == ".safetensors":
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        try:
            return safetensors.torch.load_file(path), None
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or cut short ({error}). Fetch it again.") from None
    content = unpickling.load(path)
    if not isinstance(content, dict) or not {"state_dict", "hyper_parameters"} <= content.keys():
        raise ValueError(f"{path} is no checkpoint of the authors' code: it lacks `state_dict` or `hyper_parameters`.")
    return weights_of(content["state_dict"], path), content["hyper_parameters"]


def weights_of(found: Any, path: str | Path) -> dict[str, Tensor]:
    """The weights of a `state_dict`.

    Raises:
        ValueError: it is no table of weights.
    """
    odd = [k for k, v in found.items() if not (isinstance(k, str) and isinstance(v, Tensor))] if isinstance(found, dict) else [None]
    if odd:
        raise ValueError(f"{path} is no checkpoint of the authors' code: its `state_dict` is no table of weights ({odd[0]!r:.60}).")
    return dict(found)


def _network(settings: AutoencoderConfig, latent: PriorConfig | None) -> DiffusionAutoencoder:
    """The network, with its latent network if it has one; its numbers are loaded after."""
    model = DiffusionAutoencoder(settings)
    if latent is not None:
        model.prior = LatentPrior(latent)
        model.standardizer = Standardizer(torch.zeros(model.z_dim), torch.ones(model.z_dim))
    return model


def _renamed(tensors: dict[str, Tensor], names: list[tuple[str, str]], path: str | Path, *, ema: bool) -> dict[str, Tensor]:
    """The weights by our names, all of them; `tensors` is used up.

    Raises:
        ValueError: a weight is missing, or has no place.
    """
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
    return state


def _shaped(state: dict[str, Tensor], shapes: dict[str, torch.Size], path: str | Path) -> dict[str, Tensor]:
    """The weights in our shapes, in float32.

    Raises:
        ValueError: a weight of another shape, or of a type that is none of weights.
    """
    found = {}
    for name, tensor in state.items():
        # Their 1x1 convolutions in one dimension, and a 1x1 convolution of a pooled pixel, are our 1x1 convolutions and Linear.
        if tensor.squeeze().shape != torch.empty(shapes[name], device="meta").squeeze().shape:
            raise ValueError(f"{path}: {name} has shape {tuple(tensor.shape)} where the network has {tuple(shapes[name])}.")
        if not tensor.is_floating_point():
            raise ValueError(f"{path}: {name} has values of type {tensor.dtype}, which are no weights.")
        found[name] = tensor.reshape(shapes[name]).float()
    return found
