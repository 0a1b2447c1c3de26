"""The quarantine: bad samples of a run, each written once by the rank that met it first. Too many end the run.

    a rank meets a bad sample:  known to it?  nothing
                                else          lock the file, read all lines, add one, sync, unlock; count those alike

Ranks share the file and send no messages: a bad sample is met by one rank, at a time when the others expect nothing.
"""

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from data_shards.files import history, typed_json
from data_shards.files.quoting import cut

_LISTED = 10
_LONGEST_REASON = 300


class BadBytesError(ValueError):
    """A sample whose bytes are not those that were written."""


@dataclass(frozen=True)
class BadSample:
    """A line of the list."""

    shard: str
    key: str
    split: str = ""
    """The split of the shard; its rate is that of its own samples. Empty in lists of older releases."""
    source: str = ""
    """Dataset, where several are mixed."""
    input: str = ""
    """The input that cannot be decoded; empty if the sample's bytes have changed."""
    reason: str = ""

    @property
    def counted_with(self) -> tuple[str, str, str]:
        """Split, source and input: whose samples it is one of."""
        return self.split, self.source, self.input


def one_line(error: BaseException) -> str:
    """Return what an error says, in one line of bounded length; an error that no decoder foresaw also says its kind."""
    words = " ".join(str(error).split())
    if not isinstance(error, ValueError):
        # A KeyError says no more than the key: without its kind the line would be a riddle.
        words = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return words if len(words) <= _LONGEST_REASON else f"{words[:_LONGEST_REASON]} ..."


def num_listed(path: Path) -> int:
    """Return how many bad samples are listed in a file."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


class Quarantine:
    """Bad samples by (shard, key) in a file of JSON lines that all ranks of a run and all its restarts share."""

    def __init__(self, path: Path, max_bad_rate: float, num_samples: Mapping[tuple[str, str, str], int]) -> None:
        """`num_samples` has, by (split, source, input), how many there are; input "" is all of them."""
        self._path = path
        self._max_bad_rate = max_bad_rate
        self._num_samples = num_samples
        # A bad sample comes back every epoch; the file is read only for one that is new to this rank.
        self._known: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["Quarantine"], tuple[Path, float, Mapping[tuple[str, str, str], int]]]:
        # Processes share the file alone.
        return Quarantine, (self._path, self._max_bad_rate, self._num_samples)

    def add(self, bad: BadSample) -> None:
        """List a bad sample unless it is; ValueError where its split then has too many of its source and input."""
        with self._lock:
            if (bad.shard, bad.key) not in self._known:
                listed = self._written(bad)
                self._known = {(other.shard, other.key) for other in listed}
                self._check_rate([other for other in listed if other.counted_with == bad.counted_with])

    def _written(self, bad: BadSample) -> list[BadSample]:
        """Return all that is listed, this sample among it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Opened each time: a lock belongs to an open file, so one that threads shared would let all of them in.
        with self._path.open("a+b") as file:
            _lock(file)
            file.seek(0)
            lines = file.read().splitlines(keepends=True)
            # A line without an end is what a killed process had time to write.
            whole = [line for line in lines if line.endswith(b"\n")]
            listed = [other for line in whole for other in _parsed(line)]
            # Another rank, or this run before its restart, may have listed it since this rank last read the file.
            if all((other.shard, other.key) != (bad.shard, bad.key) for other in listed):
                listed.append(bad)
                # Written behind half a line, the new line would be lost with it.
                file.truncate(sum(map(len, whole)))
                file.write(json.dumps(asdict(bad)).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        return listed

    def _check_rate(self, alike: Sequence[BadSample]) -> None:
        """Raise ValueError where these, of one split, source and input, are too many; at a rate of 1 none are."""
        # `perceiver predict` takes this rate: it answers all that can be read, however few.
        if self._max_bad_rate >= 1:
            return
        split, source, name = alike[0].counted_with
        total = self._num_samples.get((split, source, name), 0)
        if len(alike) > self._max_bad_rate * total:
            of_what = " of ".join(part for part in (name or "samples", source, f"split {split!r}") if part)
            # Sorted: ranks and threads list in any order, and the message should be the same on all of them.
            shown = sorted(alike, key=lambda bad: (bad.shard, bad.key))[:_LISTED]
            raise ValueError(
                f"{len(alike)} of {total} {of_what} are bad, above data.max_bad_rate = {self._max_bad_rate}; correct "
                f"or leave out what {self._path} lists, or raise the rate: "
                + "; ".join(f"{bad.shard}: {cut(bad.key)}: {bad.reason}" for bad in shown)
            )


def _parsed(line: bytes) -> Iterator[BadSample]:
    """Yield what a line lists: nothing where it is damaged, since a list of bad samples must not end the run."""
    try:
        yield typed_json.typed(BadSample, typed_json.parse_object(line))
    except ValueError as error:
        history.tell(f"a line of a list of bad samples cannot be read ({error}); skipped")


def _lock(file: BinaryIO) -> None:
    """Keep the other ranks out; on a disk without locks two that meet a bad sample at once may list one of the two."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
