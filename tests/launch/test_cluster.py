from pathlib import Path

import pytest

from launch import cluster
from launch.cluster import ClusterConfig


@pytest.mark.parametrize("name", ["plain", "preemptible", "containers"])
def test_the_examples_are_valid_and_survive_being_written_down(name: str, tmp_path: Path) -> None:
    profile = cluster.load(name)
    copy = tmp_path / "copy.yaml"
    copy.write_text(cluster.dump(profile))
    assert cluster.load(str(copy)) == profile


def test_numbers_of_the_command_line_win_over_the_profile_and_zero_leaves_it() -> None:
    assert cluster.load("plain", nodes=5, minutes=0) == ClusterConfig(
        nodes=5, processes_per_node=4, gpus_per_node=4, cpus_per_process=8, minutes=1440
    )


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("nodes: 0\nminutes: 1\nsignal_seconds: 60\ngres: gpu:4\ngpus_per_node: 4\nprocesses_per_node: 8\n")
    with pytest.raises(ValueError, match="4 problems") as caught:
        cluster.load(str(path))
    for key in ("nodes = 0", "signal_seconds = 60", "gres = 'gpu:4'", "processes_per_node = 8"):
        assert key in str(caught.value)


def test_an_unknown_profile_and_an_unknown_key_are_answered_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of containers, plain, preemptible"):
        cluster.load("plane")
    (tmp_path / "typo.yaml").write_text("nodez: 2\n")
    with pytest.raises(ValueError, match="nodez = 2: unknown key"):
        cluster.load(str(tmp_path / "typo.yaml"))
