"""The doctor's job is asked for, told of, signalled and gone with its folder, however it ends."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from launch.doctor import examination, job
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.scheduler import Job

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
    answer = job.run(PROFILE, tmp_path / "runs")
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
    assert len([line for line in asked("squeue") if "--name=" in line]) == 3
    assert [pause for pause in quick if pause >= 0.5] == [0.5, 0.5]


def test_the_ranks_are_signalled_once_however_long_they_take(
    commands: Commands, tmp_path: Path, quick: list[float]
) -> None:
    late = """case "$*" in
*--jobs=*) echo look >> looks
    if [ $(wc -l < looks) -ge 4 ]; then
        for rank in 1 0; do echo "{\\"rank\\": $rank}" > $(cat folder)/report_$rank.json; done
    fi
    echo "$(cat state)|n[1-2]|$(cat name)|(null)";;
esac"""
    asked = put(commands, tmp_path, "RUNNING|None", squeue=late, scancel=":")
    (tmp_path / "runs").mkdir()
    assert [report["rank"] for report in job.run(PROFILE, tmp_path / "runs").reports] == [0, 1]
    assert len([words for words in asked("scancel") if "--signal" in words]) == 1


def test_a_job_that_is_left_is_cancelled_by_its_name(commands: Commands, tmp_path: Path, quick: list[float]) -> None:
    asked = put(commands, tmp_path, "RUNNING|None", sbatch=f"echo 7 > left\n{SBATCH}")
    job.run(PROFILE, tmp_path)
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
    monkeypatch.setattr(job, "WAIT_SECONDS", 0.3)
    [finding] = examination.of_cluster(PROFILE, tmp_path)
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
    monkeypatch.setattr(job, "LEAVE_SECONDS", 0.2)
    put(commands, tmp_path, "", squeue='case "$*" in *--name=*) echo 7; echo 8;; esac', scancel="exit 1")
    assert job.run(PROFILE, tmp_path).state == "Slurm forgot it"
    assert "job 7, 8 does not end; see squeue" in capsys.readouterr().err
    put(commands, tmp_path, "", squeue="echo away >&2; exit 1")
    monkeypatch.setattr(job, "WAIT_SECONDS", 0.2)
    job.run(PROFILE, tmp_path)
    assert "squeue: away; end the job with: scancel --name=doctor-" in capsys.readouterr().err


def test_a_signal_ends_the_doctor_in_order(commands: Commands, tmp_path: Path, quick: list[float]) -> None:
    again = "for number in INT TERM HUP; do kill -$number $PPID; done"
    end = f"{SBATCH}; echo 7 > left; kill -TERM $PPID"
    # Another one while it cleans up keeps it from nothing.
    asked = put(commands, tmp_path, "PENDING|Resources", sbatch=end, scancel=f"{again}\nrm -f left")
    (tmp_path / "runs").mkdir()
    with pytest.raises(SystemExit) as leaving:
        job.run(PROFILE, tmp_path / "runs")
    assert leaving.value.code == 128 + signal.SIGTERM
    assert asked("scancel") == ["7"]
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_time_limit_shorter_than_the_doctor_s_stays(commands: Commands, tmp_path: Path, quick: list[float]) -> None:
    put(commands, tmp_path, "RUNNING|None")
    short = ClusterConfig(nodes=2, minutes=5, signal_seconds=40, python="mine", setup=("true",))
    assert len(job.run(short, tmp_path).reports) == 2
    script = (tmp_path / "stand_ins" / "script").read_text()
    assert {"#SBATCH --time=5", "#SBATCH --signal=USR2@40", "#SBATCH --nodes=2"} <= set(script.splitlines())
    assert "mine -u -m launch.doctor.rank" in script
    assert "export MASTER_PORT=$((20000 + SLURM_JOB_ID * 101 % 12000))" in script


def test_what_the_job_printed_is_told_from_its_end_whatever_its_bytes_are(
    commands: Commands, tmp_path: Path, quick: list[float]
) -> None:
    log = """head -c 3000 /dev/zero | tr '\\0' 'x' > $FOLDER/7_0_log.out
