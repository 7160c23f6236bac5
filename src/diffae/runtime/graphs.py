"""What a card does, recorded once and then replayed, so that the host sends one command in place of a thousand (CUDA graphs).

A recording is of addresses: what it reads and writes lies where it lay, and numbers of the host are those of the recording.
"""

import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor

WARM_UP = 3
"""How often something is done before it is recorded: libraries choose and allocate at first."""
BOUND = 0.7
"""Share of the time for which the host is busy from which on it is what bounds."""
SHAPES = 4
"""How many shapes of calls are recorded at the same time."""


class Recorder(Protocol):
    """How a kind of device records."""

    def wait(self) -> None:
        """Until the device has done all that it was asked."""
        ...

    @contextmanager
    def side_stream(self) -> Iterator[None]:
        """Where what will be recorded is done before."""
        ...

    def record(self, compute: Callable[[], None]) -> Callable[[], None]:
        """What replays all that `compute` asks of the device; nothing is computed yet."""
        ...


class Cuda:
    """NVIDIA's."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def wait(self) -> None:
        torch.cuda.synchronize()

    @contextmanager
    def side_stream(self) -> Iterator[None]:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, compute: Callable[[], None]) -> Callable[[], None]:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # Its memory is its own.
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            compute()
        return graph.replay


RECORDERS: dict[str, Callable[[], Recorder]] = {"cuda": Cuda}
"""Of each kind of device that can."""


def recorder_of(device: torch.device) -> Recorder | None:
    """How this device records, or None if it does not."""
    return RECORDERS[device.type]() if device.type in RECORDERS else None


def try_to_record(recorder: Recorder, compute: Callable[[], None], what: str) -> Callable[[], None] | None:
    """The replay; where it fails None, and one warning says why."""
    try:
        return recorder.record(compute)
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        warnings.warn(f"{what} cannot be recorded on this device ({reason}); it goes on without.", stacklevel=3)
        return None


class GraphedStep:
    """Something done again and again, with the same tensors: recorded after a few times, if it is the host that it waits for.

    Args:
        compute: reads and writes tensors that stay where they are.
        device: where.
        what: to call it in what is said.
        asked: whether to record at all.

    Attributes:
        note: what was decided, in a sentence, once it is.
        replays: whether it is recorded.
    """

    def __init__(self, compute: Callable[[], None], device: torch.device, what: str, *, asked: bool = True) -> None:
        self._compute = compute
        self._recorder = recorder_of(device) if asked else None
        self._what = what
        self._replay: Callable[[], None] | None = None
        self._times = 0
        self.note: str | None = None

    @property
    def replays(self) -> bool:
        return self._replay is not None

    def __call__(self) -> None:
        """Once more."""
        self._times += 1
        if self._replay is not None:
            self._replay()
        elif self._recorder is None or self._times > WARM_UP + 1:
            self._compute()
        elif self._times <= WARM_UP:
            with self._recorder.side_stream():
                self._compute()
        else:
            self._decide(self._recorder)

    def _decide(self, recorder: Recorder) -> None:
        """Does it while looking at the clock, and records it if the host was busy for most of the time."""
        recorder.wait()
        began = time.perf_counter()
        with recorder.side_stream():
            self._compute()
        asked = time.perf_counter() - began
        recorder.wait()
        taken = time.perf_counter() - began
        times = f"the host is busy for {1000 * asked:.1f} of {1000 * taken:.1f} ms"
        if asked < BOUND * taken:
            self.note = f"{self._what} is not recorded: {times}"
            return
        self._replay = try_to_record(recorder, self._compute, self._what)
        if self._replay is not None:
            self.note = f"{self._what} is recorded and replayed (CUDA graph): {times} without"


class GraphedCalls:
    """Calls of functions of tensors, recorded one for each of a few shapes.

    The inputs of a call are copied to where its recording reads; its result is a copy.
    """

    def __init__(self) -> None:
        self._found: OrderedDict[Hashable, _GraphedCall] = OrderedDict()
        self._failed = False
        self._lock = Lock()

    def __call__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor | None], key: Hashable) -> Tensor:
        """`function(*inputs)`.

        Args:
            function: of tensors. What else it reads stays where it is while the key is the same.
            inputs: tensors on one device, or None.
            key: of all that it depends on beside these.
        """
        recorder = recorder_of(next(t.device for t in inputs if t is not None))
        if recorder is None or self._failed:
            return function(*inputs)
        whole = (key, *(None if t is None else (tuple(t.shape), t.dtype) for t in inputs))
        with self._lock:
            call = self._found.setdefault(whole, _GraphedCall())
            self._found.move_to_end(whole)
            while len(self._found) > SHAPES:
                self._found.popitem(last=False)
            result = call(function, inputs, recorder)
            self._failed |= call.failed
            return result


class _GraphedCall:
    """Of one shape."""

    def __init__(self) -> None:
        self.failed = False
        self._times = 0
        self._replay: Callable[[], None] | None = None
        self._inputs: list[Tensor | None] = []
        self._result: Tensor | None = None

    def __call__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor | None], recorder: Recorder) -> Tensor:
        self._times += 1
        if self._times <= WARM_UP:
            with recorder.side_stream():
                return function(*inputs)
        if self._replay is None:
            self._inputs = [None if t is None else t.clone() for t in inputs]

            def compute() -> None:
                self._result = function(*self._inputs)

            self._replay = try_to_record(recorder, compute, "The decoder's call")
            if self._replay is None:
                self.failed = True
                return function(*inputs)
        for place, value in zip(self._inputs, inputs, strict=True):
            if place is not None and value is not None:
                place.copy_(value)
        self._replay()
        assert self._result is not None
        return self._result.clone()
