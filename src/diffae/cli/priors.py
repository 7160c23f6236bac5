"""Priors of z_sem, of all images or of those with a label: trained or fitted, measured, and kept beside the autoencoder."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffae.cli import arguments, inputs
from diffae.cli.bars import say, warn, work_bar
from diffae.cli.runs import show_training, with_budget
from diffae.config import PriorConfig, PriorRunConfig, TrainingConfig
from diffae.config.presets import prior_preset
from diffae.runtime import processes

if TYPE_CHECKING:
    from torch import Tensor

    from diffae.autoencoder import DiffusionAutoencoder
    from diffae.data import ImageSet

DEFAULT_PRIOR_PRESET = "latent-small"
FITTED = {"gaussian": "a Gaussian", "kernel": "a smoothed bootstrap"}
"""Priors that need no training."""
LEAST_TOLD, MOST_TOLD = 50, 1000
"""Held-out codes from which samples are told apart: at least, and at most."""
MARGIN = 0.03
"""Of the AUROC, by which another prior has to come nearer to be recommended."""
LEAST_GIVEN = 20
"""Training images with a label, of which there is a prior of their own."""


@dataclass(frozen=True, kw_only=True)
class TrainPrior(arguments.Labelling):
    """Train a latent DDIM on the z_sem of an autoencoder's images, so that it can sample.

    Several priors can live beside one autoencoder, each with a name. The presets `gaussian` and `kernel` need no training; the
    second draws training codes with noise, and holds them. With `--given` it is a prior of the images with that label alone, so
    that each sample is one of them, without rejection. Running the same command again goes on where it stopped.

    Example: diffae train-prior runs/photos --minutes 2
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
    """Name of the prior; by default `ddim`, `gaussian` or `kernel`, with --given followed by the label. One of a label is taken
    only where it is named. The folder is RUN/priors/NAME."""
    minutes: arguments.Minutes = None
    """Budget in minutes, turned into codes from the rate of the first minute."""
    images: arguments.Number = None
    """Budget in codes seen, total over resumes."""
    model: PriorConfig
    training: TrainingConfig

    def run(self) -> None:
        usual = prior_preset(DEFAULT_PRIOR_PRESET)
        asked, needless = (self.minutes, self.images, self.model, self.training), (None, None, usual.model, usual.training)
        if self.preset in FITTED and asked != needless:
            raise ValueError(f"--preset {self.preset} needs no training: leave --minutes, --images, --model and --training away.")
        name = self._name()
        if self.preset not in FITTED:
            from diffae.training.run import create_accelerator

            create_accelerator()  # Here several processes meet, so that they share the images to encode.
        inputs.check_beside(self.source)
        ae = inputs.autoencoder(self.source)
        data = inputs.divided_images(ae, self.source, self.data, self.labels, labels_kind=self.labels_kind or None)
        among = data if self.given is None else _with_label(data, self.given)
        z_sem = inputs.codes(ae, self.source, data)
        with_it = f'diffae sample {self.source} --prior "{name}"'
        if self.preset in FITTED:
            folder = fit_prior(self.source, z_sem, data, kind=self.preset, name=name, among=among)
            print(f"{folder}: {FITTED[self.preset]} of {len(among.train):,} codes. Sample with `{with_it}`.")
            return
        from diffae.interop.parts import prior_folder

        folder, base = prior_folder(Path(self.source), name), prior_preset(self.preset)
        training = with_budget(self.training, self.minutes, self.images, out=folder, usual=base.training)
        config = dataclasses.replace(base, model=self.model, training=training)
        folder = train_prior(self.source, z_sem, data, config, name=name, among=among)
        if processes.is_first():
            print(f"{folder}: sample with `{with_it}`.")

    def _name(self) -> str:
        """The prior's name: as asked, or after its kind and what it is of."""
        kind = self.preset if self.preset in FITTED else "ddim"
        name = self.name if self.name is not None else kind if self.given is None else f"{kind} {self.given}"
        if not name or set(name) & set('/\\:*?"<>|') or name.startswith(".") or name.endswith((".", " ")):
            raise ValueError(f"{name!r} cannot be the name of a prior's folder: give another --name, of letters and digits.")
        return name


def _with_label(data: "ImageSet", given: str) -> "ImageSet":
    """Of images those that have a label, or do not.

    Raises:
        ValueError: there is no such label of yes and no, or too few images have it.
    """
    found = data.with_label(given)
    if len(found.train) < LEAST_GIVEN:
        raise ValueError(
            f"Only {len(found.train)} of the {len(data.train):,} training images are known to be {given!r}, too few for a prior of "
            f"their own ({LEAST_GIVEN}): `diffae sample --attribute` chooses among samples of all, by a few labels."
        )
    return found


