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


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ('partition: "gpu\\ntouch pwned"', "partition", "expected one line"),
        ("account: no", "account", "boolean of YAML"),
        ('python: "python\\ntouch pwned"', "python", "expected one line"),
        ('host_python: "a \'b"', "host_python", "open quote"),
        ('sbatch: {comment: "a\\nb"}', "sbatch.comment", "expected one line"),
        ('sbatch: {"comment x": a}', "sbatch", "long names of options"),
        ("sbatch: {time: 5}", "sbatch.time", "set minutes"),
        ("sbatch: {output: a.log}", "sbatch.output", "set by the run itself"),
        ("sbatch: {mem: 8G}\nmemory_gib: 8", "sbatch.mem", "set by memory_gib too"),
        ('environment: {"A; touch pwned": 1}', "environment", "names of letters"),
        ("environment: {FLAG: off}", "environment.FLAG", "boolean of YAML"),
        ("srun_arguments: [--export=NONE]", "srun_arguments", "keeps the run's variables from its ranks"),
    ],
)
def test_a_value_that_the_script_or_slurm_would_take_for_something_else_is_refused(
    text: str, key: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "profile.yaml").write_text(text)
    with pytest.raises(ValueError, match="1 problem in") as caught:
        cluster.load(str(tmp_path / "profile.yaml"))
    assert f"{key} = " in str(caught.value)
    assert words in str(caught.value)


def test_options_and_variables_keep_their_types_when_a_profile_is_written_down(tmp_path: Path) -> None:
    text = 'sbatch: {exclusive: true, oversubscribe: false, nice: 5}\nenvironment: {N: 4, FLAG: "off", TWO: "a\\nb"}\n'
    (tmp_path / "profile.yaml").write_text(text)
    profile = cluster.load(str(tmp_path / "profile.yaml"))
    assert profile.sbatch == {"exclusive": True, "oversubscribe": False, "nice": 5}
    (tmp_path / "copy.yaml").write_text(cluster.dump(profile))
    assert cluster.load(str(tmp_path / "copy.yaml")) == profile


def test_text_that_yaml_takes_for_a_number_stays_what_was_written(tmp_path: Path) -> None:
    text = "partition: 2024_10\naccount: 0123\nqos: 0x1f\nminutes: 1_000\nsbatch: {begin: 10:00, nice: 5}\n"
    (tmp_path / "profile.yaml").write_text(text)
    profile = cluster.load(str(tmp_path / "profile.yaml"))
    assert (profile.partition, profile.account, profile.qos) == ("2024_10", "0123", "0x1f")
    assert (profile.minutes, profile.sbatch) == (1000, {"begin": "10:00", "nice": 5})
    (tmp_path / "copy.yaml").write_text(cluster.dump(profile))
    assert cluster.load(str(tmp_path / "copy.yaml")) == profile
