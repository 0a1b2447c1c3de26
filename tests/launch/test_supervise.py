"""Local supervision with real processes; the training is tests/slurm's probe, which needs no torch."""

import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from leaving import Leaving
from warm_start import WarmProcess, finished

from launch.lifecycle import attempts
from launch.lifecycle.restart_policy import RestartConfig
from launch.lifecycle.run_folder import RunFolder
from launch.run.frozen_code import freeze
from launch.supervise import supervisor as supervise
from trainer.health.run_lock import RunLock

PROBE = Path(__file__).parents[1] / "slurm" / "probe"
SUPERVISE = """
import sys
from pathlib import Path
from launch.lifecycle.run_folder import RunFolder
from launch.lifecycle.restart_policy import RestartConfig
from launch.supervise.supervisor import supervise
sys.exit(supervise(RunFolder(Path(sys.argv[1])), 2, RestartConfig(max_requeues=2, max_failures=2)))
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    freeze(folder.code_folder)
    shutil.copy(PROBE / "train.py", folder.code_folder / "launch" / "run" / "composition.py")
    shutil.copy(PROBE / "run.py", folder.code_folder / "configs" / "run.py")
    folder.config_path.write_text(json.dumps({"steps": 40}))
    return folder


@pytest.fixture
def supervisor(folder: RunFolder) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", SUPERVISE, str(folder.path)]
    with WarmProcess(command, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while attempts.newest_step(folder) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        yield process
        process.kill()


@pytest.mark.slow
def test_a_killed_rank_is_followed_by_an_attempt_that_finishes(
    folder: RunFolder, supervisor: "subprocess.Popen[str]"
) -> None:
    for record in attempts.ranks(folder, 1):
        os.kill(record.pid, signal.SIGKILL)
    assert supervisor.wait(60) == 0
    first, second = attempts.history(folder)
    assert (first.status, second.status, second.last_step) == (137, 0, 40)
    assert second.first_step == first.last_step >= 3


@pytest.mark.slow
def test_a_run_whose_ranks_only_fail_is_given_up(folder: RunFolder) -> None:
    folder.config_path.write_text(json.dumps({"steps": 20, "status": 1}))
    result = finished([sys.executable, "-c", SUPERVISE, str(folder.path)])
    assert result.returncode == 1
    assert len(attempts.history(folder)) == 2


@pytest.mark.slow
def test_a_second_supervisor_of_the_same_run_is_refused(folder: RunFolder, supervisor: "subprocess.Popen[str]") -> None:
    second = finished([sys.executable, "-c", SUPERVISE, str(folder.path)])
    assert second.returncode != 0
    assert "is training in this run" in second.stderr
    assert attempts.current(folder) == 1


@pytest.mark.slow
def test_terminating_the_supervisor_stops_the_run_after_a_step(
    folder: RunFolder, supervisor: "subprocess.Popen[str]"
) -> None:
    supervisor.send_signal(signal.SIGTERM)
    for record in attempts.ranks(folder, 1):
        # The probe does not look for the stop file that the supervisor makes; Slurm's signal does the same.
        os.kill(record.pid, signal.SIGUSR2)
    assert supervisor.wait(60) == 85
    assert folder.stop_path.exists()
    assert [attempt.status for attempt in attempts.history(folder)] == [85]


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{}, {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}])
def test_ranks_that_are_started_inside_of_an_allocation_are_those_of_the_supervisor(
    folder: RunFolder, variables: dict[str, str]
) -> None:
    folder.config_path.write_text(json.dumps({"steps": 60, "records": ["WORLD_SIZE", "SLURM_PROCID"]}))
    allocation = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURMD_NODENAME": "n1", **variables}
    command = [sys.executable, "-c", SUPERVISE, str(folder.path)]
    result = finished(command, env=os.environ | allocation)
    assert result.returncode == 0, result.stderr
    assert [record.node for record in attempts.ranks(folder, 1)] == [socket.gethostname()] * 2
    for rank in range(2):
        lines = (folder.path / f"steps_of_rank_{rank}.jsonl").read_text().splitlines()
        # How many there are is the load's: a rank of the probe begins at the checkpoint that the other has written.
        assert {json.loads(line)["WORLD_SIZE"] for line in lines} == {"2"}
        assert {json.loads(line)["SLURM_PROCID"] for line in lines} == {None}


# A rank that does in each attempt what the run's orders say, and writes down how it was started.
RANK = """
import json, os, signal, sys, time
from pathlib import Path

