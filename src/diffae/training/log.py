"""What a run writes down as it goes: metrics.jsonl, and TensorBoard."""

import contextlib
import json
import time
from pathlib import Path

from diffae.files import naming, write_text


class Log:
    """metrics.jsonl and TensorBoard; lines beyond the checkpoint that a run goes on from are dropped."""

    def __init__(self, out: Path, *, images: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._file = out / "metrics.jsonl"
        kept = [line for line in read_metrics(out) if line["images"] <= images]
        write_text(self._file, "".join(json.dumps(line) + "\n" for line in kept))
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=images + 1 if images else None)

    def write(self, images: int, values: dict[str, float]) -> None:
        line = {"images": images, "time": round(time.time(), 1)} | {k: float(f"{v:.6g}") for k, v in values.items()}
        with naming(self._file), self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, images)

    def close(self) -> None:
        self._board.close()


def read_metrics(out: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl; a last line that was cut short is left out."""
    file = out / "metrics.jsonl"
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines
