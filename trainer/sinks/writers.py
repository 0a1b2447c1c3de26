"""The sinks of every run: JSON lines, TensorBoard, a progress bar. After a resume no step occurs twice in them."""

import json
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from data_shards.files import atomic, history
from data_shards.files.display import printable
from trainer.sinks.meter import Record
from trainer.sinks.patient_file import PatientFile

# tensorboard and rich are imported where they are used: they open some 400 files, and only the first rank has sinks.
if TYPE_CHECKING:
    from rich.console import Console

_EVENTS = "events.out.tfevents"
_LINE_CHARACTERS = 300


class Sink(Protocol):
    """Takes records; only rank 0 has sinks."""

    def write(self, kind: str, record: Record) -> None:
        """Take a record of a kind: "train", "evaluation", "save" or "event"; its "step" says when."""
        ...

    def draw(self, name: str, picture: np.ndarray, step: int) -> None:
        """Take a picture, uint8 (H, W, 3)."""
        ...

    def rewind(self, step: int) -> None:
        """Forget what came after this step: the run went back to it."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class JsonLines:
    """One JSON object a line; lines of steps after the one that the run resumes at are dropped."""

    def __init__(self, path: Path, resumed_step: int) -> None:
        self._path = path
        self._file = _without_steps_after(path, resumed_step)

    def write(self, kind: str, record: Record) -> None:
        """Append a line."""
        self._file.write(json.dumps({"kind": kind, **record}).encode() + b"\n")

    def draw(self, name: str, picture: np.ndarray, step: int) -> None:
        """Leave it out."""

    def rewind(self, step: int) -> None:
        """Drop the lines of later steps."""
        self._file.close()
        self._file = _without_steps_after(self._path, step)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def append_event(path: Path, step: int, message: str) -> None:
    """Add an event to the JSON lines of a run that is not training."""
    with path.open("a+b") as file:
        file.seek(0)
        # Half a line at the end is of a process that was killed while it wrote.
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps({"kind": "event", "step": step, "message": message}).encode() + b"\n")


class TensorBoard:
    """Scalars under kind/name, and pictures; steps after the one that the run resumes at are purged.

    Not torch's SummaryWriter: it hands every scalar to a thread by itself, and a full disk ends that thread.
    """

    def __init__(self, folder: Path, resumed_step: int) -> None:
        self._folder = folder
        self._begin(resumed_step)

    def write(self, kind: str, record: Record) -> None:
        """Add every number of the record."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        numbers = {name: value for name, value in record.items() if name != "step" and isinstance(value, int | float)}
        values = [Summary.Value(tag=f"{kind}/{name}", simple_value=value) for name, value in numbers.items()]
        self._add(step=int(record["step"]), summary=Summary(value=values))

    def draw(self, name: str, picture: np.ndarray, step: int) -> None:
        """Add a picture, uint8 (H, W, 3)."""
        from torch.utils.tensorboard.summary import image

        drawn = image(name, picture, dataformats="HWC")  # type: ignore[no-untyped-call]
        self._add(step=step, summary=drawn)

    def rewind(self, step: int) -> None:
        """Purge later steps."""
        self._file.close()
        self._begin(step)

    def close(self) -> None:
        """Close the event file."""
        self._file.close()

    def _begin(self, resumed_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._folder.mkdir(parents=True, exist_ok=True)
        # Readers take the files in the order of their names, and one that is out of order hides what is behind it.
        microseconds = max(time.time_ns() // 1000, self._newest_microseconds() + 1)
        stamp = f"{microseconds // 10**6:010d}.{microseconds % 10**6:06d}"
        self._file = PatientFile(self._folder / f"{_EVENTS}.{stamp}.{socket.gethostname()}.{os.getpid()}")
        # The format wants its version in the first event of a file.
        self._add(file_version="brain.Event:2")
        # Readers then drop what earlier files have from this step on.
        self._add(step=resumed_step + 1, session_log=SessionLog(status=SessionLog.START))

    def _newest_microseconds(self) -> int:
        """Return the time in the name of the last file: a clock may have been set back since."""
        names = (path.name.removeprefix(f"{_EVENTS}.").split(".") for path in self._folder.glob(f"{_EVENTS}.*"))
        stamps = (f"{seconds}{micro:0<6}" for seconds, micro, *_ in (name for name in names if len(name) > 1))
        return max((int(stamp) for stamp in stamps if stamp.isdecimal()), default=0)

    def _add(self, **fields: object) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        RecordWriter(self._file).write(Event(wall_time=time.time(), **fields).SerializeToString())


class ProgressBar:
    """One line on a terminal: step, loss, samples/s, data wait, time left."""

    def __init__(self, total_steps: int, resumed_step: int, console: "Console | None" = None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
        )
        self._task = self._progress.add_task("", total=total_steps, completed=resumed_step)
        self._progress.start()

    def write(self, kind: str, record: Record) -> None:
        """Redraw the line; events and failed saves are printed above it."""
        if kind == "train":
            self._progress.update(self._task, completed=int(record["step"]), description=_summary(record))
        elif kind == "event" or record.get("error"):
            self._print(record, str(record.get("message") or record.get("error")))
        elif kind == "evaluation":
            self._print(record, str(record["summary"]))

    def draw(self, name: str, picture: np.ndarray, step: int) -> None:
        """Leave it out."""

    def rewind(self, step: int) -> None:
        """Move the bar back."""
        self._progress.update(self._task, completed=step)

    def close(self) -> None:
        """Leave the last line on the terminal."""
        self._progress.stop()

    def _print(self, record: Record, words: str) -> None:
        from rich.text import Text

        line = printable(f"step {record['step']}: {words}")
        if len(line) > _LINE_CHARACTERS:
            # A skipped step names all samples of its global batch; metrics.jsonl has the whole of it.
            line = f"{line[:_LINE_CHARACTERS]} ... ({len(line) - _LINE_CHARACTERS} more characters in metrics.jsonl)"
        # Not as a str: rich reads [/b] in a sample's key as markup of its own.
        console = self._progress.console
        # A file or a pipe has no width: grep is to find a message in one line.
        console.print(Text(line), soft_wrap=not console.is_terminal)


def _summary(record: Record) -> str:
    return (
        f"loss {record['loss']:.4f}  {record['samples_per_second']:.0f} samples/s  "
        f"data wait {record['data_wait_share']:.0%}"
    )


def _without_steps_after(path: Path, step: int) -> PatientFile:
    """Drop the lines of later steps, and a half line at the end, from a file; open it to append."""
    lines = history.split(path)
    # A last line without an end is of a process that was killed while it wrote. Damaged ones stay: nobody knows what
    # they are, and readers pass over them.
    kept = [line for line in lines if line.endswith(b"\n") and not _is_after(line, step)]
    try:
        if kept != lines:
            atomic.write(path, b"".join(kept))
        return PatientFile(path)
    except OSError as error:
        remedy = "correct its permissions or free space on its disk, then the same command resumes the run"
        raise ValueError(atomic.of_disk(error) or f"{path}: cannot be written ({error.strerror}); {remedy}") from error


def _is_after(line: bytes, step: int) -> bool:
    record = history.record_of(line)
    return record is not None and bool(record["step"] > step)
