"""The command that says what z_sem tells of measurements."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from diffae.cli import arguments, inputs
from diffae.cli.bars import say, warn, work_bar
from diffae.cli.divisions import measured_unseen
from diffae.config import Range, Seed

if TYPE_CHECKING:
    from diffae.data import ImageSet


@dataclass(frozen=True, kw_only=True)
class Posterior(arguments.Labelling):
    """Say what z_sem tells of measured labels, and how surely: OUT/report.html, posterior.json, images.csv, plots.

    Fitted to the images that the model was trained on; each image then gets what is to be expected, and an interval.

    Example: diffae posterior runs/galaxies --column redness --log flux --out runs/galaxies/posterior
    """

    source: arguments.LocalSource
    out: arguments.Folder
    """Folder of the page."""
    column: tuple[str, ...] = ()
    """The labels; by default all that are numbers."""
    log: tuple[str, ...] = ()
    """Labels of which the decimal logarithm is meant."""
    data: str | None = None
    """The images that are told of; by default those that the run held out."""
    labels: Path | None = None
    """Labels of the run's images, if they bring none."""
    share: Annotated[float, Range(0.01, 0.99)] = 0.9
    """Of numbers that shall lie within an interval."""
    seed: Seed = 0
    """Of the networks."""

    def run(self) -> None:
        from diffae.evaluation.posterior import predict_measurement, write_posterior
        from diffae.semantics.posterior import Posterior as Fitted

        ae = inputs.autoencoder(self.source)
        kinds = {"labels_kind": self.labels_kind}
        trained = inputs.images(ae, self.source, None, self.labels, **kinds)
        # Those that are told of need not be measured, nor by the same table.
        data = trained if self.data is None else inputs.images(ae, self.source, self.data)
        data = measured_unseen(self.source, data, self.data)
        rows = inputs.looked_at(data, self.data, "tell of")
        asked = [*dict.fromkeys([*((name, False) for name in self.column), *((name, True) for name in self.log)])]
        names = asked or [(name, False) for name in _numbers(trained)]
        if not names:
            raise ValueError(f"No label is a number with more than two values; there are {', '.join(trained.labels) or 'none'}.")
        wanted = [
            (name, log, _measured(trained, name, log), _measured(data, name, log, needed=data is trained)) for name, log in names
        ]
        z_train = inputs.codes(ae, self.source, trained)[trained.train]
        z_sem = inputs.codes(ae, self.source, data)[rows]
        found, left_out = [], []
        with work_bar("Fitting") as update:
            for name, log, y, other in wanted:
                title = f"log10 {name}" if log else name
                try:
                    posterior = Fitted(
                        z_train, y[trained.train], groups=trained.grouped(trained.train), seed=self.seed, progress=update
                    )
                except ValueError as error:
                    if asked:
                        raise ValueError(f"{name}: {error}") from None
                    left_out.append(f"{name} was left out: {error}")
                    continue
                found.append(predict_measurement(posterior, title, z_sem, other[rows], share=self.share))
        for note in left_out:
            warn(note)
        if not found:
            raise ValueError("Nothing is left to tell of.")
        which = "which the run held out" if self.data is None else f"those of {self.data}"
        about = {"n": len(rows), "images": which, "n_train": len(trained.train), "share": self.share, "seed": self.seed}
        page = write_posterior(found, [data.names[i] for i in rows], self.out, about=about)
        for prediction in found:
            if prediction.covered:
                r2 = "" if prediction.r2 is None else f"R² {prediction.r2:.3f}, "
                say(f"{prediction.name}: {r2}{prediction.covered[self.share]:.1%} within intervals of {self.share:g}")
        print(f"Open {page}")


def _measured(data: "ImageSet", name: str, log: bool, *, needed: bool = True) -> np.ndarray:
    """A label of all images, or its logarithm."""
    if name not in data.labels:
        if not needed:
            return np.full(len(data.names), np.nan)
        raise ValueError(f"There is no column {name!r}; there are {', '.join(data.labels) or 'none'}.")
    y = data.labels[name]
    if not log:
        return y
    if (y[~np.isnan(y)] <= 0).any():
        raise ValueError(f"{name!r} has numbers that are not above 0, which have no logarithm.")
    return np.log10(y)


def _numbers(data: "ImageSet") -> list[str]:
    """The labels that are numbers."""
    return [name for name, y in data.labels.items() if len(np.unique(y[~np.isnan(y)])) > 2]