run, number, rank = Path(sys.argv[1]), int(os.environ["PERCEIVER_ATTEMPT"]), os.environ["RANK"]
orders = json.loads((run / "orders.json").read_text())
files = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
report = {"environment": dict(os.environ), "folder": os.getcwd(), "files": files, "parent": os.getppid()}
(run / f"report_{number}_{rank}.json").write_text(json.dumps(report))
print(f"rank {rank} of attempt {number}")
order = orders[min(number, len(orders)) - 1]
order = order[rank] if isinstance(order, dict) else order
if order == "stop":
    os.kill(os.getppid(), signal.SIGTERM)
    while not (run / "stop").exists():
        time.sleep(0.01)
    order = 85
if order == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if order == "linger":
    time.sleep(60)
if order == "late":
    time.sleep(0.5)
    order = 85
sys.exit(order)
"""


@pytest.fixture
def ordered(tmp_path: Path) -> RunFolder:
    """A run whose ranks do as they are told."""
    folder = RunFolder(tmp_path / "ordered")
    folder.create()
    package = folder.code_folder / "launch" / "supervise"
    package.mkdir(parents=True)
    for part in (package.parent, package):
        (part / "__init__.py").touch()
    (package / "rank.py").write_text(RANK)
    return folder


def run_ranks(folder: RunFolder, *orders: object, num_processes: int = 1, **limits: int) -> int:
    (folder.path / "orders.json").write_text(json.dumps(orders))
    return supervise.supervise(folder, num_processes, RestartConfig(**limits))


def statuses(folder: RunFolder) -> list[int | None]:
    return [attempt.status for attempt in attempts.history(folder)]


def test_ranks_know_who_they_are_where_they_meet_and_who_watches_them(
    ordered: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert run_ranks(ordered, 0, num_processes=2) == 0
    reports = [json.loads((ordered.path / f"report_1_{rank}.json").read_text()) for rank in (0, 1)]
    for rank, report in enumerate(reports):
        said = report["environment"]
        assert (said["RANK"], said["LOCAL_RANK"]) == (str(rank), str(rank))
        assert (said["WORLD_SIZE"], said["LOCAL_WORLD_SIZE"], said["MASTER_ADDR"]) == ("2", "2", "127.0.0.1")
        assert int(said["PERCEIVER_SUPERVISOR"]) == report["parent"] == os.getpid()
        assert said["CUDA_VISIBLE_DEVICES"] == "3"
        assert "SLURM_PROCID" not in said
        assert report["folder"] == str(ordered.code_folder)
        # The run is free only once the last process of it is gone.
        assert str(ordered.lock_path) in report["files"]
    assert reports[0]["environment"]["MASTER_PORT"] == reports[1]["environment"]["MASTER_PORT"]
    assert attempts.history(ordered)[0].nodes == (socket.gethostname(),)


def test_attempts_follow_each_other_until_the_run_has_finished(
    ordered: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_ranks(ordered, 85, 1, "die", 0) == 0
    assert statuses(ordered) == [85, 1, 137, 0]
    assert "attempt 3 ended with status 137: failed" in capsys.readouterr().err
    with RunLock(ordered.lock_path):
        pass


def test_failures_of_earlier_starts_do_not_count_against_this_one(ordered: RunFolder) -> None:
    for _ in range(2):
        assert run_ranks(ordered, 1, max_failures=2) == 1
    assert statuses(ordered) == [1] * 4


@pytest.mark.parametrize(
    ("orders", "expected"),
    [({"0": 85, "1": 0}, 85), ({"0": 85, "1": 1}, 1), ({"0": 3, "1": "die"}, 137), ({"0": 0, "1": 2}, 2)],
)
def test_the_worst_rank_decides_how_an_attempt_ended(
    ordered: RunFolder, orders: dict[str, object], expected: int
) -> None:
    assert run_ranks(ordered, orders, num_processes=2, max_failures=0, max_requeues=0) == expected


def test_a_rank_that_stays_behind_is_killed_and_one_that_is_only_slower_is_not(
    ordered: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"num_processes": 2, "max_failures": 0, "max_requeues": 0}
    assert run_ranks(ordered, {"0": 85, "1": "late"}, **limits) == 85
    monkeypatch.setattr(supervise, "STRAGGLER_SECONDS", 0.2)
    assert run_ranks(ordered, {"0": 85, "1": "linger"}, **limits) == 137


def test_a_signal_to_the_supervisor_stops_the_run_and_the_next_start_takes_the_stop_away(ordered: RunFolder) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert run_ranks(ordered, "stop", 0) == 85
    assert ordered.stop_path.exists()
    assert statuses(ordered) == [85]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert run_ranks(ordered, 85, 0) == 0, "the stop of an earlier start ended this one"
    assert not ordered.stop_path.exists()


def test_a_start_that_is_refused_takes_neither_a_stop_nor_a_number(ordered: RunFolder) -> None:
    ordered.stop_path.touch()
    with RunLock(ordered.lock_path), pytest.raises(ValueError, match="is training in this run"):
        run_ranks(ordered, 0)
    assert ordered.stop_path.exists()
    assert attempts.current(ordered) == 0


def test_a_run_that_a_lost_host_holds_is_taken_over_where_that_is_asked_for(ordered: RunFolder) -> None:
    ordered.lock_path.write_text(json.dumps({"host": "lost", "pid": 1, "since": "then"}))
    with pytest.raises(ValueError, match="--take-over"):
        run_ranks(ordered, 0)
    assert supervise.supervise(ordered, 1, RestartConfig(), take_over=True) == 0


def test_what_the_ranks_print_goes_where_it_is_asked_to_go(ordered: RunFolder, tmp_path: Path) -> None:
    (ordered.path / "orders.json").write_text("[0]")
    with (tmp_path / "printed").open("wb") as file:
        assert supervise.supervise(ordered, 1, RestartConfig(), output=file.fileno()) == 0
    assert (tmp_path / "printed").read_text() == "rank 0 of attempt 1\n"


def test_a_job_of_this_machine_is_supervised_as_its_profile_says_and_obeys_a_stop_that_is_there(
    ordered: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert supervise.main(str(ordered.path)) == 2
    assert capsys.readouterr().err.startswith(f"perceiver: {ordered.cluster_path}: no such cluster profile; ")
    ordered.cluster_path.write_text("{scheduler: local, processes_per_node: 2, restarts: {max_requeues: 0}}")
    (ordered.path / "orders.json").write_text("[85]")
    ordered.stop_path.touch()
    assert supervise.main(str(ordered.path)) == 85
    assert statuses(ordered) == [85]
    assert [path.name for path in sorted(ordered.path.glob("report_*"))] == ["report_1_0.json", "report_1_1.json"]
    assert ordered.stop_path.exists()
    assert "stopped by its user" in capsys.readouterr().err


def test_the_program_of_a_supervisor_leaves_with_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["supervisor.py", str(tmp_path)])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(supervise.__file__, run_name="__main__")
    assert leaving.value.code == 2
    assert f"{tmp_path}/cluster.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("leaves", "status", "seconds"),
    [
        # However long they train together.
        ([(5000.0, 0), (5000.0, 0)], 0, 5000.0),
        ([(10.0, 85), (69.0, 85)], 85, 69.0),
        ([(10.0, 85), (40.0, 0), (90.0, 85)], 137, 71.0),
        ([(90.0, 85), (10.0, 1), (75.0, 0)], 137, 71.0),
        ([(10.0, -15), (20.0, 1)], 143, 20.0),
    ],
)
def test_once_a_rank_has_left_the_others_have_a_minute_counted_from_the_first(
    monkeypatch: pytest.MonkeyPatch, leaves: list[tuple[float, int]], status: int, seconds: float
) -> None:
    now = 0.0

    def pause(_: float) -> None:
        nonlocal now
        now += 0.5

    clock = SimpleNamespace(monotonic=lambda: now, sleep=pause)
    monkeypatch.setattr(supervise, "time", clock)
    assert supervise._wait([Leaving(clock, *each) for each in leaves]) == status
    assert now == seconds