def train_prior(source: str, z_sem: "Tensor", data: "ImageSet", asked: PriorRunConfig, *, name: str, among: "ImageSet") -> Path:
    """Starts a prior beside an autoencoder, or goes on with it, and shows its progress.

    Args:
        source: the folder of the autoencoder.
        z_sem: codes of the images (n, d).
        data: the images.
        asked: the configuration, but for what follows from the codes.
        name: of the prior.
        among: those of the images whose codes it is of: all, or those with a label.

    Returns:
        The prior's folder.

    Raises:
        ValueError: a prior of that name was trained on codes of another encoder.
    """
    from diffae.interop.parts import MEASURED, is_stale, prior_folder
    from diffae.training.priors import PriorSubject
    from diffae.training.run import create_accelerator, resolve

    ae, data = _standardizing(source, z_sem[data.train]), among
    folder = prior_folder(Path(source), name)
    _refuse_other_label(folder, among)
    if is_stale(ae, folder / "model"):
        raise ValueError(
            f"{folder} was trained on z_sem of another encoder (an earlier state of this one, perhaps), and cannot go on with this "
            "one's. Give another --name, or delete that folder."
        )
    asked = dataclasses.replace(asked, model=dataclasses.replace(asked.model, z_dim=ae.z_dim), data=data.config)
    config = resolve(asked, folder, say=warn)
    accelerator = create_accelerator()
    ae.to(accelerator.device)
    if accelerator.is_main_process:
        (folder / MEASURED).unlink(missing_ok=True)  # It is of the weights that there were.
        say(f"{len(data.train):,} codes of {ae.z_dim} dimensions to train on, {len(data.validation):,} held out")
    show_training(PriorSubject(config, ae, z_sem, data), folder, accelerator, what="codes")
    if accelerator.is_main_process:
        _measure(source, name, z_sem, data)
    return folder


def _measure(source: str, name: str, z_sem: "Tensor", data: "ImageSet") -> None:
    """Says how well samples of a prior, and of those that need no training, are told from held-out codes; keeps it beside it."""
    import diffae
    from diffae.interop.parts import MEASURED, available_priors, preferred_prior, prior_folder
    from diffae.metrics.codes import compare_codes
    from diffae.runtime.files import write_text
    from diffae.semantics.prior import GaussianPrior, KernelPrior

    if len(data.validation) < LEAST_TOLD:
        return
    ae = diffae.load(source, prior=name)
    assert ae.prior is not None
    assert ae.standardizer is not None
    train, held = (ae.standardizer(z_sem[rows]) for rows in (data.train, data.some(data.validation, MOST_TOLD)))
    with work_bar("Samples beside others' codes") as update:
        told: list[float] = []
        for prior in (ae.prior, GaussianPrior(ae.z_dim).fit(train), KernelPrior.of(train)):
            update("Comparing priors", len(told), 3)
            auroc = compare_codes(prior.sample(len(held)), held)["auroc"]
            told.append(max(auroc, 1 - auroc))
    trained, gaussian, kernel = told
    write_text(prior_folder(Path(source), name) / MEASURED, json.dumps({"told": trained, "n": len(held)}) + "\n")
    others = f"of `--preset gaussian` {gaussian:.2f}, `kernel` {kernel:.2f}"
    say(f"Told from held-out codes (AUROC, 0.5 is perfect): {trained:.2f}; {others}")
    if name in (priors := available_priors(Path(source))) and len(priors) > 1:
        say(f"Of {len(priors)} priors beside this model {preferred_prior(ae, Path(source))} is taken where none is named.")
    if min(gaussian, kernel) < trained - MARGIN:
        better = "gaussian" if gaussian < kernel else "kernel"
        given = "" if data.given is None else f' --given "{data.given}"'
        say(f"`diffae train-prior {source} --preset {better}{given}`, which needs no training, comes nearer to real codes.")


def fit_prior(source: str, z_sem: "Tensor", data: "ImageSet", *, kind: str, name: str, among: "ImageSet") -> Path:
    """Fits a prior that needs no training, `gaussian` or `kernel`, saves it beside the autoencoder, and returns its folder;
    arguments as of `train_prior`."""
    from diffae.interop.parts import MEASURED, prior_folder, save_part
    from diffae.semantics.prior import GaussianPrior, KernelPrior

    ae, data = _standardizing(source, z_sem[data.train]), among
    assert ae.standardizer is not None
    z = ae.standardizer(z_sem[data.train])
    ae.prior = GaussianPrior(ae.z_dim).fit(z) if kind == "gaussian" else KernelPrior.of(z)
    if isinstance(ae.prior, KernelPrior):
        held = f"{len(ae.prior.codes):,} codes of training images"
        say(f"Noise of {float(ae.prior.noise):.2f}, as {int(ae.prior.neighbours):,} codes around each vary; the prior holds {held}")
    ae.prior.given = among.given
    folder = prior_folder(Path(source), name)
    _refuse_other_label(folder, among)
    if (folder / "config.json").is_file():
        raise ValueError(f"{folder} is a prior that was trained, which this would replace. Give another --name.")
    (folder / MEASURED).unlink(missing_ok=True)
    save_part(ae, folder / "model", ["prior", "standardizer"])
    _measure(source, name, z_sem, data)
    return folder


def _refuse_other_label(folder: Path, among: "ImageSet") -> None:
    """Keeps a prior of a label from becoming one of another, or of all."""
    from diffae.interop.parts import given_of_prior

    if (folder / "model").is_dir() and (there := given_of_prior(folder)) != among.given:
        raise ValueError(f"{folder} is a prior of {there or 'all images'}, not of {among.given or 'all'}. Give another --name.")


def _standardizing(source: str, z_sem: "Tensor") -> "DiffusionAutoencoder":
    """The autoencoder alone, with a standardizer fitted to codes (n, d)."""
    import diffae
    from diffae.semantics.standardizer import Standardizer

    ae = diffae.load_diffusion(source)
    assert isinstance(ae, diffae.DiffusionAutoencoder)
    ae.standardizer = Standardizer.fit(z_sem)
    return ae
