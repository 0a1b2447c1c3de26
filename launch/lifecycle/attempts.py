"""The record of a run's attempts: one folder each, so a number is given once and all see a later one.

RUN/attempts/0003/start.json   who, where, from which step; written by the supervisor
RUN/attempts/0003/rank_2.json  where a rank runs and, once it has left by itself, with which status
RUN/attempts/0003/alive_0.json  when the ranks of a host were last heard, see launch/lifecycle/heartbeat.py
RUN/attempts/0003/end.json     how it ended; missing when Slurm took the attempt away
RUN/attempts/0003/time.json    where its time went, see trainer/sinks/attempt_time.py

Standard library only: on a cluster with containers it runs under the host's python3.

    begin           mkdir 0003, start.json        attempt 2 is superseded: its ranks see the folder and end
    ranks           rank_K.json, then alive_K.json every 1.5 s from one rank per host
    end             rank_K.json with a status, end.json
    killed, lost    nothing more: who fell silent first is seen by the times of the files
"""

import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from data_shards.files import atomic
from data_shards.files import history as history_of
from data_shards.files.typed_json import parse_object
from launch.lifecycle.exit_status import FINISHED, RUN_ME_AGAIN
from launch.lifecycle.restart_policy import Attempt
from launch.lifecycle.run_folder import RunFolder
from trainer.checkpoint import names
from trainer.health.process import start_ticks
from trainer.health.verdict import convicted_pids
from trainer.sinks import attempt_time
from trainer.sinks.attempt_time import TimeEntry

JOB = "PERCEIVER_JOB"
"""Variable with the job's id in words that name no other: by the SLURM_JOB_ID of its last task a whole array would be
requeued."""
HEARTBEAT_SECONDS = 2.0
SILENT_SECONDS = 10 * HEARTBEAT_SECONDS
_NUMBER = re.compile(r"\d{4,9}")
_RANK = re.compile(r"rank_(\d+)\.json")


@dataclass(frozen=True)
class RankRecord:
    """The record of a rank: where it runs and how it ended."""

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
    # Counted from what is there: a folder of a number never goes away.
    number = current(folder) + 1
    while True:
        try:
            # mkdir succeeds once, on a network disk too: two starts never get one number.
            attempt_folder(folder, number).mkdir(parents=True)
            break
        except FileExistsError:
            if not attempt_folder(folder, number).exists():
                raise  # not of this folder but of the one above it: a link to nothing
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
        # By the checkpoints on the disk, and not by what ranks say that they reached.
        last_step=newest_step(folder),
        failed_nodes=_blamed(folder, ranks(folder, number)),
    )
    try:
        _write(attempt_folder(folder, number) / "end.json", asdict(attempt))
    except OSError as error:  # what follows is decided all the same
        sys.stderr.write(f"perceiver: how attempt {number} ended is not recorded: {error.strerror}\n")
    return attempt


def history(folder: RunFolder, *, after: int = 0) -> list[Attempt]:
    """Return the attempts after a number, oldest first.

    One that Slurm took away has the step that the next one resumed from.
    """
    attempts = [read(folder, number) for number in _numbers(folder) if number > after]
    for index, attempt in enumerate(attempts[:-1]):
        if attempt.ended_at is None:
            attempts[index] = replace(attempt, last_step=attempts[index + 1].first_step)
    return attempts


def read(folder: RunFolder, number: int) -> Attempt:
    """Return one attempt, as far as it was recorded."""
    # The end repeats what the start said.
    for name in ("end.json", "start.json"):
        attempt = history_of.entry(Attempt, attempt_folder(folder, number) / name)
        if attempt is not None:
            # By the folder's name: the record may be a copy, or damaged.
            return replace(attempt, number=number)
    return Attempt(number, "", (), 0.0, 0)


def current(folder: RunFolder) -> int:
    """Return the number of the newest attempt; 0 before the first."""
    # The greatest, and not the count: a damaged history may have gaps.
    return max(_numbers(folder), default=0)


def attempt_folder(folder: RunFolder, number: int) -> Path:
    """Return where an attempt is recorded."""
    return folder.attempts_folder / f"{number:04d}"


def write_rank(folder: RunFolder, number: int, record: RankRecord) -> Path:
    """Record where a rank runs or how it left, and return the file; touching it is the rank's heartbeat."""
    path = _rank_path(folder, number, record.rank)
    _write(path, asdict(record))
    return path


def ranks(folder: RunFolder, number: int) -> list[RankRecord]:
    """Return what the ranks of an attempt recorded, by rank."""
    return list(each_rank(folder, number))


def each_rank(folder: RunFolder, number: int) -> Iterator[RankRecord]:
    """Yield what the ranks of an attempt recorded, by rank; each is read when it is asked for."""
    touched = _touched(folder, number)
    heard = _seen(folder, number, touched)
    for rank in sorted(touched):
        if record := _read_rank(folder, number, rank):
            # Of a rank that has left, its own record says when: who failed first is found by that, to fractions of a
            # second.
            yield replace(record, seen_at=(heard if record.status is None else touched)[rank])


