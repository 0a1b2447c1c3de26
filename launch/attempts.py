"""The record of a run's attempts: a folder each, so that a number is given once and a later one is seen by all.

RUN/attempts/0003/start.json   who, where, from which step; written by the supervisor
RUN/attempts/0003/rank_2.json  where a rank runs and, once it has left by itself, with which status
RUN/attempts/0003/end.json     how it ended; missing when Slurm took the attempt away

Standard library only: on a cluster with containers it runs under the host's python3.
"""

import json
import os
import re
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from data_shards import durable
from data_shards import history as history_of
from launch.folder import RunFolder
from launch.restarts import FINISHED, RUN_ME_AGAIN, Attempt
from trainer import checkpoint_names
from trainer.process import start_ticks
from trainer.verdict import convicted_pids

HEARTBEAT_SECONDS = 2.0
SILENT_SECONDS = 10 * HEARTBEAT_SECONDS
_NUMBER = re.compile(r"\d{4,9}")
_RANK = re.compile(r"rank_\d+\.json")


@dataclass(frozen=True)
class RankRecord:
    """Where a rank runs and how it left."""

    rank: int
    node: str
    pid: int
    status: int | None = None
    """Exit status; None while it runs, and for ever if it was killed."""
    seen_at: float = 0.0
    """Its last heartbeat, or when it left; Unix seconds."""
    start_ticks: int = 0
    """When its process began, which tells it from a later one of the same id."""

    @staticmethod
    def here(rank: int, node: str = "") -> "RankRecord":
        """Return the record of this process."""
        return RankRecord(rank, node or socket.gethostname(), os.getpid(), start_ticks=start_ticks(os.getpid()))


def begin(folder: RunFolder, *, job_id: str, nodes: Sequence[str]) -> Attempt:
    """Take the next number, which supersedes every earlier attempt, and record the start."""
    number = current(folder) + 1
    while True:
        try:
            attempt_folder(folder, number).mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
    attempt = Attempt(number, job_id, tuple(nodes), time.time(), newest_step(folder))
    _write(attempt_folder(folder, number) / "start.json", asdict(attempt))
    return attempt


def end(folder: RunFolder, number: int, status: int) -> Attempt:
    """Record how an attempt ended and return it."""
    attempt = replace(
        read(folder, number),
        ended_at=time.time(),
        status=status,
        last_step=newest_step(folder),
        failed_nodes=_blamed(folder, ranks(folder, number)),
    )
    try:
        _write(attempt_folder(folder, number) / "end.json", asdict(attempt))
    except OSError as error:  # what follows is decided all the same
        sys.stderr.write(f"perceiver: how attempt {number} ended is not recorded: {error.strerror}\n")
    return attempt


def history(folder: RunFolder) -> list[Attempt]:
    """Return all attempts, oldest first; one that Slurm took away has the step that the next one went on from."""
    attempts = [read(folder, number) for number in _numbers(folder)]
    for index, attempt in enumerate(attempts[:-1]):
        if attempt.ended_at is None:
            attempts[index] = replace(attempt, last_step=attempts[index + 1].first_step)
    return attempts


def read(folder: RunFolder, number: int) -> Attempt:
    """Return one attempt, as far as it was recorded."""
    for name in ("end.json", "start.json"):
        attempt = history_of.entry(Attempt, attempt_folder(folder, number) / name)
        if attempt is not None:
            return replace(attempt, number=number)
    return Attempt(number, "", (), 0.0, 0)


def current(folder: RunFolder) -> int:
    """Return the number of the newest attempt; 0 before the first."""
    return max(_numbers(folder), default=0)


def attempt_folder(folder: RunFolder, number: int) -> Path:
    """Return where an attempt is recorded."""
    return folder.attempts_folder / f"{number:04d}"


def write_rank(folder: RunFolder, number: int, record: RankRecord) -> Path:
    """Record where a rank runs or how it left, and return the file; touching it is the rank's heartbeat."""
    path = attempt_folder(folder, number) / f"rank_{record.rank}.json"
    _write(path, asdict(record))
    return path


def ranks(folder: RunFolder, number: int) -> list[RankRecord]:
    """Return what the ranks of an attempt recorded, by rank."""
    found = {path: history_of.entry(RankRecord, path) for path in _rank_paths(folder, number)}
    records = (replace(record, seen_at=_modified(path)) for path, record in found.items() if record is not None)
    return sorted(records, key=lambda record: record.rank)


def first_to_fail(records: Sequence[RankRecord]) -> tuple[str, ...]:
    """Return the nodes of the ranks that fell silent first, or else that of the rank that failed first.

    When a rank dies its peers soon fail with a broken connection, or wait for it until they are killed; they are not
    to blame.
    """
    killed = [record for record in records if record.status is None]
    if killed:
        silent_since = min(record.seen_at for record in killed) + HEARTBEAT_SECONDS
        return tuple(sorted({record.node for record in killed if record.seen_at <= silent_since}))
    failed = [record for record in records if record.status not in (None, FINISHED, RUN_ME_AGAIN)]
    return (min(failed, key=lambda record: record.seen_at).node,) if failed else ()


def _blamed(folder: RunFolder, records: Sequence[RankRecord]) -> tuple[str, ...]:
    """Return the nodes on which the failure of an attempt began; none where it may have been any of them."""
    # After a hang all ranks are ended without a word, the stopped one too: only the verdict tells it from the others.
    convicted = convicted_pids(folder.watch_folder)
    hung = {record.node for record in records if convicted.get(record.rank) == record.pid}
    nodes = hung or set(first_to_fail(records))
    everywhere = {record.node for record in records}
    return () if nodes == everywhere and len(nodes) > 1 else tuple(sorted(nodes))


def newest_step(folder: RunFolder) -> int:
    """Return the step of the newest complete checkpoint; 0 without one."""
    return checkpoint_names.newest_step(folder.checkpoints_folder)


def _numbers(folder: RunFolder) -> list[int]:
    # A folder without start.json is being made, or its maker died: its number is taken all the same.
    found = folder.attempts_folder.glob("[0-9]*")
    return sorted(int(path.name) for path in found if _NUMBER.fullmatch(path.name) and path.is_dir())


def _rank_paths(folder: RunFolder, number: int) -> list[Path]:
    found = attempt_folder(folder, number).glob("rank_*.json")
    return [path for path in found if _RANK.fullmatch(path.name)]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _write(path: Path, content: dict[str, Any]) -> None:
    durable.write(path, json.dumps(content) + "\n")
