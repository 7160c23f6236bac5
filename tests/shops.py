"""A studio's model and images, small enough for tests."""

from dataclasses import replace

import numpy as np
import torch

from diffae.autoencoder import build
from diffae.config import DataConfig
from diffae.data import prepare
from diffae.semantics.fitting import fit_attributes
from diffae.semantics.prior import GaussianPrior
from diffae.semantics.standardizer import Standardizer
from diffae.studio.workshop import Workshop


def small(tiny, make_images):
    """A Workshop of 60 images of 8 x 8 with two attributes, of a network that was never trained."""
    data = prepare(DataConfig(source=str(make_images(60)), validation=0.2), size=(8, 8), channels=3)
    red, green = (data.images(range(60))[:, c].mean((1, 2)).numpy() for c in (0, 1))
    labels = {"Red": (red > np.median(red)).astype(float), "Green": (green > np.median(green)).astype(float)}
    data = replace(data, labels=labels)
    torch.manual_seed(0)
    ae = build(tiny).eval()
    for p in ae.parameters():
        p.data += 0.05 * torch.randn(p.shape)
    z = ae.encode(data.images(range(60)))
    ae.standardizer = Standardizer.fit(z)
    ae.prior = GaussianPrior(ae.z_dim).fit(ae.standardizer(z))
    train, held = data.train, data.validation
    parts = [{name: values[i] for name, values in labels.items()} for i in (train, held)]
    ae.attributes, _ = fit_attributes(z[train], parts[0], held_z_sem=z[held], held_labels=parts[1])
    return Workshop(ae, data, z, name="tiny")
