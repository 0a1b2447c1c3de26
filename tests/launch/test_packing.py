"""An environment is packed once, unpacked once a node however many ranks start there, and gone when none runs it."""

import os
import subprocess
import sys
import tarfile
import time
import venv
from pathlib import Path

import pytest

from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder
from launch.slurm import door, packing
from launch.slurm.packing import CLEAN, UNPACK, archive, pack

TAR = """#!/bin/sh
echo unpacked >> {log}
exec /bin/tar "$@"
"""
WHERE = "import marker, sys; print(sys.prefix, marker.WORD)"


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Return a small environment with a module of its own."""
    prefix = tmp_path / "shared" / "env"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (prefix / "lib" / version / "site-packages" / "marker.py").write_text("WORD = 'packed'\n")
    return prefix


@pytest.fixture
def cluster(tmp_path: Path) -> ClusterConfig:
    return ClusterConfig(pack_folder=str(tmp_path / "packed"), unpack_folder="$SCRATCH")


def variables(tmp_path: Path, packed: Path, folder: Path) -> dict[str, str]:
    commands = tmp_path / "commands"
    commands.mkdir(exist_ok=True)
    (commands / "tar").write_text(TAR.format(log=tmp_path / "log"))
    (commands / "tar").chmod(0o755)
    return {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PERCEIVER_PACKED": str(packed),
        "PERCEIVER_UNPACK": "$SCRATCH",
        "SCRATCH": str(folder),
        "PERCEIVER_JOB": "12",
        "PERCEIVER_ATTEMPT": "1",
    }


def rank(environment: Path, variables: dict[str, str], words: str = WHERE, before: str = "") -> "subprocess.Popen[str]":
    start = [f'{before}{UNPACK}exec "$@"', "code", str(environment / "bin/python"), "-c", words]
    return subprocess.Popen(
        ["sh", "-c", *start], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_an_environment_is_packed_once_and_again_when_it_has_changed(
    tmp_path: Path, environment: Path, cluster: ClusterConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pack(cluster, environment)
    assert path is not None
    assert f"packed {environment}, 0.00 GiB, into {path}" in capsys.readouterr().err
    written = path.stat().st_mtime_ns
    assert pack(cluster, environment) == archive(cluster, environment) == path
    assert path.stat().st_mtime_ns == written
    assert capsys.readouterr().err == ""
    with tarfile.open(path) as tar:
        assert {"bin/python", "pyvenv.cfg"} <= set(tar.getnames())
    (environment / "pyvenv.cfg").touch()
    assert archive(cluster, environment) != path
    assert archive(ClusterConfig(), environment) is None


def test_many_ranks_of_a_node_unpack_once_and_all_run_from_there(
    tmp_path: Path, environment: Path, cluster: ClusterConfig
) -> None:
    packed = pack(cluster, environment)
    assert packed is not None
    known = variables(tmp_path, packed, tmp_path / "local")
    ranks = [rank(environment, known) for _ in range(6)]
    said = [each.communicate(timeout=120) for each in ranks]
    place = tmp_path / "local" / f"perceiver-{packed.stem}-{os.getuid()}"
    assert said == [(f"{place} packed\n", "")] * 6
    assert (tmp_path / "log").read_text().splitlines() == ["unpacked"]


def test_a_disk_without_room_is_told_once_a_node_and_the_ranks_start_from_where_the_environment_is(
    tmp_path: Path, environment: Path, cluster: ClusterConfig
) -> None:
    (environment / "large").write_bytes(bytes(1 << 20))
    packed = pack(cluster, environment)
    assert packed is not None
    # No file may have more than 64 blocks: the large one ends tar as a full disk would.
    known = variables(tmp_path, packed, tmp_path / "local")
    full = [rank(environment, known, before="ulimit -f 64;") for _ in range(3)]
    said = [each.communicate(timeout=120) for each in full]
    assert [printed for printed, _ in said] == [f"{environment} packed\n"] * 3
    told = "".join(errors for _, errors in said)
    assert told.count(f"{packed} cannot be unpacked into {tmp_path}/local; its ranks start from {environment}") == 1
    assert not list((tmp_path / "local").glob("*.part"))
    (tmp_path / "file").touch()
    nowhere = rank(environment, variables(tmp_path, packed, tmp_path / "file/inside"))
    printed, errors = nowhere.communicate(timeout=120)
    assert printed == f"{environment} packed\n"
    assert f"{tmp_path}/file/inside takes no file, or there is no flock; this rank starts from" in errors


def test_what_was_unpacked_is_gone_once_no_rank_of_any_job_runs_it(
    tmp_path: Path, environment: Path, cluster: ClusterConfig
) -> None:
    packed = pack(cluster, environment)
    assert packed is not None
    known = variables(tmp_path, packed, tmp_path / "local")
    start = ["sh", "-c", f'{UNPACK}exec "$@"', "code", str(environment / "bin/python"), "-c", "print('runs'); input()"]
    runs = subprocess.Popen(start, env=known, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    place = tmp_path / "local" / f"perceiver-{packed.stem}-{os.getuid()}"
    try:
        deadline = time.monotonic() + 60
        while not Path(f"/proc/{runs.pid}/exe").readlink().name.startswith("python") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert subprocess.run(["sh", "-c", CLEAN], env=known, check=False, timeout=60).returncode
        assert place.exists()
        runs.communicate("done\n", timeout=60)
        subprocess.run(["sh", "-c", CLEAN], env=known, check=True, timeout=60)
    finally:
        runs.kill()
    assert list((tmp_path / "local").iterdir()) == []


def test_the_pythons_of_the_system_are_not_packed(cluster: ClusterConfig) -> None:
    with pytest.raises(ValueError, match=r"is the system's own; submit with that of an environment"):
        archive(cluster, Path("/usr"))


def test_an_environment_that_cannot_be_packed_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, environment: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be packed \(.+\); free space, or name another"):
        pack(ClusterConfig(pack_folder=str(tmp_path / "file")), environment)


def test_the_script_of_a_job_unpacks_before_its_ranks_and_cleans_up_after_them(tmp_path: Path) -> None:
    asked = ClusterConfig(pack_folder=str(tmp_path), unpack_folder="$SCRATCH", srun_arguments=("--mpi=none",))
    text = door.script([RunFolder(tmp_path / "run")], asked, job_name="job", packed=tmp_path / "environment-1.tar")
    lines = [f"export PERCEIVER_PACKED={tmp_path}/environment-1.tar", "export PERCEIVER_UNPACK='$SCRATCH'"]
    assert all(line in text.splitlines() for line in lines)
    places = [
        text.index(part) for part in (*lines, "srun --kill", "flock -s 9", "timeout 60 srun", "launch.slurm.batch end")
    ]
    assert places == sorted(places)
    plain = door.script([RunFolder(tmp_path / "run")], ClusterConfig(), job_name="job")
    assert "PERCEIVER_PACKED" not in plain
    assert "flock" not in plain


@pytest.mark.parametrize("folder", ["relative", "$(touch x)", "/tmp/`id`", "/tmp/a b", "/tmp;x", "${TMPDIR}"])
def test_a_folder_that_a_shell_would_run_is_refused(folder: str) -> None:
    assert [key for key, _ in ClusterConfig(unpack_folder=folder).problems()] == ["unpack_folder"]


def test_what_starts_elsewhere_is_not_packed() -> None:
    asked = ClusterConfig(pack_folder="/shared", python="apptainer exec image.sif python")
    assert [key for key, _ in asked.problems()] == ["pack_folder"]
    assert not list(ClusterConfig(pack_folder="/shared", unpack_folder="$TMPDIR/of-$USER/x").problems())
    assert packing.variables(ClusterConfig(), Path("/a"))[1] == "export PERCEIVER_UNPACK='${TMPDIR:-/tmp}'"
