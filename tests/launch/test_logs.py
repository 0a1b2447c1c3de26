"""Logs are printed by rank and attempt, and followed into the attempts that come."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.cli.main import app
from launch.lifecycle import attempts
from launch.lifecycle.run_folder import RunFolder
from launch.report import logs


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Two attempts of two ranks, each of which said who it is."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.config_path.write_text("version: 1\n")
    for attempt in (1, 2):
        attempts.begin(folder, job_id="", nodes=["n1"])
        for rank in (0, 1):
            folder.log_path(attempt, rank).write_text(f"rank {rank} in attempt {attempt}\n")
    return folder


@pytest.mark.parametrize(
    ("rank", "attempt", "expected"),
    [(0, 0, "rank 0 in attempt 2"), (1, 0, "rank 1 in attempt 2"), (1, 1, "rank 1 in attempt 1")],
)
def test_the_newest_attempt_of_rank_0_is_meant_unless_told_otherwise(
    folder: RunFolder, capfdbinary: pytest.CaptureFixture[bytes], rank: int, attempt: int, expected: str
) -> None:
    assert logs.main(folder.path, rank=rank, attempt=attempt, batch=False, follow=False) == 0
    assert capfdbinary.readouterr().out.decode() == f"{expected}\n"


def test_the_command_prints_what_it_is_asked_for(folder: RunFolder, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app(["logs", str(folder.path), "--rank", "1", "--attempt", "1"])
    assert ended.value.code == 0
    assert capfd.readouterr().out == "rank 1 in attempt 1\n"


def test_a_log_that_is_not_there_is_told_with_those_that_are(folder: RunFolder) -> None:
    with pytest.raises(ValueError, match=r"attempt_0002_rank_7.log: no such log") as refused:
        logs.main(folder.path, rank=7, attempt=0, batch=False, follow=False)
    there = [f"attempt_{attempt:04d}_rank_{rank}.log" for attempt in (1, 2) for rank in (0, 1)]
    assert f"; there are {', '.join(there)}; --batch shows" in str(refused.value)
    with pytest.raises(ValueError, match="never submitted"):
        logs.main(folder.path, rank=0, attempt=0, batch=True, follow=False)


def test_where_a_start_without_a_supervisor_printed_is_told(tmp_path: Path) -> None:
    alone = RunFolder(tmp_path / "alone")
    alone.create()
    alone.config_path.write_text("version: 1\n")
    attempts.begin(alone, job_id="", nodes=["n1"])
    with pytest.raises(ValueError, match=r"attempt_0001_rank_0.log: no such log; there are none: ") as refused:
        logs.main(alone.path, rank=0, attempt=0, batch=False, follow=False)
    assert "a start without --procs and without Slurm prints where it was typed, or into the file" in str(refused.value)


def sent(folder: RunFolder, job_id: str, job_name: str, log: str = "") -> None:
    """Submit a run as far as its record says, and let its batch script print something."""
    folder.create()
    folder.config_path.write_text("version: 1\n")
    fields = {"job_id": job_id, "job_name": job_name, "submitted_at": 0.0, "nodes": 1, "processes_per_node": 1}
    folder.submission_path.write_text(json.dumps(fields))
    if log:
        (folder.logs_folder / f"{log}_0_log.out").write_text(f"job {job_name}\n")


def batch_log(folder: RunFolder, capfdbinary: pytest.CaptureFixture[bytes]) -> str:
    assert logs.main(folder.path, rank=0, attempt=0, batch=True, follow=False) == 0
    return capfdbinary.readouterr().out.decode().strip()


def test_the_log_of_a_batch_script_is_of_this_run_whatever_ids_its_siblings_have(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    runs = [RunFolder(tmp_path / name) for name in ("a", "b", "c")]
    for run in runs:
        sent(run, "12", f"job-{run.path.name}", log="12" if run.path.name != "b" else "")
    assert batch_log(runs[2], capfdbinary) == "job job-c"
    with pytest.raises(ValueError, match="no log of a batch script"):
        batch_log(runs[1], capfdbinary)
    # Another cluster gave an array of another sweep here the same ids; this one's first run is the last by name.
    for number, run in enumerate(reversed(runs)):
        sent(run, f"12_{number}", "sweep-1")
    (runs[2].logs_folder / "12_2_0_log.out").write_text("job sweep-1\n")
    sent(RunFolder(tmp_path / "A"), "12_2", "sweep-2", log="12_2")
    assert batch_log(runs[0], capfdbinary) == "job sweep-1"


def test_following_goes_on_with_what_is_added_and_with_the_next_attempt(folder: RunFolder) -> None:
    words = [sys.executable, "-m", "launch", "logs", str(folder.path), "-f"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"rank 0 in attempt 2\n"
            with folder.log_path(2, 0).open("a") as file:
                file.write("a line more\n")
            assert process.stdout.readline() == b"a line more\n"
            attempts.begin(folder, job_id="", nodes=["n1"])
            folder.log_path(3, 0).write_text("rank 0 in attempt 3\n")
            assert process.stdout.readline() == b"rank 0 in attempt 3\n"
        finally:
            process.kill()


def test_every_option_of_the_command_reaches_what_it_prints(
    folder: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    sent(folder, "7", "job", log="7")
    for words, expected in (
        ([], "rank 0 in attempt 2"),
        (["--batch"], "job job"),
        (["--attempt", "1"], "rank 0 in attempt 1"),
    ):
        with pytest.raises(SystemExit) as ended:
            app(["logs", str(folder.path), *words])
        assert ended.value.code == 0
        assert capfd.readouterr().out == f"{expected}\n"


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [(1, ["rank 0 in attempt 1"]), (0, ["rank 0 in attempt 2", "a line more", "rank 0 in attempt 3"])],
)
def test_an_attempt_that_is_named_is_followed_alone_and_the_newest_into_the_next(
    folder: RunFolder, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, attempt: int,
    expected: list[str],
) -> None:  # fmt: skip
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            with folder.log_path(2, 0).open("a") as file:
                file.write("a line more\n")
        if len(pauses) == 2:
            attempts.begin(folder, job_id="", nodes=["n1"])
            folder.log_path(3, 0).write_text("rank 0 in attempt 3\n")
        if len(pauses) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(logs.time, "sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        logs.main(folder.path, rank=0, attempt=attempt, batch=False, follow=True)
    assert capfdbinary.readouterr().out.decode().splitlines() == expected
