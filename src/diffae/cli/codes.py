"""Commands about z_sem: codes as data, nearest images, attributes."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffae.cli import arguments, inputs
from diffae.cli.bars import console, say, warn, work_bar
from diffae.cli.sheets import show
from diffae.config import Count, Range
from diffae.runtime import processes

if TYPE_CHECKING:
    from torch import Tensor

    from diffae.data import ImageSet


@dataclass(frozen=True, kw_only=True)
class Encode(arguments.Cropping, arguments.Labelling):
    """Write z_sem of every image, with its path and labels, as a Parquet file that pandas and DuckDB read.

    Under `torchrun` or `accelerate launch` the processes share the images.

    Example: diffae encode runs/quickstart photos/ --out codes.parquet
    """

    source: arguments.Source
    data: arguments.Data
    """A folder, zip or tar of images, Parquet or Arrow files, an LMDB, or the name `avatars`."""
    out: Annotated[Path, arguments.Writes((".parquet",))] = Path("codes.parquet")
    """The file."""
    labels: Path | None = None
    """A label table; by default the run's, of its own images, `labels.csv` beside others, or what the data brings along."""
    x_T_steps: Annotated[int | None, Range(1, 1000), tyro.conf.arg(name="x-T-steps")] = None
    """Infer x_T too, with this many network calls; it is as large as the image."""
    batch_size: Count = 64
    """Images at a time."""

    def run(self) -> None:
        from diffae.data.codes import write_codes
        from diffae.interop.fingerprints import fingerprint

        processes.join()
        ae = inputs.autoencoder(self.source)
        began = time.perf_counter()
        data = inputs.images(ae, self.source, self.data, self.labels, crop=self.crop, labels_kind=self.labels_kind)
        prepared = time.perf_counter() - began
        identity = f"{fingerprint(ae)}-{data.key}"
        with work_bar("Encoding images") as update:
            spent = write_codes(
                ae, data, self.out, identity=identity, x_T_steps=self.x_T_steps, batch_size=self.batch_size, progress=update
            )
        if not processes.is_first():
            return
        print(f"{self.out}: {len(data.names):,} codes of {ae.z_dim} dimensions")
        total = prepared + spent.images + spent.network
        print(
            f"{total:.1f} s: {spent.network / total:.1%} in the network, {spent.images / total:.1%} waiting for images, "
            f"{prepared / total:.1%} finding and decoding them ({prepared:.1f} s; nothing is decoded twice)"
        )


@dataclass(frozen=True, kw_only=True)
class Neighbours(arguments.Cropping):
    """Find the images whose z_sem is nearest to that of given ones, and show them as a contact sheet.

    Example: diffae neighbours runs/quickstart face.png --data photos/ --out neighbours.png
    """

    source: arguments.Source
    files: arguments.Files
    """The images to look for; a row each."""
    data: str | None = None
    """Where to look; by default the images that the run was trained on."""
    num: Count = 8
    """Neighbours of each."""
    out: arguments.Picture = Path("neighbours.png")
    """The contact sheet."""

    def run(self) -> None:
        from diffae.data.codes import nearest_codes

        ae = inputs.autoencoder(self.source)
        x = inputs.pictures(ae, self.files, self.crop)
        data = inputs.images(ae, self.source, self.data)
        names, distances = nearest_codes(inputs.codes_file(ae, self.source, data), ae.encode(x), num=self.num)
        place = {name: i for i, name in enumerate(data.names)}
        rows = [[image, *data.images([place[n] for n in row])] for image, row in zip(x, names, strict=True)]
        show(ae, rows, self.out)
        for file, row, distance in zip(self.files, names, distances.tolist(), strict=True):
            print(f"{file}: {', '.join(f'{n} ({d:.2f})' for n, d in zip(row, distance, strict=True))}")


