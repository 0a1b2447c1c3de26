"""Each parameter has one writer, who holds most of it; what others hold reaches it, and what it reads reaches them."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from threads import CPU, on_gloo

from trainer.distributed.world import World
from trainer.optim.ownership import Extent, Ownership, owners
from trainer.optim.partitions import KINDS, Piece

SHAPES = {"a": torch.Size([5, 7]), "b": torch.Size([3]), "c": torch.Size([16]), "d": torch.Size([1])}
"""Sizes that no cut fits."""


def whole(kind: str, name: str) -> Tensor:
    """Return a tensor whose every element says where it belongs."""
    first = 1000.0 * KINDS.index(kind) + 100.0 * list(SHAPES).index(name)
    return torch.arange(SHAPES[name].numel()) + first


def everything(rank: int, world_size: int) -> list[Extent]:
    """As at ZeRO 0."""
    return [Extent(name, 0, shape.numel()) for name, shape in SHAPES.items()]


def flat(rank: int, world_size: int) -> list[Extent]:
    """As at ZeRO 1 and 2: all one behind the other, cut evenly."""
    part = -(-sum(shape.numel() for shape in SHAPES.values()) // world_size)
    begin, extents = 0, []
    for name, shape in SHAPES.items():
        low, high = max(rank * part - begin, 0), min((rank + 1) * part - begin, shape.numel())
        extents += [Extent(name, low, high)] if low < high else []
        begin += shape.numel()
    return extents


def even(rank: int, world_size: int) -> list[Extent]:
    """As at ZeRO 3: each cut evenly, the last parts shorter or empty."""
    parts = {name: -(-shape.numel() // world_size) for name, shape in SHAPES.items()}
    cut = [Extent(name, rank * n, min((rank + 1) * n, SHAPES[name].numel())) for name, n in parts.items()]
    return [extent for extent in cut if extent.start < extent.stop]


def pieces(extents: list[Extent], *, filled: bool) -> list[Piece]:
    def tensor(kind: str, extent: Extent) -> Tensor:
        part = whole(kind, extent.name)[extent.start : extent.stop].clone()
        return part if filled else torch.zeros_like(part)

    return [Piece(each.name, each.start, {kind: tensor(kind, each) for kind in KINDS}) for each in extents]


CUTS = pytest.mark.parametrize("cut", [everything, flat, even])
WORLDS = pytest.mark.parametrize("world_size", [1, 2, 4])
# All at once, and so few that every tensor takes many rounds.
ROUNDS = pytest.mark.parametrize("round_elements", [1 << 20, 5])


@CUTS
@WORLDS
@ROUNDS
def test_the_writers_have_every_tensor_once_and_to_the_last_bit(
    cut: Callable[..., list[Extent]], world_size: int, round_elements: int
) -> None:
    def rank(world: World) -> dict[str, dict[str, Tensor]]:
        held = pieces(cut(world.rank, world_size), filled=True)
        ownership = Ownership(held, SHAPES, world, round_elements=round_elements)
        ownership.snapshot(held)
        return ownership.snapshot(held)

    written = on_gloo(world_size, rank)
    for kind in KINDS:
        assert sorted(name for tensors in written for name in tensors[kind]) == sorted(SHAPES)
        for tensors in written:
            for name, tensor in tensors[kind].items():
                assert tensor.shape == SHAPES[name]
                assert torch.equal(tensor.view(-1), whole(kind, name))


@CUTS
@WORLDS
@ROUNDS
def test_each_tensor_is_read_by_one_rank_and_reaches_all_that_hold_a_part_of_it(
    cut: Callable[..., list[Extent]], world_size: int, round_elements: int
) -> None:
    def rank(world: World) -> tuple[list[tuple[str, str]], bool]:
        read = list[tuple[str, str]]()

        def reads(kind: str, name: str, start: int, stop: int) -> Tensor:
            read.append((kind, name))
            return whole(kind, name)[start:stop]

        held, expected = (pieces(cut(world.rank, world_size), filled=filled) for filled in (False, True))
        ownership = Ownership(held, SHAPES, world, round_elements=round_elements)
        ownership.read(held, reads)
        ownership.deal(held)
        both = zip(held, expected, strict=True)
        return read, all(torch.equal(one.tensors[kind], two.tensors[kind]) for one, two in both for kind in KINDS)

    told = on_gloo(world_size, rank)
    assert all(is_right for _, is_right in told)
    assert sorted(each for read, _ in told for each in read) == sorted(
        (kind, name) for kind in KINDS for name in SHAPES
    )


class OneOfMany(World):
    """Rank 0 of so many that there is no room for the others: it is told what they hold, and hears nothing of them."""

    def gather(self, item: object) -> list:  # type: ignore[type-arg]
        return [even(rank, self.world_size) if isinstance(item, list) else item for rank in range(self.world_size)]


def test_a_save_of_a_thousand_ranks_opens_no_channel_of_two_and_sends_little_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes, pairs = list[int](), set[int]()

    def exchanged(received: Tensor, sent: Tensor, *_: object, **__: object) -> None:
        sizes.append(max(received.numel(), sent.numel()))

    for name in ("isend", "irecv"):
        monkeypatch.setattr(dist, name, lambda _, peer, *__, **___: pairs.add(peer))
    monkeypatch.setattr(dist, "all_to_all_single", exchanged)
    monkeypatch.setattr(sys.modules[__name__], "SHAPES", {str(each): torch.Size([1024, 8]) for each in range(4)})
    held = pieces(even(0, 1024), filled=True)
    Ownership(held, SHAPES, OneOfMany(0, 1024, 0, CPU)).snapshot(held)
    assert pairs == set()
    assert len(sizes) == len(KINDS)
    assert max(sizes) < 1024 * 8 + 8


def test_what_is_on_its_way_is_bounded_whatever_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()
    exchange = World.exchange

    def counted(world: World, tensor: Tensor, sent: list[int], expected: list[int]) -> Tensor:
        sizes.append(max(tensor.numel(), sum(expected)))
        return exchange(world, tensor, sent, expected)

    monkeypatch.setattr(World, "exchange", counted)

    def rank(world: World) -> None:
        held = pieces(even(world.rank, 4), filled=True)
        Ownership(held, SHAPES, world, round_elements=6).snapshot(held)

    on_gloo(4, rank)
    assert 0 < max(sizes) <= 6


def test_whole_copies_are_shared_out_evenly() -> None:
    everywhere = [Extent(str(index), 0, 10) for index in range(8)]
    shares = list(owners([everywhere] * 4).values())
    assert all(shares.count(rank) == 2 for rank in range(4))


def test_a_cut_parameter_goes_to_who_holds_most_of_it() -> None:
    held = [[Extent("a", 0, 10), Extent("b", 0, 2)], [Extent("b", 2, 10), Extent("c", 0, 5)]]
    assert owners(held) == {"a": 0, "b": 1, "c": 1}


def test_padding_at_the_end_does_not_give_everything_to_the_first() -> None:
    held = [[Extent(str(index), 0, 100) for index in range(4)], [Extent(str(index), 100, 199) for index in range(4)]]
    assert sorted(owners(held).values()) == [0, 0, 1, 1]


@pytest.mark.parametrize(("device", "is_pinned"), [("cuda", True), ("cpu", False)])
def test_what_is_copied_from_a_gpu_is_copied_to_memory_that_is_page_locked(
    monkeypatch: pytest.MonkeyPatch, device: str, is_pinned: bool
) -> None:
    made: set[tuple[torch.dtype, bool]] = set()
    empty = torch.empty

    def noted(numel: int, *, dtype: torch.dtype, pin_memory: bool) -> Tensor:
        made.add((dtype, pin_memory))
        return empty(numel, dtype=dtype)

    held = pieces(everything(0, 1), filled=True)
    owned = Ownership(held, SHAPES, World(0, 1, 0, torch.device(device)))
    monkeypatch.setattr("trainer.optim.ownership.torch.empty", noted)
    owned.snapshot(held)
    assert made == {(torch.float32, is_pinned)}


@pytest.mark.parametrize(("first", "second", "owner"), [(5, 10, 1), (90, 100, 1), (91, 100, 0), (10, 10, 0)])
def test_who_holds_clearly_less_than_another_does_not_write(first: int, second: int, owner: int) -> None:
    held = [[Extent("a", 0, first)], [Extent("a", first, first + second)]]
    assert owners(held) == {"a": owner}
