"""The processes that a command runs as (`torchrun`, `accelerate launch`): who takes which part, and what all found, together.

What is passed is small (codes, features, results), so it goes over the CPU, by pickle among processes of one command. Training has
its own way, `accelerate`.
"""

import atexit
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def join() -> None:
    """Meets the other processes, if this is one of several that were started together."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    if torch.cuda.is_available():  # Kernels and recordings are of the card that is current.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def count() -> int:
    """How many have met; one, if nobody was there to meet."""
    return _group().get_world_size() if _group() else 1


def rank() -> int:
    """This one's number."""
    return _group().get_rank() if _group() else 0


def shard(values: Sequence[T]) -> Sequence[T]:
    """This one's share of what is to be done: of n processes each takes every n-th."""
    return values[rank() :: count()]


def is_first() -> bool:
    """Whether this is the one that writes and talks."""
    return rank() == 0


def all_gather(value: T) -> list[T]:
    """Everybody's value, in the order of their numbers. All have to ask."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    _group().all_gather_object(found, value)
    return found


def broadcast(value: T) -> T:
    """The first one's value. All have to ask."""
    if count() == 1:
        return value
    found = [value]
    _group().broadcast_object_list(found)
    return found[0]


def barrier() -> None:
    """Until all are here."""
    if count() > 1:
        _group().barrier()


@contextlib.contextmanager
def first_before_others() -> Iterator[None]:
    """What the first does, such as filling a cache, is done when the others come to do it."""
    if not is_first():
        barrier()
    yield
    if is_first():
        barrier()


def _group() -> Any:
    import torch.distributed as dist

    return dist if dist.is_available() and dist.is_initialized() else None


@atexit.register
def _part() -> None:
    """Parts from the others. A process that ends without it can be torn down amid their talk, and is then said to have failed."""
    if "torch.distributed" in sys.modules and _group():
        _group().destroy_process_group()
