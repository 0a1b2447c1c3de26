"""What one rank cannot do ends all ranks, once told and with one status."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from threads import ThreadWorld, on_ranks

from launch.lifecycle.agreement import batches_of_all, first_does, joined, together, told_by_first
from launch.lifecycle.exit_status import BAD_INPUT
from trainer.distributed import devices
from trainer.distributed.world import World
from trainer.loop import DivergedError


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


@pytest.mark.parametrize("rank", [0, 1])
def test_what_stands_in_the_way_on_the_disk_of_one_rank_ends_all(rank: int, tmp_path: Path) -> None:
    (tmp_path / "folder").symlink_to("nowhere")

    def work(world: ThreadWorld) -> object:
        def made() -> None:
            if world.rank == rank:
                (tmp_path / "folder").mkdir(exist_ok=True)

        return outcome(lambda: together(world, made))

    first, second = on_ranks(2, work)
    assert str(first).startswith(f"{tmp_path}/folder: is a link to nowhere, which is not there;")
    assert second == BAD_INPUT


def test_each_rank_has_its_own_result_where_none_fails() -> None:
    assert on_ranks(3, lambda world: together(world, lambda: failing_on(-1, world))) == [0, 1, 2]


def test_a_batch_that_one_rank_cannot_have_ends_all_at_the_same_step() -> None:
    def work(world: ThreadWorld) -> list[object]:
        def batch(step: int) -> int:
            return failing_on(1 if step == 2 else -1, world)

        batches = batches_of_all(world, batch)
        return [outcome(lambda step=step: batches(step)) for step in range(3)]

    assert on_ranks(2, work) == [[0, 0, "rank 1 has no file"], [1, 1, BAD_INPUT]]


def test_an_error_that_all_ranks_raise_is_told_by_the_first_alone_and_any_other_is_everybody_s() -> None:
    def failing(world: ThreadWorld, error: Exception) -> object:
        def work() -> None:
            with told_by_first(world, DivergedError):
                raise error

        return outcome(work)

    assert on_ranks(3, lambda world: failing(world, DivergedError("grew"))) == ["grew", BAD_INPUT, BAD_INPUT]
    assert on_ranks(2, lambda world: failing(world, ValueError("other"))) == ["other", "other"]


def test_the_first_alone_does_what_is_done_once_and_what_it_cannot_do_ends_all() -> None:
    done: list[int] = []
    assert on_ranks(2, lambda world: outcome(lambda: first_does(world, lambda: done.append(world.rank)))) == [
        None,
        None,
    ]
    assert done == [0]
    found = on_ranks(2, lambda world: outcome(lambda: first_does(world, lambda: failing_on(0, world))))
    assert found == ["rank 0 has no file", BAD_INPUT]


def test_an_error_of_the_system_that_is_not_the_disk_s_is_raised_as_it_is() -> None:
    def unreachable() -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    with pytest.raises(ConnectionRefusedError):
        together(World(0, 1, 0, torch.device("cpu")), unreachable)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_ranks_that_would_share_a_gpu_are_refused_as_they_join(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    def refuse(gpus: list[str]) -> None:
        raise ValueError(f"share {gpus}")

    world = World(0, 1, 0, torch.device(device, 0))
    monkeypatch.setattr(World, "from_environment", lambda seconds: world if seconds == 7.0 else None)
    monkeypatch.setattr(devices, "of_this_process", lambda index: f"GPU {index}")
    monkeypatch.setattr(devices, "refuse_shared", refuse)
    found = outcome(lambda: joined(7.0))
    assert found == "share ['GPU 0']" if device == "cuda" else found is world


def test_no_rank_leaves_before_what_it_exchanges_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[int] = []
    monkeypatch.setattr(World, "settle", lambda world: settled.append(world.rank))
    world = World(0, 1, 0, torch.device("cpu"))
    assert outcome(lambda: together(world, lambda: failing_on(0, world))) == "rank 0 has no file"
    assert settled == [0]
    with pytest.raises(DivergedError), told_by_first(world, DivergedError):
        raise DivergedError("grew")
    assert settled == [0, 0]
