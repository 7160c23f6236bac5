"""The command that makes a decoder of few calls of one of many."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffae.cli import arguments, inputs
from diffae.cli.bars import say
from diffae.cli.divisions import as_divided, data_config, is_own
from diffae.cli.runs import train, with_budget
from diffae.cli.sampling import Sample
from diffae.config import Count, DataConfig, RunConfig, Seed, StartConfig
from diffae.config.presets import DISTILLATION, DISTILLED_SHARE

if TYPE_CHECKING:
    from diffae.autoencoder import DiffusionAutoencoder

DRAWN_BY = ".samples.json"
"""In a folder of samples: by what model they were drawn, and how."""


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Make an autoencoder of a trained one that decodes, samples and inverts in one to four network calls.

    Its z_sem, and with it priors and attributes, stay as they are; with more steps it decodes nearly as before. Of a model that
    is no run, and so has no images of its own, samples take their place where none are named. Running the same command again
    goes on where it stopped.

    Example: diffae distill runs/photos --out runs/photos-quick
    """

    source: arguments.Source
    out: arguments.Folder
    """The run directory of the new model."""
    data: str | None = None
    """The images; by default those that the run was trained on."""
    images: arguments.Number = None
    """Budget in images seen; by default a twentieth of those that the decoder was trained on."""
    minutes: arguments.Minutes = None
    """Budget in minutes, in place of images."""
    samples: Count = 2000
    """Number of samples, where there are no images."""
    seed: Seed = 0
    """Of the training."""

    def run(self) -> None:
        from diffae.training.starting import start_name

        ae = inputs.autoencoder(self.source)
        images = self.images
        if images is None and self.minutes is None and not (self.out / "config.json").is_file():
            seen = ae.about.get("images_seen")
            if not seen:
                raise ValueError(f"{self.source} does not say how many images it was trained on: give --images or --minutes.")
            images = max(DISTILLATION.batch_size, int(seen) // DISTILLED_SHARE)
        data = self._data(ae)
        training = with_budget(dataclasses.replace(DISTILLATION, seed=self.seed), self.minutes, images, out=self.out)
        model = dataclasses.replace(ae.config, unet=dataclasses.replace(ae.config.unet, jumps=True))
        start = StartConfig(model=start_name(self.source, self.out), freeze="encoder")
        # What the teacher's encoder has seen is not held out of the student.
        divide = as_divided(self.source) if is_own(self.source, self.data) else None
        train(RunConfig(preset="distillation", model=model, data=data, training=training, start=start), self.out, divide=divide)

    def _data(self, ae: "DiffusionAutoencoder") -> DataConfig:
        """The images to follow to their noise, and whose z_sem are decoded."""
        from diffae.interop.weights import is_run

        if self.data is not None or is_run(self.source):
            data = data_config(ae, self.source, self.data)
            if data.validation == "published" and not is_own(self.source, self.data):
                # Others' images need not be divided.
                data = dataclasses.replace(data, validation=DataConfig().validation)
            return data
        if (
            ae.config.latents is not None
            or ae.preparation.shown
            or ae.config.channels not in (1, 3)
            or len(ae.config.image_size) != 2
        ):
            raise ValueError(
                f"{self.source} is no run, and its samples are no pictures that could be trained on: name images with --data."
            )
        folder = self.out.with_name(f"{self.out.name}-samples")
        self._claim(folder, ae)
        if len(list(folder.glob("*.png"))) < self.samples:
            say(f"{self.source} is no run, so it has no images of its own: {self.samples:,} samples take their place, {folder}")
            Sample(source=self.source, num=self.samples, seed=self.seed, out=folder, precision="auto").run()
        return DataConfig(source=str(folder), flip=False)

    def _claim(self, folder: Path, ae: "DiffusionAutoencoder") -> None:
        """Writes into the folder of samples what they are of; refuses one that holds images of something else."""
        from diffae.interop.fingerprints import digest_model
        from diffae.runtime.files import write_text
        from diffae.runtime.weights import digest_module

        if ae.prior is None or ae.standardizer is None:
            raise ValueError(f"{self.source} has no images, and no prior to draw samples by: name images with --data.")
        drawn_by = {"model": digest_model(ae), "calibration": dataclasses.asdict(ae.calibration)}
        drawn_by |= {"prior": digest_module(ae.prior), "standardizer": digest_module(ae.standardizer)}
        text = json.dumps(drawn_by | {"seed": self.seed, "num": self.samples}, indent=2) + "\n"
        file = folder / DRAWN_BY
        if (file.read_text(encoding="utf-8") if file.is_file() else "") == text:
            return
        if any(folder.glob("*.png")):
            raise ValueError(
                f"{folder} holds images, and none that are known to be {self.samples:,} samples of {self.source} as it is, drawn "
                f"with seed {self.seed}. Delete that folder, name another --out, or take its images as they are, --data {folder}."
            )
        write_text(file, text)
