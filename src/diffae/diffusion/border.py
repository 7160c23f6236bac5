"""Where users come in: what they give is looked at once, and brought to where the networks are. Inside there are plain tensors.

Arguments are known by their names, which mean the same everywhere in the project: `x`, `x_a`, `x_b` images, `z_sem` semantic codes,
`x_T` noise, `t` a timestep, `steps` of a solver, `num` and the like numbers of things.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffae.diffusion import checks
from diffae.diffusion.inversion import check_inversion
from diffae.diffusion.solvers import check_solver

M = TypeVar("M", bound=Callable[..., Any])

_inside: ContextVar[object] = ContextVar("inside", default=None)
"""The model one of whose public methods is at work: what it calls of its own is not looked at again."""


def border(method: M) -> M:
    """A public method of a model: it computes where the networks are (`self.device`), without gradients, and what it gives goes
    back to where the first tensor among its arguments is.

    Args:
        method: of a model with `device`, `image_shape`, `config` and `schedule`. Tensors among its arguments, and codes, which have
            `device` and `to` as tensors have, are moved; every argument that has a check by its name passes it.

    Raises:
        ValueError: shapes, ranges or numbers that cannot be; see `checks`.
        TypeError: images that are not floating-point.
    """
    names = list(inspect.signature(method).parameters)[1:]

    @functools.wraps(method)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _inside.get() is self:
            return method(self, *args, **kwargs)
        given = dict(zip(names, args, strict=False)) | kwargs
        _check(self, given)
        home = self.device
        places = [value.device for value in given.values() if _has_a_place(value)]
        near = {name: value.to(home) if _has_a_place(value) else value for name, value in given.items()}
        token = _inside.set(self)
        try:
            with torch.no_grad():
                found = method(self, **near)
        finally:
            _inside.reset(token)
        return found.to(places[0]) if places else found

    return called  # type: ignore[return-value]


def _check(model: Any, given: Mapping[str, Any]) -> None:
    """Refuses what cannot be, and warns of what looks wrong."""
    num = next((len(v.z_sem if hasattr(v, "z_sem") else v) for n, v in given.items() if n in BATCHES), None)
    for name, value in given.items():
        if name in CHECKS and value is not None:
            CHECKS[name](model, value, num)
    checks.check_counts(**{name: given[name] for name in COUNTS if name in given})


def _check_x(model: Any, x: Any, num: int | None) -> None:
    if isinstance(x, Tensor):  # Or the code of images, which was made of some.
        checks.check_images(x, model.image_shape, of_pixels=model.config.latents is None)


BATCHES = ("x", "x_a", "x_b", "code", "z_sem", "x_T")
"""Arguments with one entry an image: as many in each as in the first."""
COUNTS = ("num", "frames", "prior_steps", "max_proposals", "batch_size")
"""Arguments that are at least one."""
CHECKS: dict[str, Callable[[Any, Any, int | None], object]] = {
    "x": _check_x,
    "x_a": _check_x,
    "x_b": _check_x,
    "z_sem": lambda model, z_sem, num: checks.check_z_sem(z_sem, model.z_dim, num),
    "x_T": lambda model, x_T, num: checks.check_x_T(x_T, model.image_shape, num),
    "t": lambda model, t, num: checks.check_timestep(t, model.schedule.T),
    "weights": lambda model, weights, num: checks.check_weights(weights),
    "inversion": lambda model, inversion, num: check_inversion(inversion, model),
    "solver": lambda model, solver, num: check_solver(solver),
}
"""(model, value, number of images) -> nothing, or an error."""


def _has_a_place(value: Any) -> bool:
    return isinstance(value, Tensor) or (hasattr(value, "device") and hasattr(value, "to"))
