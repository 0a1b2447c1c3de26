"""A supervisor that is killed leaves no rank behind and no run that is held; what does is told and ended."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch.chaos import supervisor_faults
from launch.chaos.supervisor_faults import kill_supervisor
from launch.lifecycle import attempts
from launch.lifecycle.run_folder import RunFolder
from trainer.health.process import lives

# In the place of a supervisor: begins an attempt of two ranks, of which the file `how` says whether they end with it.
SUPERVISOR = """
import json, os, pathlib, subprocess, sys, time

here = pathlib.Path(__file__).resolve().parents[1]
how = (here / "how").read_text()
(here / "asked").write_text(json.dumps([sys.argv[1:], os.environ["OMP_NUM_THREADS"]]))
print("printed", flush=True)
print("complained", file=sys.stderr, flush=True)
if how.isdigit():
    sys.exit(int(how))
folder = pathlib.Path(sys.argv[sys.argv.index("--run") + 1])
attempt = folder / "attempts" / "0001"
attempt.mkdir(parents=True)
started = {"number": 1, "job_id": "", "nodes": ["n"], "started_at": 0.0, "first_step": 0}
(attempt / "start.json").write_text(json.dumps(started))
for rank in (0, 1):
    rank_of = [sys.executable, "-c", "import time; time.sleep(60)"]
    if how != "stay":
        rank_of[2] = f"import os, time\\nwhile os.getppid() == {os.getpid()}: time.sleep(0.01)"
    pid = subprocess.Popen(rank_of).pid
    ticks = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    record = {"rank": rank, "node": "n", "pid": pid, "start_ticks": ticks}
    (attempt / f".rank_{rank}").write_text(json.dumps(record))
    os.replace(attempt / f".rank_{rank}", attempt / f"rank_{rank}.json")
time.sleep(0.1 if how == "ends" else 20)
saved = folder / "checkpoints" / "step_00000005"
saved.mkdir(parents=True)
(saved / "checkpoint.json").write_text('{"state": {"step": 5}, "files": {}}')
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "__init__.py").touch()
    (tmp_path / "launch" / "__main__.py").write_text(SUPERVISOR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("launch.chaos.own_code.installed_folder", lambda: tmp_path)
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def killed(folder: RunFolder, how: str, num_saves: int = 0) -> tuple[bool, str]:
    (folder.path.parent / "how").write_text(how)
    words = ["train", "config.yaml", "--run", str(folder.path)]
    return kill_supervisor(words, folder, 2, num_saves, folder.path.parent / "log")


@pytest.mark.parametrize("num_saves", [0, 1])
def test_a_supervisor_is_killed_once_its_ranks_are_there_and_have_saved_as_often_as_asked(
    folder: RunFolder, num_saves: int
) -> None:
    assert killed(folder, "ends" if num_saves else "saves late", num_saves) == (True, "")
    assert not any(lives(rank.pid) for rank in attempts.ranks(folder, 1))
    assert len(attempts.ranks(folder, 1)) == 2
    assert attempts.newest_step(folder) == 5 * num_saves
    asked, threads = json.loads((folder.path.parent / "asked").read_text())
    assert asked == ["train", "config.yaml", "--run", str(folder.path), "--procs", "2"]
    assert threads == "1"
    assert sorted((folder.path.parent / "log").read_text().split()) == ["complained", "printed"]


def test_ranks_that_outlive_it_are_told_and_killed(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_faults, "_LEAVE_SECONDS", 0.2)
    is_met, complaint = killed(folder, "stay")
    left = [rank.pid for rank in attempts.ranks(folder, 1)]
    assert (is_met, complaint) == (True, f"ranks outlived their supervisor: {left}")
    for pid in left:
        supervisor_faults._wait(lambda pid=pid: not lives(pid), 10.0)
    assert not any(map(lives, left))


def test_a_run_that_is_held_by_nobody_is_told(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_faults, "_RELEASE_SECONDS", 0.2)
    hold = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, 2); print(1, flush=True); input()"
    words = [sys.executable, "-c", hold, str(folder.lock_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert killed(folder, "ends") == (True, "a run without a process is still held")
        os.kill(holder.pid, signal.SIGKILL)


@pytest.mark.parametrize(("status", "complaint"), [("0", ""), ("3", "a supervised start failed: 3")])
def test_a_supervisor_that_ends_by_itself_was_not_killed(folder: RunFolder, status: str, complaint: str) -> None:
    assert killed(folder, status) == (False, complaint)
