"""What one visitor has opened and done, and how much memory that takes."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffae.autoencoder import DiffusionAutoencoder
from diffae.diffusion.inversion import Code
from diffae.semantics.attributes import Attributes

PREVIEW_STEPS, PREVIEW_JUMPS = 4, 2
"""Solver steps in either direction while a slider moves, and jumps of a distilled model, which are as good as many steps."""
MOST_UNDOS = 50
MOST_BYTES = 64 * 2**20
"""That a visitor's images and codes may take; the image that is open is kept in any case."""


def new_name(name: str, fitted: Sequence[str]) -> str:
    """The name of an attribute of a visitor's own, without the spaces around it.

    Raises:
        ValueError: there is none, or a fitted attribute has it.
    """
    if not (name := name.strip()):
        raise ValueError("Give the attribute a name.")
    if name in fitted:
        raise ValueError(f"There is an attribute {name!r} already: give yours another name.")
    return name


class OpenImage:
    """An image that a visitor works on.

    Args:
        ae: the model.
        x: (1, c, *sides)

    Attributes:
        z_sem: its semantic code, all that showing it takes.
    """

    def __init__(self, ae: DiffusionAutoencoder, x: Float[Tensor, "1 c *sides"]) -> None:
        self.x, self.z_sem, self._ae = x, ae.encode(x), ae
        self._few = PREVIEW_JUMPS if ae.jumps else PREVIEW_STEPS

    @functools.cached_property
    def preview(self) -> Code:
        """The code at few steps; the unmoved image stays exact all the same, thanks to the code's defects."""
        return self._ae.infer(self.x, steps=self._few)

    @functools.cached_property
    def code(self) -> Code:
        """The code at full quality; a preview does not wait for it."""
        return self._ae.infer(self.x)

    @functools.cached_property
    def nbytes(self) -> int:
        """Of image and codes, whether these are there yet or not: each has z_sem, x_T, and of every step two states."""
        steps = self._few + self._ae.calibration.steps
        return 3 * self.z_sem.nbytes + (1 + 2 + 2 * steps) * self.x.nbytes


@dataclass(frozen=True)
class Visit:
    """What one visitor has done.

    Attributes:
        opened: the image.
        recent: images opened so far, the newest, which is open, last; as many as there is memory for.
        past: what was `asked` before each change, the newest last.
        defined: attributes that the visitor defined, each with its classifier.
        z_sem: where the last edit moved the code to.
        edited: the image that it made.
        asked: strengths, targets and attributes to keep, by which the code was moved.
        told: how often the page was told where its sliders stand: what it asks for as it was told before is not done.
    """

    opened: OpenImage | None = None
    recent: tuple[OpenImage, ...] = ()
    past: tuple[Mapping[str, Any], ...] = ()
    defined: Mapping[str, Attributes] = field(default_factory=dict)
    z_sem: Tensor | None = None
    edited: Tensor | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    told: int = 0

    @property
    def nbytes(self) -> int:
        """Of its images, codes and classifiers."""
        fitted = sum(t.nbytes for a in self.defined.values() for t in (*a.parameters(), *a.buffers()))
        moved = sum(t.nbytes for t in (self.z_sem, self.edited) if t is not None)
        return fitted + moved + sum(one.nbytes for one in self.recent)

    def check_unused(self, names: Sequence[str]) -> None:
        """Raises ValueError where one of the attributes is moved or kept by the edit that is open."""
        used = {*self.asked.get("strengths", ()), *self.asked.get("targets", ()), *self.asked.get("keep", ())}
        if found := [name for name in names if name in used]:
            raise ValueError(f"{found[0]!r} is part of the edit that is open: undo what was done by it, or open another image.")

    def find_opened(self, x: Float[Tensor, "1 c *sides"]) -> OpenImage | None:
        """The image with its codes, where it was opened before and is remembered."""
        return next((one for one in self.recent if torch.equal(one.x, x)), None)

    def open(self, one: OpenImage) -> tuple["Visit", int]:
        """The visit with an image opened and nothing done to it, and the number of images that were forgotten for it: the
        oldest, where all take more than `MOST_BYTES`."""
        others = tuple(other for other in self.recent if other is not one)
        fresh: dict[str, Any] = {"past": (), "z_sem": None, "edited": None, "asked": {}, "told": self.told + 1}
        visit = replace(self, opened=one, recent=(*others, one), **fresh)
        forgotten = 0
        while visit.nbytes > MOST_BYTES and len(visit.recent) > 1:
            visit, forgotten = replace(visit, recent=visit.recent[1:]), forgotten + 1
        return visit, forgotten
