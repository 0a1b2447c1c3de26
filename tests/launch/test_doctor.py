"""What the doctor concludes from what the ranks found, and its remedies in words."""

import io
import json
import os
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launch.doctor import examination, job
from launch.doctor import rank as doctor_rank
from launch.doctor.examination import Finding
from launch.lifecycle import cluster
from launch.lifecycle.cluster import ClusterConfig
from trainer.distributed import descriptors


def report(rank: int, **changes: object) -> dict[str, Any]:
    healthy = {
        "rank": rank,
        "node": f"n{rank}",
        "master": "n0 is 10.0.0.1",
        "versions": doctor_rank.versions(),
        "open_files": 524_288,
        "sees_token": True,
        "write_mib_per_second": 500.0,
        "clock": 1000.0,
        "all_reduce_gib_per_second": 10.0,
        "signalled": True,
        "gpus": ["H100"] * 4,
        "sick_gpus": [],
    }
    return {**healthy, **changes}


def unwell(*reports: dict[str, Any], asks_for_gpus: bool = True) -> dict[str, str]:
    findings = examination.judge(reports, asks_for_gpus=asks_for_gpus)
    return {each.name: f"{each.words}; {each.remedy}" for each in findings if not each.is_well}


def test_ranks_that_agree_and_are_healthy_are_well() -> None:
    assert unwell(report(0), report(1)) == {}
    assert unwell(report(0, gpus=[]), report(1, gpus=[]), asks_for_gpus=False) == {}
    words = {found.name: found.words for found in examination.judge([report(0), report(1)], asks_for_gpus=True)}
    assert words["same versions"] == "everywhere"
    assert words["shared folder"] == "seen by all"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("same versions", {"versions": {"python": "3.8"}}, "differ on n1"),
        ("shared folder", {"sees_token": False}, "not seen by n1"),
        (
            "open files",
            {"open_files": 64},
            "64 a process, n1; a rank of 2 needs 208; raise the hard limit",
        ),
        ("write speed", {"write_mib_per_second": 3.0}, "3 MiB/s, n1"),
        ("clocks", {"clock": 1002.5}, "2.500 s apart"),
        ("all-reduce", {"all_reduce_gib_per_second": 0.001}, "set network_interface"),
        ("signals", {"signalled": False}, "not at ranks 1"),
        ("GPUs", {"gpus": ["H100"] * 3}, "n0: 4, n1: 3; the nodes differ"),
        ("GPUs", {"gpus": []}, "n0: 4, n1: 0; the profile asks for GPUs and torch sees none"),
        ("GPU memory", {"sick_gpus": ["H100, 7"]}, "n1: H100, 7; name the node under exclude"),
    ],
)
def test_what_is_wrong_is_named_with_its_node_and_a_remedy(name: str, change: dict[str, object], words: str) -> None:
    found = unwell(report(0), report(1, **change))
    assert list(found) == [name]
    assert words in found[name]


def test_a_first_node_that_has_no_address_is_told_in_words() -> None:
    assert doctor_rank.address("localhost").startswith("localhost is 127.")
    with pytest.raises(SystemExit, match="the first node, no such host, has no address here"):
        doctor_rank.address("no such host")


def test_memory_errors_that_the_driver_counts_make_a_gpu_sick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'H100, 0'\necho 'H100, 7'\necho 'A10, [N/A]'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert len(doctor_rank.gpus()) == 3
    assert doctor_rank.sick(doctor_rank.gpus()) == ["H100, 7"]


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for a Slurm that takes no job; return the profile of a cluster."""
    commands = tmp_path / "commands"
    commands.mkdir()
    refusal = "#!/bin/sh\ncat > $0.script\necho 'sbatch: error: Invalid account' >&2\nexit 1\n"
    for name, text in {"sbatch": refusal, "squeue": "#!/bin/sh\n", "scancel": "#!/bin/sh\n"}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    profile = tmp_path / "profile.yaml"
    profile.write_text(cluster.dump(ClusterConfig(minutes=2880, signal_seconds=1200)))
    return profile


def test_what_was_found_here_is_told_though_slurm_takes_no_job(
    refusing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    assert examination.main(str(refusing), tmp_path / "runs", as_json=True) == 1
    findings = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert {"versions", "write speed", "free disk", "job"} <= findings.keys()
    assert "Invalid account" in findings["job"]["words"]
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_job_of_the_doctor_is_short_and_does_not_come_back(refusing: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    examination.main(str(refusing), tmp_path / "runs")
    lines = (tmp_path / "commands" / "sbatch.script").read_text().splitlines()
    assert {"#SBATCH --time=10", "#SBATCH --signal=USR2@300", "#SBATCH --no-requeue"} <= set(lines)
    assert "#SBATCH --requeue" not in lines


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder; make it"):
        examination.main(None, tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written_is_a_finding_among_others(
    refusing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nobody may write here, root included.
    assert examination.main(str(refusing), Path("/proc"), as_json=True) == 1
    findings = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert "--folder" in findings["write speed"]["remedy"]
    assert "/proc/.doctor-" in findings["job"]["words"]
    assert findings["versions"]["is_well"]


class Here:
    """What is found on this machine, and may be changed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.versions = {"python": "3.11", "torch": "2.9"}
        self.speed: float | OSError = 500.0
        self.free_gib = 50.0
        self.open_files = 500_000
        self.commands: list[str] = []
        self.lines: list[str] = []
        monkeypatch.setattr(doctor_rank, "versions", lambda: self.versions)
        monkeypatch.setattr(doctor_rank, "write_speed", self._write_speed)
        monkeypatch.setattr(doctor_rank, "gpus", lambda: self.lines)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=self.free_gib * 2**30))
        monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name in self.commands else None)
        monkeypatch.setattr(descriptors, "hard_limit", lambda: self.open_files)
        monkeypatch.setattr(os, "cpu_count", lambda: 6)

    def _write_speed(self, folder: Path) -> float:
        if isinstance(self.speed, OSError):
            raise self.speed
        return self.speed


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    return Here(monkeypatch)


