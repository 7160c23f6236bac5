"""What training has reached: weights, their moving average, optimizer. One file, atomic, read without running code.

No generator state is saved, because there is none: every draw is a function of the run's seed and of what it is for.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor, nn

from diffae.config import TrainingConfig
from diffae.runtime.files import replacing
from diffae.training.muon import Muon, is_hidden_matrix
from diffae.training.sharding import load_parts, names_of_parts, save_parts, shard

FORMAT = "diffae-checkpoint-1"
MOMENTS = {torch.optim.AdamW: ("exp_avg", "exp_avg_sq"), Muon: ("momentum",)}
"""What the optimizers keep of each weight."""
M = TypeVar("M", bound=nn.Module)
AVERAGES = (0.05, 0.10)
"""Lengths of the two averages from which all others are made (Karras et al. 2024, section 3.2)."""


@dataclass(slots=True)
class TrainingState(Generic[M]):
    """Everything that a training step changes.

    Attributes:
        model: the weights being trained.
        ema: their exponential moving average.
        optimizers: Adam, and Muon of hidden matrices where it is asked for, with their moments.
        step: optimizer steps taken.
        averages: those of `AVERAGES`, or none.
        sharded: whether checkpoints are folders of parts; where there are several processes, all of this is divided over them.
    """

    model: M
    ema: M
    optimizers: tuple[torch.optim.Optimizer, ...]
    step: int = 0
    averages: tuple[M, ...] = ()
    sharded: bool = False

    @classmethod
    def start(cls, model: M, config: TrainingConfig, *, called: nn.Module | None = None) -> "TrainingState[M]":
        """The state before the first step; the average starts at the initial weights, as in the authors' code.

        Args:
            model: is trained.
            config: which optimizers, what is kept, and whether it is sharded.
            called: the module around the model whose forward is called in training, if it is not the model's.
        """
        ema = copy.deepcopy(model).eval().requires_grad_(False)
        averages = tuple(copy.deepcopy(ema) for _ in AVERAGES if config.average_every is not None)
        if config.sharded and dist.is_initialized():
            shard(called or model)
            for average in (ema, *averages):
                shard(average)
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = {name for name, p in named if config.muon_rate is not None and is_hidden_matrix(name, p)}

        def groups(names: set[str], rate: float) -> list[dict[str, Any]]:
            encoder = [p for name, p in named if name in names and name.startswith("encoder.")]
            others = [p for name, p in named if name in names and not name.startswith("encoder.")]
            return [{"params": others, "relative_rate": rate}, {"params": encoder, "relative_rate": rate * config.encoder_rate}]

        common: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        rest = {name for name, _ in named} - matrices
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups(rest, 1.0), betas=config.adam_betas, fused=True, capturable=True, **common)
        ]
        if config.muon_rate is not None:
            quick = torch.bfloat16 if config.precision == "bfloat16" else None
            optimizers.append(Muon(groups(matrices, config.muon_rate), dtype=quick, **common))
        return cls(model.train(), ema, tuple(optimizers), averages=averages, sharded=config.sharded)

    def save(self, file: Path) -> None:
        """Writes the state to one safetensors file, or where it is sharded to a folder of one from each process; atomically."""
        tensors = self._tensors()
        if self.sharded:
            save_parts(tensors | {"step": torch.tensor(self.step)}, file)
            return
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        with replacing(file) as part:
            safetensors.torch.save_file(tensors, part, metadata={"format": FORMAT, "step": str(self.step)})

    def load(self, file: Path) -> None:
        """Restores the state from what `save` wrote, on this number of processes or another.

        Raises:
            ValueError: the file is damaged, or another network's.
        """
        if self.sharded:
            self._start_moments(names_of_parts(file))
            step = torch.tensor(0)
            load_parts(self._tensors() | {"step": step}, file)
            self.step = int(step)
        else:
            tensors, self.step = _read(file)
            self._start_moments(set(tensors))
            for name, tensor in self._tensors().items():
                if name not in tensors or tensors[name].shape != tensor.shape:
                    raise ValueError(f"The checkpoint {file} is of another network: it has no {name} of {tuple(tensor.shape)}.")
                with torch.no_grad():
                    tensor.copy_(tensors[name])
        for optimizer in self.optimizers:
            for moments in optimizer.state.values():
                if "step" in moments:
                    moments["step"].fill_(self.step)

    @torch.no_grad()
    def take_buffers(self) -> None:
        """Gives the averages what the model keeps beside its weights, such as the running means of a network that others wrote."""
        for average in (self.ema, *self.averages):
            for theirs, own in zip(average.buffers(), self.model.buffers(), strict=True):
                theirs.copy_(own)

    def _tensors(self) -> dict[str, Tensor]:
        """What is saved, by its names."""
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema/{k}": v for k, v in self.ema.state_dict().items()}
        tensors |= {f"average {i}/{k}": v for i, average in enumerate(self.averages) for k, v in average.state_dict().items()}
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        for optimizer in self.optimizers:
            for parameter, moments in optimizer.state.items():
                tensors |= {f"{moment}/{names[parameter]}": moments[moment] for moment in MOMENTS[type(optimizer)]}
        return tensors

    def make_room(self) -> None:
        """Allocates the moments that the first step would allocate, at the zeros that they begin with."""
        self._start_moments(None)

    def _start_moments(self, saved: set[str] | None) -> None:
        """Moments of zero, laid out as the parameters are, for those whose moments were saved, or for all."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        for optimizer in self.optimizers:
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                moments = MOMENTS[type(optimizer)]
                if saved is not None and f"{moments[0]}/{names[parameter]}" not in saved:
                    if any(f"{other[0]}/{names[parameter]}" in saved for other in MOMENTS.values()):
                        raise ValueError(
                            f"The checkpoint has the moments of {names[parameter]} for another optimizer than "
                            f"{type(optimizer).__name__}: an earlier version divided weights otherwise. Start a new run, `--from` "
                            "this one."
                        )
                    continue
                optimizer.state[parameter] = {moment: torch.zeros_like(parameter).detach() for moment in moments}
                if isinstance(optimizer, torch.optim.AdamW):
                    optimizer.state[parameter]["step"] = torch.zeros((), device=parameter.device)


def _read(file: Path) -> tuple[dict[str, Tensor], int]:
    """The tensors of a checkpoint, and its step."""
    try:
        with safetensors.safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
        tensors = safetensors.torch.load_file(file)
    except SafetensorError as error:
        raise ValueError(
            f"The checkpoint {file} is damaged or cut short ({error}). Delete it to go on from the one before it."
        ) from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{file} is not a checkpoint of a diffae run.")
    return tensors, int(metadata["step"])


def exponent(length: float) -> float:
    """The power g of time, for a profile whose standard deviation is this share of the time that has passed.

    `length^2 = (g + 1) / ((g + 2)^2 (g + 3))` (Karras et al. 2024, section 3.1); g is the largest root of this cubic.

    Raises:
        ValueError: no rising profile has this length.
    """
    if not 0 < length < 12**-0.5:
        raise ValueError(
            f"The length of an average lies between 0 and {12**-0.5:.3f}, which is the mean of all steps; got {length}."
        )
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


PROFILES = tuple(exponent(length) for length in AVERAGES)
"""Exponents of the averages with a power profile."""


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most images in a folder, or None. Files that are still being written have another name."""
    return max(folder.glob("images-*"), default=None)


def checkpoint_file(folder: Path, images: int, *, sharded: bool = False) -> Path:
    """The name of a checkpoint, itself a folder where it is sharded; names sort by images."""
    return folder / (f"images-{images:012d}" + ("" if sharded else ".safetensors"))
