"""The batch script as bash runs it, with stand-ins for srun and scontrol: no Slurm, no torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.lifecycle import attempts
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder
from launch.run.frozen_code import freeze
from launch.schedulers import submission
from launch.slurm import door

RUN = """#!/bin/bash
# Like srun without and pyxis with a container: the task starts somewhere else.
while [[ "$1" == --* ]]; do echo "$1" >> "$REPORT.options"; shift; done
cd / && exec "$@"
"""
PYTHON = """#!/bin/bash
if [ "$1" = -c ]; then exec {packages}; fi
echo "$NAME in $PWD with ${{FROM_SETUP-nothing}} ${{GREETING-nothing}}: $*" >> "$REPORT"
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Return a run with frozen code."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    freeze(folder.code_folder)
    return folder


def execute(folder: RunFolder, profile: ClusterConfig, tmp_path: Path) -> tuple[int, str, list[str]]:
    """Return the script's status, what it printed as errors, and a line of each of its ranks."""
    report, commands = tmp_path / "report", tmp_path / "commands"
    commands.mkdir(exist_ok=True)
    files = {"srun": RUN, "scontrol": "#!/bin/sh\necho n1\n"}
    for name in ("submitting", "of_setup", "blind"):
        files[f"{name}/python"] = PYTHON.format(packages="false" if name == "blind" else "true")
    for name, text in files.items():
        (commands / name).parent.mkdir(exist_ok=True)
        (commands / name).write_text(text.replace("$NAME", name.partition("/")[0]))
        (commands / name).chmod(0o755)
    environment = {
        "PATH": f"{commands}:{commands / 'submitting'}:{os.environ['PATH']}",
        "REPORT": str(report),
        "SLURM_JOB_ID": "12",
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_JOB_NUM_NODES": "1",
    }
    text = door.script([folder], profile, job_name="job").replace(f"={sys.executable}\n", "=python\n")
    (tmp_path / "script.sh").write_text(text)
    result = subprocess.run(
        ["bash", tmp_path / "script.sh"], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return result.returncode, result.stderr, report.read_text().splitlines() if report.exists() else []


def test_ranks_start_in_the_code_of_the_run_wherever_their_container_starts(run: RunFolder, tmp_path: Path) -> None:
    status, errors, ranks = execute(run, ClusterConfig(), tmp_path)
    assert ranks == [f"submitting in {run.code_folder} with nothing nothing: -u -m launch.supervise.rank {run.path}"], (
        errors
    )
    assert status == 0
    assert "--export=ALL" in (tmp_path / "report.options").read_text().splitlines()


@pytest.mark.parametrize(
    "setup",
    [
        ("module load nowhere",),
        ("module() { echo no such module >&2; return 1; }", "module load nowhere  # it's missing"),
        ("true", "false", "true"),
        ("set -e", "false"),
        ("echo one\nfalse\necho two",),
        ("source /nowhere/conda.sh",),
        ("if true; then", "  false", "fi"),
    ],
)
def test_a_line_of_the_setup_that_fails_ends_the_job_with_a_sentence(
    setup: tuple[str, ...], run: RunFolder, tmp_path: Path
) -> None:
    status, errors, ranks = execute(run, ClusterConfig(setup=setup), tmp_path)
    assert (status, ranks) == (2, [])
    assert "perceiver: a line of the setup in the profile failed with status" in errors
    assert any(line.strip() in errors for entry in setup for line in entry.splitlines())
    assert not list(run.attempts_folder.glob("*"))


@pytest.mark.parametrize("setup", [("exit 0",), ("set -u", "echo $NO_SUCH_VARIABLE"), ("leave() { exit 7; }", "leave")])
def test_a_setup_that_leaves_the_script_is_told_and_is_no_success(
    setup: tuple[str, ...], run: RunFolder, tmp_path: Path
) -> None:
    status, errors, ranks = execute(run, ClusterConfig(setup=setup), tmp_path)
    assert (status, ranks) == (2, [])
    assert "a line of the setup in the profile failed with status" in errors
    assert "it left the script" in errors


def test_what_may_fail_in_the_setup_does_not_end_the_job(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "activate.sh").write_text("false\nexport FROM_SETUP=sourced\n")
    setup = ("grep -q x /dev/null || true", "[ -d /nowhere ] && cd /nowhere || true", f"source {tmp_path}/activate.sh")
    status, errors, ranks = execute(run, ClusterConfig(setup=setup), tmp_path)
    assert status == 0, errors
    assert "with sourced" in ranks[0]


def test_strict_shell_options_of_the_setup_do_not_keep_the_run_from_its_restart(run: RunFolder, tmp_path: Path) -> None:
    # The ranks fail, and what follows them is run all the same.
    profile = ClusterConfig(setup=("set -euo pipefail",), python="false")
    status, errors, _ = execute(run, profile, tmp_path)
    assert "attempt 1 ended with status 1" in errors
    assert status == 1


def test_an_environment_that_the_setup_activates_reaches_the_ranks(run: RunFolder, tmp_path: Path) -> None:
    activate = f"export PATH={tmp_path}/commands/of_setup:$PATH FROM_SETUP=yes"
    profile = ClusterConfig(setup=(f"conda() {{ {activate}; }}", "conda activate trainer"))
    assert execute(run, profile, tmp_path)[2][0].startswith(f"of_setup in {run.code_folder} with yes")
    named = ClusterConfig(setup=profile.setup, python=f"{tmp_path}/commands/submitting/python")
    assert execute(run, named, tmp_path)[2][1].startswith(f"submitting in {run.code_folder} with yes")


def test_a_python_of_the_setup_that_cannot_train_is_passed_over_and_told(run: RunFolder, tmp_path: Path) -> None:
    profile = ClusterConfig(setup=(f"export PATH={tmp_path}/commands/blind:$PATH",))
    _, errors, ranks = execute(run, profile, tmp_path)
    assert f"the python of the setup, {tmp_path}/commands/blind/python, has no torch or no deepspeed" in errors
    # By its name the stand-in for the python that submits is found in the new PATH.
    assert len(ranks) == 1


def test_the_status_of_the_ranks_decides_what_follows(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "image").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "image").chmod(0o755)
    status, errors, _ = execute(run, ClusterConfig(python=f"{tmp_path}/image"), tmp_path)
    assert status == 3, errors
    assert "attempt 1 ended with status 3: failed with status 3, failure 1 of 3" in errors
    options = (tmp_path / "report.options").read_text().splitlines()
    assert {"--kill-on-bad-exit=0", "--wait=60", "--cpus-per-task=1"} <= set(options)
    assert attempts.history(run)[0].status == 3


