"""Writes one of each file whose format is promised (docs/promise.md), as this version writes it.

    python tests/promised.py

Into tests/fixtures/promised/VERSION, once a version, before it is released: `test_promise.py` reads those of all versions there. A
folder that is there is never written again.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image

import diffae
from diffae.autoencoder import DiffusionAutoencoder
from diffae.config import (
    AutoencoderConfig,
    ComparatorConfig,
    DataConfig,
    EncoderConfig,
    PriorConfig,
    RunConfig,
    UNetConfig,
    to_dict,
)
from diffae.data import prepare
from diffae.data.codes import write_codes
from diffae.edits import Edit
from diffae.interop.comparators import Comparator
from diffae.interop.fingerprints import fingerprint
from diffae.interop.parts import prior_folder, save_part
from diffae.interop.weights import save_calibration
from diffae.semantics.fitting import fit_attributes
from diffae.semantics.prior import GaussianPrior, KernelPrior, LatentPrior
from diffae.semantics.standardizer import Standardizer

PLACE = Path(__file__).parent / "fixtures" / "promised"


def small():
    """A small autoencoder with weights that make something of its inputs."""
    config = AutoencoderConfig(
        image_size=(8, 8),
        channels=1,
        z_dim=4,
        unet=UNetConfig(base_channels=4, channel_mult=(1, 2), blocks_per_level=1, attention_resolutions=(4,), embed_channels=8),
        encoder=EncoderConfig(base_channels=4, channel_mult=(1, 2), blocks_per_level=1, attention_resolutions=(4,)),
    )
    ae = DiffusionAutoencoder(config).eval()
    return stirred(ae)


def stirred(module):
    """A module whose weights are all drawn, so that nothing of it is at its start."""
    generator = torch.Generator().manual_seed(0)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.1, generator=generator)
    return module


def images(ae):
    """Forty greys, half of them bright, as a set."""
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        rows = ["file,bright,level"]
        for i in range(40):
            level = int(rng.integers(30, 120) + 100 * (i % 2))
            pixels = rng.integers(level - 30, level + 30, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(Path(folder) / f"{i:02d}.png")
            rows.append(f"{i:02d}.png,{i % 2},{level}")
        (Path(folder) / "labels.csv").write_text("\n".join(rows) + "\n")
        return prepare(DataConfig(source=folder), size=ae.config.image_size, channels=1)


def write(folder):
    """One of each."""
    ae, run, expected = small(), folder / "run", {}
    data = images(ae)
    x = data.images(range(len(data.names)))
    z_sem = ae.encode(x)
    ae.save_pretrained(run / "model")
    (run / "config.json").write_text(json.dumps(to_dict(RunConfig(preset="small", model=ae.config)), indent=2) + "\n")
    save_calibration(ae, run)
    ae.standardizer = Standardizer.fit(z_sem)
    z = ae.standardizer(z_sem)
    ddim = stirred(LatentPrior(PriorConfig(z_dim=4, width=8, layers=3, time_channels=4, gaussian_start=True))).eval()
    ddim.gaussian.fit(z)
    for name, prior in (("ddim", ddim), ("gaussian", GaussianPrior(4).fit(z)), ("kernel", KernelPrior.of(z))):
        ae.prior = prior
        save_part(ae, prior_folder(run, name) / "model", ["prior", "standardizer"])
        expected[name] = prior.sample(3, seed=0)
    ae.attributes, _ = fit_attributes(z_sem, data.labels, held_z_sem=z_sem, held_labels=data.labels, components=2)
    save_part(ae, run / "attributes", ["attributes"])
    moved = ae.edit(z_sem[:1], "bright", strength=0.3)
    edit = Edit(fingerprint(ae), x[0], moved[0], "anchored", 4, {"bright": 0.3})
    (folder / "edit.json").write_text(edit.to_json())
    write_codes(ae, data, folder / "codes.parquet", identity=fingerprint(ae), x_T_steps=4)
    for kind in ("vae", "vq"):
        sizes = dict(image_size=(8, 8), channels=1, latent_channels=1, halvings=1, base_channels=2, codebook=4)
        comparator = stirred(Comparator(ComparatorConfig(kind=kind, **sizes))).eval()
        comparator.save_pretrained(folder / kind)
        expected[kind] = comparator.decode(comparator.encode(x[:2]))
    expected |= {
        "x": x,
        "z_sem": z_sem,
        "x_T": ae.invert(x, z_sem, steps=4, solver="dpmpp2m"),
        "eps": ddim.net(z, torch.full((len(z),), 500.0)),
        "decoded": ae.decode_mean(z_sem[:2], t=900, seed=0),
        "edited": edit.render(ae, model=fingerprint(ae)),
        "bright": ae.attributes.probabilities(z_sem)[:, 0],
        "level": ae.attributes.probabilities(z_sem)[:, 1],
    }
    safetensors.torch.save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")


if __name__ == "__main__":
    target = PLACE / diffae.__version__
    target.mkdir(parents=True)
    with torch.no_grad():
        write(target)
    print(target)
