import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launch.lifecycle import attempts
from launch.lifecycle.attempts import HEARTBEAT_SECONDS, RankRecord
from launch.lifecycle.fence import NUMBER, Fence, SupersededError
from launch.lifecycle.restart_policy import Attempt
from launch.lifecycle.run_folder import RunFolder
from trainer.health.verdict import Verdict, text

TOP = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def checkpoint(folder: RunFolder, step: int) -> None:
    """Leave what a commit leaves, as far as this record looks at it."""
    path = folder.checkpoints_folder / f"step_{step:08d}"
    path.mkdir()
    (path / "checkpoint.json").write_text(json.dumps({"state": {"step": step}, "files": {}}))


def rank(number: int, *, status: int | None, seen_at: float) -> RankRecord:
    return RankRecord(number, f"n{number}", 1, status, seen_at)


def test_numbers_are_given_once_even_to_attempts_that_left_no_record(folder: RunFolder) -> None:
    assert attempts.current(folder) == 0
    assert attempts.begin(folder, job_id="1", nodes=["n1"]).number == 1
    attempts.attempt_folder(folder, 2).mkdir()
    assert attempts.begin(folder, job_id="1", nodes=["n2"]).number == 3
    assert [attempt.number for attempt in attempts.history(folder)] == [1, 2, 3]


