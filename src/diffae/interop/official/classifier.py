"""The authors' linear classifiers of z_sem (`last.ckpt` of their `..._cls` runs)."""

from pathlib import Path

from torch import Tensor

from diffae.interop import unpickling
from diffae.interop.official.checkpoint import read_tensors, weights_of
from diffae.runtime.weights import check_finite
from diffae.semantics.attributes import Attributes, Score

CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair Blurry "
    "Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns "
    "Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young"
).split()
"""The attributes of CelebA in the order of its annotation file, which is that of the authors' classifier."""


def load_classifier(path: str | Path, *, z_dim: int, ema: bool = True, statistics: Path | None = None) -> Attributes:
    """Reads a linear classifier of the authors' code (`last.ckpt` of their `..._cls` runs): directions on standardised z_sem.

    Args:
        path: the checkpoint.
        z_dim: dimension of z_sem of the autoencoder that it is for.
        ema: the moving average of the weights rather than the raw ones.
        statistics: a file that holds the mean and standard deviation of z_sem, where the classifier's does not (copies as
            safetensors).

    Returns:
        The attributes: CelebA's by their names where there are forty, else class_0, class_1, ... Their probabilities are not
        calibrated.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a checkpoint, cut short, unsafe, or of another dimension.
    """
    tensors = _tensors(path) | ({} if statistics is None else _statistics(statistics))
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


def _tensors(path: str | Path) -> dict[str, Tensor]:
    if Path(path).suffix == ".safetensors":
        return read_tensors(path)[0]
    content = unpickling.load(path)
    return weights_of(content.get("state_dict", {}) if isinstance(content, dict) else {}, path)


def _statistics(path: Path) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in _tensors(path).items() if key in ("conds_mean", "conds_std")}
