"""The doctor's job is asked for, told of, signalled and gone with its folder, however it ends."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launch import doctor, doctor_job
from launch.cluster import ClusterConfig

Commands = Callable[..., Callable[[str], list[str]]]
PROFILE = ClusterConfig(nodes=2)
# Keeps the script, and lets as many ranks meet as there are nodes.
SBATCH = """cat > script
eval "$(grep '^CODE=' script)"
echo "$FOLDER" > folder
sed -n 's/^#SBATCH --job-name=//p' script > name
for rank in 1 0; do echo '{}' > $FOLDER/ready_$rank.json; done
echo printed by the job > $FOLDER/7_0_log.out
echo 7"""
SQUEUE = """case "$*" in
*--jobs=*) echo "$(cat state)|n[1-2]|$(cat name)|(null)";;
*) cat left 2> /dev/null || true;;
esac"""
# Once they are signalled the ranks report.
SCANCEL = """case "$*" in
*--signal*) for rank in 1 0; do echo "{\\"rank\\": $rank}" > $(cat folder)/report_$rank.json; done;;
*) rm -f left;;
esac"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses of the doctor, which are short."""
    pauses: list[float] = []
    pause = time.sleep

    def shortly(seconds: float) -> None:
        pauses.append(seconds)
        pause(min(seconds, 0.005))

    monkeypatch.setattr(time, "sleep", shortly)
    return pauses


def put(commands: Commands, tmp_path: Path, state: str, **texts: str) -> Callable[[str], list[str]]:
    asked = commands(**{"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL, **texts})
    (tmp_path / "stand_ins" / "state").write_text(state)
    return asked


def test_all_ranks_meet_are_signalled_and_report(
    commands: Commands, tmp_path: Path, quick: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = put(commands, tmp_path, "RUNNING|None")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    (tmp_path / "runs").mkdir()
    answer = doctor_job.run(PROFILE, tmp_path / "runs")
    assert (answer.job_id, [report["rank"] for report in answer.reports]) == ("7", [0, 1])
    assert answer.printed == "printed by the job\n"
    assert asked("scancel")[0] == "--signal=USR2 7"
    assert len([line for line in asked("scancel") if "--signal" in line]) == 1
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert list((tmp_path / "runs").iterdir()) == []
    told = capsys.readouterr().err
    assert "doctor: job 7 asks for 2 ranks on 2 nodes, 10 minutes" in told
    assert "doctor: all ranks have met" in told
    assert "doctor: job 7 is RUNNING on n[1-2]\n" in told
    # Slurm may learn of a submission that was broken off a moment after it.
    assert len([line for line in asked("squeue") if "--name=" in line]) >= 2


def test_a_job_that_is_left_is_cancelled_by_its_name(commands: Commands, tmp_path: Path, quick: list[float]) -> None:
    asked = put(commands, tmp_path, "RUNNING|None", sbatch=f"echo 7 > left\n{SBATCH}")
    doctor_job.run(PROFILE, tmp_path)
    name = (tmp_path / "stand_ins" / "name").read_text().strip()
    assert name.startswith("doctor-")
    assert f"--noheader --name={name} --format=%A" in asked("squeue")
    assert asked("scancel")[-1] == "7"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("PENDING|Resources", "job 7 is PENDING (Resources), and the doctor waits no longer than"),
        ("FAILED|NonZeroExitCode", "job 7 is FAILED (NonZeroExitCode)"),
    ],
)
def test_a_job_of_which_no_rank_reports_is_told_with_its_state(
    commands: Commands, tmp_path: Path, quick: list[float], monkeypatch: pytest.MonkeyPatch, state: str, words: str
) -> None:
    asked = put(commands, tmp_path, state, sbatch=SBATCH.replace("for rank in 1 0", "for rank in 1"))
    monkeypatch.setattr(doctor_job, "WAIT_SECONDS", 0.3)
    [finding] = doctor.of_cluster(PROFILE, tmp_path)
    assert not finding.is_well
    assert f"0 of 2 ranks of job 7 answered; {words}" in finding.words
    assert "printed by the job" in finding.remedy
    assert not [line for line in asked("scancel") if "--signal" in line], "one of two ranks was there"


def test_a_job_that_slurm_forgot_and_one_that_does_not_end_are_told(
    commands: Commands,
    tmp_path: Path,
    quick: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor_job, "LEAVE_SECONDS", 0.2)
    put(commands, tmp_path, "", squeue='case "$*" in *--name=*) echo 7; echo 8;; esac', scancel="exit 1")
    assert doctor_job.run(PROFILE, tmp_path).state == "Slurm forgot it"
    assert "job 7, 8 does not end; see squeue" in capsys.readouterr().err
    put(commands, tmp_path, "", squeue="echo away >&2; exit 1")
    monkeypatch.setattr(doctor_job, "WAIT_SECONDS", 0.2)
    doctor_job.run(PROFILE, tmp_path)
    assert "squeue: away; end the job with: scancel --name=doctor-" in capsys.readouterr().err


def test_a_signal_ends_the_doctor_in_order(commands: Commands, tmp_path: Path, quick: list[float]) -> None:
    asked = put(commands, tmp_path, "PENDING|Resources", sbatch=f"{SBATCH}; echo 7 > left; kill -TERM $PPID")
    (tmp_path / "runs").mkdir()
    with pytest.raises(SystemExit) as leaving:
        doctor_job.run(PROFILE, tmp_path / "runs")
    assert leaving.value.code == 128 + signal.SIGTERM
    assert asked("scancel") == ["7"]
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_time_limit_shorter_than_the_doctor_s_stays(commands: Commands, tmp_path: Path, quick: list[float]) -> None:
    put(commands, tmp_path, "RUNNING|None")
    short = ClusterConfig(nodes=2, minutes=5, signal_seconds=40, python="mine", setup=("true",))
    assert len(doctor_job.run(short, tmp_path).reports) == 2
    script = (tmp_path / "stand_ins" / "script").read_text()
    assert {"#SBATCH --time=5", "#SBATCH --signal=USR2@40", "#SBATCH --nodes=2"} <= set(script.splitlines())
    assert "mine -u -m launch.doctor_rank" in script
    assert "export MASTER_PORT=2" in script or "export MASTER_PORT=3" in script