def test_a_number_that_another_start_has_just_taken_is_passed_over(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        attempts.attempt_folder(folder, number).mkdir(parents=True)
    # As it was before both of them.
    monkeypatch.setattr(attempts, "current", lambda _: 0)
    assert attempts.begin(folder, job_id="1", nodes=["n1"]).number == 3


def test_an_attempt_that_cannot_have_a_folder_is_not_tried_for_ever(folder: RunFolder) -> None:
    folder.attempts_folder.symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        attempts.begin(folder, job_id="1", nodes=["n1"])


def test_the_record_says_from_where_to_where_an_attempt_got(folder: RunFolder) -> None:
    attempts.begin(folder, job_id="1", nodes=["n1"])
    checkpoint(folder, 7)
    (folder.checkpoints_folder / ".step_00000009.tmp").mkdir()
    (folder.checkpoints_folder / "step_00000008").mkdir()
    (folder.checkpoints_folder / "step_00000007.bak").mkdir()
    ended = attempts.end(folder, 1, 85)
    assert (ended.first_step, ended.last_step, ended.status) == (0, 7, 85)
    assert attempts.history(folder) == [ended]


def test_an_attempt_that_slurm_took_away_got_where_the_next_one_began(folder: RunFolder) -> None:
    attempts.begin(folder, job_id="1", nodes=["n1"])
    checkpoint(folder, 7)
    attempts.begin(folder, job_id="1", nodes=["n1"])
    checkpoint(folder, 9)
    attempts.begin(folder, job_id="1", nodes=["n1"])
    first, second, last = attempts.history(folder)
    assert (first.last_step, first.status) == (7, None)
    assert (second.last_step, last.last_step) == (9, 0)


def test_who_fell_silent_first_is_to_blame_and_not_those_that_waited_for_it() -> None:
    silent = [rank(1, status=None, seen_at=100.0), rank(2, status=None, seen_at=100.0 + 2 * HEARTBEAT_SECONDS)]
    assert attempts.first_to_fail(silent) == ("n1",)
    assert attempts.first_to_fail([rank(1, status=1, seen_at=100.0), silent[1]]) == ("n2",)
    assert attempts.first_to_fail([rank(1, status=1, seen_at=101.0), rank(2, status=1, seen_at=100.0)]) == ("n2",)
    assert attempts.first_to_fail([rank(1, status=0, seen_at=100.0)]) == ()


def ended_by_the_watch(folder: RunFolder, culprits: dict[int, int]) -> tuple[str, ...]:
    """Return whom an attempt of three ranks on three nodes blames, all of which ended at once and without a word."""
    number = attempts.begin(folder, job_id="1", nodes=["n0", "n1", "n2"]).number
    for each in range(3):
        path = attempts.write_rank(folder, number, RankRecord(each, f"n{each}", 100 * number + each))
        os.utime(path, (1000.0, 1000.0))
    folder.watch_folder.mkdir(exist_ok=True)
    verdict = Verdict(tuple(culprits), tuple(culprits.values()), "rank 1: silent for 60 s", 0)
    (folder.watch_folder / "verdict.json").write_text(text(verdict))
    return attempts.end(folder, number, 1).failed_nodes


def test_after_a_hang_the_rank_of_the_verdict_is_to_blame_and_no_other_node(folder: RunFolder) -> None:
    assert ended_by_the_watch(folder, {1: 101}) == ("n1",)
    # The verdict of an earlier attempt says nothing of this one.
    assert ended_by_the_watch(folder, {1: 101}) == ()


def test_where_all_nodes_fail_at_once_none_is_to_blame(folder: RunFolder) -> None:
    assert ended_by_the_watch(folder, {0: 100, 1: 101, 2: 102}) == ()
    (folder.watch_folder / "verdict.json").write_bytes(b"\xff{")
    assert attempts.end(folder, 1, 1).failed_nodes == ()


def test_the_only_node_of_an_attempt_is_to_blame_for_its_failure(folder: RunFolder) -> None:
    attempts.begin(folder, job_id="1", nodes=["n1"])
    attempts.write_rank(folder, 1, RankRecord(0, "n1", 5))
    assert attempts.end(folder, 1, 137).failed_nodes == ("n1",)


def test_a_rank_record_remembers_its_last_heartbeat(folder: RunFolder) -> None:
    attempts.begin(folder, job_id="1", nodes=["n1"])
    path = attempts.write_rank(folder, 1, RankRecord(0, "n1", 5))
    os.utime(path, (1000.0, 1000.0))
    assert attempts.ranks(folder, 1) == [RankRecord(0, "n1", 5, seen_at=1000.0)]


def test_an_attempt_may_write_until_its_successor_begins(folder: RunFolder) -> None:
    attempts.begin(folder, job_id="1", nodes=["n1"])
    fence = Fence.of(folder, {NUMBER: "1"})
    fence.check()
    attempts.begin(folder, job_id="1", nodes=["n2"])
    with pytest.raises(SupersededError, match="0002 has begun"):
        fence.check()
    Fence.of(folder, {NUMBER: "2"}).check()


def test_a_process_that_nobody_supervises_has_no_fence(folder: RunFolder) -> None:
    attempts.begin(folder, job_id="1", nodes=["n1"])
    fence = Fence.of(folder, {})
    assert not fence.is_supervised
    fence.check()


def test_the_record_needs_the_standard_library_alone() -> None:
    """On a cluster with containers the host's python3 keeps it, which has no torch and no xxhash."""
    code = "import sys, launch.slurm.batch; print(*{name.partition('.')[0] for name in sys.modules})"
    run = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(TOP)!r}); {code}"]
    loaded = set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())
    # Without site-packages' own start-up files, which this interpreter may read.
    foreign = loaded - sys.stdlib_module_names - {"launch", "trainer", "data_shards"}
    assert not foreign & {"torch", "numpy", "xxhash", "yaml", "omegaconf", "typer", "rich", "deepspeed", "safetensors"}


def test_ranks_that_fell_silent_within_a_heartbeat_of_each_other_are_to_blame_alike() -> None:
    # They are seen only as often as that.
    together = [rank(1, status=None, seen_at=100.0), rank(2, status=None, seen_at=100.0 + HEARTBEAT_SECONDS)]
    assert attempts.first_to_fail(together) == ("n1", "n2")


def test_ranks_that_left_in_good_order_are_not_to_blame() -> None:
    assert attempts.first_to_fail([rank(1, status=85, seen_at=100.0), rank(2, status=1, seen_at=101.0)]) == ("n2",)
    assert attempts.first_to_fail([rank(1, status=85, seen_at=100.0), rank(2, status=0, seen_at=101.0)]) == ()
    assert attempts.first_to_fail([]) == ()


