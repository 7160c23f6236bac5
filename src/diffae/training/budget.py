"""When a run ends, and when what it does now and then is due: both are counted in images."""

import time
from collections.abc import Callable

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from diffae.config import TrainingConfig
from diffae.training.loop import HOLD


class Budget:
    """How many images to see: given, or found once from the minutes and the rate of the first minute."""

    def __init__(self, config: TrainingConfig, *, started_at: int) -> None:
        self.total = config.images
        self.start = started_at
        self._minutes = config.minutes
        self._batch = config.batch_size
        self._clock: tuple[int, float] | None = None

    def calibrate(self, images: int, accelerator: Accelerator, *, wait: Callable[[], object] = lambda: None) -> bool:
        """Fixes the total when the first minute (a tenth of a shorter budget) is over; True at that moment.

        Args:
            images: seen so far.
            accelerator: whose first process decides.
            wait: until the device has seen them too.
        """
        if self.total is not None or self._minutes is None:
            return False
        if self._clock is None:
            # The first step allocates and is not typical.
            wait()
            self._clock = (images, time.monotonic())
            return False
        seconds = time.monotonic() - self._clock[1]
        decision: list[int | None] = [None]
        if seconds >= min(60.0, 6.0 * self._minutes) and images > self._clock[0]:
            wait()
            seconds = time.monotonic() - self._clock[1]
            rate = (images - self._clock[0]) / seconds
            # So large that the learning rate's hold is not over yet.
            least = images / HOLD if self._minutes > 1 else images
            total = max(rate * 60 * self._minutes, least)
            decision[0] = -(-round(total) // self._batch) * self._batch
        if accelerator.num_processes > 1:
            broadcast_object_list(decision)
        self.total = decision[0]
        return self.total is not None


class Due:
    """Whether something that happens every so many images is due: once per multiple, also across a resume. What has no number of
    images is never due."""

    def __init__(self, config: TrainingConfig, *, images: int) -> None:
        self._every = {
            "log": config.log_every,
            "validate": config.validate_every,
            "sample": config.sample_every,
            "checkpoint": config.checkpoint_every,
            "average": config.average_every,
        }
        self._last = dict.fromkeys(self._every, images)

    def __call__(self, what: str, images: int) -> bool:
        before, self._last[what] = self._last[what], images
        every = self._every[what]
        return every is not None and images // every > before // every
