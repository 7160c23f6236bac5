"""Priors of z_sem: the command that trains or fits one, of all images or of those with a label."""

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffae.cli import arguments, inputs
from diffae.cli.runs import fit_prior, train_prior, with_budget
from diffae.config import PriorConfig, TrainingConfig
from diffae.config.presets import prior_preset
from diffae.runtime import processes

if TYPE_CHECKING:
    from diffae.data import ImageSet

DEFAULT_PRIOR_PRESET = "latent-small"
FITTED = {"gaussian": "a Gaussian", "kernel": "a smoothed bootstrap"}
"""Priors that need no training."""
LEAST_GIVEN = 20
"""Training images with a label, of which there is a prior of their own."""


@dataclass(frozen=True, kw_only=True)
class TrainPrior(arguments.Labelling):
    """Train a latent DDIM on the z_sem of an autoencoder's images, so that it can sample.

    Several priors can live beside one autoencoder, each with a name. The presets `gaussian` and `kernel` need no training; the
    second draws training codes with noise, and holds them. With `--given` it is a prior of the images with that label alone, so
    that each sample is one of them, without rejection. Running the same command again goes on where it stopped.

    Example: diffae train-prior runs/quickstart --minutes 2
    """

    source: arguments.LocalSource
    data: str | None = None
    """The images; by default those that the run was trained on."""
    labels: Path | None = None
    """Their labels, if they bring none."""
    given: str | None = None
    """A label of yes and no: only codes of images that have it; `not NAME`: of those that do not."""
    preset: str = DEFAULT_PRIOR_PRESET
    """Where the settings below start from: `latent-small`, the paper's `latent10` and `latent20`, `gaussian`, or
    `kernel`."""
    name: str | None = None
    """Name of the prior; by default `ddim`, `gaussian` or `kernel`, and with --given `given/` and the label, which is taken only
    where it is named. The folder is RUN/priors/NAME."""
    minutes: arguments.Minutes = None
    """Budget in minutes, turned into codes from the rate of the first minute."""
    images: arguments.Number = None
    """Budget in codes seen, total over resumes."""
    model: PriorConfig
    training: TrainingConfig

    def run(self) -> None:
        if self.preset not in FITTED:
            from diffae.training.run import create_accelerator

            create_accelerator()  # Here several processes meet, so that they share the images to encode.
        inputs.check_beside(self.source)
        ae = inputs.autoencoder(self.source)
        data = inputs.images(ae, self.source, self.data, self.labels, labels_kind=self.labels_kind or None)
        z_sem = inputs.codes(ae, self.source, data)
        given = None if self.given is None else _with_label(data, self.given)
        name = self._name()
        if self.preset in FITTED:
            folder = fit_prior(self.source, z_sem, data, kind=self.preset, name=name, given=given)
            codes = f"{len((given or data).train):,} codes"
            print(f"{folder}: {FITTED[self.preset]} of {codes}. Sample with `{self._sampling(name)}`.")
            return
        training = with_budget(self.training, self.minutes, self.images)
        config = dataclasses.replace(prior_preset(self.preset), model=self.model, training=training)
        trained = train_prior(self.source, z_sem, data, config, name=name, given=given)
        if trained and processes.is_first():
            print(f"{trained}: sample with `{self._sampling(name)}`.")

    def _sampling(self, name: str) -> str:
        return shlex.join(["diffae", "sample", self.source, "--prior", name])

    def _name(self) -> str:
        """The prior's name: as asked, or after what it is of."""
        from diffae.interop.parts import GIVEN

        if self.name is not None or self.given is None:
            return self.name or (self.preset if self.preset in FITTED else "ddim")
        if self.given.startswith(".") or set(self.given) & set('/\\:*?"<>|'):
            raise ValueError(f"The label {self.given!r} cannot be the name of a folder: name the prior with --name {GIVEN}/NAME.")
        return f"{GIVEN}/{self.given}"


def _with_label(data: "ImageSet", given: str) -> "ImageSet":
    """Of images those that have a label, or do not.

    Raises:
        ValueError: there is no such label of yes and no, or too few images have it.
    """
    from diffae.data.labels.columns import members

    has = members(data.labels, given) == 1
    found = dataclasses.replace(data, train=data.train[has[data.train]], validation=data.validation[has[data.validation]])
    if len(found.train) < LEAST_GIVEN:
        raise ValueError(
            f"Only {len(found.train)} of the {len(data.train):,} training images are known to be {given!r}, too few for a prior of "
            f"their own ({LEAST_GIVEN}): `diffae sample --attribute` chooses among samples of all, by a few labels."
        )
    return found
