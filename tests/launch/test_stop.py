"""Stop and cancel reach the run that is meant, wherever it runs, and nobody else."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from launch.lifecycle import attempts
from launch.lifecycle.attempts import RankRecord
from launch.lifecycle.run_folder import RunFolder
from launch.supervise import stop
from trainer.health.process import start_ticks
from trainer.health.run_lock import RunLock

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
HERE = socket.gethostname()
Commands = Callable[..., Callable[[str], list[str]]]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.config_path.write_text(CONFIG.read_text())
    return folder


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that would live on."""
    with subprocess.Popen(["sleep", "600"]) as sleeping:
        yield sleeping
        sleeping.kill()


def in_queue(folder: RunFolder) -> None:
    sent = {"job_id": "7", "job_name": "run-1", "submitted_at": 0.0, "nodes": 1, "processes_per_node": 1}
    folder.submission_path.write_text(json.dumps(sent))


@pytest.mark.parametrize(
    ("state", "is_cancelled", "words"),
    [
        ("PENDING", True, "job 7 waited and is cancelled; `perceiver resume` submits the run again"),
        ("RUNNING", False, "the run saves after its step and ends; `perceiver resume` resumes it"),
        ("COMPLETING", False, "the run saves after its step and ends; `perceiver resume` resumes it"),
        ("FAILED", False, "the run is not running, and does not start again by itself until it is resumed"),
    ],
)
def test_a_stop_cancels_a_job_that_waits_and_lets_one_that_runs_save(
    folder: RunFolder,
    commands: Commands,
    capsys: pytest.CaptureFixture[str],
    state: str,
    is_cancelled: bool,
    words: str,
) -> None:
    asked = commands(squeue=f"echo '{state}|None|n1|run-1|(null)'", scancel="")
    in_queue(folder)
    assert stop.stop(folder.path) == 0
    assert capsys.readouterr().out.endswith(f": {words}\n")
    assert asked("scancel") == (["7"] if is_cancelled else [])
    assert folder.stop_path.exists()


@pytest.mark.parametrize(("state", "is_cancelled"), [("RUNNING", True), ("PENDING", True), ("COMPLETED", False)])
def test_cancel_ends_the_job_of_a_run_unless_it_is_over(
    folder: RunFolder, commands: Commands, capsys: pytest.CaptureFixture[str], state: str, is_cancelled: bool
) -> None:
    asked = commands(squeue=f"echo '{state}|None|n1|run-1|(null)'", scancel="")
    in_queue(folder)
    assert stop.cancel(folder.path) == 0
    assert asked("scancel") == (["7"] if is_cancelled else [])
    told = "job 7 is cancelled" if is_cancelled else "0 processes of the run on this machine were killed"
    assert told in capsys.readouterr().out
    # Nobody starts it again.
    assert folder.stop_path.exists()


def test_cancel_kills_the_processes_of_a_local_run(
    folder: RunFolder, process: "subprocess.Popen[bytes]", capsys: pytest.CaptureFixture[str]
) -> None:
    attempts.begin(folder, job_id="", nodes=[HERE])
    record = RankRecord(0, HERE, process.pid, start_ticks=start_ticks(process.pid))
    attempts.write_rank(folder, 1, record)
    assert stop.cancel(folder.path) == 0
    assert process.wait(30) == -signal.SIGKILL
    assert "1 process of the run on this machine was killed" in capsys.readouterr().out


@pytest.mark.parametrize("whose", ["another host", "a later process of the id", "has left", "an earlier attempt", "0"])
def test_cancel_kills_nobody_else(
    folder: RunFolder, process: "subprocess.Popen[bytes]", capsys: pytest.CaptureFixture[str], whose: str
) -> None:
    attempts.begin(folder, job_id="", nodes=[HERE])
    ticks = start_ticks(process.pid)
    record = {
        "another host": RankRecord(0, "elsewhere", process.pid, start_ticks=ticks),
        "a later process of the id": RankRecord(0, HERE, process.pid, start_ticks=ticks - 1),
        "has left": RankRecord(0, HERE, process.pid, 0, start_ticks=ticks),
        "an earlier attempt": RankRecord(0, HERE, process.pid, start_ticks=ticks),
        # Recorded by a release that did not know when a process began, and the id is another's by now.
        "0": RankRecord(0, HERE, process.pid),
    }[whose]
    attempts.write_rank(folder, 1, record)
    if whose == "an earlier attempt":
        attempts.begin(folder, job_id="", nodes=[HERE])
    stop.cancel(folder.path)
    assert "0 processes of the run on this machine were killed" in capsys.readouterr().out
    assert process.poll() is None


def test_a_process_of_an_earlier_release_is_known_by_the_run_in_its_command(folder: RunFolder) -> None:
    command = ["sh", "-c", "echo ready; read line", str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            # A process has no command line yet when its creation returns.
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            attempts.begin(folder, job_id="", nodes=[HERE])
            attempts.write_rank(folder, 1, RankRecord(0, HERE, process.pid))
            stop.cancel(folder.path)
            assert process.wait(30) == -signal.SIGKILL
        finally:
            process.kill()


def test_a_process_that_is_gone_already_is_no_error(folder: RunFolder) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    attempts.begin(folder, job_id="", nodes=[HERE])
    attempts.write_rank(folder, 1, RankRecord(0, HERE, gone.pid, start_ticks=1))
    attempts.write_rank(folder, 1, RankRecord(1, HERE, gone.pid))
    assert stop.cancel(folder.path) == 0
    assert os.path.lexists(folder.stop_path)


def test_a_stop_says_what_resumes_a_run_that_was_typed_and_that_a_finished_one_needs_none(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    attempts.begin(folder, job_id="", nodes=[HERE])
    with RunLock(folder.lock_path):
        assert stop.stop(folder.path) == 0
    told = capsys.readouterr().out
    assert told.endswith(": the run saves after its step and ends; the command that started it resumes it\n")
    folder.stop_path.unlink()
    save(folder.checkpoints_folder, 600, {"weight": torch.zeros(4)})
    attempts.write_rank(folder, 1, replace(RankRecord.here(0), status=0))
    attempts.end(folder, 1, 0)
    assert stop.stop(folder.path) == 0
    assert capsys.readouterr().out.endswith(": the run is finished; there is nothing to stop\n")
    assert not folder.stop_path.exists()