@dataclass(frozen=True, kw_only=True)
class FitAttributes(arguments.Labelling):
    """Fit a linear classifier of z_sem for every labelled attribute, and save them beside the model.

    Columns of 0 and 1 (or False and True, or -1 and 1; empty for unknown) give a classifier, other numbers a regression. Measured
    on held-out images. Attributes of other names that were fitted before stay.

    Example: diffae fit-attributes runs/quickstart --labels labels.csv
    """

    source: arguments.LocalSource
    labels: Path | None = None
    """A label table with a `file` column; by default the run's own, or `labels.csv` beside others. It never changes which images
    the run holds out."""
    data: str | None = None
    """The images; by default those that the run was trained on."""
    replace: bool = False
    """Drop the attributes that were fitted before."""

    def run(self) -> None:
        inputs.check_beside(self.source)
        ae = inputs.autoencoder(self.source)
        data = inputs.divided_images(ae, self.source, self.data, self.labels, labels_kind=self.labels_kind)
        if not data.labels and self.labels is not None:
            raise ValueError(f"No column of {self.labels} can be used as labels; what was left out is named above.")
        if not data.labels:
            warn("There are no labels, so only directions without labels are found: principal components, pc1 to pc10.")
        fit(self.source, inputs.codes(ae, self.source, data), data, replace=self.replace)


def fit(source: str, z_sem: "Tensor", data: "ImageSet", *, replace: bool = False) -> None:
    """Fits every labelled attribute, saves all beside the autoencoder, and shows how well each is predicted.

    Args:
        source: the folder of the autoencoder.
        z_sem: codes of the images (n, d).
        data: the images, with labels.
        replace: whether to drop attributes of other names that were fitted to this encoder before.
    """
    from rich.table import Table

    import diffae
    from diffae.data.labels.columns import describe_values
    from diffae.interop.parts import is_stale, load_part, save_part
    from diffae.semantics.fitting import fit_attributes, merge_attributes

    ae = diffae.load_diffusion(source)
    assert isinstance(ae, diffae.DiffusionAutoencoder)
    folder = Path(source) / "attributes"
    if is_stale(ae, folder):
        warn(f"{folder} was fitted to z_sem of another encoder (an earlier state of this one, perhaps). It is replaced.")
    elif folder.is_dir() and not replace:
        load_part(ae, folder)
    earlier = None if replace else ae.attributes
    for name, values in data.labels.items():
        say(f"{name}: {describe_values(values)}")
    train, held = ({k: v[i] for k, v in data.labels.items()} for i in (data.train, data.validation))
    with work_bar("Fitting attributes") as update:
        ae.attributes, notes = fit_attributes(
            z_sem[data.train],
            train,
            held_z_sem=z_sem[data.validation],
            held_labels=held,
            groups=data.grouped(data.train),
            progress=update,
        )
    for note in notes:
        warn(note)
    fitted = list(ae.attributes.scores.items())
    if earlier is not None:
        ae.attributes = merge_attributes(earlier, ae.attributes)
        others = ae.attributes.names[: -len(fitted) or None]
        if others:
            say(f"{len(others)} attributes that were fitted before are kept (--replace drops them): {', '.join(others)}")
    table = Table("attribute", "kind", "images", "share or mean", "held out", "AUROC", "AP", "R²")
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for name, s in fitted:
        cells = ["" if v is None else f"{v:.3f}" for v in (s.auroc, s.average_precision, s.r2)]
        table.add_row(name, s.kind, f"{s.n:,}", f"{s.share:.3f}", f"{s.n_held:,}", *cells)
    console.print(table)
    aurocs = [s.auroc for _, s in fitted if s.auroc is not None]
    if aurocs:
        say(f"Mean AUROC over {len(aurocs)} attributes: {sum(aurocs) / len(aurocs):.3f}")
    save_part(ae, folder, ["attributes"])
    print(f"{folder}: {', '.join(ae.attributes.names) or 'no attribute'}, and {len(ae.attributes.components)} components")
