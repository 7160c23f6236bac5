"""A saved autoencoder: a folder of `model.safetensors` and `config.json`."""

import json
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from diffae.autoencoder import DiffusionAutoencoder


def load(source: str | Path, *, device: str | torch.device = "cpu") -> DiffusionAutoencoder:
    """Reads what `save_pretrained` wrote, or the EMA weights of a run.

    Args:
        source: a run directory or a saved folder.
        device: where the networks go.

    Returns:
        The autoencoder, in eval mode.

    Raises:
        FileNotFoundError: there is no such folder, or no saved model in it yet.
        ValueError: a file is damaged, or does not fit the other.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise FileNotFoundError(f"{source} is no folder. Give a run directory or a folder that `save_pretrained` wrote.")
    if (folder / "model").is_dir():
        folder = folder / "model"
    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise FileNotFoundError(f"{folder} holds no {file.name}: a run has its model after its first checkpoint.")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{config_file} is damaged ({error}). Save the model again.") from None
    if not isinstance(config, dict) or config.get("format") != "diffae-1":
        raise ValueError(f"{config_file} was not written by `save_pretrained`: its format is not 'diffae-1'.")
    try:
        tensors = safetensors.torch.load_file(weights_file)
    except SafetensorError as error:
        raise ValueError(f"{weights_file} is damaged or cut short ({error}). Copy or save it again.") from None
    with torch.device("meta"):
        model = DiffusionAutoencoder.from_config(config)
    expected = model.state_dict()
    wrong = sorted(
        k
        for k in expected.keys() | tensors.keys()
        if k not in expected or k not in tensors or expected[k].shape != tensors[k].shape
    )
    if wrong:
        raise ValueError(f"{weights_file} does not fit {config_file.name}: {len(wrong)} tensors differ, {wrong[0]} first.")
    model = DiffusionAutoencoder.from_config(config)
    model.load_state_dict(tensors)
    return model.to(device)
