"""On a real Slurm the ranks run from what their node unpacked, and nothing of it is left when they have ended."""

import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Lab

from launch.lifecycle import attempts, cluster
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder

SUBMIT = Path(__file__).parent / "probe" / "submit.py"
TELLS = """
import os, sys
if "PERCEIVER_ATTEMPT" in os.environ and "SLURM_PROCID" in os.environ:
    with open(os.environ["SEEN"], "a") as file:
        file.write(sys.prefix + "\\n")
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Return a small environment that borrows the packages of this one, and tells from where each rank runs it."""
    prefix = tmp_path / "env"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(prefix)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(prefix)}))
    (packages / "borrowed.pth").write_text("\n".join(path for path in sys.path if Path(path).is_dir()) + "\n")
    (packages / "sitecustomize.py").write_text(TELLS)
    return prefix


@pytest.mark.parametrize("place", ["local", "file/local"])
def test_ranks_run_from_their_nodes_copy_or_say_why_not_and_leave_nothing(
    flat: Lab, probe_run: Callable[..., RunFolder], environment: Path, tmp_path: Path, place: str
) -> None:
    folder, seen = probe_run(steps=3), tmp_path / "seen"
    (tmp_path / "file").touch()
    profile = ClusterConfig(
        nodes=2,
        processes_per_node=2,
        minutes=10,
        straggler_seconds=60,
        environment={"SEEN": str(seen)},
        pack_folder=str(tmp_path / "packed"),
        unpack_folder=str(tmp_path / place),
    )
    (tmp_path / "profile.yaml").write_text(cluster.dump(profile))
    sent = flat.run(environment / "bin/python", SUBMIT, tmp_path / "profile.yaml", folder.path, timeout=250)
    assert sent.returncode == 0, sent.stderr
    job_id = sent.stdout.strip()
    flat.wait_for_state(job_id, "COMPLETED")
    [packed] = (tmp_path / "packed").iterdir()
    assert f"into {packed}" in sent.stderr
    places = set(seen.read_text().splitlines())
    printed = "".join(path.read_text() for path in folder.logs_folder.glob("*.out"))
    if place == "local":
        [used] = places - {str(environment)}
        assert used.startswith(f"{tmp_path}/local/perceiver-{packed.stem}-")
        assert seen.read_text().splitlines().count(used) == 4
        assert list((tmp_path / "local").iterdir()) == []
        assert "starts from" not in printed
    else:
        assert places == {str(environment)}
        assert printed.count(f"{tmp_path}/file/local takes no file, or there is no flock; this rank starts from") == 4
    assert [record.status for record in attempts.ranks(folder, 1)] == [0] * 4
