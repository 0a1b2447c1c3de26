"""SinkGroup: all sinks of a run as one that never fails. Failures of a sink are counted, and the run continues."""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from data_shards.files.display import masked, printable
from data_shards.files.plugin_files import fault_in
from data_shards.files.quoting import counted
from trainer.sinks.meter import Record
from trainer.sinks.writers import Sink


class SinkGroup:
    """Passes every record to every sink. A sink that fails is reported once and retried with the next record."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)
        self._num_failures: Counter[int] = Counter()

    def write(self, kind: str, record: Record) -> None:
        """Hand out a record, the secrets of its words masked."""
        shown = {name: masked(value) if isinstance(value, str) else value for name, value in record.items()}
        self._each(lambda sink: sink.write(kind, shown))

    def draw(self, name: str, picture: np.ndarray, step: int) -> None:
        """Hand out a picture."""
        self._each(lambda sink: sink.draw(name, picture, step))

    def rewind(self, step: int) -> None:
        """Let every sink forget what came after this step."""
        self._each(lambda sink: sink.rewind(step))

    def close(self) -> None:
        """Close every sink, and say how often one failed."""
        self._each(lambda sink: sink.close())
        for number, count in self._num_failures.items():
            _tell(f"{_name(self._sinks[number])} failed {counted(count, 'time')} in this start")

    def _each(self, work: Callable[[Sink], None]) -> None:
        for number, sink in enumerate(self._sinks):
            # Whatever it is: a picture of the run is not worth the run.
            try:
                work(sink)
            except Exception as error:  # noqa: BLE001
                self._num_failures[number] += 1
                if self._num_failures[number] == 1:
                    _tell(
                        f"{_name(sink)} failed ({_words(error)}); the run continues, and the next record is tried again"
                    )


def _words(error: Exception) -> str:
    return fault_in(error) or f"{type(error).__name__}: {error}"


def _name(sink: Sink) -> str:
    return type(sink).__name__


def _tell(words: str) -> None:
    # A terminal that is gone fails here as it did in the sink.
    with suppress(OSError, ValueError):
        sys.stderr.write(f"perceiver: {printable(words)}\n")
