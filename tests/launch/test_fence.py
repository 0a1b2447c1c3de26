"""A process whose attempt is superseded ends at once, and one whose attempt lives gives heartbeats."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launch.lifecycle import attempts, fence
from launch.lifecycle.attempts import RankRecord
from launch.lifecycle.fence import Fence
from launch.lifecycle.run_folder import RunFolder

# In the place of a training: its main thread works on, and would clean up if it were asked to.
WORKS = """
import atexit, sys, time
from pathlib import Path
from launch.lifecycle import fence
from launch.lifecycle.run_folder import RunFolder

folder = Path(sys.argv[1])
fence.HEARTBEAT_SECONDS = 0.02
atexit.register((folder / "cleaned").touch)
fence.Fence.before(RunFolder(folder), 1).watch(folder / "heartbeat")
print("works", flush=True)
time.sleep(120)
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def test_a_superseded_process_ends_though_its_main_thread_works_and_cleans_nothing_up(folder: RunFolder) -> None:
    heartbeat = folder.path / "heartbeat"
    heartbeat.touch()
    os.utime(heartbeat, (1000.0, 1000.0))
    words = [sys.executable, "-c", WORKS, str(folder.path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "works\n"
            # A folder that is away for a moment ends nothing.
            heartbeat.unlink()
            attempts.attempt_folder(folder, 1).mkdir(parents=True)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
            attempts.attempt_folder(folder, 2).mkdir()
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "0002 has begun; this process belongs to an earlier one and ends" in errors
    assert not (folder.path / "cleaned").exists()


def test_a_heartbeat_is_given_until_the_training_is_over(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "HEARTBEAT_SECONDS", 0.02)
    number = attempts.begin(folder, job_id="", nodes=["n1"]).number
    heartbeat = attempts.write_rank(folder, number, RankRecord(0, "n1", 5))
    before = set(threading.enumerate())
    over = Fence.before(folder, number).watch(heartbeat)
    [watch] = set(threading.enumerate()) - before
    assert watch.daemon, "a training that ends must not wait for it"
    for _ in range(2):
        os.utime(heartbeat, (1000.0, 1000.0))
        deadline = time.monotonic() + 30
        while heartbeat.stat().st_mtime == 1000.0:
            assert time.monotonic() < deadline
            over.wait(0.01)
    over.set()
    watch.join(30)
    assert not watch.is_alive()


def test_a_supervised_process_may_write_until_the_next_attempt_and_no_longer(folder: RunFolder) -> None:
    assert Fence.before(folder, 1).is_open
    assert Fence.before(folder, 1).is_supervised
    attempts.attempt_folder(folder, 2).mkdir(parents=True)
    assert not Fence.before(folder, 1).is_open
    assert Fence.before(folder, 2).is_open
