"""Rows of data where the network is: kept there if there is room, else sent a batch at a time."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SHARE = 1 / 3
"""Of the memory that a device has free: data that take more are sent."""
PIECE = 2**28
"""Bytes that are copied to a device at a time."""


class Rows:
    """Rows of arrays that belong together, such as images and these mirrored.

    Args:
        arrays: of the host, memory-mapped or not, all of as many rows.
        device: where rows are wanted.
        room: bytes that may be kept there; by default a share of what a card has free, and none elsewhere.

    Attributes:
        kept: the arrays on the device, or None where rows are sent.
    """

    def __init__(self, arrays: Sequence[np.ndarray], device: torch.device, *, room: int | None = None) -> None:
        self._arrays, self.device = arrays, device
        room = _room(device) if room is None else room
        fits = device.type != "cpu" and sum(array.nbytes for array in arrays) <= room
        self.kept: list[Tensor] | None = [_copied(array, device) for array in arrays] if fits else None

    def pack(self, indices: Sequence[int]) -> Tensor:
        """What the host sends of rows with these indices: the rows (n, arrays, ...), or where they are kept the indices."""
        chosen = np.asarray(indices, dtype=np.int64)
        if self.kept is not None:
            return torch.from_numpy(chosen)
        rows = [_signed(array[chosen]) for array in self._arrays]
        return torch.from_numpy(rows[0][:, None] if len(rows) == 1 else np.stack(rows, axis=1))

    def unpack(self, sent: Tensor) -> tuple[Tensor, ...]:
        """The rows of each array, of what was packed and is on the device now."""
        if self.kept is not None:
            return tuple(array.index_select(0, sent) for array in self.kept)
        return sent.unbind(1)


def _room(device: torch.device) -> int:
    return int(SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def _copied(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on a device, a piece at a time."""
    kept = torch.empty(array.shape, dtype=torch.from_numpy(_signed(np.array(array[:0]))).dtype, device=device)
    step = max(1, PIECE // max(array[:1].nbytes, 1))
    for start in range(0, len(array), step):
        kept[start : start + step] = torch.from_numpy(_signed(np.array(array[start : start + step]))).to(device)
    return kept


def _signed(array: np.ndarray) -> np.ndarray:
    """16 bits without sign as the same bits with one, which is the type that devices compute in."""
    return array.view(np.int16) if array.dtype == np.uint16 else array
