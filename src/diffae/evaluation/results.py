"""What was measured: rows that say how, and a store of them, so that an interrupted evaluation goes on where it stopped."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from diffae.runtime import processes
from diffae.runtime.files import write_text


@dataclass(frozen=True, slots=True)
class Result:
    """One measured number.

    Attributes:
        suite: the table or figure of the paper that it belongs to.
        model: what was measured, such as `diffae, inferred x_T`.
        metric: `mse`, `ssim`, `lpips`, `fid`, ...
        value: the number.
        n: number of images.
        steps: network calls of the decoder, where they matter.
        spread: standard deviation over images, draws or subsets, where there are several.
        seed: of all that was drawn.
        seconds: that it took to make and measure the images.
        subject: what else tells this row from others: the attribute, the class.
        detail: conventions and files that the number depends on.
        each: the value of each image, where the number is their mean; for comparisons of the same images.
        groups: of these images, which come of one person or slide, and tell less than as many strangers: a number for each.
        command: that measured it.
        commit: of the code that measured it: the package's version and, in a checkout, git's commit.
        config: hash of the model's configuration.
    """

    suite: str
    model: str
    metric: str
    value: float
    n: int
    steps: int | None = None
    spread: float | None = None
    seed: int = 0
    seconds: float = 0.0
    subject: str | None = None
    detail: str | None = None
    each: list[float] | None = field(default=None, repr=False)
    groups: list[int] | None = field(default=None, repr=False)
    command: str = ""
    commit: str = ""
    config: str = ""


def spread_of(each: Float[Tensor, " n"]) -> float | None:
    """The standard deviation of several images' values; None of one's."""
    return float(each.std()) if len(each) > 1 else None


class Store:
    """Results on disk, one file a measurement, under a key that names everything that they depend on.

    Args:
        folder: where they are kept.
        depends: what results may depend on: digests of models, images, labels, by name.
        made: `command`, `commit` and `config` of what is measured now.
    """

    def __init__(self, folder: Path, depends: dict[str, str], made: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.depends = depends
        self.made = made or {}

    def get(self, key: dict[str, Any], measure: Callable[[], list[Result]], *, on: Sequence[str] = ()) -> list[Result]:
        """The results of this key: those of an earlier evaluation, or measured now.

        Args:
            key: what is measured, and how.
            measure: measures it.
            on: names of what the results depend on, beside the images; of these alone another state is measured anew.
        """
        whole = {name: self.depends.get(name) for name in ("images", *on)} | key
        text = json.dumps(whole, sort_keys=True)
        file = self.folder / f"{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.json"
        known = processes.broadcast(_read(file))
        if known is not None:
            return known
        started = time.monotonic()
        results = measure()
        made = self.made | {"seconds": round(time.monotonic() - started, 1)}
        rows = [asdict(r) | made | {"value": _short(r.value), "each": _rounded(r.each)} for r in results]
        if processes.is_first():
            write_text(file, json.dumps({"key": whole, "results": rows}) + "\n")
        return [Result(**row) for row in rows]


def _read(file: Path) -> list[Result] | None:
    """What was measured; None where that is not there, or damaged and to be measured anew."""
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        return [Result(**row) for row in json.loads(file.read_text(encoding="utf-8"))["results"]]
    return None


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _rounded(each: list[float] | None) -> list[float] | None:
    return None if each is None else [_short(v) for v in each]
