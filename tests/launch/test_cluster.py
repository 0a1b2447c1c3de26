from pathlib import Path

import pytest

from launch.lifecycle import cluster
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.restart_policy import RestartConfig


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
    with pytest.raises(ValueError, match="one of containers, plain, preemptible, workstation"):
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


@pytest.mark.parametrize(
    "profile",
    [
        {"processes_per_node": 0},
        {"cpus_per_process": 0},
        {"straggler_seconds": 0},
        {"signal_seconds": 0},
        {"signal_seconds": 60, "minutes": 1},
        {"gpus_per_node": 4, "processes_per_node": 5},
        {"sbatch": {"job_name": "mine"}},
        {"sbatch": {"mem": "8G"}, "memory_gib": 8},
        {"setup": ("echo \0",)},
        {"srun_arguments": ("\0",)},
        {"environment": {"NAME": "\0"}},
        {"environment": {"1NAME": 1}},
        {"restarts": RestartConfig(max_failures=-1)},
        {"python": "a 'b"},
    ],
)
def test_each_of_these_alone_is_a_problem(profile: dict[str, object]) -> None:
    assert len(list(ClusterConfig(**profile).problems())) == 1


@pytest.mark.parametrize(
    "profile",
    [
        {"signal_seconds": 1},
        {"signal_seconds": 59, "minutes": 1},
        {"gpus_per_node": 4, "processes_per_node": 4},
        {"gres": "gpu:4", "processes_per_node": 8},
        {"straggler_seconds": 1, "cpus_per_process": 1, "minutes": 3, "nodes": 1},
        {"sbatch": {"mem": "8G", "mail-user": "me", "partition": "side"}},
        {"environment": {"NAME_1": "two\nlines", "N": 4, "F": 0.5}},
        {"srun_arguments": ("--mpi=none", "--exports=1")},
        {"restarts": RestartConfig(0, 0, 0)},
    ],
)
def test_none_of_these_is_a_problem(profile: dict[str, object]) -> None:
    assert list(ClusterConfig(**profile).problems()) == []


def test_a_job_has_as_many_ranks_as_its_nodes_have() -> None:
    assert ClusterConfig(nodes=3, processes_per_node=4).world_size == 12


def test_a_profile_that_says_nothing_asks_for_one_rank_for_an_hour_and_may_be_restarted(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("{}")
    assert cluster.load(str(tmp_path / "empty.yaml")) == ClusterConfig(
        nodes=1,
        processes_per_node=1,
        cpus_per_process=1,
        gpus_per_node=0,
        gpu_memory_gib=0,
        memory_gib=0,
        minutes=60,
        signal_seconds=120,
        straggler_seconds=60,
        sbatch={},
        environment={},
        restarts=RestartConfig(max_requeues=100, max_failures=3, exclude_after=2),
    )
