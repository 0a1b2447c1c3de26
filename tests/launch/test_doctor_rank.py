"""A rank of the doctor's job examines its node, waits for the signal, and leaves a report."""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from launch.doctor import rank as doctor_rank
from trainer.distributed import descriptors
from trainer.distributed.world import World

Commands = Callable[..., Callable[[str], list[str]]]
Door = Callable[..., list[dict[str, Any]]]
SLURM = {
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURMD_NODENAME": "n2",
    "MASTER_ADDR": "localhost",
}
events: list[str] = []


class Noted(World):
    """A rank that exchanges with nobody and notes when it would."""

    def barrier(self) -> None:
        events.append("meets")

    def close(self) -> None:
        events.append("leaves")


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """This process is rank 1 of 2 as far as its environment says; the rank that it becomes exchanges with nobody."""
    monkeypatch.setattr(os, "environ", {**os.environ, **SLURM})
    seen: list[dict[str, str]] = []

    def joined(seconds: float) -> World:
        seen.append({"seconds": str(seconds), **os.environ})
        return Noted(1, 2, 0, torch.device("cpu"))

    events.clear()
    monkeypatch.setattr(World, "from_environment", joined)
    monkeypatch.setattr(dist, "all_reduce", lambda *_: events.append("sums"))
    monkeypatch.setattr(doctor_rank.time, "time", lambda: events.append("looks at the clock") or 5.0)
    handler = signal.getsignal(signal.SIGUSR2)
    yield seen
    signal.signal(signal.SIGUSR2, handler)


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report_1.json").read_text())


def test_a_report_says_all_that_the_doctor_asks_of_a_node(
    rank: list[dict[str, str]], tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(**{"nvidia-smi": "echo 'H100, 0'; echo 'H100, 7'"})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(doctor_rank, "SIGNAL_SECONDS", 0.0)
    folder = tmp_path / "shared"
    folder.mkdir()
    doctor_rank.main(folder)
    found = report(folder)
    assert (found["rank"], found["node"], found["versions"]) == (1, "n2", doctor_rank.versions())
    assert (found["gpus"], found["sick_gpus"]) == (["GPU 0", "GPU 1"], ["H100, 7"])
    assert (found["open_files"], found["sees_token"]) == (descriptors.hard_limit(), False)
    assert found["master"].startswith("localhost is 127.")
    assert min(found[name] for name in ("write_mib_per_second", "all_reduce_gib_per_second")) > 0
    # The clocks of all ranks are looked at at once.
    assert found["clock"] == 5.0
    assert events == ["meets", *["sums"] * 5, "meets", "looks at the clock", "meets", "leaves"]
    assert found["signalled"] is False
    assert (rank[0]["RANK"], rank[0]["WORLD_SIZE"], rank[0]["seconds"]) == ("1", "2", "60.0")
    assert sorted(path.name for path in folder.iterdir()) == ["ready_1.json", "report_1.json"]


def test_a_rank_that_is_signalled_says_so_once_the_others_have_met(
    rank: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(os.environ, "SLURMD_NODENAME")
    monkeypatch.setattr(doctor_rank, "BYTES", 2**20)
    (tmp_path / "token").touch()

    def signalled_meanwhile(seconds: float) -> None:
        assert (tmp_path / "ready_1.json").exists()
        assert not (tmp_path / "report_1.json").exists()
        events.append("waits")
        signal.raise_signal(signal.SIGUSR2)

    monkeypatch.setattr(doctor_rank.time, "sleep", signalled_meanwhile)
    doctor_rank.main(tmp_path)
    assert events[-2:] == ["waits", "leaves"]
    found = report(tmp_path)
    assert (found["signalled"], found["sees_token"], found["node"]) == (True, True, socket.gethostname())


def test_the_program_of_a_rank_leaves_its_report_in_the_folder_of_its_first_word(
    rank: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["rank.py", str(tmp_path)])
    monkeypatch.setattr(doctor_rank.time, "sleep", lambda _: signal.raise_signal(signal.SIGUSR2))
    runpy.run_path(doctor_rank.__file__, run_name="__main__")
    assert report(tmp_path)["signalled"] is True


def test_versions_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor_rank.versions()
    assert found["python"] == sys.version.split()[0]
    assert found["torch"] == version("torch")
    monkeypatch.setattr(doctor_rank, "PACKAGES", ("no such package",))
    assert doctor_rank.versions()["no such package"] == "missing"


def test_a_driver_is_asked_for_names_and_errors_and_none_is_asked_where_there_is_none(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = commands(**{"nvidia-smi": "echo 'H100, 0'\nexit 3"})
    assert doctor_rank.gpus() == ["H100, 0"]
    assert asked("nvidia-smi") == ["--query-gpu=name,ecc.errors.uncorrected.volatile.total --format=csv,noheader"]
    monkeypatch.setenv("PATH", "")
    assert doctor_rank.gpus() == []


def test_a_driver_that_hangs_is_not_waited_for_for_ever(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(words: list[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(words, timeout)

    commands(**{"nvidia-smi": ""})
    monkeypatch.setattr(doctor_rank.subprocess, "run", hang)
    with pytest.raises(subprocess.TimeoutExpired, match="timed out after 60 seconds"):
        doctor_rank.gpus()


@pytest.mark.parametrize(("errors", "is_sick"), [("0", False), ("N/A", False), ("[N/A]", False), ("12", True)])
def test_a_gpu_with_errors_is_sick(errors: str, is_sick: bool) -> None:
    line = f"NVIDIA H100, 80 GB, {errors}"
    assert doctor_rank.sick([line]) == [line] * is_sick


def test_the_speed_of_a_disk_is_that_of_bytes_that_are_on_it(
    tmp_path: Path, disk_calls: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([10.0, 12.0])
    monkeypatch.setattr(doctor_rank.time, "perf_counter", lambda: next(seconds))
    assert doctor_rank.write_speed(tmp_path) == 8.0
    [(kind, path)] = disk_calls
    assert kind == "sync"
    assert path.startswith(f"{tmp_path}/.speed_{socket.gethostname()}_{os.getpid()}")
    assert list(tmp_path.iterdir()) == []


def test_the_speed_of_a_sum_over_ranks_is_what_each_rank_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([10.0, 10.5])
    summed: list[tuple[int, torch.dtype, torch.device]] = []
    monkeypatch.setattr(doctor_rank.time, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(dist, "all_reduce", lambda one: summed.append((one.numel(), one.dtype, one.device)))
    # Five times 16 MiB in half a second.
    assert doctor_rank.bandwidth(World(0, 1, 0, torch.device("meta"))) == 5 * 16 / 1024 / 0.5
    assert summed == [(4 * 2**20, torch.float32, torch.device("meta"))] * 5


def test_the_clock_of_a_gpu_stops_when_it_has_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *_, **__: ones(8, device="meta"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("waits"))
    monkeypatch.setattr(dist, "all_reduce", lambda *_: order.append("sums"))
    doctor_rank.bandwidth(World(0, 1, 0, torch.device("cuda", 0)))
    assert order == ["sums"] * 5 + ["waits"]
    doctor_rank.bandwidth(World(0, 1, 0, torch.device("cpu")))
    assert order == ["sums"] * 5 + ["waits"] + ["sums"] * 5
