"""Weights, averages and optimizer divided over processes (FSDP2), for models that one device does not hold with all of them.

Each process keeps a part of every tensor. A stage's weights are gathered just before it computes, and its gradients are summed and
divided again right after. Checkpoints are written as they lie, every process its parts, and are read by any number of processes.
"""

import contextlib
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from diffae.nn import UNet
from diffae.nn.layers import Stage
from diffae.runtime import processes


def shard(model: nn.Module) -> None:
    """Divides a module's parameters over all processes, in place: by stages, and what is not in one together.

    Give the module that is called in training: a module inside it would compute with its part of the parameters.

    Raises:
        RuntimeError: there is no process group.
    """
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP takes no other layout.
    for module in model.modules():
        if isinstance(module, UNet):
            module.joins = False
    mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
    for module in model.modules():
        if isinstance(module, Stage):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` has divided this module's parameters over processes."""
    return isinstance(model, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, on every process, where each has a part of it. All processes have to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def divided(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a tensor that every process has whole; the whole tensor where `like` is not sharded."""
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None) if isinstance(like, DTensor) else tensor


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The whole `state_dict` of a model, on the first process; an empty one on the others. All processes have to ask."""
    if not is_sharded(model):
        return model.state_dict()
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast(dict[str, Tensor], get_model_state_dict(model, options=options))


def save_parts(tensors: dict[str, Tensor], folder: Path) -> None:
    """Writes a folder of safetensors files, one from each process; it is whole or not there. All processes have to call this."""
    unfinished = folder.with_name(f".{folder.name}.part")
    if processes.is_first():
        shutil.rmtree(unfinished, ignore_errors=True)
    processes.barrier()
    with _alone_or_not():
        writer = HuggingFaceStorageWriter(str(unfinished), save_distributed=True)
        packed = {k: v.detach().contiguous() for k, v in tensors.items()}
        checkpoint.save(packed, storage_writer=writer, no_dist=not dist.is_initialized())
    if processes.is_first():
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.replace(folder)
    processes.barrier()


def names_of_parts(folder: Path) -> set[str]:
    """The names of the tensors in `save_parts`' folder.

    Raises:
        ValueError: a damaged file.
    """
    try:
        return set(HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata)
    except SafetensorError as error:
        raise _damaged(folder, error) from None


def load_parts(tensors: dict[str, Tensor], folder: Path) -> None:
    """Fills tensors, divided over any number of processes, from `save_parts`' folder.

    Raises:
        ValueError: the folder is damaged, or holds other tensors.
    """
    try:
        with _alone_or_not():
            reader = HuggingFaceStorageReader(str(folder))
            checkpoint.load(dict(tensors), storage_reader=reader, no_dist=not dist.is_initialized())
    except (SafetensorError, CheckpointException, RuntimeError, ValueError) as error:
        raise _damaged(folder, error) from None


@contextlib.contextmanager
def _alone_or_not() -> Iterator[None]:
    """Without torch's warning that there is a single process, which is meant to be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def _damaged(folder: Path, error: BaseException) -> ValueError:
    return ValueError(f"The checkpoint {folder} is damaged or cut short ({error}). Delete it to go on from the one before it.")