printf 'caf\\351 end' >> $FOLDER/7_0_log.out
echo 7"""
    put(commands, tmp_path, "RUNNING|None", sbatch=f"{SBATCH.removesuffix('echo 7')}{log}")
    answer = job.run(PROFILE, tmp_path)
    assert len(answer.printed) == 2000
    assert answer.printed.endswith("xcaf\ufffd end")


def test_the_job_is_called_as_its_folder_which_is_hidden_where_the_runs_will_be(
    commands: Commands, tmp_path: Path, quick: list[float], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    looks = 'echo "$FOLDER" > folder; ls -A $FOLDER > seen; echo "$CODE" > code'
    put(commands, tmp_path, "RUNNING|None", sbatch=SBATCH.replace('echo "$FOLDER" > folder', looks))
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    (tmp_path / "runs").mkdir()
    job.run(PROFILE, tmp_path / "runs")
    stand_ins = tmp_path / "stand_ins"
    folder = Path((stand_ins / "folder").read_text().strip())
    assert folder.parent == tmp_path / "runs"
    assert folder.name == f".{(stand_ins / 'name').read_text().strip()}"
    assert "token" in (stand_ins / "seen").read_text().split()
    assert (Path((stand_ins / "code").read_text().strip()) / "launch" / "doctor" / "rank.py").is_file()
    assert "not passed on from this shell: SBATCH_TIMELIMIT" in capsys.readouterr().err


def test_the_ranks_are_signalled_before_half_of_a_short_time_limit(
    commands: Commands, tmp_path: Path, quick: list[float]
) -> None:
    put(commands, tmp_path, "RUNNING|None")
    job.run(ClusterConfig(nodes=2, minutes=2, signal_seconds=100), tmp_path)
    lines = (tmp_path / "stand_ins" / "script").read_text().splitlines()
    assert {"#SBATCH --time=2", "#SBATCH --signal=USR2@60"} <= set(lines)
    job.run(ClusterConfig(nodes=2, minutes=600, signal_seconds=100), tmp_path)
    lines = (tmp_path / "stand_ins" / "script").read_text().splitlines()
    assert {"#SBATCH --time=10", "#SBATCH --signal=USR2@100"} <= set(lines)


@pytest.mark.usefixtures("heard_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_exit_with_its_number_and_one_that_is_ignored_stays_so(number: int) -> None:
    with pytest.raises(SystemExit) as leaving, job._ends_in_order():
        signal.raise_signal(number)
    assert leaving.value.code == 128 + number
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with job._ends_in_order():
            signal.raise_signal(number)
            assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_folder_that_is_written_once_more_is_removed_all_the_same(
    tmp_path: Path, quick: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[Path] = []
    remove = job.shutil.rmtree

    def late(path: Path, *, ignore_errors: bool) -> None:
        assert ignore_errors
        tries.append(path)
        if len(tries) == 3:
            remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(job.shutil, "rmtree", late)
    with job._shared(tmp_path) as shared:
        assert [path.name for path in shared.iterdir()] == ["token"]
    assert len(tries) == 3
    assert not shared.exists()
    tries.clear()
    monkeypatch.setattr(job.shutil, "rmtree", lambda path, **_: tries.append(path))
    with job._shared(tmp_path):
        pass
    assert len(tries) == 10, "a folder that stays is not waited for for ever"
    assert quick == [0.5] * 12


def test_a_state_is_told_once_and_again_when_it_changes(
    commands: Commands, tmp_path: Path, quick: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    states = """case "$*" in *--jobs=*)
    echo x >> looks
    case $(wc -l < looks) in 1|2|3) s="PENDING|Priority";; 4|5) s="RUNNING|None";; *) s="COMPLETED|None";; esac
    echo "$s||$(cat name)|(null)";;
esac"""
    put(commands, tmp_path, "", squeue=states, sbatch=SBATCH.replace("for rank in 1 0", "for rank in"))
    answer = job.run(PROFILE, tmp_path)
    told = [line for line in capsys.readouterr().err.splitlines() if "job 7 is" in line]
    assert told == [f"doctor: job 7 is {words}" for words in ("PENDING (Priority)", "RUNNING", "COMPLETED")]
    assert answer.state == "job 7 is COMPLETED"
    assert answer.reports == []


@pytest.mark.parametrize("reports_at", [None, 580.0, 600.0])
def test_a_job_may_wait_as_long_as_it_may_run_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports_at: float | None
) -> None:
    now = 0.0

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now == reports_at:
            (tmp_path / "report_0.json").write_text('{"rank": 0}')

    def find(*_: str) -> Job:
        return Job("PENDING" if now < 290 else "RUNNING", "", "n1")

    monkeypatch.setattr(job, "time", SimpleNamespace(monotonic=lambda: now, sleep=pause))
    monkeypatch.setattr(job.queue, "find", find)
    reports, state = job._wait(tmp_path, "7", "name", 1)
    if reports_at == 580.0:
        assert (now, reports, state) == (580.0, [{"rank": 0}], "job 7 is RUNNING")
    else:
        assert now == 590.0
        assert (reports, state) == ([], "job 7 is RUNNING, and the doctor waits no longer than 300 s")
