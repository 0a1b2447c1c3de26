"""What one rank cannot do ends all ranks, once told and with one status."""

from collections.abc import Callable

import pytest
from threads import ThreadWorld, on_ranks

from launch.together import BAD_INPUT, batches_of_all, together


def outcome(work: Callable[[], object]) -> object:
    try:
        return work()
    except ValueError as error:
        return str(error)
    except SystemExit as left:
        return left.code


def failing_on(rank: int, world: ThreadWorld) -> int:
    if world.rank == rank:
        raise ValueError(f"rank {rank} has no file")
    return world.rank


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_the_sentence_of_any_rank_is_told_by_the_first_and_all_leave_alike(rank: int) -> None:
    found = on_ranks(3, lambda world: outcome(lambda: together(world, lambda: failing_on(rank, world))))
    assert found == [f"rank {rank} has no file", BAD_INPUT, BAD_INPUT]


def test_each_rank_has_its_own_result_where_none_fails() -> None:
    assert on_ranks(3, lambda world: together(world, lambda: failing_on(-1, world))) == [0, 1, 2]


def test_a_batch_that_one_rank_cannot_have_ends_all_at_the_same_step() -> None:
    def work(world: ThreadWorld) -> list[object]:
        def batch(step: int) -> int:
            return failing_on(1 if step == 2 else -1, world)

        batches = batches_of_all(world, batch)
        return [outcome(lambda step=step: batches(step)) for step in range(3)]

    assert on_ranks(2, work) == [[0, 0, "rank 1 has no file"], [1, 1, BAD_INPUT]]
