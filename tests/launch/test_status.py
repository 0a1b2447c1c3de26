import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launch import attempts, status
from launch.attempts import RankRecord
from launch.folder import RunFolder
from launch.queue import Job
from launch.restarts import Attempt

ENDED = Attempt(1, "7", ("n1",), started_at=100.0, first_step=0, ended_at=200.0, status=85, last_step=40)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def test_the_queue_knows_best_and_says_why_a_run_waits(folder: RunFolder) -> None:
    job = Job("PENDING", "Resources", "")
    assert status.state_of(folder, [ENDED], job, is_finished=False) == ("pending", "Resources")


def test_a_run_without_a_job_is_what_its_folder_says(folder: RunFolder) -> None:
    failed = replace(ENDED, status=1, failed_nodes=("n1",))
    assert status.state_of(folder, [ENDED], None, is_finished=True)[0] == "finished"
    assert status.state_of(folder, [ENDED], None, is_finished=False)[0] == "unfinished"
    assert status.state_of(folder, [failed], None, is_finished=False) == ("failed", "status 1 on n1; see the log")
    folder.stop_path.touch()
    assert status.state_of(folder, [ENDED], None, is_finished=False)[0] == "stopped"


def test_a_job_that_is_over_does_not_hide_that_the_run_is_finished(folder: RunFolder) -> None:
    assert status.state_of(folder, [ENDED], Job("COMPLETED", "", "n1"), is_finished=True)[0] == "finished"


def test_a_rank_without_a_heartbeat_is_named(folder: RunFolder) -> None:
    attempt = attempts.begin(folder, job_id="7", nodes=["n1"])
    attempts.write_rank(folder, 1, RankRecord(0, "n1", 5))
    assert status.state_of(folder, [attempt], None, is_finished=False) == ("running", None)
    path = attempts.write_rank(folder, 1, RankRecord(3, "n2", 5))
    os.utime(path, (time.time() - 60, time.time() - 60))
    job = Job("RUNNING", "", "n[1-2]")
    assert status.state_of(folder, [attempt], job, is_finished=False) == ("running", "no heartbeat of rank 3 on n2")
