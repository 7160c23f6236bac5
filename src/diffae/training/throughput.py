"""Does the input keep up with the network? Images a second of decoding, of reading what was decoded, and of the network."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from diffae.config import DataConfig, RunConfig
from diffae.data.cache import cached
from diffae.data.dataset import ImageSet, Order
from diffae.data.feed import Rows
from diffae.data.preparation import decoder_of
from diffae.data.sources import Source
from diffae.runtime import seeding
from diffae.runtime.seeding import Draws
from diffae.training.speed import ENCODING, TRAINING_STEP, measure
from diffae.training.views import training_view

READ_SECONDS, NETWORK_SECONDS = 1.0, 3.0
"""How long reading, and each use of the network, is watched."""


class Rate(NamedTuple):
    """How quick one step is on the way from files to the network, or one use of the network.

    Attributes:
        use: `decoding` or `reading`, or what the network does, `encoding` or `training`.
        what: the same, in words.
        images: images a second.
    """

    use: str
    what: str
    images: float

    @property
    def network(self) -> bool:
        """Whether this is what the others must keep up with."""
        return self.use in ("encoding", "training")


def input_rates(
    source: Source, config: RunConfig, *, num: int, threads: Sequence[int], batch_size: int = 64, seed: int = 0
) -> Iterator[Rate]:
    """Images a second of decoding and resizing on so many threads, and of reading batches from what was decoded.

    Args:
        source: the images.
        config: the size, channels and crop of the model.
        num: images that are decoded, the first of the source; those that cannot be used count as well.
        threads: numbers of threads to decode on.
        batch_size: of reading, in the order of a training run with this seed.
        seed: of that order.
    """
    model = config.model
    decode = decoder_of(config.data, source, size=model.image_size, channels=model.channels, progress=lambda *_: None)
    names = source.names[:num]
    for workers in threads:
        with ThreadPoolExecutor(workers) as pool:
            began = time.perf_counter()
            sum(1 for _ in pool.map(decode, names))
            yield Rate("decoding", f"decoding and resizing, threads: {workers}", len(names) / _since(began))
    with tempfile.TemporaryDirectory() as folder:
        usable, pixels, *_ = cached(decode, names, Path(folder), convert=None, progress=lambda *_: None)
        if not usable:
            raise ValueError(f"None of the first {len(names)} images can be used, so there is nothing to read.")
        indices = np.arange(len(usable))
        data = ImageSet(usable, pixels, {}, indices, indices[:0], [], DataConfig(), "")
        order = Order(indices, seed=seeding.mix(seed, "order"))

        rows = Rows(data.arrays, torch.device("cpu"))

        def read(k: int) -> None:
            start = k * batch_size
            sent = rows.pack([order[p] for p in range(start, start + batch_size)])
            training_view(rows.unpack(sent)[0], Draws.of(batch_size, seed, start=start), flip=config.data.flip)

        calls = _calls_per_second(read, READ_SECONDS)
        yield Rate("reading", f"reading batches of {batch_size} from the cache", batch_size * calls)


def network_rates(config: RunConfig, *, accelerator: Accelerator, batch_size: int = 64) -> Iterator[Rate]:
    """Images a second that the network takes when it encodes, and when it trains; a plain DDIM only trains.

    Args:
        config: the run's; its network is measured with random weights.
        accelerator: the device.
        batch_size: of encoding; training takes the micro-batches of the run.
    """
    parts = config.training.accumulation
    trained = config.training.batch_size // (1 if parts == "auto" else parts)
    uses = {"training": (TRAINING_STEP, trained, f"training on batches of {trained}")}
    if config.model.z_dim is not None:
        uses = {"encoding": (ENCODING, batch_size, f"encoding batches of {batch_size}")} | uses
    for use, (what, batch, words) in uses.items():
        for speed in measure(config, batch, accelerator=accelerator, what=[what], seconds=NETWORK_SECONDS):
            yield Rate(use, f"the network, {words}", speed.images)


def _calls_per_second(call: Callable[[int], object], seconds: float) -> float:
    """Calls a second, over at least so many seconds and two calls, after one that does not count."""
    call(0)
    began, count = time.perf_counter(), 0
    while count < 2 or _since(began) < seconds:
        count += 1
        call(count)
    return count / _since(began)


def _since(began: float) -> float:
    return time.perf_counter() - began