def of_machine(folder: Path) -> dict[str, Finding]:
    found = examination._all(None, folder)
    return {finding.name: finding for finding in found}


def test_a_machine_that_is_fit_is_told_fact_by_fact(
    here: Here, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = of_machine(tmp_path)
    assert list(found) == ["versions", "write speed", "free disk", "host name", "GPUs here", "open files"]
    assert all(finding.is_well for finding in found.values())
    assert found["versions"].words == "python 3.11, torch 2.9"
    assert found["write speed"].words == "500 MiB/s, this machine"
    assert found["free disk"].words == f"50 GiB in {tmp_path}"
    assert found["host name"].words.startswith(f"{socket.gethostname()} is ")
    assert found["GPUs here"].words == "none; 6 CPU cores"
    assert found["open files"].words == "500000 a process, this machine; a rank of 6 needs 240"
    assert examination.main(None, tmp_path) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 6
    assert all(line.startswith("ok  ") for line in told)
    assert told[1] == "ok  write speed            500 MiB/s, this machine"


def test_each_finding_is_shown_as_soon_as_it_is_found(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []

    class Terminal(io.StringIO):
        def flush(self) -> None:
            shown.append(self.getvalue().count("\n"))

    monkeypatch.setattr(sys, "stdout", Terminal())
    assert examination.main(None, tmp_path) == 0
    assert shown == [1, 2, 3, 4, 5, 6]


def test_a_machine_that_does_not_know_its_cores_is_asked_for_one_rank(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert "; a rank of 1 needs" in of_machine(tmp_path)["open files"].words


def test_a_cluster_s_ranks_are_what_files_are_needed_for(here: Here, tmp_path: Path) -> None:
    found = {each.name: each for each in examination._all(ClusterConfig(nodes=5, processes_per_node=4), tmp_path)}
    assert "a rank of 20 needs 352" in found["open files"].words
    assert (found["slurm"].is_well, found["slurm"].words) == (False, "there is no sbatch on this machine")
    assert "login node" in found["slurm"].remedy


@pytest.mark.parametrize(
    ("change", "name", "words", "remedy"),
    [
        ({"versions": {"torch": "missing", "numpy": "2"}}, "versions", "torch missing, numpy 2", "constraints.txt"),
        ({"speed": 20.0}, "write speed", "20 MiB/s", "a faster disk"),
        ({"speed": OSError("Read-only file system")}, "write speed", "Read-only file system", "--folder"),
        ({"free_gib": 1.0}, "free disk", "1 GiB in", "another folder"),
        ({"open_files": 203}, "open files", "203 a process", "raise the hard limit"),
        ({"commands": ["nvidia-smi"]}, "GPUs here", "nvidia-smi shows none", "driver"),
        ({"commands": ["nvidia-smi"], "lines": ["A, 0", "B, 7"]}, "GPUs here", "A, 0; B, 7", "memory errors"),
    ],
)
def test_what_keeps_a_machine_from_a_run_is_told_with_a_remedy_and_is_status_1(
    here: Here,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, object],
    name: str,
    words: str,
    remedy: str,
) -> None:
    vars(here).update(change)
    found = of_machine(tmp_path)
    assert [finding.name for finding in found.values() if not finding.is_well] == [name]
    assert words in found[name].words
    assert remedy in found[name].remedy
    assert examination.main(None, tmp_path) == 1
    told = capsys.readouterr().out.splitlines()
    [at] = [number for number, line in enumerate(told) if line.startswith("!!")]
    assert words in told[at]
    assert told[at + 1] == f"{'':26} {found[name].remedy}"
    assert examination.main(None, tmp_path, as_json=True) == 1
    told_json = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in told_json if not each["is_well"]] == [name]


def test_healthy_gpus_and_a_little_more_than_the_least_are_well(here: Here, tmp_path: Path) -> None:
    here.commands, here.lines, here.speed, here.free_gib, here.open_files = ["nvidia-smi"], ["A, 0"], 20.1, 1.1, 240
    found = of_machine(tmp_path)
    assert all(finding.is_well for finding in found.values())
    assert found["GPUs here"].words == "A, 0"


def test_a_host_that_nobody_knows_by_name_is_told(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "no such host")
    found = of_machine(tmp_path)["host name"]
    assert not found.is_well
    assert found.words.startswith("no such host: ")
    assert "/etc/hosts" in found.remedy


def test_every_node_is_named_once_and_in_order() -> None:
    reports = [report(rank, node=f"n{4 - rank // 2}", versions={"python": "3.8"}) for rank in range(8)]
    for each in reports:
        each.update(sees_token=False, signalled=False, sick_gpus=["H100, 7", "A100, 1"])
    found = {each.name: each.words for each in examination.judge(list(reversed(reports)), asks_for_gpus=True)}
    assert found["ranks"] == "8 ranks on n1, n2, n3, n4 met at n0 is 10.0.0.1"
    assert found["same versions"] == "differ on n1, n2, n3, n4"
    assert found["shared folder"] == "not seen by n1, n2, n3, n4"
    assert found["signals"] == "not at ranks 0, 1, 2, 3, 4, 5, 6, 7"
    assert found["GPU memory"].startswith("n1: A100, 1; n1: H100, 7; n2: ")
    assert found["GPU memory"].count(";") == 7
    assert found["GPUs"] == "n1: 4, n2: 4, n3: 4, n4: 4"


def test_the_slowest_node_and_the_fewest_files_are_what_counts() -> None:
    reports = [report(0, write_mib_per_second=90.0, open_files=400), report(1, all_reduce_gib_per_second=3.0),
               report(2, write_mib_per_second=80.0, clock=1000.5, open_files=300)]  # fmt: skip
    found = {each.name: each for each in examination.judge(reports, asks_for_gpus=True)}
    assert found["write speed"].words == "80 MiB/s, n2"
    assert found["open files"].words == "300 a process, n2; a rank of 3 needs 216"
    assert found["clocks"].words == "0.500 s apart"
    assert found["all-reduce"].words == "3.00 GiB/s of each rank"
    assert found["signals"].words == "USR2 reaches every rank"
    assert found["GPU memory"].words == "no uncorrected errors"
    assert all(finding.is_well for finding in found.values())


@pytest.mark.parametrize(
    ("name", "change"), [("clocks", {"clock": 1001.0}), ("all-reduce", {"all_reduce_gib_per_second": 0.01})]
)
def test_a_limit_that_is_met_exactly_is_not_well(name: str, change: dict[str, object]) -> None:
    assert list(unwell(report(0), report(1, **change))) == [name]


def test_ranks_of_one_node_that_see_different_gpus_are_told() -> None:
    found = unwell(report(0, node="n"), report(1, node="n", gpus=["H100"] * 3))
    assert found["GPUs"].startswith("n: 3 or 4; the nodes differ")
    blind = unwell(report(0, gpus=[]), report(1, gpus=[]))
    assert "the profile asks for GPUs and torch sees none" in blind["GPUs"]


@pytest.mark.parametrize(
    ("profile", "is_asked"),
    [
        (ClusterConfig(), False),
        (ClusterConfig(gpus_per_node=1), True),
        (ClusterConfig(gres="gpu:1"), True),
        (ClusterConfig(gres="tmpdisk:100"), False),
        (ClusterConfig(srun_arguments=("--gpus-per-task=1",)), True),
    ],
)
def test_gpus_are_missed_where_the_profile_asks_for_them(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: ClusterConfig, is_asked: bool
) -> None:
    here.commands = ["sbatch"]
    answer = job.Answer("7", [report(0, gpus=[])], "RUNNING", "")
    monkeypatch.setattr(job, "run", lambda *_: answer)
    found = {each.name: each for each in examination.of_cluster(profile, tmp_path)}
    assert found["GPUs"].is_well != is_asked


def test_a_job_that_printed_nothing_says_so(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here.commands = ["sbatch"]
    monkeypatch.setattr(job, "run", lambda *_: job.Answer("7", [], "job 7 is FAILED", ""))
    [found] = examination.of_cluster(ClusterConfig(), tmp_path)
    assert (found.is_well, found.remedy) == (False, "it printed: nothing")
    assert found.words == "0 of 1 ranks of job 7 answered; job 7 is FAILED"
