"""A start that nobody supervises owns the run as an attempt does: it is seen, supersedes the earlier, and ends."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threads import ThreadWorld, on_ranks

from launch.lifecycle import attempts
from launch.lifecycle.attempts import SILENT_SECONDS, RankRecord
from launch.lifecycle.claim import Claim
from launch.lifecycle.exit_status import BAD_INPUT, FAILED, RUN_ME_AGAIN
from launch.lifecycle.fence import NUMBER, SUPERVISOR, Fence, SupersededError
from launch.lifecycle.holder import holder, refuse_if_trained
from launch.lifecycle.run_folder import RunFolder
from trainer.distributed.node import Node
from trainer.distributed.world import World
from trainer.health import run_lock
from trainer.health.run_lock import RunLock

ALONE = World(0, 1, 0, torch.device("cpu"))
HERE = socket.gethostname()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunFolder]:
    for name in (NUMBER, SUPERVISOR, "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    folder = RunFolder(tmp_path / "run")
    folder.create()
    yield folder
    assert not run_lock.is_held(folder.lock_path)


def claim(folder: RunFolder, *, take_over: bool = False) -> Claim:
    return Claim(folder, ALONE, take_over=take_over)


def test_a_plain_start_supersedes_every_earlier_attempt_and_records_how_it_ends(folder: RunFolder) -> None:
    earlier = attempts.begin(folder, job_id="12", nodes=["n1"])
    with claim(folder) as mine:
        with pytest.raises(SupersededError):
            Fence.of(folder, {NUMBER: str(earlier.number)}).check()
        mine.fence.check()
        [record] = attempts.ranks(folder, 2)
        assert (record.pid, record.node, record.status) == (os.getpid(), HERE, None)
        assert f"process {os.getpid()} on {HERE}" in holder(folder)
        mine.leaves_with(RUN_ME_AGAIN)
    assert attempts.ranks(folder, 2)[0].status == RUN_ME_AGAIN
    assert (attempts.history(folder)[-1].job_id, attempts.history(folder)[-1].status) == ("", RUN_ME_AGAIN)
    assert holder(folder) == ""


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("bad input"), BAD_INPUT), (SystemExit(2), BAD_INPUT), (RuntimeError(), FAILED)]
)
def test_an_error_is_the_attempts_end(folder: RunFolder, error: BaseException, status: int) -> None:
    with pytest.raises(type(error)), claim(folder):
        raise error
    assert attempts.history(folder)[-1].status == status


def test_a_plain_start_is_ended_by_a_later_attempt(folder: RunFolder) -> None:
    with claim(folder) as mine:
        # Only what its ranks would do: the thread that ends the process looks every two seconds.
        attempts.attempt_folder(folder, 2).mkdir()
        with pytest.raises(SupersededError, match="0002 has begun"):
            mine.fence.check()
        attempts.attempt_folder(folder, 2).rmdir()


def test_a_refused_start_takes_away_neither_a_stop_nor_a_number(folder: RunFolder) -> None:
    with claim(folder):
        folder.stop_path.touch()
        with pytest.raises(ValueError, match="is training in this run"):
            claim(folder).__enter__()
        assert folder.stop_path.exists()
        assert attempts.current(folder) == 1
    with claim(folder):
        assert not folder.stop_path.exists(), "a start that holds the run begins without the stop of an earlier one"


def test_the_ranks_of_a_local_supervisor_leave_the_lock_to_it(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts.begin(folder, job_id="", nodes=[HERE])
    monkeypatch.setenv(NUMBER, "1")
    monkeypatch.setenv(SUPERVISOR, str(os.getppid()))
    folder.stop_path.touch()
    with RunLock(folder.lock_path), claim(folder) as mine:
        assert mine.fence.is_supervised
        assert attempts.current(folder) == 1
    # Its user may have asked for it since the attempt began; its supervisor records how that ends.
    assert folder.stop_path.exists()
    assert attempts.history(folder)[0].ended_at is None


def test_a_job_holds_the_lock_where_it_can_and_trains_without_it_where_it_cannot(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attempts.begin(folder, job_id="12", nodes=[HERE])
    monkeypatch.setenv(NUMBER, "1")
    monkeypatch.setenv("PERCEIVER_JOB", "12")
    folder.lock_path.write_text(json.dumps({"host": "a lost node", "pid": 1, "since": "then", "job_id": "12"}))
    with claim(folder):
        assert run_lock.claim_in(folder.lock_path)["job_id"] == "12"
        assert run_lock.is_held(folder.lock_path)
    with RunLock(folder.lock_path), claim(folder):
        assert "this attempt is the newest, and trains" in capsys.readouterr().err


def test_a_disk_that_takes_no_file_is_told_and_the_run_is_free_again(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(attempts, "begin", full)
        with pytest.raises(ValueError, match=r"run: cannot be written \(No space left on device\)"):
            claim(folder).__enter__()
    assert not run_lock.is_held(folder.lock_path)


def test_a_disk_that_is_full_at_the_end_changes_nothing_of_how_a_start_leaves(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, claim(folder):
        patch.setattr(attempts, "_write", full)
    assert "how attempt 1 ended is not recorded: No space left on device" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        attempts.begin(folder, job_id="", nodes=[HERE])
        patch.setattr(attempts, "_write", full)
        assert attempts.end(folder, 2, RUN_ME_AGAIN).status == RUN_ME_AGAIN, "what follows is decided by the answer"


def claimed_elsewhere(folder: RunFolder, *, seconds_ago: float, status: int | None = None, job_id: str = "") -> None:
    attempts.begin(folder, job_id=job_id, nodes=["elsewhere"])
    path = attempts.write_rank(folder, attempts.current(folder), RankRecord(0, "elsewhere", os.getpid(), status))
    os.utime(path, (time.time() - seconds_ago,) * 2)
    claim = {"host": "elsewhere", "pid": os.getpid(), "since": "noon", "job_id": job_id}
    folder.lock_path.write_text(json.dumps(claim))


def test_a_start_on_another_host_is_known_by_its_heartbeats(folder: RunFolder) -> None:
    claimed_elsewhere(folder, seconds_ago=0)
    assert holder(folder) == f"process {os.getpid()} on elsewhere, since noon"
    with pytest.raises(ValueError, match=r"process \d+ on elsewhere.*perceiver stop"):
        refuse_if_trained(folder)
    claimed_elsewhere(folder, seconds_ago=2 * SILENT_SECONDS)
    assert holder(folder) == ""
    claimed_elsewhere(folder, seconds_ago=0, status=0)
    refuse_if_trained(folder)


def test_a_claim_of_a_process_here_and_a_lock_are_each_enough_and_a_heartbeat_alone_is_not(folder: RunFolder) -> None:
    claimed_elsewhere(folder, seconds_ago=0)
    folder.lock_path.unlink()
    assert holder(folder) == ""
    folder.lock_path.write_text(json.dumps({"host": HERE, "pid": os.getpid(), "since": "noon"}))
    assert holder(folder) == f"process {os.getpid()} on {HERE}, since noon"
    with RunLock(folder.lock_path, take_over=True):
        folder.lock_path.write_text(json.dumps({"host": "a container", "pid": 1, "since": "noon"}))
        assert holder(folder) == "process 1 on a container, since noon"


def test_a_job_that_is_over_holds_up_no_submission_by_what_it_left(folder: RunFolder) -> None:
    claimed_elsewhere(folder, seconds_ago=0, job_id="12")
    refuse_if_trained(folder)


def test_a_start_that_takes_over_has_the_run_that_a_lost_host_held(folder: RunFolder) -> None:
    folder.lock_path.write_text(json.dumps({"host": "lost", "pid": 1, "since": "then"}))
    with pytest.raises(ValueError, match="--take-over"):
        claim(folder).__enter__()
    assert attempts.current(folder) == 0
    with claim(folder, take_over=True):
        assert run_lock.is_held(folder.lock_path)


def test_the_heartbeats_of_a_start_end_with_it(folder: RunFolder) -> None:
    before = set(threading.enumerate())
    with claim(folder):
        [watch] = set(threading.enumerate()) - before
    watch.join(30)
    assert not watch.is_alive()


def test_a_start_that_says_nothing_of_how_it_leaves_has_failed(folder: RunFolder) -> None:
    with claim(folder):
        pass
    assert (attempts.history(folder)[0].status, attempts.ranks(folder, 1)[0].status) == (FAILED, FAILED)
    with pytest.raises(SystemExit), claim(folder):
        raise SystemExit(1)
    assert attempts.history(folder)[1].status == FAILED


def test_only_the_first_rank_of_a_job_takes_its_lock(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts.begin(folder, job_id="12", nodes=[HERE])
    monkeypatch.setenv(NUMBER, "1")
    with Claim(folder, World(1, 2, 0, torch.device("cpu")), take_over=False):
        assert not run_lock.is_held(folder.lock_path)


@pytest.mark.parametrize("is_torchrun", [False, True])
def test_a_rank_of_torchrun_ends_with_it_and_one_that_was_typed_lives_on_its_own(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, is_torchrun: bool
) -> None:
    parents: list[int] = []
    monkeypatch.setattr("launch.lifecycle.claim.end_with_parent", parents.append)
    if is_torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    with claim(folder) as held:
        held.leaves_with(0)
    assert parents == [os.getppid()] * is_torchrun


def test_an_attempt_of_several_hosts_has_them_in_order_and_each_rank_its_record(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "gather", lambda *_: ["d", "b", "a", "c", "b"])
    with claim(folder) as held:
        held.leaves_with(0)
        [record] = attempts.ranks(folder, 1)
        assert (record.rank, record.pid, record.status) == (0, os.getpid(), None)
    assert attempts.history(folder)[0].nodes == ("a", "b", "c", "d")
    assert attempts.history(folder)[0].job_id == ""
    assert [each.status for each in attempts.ranks(folder, 1)] == [0]


def test_a_supervised_rank_shares_its_heartbeat_with_its_host_and_begins_no_attempt(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts.begin(folder, job_id="7", nodes=["n1"])
    monkeypatch.setenv(NUMBER, "1")
    monkeypatch.setenv("PERCEIVER_JOB", "7")
    nodes: list[Node] = []

    class Shared:
        share = staticmethod(nodes.append)

    with Claim(folder, ALONE, take_over=False, heartbeat=Shared()) as held:
        assert [node.ranks for node in nodes] == [(0,)]
        assert run_lock.claim_in(folder.lock_path)["job_id"] == "7"
        held.leaves_with(0)
    assert attempts.current(folder) == 1
    assert attempts.ranks(folder, 1) == []


def test_ranks_that_were_started_together_begin_one_attempt_and_each_records_how_it_left(folder: RunFolder) -> None:
    attempts.begin(folder, job_id="12", nodes=["n1"])
    folder.stop_path.touch()

    def start(world: ThreadWorld) -> Path | None:
        with Claim(folder, world, take_over=False) as held:
            # Each rank of this process would be its own; that of the others is theirs.
            world.barrier()
            assert [record.rank for record in attempts.ranks(folder, 2)] == [0, 1, 2]
            held.leaves_with((0, 85, 1)[world.rank])
            return held.fence.attempt

    assert on_ranks(3, start) == [attempts.attempt_folder(folder, 2)] * 3
    assert [record.status for record in attempts.ranks(folder, 2)] == [0, 85, 1]
    assert attempts.current(folder) == 2
    # By the first rank.
    assert attempts.history(folder)[1].status == 0
    assert not folder.stop_path.exists()
