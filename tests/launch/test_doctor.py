"""What the doctor concludes from what the ranks found, and its remedies in words."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from launch import cluster, doctor, doctor_rank
from launch.cluster import ClusterConfig


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
    findings = doctor.judge(reports, asks_for_gpus=asks_for_gpus)
    return {each.name: f"{each.words}; {each.remedy}" for each in findings if not each.is_well}


def test_ranks_that_agree_and_are_healthy_are_well() -> None:
    assert unwell(report(0), report(1)) == {}
    assert unwell(report(0, gpus=[]), report(1, gpus=[]), asks_for_gpus=False) == {}
    words = {found.name: found.words for found in doctor.judge([report(0), report(1)], asks_for_gpus=True)}
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
            "64 a process, n1; a rank of 2 needs 196; raise the hard limit",
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
    assert doctor.main(str(refusing), tmp_path / "runs", as_json=True) == 1
    findings = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert {"versions", "write speed", "free disk", "job"} <= findings.keys()
    assert "Invalid account" in findings["job"]["words"]
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_job_of_the_doctor_is_short_and_does_not_come_back(refusing: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    doctor.main(str(refusing), tmp_path / "runs")
    lines = (tmp_path / "commands" / "sbatch.script").read_text().splitlines()
    assert {"#SBATCH --time=10", "#SBATCH --signal=USR2@300", "#SBATCH --no-requeue"} <= set(lines)
    assert "#SBATCH --requeue" not in lines


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder; make it"):
        doctor.main(None, tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written_is_a_finding_among_others(
    refusing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nobody may write here, root included.
    assert doctor.main(str(refusing), Path("/proc"), as_json=True) == 1
    findings = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert "--folder" in findings["write speed"]["remedy"]
    assert "/proc/.doctor-" in findings["job"]["words"]
    assert findings["versions"]["is_well"]
