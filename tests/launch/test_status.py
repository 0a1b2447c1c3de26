import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import rewrite, save

from launch.lifecycle import attempts
from launch.lifecycle.attempts import RankRecord
from launch.lifecycle.restart_policy import Attempt
from launch.lifecycle.run_folder import RunFolder
from launch.lifecycle.scheduler import Job
from launch.report import status
from launch.schedulers import submission
from launch.supervise import stop
from trainer.checkpoint.names import MANIFEST, name_of
from trainer.health.run_lock import RunLock
from trainer.run_state import Improvement, RunState
from trainer.sinks.attempt_time import TimeEntry

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
Commands = Callable[..., Callable[[str], list[str]]]
ENDED = Attempt(1, "7", ("n1",), started_at=100.0, first_step=0, ended_at=200.0, status=85, last_step=40)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def test_the_queue_knows_best_and_says_why_a_run_waits(folder: RunFolder) -> None:
    job = Job("PENDING", "Resources", "")
    assert status.state_of(folder, [ENDED], job, is_finished=False) == ("pending", "Resources")
    assert status.state_of(folder, [ENDED], job, is_finished=True) == ("pending", "Resources")


def test_a_run_without_a_job_is_what_its_folder_says(folder: RunFolder) -> None:
    failed = replace(ENDED, status=1, failed_nodes=("n1",))
    assert status.state_of(folder, [ENDED], None, is_finished=True)[0] == "finished"
    assert status.state_of(folder, [ENDED], None, is_finished=False)[0] == "unfinished"
    assert status.state_of(folder, [failed], None, is_finished=False) == ("failed", "status 1 on n1; see the log")
    folder.stop_path.touch()
    assert status.state_of(folder, [ENDED], None, is_finished=False)[0] == "stopped"


def test_a_job_that_is_over_does_not_hide_that_the_run_is_finished(folder: RunFolder) -> None:
    assert status.state_of(folder, [ENDED], Job("COMPLETED", "", "n1"), is_finished=True)[0] == "finished"


