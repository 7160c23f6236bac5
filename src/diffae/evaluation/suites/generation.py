"""Table 4: how near sampled images come to real ones, by Inception's features; and table 3, samples of a class from few labels."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
from jaxtyping import Float
from torch import Tensor

from diffae.diffusion.ddim import DDIM
from diffae.diffusion.model import ImageSolver
from diffae.evaluation.pages.figures import Figure
from diffae.evaluation.pages.tables import by_metric
from diffae.evaluation.results import Result
from diffae.evaluation.suites.bench import Bench
from diffae.evaluation.suites.section import CONVENTION, JUMPED, OURS, NotMeasurable, Section
from diffae.metrics.statistics import Moments, frechet_distance, kernel_distance, precision_recall
from diffae.pictures import scale_for, sheet
from diffae.runtime import seeding
from diffae.semantics.fitting import fit_few

GENERATION, FEWSHOT = "generation", "fewshot"

Make = Callable[[range], Tensor]
"""Numbers of images -> images."""


def generation(bench: Bench) -> Section:
    """FID, KID, precision and recall of samples: the priors, the plain DDIM, real images autoencoded, real images themselves."""
    n, ddim = bench.protocol.num_inception, bench.ddim
    held = min(n, len(bench.tested))
    x = bench.test(held)
    others = bench.data.train[~np.isin(bench.data.train, bench.some_tested(held))]
    if len(others) < n:
        raise ValueError(f"{n} real images to compare with were asked for, and there are {len(others)}. Ask for fewer.")
    real = cache(partial(bench.real_features, bench.data.some(others, n)))
    results = compared(bench, GENERATION, "real, held out", real, lambda part: x[part.start : part.stop], num=held, on=[])
    pictures: dict[str, Tensor] = {}
    for steps in bench.protocol.generation_steps:
        makers: dict[str, tuple[Make, list[str]]] = {
            f"diffae, prior {name}": (partial(_sampled, bench, name, steps, "ddim"), ["model", f"prior {name}"])
            for name in bench.priors
        }
        makers["diffae, + autoencoding"] = (partial(_autoencoded, bench, x, steps), ["model"])
        if ddim is not None:
            makers["ddim"] = (partial(_unconditional, bench, ddim, steps), ["ddim"])
        for model, (make, on) in makers.items():
            num = held if model.endswith("autoencoding") else n
            results += compared(bench, GENERATION, model, real, make, num=num, on=on, steps=steps)
            pictures[f"{model}, T = {steps}"] = make(range(8))
    path = bench.ae.sample_path()
    ours = JUMPED if path.jumps else OURS
    for name in bench.priors:
        make, on = partial(_sampled, bench, name, None, None), ["model", "calibration", f"prior {name}"]
        results += compared(bench, GENERATION, f"diffae, prior {name}, {ours}", real, make, num=n, on=on, steps=len(path))
    text = (
        f"{n} images each against {n} training images; Inception features, {CONVENTION}. At so few images FID is mostly bias: "
        "compare rows, mind the real images' own, and read KID, which has none. The paper used 50,000."
        + (f" Only {held} images are held out, so the rows of real images are of those." if held < n else "")
    )
    default = "one jump" if path.jumps else f"{OURS} on evenly spaced log-SNR"
    text += f" The paper's DDIM steps, and {default}, our default."
    picture = sheet(list(pictures.values()), scale=scale_for(x), names=list(pictures))
    figure = Figure("generation", "Samples", "The first eight images of each row of the table.", picture)
    return Section(GENERATION, "Unconditional samples (table 4)", text, results, [by_metric(results)], [figure])


def fewshot(bench: Bench, *, draws: int = 2) -> Section:
    """FID between samples of a class, chosen with few labels, and real images of it; beside two baselines."""
    ae, data, n, steps = bench.ae, bench.data, bench.protocol.num_inception, min(bench.protocol.steps)
    if ae.prior is None or ae.standardizer is None:
        raise NotMeasurable("This autoencoder has no latent prior to sample from. Fit one with `diffae train-prior RUN`.")
    z = bench.latents(ae.encode, data, data.train)
    results: list[Result] = []
    for name in bench.classes():
        y = bench.members(name)
        members = data.train[y == 1]
        if len(members) < n or len(members) < 100:
            raise ValueError(
                f"Only {len(members)} training images show {name}; few-shot needs {max(n, 100)}. Ask for fewer images."
            )
        real = cache(partial(bench.real_features, data.some(members, bench.protocol.num_real)))
        for draw in range(draws):
            rng = np.random.default_rng([bench.seed, draw])
            positive, negative = rng.permutation(np.flatnonzero(y == 1)), rng.permutation(np.flatnonzero(y == 0))
            unlabelled = np.setdiff1d(np.arange(len(y)), positive[:100])
            few = fit_few(name, z[positive[:50]], z[negative[:50]], ae.standardizer)
            pu = fit_few(name, z[positive[:100]], z[unlabelled], ae.standardizer, unlabelled=True)
            made = ["labels", "model", "prior"]
            makers: dict[str, tuple[Make, list[str]]] = {
                "binary, 50 + 50": (_accepted(bench, few.probability(name), n, draw), made),
                "positive-unlabelled, 100": (_accepted(bench, pu.probability(name), n, draw), made),
                "naive: all real images": (partial(_real, bench, rng.permutation(data.train)), ["labels"]),
                "the positives' z_sem again": (partial(_decoded, bench, z[np.resize(positive[:50], n)], draw), ["labels", "model"]),
            }
            for model, (make, on) in makers.items():
                results += compared(bench, FEWSHOT, model, real, make, num=n, on=on, steps=steps, subject=name, draw=draw)
    text = (
        f"{n} samples of each class against up to {bench.protocol.num_real:,} real images of it, {draws} draws of the labels; "
        f"Inception features, {CONVENTION}. The naive row takes real images of all classes for the class, which a majority class "
        "makes look good."
    )
    results = over_draws(results)
    return Section(FEWSHOT, "Class-conditional samples from few labels (table 3)", text, results, [by_metric(results)])


def compared(
    bench: Bench,
    suite: str,
    model: str,
    real: Callable[[], Float[Tensor, "m d"]],
    make: Make,
    *,
    num: int,
    on: Sequence[str],
    steps: int | None = None,
    subject: str | None = None,
    draw: int = 0,
) -> list[Result]:
    """FID, KID, precision and recall of what `make` makes, against real features."""

    def measure() -> list[Result]:
        what = ", ".join(str(part) for part in (f"{suite}: {model}", subject, steps and f"T = {steps}") if part)
        made = bench.over(num, what, lambda part: bench.features(make(part)))
        fid = frechet_distance(Moments.of(made), Moments.of(real()))
        kid, spread = kernel_distance(made, real(), subsets=50, size=max(num // 2, 2), seed=bench.seed)
        precision, recall = precision_recall(made, real())
        values = {"fid": fid, "kid": kid, "precision": precision, "recall": recall}
        detail = f"{bench.network('inception')[1]}; {CONVENTION}"
        return [
            Result(suite, model, name, value, num, steps, spread if name == "kid" else None, bench.seed, 0.0, subject, detail)
            for name, value in values.items()
        ]

    key = {"suite": suite, "model": model, "n": num, "steps": steps, "seed": bench.seed, "subject": subject, "draw": draw,
           "real": bench.protocol.num_real if suite == FEWSHOT else bench.protocol.num_inception}  # fmt: skip
    return bench.store.get(key, measure, on=on)


def over_draws(results: list[Result]) -> list[Result]:
    """Rows that differ in the draw alone, as one with mean and standard deviation."""
    groups: dict[tuple, list[Result]] = {}
    for r in results:
        groups.setdefault((r.suite, r.model, r.metric, r.steps, r.subject), []).append(r)
    found = []
    for same in groups.values():
        values, first = np.array([r.value for r in same]), same[0]
        spread = float(values.std(ddof=1)) if len(values) > 1 else first.spread
        detail = f"{len(values)} draws; {first.detail}"
        found.append(replace(first, value=float(values.mean()), spread=spread, seconds=sum(r.seconds for r in same), detail=detail))
    return found


def _sampled(bench: Bench, name: str, steps: int | None, solver: ImageSolver | None, part: range) -> Tensor:
    """Images of codes number `part` of a prior."""
    prior, standardizer = bench.priors[name]
    z_sem = standardizer.inverse(prior.sample(len(part), seed=bench.seed, start=part.start))
    return bench.ae.decode(z_sem, steps=steps, solver=solver, seed=seeding.mix(bench.seed, "samples"), start=part.start)


def _autoencoded(bench: Bench, x: Tensor, steps: int, part: range) -> Tensor:
    """Images of real images' z_sem, with fresh x_T."""
    z_sem = bench.ae.encode(x[part.start : part.stop])
    seed = seeding.mix(bench.seed, "autoencoded")
    return bench.ae.decode(z_sem, steps=steps, solver="ddim", seed=seed, start=part.start)