def test_records_are_those_of_ranks_in_their_order_and_of_this_process(folder: RunFolder) -> None:
    attempts.begin(folder, job_id="1", nodes=["n1"])
    for number in (10, 9, 2):
        attempts.write_rank(folder, 1, replace(RankRecord.here(number), status=0))
    (attempts.attempt_folder(folder, 1) / "rank_3.json.bak").write_text("{}")
    (attempts.attempt_folder(folder, 1) / "rank_4_old.json").write_text("{}")
    found = attempts.ranks(folder, 1)
    assert [record.rank for record in found] == [2, 9, 10]
    assert {(record.node, record.pid) for record in found} == {(socket.gethostname(), os.getpid())}
    assert all(record.start_ticks > 0 for record in found)
    assert RankRecord.here(0, "n7").node == "n7"


def test_folders_beside_the_attempts_are_none(folder: RunFolder) -> None:
    for name in ("0001", "0002.bak", "3", "notes"):
        (folder.attempts_folder / name).mkdir(parents=True)
    (folder.attempts_folder / "0004").touch()
    assert attempts.current(folder) == 1
    assert attempts.read(folder, 9) == Attempt(9, "", (), 0.0, 0, None, None, 0, ())
    assert not attempts.read(folder, 9).failed


def test_an_attempt_that_ended_keeps_its_step_whatever_the_next_one_began_with(folder: RunFolder) -> None:
    attempts.begin(folder, job_id="1", nodes=["n1"])
    checkpoint(folder, 7)
    attempts.end(folder, 1, 1)
    checkpoint(folder, 9)
    attempts.begin(folder, job_id="1", nodes=["n1"])
    first, last = attempts.history(folder)
    assert (first.last_step, first.ended_at is None) == (7, False)
    assert (last.first_step, last.ended_at) == (9, None)
    assert last.started_at > 1e9


def test_nodes_of_a_failure_are_named_once_and_in_order(folder: RunFolder) -> None:
    silent = [RankRecord(number, f"n{9 - number // 2}", 1, None, 100.0) for number in range(8)]
    assert attempts.first_to_fail(silent) == ("n6", "n7", "n8", "n9")
    number = attempts.begin(folder, job_id="1", nodes=["n5"]).number
    for each in [*silent, RankRecord(8, "n5", 1, 0)]:
        path = attempts.write_rank(folder, number, each)
        os.utime(path, (1000.0, 1000.0))
    assert attempts.end(folder, number, 1).failed_nodes == ("n6", "n7", "n8", "n9")


def test_two_nodes_that_fail_at_once_are_not_to_blame(folder: RunFolder) -> None:
    attempts.begin(folder, job_id="1", nodes=["n1", "n2"])
    for number in (1, 2):
        os.utime(attempts.write_rank(folder, 1, RankRecord(number, f"n{number}", 5)), (1000.0, 1000.0))
    assert attempts.end(folder, 1, 137).failed_nodes == ()


def test_an_attempt_lives_while_one_of_its_ranks_does(folder: RunFolder) -> None:
    attempts.begin(folder, job_id="1", nodes=["n1"])
    for number in (10, 9, 2):
        os.utime(attempts.write_rank(folder, 1, RankRecord(number, "n1", 5)), (1000.0, 1000.0))
    (attempts.attempt_folder(folder, 1) / "rank_4.json").write_text("{")
    assert [record.rank for record in attempts.not_seen(folder, 1)] == [2, 9, 10]
    assert not attempts.is_beating(folder, 1)
    attempts.write_rank(folder, 1, RankRecord(10, "n1", 5, status=0))
    assert not attempts.is_beating(folder, 1)
    attempts.write_rank(folder, 1, RankRecord(9, "n1", 5))
    assert [record.rank for record in attempts.not_seen(folder, 1)] == [2]
    assert attempts.is_beating(folder, 1)
