"""The command that says what z_sem tells of measurements."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from diffae.cli import arguments, inputs
from diffae.cli.bars import say, work_bar
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
        from diffae.evaluation.posterior import tell, write_posterior
        from diffae.semantics.posterior import Posterior as Fitted

        ae = inputs.autoencoder(self.source)
        kinds = {"labels_kind": self.labels_kind}
        trained = inputs.images(ae, self.source, None, self.labels, **kinds)
        data = trained if self.data is None else inputs.images(ae, self.source, self.data, None, **kinds)
        rows = data.validation if self.data is None else np.arange(len(data.names))
        if not len(rows):
            raise ValueError("The run holds no images out to tell of: name some with --data.")
        names = [*(self.column or (() if self.log else _numbers(trained))), *self.log]
        if not names:
            raise ValueError(f"No label is a number with more than two values; there are {', '.join(trained.labels) or 'none'}.")
        wanted = [(name, *(self._measured(part, name, part is trained) for part in (trained, data))) for name in names]
        z_train = inputs.codes(ae, self.source, trained)[trained.train]
        z_sem = inputs.codes(ae, self.source, data)[rows]
        found = []
        with work_bar("Fitting") as update:
            for name, y, other in wanted:
                posterior = Fitted(z_train, y[trained.train], seed=self.seed, progress=update)
                title = f"log10 {name}" if name in self.log else name
                found.append(tell(posterior, title, z_sem, other[rows], share=self.share))
        about = {"n": len(rows), "n_train": len(trained.train), "share": self.share, "seed": self.seed}
        page = write_posterior(found, [data.names[i] for i in rows], self.out, about=about)
        for told in found:
            if told.r2 is not None:
                say(f"{told.name}: R² {told.r2:.3f}, {told.covered[self.share]:.1%} within intervals of {self.share:g}")
        print(f"Open {page}")

    def _measured(self, data: "ImageSet", name: str, needed: bool) -> np.ndarray:
        """A label of all images, or its logarithm."""
        if name not in data.labels:
            if not needed:
                return np.full(len(data.names), np.nan)
            raise ValueError(f"There is no column {name!r}; there are {', '.join(data.labels) or 'none'}.")
        y = data.labels[name]
        if name not in self.log:
            return y
        if (y[~np.isnan(y)] <= 0).any():
            raise ValueError(f"{name!r} has numbers that are not above 0, which have no logarithm.")
        return np.log10(y)


def _numbers(data: "ImageSet") -> list[str]:
    """The labels that are numbers."""
    return [name for name, y in data.labels.items() if len(np.unique(y[~np.isnan(y)])) > 2]
