"""Rows of data on the network's device: all at once if they fit, else a batch at a time."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

SHARE = 1 / 3
"""Of a card's free memory: data that take more are sent a batch at a time."""
PIECE = 2**28
"""Bytes that are copied to a device at once."""


class Rows:
    """Rows of arrays that belong together, such as images and the same images mirrored.

    Args:
        arrays: on the host, memory-mapped or not, each with the same number of rows.
        device: where rows are needed.
        room: bytes that data may take on the device; by default a share of a card's free memory, and nothing elsewhere.

    Attributes:
        resident: the arrays on the device, or None where rows are sent a batch at a time.
    """

    def __init__(self, arrays: Sequence[np.ndarray], device: torch.device, *, room: int | None = None) -> None:
        self._arrays, self.device = arrays, device
        room = _room(device) if room is None else room
        fits = device.type != "cpu" and sum(array.nbytes for array in arrays) <= room
        self.resident: list[Tensor] | None = [_copied(array, device) for array in arrays] if fits else None

    def pack(self, indices: Sequence[int]) -> Tensor:
        """What the host sends for rows with these indices: the rows' bytes (n, bytes), or the indices alone if data is resident."""
        chosen = np.asarray(indices, dtype=np.int64)
        if self.resident is not None:
            return self._pinned(torch.from_numpy(chosen))
        rows = [array[chosen].reshape(len(chosen), math.prod(array.shape[1:])).view(np.uint8) for array in self._arrays]
        return self._pinned(torch.from_numpy(rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)))

    def unpack(self, sent: Tensor) -> tuple[Tensor, ...]:
        """The rows of each array, from what `pack` made and the device has received."""
        if self.resident is not None:
            return tuple(array.index_select(0, sent) for array in self.resident)
        bytes_of = [array[:1].nbytes for array in self._arrays]
        parts: Iterable[tuple[Tensor, np.ndarray]] = zip(sent.split(bytes_of, dim=1), self._arrays, strict=True)
        if len(self._arrays) > 1:
            # Copies begin where numbers of any type may.
            parts = ((part.clone(memory_format=torch.contiguous_format), array) for part, array in parts)
        return tuple(part.view(_kind(array)).unflatten(1, array.shape[1:]) for part, array in parts)

    def _pinned(self, sent: Tensor) -> Tensor:
        """In pinned memory, where a card fetches it by itself; unchanged for other devices."""
        return sent.pin_memory() if self.device.type == "cuda" else sent


def _room(device: torch.device) -> int:
    return int(SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def _copied(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on a device, copied a piece at a time."""
    copy = torch.empty(array.shape, dtype=_kind(array), device=device)
    step = max(1, PIECE // max(array[:1].nbytes, 1))
    for start in range(0, len(array), step):
        copy[start : start + step] = torch.from_numpy(_signed(np.array(array[start : start + step]))).to(device)
    return copy


def _kind(array: np.ndarray) -> torch.dtype:
    """The type of an array's rows on a device."""
    return torch.from_numpy(_signed(np.empty(0, array.dtype))).dtype


def _signed(array: np.ndarray) -> np.ndarray:
    """uint16 as int16 with the same bits, since devices do not compute in uint16; others as they are."""
    return array.view(np.int16) if array.dtype == np.uint16 else array
