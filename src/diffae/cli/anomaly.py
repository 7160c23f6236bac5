"""The command that finds images which are unlike a model's own."""

from dataclasses import dataclass
from pathlib import Path

from diffae.cli import arguments, inputs
from diffae.cli.bars import say, work_bar
from diffae.cli.divisions import measured_unseen
from diffae.config import Count


@dataclass(frozen=True, kw_only=True)
class Anomaly(arguments.Labelling):
    """Find images that are not like those that a model was trained on: OUT/report.html, anomaly.json, images.csv, pictures.

    Example: diffae anomaly runs/cells --data new/ --out runs/cells/anomaly
    """

    source: arguments.LocalSource
    out: arguments.Folder
    """Folder of the page."""
    data: str | None = None
    """The images to look at; by default those that the run held out."""
    labels: Path | None = None
    """Their labels, if they bring none."""
    column: str | None = None
    """Of their labels, the one that is 1 for anomalies and 0 for usual images: how well they are told is measured then."""
    usual: str | None = None
    """Images that are usual; by default those that the run was trained on."""
    num: Count = 16
    """How many images are drawn, of the least usual."""

    def run(self) -> None:
        from diffae.explanation.anomalies import write_anomalies
        from diffae.explanation.anomaly import AnomalyScorer

        ae = inputs.autoencoder_of_pixels(self.source)
        data = inputs.images(ae, self.source, self.data, self.labels, labels_kind=self.labels_kind)
        same = self.data is None and self.usual is None
        trained = data if same else inputs.divided_images(ae, self.source, self.usual)
        data = measured_unseen(self.source, data, self.data)
        indices = inputs.looked_at(data, self.data, "look at")
        with work_bar("Looking") as update:
            scorer = AnomalyScorer(ae, trained, update)
            page, result = write_anomalies(
                scorer, trained, data, indices, self.out, column=self.column, num=self.num, progress=update
            )
        for image in result["images"][:5]:
            say(f"{image['file']}: {image['score']:.1f}")
        for name, value in result.get("auroc", {}).items():
            say(f"AUROC of {name}: {value:.3f}")
        print(f"Open {page}")
