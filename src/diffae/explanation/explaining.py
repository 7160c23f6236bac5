"""A classifier explained on many images: counterfactuals, and what they are worth, measured."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffae.evaluation.pages.figures import Progress
from diffae.evaluation.suites.bench import in_colour
from diffae.frozen.perceptual import LEAST
from diffae.frozen.weights import load_network
from diffae.metrics.batches import in_batches
from diffae.metrics.statistics import Moments, frechet_distance
from diffae.runtime.seeding import Draws
from diffae.semantics.classifiers import Classifier
from diffae.semantics.explanations import Counterfactuals, Explainer

if TYPE_CHECKING:
    from diffae.data.dataset import ImageSet

FRAMES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Places on the way from an image to its counterfactual."""
STRENGTHS = tuple(2 ** (i / 2) for i in range(-2, 13))
"""Lengths of the fixed move that is compared with, in standard deviations of the codes."""
CONTROLS = 100
"""Images that are moved for comparison at most: at random, and all by one move."""
LEAST_FID = 50
"""Images of which FID is measured at least."""


@dataclass(frozen=True)
class Explained:
    """Images, their counterfactuals, and what was measured.

    Attributes:
        x: (n, c, *sides), the images.
        found: their counterfactuals.
        frames: (m, len(FRAMES), c, *sides), the way to the first counterfactual of the first m images.
        answers: (m, len(FRAMES)), what the classifier says on it.
        shares: what was measured of all: see `explain_images`.
        attributes: attribute -> (n, 2), what z_sem of the image, and of its counterfactual, says of it.
        notes: what could not be measured, and why.
    """

    x: Tensor
    found: Counterfactuals
    frames: Tensor
    answers: Tensor
    shares: dict[str, float]
    attributes: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)


