import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch import attempts, batch
from launch.attempts import RankRecord
from launch.batch import FIRST_PORT, JOB, NUM_PORTS, PROFILE_EXCLUDES, free_port, preferred_port
from launch.folder import RunFolder
from launch.restarts import RestartConfig
from trainer.lock import RunLock

JOBS = st.integers(min_value=1, max_value=10**7)


@settings(max_examples=200, deadline=None)
@given(job=JOBS, distance=st.integers(min_value=1, max_value=100), attempt=st.integers(min_value=1, max_value=100))
def test_jobs_that_are_submitted_near_each_other_prefer_other_ports(job: int, distance: int, attempt: int) -> None:
    assert preferred_port(job, attempt) != preferred_port(job + distance, attempt)
    assert preferred_port(job, attempt) != preferred_port(job, attempt + 1)
    assert FIRST_PORT <= preferred_port(job, attempt) < FIRST_PORT + NUM_PORTS


def test_a_port_in_use_is_passed_over() -> None:
    with socket.socket() as taken:
        port = free_port(preferred_port(1, 1))
        taken.bind(("", port))
        assert free_port(port) != port


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Put commands into the path that answer as Slurm does of a job; each call returns what was asked of scontrol."""
    asked = tmp_path / "asked"
    programs = tmp_path / "bin"
    programs.mkdir()

    def answer(
        *, nodes: str, excluded: str = "(null)", required: str = "(null)", features: str = "(null)"
    ) -> list[str]:
        job = f"JobId=7 Partition=main Features={features} ReqNodeList={required} ExcNodeList={excluded}"
        rows = "".join(f"{node}|idle|main*|fast\n" for node in nodes.split())
        scontrol = f'echo "$@" >> {asked}\ncase $1 in show) echo "{job}";; esac\n'
        for name, text in {"scontrol": scontrol, "sinfo": f"printf '{rows}'\n"}.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}")
            (programs / name).chmod(0o755)
        return asked.read_text().splitlines() if asked.exists() else []

    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name, value in {JOB: "7", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", PROFILE_EXCLUDES: "n9"}.items():
        monkeypatch.setenv(name, value)
    return answer


def fail(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, *, on: str) -> None:
    """Let an attempt on two nodes fail on one of them."""
    number = attempts.begin(folder, job_id="7", nodes=["n1", "n2"]).number
    for rank, node in enumerate(("n1", "n2")):
        attempts.write_rank(folder, number, RankRecord(rank, node, 5, 1 if node == on else 0))
    monkeypatch.setenv("PERCEIVER_ATTEMPT", str(number))
    with monkeypatch.context() as patch:
        patch.setattr(batch.signal, "signal", lambda *_: None)
        assert batch.end(folder, 1, RestartConfig(max_failures=9, exclude_after=2)) == 1


def checkpoint(folder: RunFolder, step: int) -> None:
    made = folder.checkpoints_folder / f"step_{step:08d}"
    made.mkdir()
    (made / "checkpoint.json").write_text("{}")


UPDATE = "update JobId=7 ExcNodeList="


def test_a_node_is_avoided_after_two_failures_and_comes_back_after_a_checkpoint(
    folder: RunFolder, slurm: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(nodes="n1 n2 n3 n4 n9", excluded="n9")
    fail(folder, monkeypatch, on="n2")
    assert not any(UPDATE in line for line in slurm(nodes="n1 n2 n3 n4 n9", excluded="n9"))
    fail(folder, monkeypatch, on="n2")
    assert slurm(nodes="n1 n2 n3 n4 n9", excluded="n9,n2")[-1] == f"{UPDATE}n9,n2"
    number = attempts.begin(folder, job_id="7", nodes=["n1", "n3"]).number
    checkpoint(folder, 5)
    attempts.end(folder, number, 85)
    fail(folder, monkeypatch, on="n1")
    assert slurm(nodes="n1")[-1] == f"{UPDATE}n9", "what began before the last progress still counts"


@pytest.mark.parametrize(
    ("nodes", "required", "features"),
    [
        ("n1 n2", "(null)", "(null)"),
        # The third is the one that the profile excludes.
        ("n1 n2 n9", "(null)", "(null)"),
        ("n1 n2 n3 n4", "n1,n2", "(null)"),
        ("n1 n2 n3 n4", "(null)", "slow"),
        # Only Slurm knows what it means, and that the run has been on two nodes.
        ("n1 n2 n3 n4", "(null)", "[fast*2]"),
        ("", "(null)", "(null)"),
    ],
)
def test_a_job_is_kept_from_no_node_that_it_cannot_do_without(
    folder: RunFolder,
    slurm: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    nodes: str,
    required: str,
    features: str,
) -> None:
    for _ in range(2):
        slurm(nodes=nodes, excluded="n9", required=required, features=features)
        fail(folder, monkeypatch, on="n2")
    assert not any(UPDATE in line for line in slurm(nodes=nodes))
    assert "the job cannot do without n2; failures began there in attempts 1, 2" in capsys.readouterr().err


def test_a_job_does_not_begin_while_a_start_without_slurm_trains(
    folder: RunFolder,
    slurm: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    slurm(nodes="n1 n2")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    attempts.begin(folder, job_id="", nodes=["here"])
    with RunLock(folder.lock_path):
        assert batch.main(["begin", str(folder.path)]) == 2
    assert "trains in this run" in capsys.readouterr().err
    assert attempts.current(folder) == 1
    assert batch.main(["begin", str(folder.path)]) == 0


def test_a_job_of_slurm_is_held_up_by_no_claim_that_an_attempt_of_slurm_left(
    folder: RunFolder, slurm: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(nodes="n1 n2")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    attempts.begin(folder, job_id="6", nodes=["here"])
    with RunLock(folder.lock_path, job_id="6"):
        assert batch.main(["begin", str(folder.path)]) == 0
