"""Attributes as directions: linear classifiers on standardised z_sem, and what can be done with them.

z_sem is linear enough that the weight vector of a classifier is an editing direction (Preechakul et al. 2022, section
5.3), and that a classifier of a hundred labels can choose among samples of the prior (section 5.5, `rejection`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffae.semantics.standardizer import Standardizer

Kind = Literal["binary", "continuous"]

LOOKS = 6
"""How often an edited image is looked at again, at most."""
LEAST_RESPONSE = 0.25
"""What an image is taken to follow of a move at least; a move on is not more than its inverse times what is lacking."""
LEAST_SLOPE = 1e-3
"""Of a calibrated probability's logit over the classifier's; what is told by chance alone has this one."""
LEAST_APART = 1e-3
"""Smallest singular value of the correlations of logits that are changed together: below it two of them say the same."""


@dataclass(frozen=True, slots=True)
class Score:
    """How well one attribute is known, on images that its classifier was not fitted on.

    Attributes:
        kind: `binary`, or `continuous` for a measurement.
        n: number of labelled images that it was fitted on.
        share: of these that are positive; the mean, where continuous.
        n_held: number of labelled images that it was measured on.
        auroc: area under the ROC curve; None where continuous, or where the held-out images have one class only.
        average_precision: area under the precision-recall curve, likewise.
        r2: coefficient of determination, where continuous.
    """

    kind: Kind
    n: int
    share: float
    n_held: int = 0
    auroc: float | None = None
    average_precision: float | None = None
    r2: float | None = None


class Attributes(nn.Module):
    """Linear classifiers of named attributes, `logit = w . norm(z_sem) + b`, behind a standardiser of their own.

    Args:
        scores: attribute -> how well it is known, in the order of the rows.
        z_dim: dimension of z_sem.
        components: number of principal directions, named pc1, pc2, ...

    Attributes:
        weight: (k, d), one row per attribute, in standardised space: what tells the classes apart.
        pattern: (k, d), how z_sem goes along with each attribute: `S w`, with S the covariance of standardised z_sem, which is
            the difference between the classes' means in shape. Edits go this way. For the authors' classifiers it is w itself, as
            in the paper.
        bias: (k,)
        calibration: (k, 2), scale and shift that turn a logit into that of a calibrated probability (Platt 1999).
        ceiling: (k,), probability of a positive being labelled; below 1 only for positive-unlabelled labels.
        components: (m, d), directions found without labels: principal components of standardised z_sem.
    """

    weight: Tensor
    pattern: Tensor
    bias: Tensor
    calibration: Tensor
    ceiling: Tensor
    components: Tensor

    def __init__(self, scores: Mapping[str, Score], z_dim: int, *, components: int = 0) -> None:
        super().__init__()
        self.scores = dict(scores)
        k = len(scores)
        self.register_buffer("weight", torch.zeros(k, z_dim))
        self.register_buffer("pattern", torch.zeros(k, z_dim))
        self.register_buffer("bias", torch.zeros(k))
        self.register_buffer("calibration", torch.tensor([[1.0, 0.0]] * k).view(k, 2))
        self.register_buffer("ceiling", torch.ones(k))
        self.register_buffer("components", torch.zeros(components, z_dim))
        self.standardizer = Standardizer(torch.zeros(z_dim), torch.ones(z_dim))

    @property
    def names(self) -> list[str]:
        """The attributes, in the order of the rows."""
        return list(self.scores)

    def logits(self, z_sem: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """`w . norm(z_sem) + b` of every attribute; of a continuous one this is the predicted value."""
        z = self.standardizer(z_sem)  # Of half precision it makes float32.
        return z @ self.weight.T.to(z) + self.bias.to(z)

    def probabilities(self, z_sem: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Calibrated probability of every attribute; the predicted value of a continuous one."""
        logits = self.logits(z_sem)
        scale, shift = self.calibration.to(logits).unbind(1)
        p = (logits * scale + shift).sigmoid() / self.ceiling.to(logits)
        continuous = torch.tensor([s.kind == "continuous" for s in self.scores.values()], device=p.device)
        return torch.where(continuous, logits, p.clamp(max=1))

    def by_name(self, z_sem: Float[Tensor, "n d"]) -> dict[str, list[float]]:
        """What `probabilities` gives, as lists of n numbers by the attributes' names."""
        return dict(zip(self.names, self.probabilities(z_sem).T.tolist(), strict=True))

    def tells(self, name: str) -> bool:
        """Whether it says more than chance does of images that it was not fitted to."""
        return not 0 <= float(self.calibration[self._row(name), 0]) <= 1.001 * LEAST_SLOPE

    def probability(self, name: str, *, value: bool = True) -> Callable[[Tensor], Tensor]:
        """The function z_sem (n, d) -> (n,) that gives the probability of one attribute being present, or absent."""
        row = self._row(name)
        if self.scores[name].kind != "binary":
            raise ValueError(f"{name!r} is continuous and has no probability.")

        def probability(z_sem: Tensor) -> Tensor:
            p = self.probabilities(z_sem)[:, row]
            return p if value else 1 - p

        return probability

    def direction(self, name: str, keep: Sequence[str] = ()) -> Float[Tensor, " d"]:
        """Unit vector, in standardised space, along which an attribute grows while the logits of `keep` stay as they are.

        Raises:
            ValueError: an attribute that was never fitted, or that `keep` leaves no direction.
        """
        component = self._component(name)
        rows = self.pattern[[self._row(name)]] if component is None else self.components[[component]]
        (free,) = self._free([name], rows, keep)
        return free / free.norm()

    def move(self, z_sem: Float[Tensor, "n d"], strengths: Mapping[str, float], keep: Sequence[str] = ()) -> Float[Tensor, "n d"]:
        """`denorm(norm(z_sem) + sum_k s_k sqrt(d) u_k)` with the directions u_k: the paper's edit; useful are -0.5..0.5.

        Raises:
            ValueError: a strength that is not finite, or see `direction`.
        """
        for name, strength in strengths.items():
            z_sem = self.standardizer.move(z_sem, self.direction(name, keep), strength)
        return z_sem

    def reach(self, z_sem: Float[Tensor, "n d"], targets: Mapping[str, float], keep: Sequence[str] = ()) -> Float[Tensor, "n d"]:
        """The smallest move after which each attribute has the probability asked for, and those of `keep` what they had.

        A target above one half asks for at least that probability, one below for at most; what has it already stays. Of
        all moves that reach the targets and keep the rest, this is the likeliest: the one of least Mahalanobis norm (with the
        authors' classifiers, of least norm).

        Raises:
            ValueError: a probability not within 0..1, or of what has or reaches none; several that say the same; see `direction`.
        """
        return self._shift(z_sem, list(targets), self._lacking(z_sem, targets), keep)

    def reach_visibly(
        self,
        z_sem: Float[Tensor, "n d"],
        targets: Mapping[str, float | Tensor],
        keep: Sequence[str],
        *,
        render: Callable[[Tensor, Tensor], Tensor],
        encode: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, "n c *sides"]:
        """Images that show attributes with the probabilities asked for, when looked at again.

        x_T stays what it was, so an image need not look like its moved code. Each is therefore encoded anew, and moved on by what
        is lacking, the more the less the moves before have brought, until it is seen; what `keep` names is moved back to where it
        was.

        Args:
            z_sem: codes of the images.
            targets: attribute -> probability, as in `reach`; of continuous ones the value, (n,) or (), one for all or for each.
            keep: attributes that shall stay.
            render: (indices (k,), their codes (k, d)) -> images.
            encode: images -> codes.
        """
        names, rows = list(targets), [self._row(name) for name in keep]
        own = {n: t.to(z_sem.device).expand(len(z_sem)) if isinstance(t, Tensor) else t for n, t in targets.items()}
        measured = torch.tensor([isinstance(t, Tensor) for t in targets.values()], device=z_sem.device)
        near = 0.01 * torch.where(measured, self.weight[[self._row(name) for name in names]].norm(dim=1).to(z_sem.device), 1.0)
        before = self.logits(z_sem)[:, rows].double()
        first = self._lacking(z_sem, targets)
        asked, moved = first.clone(), self._shift(z_sem, names, first, keep)
        todo = torch.arange(len(z_sem), device=z_sem.device)
        images = render(todo, moved)
        todo = todo[(first != 0).any(1)]
        for _ in range(LOOKS):
            seen = encode(images[todo])
            still = self._lacking(seen, {name: t[todo] if isinstance(t, Tensor) else t for name, t in own.items()})
            unseen = (still.abs() > near).any(1)
            todo, seen, still = todo[unseen], seen[unseen], still[unseen]
            if not len(todo):
                break
            response = torch.where(asked[todo] == 0, 1, (first[todo] - still) / asked[todo]).clamp(LEAST_RESPONSE, 1)
            asked[todo] += still / response
            restore = before[todo] - self.logits(seen)[:, rows]
            moved[todo] = self._shift(moved[todo], names, still / response, keep, restore)
            images[todo] = render(todo, moved[todo])
        return images

    def to_config(self) -> dict[str, Any]:
        """What `config.json` says of the attributes; their numbers are in the weights file."""
        scores = {name: {k: v for k, v in asdict(s).items() if v is not None} for name, s in self.scores.items()}
        return {"scores": scores, "components": len(self.components)}

    @classmethod
    def from_config(cls, config: dict[str, Any], z_dim: int) -> "Attributes":
        """Attributes as `to_config` describes them, with all numbers still to be loaded."""
        return cls({name: Score(**s) for name, s in config["scores"].items()}, z_dim, components=config["components"])

    def _row(self, name: str) -> int:
        if name not in self.scores:
            known = ", ".join(self.scores) or "none"
            raise ValueError(f"There is no attribute {name!r}. Fitted are: {known}. Fit others with `diffae fit-attributes`.")
        return self.names.index(name)

    def _component(self, name: str) -> int | None:
        """Which principal direction a name such as pc3 means, if any."""
        number = name.removeprefix("pc")
        if name in self.scores or number == name or not number.isdecimal():
            return None
        return int(number) - 1 if 0 < int(number) <= len(self.components) else None

    def _lacking(self, z_sem: Tensor, targets: Mapping[str, float | Tensor]) -> Float[Tensor, "n k"]:
        """How much each logit lacks of its target's; 0 where it has reached it."""
        logits = self.logits(z_sem)[:, [self._row(name) for name in targets]].double()
        gaps = [self._gap(name, target, logit) for (name, target), logit in zip(targets.items(), logits.T, strict=True)]
        return torch.stack(gaps, 1) if gaps else logits

    def _gap(self, name: str, target: float | Tensor, logit: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The same of one attribute, whose logits or values are given."""
        if isinstance(target, Tensor):
            if self.scores[name].kind != "continuous":
                raise ValueError(f"{name!r} is no measurement and has no value to reach: give a strength, or a target probability.")
            if not target.isfinite().all():
                raise ValueError(f"A target value must be finite, got {target.tolist()} for {name!r}.")
            return target.to(logit).expand(len(logit)) - logit
        if not 0 < target < 1:
            raise ValueError(f"A target probability must lie between 0 and 1, got {target} for {name!r}.")
        if self.scores[name].kind == "continuous":
            raise ValueError(f"{name!r} is continuous and has no probability: give a strength, or a target value.")
        if not self.tells(name):
            raise ValueError(
                f"{name!r} is not told by z_sem: of images that it was not fitted to it is right by chance at best, so no move "
                f"makes it {target:g} probable. Give a strength, or fit it to more labels."
            )
        (scale, shift), ceiling = (of[self._row(name)].to(logit) for of in (self.calibration, self.ceiling))
        gap = ((target * ceiling).logit() - shift) / scale - logit
        return gap.clamp(min=0) if (target >= 0.5) == bool(scale > 0) else gap.clamp(max=0)

    def _shift(
        self, z_sem: Tensor, names: Sequence[str], change: Tensor, keep: Sequence[str], restore: Tensor | None = None
    ) -> Float[Tensor, "n d"]:
        """The likeliest move that changes the logits of `names` by as much, and those of `keep` by `restore`, or not at all."""
        rows, keep_rows = ([self._row(name) for name in some] for some in (names, keep))
        move = torch.zeros_like(z_sem, dtype=torch.float64)
        weight, pattern = self.weight.to(move), self.pattern.to(move)
        free = self._free(names, self.pattern[rows], keep).to(move)
        if restore is not None and keep_rows:
            move = least_squares(weight[keep_rows] @ pattern[keep_rows].T, restore.T).T @ pattern[keep_rows]
            change = change - move @ weight[rows].T
        # A move c F along the free patterns F, with W (c F)^T = change.
        grown = weight[rows] @ free.T
        size = grown.diagonal().abs().sqrt()
        if rows and torch.linalg.svdvals(grown / size / size[:, None]).min() < LEAST_APART:
            said = "what was fitted says the same, or the opposite, of several of them. Name one of those."
            raise ValueError(f"{', '.join(names)} cannot all be changed as asked: {said}")
        move = move + torch.linalg.solve(grown, change.T).T @ free
        return self.standardizer.inverse(self.standardizer(z_sem) + move.to(z_sem))

    def _free(self, names: Sequence[str], rows: Tensor, keep: Sequence[str]) -> Tensor:
        """What is left of directions when the logits of `keep` must not change along them."""
        both = set(names) & set(keep)
        if both:
            raise ValueError(f"{', '.join(sorted(both))} cannot be both changed and kept.")
        for name, row in zip(names, rows, strict=True):
            if not row.any():
                raise ValueError(
                    f"{name!r} has no direction: what was fitted says the same of every image. Fit it to other labels."
                )
        if not keep:
            return rows
        keep_rows = [self._row(k) for k in keep]
        weight, pattern = self.weight[keep_rows].double(), self.pattern[keep_rows].double()
        free = rows.double() - least_squares(weight @ pattern.T, weight @ rows.double().T).T @ pattern
        for name, before, after in zip(names, rows, free, strict=True):
            if after.norm() < 1e-4 * before.norm():
                raise ValueError(f"Nothing of the direction of {name!r} is left beside {', '.join(keep)}: keep fewer.")
        return free.to(rows)


def least_squares(a: Float[Tensor, "k k"], b: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
    """The smallest x for which `a x` is nearest to b; where attributes say the same too, which CUDA's `lstsq` does not expect."""
    return torch.linalg.pinv(a) @ b
