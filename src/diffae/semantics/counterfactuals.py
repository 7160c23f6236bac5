"""Counterfactuals: the smallest move of z_sem after which a classifier of images decides otherwise.

The classifier is asked about images alone, so any will do. What it says of many images whose codes are known gives one
direction for all (a black box: Sobieski & Biecek 2024); where it has gradients, each image has its own, through the decoder
(Jeanneret et al. 2022, 2023), which turns as the image changes. Either way a move follows the covariance of the codes, so that
it is the likeliest of those that change the answer by as much (a step of least Mahalanobis length, as DeepFool's is of least
length: Moosavi-Dezfooli et al. 2016), and stays in the span of the codes of images that there are. x_T stays what it was.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffae.semantics.standardizer import Standardizer

LOOKS = 10
"""How often an image is moved on and looked at again, at most."""
DIVISIONS = 4
"""How often the way to a decision is then divided, at most, to find where on it the decision falls."""
NEAR_ENOUGH = 0.03
"""How much more than what was lacking at first a move may bring, where the way is no longer divided."""
LEAST_RESPONSE = 0.25
"""What an image is taken to follow of a move at least; a move on is not more than its inverse times what is lacking."""
LONGEST = 4.0
"""Of one move, in standard deviations of the codes."""
FARTHEST = 8.0
"""Of all moves of an image together: beyond it are no codes, and no images that are like any."""


class Spread:
    """How codes vary: along which directions, and how much.

    Args:
        z_sem: codes of images (n, d).

    Attributes:
        standardizer: of these codes.
        axes: (k, d), principal directions of standardised codes, k < n.
        variances: (k,), along each.
    """

    def __init__(self, z_sem: Float[Tensor, "n d"]) -> None:
        self.standardizer = Standardizer.fit(z_sem)
        z = self.standardizer(z_sem).double()
        _, singular, axes = torch.linalg.svd(z - z.mean(0), full_matrices=False)
        some = singular > 1e-6 * singular[0]
        self.axes, self.variances = axes[some], singular[some].square() / (len(z) - 1)

    def likeliest(self, gradient: Float[Tensor, "n d"], part: Bool[Tensor, " k"] | None = None) -> Float[Tensor, "n d"]:
        """S g of a gradient g in standardised space, with S the codes' covariance, or the part of it in some axes."""
        along = gradient.double() @ self.axes.T * self.variances
        return (along if part is None else along * part) @ self.axes

    def length(self, move: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Mahalanobis length of moves in standardised space."""
        return ((move.double() @ self.axes.T).square() / self.variances).sum(1).sqrt()

    def parts(self, gradient: Float[Tensor, " d"], num: int) -> Bool[Tensor, "num k"]:
        """The axes dealt out, so that each part explains as much of what changes an answer with this gradient."""
        worth = (gradient.double() @ self.axes.T).square() * self.variances
        parts, sums = torch.zeros(num, len(self.axes), dtype=torch.bool, device=self.axes.device), [0.0] * num
        for i in worth.argsort(descending=True).tolist():
            least = min(range(num), key=sums.__getitem__)
            parts[least, i] = True
            sums[least] += float(worth[i])
        return parts


def answer_gradient(spread: Spread, z_sem: Float[Tensor, "n d"], scores: Float[Tensor, " n"]) -> Float[Tensor, " d"]:
    """How a classifier's scores change with standardised z_sem, by ridge regression of what it says of many images.

    Raises:
        ValueError: it says the same of all of them, or there are hardly any.
    """
    from sklearn.linear_model import RidgeCV

    if len(scores) < 10:
        raise ValueError(f"A classifier is explained by what it says of many images, at least 10; got {len(scores)}.")
    if float(scores.std()) < 1e-9:
        raise ValueError(f"The classifier says the same of all {len(scores)} images, so nothing explains its answers.")
    z = spread.standardizer(z_sem).double().cpu().numpy()
    ridge = RidgeCV(alphas=[10.0**i for i in range(1, 7)]).fit(z, scores.double().cpu().numpy())
    return torch.from_numpy(ridge.coef_).to(z_sem.device)


class RenderAndScore(Protocol):
    """Renders some of the images with other codes, and asks the classifier."""

    def __call__(self, indices: Tensor, z_sem: Tensor) -> tuple[Tensor, Tensor]:
        """(k,), (k, d) -> images (k, c, *sides), and how much of the score each lacks (k,); not above 0 where it is reached."""
        ...


class MovedCodes(NamedTuple):
    """Codes that were moved.

    Attributes:
        z_sem: (n, d)
        images: (n, c, *sides), of these codes.
        lacking: (n,), of the score; not above 0 where it is reached.
    """

    z_sem: Tensor
    images: Tensor
    lacking: Tensor


def move_until(
    z_sem: Float[Tensor, "n d"],
    spread: Spread,
    look: RenderAndScore,
    gradient: Callable[[Tensor, Tensor], Float[Tensor, "k d"]],
    *,
    part: Bool[Tensor, " k"] | None = None,
) -> MovedCodes:
    """Moves codes until each image has the score that is wanted, and then back to where on the straight way it first has it. Where
    that lies too far from the image, the last move remains, and lacks something.

    Args:
        z_sem: codes of images.
        spread: of the codes of many.
        look: see `RenderAndScore`.
        gradient: (indices, their codes) -> of what is not lacking any more, with respect to standardised codes.
        part: the axes that a move may use; all by default.
    """
    standardizer, everyone = spread.standardizer, torch.arange(len(z_sem), device=z_sem.device)
    moved = z_sem.clone()
    images, lacking = look(everyone, z_sem)
    first, asked = lacking.clone(), torch.zeros_like(lacking)
    todo = everyone[lacking > 0]
    for _ in range(LOOKS):
        if not len(todo):
            break
        slope = gradient(todo, moved[todo])
        way = spread.likeliest(slope, part)
        rise = (slope.double() * way).sum(1)
        response = torch.where(asked[todo] == 0, 1, (first[todo] - lacking[todo]) / asked[todo]).clamp(LEAST_RESPONSE, 1)
        # A hair more than what is lacking, or it would be approached for ever.
        amount = 1.02 * lacking[todo] / response
        move = (amount / rise.clamp(min=1e-12))[:, None] * way
        far = (spread.length(move) / LONGEST).clamp(min=1)
        still = rise <= 0
        move, amount = (move / far[:, None]).masked_fill(still[:, None], 0), (amount / far).masked_fill(still, 0)
        asked[todo] += amount
        start = standardizer(z_sem[todo])
        way = standardizer(moved[todo]) + move.to(z_sem) - start
        too_far = spread.length(way) / FARTHEST
        moved[todo] = standardizer.inverse(start + way / too_far.clamp(min=1)[:, None].to(z_sem))
        images[todo], lacking[todo] = look(todo, moved[todo])
        todo = todo[(lacking[todo] > 0) & (too_far < 1)]
    # The false position, a little on the side where nothing lacks; within the middle of what is left, so that this shrinks.
    low, high, before, ends = torch.zeros_like(lacking), torch.ones_like(lacking), first.clone(), moved.clone()
    for _ in range(DIVISIONS):
        reached = everyone[(first > 0) & (lacking <= 0) & (lacking < -NEAR_ENOUGH * first)]
        if not len(reached):
            break
        share = (before[reached] + NEAR_ENOUGH / 2 * first[reached]) / (before[reached] - lacking[reached])
        place = torch.lerp(low[reached], high[reached], share.clamp(0.1, 0.9))
        tried = torch.lerp(z_sem[reached], ends[reached], place[:, None].to(z_sem))
        found, less = look(reached, tried)
        enough = less <= 0
        high[reached[enough]], low[reached[~enough]] = place[enough], place[~enough]
        before[reached[~enough]] = less[~enough]
        keep = reached[enough]
        moved[keep], images[keep], lacking[keep] = tried[enough], found[enough], less[enough]
    return MovedCodes(moved, images, lacking)
