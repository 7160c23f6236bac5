"""Figure 5: attributes given to images that lack them; beside SDEdit, which makes a crude edit plausible without any z_sem."""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from diffae.data.labels.columns import NOT
from diffae.evaluation.pages.figures import STEPS, Figure, edit_figures, mean_image
from diffae.evaluation.pages.tables import by_metric
from diffae.evaluation.results import Result
from diffae.evaluation.suites.bench import Bench, in_colour
from diffae.evaluation.suites.section import NotMeasurable, Section
from diffae.frozen.perceptual import LEAST
from diffae.metrics.batches import in_batches
from diffae.metrics.disentanglement import factors
from diffae.metrics.judge import Judge, train_judge
from diffae.pictures import scale_for, sheet
from diffae.runtime import seeding

SUITE = "manipulation"
TARGET = 0.9
JUDGED = 6000
"""Images that the judge learns from, in five passes. On avatars, .978 of its decisions are then right."""
ANOTHER = "another image"
"""A floor: the edit of each image is another image."""
FRACTIONS = (0.3, 0.5, 0.7)
"""How far SDEdit goes towards noise, as fractions of the way."""


def manipulation(bench: Bench) -> Section:
    """How often an edit is seen by a judge that knows nothing of z_sem, what else it changes, and how near the image stays.

    Raises:
        NotMeasurable: no attribute is fitted, or fewer images lack it than can be shown.
    """
    ae, data = bench.ae, bench.data
    if ae.attributes is None:
        raise NotMeasurable("No attribute is fitted, so there is nothing to edit. Fit some with `diffae fit-attributes RUN`.")
    judge = cache(partial(_judge, bench))
    results: list[Result] = []
    rows: list[Tensor] = []
    names: list[str] = []
    drawn: list[str] = []
    chosen = [name for name in bench.classes() if not name.startswith(NOT)]
    if not chosen:
        raise NotMeasurable("An edit gives an attribute, and only absences are named. Name an attribute without `not`.")
    for name in chosen:
        lacking = data.some(data.validation[bench.members(name, data.validation) == 0], min(bench.protocol.num, 100))
        if len(lacking) < 2:
            raise NotMeasurable(f"Only {len(lacking)} held-out images lack {name}: there is nothing to give it to.")
        x = data.images(lacking)
        ways = _ways(bench, name, x)
        floor: dict[str, Way] = {ANOTHER: (partial(_another, x), [])}
        for way, (make, on) in (ways | floor).items():
            key = {"suite": SUITE, "model": way, "subject": name, "n": len(x), "seed": bench.seed, "steps": STEPS}
            key |= {"faces": True} if bench.protocol.faces else {}
            measure = partial(_seen, bench, judge, name, way, lacking, make)
            results += bench.store.get(key, measure, on=["labels", *on])
        shown = min(3, len(x))
        if ae.attributes.tells(name):
            columns = [x[:shown], *(make(range(shown)) for make, _ in ways.values())]
            rows += list(torch.stack(columns, dim=1))
            names += [name.replace("_", " "), *([""] * (shown - 1))]
            drawn = [*ways]
    text = (
        "Up to 100 held-out images that lack the attribute. Flipped: the share in which a judge, a CNN of pixels, sees it "
        "afterwards. Others changed: the share of the judge's other decisions that changed. The autoencoder moves z_sem until its "
        f"classifier says {TARGET}. Pixels: the difference of the two mean training images, added. SDEdit (Meng et al. 2022) "
        "noises that by 0.3, 0.5 and 0.7 of the way and denoises it with the plain DDIM. Another image, taken for the edit, says "
        "what each figure is when nothing is kept."
    )
    if bench.protocol.faces:
        text += (
            " Identity: cosine of the face descriptors (dlib's, of photographs) of the image and its edit, both resized to 150 "
            "pixels; of two photographs of one person it is about .96, of two persons .91 (400 faces of the ORL set)."
        )
    figures = edit_figures(ae, bench.test(min(bench.protocol.num, 12)))
    if rows:
        caption = "From the left: " + ", ".join(["the image", *drawn]) + "."
        figures = [*figures, Figure("sdedit", "Edits beside others", caption, sheet(rows, scale=scale_for(rows[0]), names=names))]
    if untold := [name for name in chosen if not ae.attributes.tells(name)]:
        text += f" z_sem tells no more than chance does of {', '.join(untold)}, so no move of it reaches {TARGET}: left out."
    return Section(SUITE, "Attribute manipulation (figure 5)", text, results, [by_metric(results)], figures)


