"""The network as solvers ask it: `(x_t, t) -> eps`, whatever it was trained to predict, and as quickly as its device can."""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from diffae.config import Precision, Prediction
from diffae.diffusion.schedule import Schedule, kind_of_t
from diffae.diffusion.solvers import to_eps
from diffae.nn import UNet
from diffae.nn.prepared import Prepared
from diffae.runtime.graphs import GraphedCalls, recorder_of
from diffae.runtime.processor import autocast, resolve_precision
from diffae.runtime.seeding import Draws


@runtime_checkable
class NoisePredictor(Protocol):
    """What can stand in the UNet's place: a `torch.nn.Module` that predicts the noise (or v) in x_t."""

    def __call__(self, x_t: Tensor, t: Tensor, *, z_sem: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """The prediction (n, c, h, w).

        Args:
            x_t: noisy images (n, c, h, w).
            t: (n,) timesteps 0..T-1, floating-point.
            z_sem: (n, d) semantic codes, or None for a plain DDIM.
            draws: of the images, for whatever the network draws while it is trained (dropout); None when it is not.
        """
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Its weights; they say where it computes, and in which type."""
        ...


class Recordings:
    """What is kept of a network from one solver to the next, on devices that record: its calls, and the weights that they read."""

    def __init__(self) -> None:
        self.calls = GraphedCalls()
        self._prepared: dict[torch.dtype | None, tuple[Hashable, Prepared]] = {}

    def prepared(self, unet: Any, dtype: torch.dtype | None) -> tuple[Hashable, Prepared]:
        """Weights in this precision, at addresses that stay while those of the network stay, and what stands for both."""
        key = (dtype, *(p.data_ptr() for p in unet.parameters()))
        found = self._prepared.get(dtype)
        if found is None or found[0] != key:
            self._prepared[dtype] = found = (key, Prepared(unet, dtype))
        return found

    def __deepcopy__(self, memo: dict) -> "Recordings":
        return Recordings()

    def __reduce__(self) -> Any:
        return Recordings, ()


class Predictor:
    """A network with its z_sem bound. Without gradients its weights are made ready at the first call, and taken to stay after that.

    Args:
        unet: the network.
        z_sem: (n, d), or None for one without.
        schedule: of its noise.
        prediction: what it says.
        precision: of its calls; `auto` is what is quick where it is.
        recordings: of earlier calls, or None to record nothing.
        watch: told before each call of how many images it is: on the host, which a card's replay of the network is not.
    """

    def __init__(
        self, unet: Any, z_sem: Tensor | None, *, schedule: Schedule, prediction: Prediction, precision: Precision,
        recordings: Recordings | None, watch: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        like = next(unet.parameters())
        device = like.device
        self._unet, self._schedule, self._prediction = unet, schedule, prediction
        self._z_sem = None if z_sem is None else z_sem.to(like)
        self._precision = resolve_precision(precision, device)
        self._dtype = torch.bfloat16 if self._precision == "bfloat16" else None
        self._recordings = recordings if recorder_of(device) is not None else None
        self._watch = watch
        self._prepared: Prepared | None = None
        self._key: Hashable = None

    def __call__(
        self, x_t: Float[Tensor, "n *s"], t: Float[Tensor, " n"], to: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n *s"]:
        """The noise in x_t at timesteps t (0..T-1); where it jumps, that with which DDIM's step leads to timesteps `to`."""
        if self._watch is not None:
            self._watch(len(x_t))
        like = next(self._unet.parameters())
        # Networks of others may not take another type than their weights have.
        kind = kind_of_t(like) if isinstance(self._unet, UNet) else like.dtype
        t, *led = (times.to(like.device, kind) for times in ([t] if to is None else [t, to]))
        inputs: tuple[Any, ...] = (x_t.to(like), t, self._z_sem, *led)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            output = self._ask(*inputs)
        else:
            with torch.inference_mode(False), torch.no_grad():  # What is kept is written again.
                self._make_ready()
                if self._recordings is None or self._unet.training:
                    output = self._ask_ready(*inputs)
                else:
                    output = self._recordings.calls(self._ask_ready, inputs, self._key)
        output = output.to(x_t)
        if self._prediction == "eps":
            return output
        return to_eps("v", output, x_t, *self._schedule.alpha_sigma(t, like=x_t))

    def _make_ready(self) -> None:
        if self._prepared is None:
            if self._recordings is None:
                self._prepared = Prepared(self._unet, self._dtype)
            else:
                self._key, self._prepared = self._recordings.prepared(self._unet, self._dtype)
            self._prepared.refresh()

    def _ask_ready(self, *inputs: Any) -> Tensor:
        assert self._prepared is not None
        with self._prepared:
            return self._ask(*inputs)

    def _ask(self, x_t: Tensor, t: Tensor, z_sem: Tensor | None, *to: Tensor) -> Tensor:
        with autocast(self._precision, x_t.device):
            return self._unet(x_t, t, z_sem=z_sem, **({"to": to[0]} if to else {}))
