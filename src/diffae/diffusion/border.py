"""Where users come in: what they give is looked at once, and brought to where the networks are. Inside there are plain tensors.

Arguments are known by their names, which mean the same everywhere in the project: `x`, `x_a`, `x_b`, `among` images, `z_sem`
semantic codes, `x_T` noise, `t` a timestep, `steps` of a solver, `num` and the like numbers of things.
"""

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffae.diffusion.inversion import check_inversion
from diffae.diffusion.solvers import check_solver

M = TypeVar("M", bound=Callable[..., Any])
Shape = tuple[int, ...]
"""Channels, height and width; of volumes channels, depth, height and width."""

_inside: ContextVar[object] = ContextVar("inside", default=None)
"""The model one of whose public methods is at work: what it calls of its own is not looked at again."""


def border(method: M) -> M:
    """A public method of a model: it computes where the networks are, without gradients, and what it gives goes back to
    where the first tensor among its arguments is.

    Args:
        method: of a model with `config` and `schedule`. Tensors among its arguments, and codes, which have
            `device` and `to` as tensors have, are moved; networks stay where they are. Every argument that has a check by its
            name passes it.

    Raises:
        ValueError: shapes, ranges or numbers that cannot be.
        TypeError: images that are not floating-point, or arguments that the method does not have.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _inside.get() is self:
            return method(self, *args, **kwargs)
        _, *given = signature.bind(self, *args, **kwargs).arguments.items()
        arguments = dict(given)
        _check(self, arguments)
        home = device_of(self)
        if home.type == "mps":
            raise ValueError(f"{type(self).__name__} is on Apple's GPU, which has no float64 for noise levels: `.to('cpu')` it.")
        places = [value.device for value in arguments.values() if _has_a_place(value)]
        moved = {name: value.to(home) if _has_a_place(value) else value for name, value in arguments.items()}
        token = _inside.set(self)
        try:
            # Kernels and recordings are of the card that is current.
            # What is kept for later calls could not be written again if it were made in inference mode.
            with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(home) if home.type == "cuda" else nullcontext():
                found = method(self, **moved)
        finally:
            _inside.reset(token)
        return found.to(places[0]) if places else found

    return called  # type: ignore[return-value]


def _check(model: Any, arguments: Mapping[str, Any]) -> None:
    """Refuses what cannot be, and warns of what looks wrong."""
    num = next((len(v.z_sem if hasattr(v, "z_sem") else v) for n, v in arguments.items() if n in BATCHES), None)
    for name, value in arguments.items():
        if name in CHECKS and value is not None:
            CHECKS[name](model, value, num)
    check_counts(**{name: arguments[name] for name in COUNTS if name in arguments})


def _check_x(model: Any, x: Any, num: int | None) -> None:
    if isinstance(x, Tensor):  # Or the code of images, which was made of some.
        check_images(x, shape_of(model), of_pixels=model.config.latents is None)
        if num is not None and len(x) != num:
            raise ValueError(f"Expected {num} images, as many as the first argument has, got {len(x)}.")


BATCHES = ("x", "x_a", "x_b", "code", "z_sem", "x_T")
"""Arguments with one entry an image: as many in each as in the first."""
COUNTS = ("num", "frames", "prior_steps", "max_proposals", "batch_size")
"""Arguments that are at least one."""
CHECKS: dict[str, Callable[[Any, Any, int | None], object]] = {
    "x": _check_x,
    "x_a": _check_x,
    "x_b": _check_x,
    "among": lambda model, among, num: _check_x(model, among, None),
    "z_sem": lambda model, z_sem, num: check_z_sem(z_sem, model.z_dim, num),
    "past": lambda model, past, num: check_z_sem(past, model.z_dim, None),
    "x_T": lambda model, x_T, num: check_x_T(x_T, shape_of(model), num),
    "t": lambda model, t, num: check_timestep(t, model.schedule.T),
    "target_value": lambda model, value, num: check_one_each(value, num),
    "weights": lambda model, weights, num: check_weights(weights),
    "inversion": lambda model, inversion, num: check_inversion(inversion, model),
    "solver": lambda model, solver, num: check_solver(solver),
}
"""(model, value, number of images) -> nothing, or an error."""


def _has_a_place(value: Any) -> bool:
    # What can be called, such as a classifier, is where its owner put it.
    return isinstance(value, Tensor) or (hasattr(value, "device") and hasattr(value, "to") and not callable(value))


def device_of(model: torch.nn.Module) -> torch.device:
    """Where a model's networks are."""
    return next(model.parameters()).device


def shape_of(model: Any) -> Shape:
    """Channels and sides of the images that a model's networks see."""
    return (model.config.channels, *model.config.image_size)


# What is checked ------------------------------------------------------------------------------------------------------


