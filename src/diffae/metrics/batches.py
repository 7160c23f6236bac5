"""Many images through a network, a batch at a time."""

from collections.abc import Callable

import torch
from torch import Tensor


def in_batches(call: Callable[..., Tensor], *inputs: Tensor, batch_size: int) -> Tensor:
    """What a call gives for all rows of its inputs, which it is handed `batch_size` rows at a time.

    Args:
        call: rows of each input -> a result for each row.
        inputs: (n, ...) each; at least one row.
        batch_size: rows at a time.

    Returns:
        (n, ...), in the order of the rows.
    """
    return torch.cat([call(*rows) for rows in zip(*(x.split(batch_size) for x in inputs), strict=True)])