def test_a_slurm_that_does_not_answer_has_not_forgotten_a_job(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sent = {"job_id": "7", "job_name": "run", "submitted_at": 0.0, "nodes": 1, "processes_per_node": 1}
    folder.submission_path.write_text(json.dumps(sent))
    why = "squeue: Unable to contact slurm controller"
    assert status.state_of(folder, [ENDED], submission.job(folder), is_finished=False) == ("unknown", why)
    assert status.state_of(folder, [ENDED], submission.job(folder), is_finished=True)[0] == "finished"
    with pytest.raises(ValueError, match=r"job 7 of this run is UNKNOWN \(squeue: Unable"):
        submission.refuse_if_queued(folder)
    squeue.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2\nexit 1\n")
    assert submission.job(folder) is None


def test_a_rank_without_a_heartbeat_is_named(folder: RunFolder) -> None:
    attempt = attempts.begin(folder, job_id="7", nodes=["n1"])
    attempts.write_rank(folder, 1, RankRecord(0, "n1", 5))
    assert status.state_of(folder, [attempt], None, is_finished=False) == ("running", None)
    path = attempts.write_rank(folder, 1, RankRecord(3, "n2", 5))
    os.utime(path, (time.time() - 60, time.time() - 60))
    job = Job("RUNNING", "", "n[1-2]")
    assert status.state_of(folder, [attempt], job, is_finished=False) == ("running", "no heartbeat of rank 3 on n2")


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run in ./runs whose metrics say 5 of 600 steps."""
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "runs" / "digits")
    folder.create()
    folder.config_path.write_text(CONFIG.read_text())
    folder.metrics_path.write_text(
        '{"kind": "train", "step": 5, "loss": 1.5, "step_seconds": 0.5, "samples_per_second": 128.0}\n'
    )
    return folder


def test_without_names_the_runs_here_are_shown(
    digits: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert status.main([], as_json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["run"], shown["step"], shown["steps"], shown["loss"]) == (str(digits.path), 5, 600, 1.5)
    assert (shown["newest_checkpoint"], shown["damaged"], shown["goodput"]) == (None, None, None)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ValueError, match="holds no run; name the run folders"):
        status.main([])


def test_a_run_that_nobody_supervises_is_known_by_its_lock(digits: RunFolder) -> None:
    claim = {"host": socket.gethostname(), "pid": os.getpid(), "since": "now"}
    digits.lock_path.write_text(json.dumps(claim))
    assert status.read(digits)["state"] == "running"
    assert f"process {os.getpid()} on" in str(status.read(digits)["reason"])
    gone = subprocess.Popen(["true"])
    gone.wait()
    digits.lock_path.write_text(json.dumps({**claim, "pid": gone.pid}))
    assert status.read(digits)["state"] == "unfinished"


def test_the_nodes_that_a_run_avoids_are_told_with_the_reason(
    digits: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        attempts.begin(digits, job_id="7", nodes=["n1", "n2"])
        for rank, ended in enumerate((0, 1)):
            attempts.write_rank(digits, number, RankRecord(rank, f"n{rank + 1}", 5, ended))
        attempts.end(digits, number, 1)
    assert status.read(digits)["excluded"] == "n2: failures began there in attempts 1, 2"
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho 'PENDING|BadConstraints||digits-1|n2,n9'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sent = {"job_id": "7", "job_name": "digits-1", "submitted_at": 0.0, "nodes": 2, "processes_per_node": 1}
    digits.submission_path.write_text(json.dumps(sent))
    state = status.read(digits)
    assert (state["state"], state["reason"], state["nodes"]) == ("pending", "BadConstraints", None)
    assert state["excluded"] == "n2: failures began there in attempts 1, 2; n9: by the profile or its user"


def finish(folder: RunFolder, step: int = 600) -> None:
    folder.metrics_path.write_text('{"kind": "train", "step": 600, "loss": 0.5}\n')
    checkpoint = folder.checkpoints_folder / name_of(step)
    checkpoint.mkdir()
    (checkpoint / MANIFEST).write_text(json.dumps({"state": {"step": step}, "files": {}}))


def test_watching_ends_when_the_runs_have(digits: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    finish(digits)
    assert status.main([digits.path], watch=True) == 0
    assert " finished" in capsys.readouterr().out


def test_a_run_whose_last_checkpoint_is_missing_is_not_finished(digits: RunFolder) -> None:
    finish(digits, step=550)
    state = status.read(digits)
    assert (state["state"], state["newest_checkpoint"]) == ("unfinished", "step_00000550")
    assert "the newest complete checkpoint is of step 550" in str(state["reason"])
    (digits.checkpoints_folder / name_of(600)).mkdir()
    assert status.read(digits)["state"] == "unfinished", "a checkpoint without its manifest was taken for complete"
    (digits.checkpoints_folder / name_of(600) / MANIFEST).write_text("{}")
    assert status.read(digits)["state"] == "unfinished", "a manifest that says nothing was taken for one"


@pytest.mark.parametrize("damaged", ["manifest", "weight", "exp_avg_sq", "step"])
def test_of_a_run_that_nobody_trains_the_newest_checkpoint_is_the_one_that_a_resume_takes(
    digits: RunFolder, damaged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (550, 600):
        save(digits.checkpoints_folder, step, {"a": torch.arange(6.0)})
    newest = digits.checkpoints_folder / name_of(600)
    assert status.main([digits.path], as_json=True) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["state"], state["reason"]) == ("finished", None)
    if damaged == "step":
        rewrite(newest, "engine.steps", "many")
    else:
        path = newest / MANIFEST if damaged == "manifest" else next(newest.glob(f"{damaged}-*"))
        content = path.read_bytes()
        path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    assert status.main([digits.path], as_json=True) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["state"], state["newest_checkpoint"]) == ("unfinished", "step_00000550")
    assert str(newest) in state["damaged"]
    with RunLock(digits.lock_path):
        assert status.main([digits.path], as_json=True) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["state"], state["damaged"]) == ("running", None)
    # Of many runs no checkpoint is read whole.
    assert status.read(digits)["damaged"] is None
    assert status.main([digits.path]) == 0
    assert "step_00000550" in capsys.readouterr().out


def test_what_a_killed_start_left_hidden_is_no_run(digits: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    left = RunFolder(digits.path.with_name(".perceiver-here-1.new"))
    left.create()
    left.config_path.write_text(digits.config_path.read_text())
    assert status.main([], as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["run"] == str(digits.path)


def test_a_run_that_its_evaluations_ended_is_finished_and_says_so(digits: RunFolder) -> None:
    state = RunState(step=5, improvement=Improvement(0.5, 3))
    save(digits.checkpoints_folder, 5, {"a": torch.zeros(1)}, state=state)
    digits.metrics_path.write_text('{"kind": "train", "step": 5, "step_seconds": 2.0}\n')
    found = status.read(digits)
    assert (found["state"], found["eta_seconds"]) == ("unfinished", 1190)
    digits.config_path.write_text(CONFIG.read_text().replace("\ntrain:\n", "\ntrain:\n  patience: 3\n"))
    found = status.read(digits)
    assert (found["state"], found["eta_seconds"]) == ("finished", 0)
    assert found["reason"] == "its evaluations ended it early (train.patience=3)"


def test_stop_says_whether_there_is_anything_to_stop(digits: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    stop.stop(digits.path)
    assert "is not running" in capsys.readouterr().out
    assert digits.stop_path.exists()
    digits.stop_path.unlink()
    digits.lock_path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": "now"}))
    stop.stop(digits.path)
    assert "saves after its step" in capsys.readouterr().out
    digits.stop_path.unlink()
    digits.lock_path.write_text("")
    finish(digits)
    stop.stop(digits.path)
    assert "finished" in capsys.readouterr().out
    assert not digits.stop_path.exists()


def test_the_folder_of_a_sweep_stands_for_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [RunFolder(tmp_path / "runs" / "rates" / name) for name in ("a", "b [red]")]
    for run in runs:
        run.create()
        run.config_path.write_text(CONFIG.read_text())
    (tmp_path / "runs" / "rates" / "notes").mkdir()
    assert status.main([tmp_path / "runs" / "rates"], as_json=True) == 0
    assert [state["run"] for state in json.loads(capsys.readouterr().out)] == [str(run.path) for run in runs]
    monkeypatch.chdir(tmp_path)
    assert status.main([]) == 0
    # The terminal is narrow, so that names are folded.
    assert "[red]" in capsys.readouterr().out.replace("\n", "").replace(" ", "")
    assert stop.stop(tmp_path / "runs" / "rates") == 0
    assert [run.stop_path.exists() for run in runs] == [True, True]
    with pytest.raises(ValueError, match="holds no run"):
        status.main([tmp_path])


def silent(folder: RunFolder, rank: int = 3) -> Attempt:
    """Return an attempt of which a rank gave its last heartbeat a minute ago."""
    attempt = attempts.begin(folder, job_id="", nodes=["n1"])
    path = attempts.write_rank(folder, attempt.number, RankRecord(rank, "n2", 5))
    os.utime(path, (time.time() - 60, time.time() - 60))
    return attempt


def test_a_run_whose_ranks_are_silent_and_whose_job_is_gone_does_not_run(folder: RunFolder) -> None:
    killed = "was killed or cut off; the same command resumes it"
    assert status.state_of(folder, [silent(folder)], None, is_finished=False) == ("unfinished", killed)
    over = Job("NODE_FAIL", "", "n1")
    attempts.write_rank(folder, 1, RankRecord(3, "n2", 5))
    attempts.write_rank(folder, 1, RankRecord(4, socket.gethostname(), 5))
    assert status.state_of(folder, attempts.history(folder), over, is_finished=False) == ("unfinished", "node_fail")
    assert status.state_of(folder, attempts.history(folder), None, is_finished=False) == ("running", None)


def test_a_start_of_this_host_that_was_killed_does_not_run_though_its_heartbeat_is_fresh(folder: RunFolder) -> None:
    attempts.begin(folder, job_id="", nodes=[socket.gethostname()])
    attempts.write_rank(folder, 1, RankRecord(0, socket.gethostname(), 5))
    killed = "was killed or cut off; the same command resumes it"
    assert status.state_of(folder, attempts.history(folder), None, is_finished=False) == ("unfinished", killed)
    attempts.end(folder, 1, 85)
    stopped = "stopped after a save; the same command resumes it"
    assert status.state_of(folder, attempts.history(folder), None, is_finished=False) == ("unfinished", stopped)


def test_ranks_that_have_left_are_not_missed_and_all_that_are_silent_are_named(folder: RunFolder) -> None:
    attempt, job = silent(folder), Job("RUNNING", "", "n[1-2]")
    path = attempts.write_rank(folder, 1, RankRecord(4, "n5", 5, status=0))
    os.utime(path, (time.time() - 60, time.time() - 60))
    assert status.state_of(folder, [attempt], job, is_finished=False)[1] == "no heartbeat of rank 3 on n2"
    path = attempts.write_rank(folder, 1, RankRecord(5, "n5", 5))
    os.utime(path, (time.time() - 60, time.time() - 60))
    told = status.state_of(folder, [attempt], job, is_finished=False)[1]
    assert told == "no heartbeat of rank 3 on n2, rank 5 on n5"
    # Slurm's own word goes first.
    waits = Job("PENDING", "BeginTime", "")
    assert status.state_of(folder, [attempt], waits, is_finished=False) == ("pending", "BeginTime")


def test_a_failure_without_a_culprit_is_told(folder: RunFolder) -> None:
    failed = replace(ENDED, status=137)
    told = status.state_of(folder, [failed], None, is_finished=False)
    assert told == ("failed", "status 137 on no node in particular; see the log")
    folder.stop_path.touch()
    assert status.state_of(folder, [failed], None, is_finished=True)[0] == "finished"
    assert status.state_of(folder, [], None, is_finished=False)[0] == "stopped"


def test_how_far_a_run_is_is_read_from_the_newest_whole_line_of_training(digits: RunFolder) -> None:
    lines = [
        {"kind": "train", "step": 5, "loss": 1.5, "step_seconds": 9.0},
        {"kind": "train", "step": 100, "loss": 0.5, "step_seconds": 0.5, "samples_per_second": 128.0, "note": "x"},
        {"kind": "evaluation", "step": 100, "label/accuracy": 0.5},
    ]
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    digits.metrics_path.write_text(whole + '{"kind": "train", "step": 10')
    attempts.begin(digits, job_id="", nodes=["n1"])
    attempts.end(digits, 1, 85)
    attempts.begin(digits, job_id="", nodes=["n1"])
    attempts.end(digits, 2, 85)
    state = status.read(digits)
    assert (state["step"], state["loss"], state["samples_per_second"]) == (100, 0.5, 128.0)
    assert state["eta_seconds"] == 250
    assert (state["attempt"], state["job_id"], state["nodes"], state["newest_checkpoint"]) == (2, None, None, None)
    assert 0 <= int(state["seconds_since_log"] or 0) < 600
    digits.metrics_path.unlink()
    state = status.read(digits)
    assert (state["step"], state["loss"], state["eta_seconds"], state["seconds_since_log"]) == (0, None, None, None)


def test_the_job_of_a_run_is_told_with_its_nodes(digits: RunFolder, tmp_path: Path, commands: Commands) -> None:
    commands(squeue="echo 'RUNNING|None|n[1-2]|digits-1|(null)'")
    sent = {"job_id": "7", "job_name": "digits-1", "submitted_at": 0.0, "nodes": 2, "processes_per_node": 1}
    digits.submission_path.write_text(json.dumps(sent))
    state = status.read(digits)
    assert (state["state"], state["job_id"], state["nodes"], state["excluded"]) == ("running", "7", "n[1-2]", None)
    commands(squeue="echo 'FAILED|None|n[1-2]|digits-1|n9'")
    assert (status.read(digits)["state"], status.read(digits)["reason"]) == ("unfinished", "failed")
    assert status.read(digits)["excluded"] is None, "a job that is over keeps the run from no node"


def test_one_run_is_shown_a_line_a_fact_in_words_for_people(
    digits: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    digits.metrics_path.write_text(
        '{"kind": "train", "step": 5, "loss": 1.23456789, "step_seconds": 18.0, "samples_per_second": 128.0}\n'
    )
    damaged = {"outcome": "preempted", "seconds": {"step": 3.0, "start_up": 1.0}}
    (digits.attempts_folder / "0001").mkdir(parents=True)
    (digits.attempts_folder / "0001" / "time.json").write_text(json.dumps(damaged))
    assert status.main([digits.path]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if len(line.split()) == 2)
    assert shown["run"] == "runs/digits"
    assert (shown["step"], shown["steps"], shown["loss"], shown["eta"]) == ("5", "600", "1.235", "2:58:30")
    assert (shown["attempt"], shown["goodput"]) == ("1", "-")
    whole = TimeEntry(1, ("n1",), 1, started_at=100.0, last_step=5, seen_at=200.0, seconds={"compute": 25.0})
    (digits.attempts_folder / "0001" / "time.json").write_text(json.dumps(asdict(whole)))
    assert status.main([digits.path]) == 0
    assert "goodput              25%\n" in capsys.readouterr().out


def test_a_table_has_a_column_for_what_any_run_has_to_say(
    digits: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    other = RunFolder(digits.path.with_name("other"))
    other.create()
    other.config_path.write_text(CONFIG.read_text())
    assert status.main([]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["run", "state"]
    assert "loss" in head
    assert "checkpoint" not in head
    assert [row.split()[0] for row in rows] == ["runs/digits", "runs/other"]
    assert "-" in rows[1].split()


def test_a_path_that_is_too_wide_is_folded_and_not_cut() -> None:
    output = io.StringIO()
    path = "runs/" + "a_long_name_" * 3
    Console(file=output, width=20).print(status.table([{**dict.fromkeys(FULL), "run": path}]))
    assert "".join(output.getvalue().split()) == f"run{path}"


FULL: status.State = dict.fromkeys(status.COLUMNS.values(), "long-value") | {
    "run": "runs/some_run", "reason": "a node was lost", "eta_seconds": 59, "goodput": 0.5,
}  # fmt: skip


def shown(width: int, *, is_terminal: bool) -> list[str]:
    """Return the lines in which the states of two runs are shown."""
    output = io.StringIO()
    states = [FULL, FULL | {"run": "runs/other", "reason": None}]
    status.show(states, Console(file=output, width=width, force_terminal=is_terminal, color_system=None))
    return [line.rstrip() for line in output.getvalue().splitlines()]


@pytest.mark.parametrize(("width", "is_terminal"), [(400, True), (80, False)])
def test_runs_are_rows_of_a_table_where_it_is_wide_enough_and_where_nobody_sees_its_width(
    width: int, is_terminal: bool
) -> None:
    head, *rows = shown(width, is_terminal=is_terminal)
    assert head.split() == list(status.COLUMNS)
    assert [row.split()[0] for row in rows] == ["runs/some_run", "runs/other"]
    assert "a node was lost" in rows[0]


def test_on_a_narrow_terminal_each_fact_has_a_line_and_no_word_is_broken() -> None:
    lines = shown(80, is_terminal=True)
    assert lines[0].split() == ["run", "runs/some_run"]
    assert {"samples/s            long-value", "why                  a node was lost"} <= set(lines)
    # Runs are apart, and what one has not is left out.
    second = lines[lines.index("") + 1 :]
    assert second[0].split() == ["run", "runs/other"]
    assert "" not in second
    assert not any(line.startswith("why") for line in second)


@pytest.mark.parametrize(
    ("line", "skipped"), [("", "0"), ('{"kind": "train", "step": 5, "total_skipped_steps": 4}\n', "4")]
)
def test_skipped_steps_are_always_told(
    digits: RunFolder, capsys: pytest.CaptureFixture[str], line: str, skipped: str
) -> None:
    digits.metrics_path.write_text(line)
    assert status.main([digits.path]) == 0
    assert f"skipped steps        {skipped}\n" in capsys.readouterr().out
    assert "skipped" in [column.header for column in status.table([status.read(digits)]).columns]
    assert status.read(digits)["skipped_steps"] == int(skipped)


def test_watching_looks_again_while_a_run_is_going_on(
    digits: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digits.lock_path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": "now"}))
    looks: list[float] = []

    def end_after_two(seconds: float) -> None:
        looks.append(seconds)
        assert len(looks) <= 2
        if len(looks) == 2:
            digits.lock_path.write_text("")

    monkeypatch.setattr(status.time, "sleep", end_after_two)
    assert status.main([digits.path], watch=True) == 0
    assert len([seconds for seconds in looks if seconds >= 1]) == 2
    assert "unfinished" in capsys.readouterr().out


def test_the_limits_of_the_newest_submission_say_which_nodes_are_bad(digits: RunFolder) -> None:
    for number in (1, 2):
        attempts.begin(digits, job_id="7", nodes=["n1", "n2"])
        for rank, ended in enumerate((0, 1)):
            attempts.write_rank(digits, number, RankRecord(rank, f"n{rank + 1}", 5, ended))
        attempts.end(digits, number, 1)
    digits.cluster_path.write_text("restarts: {exclude_after: 3}\n")
    assert status.read(digits)["excluded"] is None
    digits.cluster_path.write_text("restarts: {exclude_after: -3}\n")
    assert str(status.read(digits)["excluded"]).startswith("n2: failures")


def test_a_job_of_many_ranks_is_looked_at_without_opening_a_file_for_each(folder: RunFolder, opens: list[str]) -> None:
    number = attempts.begin(folder, job_id="7", nodes=["n1"]).number
    for rank in range(64):
        attempts.write_rank(folder, number, RankRecord.here(rank, f"n{rank // 8}"))
    late = attempts.write_rank(folder, number, RankRecord.here(41, "n5"))
    os.utime(late, (1.0, 1.0))
    opens.clear()
    history = attempts.history(folder)
    found = status.state_of(folder, history, Job("RUNNING", "", "n[0-7]"), is_finished=False)
    assert found == ("running", "no heartbeat of rank 41 on n5")
    assert [Path(path).name for path in opens if "rank_" in path] == ["rank_41.json"]


def test_a_run_elsewhere_is_known_by_a_few_of_its_ranks(folder: RunFolder, opens: list[str]) -> None:
    number = attempts.begin(folder, job_id="", nodes=["n1"]).number
    for rank in range(64):
        attempts.write_rank(folder, number, RankRecord.here(rank, "elsewhere"))
    folder.lock_path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "noon"}))
    opens.clear()
    assert status.state_of(folder, attempts.history(folder), None, is_finished=False)[0] == "running"
    folder.lock_path.unlink()
    assert status.state_of(folder, attempts.history(folder), None, is_finished=False)[0] == "running"
    assert len([path for path in opens if "rank_" in path]) == 2


def test_an_attempt_that_has_ended_is_one_file_to_read(folder: RunFolder, opens: list[str]) -> None:
    for _ in range(20):
        number = attempts.begin(folder, job_id="", nodes=["n1"]).number
        attempts.end(folder, number, 1)
    opens.clear()
    assert len(attempts.history(folder)) == 20
    assert len([path for path in opens if path.endswith(".json")]) == 20
    opens.clear()
    assert [each.number for each in attempts.history(folder, after=18)] == [19, 20]
    assert len([path for path in opens if path.endswith(".json")]) == 2


def test_runs_are_shown_in_the_order_of_their_names_and_those_of_sweeps_among_them(
    digits: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("zebra", "ant", "sweep/b", "sweep/a", "moth"):
        other = RunFolder(digits.path.parent / name)
        other.create()
        other.config_path.write_text(CONFIG.read_text())
    (digits.path.parent / "notes").mkdir()
    assert status.main([], as_json=True) == 0
    shown = [Path(state["run"]).name for state in json.loads(capsys.readouterr().out)]
    assert shown == ["ant", "digits", "moth", "a", "b", "zebra"]


def test_each_look_of_a_watch_is_shown_at_once_and_the_next_comes_after_two_seconds(
    digits: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits.lock_path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": "now"}))
    shown: list[bool] = []
    pauses: list[float] = []
    update = status.Live.update

    def updated(live: status.Live, table: object, *, refresh: bool = False) -> None:
        shown.append(refresh)
        update(live, table, refresh=refresh)

    def end(seconds: float) -> None:
        pauses.append(seconds)
        digits.lock_path.write_text("")

    monkeypatch.setattr(status.Live, "update", updated)
    monkeypatch.setattr(status.time, "sleep", end)
    other = RunFolder(digits.path.with_name("other"))
    other.create()
    other.config_path.write_text(CONFIG.read_text())
    assert status.main([other.path, digits.path], watch=True) == 0
    assert shown == [True, True]
    assert [seconds for seconds in pauses if seconds >= 1] == [2]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("loss", None, "-"),
        ("loss", 0.123456, "0.1235"),
        ("step", 5, "5"),
        ("goodput", 0.456, "46%"),
        ("eta_seconds", 59, "0:00:59"),
        ("eta_seconds", 3 * 3600 + 62, "3:01:02"),
        ("reason", "a\x1bb", "a�b"),
    ],
)
def test_a_value_is_shown_as_people_read_it(name: str, value: object, shown: str) -> None:
    found = status._cell(name, value)
    assert "\x1b" not in found
    assert found == shown or name == "reason"


@pytest.mark.parametrize(
    ("status_of_last", "is_ended", "words"),
    [
        (85, True, "stopped after a save; the same command resumes it"),
        (0, True, None),
        (2, True, "ended with status 2; correct what the log says first"),
        (None, False, "was killed or cut off; the same command resumes it"),
    ],
)
def test_how_the_last_attempt_of_a_run_without_a_job_ended_is_told(
    folder: RunFolder, status_of_last: int | None, is_ended: bool, words: str | None
) -> None:
    last = replace(ENDED, status=status_of_last, ended_at=200.0 if is_ended else None)
    assert status.state_of(folder, [last], None, is_finished=False) == ("unfinished", words)
    assert status.state_of(folder, [], None, is_finished=False) == ("unfinished", None)
