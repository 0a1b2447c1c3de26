"""What ranks exchange is everyone's, in the order of the ranks, and leaves what each of them has as it was."""

import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from threads import CPU, on_gloo, on_ranks

from trainer.distributed.world import World


@pytest.mark.parametrize("world_size", [1, 2, 3])
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


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_everyones_item_comes_in_the_order_of_the_ranks(world_size: int) -> None:
    expected = [("rank", number) for number in range(world_size)]
    assert on_gloo(world_size, lambda world: world.gather(("rank", world.rank))) == [expected] * world_size


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_what_all_have_is_collected_by_the_first_alone(world_size: int) -> None:
    expected = [("rank", number) for number in range(world_size)]
    found = on_gloo(world_size, lambda world: world.collect(("rank", world.rank)))
    assert found == [expected] + [[]] * (world_size - 1)


@pytest.mark.parametrize("raised", [(), (0,), (2,), (0, 1, 2)])
def test_a_flag_of_any_rank_is_raised_for_all(raised: tuple[int, ...]) -> None:
    assert on_gloo(3, lambda world: world.agree(world.rank in raised)) == [bool(raised)] * 3


def test_what_the_first_has_is_told_to_all_and_travels_over_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def told(items: list[str], **options: object) -> None:
        given.extend((*items, options))
        items[0] = "of the first"

    monkeypatch.setattr("trainer.distributed.world.dist.broadcast_object_list", told)
    assert World(1, 2, 1, torch.device("cuda")).broadcast("mine") == "of the first"
    assert given == ["mine", {"src": 0, "device": CPU, "group": None}]


def test_a_twin_is_the_same_processes_over_a_channel_of_its_own_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr("trainer.distributed.world.dist.new_group", lambda **options: made.append(options) or "channel")
    found = World(1, 2, 3, torch.device("cuda")).twin(7.0)
    assert found == World(1, 2, 3, CPU, "channel")  # type: ignore[arg-type]  # stands for a group
    assert made == [{"backend": "gloo", "timeout": timedelta(seconds=7)}]
    assert World(0, 1, 3, torch.device("cuda")).twin(7.0) == World(0, 1, 3, CPU)


@pytest.mark.parametrize(("world_size", "is_joined"), [(1, True), (2, True), (2, False)])
def test_several_processes_leave_the_channel_that_they_have_and_one_keeps_it(
    monkeypatch: pytest.MonkeyPatch, world_size: int, is_joined: bool
) -> None:
    told: list[str] = []
    dist = "trainer.distributed.world.dist."
    monkeypatch.setattr(f"{dist}is_initialized", lambda: is_joined)
    monkeypatch.setattr(f"{dist}all_reduce", lambda _: told.append("settled"))
    monkeypatch.setattr(f"{dist}destroy_process_group", lambda: told.append("left"))
    World(0, world_size, 0, CPU).close()
    assert told == (["settled"] if is_joined else []) + (["left"] if is_joined and world_size > 1 else [])


@pytest.mark.parametrize(("lets_go", "seconds"), [(True, 2.0), (False, 10.0)])
def test_nobody_leaves_while_a_tensor_of_the_last_exchange_is_held_but_for_long(
    monkeypatch: pytest.MonkeyPatch, lets_go: bool, seconds: float
) -> None:
    held: list[torch.Tensor] = []
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)

    def sleep(seconds: float) -> None:
        clock.now += seconds
        if clock.now > 2.0 and lets_go:
            held.clear()

    clock.sleep = sleep
    monkeypatch.setattr("trainer.distributed.world.time", clock)
    monkeypatch.setattr("trainer.distributed.world.dist.is_initialized", lambda: True)
    monkeypatch.setattr("trainer.distributed.world.dist.all_reduce", held.append)
    World(0, 2, 0, CPU).settle()
    assert clock.now == pytest.approx(seconds, abs=0.01)


def test_what_is_too_long_for_a_message_is_not_collected() -> None:
    # A pickle has a few bytes of its own.
    assert len(on_gloo(2, lambda world: world.collect(b"x" * 4_050))[0]) == 2

    def rank(world: World) -> None:
        with pytest.raises(AssertionError, match="too long for one message"):
            world.collect(b"x" * 4_096)

    on_gloo(2, rank)


def test_one_process_is_first_and_its_own_company() -> None:
    world = World(0, 1, 0, CPU)
    assert (world.is_first, World(1, 2, 0, CPU).is_first) == (True, False)
    assert world.broadcast("mine") == "mine"
    assert world.twin(1.0) == world
    assert world.agree(True) and not world.agree(False)  # noqa: PT018


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_rank_gets_what_all_have_for_it(world_size: int) -> None:
    def rank(world: World) -> list[float]:
        # Rank r has r + c elements for rank c, all of them 10 r + c.
        sent = [world.rank + other for other in range(world_size)]
        tensor = torch.cat([torch.full((count,), 10.0 * world.rank + other) for other, count in enumerate(sent)])
        return world.exchange(tensor, sent, sent).tolist()

    ranks = range(world_size)
    assert on_gloo(world_size, rank) == [
        [10.0 * other + mine for other in ranks for _ in range(mine + other)] for mine in ranks
    ]


@pytest.mark.parametrize("source", [0, 2])
def test_a_tensor_of_one_rank_is_spread_to_all_however_it_lies(source: int) -> None:
    def rank(world: World) -> list[list[float]]:
        tensor = torch.full((2, 3), float(world.rank)).t()
        world.spread(tensor, source)
        return tensor.tolist()

    assert on_gloo(3, rank) == [[[float(source)] * 2] * 3] * 3


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_what_one_rank_cannot_do_is_refused_by_all_with_one_sentence(world_size: int) -> None:
    def rank(world: World) -> tuple[list[int], str]:
        def work() -> None:
            if world.rank == world_size - 1:
                raise ValueError("the disk is gone")

        with pytest.raises(ValueError, match="the disk is gone") as refused:
            world.from_each(work)
        return world.from_each(lambda: world.rank), str(refused.value)

    assert on_gloo(world_size, rank) == [(list(range(world_size)), "the disk is gone")] * world_size


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_only_the_first_rank_does_what_is_done_once_and_all_are_told(world_size: int) -> None:
    done = list[int]()

    def rank(world: World) -> tuple[str, str]:
        def work() -> str:
            done.append(world.rank)
            return "found"

        def fails() -> str:
            raise ValueError("the disk is gone")

        found = world.from_first(work)
        with pytest.raises(ValueError, match="the disk is gone") as refused:
            world.from_first(fails)
        return found, str(refused.value)

    assert on_ranks(world_size, rank) == [("found", "the disk is gone")] * world_size
    assert done == [0]
