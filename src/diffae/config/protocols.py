"""Named protocols of an evaluation: which tables and figures, of how many images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from diffae.config.data import Crop
from diffae.config.ranges import Count, InRange, Share

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol(InRange):
    """How images are read and split for an evaluation, and how many of them are measured."""

    suite: tuple[str, ...] = ("all",)
    """Which tables and figures."""
    crop: Crop | None = None
    """Crop of the images; None takes the training run's, or the centre."""
    validation: Share | None = None
    """Share held out from the classifiers; None takes the training run's, or 0.05."""
    unseen: bool = False
    """Whether the model was trained on none of these images, so that all of them can be tested on."""
    num: Count = 500
    """Images of everything but FID and KID."""
    num_inception: Count = 200
    """Images of FID and KID."""
    num_real: Count = 400
    """Real images of a class that few-shot samples are compared with, at most."""
    steps: tuple[int, ...] = (10, 20, 50, 100)
    """Network calls of the decoder, T."""
    generation_steps: tuple[int, ...] = (10, 100)
    """The same for samples."""
    attributes: tuple[str, ...] = ()
    """Attributes that are sampled (`not NAME`: their absence) and edited; none for the two known best."""
    faces: bool = False
    """Whether the images are of faces, so that a face network says how much of the person an edit keeps."""


_SAMPLES = Protocol(suite=("generation",), num_inception=50_000, generation_steps=(10, 20, 50, 100))

PROTOCOLS: dict[str, Protocol] = {
    # What two processor cores measure within three quarters of an hour.
    "small": Protocol(),
    # Tables 1 and 2, figures 3 to 6, and the AUROC: a model of FFHQ, tested on CelebA-HQ. The authors fit and test their
    # classifiers on all 30,000; here on seven tenths and the rest.
    "celebahq128": Protocol(
        suite=("reconstruction", "denoising", "attributes", "interpolation", "variation", "manipulation"),
        validation=0.3,
        unseen=True,
        num=30_000,
        faces=True,
    ),
    # Table 3: 5,000 samples a class against all its images, cropped as D2C's.
    "celeba64": Protocol(
        suite=("fewshot",),
        crop="celeba",
        num_inception=5_000,
        num_real=200_000,
        steps=(100,),
        attributes=("Male", "not Male", "Blond_Hair", "not Blond_Hair"),
    ),
    # Table 4, of a model and the images that it was trained on.
    "ffhq128": _SAMPLES,
    "horse128": _SAMPLES,
    "bedroom128": _SAMPLES,
}


def protocol(name: str) -> Protocol:
    """The named protocol; a ValueError lists those that there are."""
    return named(PROTOCOLS, name, "protocol")


def named(table: Mapping[str, C], name: str, what: str) -> C:
    """An entry of a table of settings.

    Raises:
        ValueError: there is none of that name; the message lists those that there are.
    """
    if name not in table:
        raise ValueError(f"There is no {what} {name!r}. There are: {', '.join(table)}.")
    return table[name]
