"""Exchange: moves elements of parameters from the ranks that hold them to the ranks that own them, and back.

All pairs of ranks share one all-to-all: sends and receives of two ranks would open a channel for each pair, and of 1024
ranks there are half a million. It is made in rounds, so that what is on its way stays small whatever a rank owns.

    rank 0 holds   A A A  B B                A is whole on rank 0, which owns it: nothing travels
    rank 1 holds               B B B  C C    rank 1 owns B: a save sends B B from rank 0 to rank 1, a load sends it back
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.distributed.world import World

ROUND_ELEMENTS = 8 << 20
"""Elements of a rank per round: 32 MiB of fp32 to send and the same to receive."""


@dataclass(frozen=True)
class Extent:
    """The position of a piece in a flattened parameter."""

    name: str
    start: int
    stop: int

    @property
    def length(self) -> int:
        """The number of its elements."""
        return self.stop - self.start


View = Callable[[Extent], Tensor]
"""The elements of an extent, flat, wherever they are kept."""


class Exchange:
    """The ways of all pieces that are not where they are owned."""

    def __init__(
        self, held: list[list[Extent]], owners: Mapping[str, int], world: World, *, round_elements: int = ROUND_ELEMENTS
    ) -> None:
        self._world = world
        self._mine: list[list[Extent]] = [[] for _ in held]
        self._theirs: list[list[Extent]] = [[] for _ in held]
        lengths: dict[tuple[int, int], int] = {}
        for rank, extents in enumerate(held):
            for extent in extents:
                if (owner := owners.get(extent.name, rank)) != rank:
                    lengths[rank, owner] = lengths.get((rank, owner), 0) + extent.length
                    # The plan is that of all ranks; what is kept of it are this rank's own ways.
                    if rank == world.rank:
                        self._mine[owner].append(extent)
                    if owner == world.rank:
                        self._theirs[rank].append(extent)
        # Every rank has a window of the same length for each other: whoever has most of them sets it for all.
        self._window = max(1, round_elements // max(1, _most_peers(lengths)))
        # The same number on all ranks: those that have nothing left must still take part in an all-to-all.
        self.num_rounds = -(-max(lengths.values(), default=0) // self._window)

    def to_owners(self, held: View, owned: View, dtype: torch.dtype) -> None:
        """Copy what each rank holds, of this type, to where its owner keeps it. Collective."""
        self._move(self._mine, held, self._theirs, owned, dtype)

    def to_holders(self, owned: View, held: View, dtype: torch.dtype) -> None:
        """Copy what each rank owns, of this type, to all that hold a piece of it. Collective."""
        self._move(self._theirs, owned, self._mine, held, dtype)

    def _move(
        self,
        leaving: list[list[Extent]],
        source: View,
        arriving: list[list[Extent]],
        target: View,
        dtype: torch.dtype,
    ) -> None:
        for number in range(self.num_rounds):
            first, last = number * self._window, (number + 1) * self._window
            sent = [list(_within(extents, first, last)) for extents in leaving]
            expected = [list(_within(extents, first, last)) for extents in arriving]
            parts = [source(extent)[part] for to_one in sent for extent, part in to_one]
            tensor = torch.cat(parts) if parts else torch.empty(0, dtype=dtype)
            # What a load sends lies in host memory, and NCCL sends from its device alone.
            received = self._world.exchange(tensor.to(self._world.device), _counts(sent), _counts(expected))
            at = 0
            for from_one in expected:
                for extent, part in from_one:
                    target(extent)[part].copy_(received[at : (at := at + part.stop - part.start)])


def _most_peers(pairs: Mapping[tuple[int, int], int]) -> int:
    """Return how many others the busiest rank sends to, or receives from."""
    peers: dict[tuple[str, int], int] = {}
    for sender, receiver in pairs:
        for end in (("sends", sender), ("receives", receiver)):
            peers[end] = peers.get(end, 0) + 1
    return max(peers.values(), default=0)


def _within(extents: list[Extent], first: int, last: int) -> Iterator[tuple[Extent, slice]]:
    """Yield which part of each extent falls into [first, last) where they lie one behind the other."""
    begin = 0
    for extent in extents:
        low, high = max(first - begin, 0), min(last - begin, extent.length)
        if low < high:
            yield extent, slice(low, high)
        begin += extent.length


def _counts(parts: list[list[tuple[Extent, slice]]]) -> list[int]:
    return [sum(part.stop - part.start for _, part in of_one) for of_one in parts]
