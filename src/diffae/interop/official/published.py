"""The models that the authors published: what each is called, where it lies, and where a copy that was imported is kept."""

from pathlib import Path
from typing import NamedTuple

from diffae.runtime.files import cache_folder
from diffae.runtime.hub import download

DRIVE = "https://drive.google.com/drive/folders/"


class PublishedModel(NamedTuple):
    """One of them.

    Attributes:
        folder: what the authors' code calls the folder of its `last.ckpt`.
        page: where the authors put it (their README).
        classifier: where its classifier of CelebA's attributes is, or None.
        copy: on the hub, a copy of the averaged weights as safetensors, or None: repository, and the files of the weights, of the
            classifier, and of the mean and standard deviation that the classifier standardises z_sem with.
    """

    folder: str
    page: str
    classifier: str | None = None
    copy: tuple[str, str, str, str] | None = None


PUBLISHED = {
    "ffhq256": PublishedModel(
        "ffhq256_autoenc",
        DRIVE + "1-5zfxT6Gl-GjxM7z9ZO2AHlB70tfmF6V",
        DRIVE + "117Wv7RZs_gumgrCOIhDEWgsNy6BRJorg",
        (
            "alexkrz/diffae-ffhq256",
            "ffhq256_autoenc_ema.safetensors",
            "ffhq256_autoenc_cls.safetensors",
            "ffhq256_autoenc_latent.safetensors",
        ),
    ),
    "ffhq256-latent": PublishedModel(
        "ffhq256_autoenc_latent", DRIVE + "1-H8WzKc65dEONN-DQ87TnXc23nTXDTYb", DRIVE + "117Wv7RZs_gumgrCOIhDEWgsNy6BRJorg"
    ),
    "ffhq128": PublishedModel(
        "ffhq128_autoenc_130M", DRIVE + "10UNtFNfxbHBPkoIh003JkSPto5s-VbeN", DRIVE + "11EYIyuK6IX44C8MqreUyMgPCNiEnwhmI"
    ),
    "ffhq128-latent": PublishedModel(
        "ffhq128_autoenc_latent", DRIVE + "11pdjMQ6NS8GFFiGOq3fziNJxzXU1Mw3l", DRIVE + "11EYIyuK6IX44C8MqreUyMgPCNiEnwhmI"
    ),
    "bedroom128": PublishedModel("bedroom128_autoenc", DRIVE + "12EdjbIKnvP5RngKsR0UU-4kgpPAaYtlp"),
    "bedroom128-latent": PublishedModel("bedroom128_autoenc_latent", DRIVE + "11mdxv2lVX5Em8TuhNJt-Wt2XKt25y8zU"),
    "horse128": PublishedModel("horse128_autoenc", DRIVE + "12EtTRXzQc5uPHscpjIcci-Rg-OGa_N30"),
    "horse128-latent": PublishedModel("horse128_autoenc_latent", DRIVE + "11k8XNDK3ENxiRnPSUdJ4rnagJYo4uKEo"),
}
"""By the name that commands take. `-latent` has the latent DDIM too, and can sample."""


class Found(NamedTuple):
    """Files of a published model.

    Attributes:
        weights: the checkpoint, or its weights alone.
        preset: whose networks they are.
        classifier: of CelebA's attributes, or None.
        statistics: a file with the mean and standard deviation of z_sem for the classifier, where it has none.
        copy: whose copy these are, or None where they are the authors' own files.
    """

    weights: Path
    preset: str
    classifier: Path | None
    statistics: Path | None
    copy: str | None = None


def find(name: str, place: Path = Path("checkpoints")) -> Found:
    """The files of a published model: those in the folder that the authors' code keeps them in, or a copy on the hub.

    Raises:
        FileNotFoundError: neither is there; the message says where to fetch it.
    """
    model, preset = PUBLISHED[name], name.removesuffix("-latent")
    checkpoint, classifier = place / model.folder / "last.ckpt", place / f"{preset}_autoenc_cls" / "last.ckpt"
    if checkpoint.is_file():
        return Found(checkpoint, preset, classifier if classifier.is_file() else None, None)
    why = "no copy of it is known on the hub"
    if model.copy is not None:
        repository, *files = model.copy
        try:
            folder = download(repository, files)
        except FileNotFoundError as error:
            why = f"its copy on the hub, {repository}, cannot be had: {str(error).rstrip('.')}"
        else:
            weights, classifier, statistics = (folder / file for file in files)
            return Found(weights, preset, classifier, statistics, copy=repository)
    edits = "" if model.classifier is None else f" (its classifier, for edits, at {model.classifier}, to {classifier})"
    raise FileNotFoundError(
        f"There is no {checkpoint}, and {why}. In a browser, fetch last.ckpt from {model.page} to {checkpoint}{edits}, and run the "
        "same command again."
    )


def imported_folder(name: str) -> Path:
    """Where an imported model is kept under its name."""
    return cache_folder() / "models" / name


def find_imported(name: str) -> Path | None:
    """Where the published model of this name is once it was imported; None if no such model was published.

    Raises:
        FileNotFoundError: it was published, and has not been imported; the message says how it is.
    """
    if name not in PUBLISHED:
        return None
    if not (imported_folder(name) / "config.json").is_file():
        raise FileNotFoundError(f"{name} is a model that the authors published. Import it once: `diffae import {name}`.")
    return imported_folder(name)