def not_seen(folder: RunFolder, number: int) -> list[RankRecord]:
    """Return the records of the ranks of an attempt that gave no heartbeat lately, or have left."""
    since = time.time() - SILENT_SECONDS
    silent = sorted(
        rank for rank, seen_at in _seen(folder, number, _touched(folder, number)).items() if seen_at < since
    )
    return [record for rank in silent if (record := _read_rank(folder, number, rank))]


def is_beating(folder: RunFolder, number: int) -> bool:
    """Return whether a rank of an attempt gave a heartbeat lately and has not left."""
    since = time.time() - SILENT_SECONDS
    # Read one by one: of however many ranks, the first that lives is enough.
    lately = (
        _read_rank(folder, number, rank)
        for rank, seen_at in _seen(folder, number, _touched(folder, number)).items()
        if seen_at >= since
    )
    return any(record is not None and record.status is None for record in lately)


def first_to_fail(records: Sequence[RankRecord]) -> tuple[str, ...]:
    """Return the nodes of the ranks that fell silent first, or else that of the rank that failed first.

    When a rank dies its peers soon fail with a broken connection, or wait for it until they are killed; they are not
    to blame.
    """
    killed = [record for record in records if record.status is None]
    if killed:
        # Within one heartbeat nobody can say which of them was first.
        silent_since = min(record.seen_at for record in killed) + HEARTBEAT_SECONDS
        return tuple(sorted({record.node for record in killed if record.seen_at <= silent_since}))
    failed = [record for record in records if record.status not in (None, FINISHED, RUN_ME_AGAIN)]
    return (min(failed, key=lambda record: record.seen_at).node,) if failed else ()


def _blamed(folder: RunFolder, records: Sequence[RankRecord]) -> tuple[str, ...]:
    """Return the nodes on which the failure of an attempt began; none where it may have been any of them."""
    # After a hang all ranks are ended without a word, the stopped one too: only the verdict tells it from the others.
    convicted = convicted_pids(folder.watch_folder)
    # By the process too: the verdict may still be that of an earlier attempt.
    hung = {record.node for record in records if convicted.get(record.rank) == record.pid}
    nodes = hung or set(first_to_fail(records))
    everywhere = {record.node for record in records}
    # All at once, as when the network or the shared disk fails, is the fault of none of them.
    return () if nodes == everywhere and len(nodes) > 1 else tuple(sorted(nodes))


def times(folder: RunFolder) -> list[TimeEntry]:
    """Return where the time of each attempt went, oldest first."""
    return attempt_time.read([attempt_folder(folder, number) for number in _numbers(folder)])


def newest_step(folder: RunFolder) -> int:
    """Return the step of the newest complete checkpoint; 0 without one."""
    return names.newest_step(folder.checkpoints_folder)


def _numbers(folder: RunFolder) -> list[int]:
    # A folder without start.json is being made, or its maker died: its number is taken all the same.
    with suppress(FileNotFoundError), os.scandir(folder.attempts_folder) as found:
        return sorted(int(each.name) for each in found if _NUMBER.fullmatch(each.name) and each.is_dir())
    return []


def _touched(folder: RunFolder, number: int) -> dict[int, float]:
    """Return when the file of each rank of an attempt was written or touched: one look a rank, and no read."""
    found = {}
    with suppress(FileNotFoundError), os.scandir(attempt_folder(folder, number)) as files:
        for file in files:
            if name := _RANK.fullmatch(file.name):
                with suppress(OSError):
                    found[int(name[1])] = file.stat().st_mtime
    return found


def _seen(folder: RunFolder, number: int, touched: Mapping[int, float]) -> dict[int, float]:
    """Return when each rank was last seen to live: when its file was touched, or what its host told later."""
    seen = dict(touched)
    for path in attempt_folder(folder, number).glob("alive_*.json"):
        # Half a file is one that is being written: the next one comes in two seconds.
        with suppress(OSError, TypeError, ValueError):
            told_at, ages = path.stat().st_mtime, parse_object(path.read_bytes())
            heard = {int(rank): told_at - float(age) for rank, age in ages.items()}
            seen |= {rank: max(seen[rank], at) for rank, at in heard.items() if rank in seen}
    return seen


def _read_rank(folder: RunFolder, number: int, rank: int) -> RankRecord | None:
    return history_of.entry(RankRecord, _rank_path(folder, number, rank))


def _rank_path(folder: RunFolder, number: int, rank: int) -> Path:
    return attempt_folder(folder, number) / f"rank_{rank}.json"


def _write(path: Path, content: dict[str, Any]) -> None:
    atomic.write(path, json.dumps(content) + "\n")
