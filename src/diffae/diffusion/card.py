"""The page that a published model has on the hub: what it is, of what data, under which licence, and what was measured."""

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

AUTOENCODER = (
    "A diffusion autoencoder (Preechakul et al., CVPR 2022): an image becomes `z_sem`, a vector that holds its meaning, and "
    "`x_T`, a noise map that holds the rest, and both become the image again."
)
CARD = "tags: [diffae,"
"""By which a card is known as one of a model that this package wrote."""
PLAIN_DDIM = "A plain DDIM (Song et al., ICLR 2021): the noise map `x_T` alone is the code of an image."

USE = """```python
import diffae

ae = diffae.load("{repo_id}")
z_sem = ae.encode(x)  # x: (n, c, h, w) in [-1, 1]
x_T = ae.invert(x, z_sem)
x_hat = ae.decode(z_sem, x_T)
```"""

USE_PLAIN = """```python
import diffae

ddim = diffae.load_diffusion("{repo_id}")
x_T = ddim.invert(x)  # x: (n, c, h, w) in [-1, 1]
x_hat = ddim.decode(x_T)
new = ddim.sample(4)
```"""


def model_card(
    repo_id: str, about: Mapping[str, Any], parts: Mapping[str, Any], *, library: str = "diffae", use: str | None = None
) -> str:
    """Markdown with the hub's metadata on top.

    Args:
        repo_id: `user/model`.
        about: `data`, `licence`, `images_seen`, `metrics` (name -> value) and whatever else is worth saying.
        parts: the prior and attributes that travel along, as `config.json` tells of them; empty for a plain DDIM.
        library: by which it is loaded.
        use: an example of its use, in which `{repo_id}` is replaced; by default diffae's.
    """
    licence = about.get("licence")
    plain = not parts
    tags = f"{CARD} ddim]" if plain else f"{CARD} diffusion-autoencoder]"
    lines = [
        "---",
        f"library_name: {library}",
        *_licence_lines(licence),
        tags,
        *_measured_lines(repo_id, about, (parts.get("attributes") or {}).get("scores", {})),
        "---",
        f"# {repo_id}",
        "",
        PLAIN_DDIM if plain else AUTOENCODER,
        "",
        (use or (USE_PLAIN if plain else USE)).format(repo_id=repo_id),
        "",
        "## Data and licence",
        f"- Data: {about.get('data') or 'not stated'}",
        f"- Licence: {licence or 'not stated'}",
    ]
    lines += [f"- {name.replace('_', ' ').capitalize()}: {value}" for name, value in about.items() if name not in KNOWN]
    prior, scores = parts.get("prior"), (parts.get("attributes") or {}).get("scores", {})
    if plain:
        can = "Reconstruct, interpolate and sample."
    else:
        can = "Reconstruct, vary, interpolate and edit" if scores else "Reconstruct, vary and interpolate"
        can += f"; sample, by a {_called(prior, parts.get('given'))}." if prior else "."
    lines += ["", "## What it can do", can]
    if scores:
        lines += ["", "| attribute | held-out images | AUROC | average precision | R² |", "|---|--:|--:|--:|--:|"]
        columns = ("auroc", "average_precision", "r2")
        for name, score in scores.items():
            cells = ["" if score.get(c) is None else f"{score[c]:.3f}" for c in columns]
            shown = name.replace("|", "\\|")
            lines.append(f"| {shown} | {score['n_held']} | {' | '.join(cells)} |")
    metrics = about.get("metrics") or {}
    lines += ["", "## Measured"]
    lines += [f"- {name}: {value:.4g}" for name, value in metrics.items()] or ["Nothing yet."]
    return "\n".join(lines) + "\n"


def _licence_lines(licence: str | None) -> list[str]:
    """The hub knows licences by short names such as `cc-by-4.0`; one in other words is `other`, by a name of its own."""
    if not licence:
        return []
    short = _short(licence)
    if short == licence.lower():
        return [f'license: "{short}"']
    return ["license: other", *([f'license_name: "{short}"'] if short else [])]


def _measured_lines(repo_id: str, about: Mapping[str, Any], scores: Mapping[str, Any]) -> list[str]:
    """What was measured, as the hub lists results of models (model-index). Strings are JSON's, which are YAML's too."""
    metrics = (about.get("metrics") or {}).items()
    found = [(_short(name), name, value) for name, value in metrics if math.isfinite(value)]
    found += [("roc_auc", f"AUROC of {name}", score["auroc"]) for name, score in scores.items() if score.get("auroc") is not None]
    if not found:
        return []
    data = str(about.get("data") or "not stated")
    lines = [
        "model-index:",
        f"- name: {json.dumps(repo_id)}",
        "  results:",
        "  - task: {type: image-to-image, name: Diffusion autoencoding}",
        f"    dataset: {{type: {json.dumps(_short(data) or 'other')}, name: {json.dumps(data)}}}",
        "    metrics:",
    ]
    for kind, name, value in found:
        # Six digits, as models were measured at most; to YAML 1e-07 is a word.
        number = format(Decimal(f"{value:.6g}"), "f")
        lines.append(f"    - {{type: {json.dumps(kind or 'other')}, name: {json.dumps(name)}, value: {number}}}")
    return lines


def _short(words: str) -> str:
    """Words as the hub has names: small letters, digits, hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-.")


KNOWN = ("data", "licence", "metrics")
"""Entries of `about` that have places of their own."""


def _called(prior: str | dict[str, Any], given: str | None) -> str:
    """What a prior is, as `config.json` says it, and of which images."""
    if given:
        return f"{_called(prior, None)}, of images with the label `{given}` alone"
    if prior == "gaussian":
        return "Gaussian prior"
    if isinstance(prior, dict) and "codes" in prior:
        return f"smoothed bootstrap, which holds codes of {prior['codes']:,} training images"
    return "latent DDIM prior"
