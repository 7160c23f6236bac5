"""What a run writes down as it goes: metrics.jsonl, and TensorBoard."""

import contextlib
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from diffae.runtime.files import naming_unwritten, write_text


class Log:
    """metrics.jsonl and TensorBoard; lines beyond the checkpoint that a run goes on from are dropped.

    Both are written at once: TensorBoard's own writer has a thread, which would tell of a full disk late and by a traceback.
    """

    def __init__(self, out: Path, *, images: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._file = out / "metrics.jsonl"
        lines = [line for line in read_metrics(out) if line["images"] <= images]
        write_text(self._file, "".join(json.dumps(line) + "\n" for line in lines))
        self._board = out / "tensorboard" / f"events.out.tfevents.{time.time():.6f}.{platform.node()}.{os.getpid()}"
        self._board.parent.mkdir(exist_ok=True)
        self._show(0, file_version="brain.Event:2")
        if images:
            self._show(images + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, images: int, values: dict[str, float]) -> None:
        line = {"images": images, "time": round(time.time(), 1)} | {k: float(f"{v:.6g}") for k, v in values.items()}
        with naming_unwritten(self._file), self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._show(images, summary=Summary(value=scalars))

    def _show(self, images: int, **content: Any) -> None:
        """Adds an event to TensorBoard's file."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        with naming_unwritten(self._board), self._board.open("ab") as file:
            RecordWriter(file).write(Event(wall_time=time.time(), step=images, **content).SerializeToString())


def read_metrics(out: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl; a last line that was cut short is left out."""
    file = out / "metrics.jsonl"
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines
