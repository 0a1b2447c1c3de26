"""Local supervision with real processes; the training is tests/slurm's probe, which needs no torch."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch import attempts
from launch.folder import RunFolder
from launch.freeze import freeze

PROBE = Path(__file__).parents[1] / "slurm" / "probe"
SUPERVISE = """
import sys
from pathlib import Path
from launch.folder import RunFolder
from launch.restarts import RestartConfig
from launch.supervise import supervise
sys.exit(supervise(RunFolder(Path(sys.argv[1])), 2, RestartConfig(max_requeues=2, max_failures=2)))
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    freeze(folder.code_folder)
    shutil.copy(PROBE / "train.py", folder.code_folder / "launch" / "train.py")
    shutil.copy(PROBE / "run.py", folder.code_folder / "configs" / "run.py")
    folder.config_path.write_text(json.dumps({"steps": 40}))
    return folder


@pytest.fixture
def supervisor(folder: RunFolder) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", SUPERVISE, str(folder.path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
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
    result = subprocess.run(
        [sys.executable, "-c", SUPERVISE, str(folder.path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert len(attempts.history(folder)) == 2


@pytest.mark.slow
def test_a_second_supervisor_of_the_same_run_is_refused(folder: RunFolder, supervisor: "subprocess.Popen[str]") -> None:
    second = subprocess.run(
        [sys.executable, "-c", SUPERVISE, str(folder.path)], capture_output=True, text=True, check=False
    )
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
    result = subprocess.run(command, env=os.environ | allocation, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert [record.node for record in attempts.ranks(folder, 1)] == [socket.gethostname()] * 2
    for rank in range(2):
        lines = (folder.path / f"steps_of_rank_{rank}.jsonl").read_text().splitlines()
        # How many there are is the load's: a rank of the probe begins at the checkpoint that the other has written.
        assert {json.loads(line)["WORLD_SIZE"] for line in lines} == {"2"}
        assert {json.loads(line)["SLURM_PROCID"] for line in lines} == {None}
