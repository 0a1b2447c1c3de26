import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch.lifecycle import attempts
from launch.lifecycle.attempts import JOB, RankRecord
from launch.lifecycle.restart_policy import RestartConfig
from launch.lifecycle.run_folder import RunFolder
from launch.slurm import batch
from launch.slurm.batch import FIRST_PORT, NUM_PORTS, PROFILE_EXCLUDES, free_port, preferred_port
from trainer.health.run_lock import RunLock

JOBS = st.integers(min_value=1, max_value=10**7)


@settings(max_examples=200, deadline=None)
@given(job=JOBS, distance=st.integers(min_value=1, max_value=100), attempt=st.integers(min_value=1, max_value=100))
def test_jobs_that_are_submitted_near_each_other_prefer_other_ports(job: int, distance: int, attempt: int) -> None:
    assert preferred_port(job, attempt) != preferred_port(job + distance, attempt)
    assert preferred_port(job, attempt) != preferred_port(job, attempt + 1)
    assert FIRST_PORT <= preferred_port(job, attempt) < FIRST_PORT + NUM_PORTS


def test_a_port_in_use_is_passed_over() -> None:
    with socket.socket() as taken:
        port = free_port(preferred_port(1, 1))
        taken.bind(("", port))
        assert free_port(port) != port


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Put commands into the path that answer as Slurm does of a job; each call returns what was asked of scontrol."""
    asked = tmp_path / "asked"
    programs = tmp_path / "bin"
    programs.mkdir()

    def answer(
        *, nodes: str, excluded: str = "(null)", required: str = "(null)", features: str = "(null)"
    ) -> list[str]:
        job = f"JobId=7 Partition=main Features={features} ReqNodeList={required} ExcNodeList={excluded}"
        rows = "".join(f"{node}|idle|main*|fast\n" for node in nodes.split())
        scontrol = f'echo "$@" >> {asked}\ncase $1 in show) echo "{job}";; esac\n'
        for name, text in {"scontrol": scontrol, "sinfo": f"printf '{rows}'\n"}.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}")
            (programs / name).chmod(0o755)
        return asked.read_text().splitlines() if asked.exists() else []

    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name, value in {JOB: "7", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", PROFILE_EXCLUDES: "n9"}.items():
        monkeypatch.setenv(name, value)
    return answer


def fail(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, *, on: str) -> None:
    """Let an attempt on two nodes fail on one of them."""
    number = attempts.begin(folder, job_id="7", nodes=["n1", "n2"]).number
    for rank, node in enumerate(("n1", "n2")):
        attempts.write_rank(folder, number, RankRecord(rank, node, 5, 1 if node == on else 0))
    monkeypatch.setenv("PERCEIVER_ATTEMPT", str(number))
    with monkeypatch.context() as patch:
        patch.setattr(batch.signal, "signal", lambda *_: None)
        assert batch.end(folder, 1, RestartConfig(max_failures=9, exclude_after=2)) == 1


def checkpoint(folder: RunFolder, step: int) -> None:
    made = folder.checkpoints_folder / f"step_{step:08d}"
    made.mkdir()
    (made / "checkpoint.json").write_text(json.dumps({"state": {"step": step}, "files": {}}))


UPDATE = "update JobId=7 ExcNodeList="


def test_a_node_is_avoided_after_two_failures_and_comes_back_after_a_checkpoint(
    folder: RunFolder, slurm: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(nodes="n1 n2 n3 n4 n9", excluded="n9")
    fail(folder, monkeypatch, on="n2")
    assert not any(UPDATE in line for line in slurm(nodes="n1 n2 n3 n4 n9", excluded="n9"))
    fail(folder, monkeypatch, on="n2")
    assert slurm(nodes="n1 n2 n3 n4 n9", excluded="n9,n2")[-1] == f"{UPDATE}n9,n2"
    number = attempts.begin(folder, job_id="7", nodes=["n1", "n3"]).number
    checkpoint(folder, 5)
    attempts.end(folder, number, 85)
    fail(folder, monkeypatch, on="n1")
    assert slurm(nodes="n1")[-1] == f"{UPDATE}n9", "what began before the last progress still counts"


def test_a_job_that_excludes_no_node_excludes_only_the_bad_one(
    folder: RunFolder, slurm: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PROFILE_EXCLUDES)
    for _ in range(2):
        slurm(nodes="n1 n2 n3 n4")
        fail(folder, monkeypatch, on="n2")
    assert [line for line in slurm(nodes="") if UPDATE in line] == [f"{UPDATE}n2"]


@pytest.mark.parametrize(
    ("nodes", "required", "features"),
    [
        ("n1 n2", "(null)", "(null)"),
        # The third is the one that the profile excludes.
        ("n1 n2 n9", "(null)", "(null)"),
        ("n1 n2 n3 n4", "n1,n2", "(null)"),
        ("n1 n2 n3 n4", "(null)", "slow"),
        # Only Slurm knows what it means, and that the run has been on two nodes.
        ("n1 n2 n3 n4", "(null)", "[fast*2]"),
        ("", "(null)", "(null)"),
    ],
)
def test_a_job_is_kept_from_no_node_that_it_cannot_do_without(
    folder: RunFolder,
    slurm: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    nodes: str,
    required: str,
    features: str,
) -> None:
    for _ in range(2):
        slurm(nodes=nodes, excluded="n9", required=required, features=features)
        fail(folder, monkeypatch, on="n2")
    assert not any(UPDATE in line for line in slurm(nodes=nodes))
    assert "the job cannot do without n2; failures began there in attempts 1, 2" in capsys.readouterr().err


def test_a_job_does_not_begin_while_a_start_without_slurm_trains(
    folder: RunFolder,
    slurm: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    slurm(nodes="n1 n2")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    attempts.begin(folder, job_id="", nodes=["here"])
    with RunLock(folder.lock_path):
        assert batch.main(["begin", str(folder.path)]) == 2
    assert "trains in this run" in capsys.readouterr().err
    assert attempts.current(folder) == 1
    assert batch.main(["begin", str(folder.path)]) == 0


def test_a_job_of_slurm_is_held_up_by_no_claim_that_an_attempt_of_slurm_left(
    folder: RunFolder, slurm: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(nodes="n1 n2")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    attempts.begin(folder, job_id="6", nodes=["here"])
    with RunLock(folder.lock_path, job_id="6"):
        assert batch.main(["begin", str(folder.path)]) == 0


Commands = Callable[..., Callable[[str], list[str]]]
AWAY = "Unable to contact slurm controller (connect failure)"


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """The environment of a job of two nodes; call it to end an attempt as the batch script does."""
    variables = {JOB: "7", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-2]"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(PROFILE_EXCLUDES, raising=False)
    before = signal.getsignal(signal.SIGTERM)

    def end(folder: RunFolder, status: int, *limits: int, number: int = 0) -> int:
        monkeypatch.setenv("PERCEIVER_ATTEMPT", str(number or attempts.current(folder)))
        return batch.main(["end", str(folder.path), str(status), *map(str, limits or (9, 9, 2))])

    yield end
    signal.signal(signal.SIGTERM, before)


def requeues(asked: Callable[[str], list[str]]) -> int:
    return asked("scontrol").count("requeue 7")


def test_a_job_begins_an_attempt_and_tells_its_ranks_where_they_meet(
    folder: RunFolder, commands: Commands, job: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    commands(scontrol='[ "$*" = "show hostnames n[1-2]" ] && echo n1 && echo n2')
    checkpoint(folder, 5)
    assert batch.main(["begin", str(folder.path)]) == 0
    told = capsys.readouterr()
    shell = f'{told.out}\necho "$PERCEIVER_ATTEMPT $MASTER_ADDR $MASTER_PORT"'
    shown = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout.split()
    assert shown[:2] == ["1", "n1"]
    assert 0 <= int(shown[2]) - preferred_port(7, 1) < 100
    [attempt] = attempts.history(folder)
    assert (attempt.job_id, attempt.nodes, attempt.first_step) == ("7", ("n1", "n2"), 5)
    assert "attempt 1 of run: job 7 on n1 n2 from step 5" in told.err


@pytest.mark.parametrize(
    ("status", "limits", "is_stopped", "expected", "is_requeued"),
    [
        (0, (9, 9, 2), False, 0, False),
        (2, (9, 9, 2), False, 2, False),
        (1, (0, 2, 2), False, 1, True),
        (1, (9, 1, 2), False, 1, False),
        (85, (1, 0, 2), False, 85, True),
        # Where slurm.conf has RequeueExit=85 the job must not leave with it once it is over.
        (85, (0, 9, 2), False, 1, False),
        (85, (9, 9, 2), True, 0, False),
        (1, (9, 9, 2), True, 1, False),
    ],
)
def test_how_an_attempt_ended_is_recorded_and_decides_whether_the_job_comes_back(
    folder: RunFolder,
    commands: Commands,
    job: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    status: int,
    limits: tuple[int, int, int],
    is_stopped: bool,
    expected: int,
    is_requeued: bool,
) -> None:
    asked = commands(scontrol="", sinfo="")
    attempts.begin(folder, job_id="7", nodes=["n1", "n2"])
    if is_stopped:
        folder.stop_path.touch()
    assert job(folder, status, *limits) == expected
    assert attempts.history(folder)[0].status == status
    assert requeues(asked) == is_requeued
    assert capsys.readouterr().err.startswith(f"perceiver: attempt 1 ended with status {status}: ")
    assert asked("sinfo") == [], "of nodes Slurm is asked only where one is bad"


def test_an_attempt_that_was_superseded_leaves_the_job_to_its_successor(
    folder: RunFolder, commands: Commands, job: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = commands(scontrol="")
    for _ in range(2):
        attempts.begin(folder, job_id="7", nodes=["n1", "n2"])
    assert job(folder, 85, number=1) == 85
    assert capsys.readouterr().err == "perceiver: attempt 1 was superseded by attempt 2 and leaves the job to it\n"
    assert asked("scontrol") == []
    assert attempts.history(folder)[0].status is None


def test_the_requeue_ends_the_script_with_term_and_it_lives_on_for_what_follows(
    folder: RunFolder, commands: Commands, job: Callable[..., int]
) -> None:
    asked = commands(scontrol='if [ "$1" = requeue ]; then kill -TERM $PPID; fi')
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    attempts.begin(folder, job_id="7", nodes=["n1", "n2"])
    job(folder, 85)
    assert requeues(asked) == 1
    assert ended == []


def test_the_limits_are_those_of_one_submission(folder: RunFolder, commands: Commands, job: Callable[..., int]) -> None:
    asked = commands(scontrol="")
    for _ in range(2):
        number = attempts.begin(folder, job_id="6", nodes=["n1"]).number
        attempts.end(folder, number, 1)
    attempts.begin(folder, job_id="7", nodes=["n1"])
    job(folder, 1, 9, 2, 0)
    assert requeues(asked) == 1
    attempts.begin(folder, job_id="7", nodes=["n1"])
    job(folder, 1, 9, 2, 0)
    assert requeues(asked) == 1


def test_a_slurm_that_is_away_is_asked_again_until_it_answers(
    folder: RunFolder, commands: Commands, job: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    pause_while_a_command_ends = time.sleep
    monkeypatch.setattr(
        time, "sleep", lambda seconds: pauses.append(seconds) if seconds >= 1 else pause_while_a_command_ends(seconds)
    )
    refuse = f'echo "{AWAY}" >&2; exit 1'
    asked = commands(scontrol=f"if [ $(grep -c requeue scontrol.asked) -lt 3 ]; then {refuse}; fi")
    attempts.begin(folder, job_id="7", nodes=["n1"])
    job(folder, 85)
    assert requeues(asked) == 3
    assert len(pauses) == 2, "a controller that is busy is left in peace for a while"


@pytest.mark.parametrize(
    ("words", "patience", "most"),
    [
        (AWAY, 0, 1),
        ("slurm_update error: Job is pending execution", 300, 1),
        ("Requested operation is presently disabled", 300, 1),
        ("slurm_update error: Invalid job id specified", 300, 1),
        ("Access/permission denied", 300, 1),
    ],
)
def test_a_refusal_that_stays_and_a_slurm_that_stays_away_are_not_asked_for_ever(
    folder: RunFolder,
    commands: Commands,
    job: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    patience: float,
    most: int,
) -> None:
    def pause(_: float) -> None:
        assert requeues(asked) <= 3, "it is asked for ever"

    monkeypatch.setattr(time, "sleep", pause)
    monkeypatch.setattr(batch, "PATIENCE_SECONDS", patience)
    asked = commands(scontrol=f'echo "{words}" >&2; exit 1')
    attempts.begin(folder, job_id="7", nodes=["n1"])
    assert job(folder, 85) == 85
    assert 1 <= requeues(asked) <= most
    assert f"scontrol requeue 7: {words}" in capsys.readouterr().err


def test_nodes_that_the_user_excluded_stay_excluded_where_the_profile_is_not_known(
    folder: RunFolder, commands: Commands, job: Callable[..., int]
) -> None:
    rows = "".join(f"echo 'n{number}|idle|main*|'; " for number in range(1, 6))
    asked = commands(scontrol="echo 'JobId=7 Partition=main ExcNodeList=n5'", sinfo=rows)
    for _ in range(2):
        number = attempts.begin(folder, job_id="7", nodes=["n1", "n2"]).number
        for rank in (0, 1):
            attempts.write_rank(folder, number, RankRecord(rank, f"n{rank + 1}", 5, rank))
        job(folder, 1)
    assert asked("scontrol")[-1] == f"{UPDATE}n5,n2"


def test_a_job_of_which_slurm_tells_nothing_is_requeued_all_the_same(
    folder: RunFolder, commands: Commands, job: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"echo 'n{number}|idle|main*|'; " for number in range(1, 5))
    asked = commands(scontrol='[ "$1" != show ] && [ "$1" != update ]', sinfo=rows)
    for _ in range(2):
        number = attempts.begin(folder, job_id="7", nodes=["n1", "n2"]).number
        for rank in (0, 1):
            attempts.write_rank(folder, number, RankRecord(rank, f"n{rank + 1}", 5, rank))
        assert job(folder, 1) == 1
    assert requeues(asked) == 2
    # It has no words of its own.
    assert "scontrol update ExcNodeList=n2: exit status 1" in capsys.readouterr().err


def test_a_full_disk_ends_a_job_before_it_begins(
    folder: RunFolder, commands: Commands, job: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: RunFolder) -> None:
        raise ValueError("takes no more files")

    commands(scontrol="echo n1")
    monkeypatch.setattr(RunFolder, "check_space", full)
    assert batch.main(["begin", str(folder.path)]) == 2
    assert attempts.current(folder) == 0


def test_ports_are_tried_from_the_preferred_one_on_and_around_the_end() -> None:
    last = FIRST_PORT + NUM_PORTS - 1
    with socket.socket() as taken:
        # Where another process has it already, it is taken as well.
        with suppress(OSError):
            taken.bind(("", last))
        assert FIRST_PORT <= free_port(last) < FIRST_PORT + 100
    port = free_port(FIRST_PORT + 5)
    assert FIRST_PORT + 5 <= port < FIRST_PORT + 105


def test_a_node_on_which_every_port_is_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken(socket.socket):
        def bind(self, _: object) -> None:
            raise OSError("in use")

    monkeypatch.setattr(batch.socket, "socket", Taken)
    monkeypatch.setattr(batch, "NUM_PORTS", 3)
    with pytest.raises(OSError, match="no free port from 20000 to 20003"):
        free_port(20_001)


def test_a_slurm_that_does_not_answer_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(words: list[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(words, timeout)

    monkeypatch.setattr(batch.subprocess, "run", silent)
    assert batch._refusal("requeue", "7") == "no answer within 60 s"
    assert batch._fields("7") == {}