def _unconditional(bench: Bench, ddim: DDIM, steps: int, part: range) -> Tensor:
    """Samples of the plain DDIM."""
    return ddim.sample(len(part), steps=steps, solver="ddim", seed=seeding.mix(bench.seed, "ddim"), start=part.start)


def _accepted(bench: Bench, probability: Callable[[Tensor], Tensor], num: int, draw: int) -> Make:
    """Numbers -> images of codes of the prior that a classifier accepted."""
    seed = seeding.mix(bench.seed, "few", draw)
    codes = cache(lambda: bench.ae.sample_z_sem(num, seed=seed, accept=probability).z_sem)

    def make(part: range) -> Tensor:
        z_sem = codes()[part.start : part.stop]
        return bench.ae.decode(z_sem, steps=min(bench.protocol.steps), solver="ddim", seed=seed, start=part.start)

    return make


def _decoded(bench: Bench, z_sem: Tensor, draw: int, part: range) -> Tensor:
    """Images of these codes, with fresh x_T."""
    z_sem, seed = z_sem[part.start : part.stop], seeding.mix(bench.seed, "again", draw)
    return bench.ae.decode(z_sem, steps=min(bench.protocol.steps), solver="ddim", seed=seed, start=part.start)


def _real(bench: Bench, indices: np.ndarray, part: range) -> Tensor:
    """Real images."""
    return bench.data.images(indices[part.start : part.stop])
