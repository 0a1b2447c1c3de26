"""A rank connects to those that it exchanges with, and says where the system lets it open too few files."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.distributed import descriptors
from trainer.distributed.world import World


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The limits of this process, soft and hard, which a test may set; the real ones stay."""
    limits = [64, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.__setitem__(slice(None), new))
    return limits


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [8])
def test_a_group_connects_the_ranks_that_exchange_something_and_not_all(
    run_ranks: Callable[..., list], world_size: int
) -> None:
    for counts, sums in run_ranks("sockets", world_size):
        _, met, exchanged, grouped = counts
        # A ring and a tree: two neighbours, and one for each time that the number of ranks can be halved.
        assert exchanged - met <= 2 + 3
        # Five groups that exchange nothing listen, and to make them all ranks meet; a mesh each would be 35.
        assert grouped - exchanged <= 5 + 3
        assert sums == [sums[0]] * 5


@pytest.mark.slow
def test_a_rank_that_is_gone_before_the_first_exchange_is_not_waited_for(
    run_ranks: Callable[..., list], tmp_path: Path
) -> None:
    _, *others = run_ranks("gone", 3, tmp_path)
    for seconds, error in others:
        assert seconds < 60
        assert "gloo" in error


def test_the_soft_limit_is_raised_to_the_hard_one(limit: list[int]) -> None:
    assert descriptors.raise_limit() == 4096
    assert limit == [4096, 4096]
    limit[:] = [64, resource.RLIM_INFINITY]
    assert descriptors.raise_limit() > 1 << 30


def test_a_limit_that_cannot_be_raised_is_what_it_is(limit: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refused)
    assert descriptors.raise_limit() == 64
    assert descriptors.hard_limit() == 4096


def test_up_to_64_ranks_each_channel_connects_all_pairs_and_with_more_one_does() -> None:
    assert {ranks: descriptors.needed(ranks) for ranks in (2, 64, 65, 1024)} == {2: 208, 64: 704, 65: 322, 1024: 2240}


def test_a_limit_that_is_none_is_more_than_anybody_opens(limit: list[int]) -> None:
    limit[:] = [64, resource.RLIM_INFINITY]
    assert descriptors.hard_limit() == 1 << 40
    assert descriptors.problem(descriptors.hard_limit(), 1024) == ""


@pytest.mark.parametrize("world_size", [2, 64, 250, 1024])
def test_a_limit_that_is_enough_has_no_problem_and_one_less_has(world_size: int) -> None:
    enough = descriptors.needed(world_size)
    assert enough > world_size
    assert descriptors.problem(enough, world_size) == ""
    sentence = descriptors.problem(enough - 1, world_size)
    assert f"may open {enough - 1} files here (ulimit -Hn), and each of {world_size} ranks needs {enough}" in sentence
    assert "raise the hard limit: LimitNOFILE" in sentence


@pytest.mark.parametrize("local_rank", [0, 3])
def test_ranks_that_could_not_open_what_they_need_do_not_meet_and_one_a_host_says_why(
    limit: list[int], monkeypatch: pytest.MonkeyPatch, local_rank: int
) -> None:
    limit[:] = [64, 1024]
    variables = {
        "RANK": "3",
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": "1024",
        "MASTER_ADDR": "n1",
        "MASTER_PORT": "1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises((ValueError, SystemExit)) as refused:
        World.from_environment()
    words = "a process may open 1024 files here (ulimit -Hn), and each of 1024 ranks needs 2240; raise"
    assert str(refused.value).startswith(words) if local_rank == 0 else refused.value.code == 2
    assert limit == [1024, 1024]
