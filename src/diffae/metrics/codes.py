"""How near sampled codes come to real ones: is a prior any good, without decoding a single image?"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.metrics.statistics import Moments, frechet_distance, precision_recall


def compare_codes(
    made: Float[Tensor, "n d"], real: Float[Tensor, "m d"], *, neighbours: int = 5, seed: int = 0
) -> dict[str, float]:
    """Sampled codes against held-out real ones, both standardised.

    Args:
        made: sampled codes; at least as many as real ones; the first m are taken.
        real: held-out real codes.
        neighbours: k of the precision and recall.
        seed: of the folds of the classifier.

    Returns:
        `precision`, the share of made codes within the real ones' manifold, and `recall`, the other way round (Kynkäänniemi
        et al. 2019, k nearest neighbours); `mmd`, the squared maximum mean discrepancy, unbiased, of a Gaussian kernel as wide
        as the median distance (Gretton et al. 2012); `auroc`, of a classifier that tries to tell them apart (0.5 is perfect);
        `frechet`, the Fréchet distance of the Gaussians of both, which a full-covariance Gaussian prior is best at by construction.

    Raises:
        ValueError: fewer made codes than real ones, or too few of these.
    """
    n = len(real)
    if len(made) < n or n <= neighbours:
        raise ValueError(f"Expected more than {neighbours} real codes and at least as many made ones, got {n} and {len(made)}.")
    made, real = made[:n].double(), real.double()
    within_made, within_real, across = torch.cdist(made, made), torch.cdist(real, real), torch.cdist(made, real)
    precision, recall = precision_recall(made, real, neighbours=neighbours)
    width = within_real[~torch.eye(n, dtype=torch.bool)].median()
    kernel = [torch.exp(-d.square() / (2 * width**2)) for d in (within_made, within_real, across)]
    pairs = n * (n - 1)
    mmd = (kernel[0].sum() - n) / pairs + (kernel[1].sum() - n) / pairs - 2 * kernel[2].mean()
    return {
        "precision": precision,
        "recall": recall,
        "mmd": float(mmd),
        "auroc": _classifier_auroc(made, real, seed),
        "frechet": frechet_distance(Moments.of(made), Moments.of(real)),
    }


def prior_table(samples: Mapping[str, Tensor], real: Float[Tensor, "m d"], *, seed: int = 0) -> dict[str, dict[str, float]]:
    """`compare_codes` for several priors and, as a floor, for one half of the real codes against the other.

    Args:
        samples: name of the prior -> standardised codes, at least half as many as the real ones.
        real: held-out real codes, standardised.
        seed: of the halves.
    """
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(real)))
    half = len(real) // 2
    first, second = real[order[:half]], real[order[half : 2 * half]]
    table = {name: compare_codes(made, second, seed=seed) for name, made in samples.items()}
    return table | {"real, another half": compare_codes(first, second, seed=seed)}


def _classifier_auroc(a: Tensor, b: Tensor, seed: int) -> float:
    """Cross-validated AUROC of a classifier that is told which codes are made (Lopez-Paz & Oquab 2017)."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    z, y = torch.cat([a, b]).numpy(), np.repeat([1, 0], [len(a), len(b)])
    forest = RandomForestClassifier(200, random_state=seed, n_jobs=1)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    return float(roc_auc_score(y, cross_val_predict(forest, z, y, cv=folds, method="predict_proba")[:, 1]))
