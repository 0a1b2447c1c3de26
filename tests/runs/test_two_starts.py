"""Whoever trains holds the run, however it was started; who comes second is refused and takes nothing away."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from warm_start import WarmProcess, finished

from launch.lifecycle import attempts
from launch.lifecycle.attempts import RankRecord
from launch.lifecycle.run_folder import RunFolder
from trainer.health.process import lives

pytestmark = pytest.mark.slow
MakeRun = Callable[..., Any]

PROFILE = "nodes: 1\nprocesses_per_node: 1\nsignal_seconds: 60\n"
WITHIN_SECONDS = 280
# Long enough to be still at it when the second has been refused.
LONG = ("train.steps=100000", "health.hang_seconds=0")
HOW = {
    "plain": ["-m", "launch", "train"],
    "supervised": ["-m", "launch", "train", "--procs", "2"],
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "launch", "train"],
}


def words(run: Any, how: str, *overrides: str) -> list[str]:  # noqa: ANN401  # the Run of conftest.py
    arguments = [str(run.config), f"data.shards={run.shards}", *overrides, "--run", str(run.folder)]
    return [sys.executable, *HOW[how], *arguments]


def environment() -> dict[str, str]:
    here = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return {name: value for name, value in os.environ.items() if name not in {"RANK", "WORLD_SIZE"}} | here


def call(*command: str) -> "subprocess.CompletedProcess[str]":
    return finished(list(command), env=environment())


def wait_for(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"no {what} within {WITHIN_SECONDS} s"
        time.sleep(0.05)


@contextmanager
def training(run: Any, how: str) -> Iterator["tuple[subprocess.Popen[str], list[RankRecord]]"]:  # noqa: ANN401
    """Give a start and its ranks once it has a checkpoint of a step; nothing of it outlives the context."""
    folder = RunFolder(run.folder)
    began = attempts.current(folder)
    start = words(run, how, *LONG)
    with WarmProcess(start, warm_children=True, env=environment(), stderr=subprocess.DEVNULL) as process:
        ranks: list[RankRecord] = []
        try:
            wait_for(lambda: attempts.current(folder) > began or process.poll() is not None, "attempt")
            newest = attempts.newest_step(folder)
            wait_for(lambda: attempts.newest_step(folder) > newest or process.poll() is not None, "checkpoint")
            assert process.poll() is None
            ranks = attempts.ranks(folder, attempts.current(folder))
            yield process, ranks
        finally:
            for pid in (process.pid, *(rank.pid for rank in ranks)):
                if lives(pid):
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["plain", "supervised", "torchrun"])
def test_a_second_start_is_refused_and_takes_nothing_away(make_run: MakeRun, tmp_path: Path, how: str) -> None:
    run = make_run("run")
    folder = RunFolder(run.folder)
    (tmp_path / "profile.yaml").write_text(PROFILE)
    with training(run, how) as (process, ranks):
        assert len(ranks) == (1 if how == "plain" else 2)
        assert all(rank.status is None and lives(rank.pid) for rank in ranks)
        number = attempts.current(folder)
        # Somebody asks the first to stop, and it has not seen it yet.
        os.kill(ranks[0].pid, signal.SIGSTOP)
        folder.stop_path.touch()
        second = [call(*words(run, other, *LONG)) for other in ("plain", "supervised")]
        submit = [*words(run, "plain", *LONG), "--cluster", str(tmp_path / "profile.yaml")]
        submit[submit.index("train")] = "submit"
        submitted = call(*submit)
        for refused in (*second, submitted):
            assert refused.returncode == 2, refused.stderr
            assert "in this run" in refused.stderr
            assert refused.stderr.count("perceiver:") == 1, "one sentence"
            assert folder.stop_path.exists(), "the stop of the first was lost"
        assert attempts.current(folder) == number
        os.kill(ranks[0].pid, signal.SIGCONT)
        process.wait(WITHIN_SECONDS)
    ended = attempts.history(folder)[-1]
    assert (ended.number, ended.status) == (number, 85), "the first did not stop in good order"
    assert not list(folder.checkpoints_folder.glob(".step_*"))


@pytest.mark.parametrize("how", ["supervised", "torchrun"])
def test_ranks_end_with_their_supervisor_and_the_run_is_free_again(make_run: MakeRun, how: str) -> None:
    run = make_run("run")
    with training(run, how) as (process, ranks):
        process.kill()
        process.wait()
        wait_for(lambda: not any(lives(rank.pid) for rank in ranks), "end of the ranks")
    newest = attempts.newest_step(RunFolder(run.folder))
    with training(run, "plain"):
        assert attempts.history(RunFolder(run.folder))[-1].first_step == newest


def test_cancel_ends_a_plain_run_and_no_process_of_another_host(make_run: MakeRun) -> None:
    run = make_run("run")
    folder = RunFolder(run.folder)
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        with training(run, "plain") as (process, ranks):
            number = attempts.current(folder)
            attempts.write_rank(folder, number, RankRecord(1, "elsewhere", bystander.pid))
            attempts.write_rank(folder, number, RankRecord(2, ranks[0].node, bystander.pid, start_ticks=1))
            cancelled = call(sys.executable, "-m", "launch", "cancel", str(run.folder))
            assert cancelled.stdout.endswith(": 1 process of the run on this machine was killed\n")
            assert process.wait(WITHIN_SECONDS) == -signal.SIGKILL
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert "stopped" in call(sys.executable, "-m", "launch", "status", str(run.folder)).stdout
