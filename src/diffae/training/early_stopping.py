"""Where the held-out loss turns: from there on a run learns its images by heart."""

from collections.abc import Iterable, Mapping

from diffae.config import TrainingConfig

WORSE = 1.02
"""How many times the lowest held-out loss is worth a word."""


FROM_HERE = "patience"
"""What a line of the log has from which on losses count, as the best model is kept from there on alone."""


class EarlyStopping:
    """The held-out losses of a run, and whether they have risen for so long that it should end.

    Args:
        config: of the training; its `patience` says how long that is.
        lines: what the run has written of earlier validations, by `images` and `validation/loss`.

    Attributes:
        best: images and loss of the lowest one, or None before the first.
        last: of the last one.
    """

    def __init__(self, config: TrainingConfig, lines: Iterable[Mapping[str, float]] = ()) -> None:
        self._patience = config.patience
        self.best: tuple[int, float] | None = None
        self.last: tuple[int, float] | None = None
        for line in lines:
            if FROM_HERE in line:
                self.best = self.last = None
            if "validation/loss" in line:
                self.record(int(line["images"]), line["validation/loss"])

    def record(self, images: int, loss: float) -> bool:
        """Takes note of a validation; whether it is the best so far, to the digits that the log keeps."""
        loss = float(f"{loss:.6g}")
        self.last = images, loss
        better = self.best is None or loss < self.best[1]
        if better:
            self.best = self.last
        return better

    @property
    def is_due(self) -> bool:
        """Whether the loss has not fallen for as long as the run has patience."""
        if self._patience is None or self.best is None or self.last is None:
            return False
        return self.last[0] - self.best[0] >= self._patience

    def note(self) -> str | None:
        """What became of the held-out loss, where a reader ought to know; None where it was still falling, or level."""
        if self.best is None or self.last is None or self.best == self.last:
            return None
        lowest, now = f"{self.best[1]:.4f} after {self.best[0]:,}", f"{self.last[1]:.4f} after {self.last[0]:,}"
        if self._patience is not None:
            kept = f"the model is that of {self.best[0]:,} images"
            if self.is_due:
                return f"Stopped: the held-out loss was lowest ({lowest} images) and has not fallen since ({now}); {kept}."
            return f"The held-out loss was lowest before the end ({lowest} images, {now}): {kept}."
        if self.last[1] <= WORSE * self.best[1]:
            return None
        return (
            f"The held-out loss was lowest ({lowest} images) and has risen since ({now}): the model learns its images by heart. "
            f"Train it for fewer (--images {self.best[0]}), or stop there (--training.patience)."
        )