def test_variables_of_the_profile_are_not_taken_for_the_script_s_own(run: RunFolder, tmp_path: Path) -> None:
    values = {"RUN": "elsewhere", "PERCEIVER_JOB": "7", "GREETING": "it's $me\nand you"}
    status, errors, ranks = execute(run, ClusterConfig(environment=values, setup=("RUN=/nowhere",)), tmp_path)
    assert status == 0, errors
    assert "it's $me" in ranks[0]
    assert f"-u -m launch.supervise.rank {run.path}" in ranks[1]


def test_an_open_quote_in_the_setup_is_refused_before_the_queue(run: RunFolder) -> None:
    with pytest.raises(ValueError, match="setup in the profile is not valid shell"):
        door.script([run], ClusterConfig(setup=('echo "never closed',)), job_name="job")


@pytest.mark.parametrize("name", ["a\ntouch pwned", "a\rb", "back\\slash"])
def test_a_path_that_the_script_cannot_hold_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must have no line break"):
        door.script([RunFolder(tmp_path / name)], ClusterConfig(), job_name="job")


def test_a_percent_in_the_name_of_a_run_is_no_placeholder_of_slurm() -> None:
    folders = [RunFolder(Path(f"/shared/50%j %A {name}")) for name in ("a\u00a0", "b")]
    single, array = (door.script(some, ClusterConfig(), job_name="job") for some in (folders[:1], folders))
    assert "#SBATCH --output='/shared/50%%j %%A a\u00a0/logs/%j_0_log.out'" in single.splitlines()
    assert "#SBATCH --output='/shared/50%%j %%A a\u00a0/logs/%A_%a_0_log.out'" in array.splitlines()


def test_an_option_of_sbatch_that_is_on_or_off_has_no_value() -> None:
    asked = {"exclusive": True, "oversubscribe": False, "no_requeue": True, "nice": 100}
    lines = door.script([RunFolder(Path("/run"))], ClusterConfig(sbatch=asked), job_name="job").splitlines()
    assert {"#SBATCH --exclusive", "#SBATCH --no-requeue", "#SBATCH --nice=100"} <= set(lines)
    assert not [line for line in lines if "oversubscribe" in line or line == "#SBATCH --requeue"]


def test_two_jobs_of_one_run_have_different_names_without_placeholders() -> None:
    folder = RunFolder(Path("/shared/50%j\n of it"))
    names = {submission.job_name(folder) for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("50_j__of_it-") for name in names)


def test_all_tasks_of_an_array_may_run_at_once() -> None:
    folders = [RunFolder(Path(f"/shared/{number}")) for number in range(300)]
    assert "#SBATCH --array=0-299%300" in door.script(folders, ClusterConfig(), job_name="job").splitlines()