def check_images(x: Tensor, shape: Shape, *, of_pixels: bool = True) -> Tensor:
    """The images, if they are some.

    Args:
        x: what should be images (n, c, *sides).
        shape: of one.
        of_pixels: which lie within [-1, 1]; latents have no range.

    Raises:
        ValueError: another shape, or values out of range or not a number.
        TypeError: values that are not floating-point.
    """
    if tuple(x.shape[1:]) != shape:
        how = "crop and resize them" if of_pixels else "make latents of them with `from_pixels`"
        raise ValueError(f"Expected images of shape (n, {', '.join(map(str, shape))}), got {tuple(x.shape)}: {how} first.")
    if not x.is_floating_point():
        raise TypeError(f"Expected floating-point images in [-1, 1], got {x.dtype}: convert, divide by 127.5 and subtract 1.")
    low, high = torch.stack(x.detach().aminmax()).tolist() if x.numel() else (0.0, 0.0)
    if low != low:
        raise ValueError("Expected images in [-1, 1], got values that are not a number (NaN).")
    if of_pixels and not (low >= -1.001 and high <= 1.001):
        advice = "divide by 127.5 and subtract 1" if low >= 0 and high <= 255 else "rescale them"
        raise ValueError(f"Expected images in [-1, 1], got {low:g}..{high:g}: {advice}.")
    # Bright pictures, cells in a bright field, may have no value below 0; but hardly the very black of [0, 1] as their least, in
    # several, or beside nearly white.
    suspicious = of_pixels and 0 <= low < 0.1 and low < high <= 1.001 and (len(x) >= 4 or high > 0.9)
    if suspicious and not _are_of_bytes(x.detach()):
        warnings.warn(
            f"None of these images has a value below 0 ({low:g}..{high:g}): are they in [0, 1]? Images are expected in [-1, 1]. If "
            "so, multiply them by 2 and subtract 1.",
            stacklevel=5,
        )
    return x


def _are_of_bytes(x: Tensor) -> bool:
    """Whether all values are such as bytes have in [-1, 1], odd multiples of 1/255; in [0, 1] they have even ones too."""
    halves = (x.float() * 255 - 1) / 2
    return float((halves - halves.round()).abs().max()) < 1e-3


def check_counts(**counts: int | None) -> None:
    """Refuses numbers of things that are less than one.

    Raises:
        ValueError: such a number; the message calls it by its argument's name.
    """
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")


def check_timestep(t: int, T: int) -> None:
    """Refuses what is no timestep of 0..T-1."""
    if not 0 <= t < T:
        raise ValueError(f"t must be within 0..{T - 1}, got {t}.")


def check_weights(weights: Sequence[float]) -> None:
    """Refuses weights of an interpolation that are no numbers, and none at all."""
    if not len(weights) or not all(math.isfinite(w) for w in weights):
        raise ValueError(f"Expected weights that are numbers, from 0 for the first image to 1 for the second, got {list(weights)}.")


def check_one_each(value: Any, num: int | None) -> None:
    """Refuses values that are neither one for all images nor one for each."""
    shape = tuple(torch.as_tensor(value).shape)
    if shape not in ((), (num,)):
        raise ValueError(f"Give one value for all images, or one for each of {num} (n,); got values of shape {shape}.")


def check_z_sem(z_sem: Tensor, z_dim: int, num: int | None) -> None:
    """Refuses what has not the shape of semantic codes.

    Args:
        z_sem: what should be codes (num, d).
        z_dim: d.
        num: how many there have to be, or None.

    Raises:
        ValueError: another shape.
    """
    if z_sem.dim() != 2 or z_sem.shape[1] != z_dim or num not in (None, len(z_sem)):
        raise ValueError(f"Expected z_sem of shape ({'n' if num is None else num}, {z_dim}), got {tuple(z_sem.shape)}.")


def check_encoded(z_sem: Tensor) -> Tensor:
    """What an encoder gave, if it is numbers.

    Raises:
        ValueError: a NaN or an infinity; the message counts the codes that have one.
    """
    wrong = int((~z_sem.isfinite().all(1)).sum())
    if wrong:
        raise ValueError(
            f"The encoder gives z_sem that is not finite (NaN or infinite) for {wrong} of {len(z_sem)} images: its weights are no "
            "numbers, or too large for its arithmetic. Load an earlier state."
        )
    return z_sem


def check_x_T(x_T: Tensor, shape: Shape, num: int | None) -> Tensor:
    """The stochastic codes, if they are some; warns where they have not the spread of normal noise.

    Args:
        x_T: what should be noise (num, c, *sides).
        shape: of one.
        num: how many there have to be.

    Raises:
        ValueError: another shape, or uniform noise.
    """
    if tuple(x_T.shape[1:]) != shape or num not in (None, len(x_T)):
        raise ValueError(f"Expected x_T of shape ({num or 'n'}, {', '.join(map(str, shape))}), got {tuple(x_T.shape)}.")
    if x_T.numel() < 2:
        return x_T
    low, high, std = torch.stack([*x_T.aminmax(), x_T.std()]).tolist()
    # Inferred noise of a flat image may have one sign, but is not spread evenly over 0..1.
    if low >= 0 and high <= 1 and 0.2 < std < 0.4:
        raise ValueError("Expected x_T to be normal noise, but it lies within 0..1: draw it with torch.randn, not torch.rand.")
    if x_T.numel() >= 64 and not 0.4 < std < 2.5:
        warnings.warn(
            f"x_T has a standard deviation of {std:.2g}, where that of normal noise is 1: is it scaled, drawn by something "
            "else than torch.randn, or inferred by a network that is hardly trained?",
            stacklevel=5,
        )
    return x_T
