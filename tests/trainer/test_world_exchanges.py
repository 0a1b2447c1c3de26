"""What ranks exchange is everyone's, in the order of the ranks, and leaves what each of them has as it was."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from trainer.world import World

T = TypeVar("T")
CPU = torch.device("cpu")


def on_gloo(world_size: int, work: Callable[[World], T]) -> list[T]:
    """Return what the work returns on each rank: threads of this process, whose exchanges go over gloo."""
    store = HashStore()

    def rank(number: int) -> T:
        group = dist.ProcessGroup(store, number, world_size)
        group._set_default_backend(dist.ProcessGroup.BackendType.GLOO)
        gloo = dist.ProcessGroupGloo(dist.PrefixStore("gloo", store), number, world_size, timedelta(seconds=60))
        group._register_backend(CPU, dist.ProcessGroup.BackendType.GLOO, gloo)
        return work(World(number, world_size, number, CPU, group=group))

    with ThreadPoolExecutor(world_size) as threads:
        return list(threads.map(rank, range(world_size)))


@pytest.mark.parametrize("world_size", [1, 3])
def test_sums_and_maxima_are_those_of_all_ranks_and_change_no_argument(world_size: int) -> None:
    def rank(world: World) -> list[list[float]]:
        mine = torch.tensor([1.0 + world.rank, -2.0 * world.rank], requires_grad=True)
        results = [world.sum(mine), world.maximum(mine), mine]
        world.barrier()
        return [result.tolist() for result in results]

    ranks = range(world_size)
    total, largest = [sum(1.0 + rank for rank in ranks), sum(-2.0 * rank for rank in ranks)], [float(world_size), 0.0]
    expected = [[total, largest, [1.0 + rank, -2.0 * rank]] for rank in ranks]
    assert on_gloo(world_size, rank) == expected


@pytest.mark.parametrize("world_size", [1, 3])
def test_everyones_item_comes_in_the_order_of_the_ranks(world_size: int) -> None:
    expected = [("rank", number) for number in range(world_size)]
    assert on_gloo(world_size, lambda world: world.gather(("rank", world.rank))) == [expected] * world_size


@pytest.mark.parametrize("raised", [(), (0,), (2,), (0, 1, 2)])
def test_a_flag_of_any_rank_is_raised_for_all(raised: tuple[int, ...]) -> None:
    assert on_gloo(3, lambda world: world.agree(world.rank in raised)) == [bool(raised)] * 3


def test_one_process_is_first_and_its_own_company() -> None:
    world = World(0, 1, 0, CPU)
    assert (world.is_first, World(1, 2, 0, CPU).is_first) == (True, False)
    assert world.broadcast("mine") == "mine"
    assert world.twin(1.0) == world
    assert world.agree(True) and not world.agree(False)  # noqa: PT018
