"""What Slurm says of jobs and nodes is understood, and what is asked of it is asked in its words."""

from collections.abc import Callable

import pytest

from launch.lifecycle.scheduler import Job
from launch.slurm import queue

Commands = Callable[..., Callable[[str], list[str]]]


def test_a_job_is_known_by_its_id_and_its_name(commands: Commands) -> None:
    asked = commands(squeue="echo 'PENDING|Resources||other-1|(null)'; echo 'RUNNING|None|n[1-2]|run-1|n3,n4'")
    assert queue.find("7", "run-1") == Job("RUNNING", "", "n[1-2]", ("n3", "n4"))
    assert queue.find("7", "other-1") == Job("PENDING", "Resources", "")
    assert queue.find("7", "run-2") is None, "an id that Slurm gave to another"
    words = asked("squeue")[0].split()
    assert {"--jobs=7", "--noheader", "--states=all", "--array"} <= set(words)


def test_a_job_that_slurm_forgot_is_none_and_one_that_it_does_not_tell_of_is_unknown(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(squeue="echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert queue.find("7", "run-1") is None
    commands(squeue="")
    assert queue.find("7", "run-1") is None
    commands(squeue="echo 'Unable to contact slurm controller' >&2; exit 1")
    assert queue.find("7", "run-1") == Job("UNKNOWN", "squeue: Unable to contact slurm controller", "")
    commands(squeue="exec sleep 60")
    monkeypatch.setattr(queue, "ANSWER_SECONDS", 0.2)
    found = queue.find("7", "run-1")
    assert found is not None
    assert (found.state, found.is_over) == ("UNKNOWN", False)
    assert "no answer within" in found.reason


def test_only_a_job_that_has_ended_is_over() -> None:
    over = [state for state in ("COMPLETED", "CANCELLED", "NODE_FAIL", "TIMEOUT") if Job(state, "", "").is_over]
    assert len(over) == 4
    assert not any(Job(state, "", "").is_over for state in ("PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "UNKNOWN"))


def test_without_slurm_nothing_is_known_and_nothing_fails(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("nothing")))
    assert queue.find("7", "run-1") is None
    assert queue.usable_nodes() == []
    assert queue.expanded("n[1-2],n4") == ["n[1-2]", "n4"]
    assert queue.max_array_tasks() is None


SINFO = """cat <<END
n1|idle|main*|fast,gpu
n2|mixed|main*|fast
n3|down|main*|fast,gpu
n4|idle*|main*|fast,gpu
n5|allocated|side|gpu
n6|drained|side|gpu
n7|idle~|main*|slow
END"""


def test_nodes_that_take_jobs_are_those_of_the_default_partition_unless_another_is_named(commands: Commands) -> None:
    asked = commands(sinfo=SINFO)
    # A star behind a state is a node that does not answer; behind a partition it is the default.
    assert queue.usable_nodes() == ["n1", "n2", "n7"]
    assert "--partition" not in asked("sinfo")[-1]
    commands(sinfo="echo 'n5|allocated|side|gpu'; echo 'n6|drained|side|gpu'; echo 'n1|idle|main*|gpu'")
    assert queue.usable_nodes("side") == ["n1", "n5"], "Slurm answers for the partition that was asked for"
    assert "--partition=side" in asked("sinfo")[-1]
    commands(sinfo="echo 'n9|idle|one|'; echo 'n8|idle|two|'")
    assert queue.usable_nodes() == ["n8", "n9"], "a cluster without a default partition"


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("fast", ["n1", "n2"]),
        ("fast&gpu", ["n1"]),
        ("gpu|slow", ["n1", "n7"]),
        ("none", []),
        # Only Slurm knows what these ask for.
        ("[fast*2]", ["n2"]),
        ("fast&(gpu|slow)", ["n2"]),
    ],
)
def test_a_constraint_leaves_the_nodes_that_fulfil_it(commands: Commands, constraint: str, expected: list[str]) -> None:
    commands(sinfo=SINFO)
    assert queue.usable_nodes("", constraint, among=("n2", "n3", "n99")) == expected


def test_a_list_of_nodes_is_expanded_by_slurm_where_it_is_one(commands: Commands) -> None:
    asked = commands(scontrol="echo n1; echo n2")
    assert queue.expanded("n[1-2]") == ["n1", "n2"]
    assert asked("scontrol") == ["show hostnames n[1-2]"]
    assert queue.expanded("n1,n9") == ["n1", "n9"]
    assert queue.expanded("") == []
    assert len(asked("scontrol")) == 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("MaxArraySize            = 1001", 1001),
        ("MaxArraySize            = 0", 1),
        ("MaxArraySize            = unlimited", None),
        ("MaxJobCount             = 9", None),
        ("", None),
    ],
)
def test_the_largest_array_is_what_slurm_says(commands: Commands, said: str, expected: int | None) -> None:
    commands(scontrol=f"echo 'SlurmVersion = 23'; echo '{said}'; echo 'Other = 5'")
    assert queue.max_array_tasks() == expected


def test_jobs_are_found_by_name_signalled_and_cancelled(commands: Commands) -> None:
    asked = commands(squeue="echo 7; echo 8", scancel="")
    assert queue.named("doctor-1") == ["7", "8"]
    assert "--name=doctor-1" in asked("squeue")[-1].split()
    queue.signal_ranks("7", "USR2")
    queue.cancel("7_3")
    assert asked("scancel") == ["--signal=USR2 7", "7_3"]
    commands(squeue="echo away >&2; exit 1", scancel="echo 'Access denied' >&2; exit 1")
    queue.signal_ranks("7", "USR2")  # one that has just ended needs none
    with pytest.raises(ValueError, match="scancel 7: Access denied"):
        queue.cancel("7")
    with pytest.raises(ValueError, match="squeue: away"):
        queue.named("doctor-1")