Way = tuple[Callable[[range], Tensor], list[str]]
"""Numbers of images -> the edited images; and what these depend on."""


def _ways(bench: Bench, name: str, x: Tensor) -> dict[str, Way]:
    data = bench.data

    @cache
    def crude() -> Tensor:
        y = bench.members(name)
        return (x + mean_image(data, data.train[y == 1]) - mean_image(data, data.train[y == 0])).clamp(-1, 1)

    def pixels(part: range) -> Tensor:
        return crude()[part.start : part.stop]

    def sdedit(fraction: float, part: range) -> Tensor:
        assert bench.ddim is not None
        return bench.ddim.sdedit(pixels(part), t_0=fraction, steps=STEPS, seed=seeding.mix(bench.seed, "sdedit"), start=part.start)

    def edited(part: range) -> Tensor:
        return bench.ae.manipulate(x[part.start : part.stop], name, target_probability=TARGET, steps=STEPS)

    assert bench.ae.attributes is not None
    ways: dict[str, Way] = {}
    if bench.ae.attributes.tells(name):
        ways["diffae"] = (edited, ["model", "calibration", "attributes"])
    ways["pixels"] = (pixels, [])
    if bench.ddim is not None:
        ways |= {f"sdedit, {fraction:g}": (partial(sdedit, fraction), ["ddim"]) for fraction in FRACTIONS}
    return ways


def _another(x: Tensor, part: range) -> Tensor:
    return x.roll(1, 0)[part.start : part.stop]


def _seen(
    bench: Bench, judge: Callable[[], Judge], name: str, way: str, lacking: np.ndarray, make: Callable[[range], Tensor]
) -> list[Result]:
    """What the judge sees in edited images, beside what it saw before."""
    decide, x = judge(), bench.data.images(lacking)
    made = bench.over(len(x), f"{SUITE}: {name}, {way}", make).clamp(-1, 1)
    before, after = decide.decide(x), decide.decide(made)
    row = decide.names.index(name)
    others = [k for k in range(len(decide.names)) if k != row]
    each = {"flipped": after[:, row].double()}
    if others:
        each["others changed"] = (before[:, others] != after[:, others]).double().mean(1)
    if min(x.shape[-2:]) >= LEAST["alexnet"]:
        lpips = bench.network("alexnet")[0]
        each["lpips"] = in_batches(lambda a, b: lpips(in_colour(a), in_colour(b)), made, x, batch_size=bench.batch_size)
    files = {}
    if bench.protocol.faces:
        face, file = bench.network("face")

        def identity(a: Tensor, b: Tensor) -> Tensor:
            return cosine_similarity(face(in_colour(a)), face(in_colour(b)))

        each["identity"] = in_batches(identity, made, x, batch_size=bench.batch_size)
        files["identity"] = f"face: {file}"
    return [
        Result(
            SUITE, way, metric, float(v.mean()), len(x), STEPS,
            seed=bench.seed, subject=name, each=v.tolist(), groups=bench.groups(lacking), detail=files.get(metric),
        )
        for metric, v in each.items()
    ]  # fmt: skip


def _judge(bench: Bench) -> Judge:
    """A judge of the training images' binary labels."""
    data = bench.data
    names = factors({name: values[data.train] for name, values in data.labels.items()})
    labels = torch.from_numpy(np.stack([data.labels[name][data.train] for name in names], axis=1)).float()
    known = np.random.default_rng(bench.seed).permutation(torch.isfinite(labels).any(1).numpy().nonzero()[0])[:JUDGED]
    return train_judge(
        names,
        lambda i: data.images(data.train[known[i.numpy()]]),
        labels[known],
        epochs=5,
        seed=bench.seed,
        flip=data.config.flip,
        progress=bench.progress,
    )
