import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

import accounting
import pytest
from lab import Lab, missing, perceiver

from data_shards.sources import digits
from launch.lifecycle import cluster
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder
from launch.run.frozen_code import freeze

PROBE = Path(__file__).parent / "probe"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.slurm)
        item.add_marker(pytest.mark.slow)
        # Several waits, each of which may take minutes on a machine that does other things too.
        item.add_marker(pytest.mark.timeout(900))
    # The long ones first, each with a short one: a process of xdist's begins with two tests.
    trains = [item for item in ours if item.path == here / "test_training.py"]
    others = [item for item in ours if item not in trains]
    shorts = [others.pop() for _ in trains if others]
    first = [item for pair in zip_longest(trains, shorts) for item in pair if item]
    items[:] = first + others + [item for item in items if item not in ours]


def _require_slurm(*programs: str) -> None:
    reason = missing(*programs)
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def flat() -> Iterator[Lab]:
    """Four nodes of names only; warns before a preemption."""
    _require_slurm()
    with Lab(control_parameters="preempt_send_user_signal") as lab:
        yield lab


@pytest.fixture(scope="session")
def unwarned() -> Iterator[Lab]:
    """Four nodes of names only, where a preemption is CONT and TERM."""
    _require_slurm()
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="session")
def accounted() -> Iterator[Lab]:
    """Four nodes of names only, with a database that lets no job in whose workload key it does not know."""
    _require_slurm(*accounting.PROGRAMS)
    with Lab(accounted=True) as lab:
        yield lab


@pytest.fixture
def networked() -> Iterator[Lab]:
    """Four nodes with networks and processes of their own, which can be cut off and powered off."""
    _require_slurm()
    with Lab(networked=True, control_parameters="preempt_send_user_signal") as lab:
        yield lab


@pytest.fixture
def probe_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """Make a run whose training is the probe: the rest of its frozen code is ours."""
    source = probe_source(tmp_path / "source")

    def make(name: str = "run", **settings: object) -> RunFolder:
        folder = RunFolder(tmp_path / name)
        folder.create()
        freeze(folder.code_folder, source)
        folder.config_path.write_text(json.dumps(settings))
        return folder

    return make


def probe_source(source: Path) -> Path:
    """Make a copy of the code that a user might work on, with the probe in the place of the training."""
    freeze(source)
    shutil.copy(PROBE / "train.py", source / "launch" / "run" / "composition.py")
    shutil.copy(PROBE / "run.py", source / "configs" / "run.py")
    return source


@pytest.fixture
def submit_array(tmp_path: Path) -> Callable[..., list[str]]:
    """Submit runs to a lab, several as one array, and return the id of each one's job."""

    def send(lab: Lab, *folders: RunFolder, **changes: object) -> list[str]:
        profile = tmp_path / f"{folders[0].path.name}.yaml"
        profile.write_text(cluster.dump(ClusterConfig(**{"minutes": 10, "straggler_seconds": 5, **changes})))
        result = lab.run(sys.executable, PROBE / "submit.py", profile, *(folder.path for folder in folders))
        assert result.returncode == 0, result.stderr
        return result.stdout.split()

    return send


@pytest.fixture
def submit(submit_array: Callable[..., list[str]]) -> Callable[..., str]:
    """Submit a run to a lab and return the job's id."""

    def send(lab: Lab, folder: RunFolder, **changes: object) -> str:
        (job_id,) = submit_array(lab, folder, **changes)
        return job_id

    return send


@pytest.fixture(scope="session")
def digits_config() -> Path:
    return Path(cluster.__file__).parents[2] / "configs" / "digits.yaml"


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the digits, which one process of tests builds for all: that takes 10 s of a processor."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "digits"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            digits.build(folder, num_jobs=1)
    return folder


@pytest.fixture
def submit_digits(digits_config: Path, shards: Path, tmp_path: Path) -> Callable[..., tuple[str, RunFolder]]:
    """Submit a short training of the digits by the command line; return its job's id and its folder."""

    def send(lab: Lab, name: str, *overrides: str, **changes: object) -> tuple[str, RunFolder]:
        profile = tmp_path / f"{name}.yaml"
        defaults = {"straggler_seconds": 30, "network_interface": lab.interface}
        profile.write_text(cluster.dump(ClusterConfig(**{**defaults, **changes})))
        folder = RunFolder(tmp_path / name)
        words = [digits_config, f"data.shards={shards}", *overrides, "--run", folder.path, "--cluster", profile]
        return perceiver(lab, "submit", *words, "--json")["job_id"], folder

    return send
