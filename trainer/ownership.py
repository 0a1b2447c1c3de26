"""Ownership: which rank writes which parameter of a checkpoint, and how the pieces of the others get to it."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.partitions import KINDS, Piece
from trainer.world import World


@dataclass(frozen=True)
class Extent:
    """Where a piece lies."""

    name: str
    start: int
    stop: int


def owners(held: list[list[Extent]]) -> dict[str, int]:
    """Return the writing rank of each parameter: of those who hold most of it, who writes least so far.

    At ZeRO 3 all hold as much but for some padding, hence the tenth.
    """
    loads = [0] * len(held)
    lengths: dict[str, dict[int, int]] = {}
    for rank, extents in enumerate(held):
        for extent in extents:
            lengths.setdefault(extent.name, {})[rank] = extent.stop - extent.start
    owner: dict[str, int] = {}
    for name, by_rank in lengths.items():
        most = max(by_rank.values())
        holders = [rank for rank, length in by_rank.items() if length > 0.9 * most]
        owner[name] = min(holders, key=lambda rank: loads[rank])
        loads[owner[name]] += sum(by_rank.values())
    return owner


class Ownership:
    """The plan of a run's saves, and the host memory that they are copied into."""

    def __init__(self, pieces: list[Piece], shapes: dict[str, torch.Size], world: World) -> None:
        self._world = world
        self._shapes = shapes
        self._held = world.gather([Extent(piece.name, piece.start, piece.stop) for piece in pieces])
        self._owners = owners(self._held)
        self._whole = {
            (rank, extent.name)
            for rank, extents in enumerate(self._held)
            for extent in extents
            if extent.stop - extent.start == shapes[extent.name].numel()
        }
        # Kept from save to save: fresh pages cost more than the copy itself.
        self._host: dict[tuple[str, str], Tensor] = {}

    def snapshot(self, pieces: list[Piece]) -> dict[str, dict[str, Tensor]]:
        """Return, for each of KINDS, the whole tensors that this rank writes, in host memory. Collective.

        The tensors are overwritten by the next call.
        """
        received, waiting = self._exchange(pieces)
        mine = [piece for piece in pieces if self._owners[piece.name] == self._world.rank]
        for piece in mine:
            for kind in KINDS:
                self._place(kind, Extent(piece.name, piece.start, piece.stop), piece.tensors[kind])
        for work in waiting:
            work.wait()
        for kind, extent, tensor in received:
            self._place(kind, extent, tensor)
        names = [name for name, owner in self._owners.items() if owner == self._world.rank]
        return {kind: {name: self._host[kind, name].view(self._shapes[name]) for name in names} for kind in KINDS}

    def _exchange(self, pieces: list[Piece]) -> tuple[list[tuple[str, Extent, Tensor]], list[dist.Work]]:
        """Start sending what others write, and receiving what this rank lacks of what it writes."""
        waiting: list[dist.Work] = []
        received: list[tuple[str, Extent, Tensor]] = []
        here = {piece.name: piece for piece in pieces}
        for rank, extents in enumerate(self._held):
            for extent in extents:
                owner = self._owners[extent.name]
                if owner == rank or (owner, extent.name) in self._whole:
                    continue
                for kind in KINDS:
                    if rank == self._world.rank:
                        waiting.append(_started(dist.isend(here[extent.name].tensors[kind], owner)))
                    elif owner == self._world.rank:
                        place = torch.empty(extent.stop - extent.start, device=self._world.device)
                        waiting.append(_started(dist.irecv(place, rank)))
                        received.append((kind, extent, place))
        return received, waiting

    def _place(self, kind: str, extent: Extent, tensor: Tensor) -> None:
        key = (kind, extent.name)
        if key not in self._host:
            pinned = self._world.device.type == "cuda"
            self._host[key] = torch.empty(self._shapes[extent.name].numel(), pin_memory=pinned)
        self._host[key][extent.start : extent.stop].copy_(tensor)


def _started(work: dist.Work | None) -> dist.Work:
    assert work is not None, "this rank is not part of the group"
    return work
