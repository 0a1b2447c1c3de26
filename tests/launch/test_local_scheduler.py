"""This machine as a scheduler: a job in the background is found, stopped and killed like one of Slurm."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from configs.files import ConfigError
from configs.run import load
from launch.lifecycle import attempts, cluster
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder
from launch.lifecycle.scheduler import UNKNOWN, Job
from launch.report import logs, status
from launch.run.creation import open_run
from launch.schedulers import submission
from launch.schedulers.local import Local
from launch.supervise import stop, submit
from trainer.health.process import start_ticks

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
# In the place of a rank: trains until a stop is asked for, and then leaves as after a save.
RANK = """
import os, pathlib, sys, time
run = pathlib.Path(sys.argv[1])
print("greeting", os.environ.get("GREETING"), "of rank", os.environ["RANK"], flush=True)
(run / f"began_{os.environ['RANK']}").touch()
while not (run / "stop").exists():
    time.sleep(0.01)
sys.exit(85)
"""


@pytest.fixture
def run(shards: Path, tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    open_run(load(CONFIG, [f"data.shards={shards}"]), folder)
    (folder.code_folder / "launch" / "supervise" / "rank.py").write_text(RANK)
    return folder


@pytest.fixture
def submitted(run: RunFolder, tmp_path: Path, until: Callable[[Callable[[], bool]], None]) -> Iterator[RunFolder]:
    """A run of two ranks in the background."""
    profile = tmp_path / "here.yaml"
    profile.write_text("{scheduler: local, processes_per_node: 2, environment: {GREETING: hello}}")
    assert submit.resume(run.path, str(profile), {}) == 0
    until(lambda: all((run.path / f"began_{rank}").exists() for rank in (0, 1)))
    yield run
    if job := submission.read(run):
        Local().cancel(job.job_id)


@pytest.mark.slow
def test_a_job_runs_in_the_background_and_a_stop_ends_it_after_a_save(
    submitted: RunFolder, capfd: pytest.CaptureFixture[str], until: Callable[[Callable[[], bool]], None]
) -> None:
    assert submission.job(submitted) == Job("RUNNING", "", socket.gethostname())
    assert status.read(submitted)["state"] == "running"
    with pytest.raises(ValueError, match="of this run is RUNNING"):
        submit.resume(submitted.path, None, {})
    stop.stop(submitted.path)
    until(lambda: submission.job(submitted) is None)
    [attempt] = attempts.history(submitted)
    assert attempt.status == 85
    capfd.readouterr()
    logs.main(submitted.path, rank=1, attempt=0, batch=True, follow=False)
    told = capfd.readouterr().out
    assert "greeting hello of rank 1" in told
    assert "attempt 1 ended with status 85" in told


@pytest.mark.slow
def test_a_cancelled_job_is_gone_with_its_ranks(
    submitted: RunFolder, until: Callable[[Callable[[], bool]], None]
) -> None:
    sent = submission.read(submitted)
    assert sent is not None
    pid = int(sent.job_id.split("-")[-2])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 2
    stop.cancel(submitted.path)
    until(lambda: not any(start_ticks(int(each)) for each in (*children, pid)))
    assert submission.job(submitted) is None


@pytest.mark.slow
def test_a_stop_before_the_first_rank_has_begun_holds(
    run: RunFolder, tmp_path: Path, until: Callable[[Callable[[], bool]], None]
) -> None:
    profile = tmp_path / "here.yaml"
    profile.write_text("{scheduler: local}")
    run.stop_path.touch()
    assert submit.resume(run.path, str(profile), {}) == 0
    assert not run.stop_path.exists(), "an earlier stop is over once the run is submitted again"
    run.stop_path.touch()
    until(lambda: submission.job(run) is None)
    assert [attempt.status for attempt in attempts.history(run)] == [85]


def test_a_process_id_that_is_another_s_by_now_is_no_job_and_other_hosts_are_unknown() -> None:
    here, pid = socket.gethostname(), os.getpid()
    assert Local().find(f"{here}-{pid}-{start_ticks(pid)}", "") == Job("RUNNING", "", here)
    assert Local().find(f"{here}-{pid}-{start_ticks(pid) + 1}", "") is None
    found = Local().find(f"node-a-1-{pid}-5", "")
    assert found is not None
    assert (found.state, found.nodes) == (UNKNOWN, "node-a-1")
    with pytest.raises(ValueError, match="ask there"):
        Local().cancel(f"node-a-1-{pid}-5")
    Local().cancel(f"{here}-{pid}-{start_ticks(pid) + 1}")


def test_a_job_is_a_supervisor_in_a_session_of_its_own_whose_log_has_its_id(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    def popen(command: list[str], *, stdout: IO[bytes], **how: object) -> SimpleNamespace:
        stdout.write(b"printed")
        started.append(SimpleNamespace(pid=os.getpid(), returncode=None, command=command, stdout=stdout, how=how))
        return started[-1]

    monkeypatch.setattr("launch.schedulers.local.subprocess.Popen", popen)
    monkeypatch.setattr(os, "environ", {"HOME": "/home", "GREETING": "old"})
    profile = ClusterConfig(scheduler="local", environment={"GREETING": "hello", "NUMBER": 4})
    job_id = f"{socket.gethostname()}-{os.getpid()}-{start_ticks(os.getpid())}"
    assert list(Local().submit([run], profile, job_name="a", avoided=())) == [(run, job_id)]
    [process] = started
    assert process.command == [sys.executable, "-u", "-m", "launch.supervise.supervisor", str(run.path)]
    assert process.how == {
        "cwd": run.code_folder,
        "env": {"HOME": "/home", "GREETING": "hello", "NUMBER": "4"},
        "stdin": subprocess.DEVNULL,
        "stderr": process.stdout,
        "start_new_session": True,
    }
    # Nobody waits for it, and Python is not to complain of that.
    assert process.returncode == 0
    assert [path.read_bytes() for path in run.logs_folder.iterdir()] == [b"printed"]
    assert (run.logs_folder / f"{job_id}_0_log.out").is_file()


def test_a_cancel_kills_the_session_of_a_job_and_of_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda *words: killed.append(words))
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7-8")
    pid = os.getpid()
    Local().cancel(f"node-7-8-{pid}-{start_ticks(pid) + 1}")
    assert killed == []
    Local().cancel(f"node-7-8-{pid}-{start_ticks(pid)}")
    assert killed == [(pid, signal.SIGKILL)]


@pytest.mark.parametrize(
    "damage",
    [{"scheduler": "slurn"}, {"scheduler": "local", "job_id": "vm"}, {"scheduler": "local", "job_id": "a-b-c"}],
)
def test_a_damaged_record_of_a_submission_is_no_job_and_ends_no_command(
    run: RunFolder, damage: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    sent = {"job_id": "1", "job_name": "a", "submitted_at": 1.0, "nodes": 1, "processes_per_node": 1}
    run.submission_path.write_text(json.dumps(sent | damage))
    assert submission.job(run) is None
    assert status.read(run)["state"] == "unfinished"
    if "job_id" not in damage:
        assert "names the scheduler 'slurn'" in capsys.readouterr().err


def test_a_profile_of_this_machine_refuses_what_only_slurm_understands(tmp_path: Path) -> None:
    profile = tmp_path / "here.yaml"
    profile.write_text("{scheduler: local, nodes: 2, partition: gpu, setup: [module load cuda]}")
    with pytest.raises(ConfigError) as refused:
        cluster.load(str(profile))
    assert sorted(problem.partition(" = ")[0] for problem in refused.value.problems) == ["nodes", "partition", "setup"]
    assert cluster.load("workstation").scheduler == "local"


def test_the_runs_of_a_sweep_do_not_share_this_machine(run: RunFolder) -> None:
    other = RunFolder(run.path.with_name("other"))
    with pytest.raises(ValueError, match=r"2 runs would share this machine at once; .* --procs"):
        Local().preview([run, other], cluster.load("workstation"), job_name="a")
    assert Local().usable_nodes(ClusterConfig(), ()) == [socket.gethostname()]


def test_a_dry_run_shows_the_shell_that_would_start_the_supervisor(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load(run.config_path)
    profile = cluster.load("workstation")
    assert submit.submit(config, run.path.with_name("new"), profile, dry_run=True, as_json=True) == 0
    script = json.loads(capsys.readouterr().out)["script"]
    assert script.endswith(f"-u -m launch.supervise.supervisor {run.path.with_name('new')}")