def explain_images(
    explainer: Explainer, data: "ImageSet", indices: np.ndarray, *, second: Classifier | None = None, probability: float = 0.9,
    value: float | None = None, num: int = 1, drawn: int = 24, seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Explained:  # fmt: skip
    """Counterfactuals of images, and their measures.

    `flipped`: the share whose decision changed (of values: that were reached). `length`: Mahalanobis length of the moves.
    `l1`: mean change of the pixels on the [0, 1] scale; `lpips` likewise, as networks see it. `fid`: of the counterfactuals,
    beside as many real images of which the classifier says the same; `fid of images`: of the images themselves. `second
    agrees`: of those flipped, the share that another classifier decides in the same way. `random flipped`: the sanity check,
    moves as long in the direction of answers that were dealt out at random. `fixed l1`: the change of the shortest fixed move
    along one direction that flips as many. These two are of the first CONTROLS images: `compared images`.

    Args:
        explainer: of the classifier.
        data: the images.
        indices: which of them.
        second: another classifier of the same.
        probability: see `Explainer.explain`.
        value: likewise.
        num: likewise.
        drawn: images whose way is kept.
        seed: of what is dealt out at random.
        progress: told how far it is.
    """
    ae, notes = explainer.ae, []
    x = data.images(indices)
    found = explainer.explain(x, probability=probability, value=value, num=num)
    made = found.images[:, 0]
    before, after = _scores(explainer, x), _scores(explainer, made)
    flipped = found.reached[:, 0] if explainer.classifier.measures else (before > 0) != (after > 0)
    each = {"flipped": flipped.double(), "reached": found.reached[:, 0].double(), "length": found.length[:, 0]}
    each["l1"] = (made - x).abs().flatten(1).mean(1) / 2
    seen = ae.to_pictures(x[:1]).shape[1] in (1, 3)
    if not seen:
        notes.append("LPIPS and FID were not measured: they are of grey and colour images. Name three channels with data.shown.")
    if seen and min(x.shape[-2:]) >= LEAST["alexnet"]:
        try:
            lpips = load_network("alexnet")[0]
            each["lpips"] = in_batches(
                lambda a, b: lpips(in_colour(ae.to_pictures(a)), in_colour(ae.to_pictures(b))), made, x, batch_size=32
            )
        except FileNotFoundError as error:
            notes.append(f"LPIPS was not measured: {error}")
    shares = {name: float(v.double().mean()) for name, v in each.items()}
    if second is not None and flipped.any():
        shares["second agrees"] = _agreement(explainer, second, (x[flipped], made[flipped]), (before[flipped], after[flipped]))
    shares |= _controls(explainer, x, before, flipped, found, seed)
    if seen:
        shares |= _distances(explainer, x, made, before, notes)
    attributes = {}
    if ae.attributes is not None:
        both = [ae.attributes.by_name(torch.cat([ae.encode(part) for part in images.split(64)])) for images in (x, made)]
        attributes = {name: np.array([side[name] for side in both]).T for name in ae.attributes.names}
    frames, answers = render_between(explainer, x[:drawn], found.z_sem[:drawn, 0])
    return Explained(x, found, frames, answers, shares, attributes, notes)


def choose(explainer: Explainer, data: "ImageSet", candidates: np.ndarray, num: int) -> np.ndarray:
    """The first candidates that the classifier does not take to be of the target already; without a target, the first.

    Raises:
        ValueError: there is none.
    """
    chosen: list[int] = []
    for start in range(0, len(candidates), explainer.batch_size):
        rows = candidates[start : start + explainer.batch_size]
        if explainer.classifier.target is not None and not explainer.classifier.measures:
            rows = rows[(explainer.ask(data.images(rows)) <= 0).cpu().numpy()]
        chosen += rows.tolist()
        if len(chosen) >= num:
            break
    if not chosen:
        raise ValueError(f"All {len(candidates)} images are of class {explainer.classifier.target} already, or there are none.")
    return np.array(chosen[:num])


def _scores(explainer: Explainer, x: Float[Tensor, "n c *sides"]) -> Float[Tensor, " n"]:
    """What the classifier says of many images."""
    return in_batches(explainer.ask, x, batch_size=explainer.batch_size)


def _agreement(explainer: Explainer, second: Classifier, images: tuple[Tensor, Tensor], scores: tuple[Tensor, Tensor]) -> float:
    """The share of flipped images that the second classifier takes to be of the other side too; of values, that it sees change to
    the same side. Images and scores are before and after."""
    ae = explainer.ae

    def other(x: Tensor) -> Tensor:
        return in_batches(lambda part: second.scores(ae.to_pixels(ae.clamp(part))).detach(), x, batch_size=32)

    before, after = scores
    if explainer.classifier.measures:
        change = other(images[1]) - other(images[0])
        return float((change.sign() == (after - before).sign()).double().mean())
    return float(((other(images[1]) > 0) == (after > 0)).double().mean())


def _controls(
    explainer: Explainer, x: Tensor, before: Tensor, flipped: Tensor, found: Counterfactuals, seed: int
) -> dict[str, float]:
    """Of decisions: moves of the same lengths in the direction of answers dealt out at random; and of one length for all, in the
    real one."""
    if explainer.classifier.measures:
        return {}
    spread = explainer.spread
    x, before, flipped = x[:CONTROLS], before[:CONTROLS], flipped[:CONTROLS]
    # Whether each image's score had to rise, or to fall.
    sign = torch.ones_like(before) if explainer.classifier.target is not None else torch.where(before > 0, -1.0, 1.0)
    order = Draws.of(len(explainer.scores), seed).uniform("random answers", ()).argsort()
    shuffled = (explainer.scores - explainer.scores.mean())[order]
    z = spread.standardizer(explainer.z_sem).double()
    dealt = (z * shuffled[:, None]).mean(0)
    by_chance = _scores(explainer, move_images(explainer, x, dealt, sign * found.length[:CONTROLS, 0]))
    result = {"compared images": float(len(x)), "random flipped": float(((by_chance > 0) != (before > 0)).double().mean())}
    images, length, share = one_move(explainer, x, before, sign, wanted=float(flipped.double().mean()))
    if share:
        result |= {"fixed flipped": share, "fixed l1": float((images - x).abs().mean() / 2), "fixed length": length}
    return result


def move_images(
    explainer: Explainer, x: Float[Tensor, "n c *sides"], direction: Float[Tensor, " d"], lengths: Float[Tensor, " n"]
) -> Float[Tensor, "n c *sides"]:
    """Images moved along a direction of standardised z_sem, each by a Mahalanobis length; backwards where it is negative."""
    standardizer = explainer.spread.standardizer
    moves, images = lengths[:, None] * direction / explainer.spread.length(direction[None])[0], []
    for (_, code), move in zip(explainer.inferred(x), moves.split(explainer.batch_size), strict=True):
        images.append(explainer.rendered(code, standardizer.inverse(standardizer(code.z_sem) + move.to(code.z_sem))))
    return torch.cat(images)


def one_move(
    explainer: Explainer, x: Float[Tensor, "n c *sides"], before: Float[Tensor, " n"], sign: Float[Tensor, " n"], *, wanted: float
) -> tuple[Float[Tensor, "n c *sides"], float, float]:
    """What `explain` is compared with: all images moved by one length in one direction, the least of STRENGTHS after which a share
    of the decisions changes.

    Args:
        explainer: of the classifier.
        x: images.
        before: what it says of them.
        sign: 1 where that has to rise, -1 where it has to fall.
        wanted: the share.

    Returns:
        The images, that length, and the share that changed; the images as they are, 0 and 0 where no length does it.
    """
    direction = explainer.spread.likeliest(explainer.slope[None])[0]

    def moved(i: int) -> tuple[Tensor, float, float]:
        images = move_images(explainer, x, direction, sign * STRENGTHS[i])
        return images, STRENGTHS[i], float(((_scores(explainer, images) > 0) != (before > 0)).double().mean())

    # From below, every second one: where moves leave the codes, longer ones change fewer decisions again.
    for i in range(0, len(STRENGTHS), 2):
        found = moved(i)
        if found[2] >= wanted:
            shorter = moved(i - 1) if i else found
            return shorter if shorter[2] >= wanted else found
    return x, 0.0, 0.0


def _distances(explainer: Explainer, x: Tensor, made: Tensor, before: Tensor, notes: list[str]) -> dict[str, float]:
    """FID of the counterfactuals, and of the images, beside training images of the side that they were moved to."""
    if explainer.classifier.measures or len(x) < LEAST_FID:
        notes.append(f"FID was not measured: it wants at least {LEAST_FID} images, and a classifier that decides.")
        return {}
    rising = (before <= 0).double().mean() >= 0.5
    side = (explainer.scores > 0 if rising else explainer.scores <= 0).nonzero()[:, 0]
    chosen = before <= 0 if rising else before > 0
    # Images are in the order of their names, which is often that of kinds.
    mixed = torch.randperm(len(side), generator=torch.Generator().manual_seed(0)).to(side.device)[: int(chosen.sum())]
    real = explainer.among[side[mixed]]
    if len(real) < LEAST_FID or int(chosen.sum()) < LEAST_FID:
        notes.append(f"FID was not measured: there are fewer than {LEAST_FID} images of one side.")
        return {}
    try:
        network, _ = load_network("inception")
    except FileNotFoundError as error:
        notes.append(f"FID was not measured: {error}")
        return {}

    def moments(images: Tensor) -> Moments:
        return Moments.over(network(in_colour(explainer.ae.to_pictures(part))) for part in images.split(32))

    with torch.no_grad():
        beside = moments(real)
        return {
            "fid": frechet_distance(moments(made[chosen]), beside),
            "fid of images": frechet_distance(moments(x[chosen]), beside),
            "fid images": float(chosen.sum()),
        }


def render_between(explainer: Explainer, x: Float[Tensor, "n c *sides"], ends: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
    """Images on the way from each to its code's end (n, len(FRAMES), c, *sides), and what the classifier says of them (n,
    len(FRAMES)): probabilities, or what it measures."""
    code = explainer.ae.infer(x, steps=explainer.steps)
    frames = torch.stack([explainer.rendered(code, torch.lerp(code.z_sem, ends, w)) for w in FRAMES], 1)
    scores = torch.stack([_scores(explainer, frames[:, i]) for i in range(len(FRAMES))], 1)
    return frames, scores if explainer.classifier.measures else scores.sigmoid()
