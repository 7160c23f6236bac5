"""Named protocols of an evaluation: which tables and figures, of how many images."""

from diffae.config.schema import Protocol

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
    """The named protocol of an evaluation.

    Raises:
        ValueError: there is no such protocol; the message lists those that there are.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"There is no protocol {name!r}. There are: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
