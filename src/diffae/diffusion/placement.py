"""Where things are computed: where a model's networks are, whatever device it is given things on."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

M = TypeVar("M", bound=Callable[..., Any])


def at_home(method: M) -> M:
    """A method that computes where its model is (`self.device`), without gradients; what it gives goes back to where the first
    argument is. Methods of this kind that call each other move nothing in between.

    Args:
        method: of a model; tensors among its arguments, and codes, which have `device` and `to` as tensors have, are moved.
    """

    @functools.wraps(method)
    def moved(self: Any, *args: Any, **kwargs: Any) -> Any:
        home = self.device
        given = [value for value in (*args, *kwargs.values()) if _has_a_place(value)]
        near = [value.to(home) if _has_a_place(value) else value for value in args]
        with torch.no_grad():
            found = method(self, *near, **{k: v.to(home) if _has_a_place(v) else v for k, v in kwargs.items()})
        return found.to(given[0].device) if given else found

    return moved  # type: ignore[return-value]


def _has_a_place(value: Any) -> bool:
    return isinstance(value, Tensor) or (hasattr(value, "device") and hasattr(value, "to"))
