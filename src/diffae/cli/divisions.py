"""Which images a command is about, the run's own or others, and which of them the run holds out."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffae.cli.bars import warn
from diffae.config import DataConfig, RunConfig, read_json

if TYPE_CHECKING:
    import numpy as np

    from diffae.autoencoder import DiffusionAutoencoder
    from diffae.data import ImageSet


def data_of(source: str) -> DataConfig | None:
    """The images that a run is trained on; None of a model that is no run, and knows none."""
    from diffae.interop.weights import is_run

    return read_json(RunConfig, Path(source) / "config.json").data if is_run(source) else None


def is_own(source: str, data: str | None) -> bool:
    """Whether what was named, or None, means the images that a run is trained on, by the place where they lie."""
    run = data_of(source)
    if run is None or data is None:
        return run is not None
    return data == run.source or Path(data).resolve() == Path(run.source).resolve()


def began_with(source: str | Path) -> str | None:
    """What a run says of the images that it began with, `ImageSet.identity`; None of a model that is no run, or an old one."""
    from diffae.training.resumption import DATA

    file = Path(source) / DATA
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def data_config(
    ae: "DiffusionAutoencoder", source: str, data: str | None, labels: Path | None = None, **settings: Any
) -> DataConfig:
    """Which images a command is about: those named, or those that the run was trained on, by the labels that divided them.

    Args:
        ae: the model. Images are prepared as its training images were.
        source: its run directory, folder or name on the hub.
        data: what was named, as `DataConfig.source`, or None.
        labels: the label table of others than the run's, or None for the one that they bring. It stands in for the run's own where
            that is not there any more.
        settings: other fields of `DataConfig`. Those that are not None replace the run's.

    Raises:
        ValueError: none are named, and the model is no run, so it has none of its own.
    """
    own, seen = is_own(source, data), ae.preparation
    config = data_of(source) or DataConfig()
    config = dataclasses.replace(config, crop=seen.crop, background=seen.background, range=seen.range, shown=seen.shown)
    if not own:
        if data is None:
            raise ValueError(f"{source} is no training run, so it has no images of its own: name them with --data.")
        config = dataclasses.replace(config, source=data, labels=None, labels_kind=(), mask=seen.mask, also=())
    lost = config.labels is not None and not Path(config.labels).is_file() and began_with(source) is not None
    if labels is not None and (lost or not own):
        config = dataclasses.replace(config, labels=str(labels), labels_kind=())
    read = labels is None or config.labels == str(labels)
    settings["labels_kind"] = (settings.get("labels_kind") or None) if read else None
    # A model of latents takes all images through the autoencoder that it was trained with.
    settings |= {"latents": ae.config.latents}
    return dataclasses.replace(config, **{k: v for k, v in settings.items() if v is not None})


def divided_as(source: str, data: "ImageSet", *, own: bool, comparable: bool) -> "ImageSet":
    """Images divided as a run divides them; those of others as they are, which is not divided.

    Args:
        source: the run, or another model.
        data: the images. Their configuration says how many are to be held out.
        own: whether they lie where the run's do. They may be its own in another place too: what it began with tells.
        comparable: whether they are prepared as it prepares them, so that what it began with can be told.

    Raises:
        ValueError: they lie where the run's do, and are not those that it began with, or would be divided otherwise.
    """
    run, began, asked = data_of(source), began_with(source), data.config.validation
    if run is None or (began is None and not own):
        return data
    if began is None or not comparable:
        found = data.divided_by(run.validation) if own else None
    else:
        found = next((divided for divided in _divided(data, run) if divided.identity == began), None)
    if found is None and own:
        raise ValueError(
            f"The images in {run.source} are not those that {source} began with, or would be divided otherwise, so it is not known "
            f"which of them it was trained on. There it was {began}; now it is {data.divided_by(run.validation).identity}. Bring "
            f"them and their groups back, or name others with --data. To take these all the same, delete {source}/data.txt."
        )
    if found is None:
        return data
    return found if asked == run.validation else dataclasses.replace(data, groups=found.groups).divided_by(asked)


def are_the_runs(found: "ImageSet") -> bool:
    """Whether images that `divided_as` returned are those that the run began with, wherever they lie."""
    return len(found.train) + len(found.validation) > 0


def measured_unseen(source: str, data: "ImageSet", named: str | None) -> "ImageSet":
    """Images whose labels are unknown where the run was trained on them, if its own were named, wherever they lie: nothing is
    measured on them. Images that are not the run's are not divided."""
    import numpy as np

    if named is None or not data.labels or not len(data.train):
        return data
    warn(f"{len(data.train):,} of the images in {named} are those that {source} was trained on: nothing is measured on them.")
    seen = np.isin(np.arange(len(data.names)), data.train)
    return dataclasses.replace(data, labels={name: np.where(seen, np.nan, values) for name, values in data.labels.items()})


def as_divided(run: str) -> "Callable[[ImageSet], ImageSet]":
    """What divides a run's own images as the run does, and raises as `divided_as`."""
    return lambda data: divided_as(run, data, own=True, comparable=True)


def _divided(data: "ImageSet", run: DataConfig) -> "Iterator[ImageSet]":
    """Images, divided by each of the groups that the run may have divided them by."""
    for groups in (data.groups, _groups(data, run), None):
        with contextlib.suppress(ValueError):
            yield dataclasses.replace(data, groups=groups).divided_by(run.validation)


def _groups(data: "ImageSet", run: DataConfig) -> "np.ndarray | None":
    """The groups of images in the run's own table, where it is there and is about them."""
    import numpy as np

    from diffae.data.labels import load_labels

    if run.labels is None or not Path(run.labels).is_file():
        return None
    with contextlib.suppress(ValueError):
        groups = load_labels(Path(run.labels), data.names, run.labels_kind).groups
        return None if groups is None else np.array(groups)
    return None
